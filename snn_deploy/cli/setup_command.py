"""``snn-deploy setup``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("setup")
@click.argument("what", type=click.Choice(["loihi"]))
@click.option("--python", "python", type=click.Path(path_type=Path), help="Interpreter to build it from (default: this one).")
@click.option("--force", is_flag=True, help="Build it again.")
@click.option("-q", "--quiet", is_flag=True, help="Print no steps.")
def command(what: str, python: Path | None, force: bool, quiet: bool) -> None:
    """Make the environment that a target's simulator needs: loihi (Lava)."""
    from snn_deploy.backends.loihi.environment import setup

    def report(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    found = setup(python, force, report)
    versions = ", ".join(f"{k} {v}" for k, v in sorted(dict(found.versions).items()))
    click.echo(f"{what} ready: {versions}")
