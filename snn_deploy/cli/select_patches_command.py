"""``snn-deploy select-patches``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from snn_deploy.cli.options import input_options, output_options
from snn_deploy.cli.output import check_targets, emit


@click.command("select-patches", short_help="Keep the best patches of each sample.")
@click.argument("model", type=click.Path(path_type=Path))
@input_options
@click.option(
    "--share",
    type=click.FloatRange(min=0, min_open=True, max=1),
    default=0.7,
    show_default=True,
    metavar="SHARE",
    help="Share of the patches to keep.",
)
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="Y.npz",
    help="Samples with their keep channel, as MODEL takes them.",
)
@output_options
def command(**options: Any) -> None:
    """Rank the patches of every sample of --input by MODEL's own stem, and drop the others.

    MODEL: a ticket of the transformer. --input holds samples without a keep channel.
    """
    from snn_deploy.io.inputs import read_inputs
    from snn_deploy.io.npz import save_npz
    from snn_deploy.io.ticket import network_of, read_ticket
    from snn_deploy.report.patches import patches_report
    from snn_deploy.tickets.patches import selector_of_ticket, tokens_kept

    check_targets(options)
    ticket = read_ticket(options["model"])
    selector = selector_of_ticket(ticket)
    network = network_of(ticket)
    channels, *size = network.shapes[network.inputs[0]]
    data = read_inputs(options["input_path"], (channels - 1, *size)).first(options["samples"])
    x = selector.keep_patches(data.x, options["share"])
    arrays = {"x": x} if data.y is None else {"x": x, "y": data.y}
    save_npz(options["out"], arrays, options["force"])
    rows, columns = selector.patches.grid(x.shape)
    report = patches_report(
        options["out"], samples=len(x), kept=tokens_kept(x), tokens=rows * columns
    )
    emit(report, options)
