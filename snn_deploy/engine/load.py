"""The work of each processing element of an array that runs one layer after the other.

A mapping deals a layer to n elements: "sata" its output channels (neurons of a dense layer),
"systolic" its input channels, j to element j mod n. All elements wait for the layer's slowest.
Definitions as published for u-Ticket (Yin et al. 2024): T is an element's work in a layer,

    idle = sum of (max T - T)    utilisation = 1 - (max T - mean T) / max T * n / (n - 1)
    cycles = sum of max T = (work + idle) / n

Two loads: nonzero weights, each once; or the accumulates that a run's spikes cause, per sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from snn_deploy.engine.count import analogue
from snn_deploy.engine.operators import matrix, pulled_back
from snn_deploy.errors import InputError, UsageError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.check import chain_shapes
from snn_deploy.ir.network import Network, Projection
from snn_deploy.ir.synapses import LEARNED, Conv1d, Conv2d, Csr, Shape, Synapse, weights_of
from snn_deploy.ir.trace import Trace

MappingName = Literal["sata", "systolic"]
MAPPINGS: tuple[MappingName, ...] = ("sata", "systolic")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerLoad:
    """What each element does in one layer: work int64 (rounds, n), a row per sample or one in all.

    channels: what the mapping deals out. Fewer than n leave elements without work for good.
    """

    name: str
    channels: int
    work: Array

    @property
    def fills(self) -> bool:
        """Whether every element gets a channel."""
        elements: int = self.work.shape[1]
        return self.channels >= elements

    @property
    def ceiling(self) -> float:
        """The utilisation, 0..1, of a perfect balance over the elements that get a channel."""
        elements = self.work.shape[1]
        return 1.0 if self.fills else (self.channels - 1) / (elements - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A network's load on n elements; see the module for what the figures mean."""

    elements: int
    layers: tuple[LayerLoad, ...]

    @property
    def work(self) -> int:
        """Operations of all elements."""
        return sum(int(layer.work.sum()) for layer in self.layers)

    @property
    def idle(self) -> int:
        """Cycles in which elements wait, over all of them."""
        return self.elements * self.cycles - self.work

    @property
    def cycles(self) -> int:
        """Cycles until the last element is done, layer after layer."""
        return sum(cycles(layer.work) for layer in self.layers)

    @property
    def balanced_cycles(self) -> int:
        """The fewest cycles for the same work: whole operations, elements without a channel idle.

        A channel's operations may move to another element, as pruning and recovering can.
        """
        return sum(
            int(np.sum(-(-layer.work.sum(axis=1) // min(layer.channels, self.elements))))
            for layer in self.layers
        )

    @property
    def utilisation(self) -> float | None:
        """Utilisation, 0..1, of all layers that fill the elements; None where there is none."""
        full = [layer.work for layer in self.layers if layer.fills]
        return utilisation(np.concatenate(full)) if full else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decomposition:
    """Where cycles were saved: ``before`` -> ``balanced``, of the same work -> ``after``."""

    before: int
    balanced: int
    after: int

    @property
    def by_balance(self) -> float:
        """The share of the cycles before that balance alone saves."""
        return (self.before - self.balanced) / self.before if self.before else 0.0

    @property
    def by_less_work(self) -> float:
        """The share of the cycles before that other work saves; negative where it costs some."""
        return (self.balanced - self.after) / self.before if self.before else 0.0


def decomposition(before: Load, after: Load) -> Decomposition:
    """Tell the cycles saved by balance from those saved by less work."""
    return Decomposition(before=before.cycles, balanced=before.balanced_cycles, after=after.cycles)


def cycles(work: Array) -> int:
    """Return the cycles of work (rounds, n): a round lasts as long as its slowest element."""
    return int(work.max(axis=1).sum())


def utilisation(work: Array) -> float:
    """Return the utilisation, 0..1, of work (rounds, n); 1 where there is none, or one element."""
    return utilised(int(work.sum()), cycles(work), work.shape[1])


def utilised(work: int, cycles: int, elements: int) -> float:
    """Return the utilisation, 0..1, of the elements' work within so many cycles."""
    if cycles == 0 or elements == 1:
        return 1.0
    waiting = (cycles - work / elements) / cycles
    return 1 - waiting * elements / (elements - 1)


def pattern_load(name: str, pattern: Array, elements: int, mapping: MappingName) -> LayerLoad:
    """Return the load of nonzero weights (out, in, ...) without groups, each counted once."""
    axis = axis_of(elements, mapping)
    return _counted(name, np.nonzero(pattern)[axis], pattern.shape[axis], elements)


def weight_load(network: Network, elements: int, mapping: MappingName = "sata") -> Load:
    """Return the load of a network's nonzero learned weights, a kernel's counted once.

    Raises UsageError for less than one element or an unknown mapping.
    """
    axis = axis_of(elements, mapping)
    layers = []
    for projection, i, synapse in _learned(network):
        channels = _channels(synapse, chain_shapes(network, projection)[i])[axis]
        dealt = _weights(synapse)[axis]
        layers.append(_counted(projection.name, dealt, channels, elements))
    return Load(elements=elements, layers=tuple(layers))


def channel_weights(network: Network) -> dict[str, Array]:
    """Return the nonzero weights of each output channel, int64 (channels,), by projection.

    A kernel's are counted once; of a chain with several learned operators the last one's.
    """
    return {
        projection.name: np.bincount(
            _weights(synapse)[0],
            minlength=_channels(synapse, chain_shapes(network, projection)[i])[0],
        )
        for projection, i, synapse in _learned(network)
    }


def spike_load(
    network: Network, trace: Trace, elements: int, mapping: MappingName = "sata"
) -> Load:
    """Return the load of a run's spikes, until its samples' stops: each meets nonzero weights.

    The sum is the run's effective synops and, where analogue values come in, its MACs. Raises
    InputError where the trace lacks a population's spikes, UsageError as ``weight_load``.
    """
    layers = []
    for layer in reaches(network, elements, mapping):
        if layer.analogue:
            work = ran(trace, layer.pre)[:, None] * layer.own.sum(axis=0)
        else:
            work = counted_spikes(trace, layer.pre).sum(axis=1, dtype=np.int64) @ layer.reach
        layers.append(LayerLoad(name=layer.name, channels=layer.channels, work=work))
    return Load(elements=elements, layers=tuple(layers))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerReach:
    """The nonzero connections of a learned operator, by what comes in and by element.

    own: int64 (inputs of the operator, n). reach: int64 (neurons of ``pre``, n), what a spike
    meets that the operators before it carry on. analogue: other values than spikes come in.
    """

    name: str
    pre: str
    channels: int
    analogue: bool
    own: Array
    reach: Array


def reaches(
    network: Network, elements: int | None, mapping: MappingName = "sata"
) -> tuple[LayerReach, ...]:
    """Return the connections of a network's learned operators in each of n elements.

    elements None: one per channel. Raises UsageError as ``weight_load``.
    """
    axis = axis_of(1 if elements is None else elements, mapping)
    layers = []
    for projection, i, synapse in _learned(network):
        shapes = chain_shapes(network, projection)
        channels = _channels(synapse, shapes[i])[axis]
        own = _reach(synapse, shapes[i], shapes[i + 1], elements or channels, axis)
        layers.append(
            LayerReach(
                name=projection.name,
                pre=projection.pre,
                channels=channels,
                analogue=analogue(network, projection),
                own=own,
                reach=pulled_back(network, projection, i, own),
            )
        )
    return tuple(layers)


def axis_of(elements: int, mapping: str) -> int:
    """Return which axis of a weight is dealt out; raises UsageError."""
    if elements < 1:
        raise UsageError(
            "work needs at least one processing element",
            used=f"elements = {elements}",
            hint="the published array has 16",
        )
    if mapping not in MAPPINGS:
        raise UsageError(f"unknown mapping {mapping!r}", hint=" or ".join(MAPPINGS))
    return MAPPINGS.index(mapping)


def _counted(name: str, dealt: Array, channels: int, elements: int) -> LayerLoad:
    work = np.bincount(dealt % elements, minlength=elements)[None, :]
    return LayerLoad(name=name, channels=channels, work=work)


def _learned(network: Network) -> list[tuple[Projection, int, Synapse]]:
    """Return the learned operators: their projection, place in its chain, and the operator."""
    return [
        (projection, i, synapse)
        for projection in network.projections
        if not projection.helper
        for i, synapse in enumerate(projection.synapses)
        if isinstance(synapse, LEARNED)
    ]


def _weights(synapse: Synapse) -> tuple[Array, Array]:
    """Return the output and the input channel of each nonzero weight."""
    if isinstance(synapse, Csr):
        kept = synapse.data != 0
        return synapse.rows[kept], synapse.indices[kept]
    weight = weights_of(synapse)
    assert weight is not None
    out, into = np.nonzero(weight)[:2]
    if isinstance(synapse, Conv1d | Conv2d):
        into = out // (weight.shape[0] // synapse.groups) * weight.shape[1] + into
    return out, into


def _channels(synapse: Synapse, in_shape: Shape) -> tuple[int, int]:
    """Return how many output and input channels there are to deal out."""
    into = in_shape[0] if isinstance(synapse, Conv1d | Conv2d) else int(np.prod(in_shape))
    return synapse.out_shape(in_shape)[0], into


def _reach(synapse: Synapse, before: Shape, after: Shape, elements: int, axis: int) -> Array:
    """Return the nonzero connections of each input neuron in each element, int64 (pre, n)."""
    entries = matrix(synapse, before).tocoo()
    kept = entries.data != 0
    row, column = (place[kept].astype(np.int64) for place in entries.coords)
    neurons = int(np.prod((after, before)[axis]))
    channel = (row, column)[axis] // (neurons // _channels(synapse, before)[axis])
    size = entries.shape[1]
    place = column * elements + channel % elements
    return np.bincount(place, minlength=size * elements).reshape(size, elements)


def ran(trace: Trace, population: str) -> Array:
    """Return the steps that each sample ran, int64 (samples,)."""
    if trace.stop is None:
        return np.full(trace.samples, trace.steps, np.int64)
    return trace.stop.ran[population]


def spikes_of(trace: Trace, population: str) -> Array:
    """Return whether each neuron spiked, bool (samples, steps, neurons), in all recorded steps.

    Raises InputError where the trace lacks the population's spikes.
    """
    if population not in trace.spikes:
        raise InputError(
            "the run recorded no spikes of a population",
            where=population,
            hint='record them: run(x, record="spikes")',
        )
    spikes = trace.spikes[population]
    return np.asarray(spikes.reshape(*spikes.shape[:2], -1) != 0)


def counted_spikes(trace: Trace, population: str) -> Array:
    """Return ``spikes_of`` until samples' stops."""
    counted = np.arange(trace.steps) < ran(trace, population)[:, None]
    return np.asarray(spikes_of(trace, population) & counted[..., None])
