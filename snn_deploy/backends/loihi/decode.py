"""Back from the program's own numbers to a QNetwork, so that an engine runs what was lowered.

A wrong weight, threshold, decay, bias or delay in the program then shows against the QNetwork
that it was made from.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snn_deploy.backends.arithmetics import LOIHI
from snn_deploy.backends.loihi.program import (
    NEVER,
    LoihiPopulation,
    LoihiProgram,
    LoihiSynapses,
    delay_table,
    integer_csr,
)
from snn_deploy.errors import MismatchError
from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.network import Network, Projection
from snn_deploy.ir.quantized import QNetwork
from snn_deploy.ir.schedule import schedule
from snn_deploy.ir.synapses import Conv2d, Synapse, with_weights


def decode(program: LoihiProgram, qnet: QNetwork) -> QNetwork:
    """Return the QNetwork that the program's own numbers describe.

    Raises MismatchError, located, where spikes would arrive before their step: no un-pipelined
    network does that.
    """
    network = qnet.network
    populations = dict(qnet.populations)
    for population in program.populations:
        q = populations[population.name]
        populations[population.name] = replace(
            q,
            decay_u=np.asarray(population.du, np.int64) + 1,
            decay_v=np.asarray(population.dv, np.int64),
            threshold=_threshold(population, silent=q.threshold is None),
            bias=None if population.bias is None else np.asarray(population.bias, np.int64),
            v_reset=np.asarray(population.v_reset, np.int64),
            v_init=np.asarray(population.v_init, np.int64),
            reset=q.reset if q.reset == "none" else population.reset,
            reset_amount=np.asarray(population.reset_amount, np.int64),
        )
    parts: dict[str, list[LoihiSynapses]] = {}
    for synapses in program.synapses:
        parts.setdefault(synapses.projection, []).append(synapses)
    late = {p.name: p.depth for p in program.populations} | dict.fromkeys(network.inputs, 0)
    back = schedule(network).feedback
    projections = []
    for projection in network.projections:
        shift = late[projection.pre] + 1 - late[projection.post] - back[projection.name]
        projections += [_projection(network, projection, s, shift) for s in parts[projection.name]]
    decoded = replace(network, projections=tuple(projections))
    return replace(qnet, network=decoded, populations=populations)


def _projection(
    network: Network, projection: Projection, synapses: LoihiSynapses, shift: int
) -> Projection:
    """Return the projection that the synapses are; delays count from the aligned steps."""
    least = int(np.min(synapses.delay_steps, initial=LOIHI.max_delay_steps)) + shift
    if least < 0:
        raise MismatchError(
            "the program delivers spikes before the step that they belong to",
            where=network.where(projection.name),
            used=f"{-least} steps too early",
        )
    # Pairs without a synapse have no delay; any number that is none too early will do.
    delay = np.maximum(np.asarray(delay_table(synapses), np.int64) + shift, 0)
    return replace(
        projection,
        name=synapses.name,
        synapses=(_network_form(synapses, network.shapes[projection.pre]),),
        delay_steps=int(delay) if delay.ndim == 0 else adopt(delay),
    )


def _network_form(synapses: LoihiSynapses, pre_shape: tuple[int, ...]) -> Synapse:
    """Return the operator with its exponent applied, on the populations' own shapes."""
    operator = synapses.operator
    weights = synapses.weights.astype(np.int32) << synapses.exponent
    if isinstance(operator, Conv2d) and len(pre_shape) == 2:
        from snn_deploy.engine.operators import matrix

        return integer_csr(matrix(replace(operator, weight=adopt(weights)), synapses.in_shape))
    return with_weights(operator, adopt(weights), None)


def _threshold(population: LoihiPopulation, *, silent: bool) -> Array | None:
    vth = np.asarray(population.vth, np.int64)
    return None if silent and bool(np.all(vth == NEVER)) else vth
