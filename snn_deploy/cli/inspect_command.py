"""``snn-deploy inspect``."""

from __future__ import annotations

from typing import Any

import click

from snn_deploy.cli.options import bits_option, load_network, model_options, output_options
from snn_deploy.cli.output import check_targets, emit


@click.command("inspect", short_help="Show a model: layers, sparsity, quantization.")
@model_options
@click.option("--folded", is_flag=True, help="Show the network after folding, as targets get it.")
@click.option(
    "--arithmetic", type=click.Choice(["loihi", "fpga"]), help="Show its quantization too."
)
@bits_option
@click.option(
    "--elements",
    type=click.IntRange(min=1),
    metavar="N",
    help="Show the load of N processing elements too (docs/uticket.md).",
)
@output_options
def command(**options: Any) -> None:
    """Show MODEL: populations, projections, sparsity, and what quantization does to it."""
    from snn_deploy.backends.arithmetics import ARITHMETICS
    from snn_deploy.passes.pipeline import fold
    from snn_deploy.passes.quantize import quantize
    from snn_deploy.report.inspect import inspect_report

    check_targets(options)
    network = load_network(options)
    folded = fold(network)
    qnet = None
    if options["arithmetic"]:
        qnet = quantize(folded, ARITHMETICS[options["arithmetic"]], bits=options["bits"])
    shown = folded if options["folded"] else network
    load = None
    if options["elements"]:
        from snn_deploy.engine.load import weight_load

        load = weight_load(shown, options["elements"])
    emit(inspect_report(shown, qnet, load), options)
