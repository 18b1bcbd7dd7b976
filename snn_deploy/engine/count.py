"""Synaptic operations, updates and spikes of a run, counted from spikes per neuron.

Definitions stand in ir/events.py. Counting needs no second run: an operation count is the dot
product of each neuron's spikes with its fan-out.
"""

from __future__ import annotations

from snn_deploy.engine.operators import projection_fan_out, projection_products
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.events import Events
from snn_deploy.ir.network import Network, Projection
from snn_deploy.ir.quantized import QNetwork
from snn_deploy.ir.synapses import LEARNED
from snn_deploy.ir.trace import Trace


class Counter:
    """Fan-outs computed once for a network (and its quantized form), applied to many traces."""

    def __init__(self, network: Network, quantized: QNetwork | None = None) -> None:
        self._network = network
        self._projections = [(p, self._fans(network, p)) for p in network.projections]
        self._products = {
            p.name: projection_products(network, p)
            for p in network.projections
            if analogue(network, p)
        }
        self._after: dict[str, Array] = {}
        if quantized is not None:
            self._after = {
                p.name: projection_fan_out(quantized.network, p, zeros=False)
                for p in quantized.network.projections
            }

    @staticmethod
    def _fans(network: Network, projection: Projection) -> tuple[Array, Array]:
        dense = projection_fan_out(network, projection, zeros=True)
        return dense, projection_fan_out(network, projection, zeros=False)

    def count(self, trace: Trace) -> Events:
        """Return the events of a trace, until its samples' stops where they stopped early.

        Analogue input costs MACs, in every step, not synops.
        """
        network = self._network
        counts: dict[tuple[str, str], int] = {}
        for projection, (dense, nonzero) in self._projections:
            spikes, work = trace.carried(projection)
            where = projection.name
            learned = not projection.helper and any(
                isinstance(s, LEARNED) for s in projection.synapses
            )
            if where in self._products:
                counts[where, "macs"] = self._products[where] * work
            elif learned:
                counts[where, "synops_dense"] = int(dense.sum()) * work
                counts[where, "synops_event"] = int(spikes @ dense)
                counts[where, "synops_effective"] = int(spikes @ nonzero)
                if self._after:
                    counts[where, "synops_quantized"] = int(spikes @ self._after[where])
            else:
                counts[where, "synops_helper"] = int(spikes @ nonzero)
        for population in network.populations:
            spikes_of = trace.counts[population.name]
            if population.name in network.inputs:
                if network.coding.kind != "direct":
                    counts[population.name, "spikes"] = int(spikes_of.sum())
                continue
            updates = population.size * trace.work(population.name)
            counts[population.name, "neuron_updates"] = updates
            if network.step_of(population.name).threshold is not None:
                counts[population.name, "spikes"] = int(spikes_of.sum())
                counts[population.name, "neuron_updates_active"] = int(spikes_of.sum())
        return Events(counts)


def analogue(network: Network, projection: Projection) -> bool:
    """Return whether values other than spikes come in."""
    spiking_input = projection.pre in network.inputs and network.coding.kind != "direct"
    return network.step_of(projection.pre).threshold is None and not spiking_input
