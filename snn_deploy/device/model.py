"""Device descriptions: limits, timing and prices, each with unit, source, kind, conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from snn_deploy.errors import DeviceError

Number = int | float

FAMILIES: tuple[str, ...] = ("cpu", "loihi", "fpga", "microcontroller", "neuromorphic")
# Strongest first. A total is as good as the weakest price in it.
KINDS: tuple[str, ...] = ("measured", "simulated", "estimated", "proxy")
# A limit may also be what the maker's documents, or a tool's device database, specify.
VALUE_KINDS: tuple[str, ...] = ("specified", *KINDS)
BASES: dict[str, str] = {
    "architecture": "energy of operations in a process node, no particular chip",
    "chip": "energy of one chip",
    "board": "energy of one board, supplies and memories included",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a number comes from. Either ``doi`` or ``ref`` (section, table, file) is given."""

    title: str
    doi: str = ""
    ref: str = ""

    def __str__(self) -> str:
        doi = f"doi:{self.doi}" if self.doi else ""
        return ", ".join(part for part in (self.title, self.ref, doi) if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A quantity: finite, not negative. source: an id in ``Device.sources``."""

    value: Number | tuple[Number, ...]
    unit: str
    source: str
    kind: str
    conditions: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Energy of one event, in picojoules.

    low_pj, high_pj: None unless several sources give an interval. unit: always "pJ".
    """

    event: str
    low_pj: float | None
    nominal_pj: float
    high_pj: float | None
    unit: str
    sources: tuple[str, ...]
    kind: str
    conditions: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device as its file describes it; all mappings are read-only.

    fit_only: no target runs on it, only ``fit`` knows it. basis: what its prices describe (see
    BASES), "" without prices. static_power: watts while switched on, None where unknown.
    excludes: what the prices leave out. unknown: limit or quantity -> why it is not known.
    path: the file as named by the user, the bare file name for a shipped one. sha256: of the
    file, followed by the file it inherits from, if any. priced_as: the device whose prices fill
    in for missing ones, "" where they are its own.
    """

    name: str
    title: str
    family: str
    fit_only: bool
    basis: str
    limits: Mapping[str, Value]
    timing: Mapping[str, Value]
    prices: Mapping[str, Price]
    static_power: Value | None
    sources: Mapping[str, Source]
    notes: tuple[str, ...]
    excludes: tuple[str, ...]
    unknown: Mapping[str, str]
    path: str
    sha256: str
    priced_as: str = ""

    def limit(self, key: str) -> Number:
        """Return a limit's number; DeviceError where the file does not state it."""
        return self._number(self.limits, "limits", key)

    def time(self, key: str) -> Number:
        """Return a timing value's number; DeviceError where the file does not state it."""
        return self._number(self.timing, "timing", key)

    def _number(self, table: Mapping[str, Value], name: str, key: str) -> Number:
        found = table.get(key)
        where = f"{self.path} -> {name}.{key}"
        if found is None:
            raise DeviceError(
                f"{self.name} does not state {key!r}, which is needed here",
                where=where,
                used=self.unknown.get(key),
                hint="give the value in a device file of your own that inherits from this one",
            )
        if isinstance(found.value, tuple):
            raise DeviceError(
                f"{key!r} is a list, one number is needed here",
                where=where,
                hint=f"write value = <number> in [{name}]",
            )
        return found.value
