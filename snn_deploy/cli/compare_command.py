"""``snn-deploy compare``."""

from __future__ import annotations

from typing import Any

import click

from snn_deploy.cli.cutoff import cutoff_option, with_cutoff
from snn_deploy.cli.options import (
    analogue_option,
    bits_option,
    check_settings,
    folded_network,
    input_options,
    model_options,
    output_options,
    prepared,
    read_data,
    settings_option,
)
from snn_deploy.cli.output import check_targets, emit, fail, progress


@click.command("compare", short_help="Run a model on several targets side by side.")
@model_options
@click.option(
    "-t",
    "--targets",
    "target_names",
    default="cpu,loihi,fpga",
    show_default=True,
    metavar="A,B,...",
    help="Targets to run on.",
)
@input_options
@cutoff_option
@bits_option
@settings_option
@analogue_option
@click.option(
    "--max-energy",
    type=click.FloatRange(min=0, min_open=True),
    metavar="PJ",
    help="Exit 5 if a target needs more picojoules per sample.",
)
@output_options
def command(**options: Any) -> None:
    """Run MODEL on several targets; mark what can be ranked by energy and what cannot.

    A target that cannot run the model is left out, with the reason.
    """
    from snn_deploy.backends.registry import target as find_target
    from snn_deploy.errors import UnsupportedError, UsageError
    from snn_deploy.report.analyse import run
    from snn_deploy.report.build import compare_report, rank_notes

    check_targets(options)
    names = list(dict.fromkeys(n.strip() for n in options["target_names"].split(",") if n.strip()))
    if not names:
        raise UsageError("--targets names no target", hint="--targets cpu,loihi,fpga")
    targets = [find_target(name) for name in names]
    check_settings(targets, options)
    network = folded_network(options)
    data = read_data(network, options)
    network = with_cutoff(network, data, options)
    outcomes, left_out = [], []
    for target in targets:
        try:
            program = prepared(network, target, options)
        except UnsupportedError as error:
            if len(targets) == 1:
                raise
            where = "" if error.where is None else f" ({error.where})"
            left_out.append((target.name, f"{error.message}{where}"))
            continue
        with progress(options, f"running on {target.name}") as update:
            outcomes.append(run(target, program, data, progress=update))
    if not outcomes:
        raise UnsupportedError(
            "none of the targets can run this network",
            where=str(options["model"]),
            used="; ".join(f"{name}: {why}" for name, why in left_out),
            hint="snn-deploy targets ops TARGET lists what a target takes",
        )
    notes, ranks = rank_notes(outcomes)
    report = compare_report(
        network,
        outcomes,
        notes,
        title=f"compare {', '.join(o.target.name for o in outcomes)}",
        rank_data=ranks,
        left_out=left_out,
    )
    over = _over_budget(outcomes, options["max_energy"])
    if over is not None:
        fail(report, options, over)
    emit(report, options)


def _over_budget(outcomes: Any, limit_pj: float | None) -> Any:
    """Return the FitError that names every target over the limit, or None."""
    from snn_deploy.errors import FitError
    from snn_deploy.units import energy

    if limit_pj is None:
        return None
    over = []
    for outcome in outcomes:
        total = outcome.budget.total
        if total is None:
            over.append((outcome.target.name, "n/a"))
        elif total.nominal_pj > limit_pj:
            over.append((outcome.target.name, energy(total.nominal_pj)))
    if not over:
        return None
    return FitError(
        f"{', '.join(name for name, _ in over)}: more energy than --max-energy allows",
        used="; ".join(f"{name} {found} of {energy(limit_pj)}" for name, found in over)
        + " per sample",
        hint="prune further, run fewer steps, or leave the target out with --targets",
    )
