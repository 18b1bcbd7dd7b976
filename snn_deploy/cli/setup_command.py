"""``snn-deploy setup``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from snn_deploy.cli.output import check_targets, emit


@click.command("setup", short_help="Make the environment that a target's simulator needs.")
@click.argument("what", type=click.Choice(["loihi"]), metavar="{loihi}")
@click.option(
    "--python",
    "python",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Interpreter to build it from (default: this one).",
)
@click.option("--force", "again", is_flag=True, help="Build it again.")
@click.option(
    "--json", "json_to", metavar="FILE|-", help="Write the report as JSON; - prints it alone."
)
@click.option("-q", "--quiet", is_flag=True, help="Print neither steps nor report.")
def command(what: str, python: Path | None, again: bool, **options: Any) -> None:
    """Make the environment that a target's simulator needs: loihi (Lava)."""
    from snn_deploy.backends.loihi.environment import setup
    from snn_deploy.report.doctor import setup_report

    def step(line: str) -> None:
        if not options["quiet"]:
            click.echo(line, err=True)

    check_targets(options)
    emit(setup_report(what, setup(python, again, step)), options)
