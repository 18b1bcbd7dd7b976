"""Options of targets that map onto cores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from snn_deploy.cli import values
from snn_deploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snn_deploy.backends.base import Target


split_option = click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="LAYER=N",
    callback=values.splits,
    help="Put a layer on at least N cores (loihi); else as few as hold it.",
)
map_option = click.option(
    "--map",
    "map_to",
    metavar="OUT.json",
    help="Write where every neuron lies (loihi; as cores.json in the folder).",
)


def check_cores(targets: Sequence[Target], options: dict[str, Any]) -> None:
    """Raise UsageError for ``--split`` or ``--map`` where no target has cores to map."""
    given = [flag for flag, key in (("--split", "splits"), ("--map", "map_to")) if options.get(key)]
    if given and not any(getattr(target, "maps_cores", False) for target in targets):
        raise UsageError(
            f"{given[0]} is for targets that map onto cores",
            where=", ".join(target.name for target in targets),
            hint=f"add --target loihi, or leave {given[0]} out",
        )
