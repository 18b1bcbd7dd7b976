"""Targets by name: the built-in ones and those of installed plugins, through entry points.

A plugin declares ``[project.entry-points."snn_deploy.targets"]`` with ``name = "module:Class"``.
A name that two packages claim is an error, never a choice.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from snn_deploy.backends.base import Target
from snn_deploy.errors import SnnDeployError, UnsupportedError, UsageError

GROUP = "snn_deploy.targets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A target's name and the package that it comes from."""

    name: str
    package: str
    entry: EntryPoint


def registered() -> tuple[Registered, ...]:
    """Return all targets, built-in first, then by name; loads no target's code."""
    found: dict[str, Registered] = {}
    for entry in entry_points(group=GROUP):
        package = entry.dist.name if entry.dist is not None else "unknown"
        known = found.get(entry.name)
        if known is not None and known.entry.value != entry.value:
            raise UnsupportedError(
                f"two packages provide a target called {entry.name!r}",
                where=f"{known.package}, {package}",
                hint="uninstall one of them",
            )
        found[entry.name] = Registered(name=entry.name, package=package, entry=entry)
    own = {"cpu": 0, "loihi": 1, "fpga": 2}
    return tuple(sorted(found.values(), key=lambda r: (own.get(r.name, 9), r.name)))


def target(name: str) -> Target:
    """Return the target called ``name``; UsageError with near names where there is none."""
    choices = {r.name: r for r in registered()}
    if name not in choices:
        near = difflib.get_close_matches(name, choices, n=1)
        raise UsageError(
            f"no target is called {name!r}",
            used=f"targets: {', '.join(choices) or 'none; is snn-deploy installed?'}",
            hint=f"did you mean --target {near[0]}?" if near else "snn-deploy targets list",
        )
    chosen = choices[name]
    try:
        made: Target = chosen.entry.load()()
    except SnnDeployError:
        raise
    except Exception as error:
        raise UnsupportedError(
            f"target {name!r} cannot be loaded: {type(error).__name__}: {error}",
            where=f"package {chosen.package}",
            hint="reinstall or update the package that provides it",
        ) from error
    return made
