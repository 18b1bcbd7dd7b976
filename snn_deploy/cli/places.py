"""``--on``: our model of a target, or the independent simulator behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snn_deploy.errors import UsageError

if TYPE_CHECKING:
    from snn_deploy.backends.base import Oracle, Target


def simulator(target: Target, place: str | None, *, default: str) -> Oracle | None:
    """Return the simulator that ``--on`` names, None for our own model.

    default: "emulator", or "judge" for whatever independent simulator the target has.
    """
    judge = target.oracle()
    if place is None:
        place = default
        if place == "judge":
            return judge
    if place == "emulator":
        return None
    # A target with more simulators than the one that judges declares a method for them.
    declared = getattr(target, "simulators", None)
    oracles: tuple[Oracle, ...] = declared() if declared else (judge,) if judge else ()
    by_name = {oracle.name: oracle for oracle in oracles}
    if place in by_name:
        by_name[place].version()  # missing tools are reported before hours of work
        return by_name[place]
    choices = ["emulator", *by_name]
    raise UsageError(
        f"{target.name} does not run on {place!r}", hint="--on " + " or --on ".join(choices)
    )
