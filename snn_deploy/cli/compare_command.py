"""``snn-deploy compare``."""

from __future__ import annotations

from typing import Any

import click

from snn_deploy.cli.options import (
    folded_network,
    input_options,
    lowering_options,
    model_options,
    output_options,
    prepared,
    read_data,
)
from snn_deploy.cli.output import check_targets, emit, progress


@click.command("compare")
@model_options
@click.option("--targets", "target_names", default="cpu,loihi,fpga", metavar="A,B,...", help="Targets to run on.")
@input_options(required=True)
@lowering_options()[1]
@lowering_options()[2]
@lowering_options()[3]
@click.option("--max-energy", type=float, metavar="PJ", help="Exit 5 if a target needs more per sample.")
@output_options
def command(**options: Any) -> None:
    """Run MODEL on several targets; mark what can be ranked by energy and what cannot."""
    from snn_deploy.backends.registry import target as find_target
    from snn_deploy.budget.price import ranking
    from snn_deploy.errors import FitError, UnsupportedError
    from snn_deploy.report.analyse import run
    from snn_deploy.report.build import compare_report

    check_targets(options)
    targets = [find_target(n.strip()) for n in options["target_names"].split(",") if n.strip()]
    network = folded_network(options)
    data = read_data(network, options)
    outcomes, left_out = [], []
    for target in targets:
        try:
            program = prepared(network, target, options)
        except UnsupportedError as error:
            if len(targets) == 1:
                raise
            left_out.append((target.name, f"not lowered: {error.message}; {error.hint or ''}"))
            continue
        with progress(options, f"running on {target.name}") as update:
            outcomes.append(run(target, program, data, progress=update))
    if not outcomes:
        raise UnsupportedError(
            "no target can run this network",
            used="; ".join(f"{n}: {why}" for n, why in left_out),
        )
    ranks = ranking([o.budget for o in outcomes])
    notes = [(f"{r.first}, {r.second}", r.reason) for r in ranks] + left_out
    report = compare_report(
        network,
        outcomes,
        notes,
        title=f"compare {', '.join(o.target.name for o in outcomes)}",
        rank_data=[r.as_dict() for r in ranks],
    )
    emit(report, options)
    limit = options["max_energy"]
    if limit is not None:
        for outcome in outcomes:
            total = outcome.budget.total
            if total is None or total.nominal_pj > limit:
                found = "n/a" if total is None else f"{total.nominal_pj:,.0f}"
                raise FitError(
                    f"{outcome.target.name} needs more energy than --max-energy allows",
                    used=f"{found} of {limit:,.0f} pJ per sample",
                    hint="prune further, run fewer steps, or leave the target out",
                )
