"""``snn-deploy targets list|show|ops``."""

from __future__ import annotations

from typing import Any

import click

from snn_deploy.cli.options import output_options
from snn_deploy.cli.output import check_targets, emit


@click.group("targets", short_help="List targets and devices, and what they can do.")
def command() -> None:
    """List targets and devices, show a device's numbers, or what a target can lower."""


@command.command("list")
@output_options
def list_(**options: Any) -> None:
    """List targets with the package they come from, and devices."""
    from snn_deploy.report.targets import list_report

    check_targets(options)
    emit(list_report(), options)


@command.command()
@click.argument("device")
@output_options
def show(device: str, **options: Any) -> None:
    """Show DEVICE: every limit and price with unit, kind and source."""
    from snn_deploy.report.targets import device_report

    check_targets(options)
    emit(device_report(device), options)


@command.command()
@click.argument("target")
@output_options
def ops(target: str, **options: Any) -> None:
    """Show what TARGET can lower."""
    from snn_deploy.report.targets import ops_report

    check_targets(options)
    emit(ops_report(target), options)
