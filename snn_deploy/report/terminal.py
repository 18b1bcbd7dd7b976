"""Render a Report as text for a terminal of 80 columns or more."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping

from snn_deploy import units
from snn_deploy.errors import printable
from snn_deploy.report.layout import cells, fold, hanging, pad, table_lines
from snn_deploy.report.mesh import SIGNS, mesh_lines
from snn_deploy.report.model import Bar, Chart, Item, Mesh, Report, Table, Text
from snn_deploy.report.words import TONES, bar_text, chart_title, drawable, part_numbers, reach

_MARK = {"good": "32", "bad": "1;31", "unsure": "33", "plain": ""}
_BOLD, _DIM = "1", "2"
_BAR_WIDTH = 28
_LABEL_WIDTH = 26
_PARTS = "#=+:*~o%x"

# A line and its style: numbers of an ANSI escape sequence, or "".
_Line = tuple[str, str]


def terminal_width() -> int:
    """Return the terminal's width, at least 80 and at most 120."""
    return max(80, min(shutil.get_terminal_size((80, 24)).columns, 120))


def render(report: Report, *, width: int = 80, color: bool = False, detail: bool = False) -> str:
    """Return the report as text; no line is longer than ``width`` cells (40 or more).

    What is too long is folded, never cut off. detail: show the detailed sections too.
    """
    lines: list[_Line] = [(line, _BOLD) for line in fold(printable(report.title), width)]
    for section in report.sections:
        if section.detail and not detail:
            continue
        if section.title:
            title = fold(printable(section.title), width)
            lines += [("", ""), *((line, _BOLD) for line in title)]
            lines.append(("─" * max(map(cells, title)), ""))
        for i, item in enumerate(section.items):
            if i or not section.title:
                lines.append(("", ""))
            lines += _item(item, width)
    return "".join(_styled(line, style if color else "") + "\n" for line, style in lines)


def _styled(line: str, style: str) -> str:
    return f"\x1b[{style}m{line}\x1b[0m" if style and line else line


def _item(item: Item, width: int) -> Iterator[_Line]:
    if isinstance(item, Table):
        yield from _table(item, width)
    elif isinstance(item, Chart):
        yield from _chart(item, width)
    elif isinstance(item, Mesh):
        yield from ((line, "") for line in fold(printable(item.title), width))
        yield from ((line, "") for line in mesh_lines(item, width))
        yield from _note(f"{item.note}; {SIGNS}", width)
    else:
        yield from _text(item, width)


def _text(item: Text, width: int) -> Iterator[_Line]:
    said = f"[{TONES[item.tone]}]" if TONES[item.tone] else ""
    for line in fold(" ".join(filter(None, (printable(item.title), said))), width):
        if line:
            yield line, _MARK[item.tone]
    labels = [printable(label) for label, _ in item.lines]
    room = max((n for n in map(cells, labels) if n <= _LABEL_WIDTH), default=0)
    for label, (_, value) in zip(labels, item.lines, strict=True):
        lead = f"  {pad(label, room)}  " if room else "  "
        if cells(label) > room:
            yield from ((f"  {line}", _MARK[item.tone]) for line in fold(label, width - 2))
            lead = f"  {' ' * room}  "
        elif not label:
            lead = "  "
        yield from ((line, _MARK[item.tone]) for line in hanging(lead, printable(value), width))


def _table(table: Table, width: int) -> Iterator[_Line]:
    if table.title:
        yield from ((line, "") for line in fold(printable(table.title), width))
    for line, head in table_lines(table, width):
        yield line, _BOLD if head else ""
    yield from _note(table.note, width)


def _note(note: str, width: int) -> Iterator[_Line]:
    if note:
        yield from ((line, _DIM) for line in hanging("  ", printable(note), width))


def _chart(chart: Chart, width: int) -> Iterator[_Line]:
    yield from ((line, "") for line in fold(printable(chart_title(chart)), width))
    top, numbers = reach(chart), part_numbers(chart)
    marks = {label: _PARTS[i % len(_PARTS)] for label, i in numbers.items()}
    labels = [fold(printable(bar.label), min(_LABEL_WIDTH, width // 3)) for bar in chart.bars]
    room = max((cells(line) for lines in labels for line in lines), default=0)
    texts = [printable(bar_text(bar, chart.unit)) for bar in chart.bars]
    longest = max(
        (cells(t) for t, bar in zip(texts, chart.bars, strict=True) if drawable(bar)), default=0
    )
    # Two blanks before the label, the bar and the text.
    length = max(10, min(_BAR_WIDTH, width - room - longest - 6))
    for bar, label, text in zip(chart.bars, labels, texts, strict=True):
        lead = f"  {pad(label[0], room)}  "
        if drawable(bar):
            lead += f"{pad(_drawn(bar, top, length, marks), length)}  "
        yield from _beside(hanging(lead, text, width), label[1:], room)
        parts = (
            f"{marks[part]} {part} {units.amount(value, chart.unit)}" for part, value in bar.parts
        )
        if bar.parts:
            below = printable(", ".join(parts))
            yield from ((line, "") for line in hanging(" " * (room + 4), below, width))
    yield from _note(chart.note, width)


def _beside(lines: list[str], label: list[str], room: int) -> Iterator[_Line]:
    """Yield ``lines`` with the rest of a folded label in front of the second and on."""
    for i in range(max(len(lines), len(label) + 1)):
        line = lines[i] if i < len(lines) else ""
        if 0 < i <= len(label):
            line = f"  {pad(label[i - 1], room)}" + line[room + 2 :]
        yield line.rstrip(), ""


def _drawn(bar: Bar, top: float, length: int, marks: Mapping[str, str]) -> str:
    """Return a bar of ``length`` cells at most; what is more than nothing has a cell at least."""
    value = bar.value or 0.0
    if value <= 0 or top <= 0:
        return ""
    end = max(1, round(length * value / top))
    drawn = "#" * end
    if bar.parts:
        drawn, done = "", 0.0
        for label, part in bar.parts:
            done += part
            drawn += marks[label] * (min(end, round(length * done / top)) - len(drawn))
        drawn = drawn or marks[max(bar.parts, key=lambda part: part[1])[0]]
    if bar.low is None or bar.high is None:
        return drawn
    low, high = (max(1, min(length, round(length * x / top))) for x in (bar.low, bar.high))
    marked = list(drawn + "-" * (high - len(drawn)))
    marked[low - 1] = marked[high - 1] = "|"
    return "".join(marked)
