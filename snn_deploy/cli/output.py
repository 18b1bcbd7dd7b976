"""Where a command's results go: report on stdout, progress on stderr, files whole or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from snn_deploy.errors import OutputError, SnnDeployError, UsageError

if TYPE_CHECKING:
    from snn_deploy.report.model import Report

_FILES = ("json_to", "csv_to", "html_to", "trace_to", "test_to", "map_to", "out")
_INPUTS = ("model", "input_path", "evaluate_path", "masks", "threshold")


class ReportedError(Exception):
    """Ends a command with an error that its report, JSON included, has already told."""

    def __init__(self, error: SnnDeployError) -> None:
        super().__init__(error.message)
        self.error = error


def check_targets(options: dict[str, Any], *more: Path) -> None:
    """Refuse outputs that cannot be written before hours of work, not after them.

    more: files or folders that are not among the options. Raises OutputError: they exist
    (without --force), or their folder is missing or read-only; UsageError: one path is given
    twice, or is the input.
    """
    paths = [Path(options[k]) for k in _FILES if options.get(k) and str(options[k]) != "-"]
    inputs = {os.path.realpath(options[k]): options[k] for k in _INPUTS if options.get(k)}
    seen: dict[str, Path] = {}
    for path in (*paths, *more):
        real = os.path.realpath(path)
        if real in seen:
            raise UsageError(
                f"{path} is named for two outputs", hint="give each output a name of its own"
            )
        if real in inputs:
            raise UsageError(
                f"{path} is an input, it will not be overwritten", hint="choose another name"
            )
        seen[real] = path
        _check_target(path, bool(options.get("force")))


def _check_target(path: Path, force: bool) -> None:
    if os.path.lexists(path) and not force:
        raise OutputError(
            f"{path} exists already",
            where=str(path),
            hint="add --force to replace it, or choose another name",
        )
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(
            f"cannot write {path}: there is no folder {folder}",
            where=str(path),
            hint=f"create it first: mkdir -p {folder}",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot write {path}: the folder {folder} is read-only",
            where=str(path),
            hint="choose a folder that you may write to",
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
        for key in ("json_to", "csv_to", "html_to", "trace_to", "map_to"):
            if options.get(key):
                click.echo(f"wrote {options[key]}", err=True)


def fail(report: Report, options: dict[str, Any], error: SnnDeployError) -> NoReturn:
    """Write a report whose finding is an error, in one document, and end with its exit code."""
    from dataclasses import replace

    data = {**report.data, "ok": False, "error": error.as_dict()}
    emit(replace(report, data=data), options)
    raise ReportedError(error)


@contextmanager
def progress(options: dict[str, Any], label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function (done, total) that draws a bar on a terminal's stderr, or None."""
    if options.get("no_progress") or options.get("quiet") or not sys.stderr.isatty():
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
