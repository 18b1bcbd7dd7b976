"""What nextpnr and Yosys say, read: cells used, critical path, and what does not fit."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from snn_deploy.backends.fpga.parts import PINS, PLACED_TITLES, TITLES, Cells, Part, count, larger
from snn_deploy.backends.fpga.synthesis import CriticalPath, ModuleCells, Use
from snn_deploy.device import load
from snn_deploy.errors import FitError
from snn_deploy.units import count as counted
from snn_deploy.units import percent

# "Info:           DP16KD:     113/     56   201%", written when the design is packed.
_USE = re.compile(r"^Info:\s+(\w+):\s*(\d+)/\s*(\d+)\s+\d+%$", re.MULTILINE)
_NO_PLACE = re.compile(
    r"ERROR: .*(no BELs remaining|find a placement location|find legal placement)"
)


def mapped(statistics: Mapping[str, Any], top: str, part: Part) -> tuple[ModuleCells, ...]:
    """Return the modules of a design from Yosys's ``stat -json``, a module's parameters merged.

    UnsupportedError if a cell's cost is not known.
    """
    cells = {
        name.removeprefix("\\"): module.get("num_cells_by_type", {})
        for name, module in statistics["modules"].items()
    }
    instances: Counter[str] = Counter()

    def visit(name: str, number: int) -> None:
        instances[name] += number
        for kind, inside in cells[name].items():
            if kind in cells:
                visit(kind, number * inside)

    visit(top, 1)
    types: dict[str, Counter[str]] = {}
    together: Counter[str] = Counter()
    for name, number in instances.items():
        short = name.split("\\")[1] if name.startswith("$paramod") else name
        together[short] += number
        own = types.setdefault(short, Counter())
        for kind, inside in cells[name].items():
            if kind not in cells:
                own[kind] += number * inside
    return tuple(
        ModuleCells(name=name, instances=together[name], cells=count(part, types[name]))
        for name in sorted(types)
    )


def uses(output: str) -> tuple[Use, ...]:
    """Return the kinds of cells that a packed design uses, from what nextpnr printed."""
    return tuple(
        Use(name=PLACED_TITLES[name], used=int(used), available=int(available))
        for name, used, available in _USE.findall(output)
        if name in PLACED_TITLES and int(used)
    )


def timing(report: Mapping[str, Any]) -> tuple[float | None, CriticalPath | None]:
    """Return the slowest clock's highest frequency in MHz and the slowest path within a clock."""
    frequencies = [clock["achieved"] for clock in report["fmax"].values()]
    paths = [
        _path(found["path"])
        for found in report["critical_paths"]
        if found["from"] == found["to"] and found["from"].startswith(("posedge", "negedge"))
    ]
    return (
        min(frequencies, default=None),
        max(paths, key=lambda path: path.delay_ns, default=None),
    )


def _path(segments: Sequence[Mapping[str, Any]]) -> CriticalPath:
    return CriticalPath(
        start=segments[0]["from"]["cell"],
        end=segments[-1]["to"]["cell"],
        delay_ns=sum(segment["delay"] for segment in segments),
        levels=sum(segment["type"] == "logic" for segment in segments),
    )


def check_placed(part: Part, top: str, cells: Cells, output: str) -> None:
    """Raise FitError if nextpnr could not place a design for want of room."""
    found = uses(output)
    short = [use for use in found if use.used > use.available]
    if short:
        raise _too_big(part, top, cells, short)
    if _NO_PLACE.search(output):
        fullest = max(found, key=lambda use: use.share)
        raise FitError(
            f"{top} cannot be placed on {part.name}, though each of its cells has room",
            used=f"{_text(fullest)} at most",
            hint=_larger(part, cells),
        )


def check_counted(part: Part, top: str, cells: Cells) -> None:
    """Raise FitError if a part that no tool places for has less than a design takes."""
    found = [
        Use(name=title, used=math.ceil(used), available=limit)
        for title, used, limit in _against_limits(part, cells)
    ]
    short = [use for use in found if use.used > use.available]
    if short:
        raise _too_big(part, top, cells, short)


def _against_limits(part: Part, cells: Cells) -> Iterator[tuple[str, float, int]]:
    device = load(part.name)
    for key, limit in part.limits.items():
        yield TITLES[key], getattr(cells, key), int(device.limit(limit))


def _too_big(part: Part, top: str, cells: Cells, short: Iterable[Use]) -> FitError:
    short = list(short)
    lacking = " and ".join(f"{_plural(u.used - u.available, ' more ' + u.name)}" for u in short)
    if all(use.name == PINS for use in short):
        hint = "give it fewer ports, or place it as a block without pins"
    else:
        hint = _larger(part, cells)
    return FitError(
        f"{top} does not fit {part.name}: it needs {lacking}",
        used="; ".join(_text(use) for use in short),
        hint=hint,
    )


def _text(use: Use) -> str:
    return f"{counted(use.used)} of {_plural(use.available, ' ' + use.name)} ({percent(use.share)})"


def _plural(number: int, words: str) -> str:
    return f"{counted(number)}{words}{'' if number == 1 else 's'}"


def _larger(part: Part, cells: Cells) -> str:
    for other in larger(part):
        if all(used <= limit for _, used, limit in _against_limits(other, cells)):
            return f"{other.name} has enough, by count"
    return "no larger part of this family has enough: make the design smaller"
