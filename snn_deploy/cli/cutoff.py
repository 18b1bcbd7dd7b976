"""``--cutoff``: one threshold for all steps, in place of a model's table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from snn_deploy.io.inputs import InputData
    from snn_deploy.ir.network import Network

cutoff_option = click.option(
    "--cutoff",
    type=float,
    metavar="GAP",
    help="Stop a sample once its best class leads by more than GAP spikes.",
)


def with_cutoff(network: Network, data: InputData, options: dict[str, Any]) -> Network:
    """Return the network with the cutoff that the options name, checked against the data."""
    from snn_deploy.passes.cutoff import with_table
    from snn_deploy.report.analyse import check_steps, steps_of

    gap = options.get("cutoff")
    if gap is not None:
        network = with_table(network, (gap,) * (steps_of(network, data) or 1))
    check_steps(network, data)
    return network
