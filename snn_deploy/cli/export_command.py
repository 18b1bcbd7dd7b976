"""``snn-deploy export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from snn_deploy.cli.calibration import check_calibration
from snn_deploy.cli.cores import check_cores, map_option, split_option
from snn_deploy.cli.options import (
    analogue_option,
    bits_option,
    calibrate_option,
    check_settings,
    device_option,
    folded_network,
    model_options,
    output_options,
    prepared,
    settings_option,
)
from snn_deploy.cli.output import check_targets, emit


@click.command("export", short_help="Lower a model for a target and write its artifacts.")
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
@click.option("--onnx", is_flag=True, help="Write the float program as ONNX too.")
@click.option(
    "--synth",
    is_flag=True,
    help="Synthesize, place and route the hardware for its device (fpga): cells and clock.",
)
@device_option
@bits_option
@calibrate_option
@settings_option
@analogue_option
@split_option
@map_option
@output_options
def command(**options: Any) -> None:
    """Lower MODEL for one or more targets; write NIR, artifacts, a report and a manifest."""
    from snn_deploy.backends.registry import target as find_target
    from snn_deploy.bridges.onnx_export import require
    from snn_deploy.cli.options import shown_warnings
    from snn_deploy.errors import UsageError
    from snn_deploy.report.export import default_folder, export

    folder = options["folder"] or default_folder(options["model"])
    check_targets(options, folder)
    names = list(dict.fromkeys(options["target_names"]))
    if len(names) > 1 and options["device"]:
        raise UsageError(
            "--device belongs to one target", hint="export one target at a time with --device"
        )
    if options["onnx"]:
        require("onnx")
    targets = [find_target(name) for name in names]
    if options["synth"] and not any(hasattr(t, "synthesize") for t in targets):
        raise UsageError(
            "none of these targets has hardware to synthesize", hint="--synth --target fpga"
        )
    check_settings(targets, options)
    check_calibration(targets, options)
    check_cores(targets, options)
    network = folded_network(options)
    programs = [(t, prepared(network, t, options)) for t in targets]
    with shown_warnings():
        report = export(
            network,
            programs,
            folder,
            force=options["force"],
            onnx=options["onnx"],
            map_to=options["map_to"],
            synthesis=(lambda line: click.echo(line, err=True)) if options["synth"] else None,
        )
    emit(report, options)
