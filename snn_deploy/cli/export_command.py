"""``snn-deploy export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from snn_deploy.cli.options import (
    folded_network,
    lowering_options,
    model_options,
    output_options,
    prepared,
)
from snn_deploy.cli.output import check_targets, emit


@click.command("export")
@model_options
@click.option(
    "-t",
    "--target",
    "target_names",
    required=True,
    multiple=True,
    metavar="NAME",
    help="cpu, loihi, fpga, or a plugin's; repeat for several.",
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to make (default: <model>-export).",
)
@lowering_options()[0]
@lowering_options()[1]
@lowering_options()[2]
@lowering_options()[3]
@output_options
def command(**options: Any) -> None:
    """Lower MODEL for one or more targets; write NIR, artifacts, a report and a manifest."""
    from snn_deploy.backends.registry import target as find_target
    from snn_deploy.cli.options import shown_warnings
    from snn_deploy.errors import OutputError, UsageError
    from snn_deploy.report.export import default_folder, export

    check_targets(options)
    names = list(dict.fromkeys(options["target_names"]))
    if len(names) > 1 and options["device"]:
        raise UsageError(
            "--device belongs to one target", hint="export one target at a time with --device"
        )
    targets = [find_target(name) for name in names]
    network = folded_network(options)
    folder = options["folder"] or default_folder(network)
    if folder.exists() and not options["force"]:
        raise OutputError(
            f"{folder} exists already",
            where=str(folder),
            hint="add --force to replace it, or name another folder with -o",
        )
    programs = [(t, prepared(network, t, options)) for t in targets]
    with shown_warnings():
        report = export(network, programs, folder, force=options["force"])
    emit(report, options)
