"""Text in a fixed number of columns: folding, padding, and tables that always fit.

Widths are in terminal cells: a wide East Asian character takes two, a combining one none.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from snn_deploy.errors import printable
from snn_deploy.report.model import Table

# Columns of text fold no narrower than this before a table is divided.
_NARROW = 14
# (indent, gap between columns), the roomiest first.
_SPACINGS = ((2, 3), (2, 2), (0, 2), (0, 1))


def cells(text: str) -> int:
    """Return how many cells ``text`` takes; it holds no control characters."""
    if text.isascii():
        return len(text)
    return sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def pad(text: str, width: int, align: str = "l") -> str:
    """Return ``text`` filled with blanks to ``width`` cells; align: "l" or "r"."""
    blanks = " " * max(0, width - cells(text))
    return blanks + text if align == "r" else text + blanks


def fold(text: str, width: int) -> list[str]:
    """Return ``text`` in lines of at most ``width`` cells, at blanks where it has them.

    Nothing is lost but the blanks at which lines end; a word that is too long is divided.
    """
    lines, line = [], ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if cells(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        *full, line = _divided(word, width)
        lines += full
    return [*lines, line]


def _divided(word: str, width: int) -> list[str]:
    pieces, used = [""], 0
    for character in word:
        size = _cells_of(character)
        if used + size > width and pieces[-1]:
            pieces.append("")
            used = 0
        pieces[-1] += character
        used += size
    return pieces


def hanging(lead: str, text: str, width: int) -> list[str]:
    """Return ``lead`` and ``text``, its further lines under its first."""
    first, *rest = fold(text, max(1, width - cells(lead)))
    return [(lead + first).rstrip(), *(" " * cells(lead) + line for line in rest)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """Columns of printable cells, head first, and how they stand."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    total: bool

    def columns(self, chosen: Sequence[int]) -> _Grid:
        """Return the chosen columns."""
        return replace(
            self,
            heads=tuple(self.heads[i] for i in chosen),
            rows=tuple(tuple(row[i] for i in chosen) for row in self.rows),
            align="".join(self.align[i] for i in chosen),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitted:
    """Widths with which a grid fits."""

    widths: tuple[int, ...]
    indent: int
    gap: int


def table_lines(table: Table, width: int) -> Iterator[tuple[str, bool]]:
    """Yield the lines of a table without title and note, and whether each is of the head.

    What is too wide loses spacing first, then heads are folded, then columns of text; after
    that the table is divided into tables under each other that repeat the first column.
    Numbers are never folded, and nothing is cut off.
    """
    grid = _Grid(
        heads=tuple(map(printable, table.columns)),
        rows=tuple(tuple(map(printable, row)) for row in table.rows),
        align=table.align,
        total=table.total,
    )
    for number, (part, fitted) in enumerate(_parts(grid, width)):
        if number:
            yield "", False
        yield from _drawn(part, fitted)


def _parts(grid: _Grid, width: int) -> list[tuple[_Grid, _Fitted]]:
    fitted = _fit(grid, width)
    if fitted is not None:
        return [(grid, fitted)]
    others = list(range(1, len(grid.heads)))
    for count in range(2, len(others) + 1):
        size = -(-len(others) // count)
        chunks = [others[i : i + size] for i in range(0, len(others), size)]
        parts = [grid.columns((0, *chunk)) for chunk in chunks]
        fits = [_fit(part, width) for part in parts]
        if all(fits):
            return [(p, f) for p, f in zip(parts, fits, strict=True) if f is not None]
    # One column beside the first is still too wide: its cells are folded as well.
    parts = [grid.columns((0, i)) for i in others] or [grid]
    return [(part, _forced(part, width)) for part in parts]


def _fit(grid: _Grid, width: int) -> _Fitted | None:
    natural = [max((cells(row[i]) for row in grid.rows), default=0) for i in range(len(grid.heads))]
    whole = [max(n, cells(head)) for n, head in zip(natural, grid.heads, strict=True)]
    folded = [
        max(n, *(cells(word) for word in head.split(" ")))
        for n, head in zip(natural, grid.heads, strict=True)
    ]
    floors = [min(w, _NARROW) if a == "l" else w for w, a in zip(folded, grid.align, strict=True)]
    for widths in (whole, folded):
        for indent, gap in _SPACINGS[:3]:
            if _needed(widths, indent, gap) <= width:
                return _Fitted(widths=tuple(widths), indent=indent, gap=gap)
    for indent, gap in _SPACINGS[1:]:
        room = width - _needed([0] * len(whole), indent, gap)
        if sum(floors) <= room:
            return _Fitted(widths=_shrunk(folded, floors, room), indent=indent, gap=gap)
    return None


def _needed(widths: Sequence[int], indent: int, gap: int) -> int:
    return indent + sum(widths) + gap * (len(widths) - 1)


def _shrunk(widths: Sequence[int], floors: Sequence[int], room: int) -> tuple[int, ...]:
    """Return the widths less what is too much, taken from the widest that may shrink."""
    found = list(widths)
    while sum(found) > room:
        free = [i for i in range(len(found)) if found[i] > floors[i]]
        found[max(free, key=lambda i: found[i])] -= 1
    return tuple(found)


def _forced(grid: _Grid, width: int) -> _Fitted:
    room = width - _needed([0] * len(grid.heads), 0, 1)
    widest = [
        max(cells(head), *(cells(row[i]) for row in grid.rows)) for i, head in enumerate(grid.heads)
    ]
    return _Fitted(widths=_shrunk(widest, [min(w, _NARROW) for w in widest], room), indent=0, gap=1)


def _drawn(grid: _Grid, fitted: _Fitted) -> Iterator[tuple[str, bool]]:
    rule = " " * fitted.indent + "─" * _needed(fitted.widths, 0, fitted.gap)
    for line in _row(grid.heads, grid.align, fitted, bottom=True):
        yield line, True
    yield rule, False
    for i, row in enumerate(grid.rows):
        if grid.total and i == len(grid.rows) - 1:
            yield rule, False
        for line in _row(row, grid.align, fitted):
            yield line, False


def _row(row: Sequence[str], align: str, fitted: _Fitted, bottom: bool = False) -> Iterator[str]:
    columns = [fold(cell, w) for cell, w in zip(row, fitted.widths, strict=True)]
    height = max(map(len, columns), default=0)
    for i, column in enumerate(columns):
        empty = [""] * (height - len(column))
        columns[i] = empty + column if bottom else column + empty
    for pieces in zip(*columns, strict=True):
        padded = (pad(p, w, a) for p, w, a in zip(pieces, fitted.widths, align, strict=True))
        yield (" " * fitted.indent + (" " * fitted.gap).join(padded)).rstrip()
