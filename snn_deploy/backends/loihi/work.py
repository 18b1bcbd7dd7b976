"""What each core does in a run: synaptic operations, updates and spikes, from spikes per neuron."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snn_deploy.backends.base import Program
from snn_deploy.backends.loihi.cores import CoreMap
from snn_deploy.backends.loihi.program import LoihiProgram, LoihiSynapses
from snn_deploy.engine.operators import matrix
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.synapses import Conv2d, Csr
from snn_deploy.ir.trace import Trace


def core_work(program: Program, trace: Trace, cores: CoreMap) -> dict[int, dict[str, int]]:
    """Return, by core, the events of the neurons that lie on it (see ir/events.py for names).

    Operations count where their synapses are: on the core of the neuron that they end in; packets
    and hops where they are sent. What the host sends is nobody's. Effective operations are left
    out: a core stores weights after rounding (synops_quantized).
    """
    loihi: LoihiProgram = program.payload
    projections = {p.name: p for p in program.real.projections}
    done: dict[str, dict[str, Array]] = {p.name: {} for p in loihi.populations}
    for synapses in loihi.synapses:
        spikes, work = trace.carried(projections[synapses.projection])
        _add(done[synapses.post], _operations(synapses, spikes, work))
        if synapses.pre in done:
            sent = trace.counts[synapses.pre]
            _add(done[synapses.pre], {"packets": sent * cores.targets[synapses.name]})
            if cores.links is not None:
                _add(done[synapses.pre], {"hops": sent * cores.links[synapses.name]})
    for population in loihi.populations:
        name = population.name
        size = program.real.population(name).size
        spiking = program.real.step_of(name).threshold is not None
        updates = np.full(size, trace.work(name), np.int64)
        spikes = trace.counts[name] if spiking else np.zeros(size, np.int64)
        _add(done[name], {"neuron_updates": updates, "spikes": spikes})
    found: dict[int, dict[str, int]] = {}
    for core in cores.cores:
        totals = found.setdefault(core.index, {})
        for part in core.slices:
            for event, each in done[part.population].items():
                totals[event] = totals.get(event, 0) + int(each[part.neurons].sum())
    return found


def _add(totals: dict[str, Array], more: dict[str, Array]) -> None:
    for event, each in more.items():
        totals[event] = totals[event] + each if event in totals else each


def _operations(synapses: LoihiSynapses, spikes: Array, work: int) -> dict[str, Array]:
    """Return operations per post neuron: of all connections, of spikes, of stored weights."""
    operator = synapses.operator
    stored = matrix(operator, synapses.in_shape)
    stored.data = (stored.data != 0).astype(np.float64)
    quantized = (stored @ spikes).astype(np.int64)
    if synapses.helper:
        return {"synops_helper": quantized}
    if isinstance(operator, Csr):
        size, width = operator.shape
        dense = np.full(size, width, np.int64)
        event = np.full(size, int(spikes.sum()), np.int64)
    else:
        dense, event = _window_sums(operator, synapses.in_shape, spikes)
    return {"synops_dense": dense * work, "synops_event": event, "synops_quantized": quantized}


def _window_sums(conv: Conv2d, in_shape: tuple[int, ...], spikes: Array) -> tuple[Array, Array]:
    """Return inputs, and spikes of them, that each output's window sees: alike in all channels."""
    groups, (channels, height, width) = conv.groups, in_shape
    ones = replace(conv, weight=np.ones((groups, 1, *conv.weight.shape[2:])), bias=None)
    window = matrix(ones, (groups, height, width))
    per_group = channels // groups
    summed = spikes.reshape(groups, per_group, height * width).sum(axis=1).reshape(-1)
    out = conv.weight.shape[0] // groups

    def spread(values: Array) -> Array:
        return np.repeat(values.reshape(groups, 1, -1), out, axis=1).reshape(-1).astype(np.int64)

    return spread(window @ np.full(summed.size, per_group)), spread(window @ summed)
