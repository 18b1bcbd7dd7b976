"""``snn-deploy fit``."""

from __future__ import annotations

from typing import Any

import click

from snn_deploy.cli.options import bits_option, folded_network, model_options, output_options
from snn_deploy.cli.output import check_targets, emit, fail


def _margin(_: click.Context, __: click.Parameter, value: str) -> float:
    text = value.strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a share such as 10%") from None
    if not 0 <= share < 1:
        raise click.BadParameter("a margin is at least 0% and below 100%; write 10% or 0.1")
    return share


@click.command("fit", short_help="Say whether a model fits a device.")
@model_options
@click.option(
    "-d",
    "--device",
    "devices",
    multiple=True,
    metavar="NAME|FILE",
    help="Device; repeat for several, leave out for all.",
)
@click.option(
    "--margin",
    default="0%",
    metavar="SHARE",
    callback=_margin,
    help="Share of each limit to keep free, such as 10%.",
)
@bits_option
@output_options
def command(**options: Any) -> None:
    """Say for each device whether MODEL fits, and what would make it fit.

    Exit code 5 when a device that was named does not fit.
    """
    from snn_deploy.budget.findings import fit_error
    from snn_deploy.report.build import fit_report
    from snn_deploy.report.fit import fits

    check_targets(options)
    network = folded_network(options)
    margin = options["margin"]
    found, left_out = fits(network, options["devices"], margin=margin, bits=options["bits"])
    report = fit_report(network, found, left_out, margin)
    if options["devices"]:
        for _, fit in found.values():
            if fit.fits is False:
                fail(report, options, fit_error(fit, network.source.path))
    emit(report, options)
