"""``snn-deploy doctor``."""

from __future__ import annotations

from typing import Any

import click

from snn_deploy.cli.options import output_options
from snn_deploy.cli.output import check_targets, emit


@click.command("doctor", short_help="Show what is installed and what is missing.")
@output_options
def command(**options: Any) -> None:
    """Show versions, optional packages, simulators and folders, and how to add what is missing."""
    from snn_deploy.report.doctor import doctor_report

    check_targets(options)
    emit(doctor_report(), options)
