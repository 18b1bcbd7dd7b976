"""``snn-deploy verify``."""

from __future__ import annotations

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
from snn_deploy.cli.output import check_targets, emit, fail


@click.command("verify", short_help="Check a target against an independent simulator.")
@model_options
@target_options
@input_options
@cutoff_option
@click.option(
    "--on", "place", metavar="PLACE", help="The simulator that judges; emulator for none."
)
@output_options
def command(**options: Any) -> None:
    """Check MODEL on a target, value by value, against an independent simulator.

    Compares every population's spikes and states on the first 20 samples (or --samples), and
    says how close the integers are to the trained network. Exit code 6 on a mismatch.
    """
    from snn_deploy.backends.registry import target as find_target
    from snn_deploy.backends.verify import verify
    from snn_deploy.cli.places import simulator
    from snn_deploy.errors import MismatchError
    from snn_deploy.report.analyse import encoded
    from snn_deploy.report.build import verify_report

    check_targets(options)
    target = find_target(options["target_name"])
    check_settings([target], options)
    check_calibration([target], options)
    check_cores([target], options)
    judge = simulator(target, options["place"], default="judge")
    if judge is not None:
        judge.version()
    network = folded_network(options)
    options["samples"] = 20 if options["samples"] is None else options["samples"]
    data = read_data(network, options)
    network = with_cutoff(network, data, options)
    program = prepared(network, target, options)
    x = encoded(network, data, 0, data.samples)
    verdict = verify(target, program, x, data.y, judge)
    report = verify_report(program, verdict, target.name)
    if not verdict.equal:
        error = MismatchError(
            "the simulators disagree",
            where=str(verdict.first),
            hint="report this with the model and the input: equal numbers are the promise",
        )
        fail(report, options, error)
    emit(report, options)
