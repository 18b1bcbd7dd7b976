"""The one report model. Renderers add nothing to it and leave nothing out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Text cells. align: one of "l" or "r" per column. total: the last row is a sum."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    total: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar. parts: (label, value) that add up to it, or empty; low and high: its interval."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    text: str = ""
    parts: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Horizontal bars of one quantity. A bar whose value is None says in ``text`` why."""

    title: str
    unit: str
    bars: tuple[Bar, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Facts as (label, value) lines, or paragraphs with an empty label. tone: how it went."""

    lines: tuple[tuple[str, str], ...]
    title: str = ""
    tone: Literal["plain", "good", "bad", "unsure"] = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshCore:
    """A core in its place: chip, column and row of its tile, place on the tile. share: how full
    it is, more than 1 where it is not enough. text: all of it in words.
    """

    chip: int
    column: int
    row: int
    place: int
    share: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """Chips of columns x rows tiles with ``per_tile`` places each, some of them free."""

    title: str
    columns: int
    rows: int
    per_tile: int
    cores: tuple[MeshCore, ...]
    note: str = ""


Item = Table | Chart | Text | Mesh


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands under it. detail: left out of the terminal without -v."""

    title: str
    items: tuple[Item, ...]
    detail: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a command found.

    command: its name. title: one line. sections: for people. data: for programs, JSON values
    only. rows: the main table as records of raw values, for CSV.
    """

    command: str
    title: str
    sections: tuple[Section, ...]
    data: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document, schema-versioned."""
        from snn_deploy._version import __version__

        return {
            "schema": SCHEMA,
            "tool": f"snn-deploy {__version__}",
            "command": self.command,
            "ok": True,
            **self.data,
        }
