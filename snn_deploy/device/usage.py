"""What a program uses of a device: memory items, and resources that have a limit.

Backends fill these records; ``budget/findings.py`` holds them against a device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MemoryKind = Literal[
    "weights", "indices", "pointers", "state", "buffers", "axons", "thresholds", "spikes"
]
LeverUnit = Literal["nonzeros", "neurons", "bits per weight"]


def within(limit: float, margin: float) -> int:
    """Return what of a limit may be used where a share of it, the margin, stays free."""
    # A tolerance of 1e-9 keeps 10 % of 1,000 at 900 although 0.9 is not exact in binary.
    return math.floor(limit * (1 - margin) + 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryItem:
    """Bits that one layer or population keeps in one memory.

    where: the layer or population. bits: >= 0. region: the memory that holds them, such as
    "core 3", "block RAM" or "flash". detail: how they are stored, where there is a choice.
    """

    where: str
    kind: MemoryKind
    bits: int
    region: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """One thing that a user can make smaller, and what that saves.

    The place uses ``fixed + cost x count`` of the resource, in the resource's unit, or less;
    findings solve this for the count that fits. where: as the user calls the layer.
    """

    where: str
    unit: LeverUnit
    count: int
    cost: float
    fixed: float = 0.0

    def fitting(self, allowed: float) -> int:
        """Return the largest count whose use is at most ``allowed``, 0 where there is none."""
        return max(0, int((allowed - self.fixed) // self.cost))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """The use of one thing that a device has only so much of.

    name: as printed, "synapse bits". where: "core 7", "flash", "chip". used: >= 0, in ``unit``.
    limit_key: the key of the limit in the device file. contributors: (place, amount), in
    ``unit``. levers: what would make it smaller. hints: further remedies, each a full phrase.
    """

    name: str
    where: str
    used: int
    limit_key: str
    unit: str
    contributors: tuple[tuple[str, int], ...] = ()
    levers: tuple[Lever, ...] = ()
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Everything that a program uses: itemised memory, resources, and what was not counted.

    cores: where it lies on a device of several cores, as JSON values (docs/mapping.md).
    """

    items: tuple[MemoryItem, ...]
    resources: tuple[Resource, ...]
    excludes: tuple[str, ...] = ()
    cores: Mapping[str, Any] | None = None

    def bits(self, kind: MemoryKind | None = None) -> int:
        """Return the bits of all items, or of one kind."""
        return sum(item.bits for item in self.items if kind in (None, item.kind))
