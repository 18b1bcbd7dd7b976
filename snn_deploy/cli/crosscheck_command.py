"""``snn-deploy crosscheck``."""

from __future__ import annotations

from typing import Any

import click

from snn_deploy.cli.options import (
    folded_network,
    input_options,
    model_options,
    output_options,
    read_data,
)
from snn_deploy.cli.output import check_targets, emit, fail

_SAMPLES = 20


@click.command("crosscheck", short_help="Run a model in other frameworks, spike for spike.")
@model_options
@input_options
@click.option(
    "--with",
    "frameworks",
    metavar="NAME,...",
    help="norse, snntorch, spikingjelly, nir-euler, onnx; all of them by default.",
)
@output_options
def command(**options: Any) -> None:
    """Run MODEL in each framework that can express it, and compare every spike.

    Uses the first 20 samples (or --samples). Exit code 6 where a spike or membrane differs, 7
    where a framework that --with names is not installed, 4 where none could run it.
    """
    from snn_deploy.bridges.crosscheck import crosscheck
    from snn_deploy.bridges.peers import peer
    from snn_deploy.engine.loop import by_input
    from snn_deploy.errors import (
        MismatchError,
        MissingDependencyError,
        UnsupportedError,
        UsageError,
    )
    from snn_deploy.report.analyse import encoded
    from snn_deploy.report.crosscheck import crosscheck_report

    check_targets(options)
    names = None
    if options["frameworks"] is not None:
        names = [name.strip() for name in options["frameworks"].split(",") if name.strip()]
        if not names:
            raise UsageError("--with names no framework", hint="--with norse,onnx")
        for name in names:
            peer(name).version()
    network = folded_network(options)
    options["samples"] = _SAMPLES if options["samples"] is None else options["samples"]
    data = read_data(network, options)
    x = encoded(network, data, 0, data.samples)
    results = crosscheck(network, x, names)
    steps = next(iter(by_input(network, x).values())).shape[1]
    report = crosscheck_report(network, results, data.samples, steps)
    different = [r for r in results if r.comparison is not None and not r.comparison.equal]
    if different:
        assert different[0].comparison is not None
        fail(
            report,
            options,
            MismatchError(
                f"{', '.join(r.name for r in different)} and our engine disagree",
                where=str(different[0].comparison.first),
                hint="rounding decides there: the membrane is at its threshold"
                if all(r.rounding for r in different)
                else "report this with the model and the input: equal spikes are the promise",
            ),
        )
    if not any(r.installed for r in results):
        fail(
            report,
            options,
            MissingDependencyError("none of the frameworks is installed", hint=results[0].hint),
        )
    if all(r.comparison is None for r in results):
        fail(
            report,
            options,
            UnsupportedError(
                "no framework ran this network",
                where=network.source.path or None,
                used="; ".join(f"{r.name}: {r.reason}" for r in results),
                hint="the reasons stand above; the float engine runs it all the same",
            ),
        )
    emit(report, options)
