"""``snn-deploy run``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from snn_deploy.cli.calibration import check_calibration
from snn_deploy.cli.cores import check_cores
from snn_deploy.cli.cutoff import cutoff_option, with_cutoff
from snn_deploy.cli.options import (
    check_settings,
    folded_network,
    input_options,
    model_options,
    output_options,
    prepared,
    read_data,
    target_options,
)
from snn_deploy.cli.output import check_targets, emit, progress


@click.command("run", short_help="Run a model on a target; accuracy, operations, energy.")
@model_options
@target_options
@input_options
@cutoff_option
@click.option(
    "--on", "place", metavar="PLACE", help="emulator (default) or the target's simulator."
)
@click.option(
    "--arithmetic",
    type=click.Choice(["float", "loihi", "fpga"]),
    help="cpu: compute in another target's integers.",
)
@click.option(
    "--trace",
    "trace_to",
    type=click.Path(path_type=Path),
    metavar="OUT.npz",
    help="Write every population's spikes.",
)
@output_options
def command(**options: Any) -> None:
    """Run MODEL on a target: predictions, accuracy, operations, latency and energy."""
    from snn_deploy.backends.registry import target as find_target
    from snn_deploy.cli.places import simulator
    from snn_deploy.errors import UsageError
    from snn_deploy.report.analyse import run
    from snn_deploy.report.build import run_report

    check_targets(options)
    target = find_target(options["target_name"])
    check_settings([target], options)
    check_calibration([target], options, options["arithmetic"])
    check_cores([target], options)
    judge = simulator(target, options["place"], default="emulator")
    if options["arithmetic"] and target.arithmetic() is not None:
        raise UsageError(
            f"--arithmetic is for float targets, {target.name} has its own integers",
            hint="use --target cpu --arithmetic " + options["arithmetic"],
        )
    if judge is not None and options["arithmetic"] not in (None, "float"):
        raise UsageError(
            f"{judge.name} computes in float, not in {options['arithmetic']}'s integers",
            hint="leave out --on or --arithmetic",
        )
    network = folded_network(options)
    data = read_data(network, options)
    network = with_cutoff(network, data, options)
    program = prepared(network, target, options, arithmetic=options["arithmetic"])
    keep = options["trace_to"] is not None
    with progress(options, f"running on {target.name}") as update:
        outcome = run(target, program, data, simulator=judge, keep_trace=keep, progress=update)
    if keep:
        from snn_deploy.io.npz import save_npz

        save_npz(options["trace_to"], outcome.trace, options["force"])
    emit(run_report(outcome), options)
