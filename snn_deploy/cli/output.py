"""Where a command's results go: report on stdout, progress on stderr, files whole or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snn_deploy.errors import OutputError

if TYPE_CHECKING:
    from snn_deploy.report.model import Report


def check_targets(options: dict[str, Any]) -> None:
    """Refuse output files that exist before hours of work, not after them."""
    if options.get("force"):
        return
    for key in ("json_to", "csv_to", "html_to", "trace_to"):
        name = options.get(key)
        if name and str(name) != "-" and Path(name).exists():
            raise OutputError(
                f"{name} exists already",
                where=str(name),
                hint="add --force to replace it, or choose another name",
            )


def emit(report: Report, options: dict[str, Any]) -> None:
    """Write the report wherever the options ask for it."""
    from snn_deploy.io.files import write_text

    force = bool(options.get("force"))
    json_to = options.get("json_to")
    if json_to:
        from snn_deploy.report.tabular import json_text

        if json_to == "-":
            click.echo(json_text(report), nl=False)
        else:
            write_text(json_to, json_text(report), force)
    if options.get("csv_to"):
        from snn_deploy.report.tabular import csv_text

        write_text(options["csv_to"], csv_text(report), force)
    if options.get("html_to"):
        from snn_deploy.report.html import html_text

        write_text(options["html_to"], html_text(report), force)
    if json_to != "-" and not options.get("quiet"):
        from snn_deploy.report.terminal import render, terminal_width

        color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        detail = bool(options.get("verbose"))
        click.echo(render(report, width=terminal_width(), color=color, detail=detail), nl=False)
        for key in ("json_to", "csv_to", "html_to"):
            if options.get(key):
                click.echo(f"wrote {options[key]}", err=True)


@contextmanager
def progress(options: dict[str, Any], label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function (done, total) that draws a bar on a terminal's stderr, or None."""
    off = options.get("no_progress") or options.get("quiet") or options.get("json_to") == "-"
    if off or not (sys.stderr.isatty() and sys.stdout.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)

        def update(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield update
