"""The names in published checkpoints: prefixes and wrappers taken off, renamed, never guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from snn_deploy.errors import InputError, UnsupportedError, UsageError
from snn_deploy.ir.arrays import Array

Arrays = Mapping[str, Array]
_WRAPPED = "module"  # what DataParallel and the cutoff code's wrappers call the module they hold
_THRESHOLD = "vthr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """Arrays by the names that the architecture should know, and what was done to the names."""

    arrays: Arrays
    notes: tuple[str, ...]


def cleaned(arrays: Arrays, renames: Sequence[tuple[str, str]], *, nested: bool) -> Cleaned:
    """Return ``arrays`` without DataParallel's prefix and, where ``nested``, without the wrappers
    of the cutoff code; then renamed.

    renames: (from, to), each a parameter's name or a leading part of one that ends at a dot.
    Raises InputError where two names become one, UnsupportedError for a gain per time step,
    UsageError for a renaming that fits nothing.
    """
    _refuse_gains(arrays)
    notes: list[str] = []
    names = {key: key for key in arrays}
    if all(key.startswith(f"{_WRAPPED}.") for key in names):
        names = {key: key.removeprefix(f"{_WRAPPED}.") for key in names}
        notes.append("DataParallel's prefix module. is taken off every name")
    if nested:
        names = _unwrapped(names, notes)
    names = _renamed(names, renames)
    found: dict[str, str] = {}
    for key, name in names.items():
        if found.setdefault(name, key) != key:
            raise InputError(
                f"two tensors would both be called {name!r}",
                used=f"{found[name]} and {key}",
                hint="rename one of them otherwise: --rename FROM=TO",
            )
    return Cleaned(arrays={name: arrays[key] for key, name in names.items()}, notes=tuple(notes))


def _refuse_gains(arrays: Arrays) -> None:
    """Refuse TEBN: its p has a gain for each time step in front of axes of length 1."""
    for key, array in arrays.items():
        if key.rpartition(".")[2] == "p" and array.ndim > 1 and 0 < array.size == len(array):
            raise UnsupportedError(
                "a batch norm with a gain per time step (TEBN): no weight that stays the same "
                "over the steps holds it",
                where=key,
                used=f"{array.size} gains, {array.min():.4g} to {array.max():.4g}",
                hint="train with an ordinary batch norm, which folds into the weights",
            )


def _unwrapped(names: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    """Drop inner ``module`` components, and the thresholds that the wrappers own and never use."""
    paths = {key: name.split(".") for key, name in names.items()}
    wrappers = {
        tuple(path[:at])
        for path in paths.values()
        for at, part in enumerate(path)
        if at and part == _WRAPPED
    }
    tops = [path[0] for path in paths.values()]
    kept: dict[str, str] = {}
    for key, path in paths.items():
        owner, name = path[:-1], path[-1]
        # Of a wrapper around nothing, which stands before or behind the whole network.
        empty = len(path) == 2 and tops.count(path[0]) == 1 and path[0] in (tops[0], tops[-1])
        inside = bool(owner) and owner[-1] == _WRAPPED
        if name == _THRESHOLD and (tuple(owner) in wrappers or inside or empty):
            continue
        kept[key] = ".".join([path[0], *(part for part in path[1:] if part != _WRAPPED)])
    if len(kept) < len(paths):
        unused = len(paths) - len(kept)
        notes.append(
            f"{unused} thresholds of wrappers around layers are left out: nothing uses them"
        )
    if wrappers:
        notes.append(f"{len(wrappers)} wrappers (module.) are taken out of the names")
    return kept


def _renamed(names: Mapping[str, str], renames: Sequence[tuple[str, str]]) -> dict[str, str]:
    result = dict(names)
    done: set[str] = set()
    for old, new in renames:
        fitting = [
            key
            for key, name in names.items()
            if key not in done and (name == old or name.startswith(f"{old}."))
        ]
        if not fitting:
            raise UsageError(
                f"--rename {old}={new} fits no name in the file",
                used=some(list(names.values())),
                hint="FROM is a whole name, or a leading part of names that ends at a dot",
            )
        done.update(fitting)
        for key in fitting:
            result[key] = (new + names[key].removeprefix(old)).removeprefix(".")
    return result


def some(names: Sequence[str], most: int = 6) -> str:
    """Return the first names in words."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def rename_hint(
    arrays: Arrays, wanted: Mapping[str, tuple[int, ...]]
) -> Callable[[Sequence[str], Sequence[str]], str]:
    """Return a function from (missing, unexpected) names to the hint that most likely fits.

    wanted: the architecture's shapes by name.
    """

    def hint(missing: Sequence[str], unexpected: Sequence[str]) -> str:
        if any(name.rpartition(".")[2] == _THRESHOLD for name in unexpected):
            return (
                "the file holds learned thresholds: use snn_deploy.tickets.qcfs.QCFS, whose vthr "
                "takes them, as the neurons of the architecture"
            )
        for name in missing:
            alike = [u for u in unexpected if arrays[u].shape == wanted[name]]
            if len(alike) == 1:
                return f"if they are the same layer: --rename {_differing(alike[0], name)}"
        return "--rename FROM=TO, or let the factory build the module that was saved"

    return hint


def _differing(old: str, new: str) -> str:
    """Return FROM=TO without the end that both names share."""
    a, b = old.split("."), new.split(".")
    while len(a) > 1 and len(b) > 1 and a[-1] == b[-1]:
        del a[-1], b[-1]
    return f"{'.'.join(a)}={'.'.join(b)}"
