"""Render a Report as text for a terminal of 80 columns or more."""

from __future__ import annotations

import io
import shutil
import textwrap

from snn_deploy.errors import printable
from snn_deploy.report.model import Chart, Report, Table, Text

_MARK = {"good": "green", "bad": "bold red", "unsure": "yellow", "plain": ""}
_BAR_WIDTH = 28


def terminal_width() -> int:
    """Return the terminal's width, at least 80."""
    return max(80, min(shutil.get_terminal_size((80, 24)).columns, 120))


def render(report: Report, *, width: int = 80, color: bool = False, detail: bool = False) -> str:
    """Return the report as text; no line is longer than ``width``."""
    from rich.console import Console

    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=width,
        force_terminal=color,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    console.print(printable(report.title), style="bold" if color else "")
    for section in report.sections:
        if section.detail and not detail:
            continue
        console.print()
        if section.title:
            console.print(printable(section.title), style="bold" if color else "")
        for item in section.items:
            if isinstance(item, Table):
                _table(console, item, width)
            elif isinstance(item, Chart):
                _chart(console, item, width)
            else:
                _text(console, item, width)
    lines = [line.rstrip() for line in buffer.getvalue().splitlines()]
    return "\n".join(lines) + "\n"


def _wrapped(text: str, width: int, indent: str) -> str:
    return textwrap.fill(
        printable(text), width, initial_indent=indent, subsequent_indent=indent,
        break_on_hyphens=False,
    )


def _text(console: object, item: Text, width: int) -> None:
    label_width = max((len(label) for label, _ in item.lines), default=0)
    if item.title:
        console.print(printable(item.title))  # type: ignore[attr-defined]
    for label, value in item.lines:
        lead = f"  {printable(label):<{label_width}}  " if label_width else "  "
        text = textwrap.fill(
            printable(value),
            width,
            initial_indent=lead,
            subsequent_indent=" " * len(lead),
            break_on_hyphens=False,
        )
        console.print(text, style=_MARK[item.tone])  # type: ignore[attr-defined]


def _table(console: object, table: Table, width: int) -> None:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    rich = RichTable(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
        show_footer=False,
        title=RichText(printable(table.title)) if table.title else None,
        title_justify="left",
    )
    for name, align in zip(table.columns, table.align, strict=True):
        rich.add_column(
            RichText(printable(name)),
            justify="right" if align == "r" else "left",
            overflow="fold",
        )
    for i, row in enumerate(table.rows):
        last = table.total and i == len(table.rows) - 1
        if last:
            rich.add_section()
        rich.add_row(*(RichText(printable(cell)) for cell in row))
    console.print(rich)  # type: ignore[attr-defined]
    if table.note:
        console.print(_wrapped(table.note, width, "  "))  # type: ignore[attr-defined]


def _chart(console: object, chart: Chart, width: int) -> None:
    console.print(f"{printable(chart.title)} ({printable(chart.unit)})")  # type: ignore[attr-defined]
    top = max((b.value for b in chart.bars if b.value is not None), default=0.0) or 1.0
    label_width = max((len(b.label) for b in chart.bars), default=0)
    for bar in chart.bars:
        filled = "" if bar.value is None else "#" * max(1, round(_BAR_WIDTH * bar.value / top))
        line = f"  {printable(bar.label):<{label_width}}  {filled:<{_BAR_WIDTH}}  {printable(bar.text)}"
        console.print(line if len(line) <= width else line[:width])  # type: ignore[attr-defined]
    if chart.note:
        console.print(_wrapped(chart.note, width, "  "))  # type: ignore[attr-defined]
