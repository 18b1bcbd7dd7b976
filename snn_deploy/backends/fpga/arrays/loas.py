"""A fully temporal-parallel inner join, after LoAS (Yin et al., MICRO 2024).

A neuron's spikes in all T steps are packed into one word. A neuron that never spikes is silent and
has no word; a bitmask says who has one. An element (TPPE) computes an output neuron's currents in
all steps at once: it ANDs the bitmask of its inputs with that of its weights, line by line, and
adds the weight of each match to a pseudo-accumulator as if the input had spiked in every step. A
slower prefix sum finds the inputs' words meanwhile; where a word is not all ones, the weight goes
to the correction accumulators of the steps without a spike, which are subtracted in the end. The
currents are exact: T x matches - corrections = the spikes' accumulates.

16 elements, lines of 128 bits, a fast prefix sum over weights (a match a cycle), a laggy one over
inputs (16 adders, hence 8 cycles a line) and 8-bit weights are the paper's figures as others quote
them; its full text was not at hand. Chosen here:

- Output neurons in C order, n at a time (a tile), one in each element; the join of a tile begins
  when all have joined the last, since they share the weights' broadcast.
- A line takes a cycle per match, and one cycle without. Its laggy prefix sum begins with it, or
  when the last one has ended; a line without matches needs none. Then its matches are checked,
  one a cycle and in order. Queues between the three are never full.
- An input's place in the bitmask is its rank among those that the output's window reaches, in C
  order. A chain (a pool before its weights, say) counts as its one sparse matrix.
- Layers follow one another. Neuron updates, output compression and memory stalls are not counted.
- Early stops save nothing: all steps are computed at once. Feedback and delays are refused, since
  a step's input must be known before the step before is computed. Layers with analogue input are
  left out, as in the paper's artifact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from snn_deploy.engine.count import analogue
from snn_deploy.engine.event import EventEngine
from snn_deploy.engine.load import spikes_of
from snn_deploy.engine.loop import Inputs, by_input
from snn_deploy.engine.operators import Operator, matrix
from snn_deploy.errors import UnsupportedError, UsageError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.check import chain_shapes
from snn_deploy.ir.network import Network, Projection, Readout
from snn_deploy.ir.neurons import Relay
from snn_deploy.ir.schedule import schedule
from snn_deploy.ir.synapses import LEARNED, Csr, Dense, Synapse, weights_of, with_weights
from snn_deploy.ir.trace import Trace

if TYPE_CHECKING:
    from scipy.sparse import csr_array
else:
    csr_array = Any

_BATCH_VALUES = 4_000_000  # matches held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Loas:
    """The array: elements, bits of a bitmask line, adders of the laggy prefix sum, weight bits."""

    elements: int = 16
    line_bits: int = 128
    adders: int = 16
    weight_bits: int = 8

    def __post_init__(self) -> None:
        for name in ("elements", "line_bits", "adders", "weight_bits"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"{name} of the array is less than one",
                    used=f"{name} = {getattr(self, name)}",
                    hint=f"the published array has {Loas.__dataclass_fields__[name].default}",
                )

    @property
    def laggy_cycles(self) -> int:
        """Cycles of the laggy prefix sum over a line."""
        return -(-self.line_bits // self.adders)

    def lines(self, bits: int) -> int:
        """Lines of a bitmask."""
        return -(-bits // self.line_bits)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerJoin:
    """One layer on the array; arrays are int64 (samples,).

    pre: the population that comes in, of so many neurons. cycles: from the first line to the last
    check. stepwise_cycles: the same join for one step after the other, without packing. matches:
    weights added to pseudo-accumulators; corrections: to correction accumulators. accumulates:
    what the spikes amount to. active: neurons of ``pre`` that are not silent; spikes: theirs.
    weight_bits: bitmasks, line pointers and values of the weights.
    """

    name: str
    pre: str
    neurons: int
    steps: int
    cycles: Array
    stepwise_cycles: Array
    matches: Array
    corrections: Array
    accumulates: Array
    active: Array
    spikes: Array
    line_pointers: int
    weight_bits: int

    @property
    def packed_bits(self) -> Array:
        """Bits of the input's spikes: a bitmask, a pointer per line, and the words that it says."""
        pointers = self.line_pointers * self.neurons.bit_length()
        return np.asarray(self.neurons + pointers + self.active * self.steps)

    @property
    def map_bits(self) -> int:
        """Bits of the input's spikes as they are, one per neuron and step."""
        return self.neurons * self.steps

    @property
    def coordinate_bits(self) -> Array:
        """Bits of the input's spikes as a list of neurons in each step."""
        return np.asarray(self.spikes * max(1, (self.neurons - 1).bit_length()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoasRun:
    """A network on the array. left_out: layers that take analogue values."""

    array: Loas
    layers: tuple[LayerJoin, ...]
    left_out: tuple[str, ...]

    @property
    def cycles(self) -> Array:
        """Cycles of each sample, int64 (samples,)."""
        return np.asarray(sum(layer.cycles for layer in self.layers))

    @property
    def stepwise_cycles(self) -> Array:
        """Cycles of each sample with one step after the other, int64 (samples,)."""
        return np.asarray(sum(layer.stepwise_cycles for layer in self.layers))

    @property
    def utilisation(self) -> float:
        """The share of the elements' cycles, 0..1, that add a weight to a pseudo-accumulator."""
        matches = sum(int(layer.matches.sum()) for layer in self.layers)
        return matches / max(1, self.array.elements * int(self.cycles.sum()))

    @property
    def silent(self) -> float:
        """The share of input neurons, 0..1, that never spike, over layers and samples."""
        neurons = sum(layer.neurons * len(layer.active) for layer in self.layers)
        return 1 - sum(int(layer.active.sum()) for layer in self.layers) / max(1, neurons)

    @property
    def spike_sparsity(self) -> float:
        """The share of input neurons and steps, 0..1, without a spike, over layers and samples."""
        places = sum(layer.map_bits * len(layer.spikes) for layer in self.layers)
        return 1 - sum(int(layer.spikes.sum()) for layer in self.layers) / max(1, places)


def loas(
    network: Network, trace: Trace, array: Loas | None = None, *, drops_single: bool = False
) -> LoasRun:
    """Return the cycles of a run's samples.

    drops_single: neurons other than inputs that spike once count as silent; what that does to
    later layers' spikes is not in the trace (see ``preprocessed``). Raises InputError where the
    trace lacks a population's spikes, UnsupportedError for feedback and delays.
    """
    array = array or Loas()
    back = schedule(network).feedback
    layers, left_out = [], []
    for projection in network.projections:
        if projection.helper or not any(isinstance(s, LEARNED) for s in projection.synapses):
            continue
        if back[projection.name] or np.any(projection.delay_steps):
            raise UnsupportedError(
                "all steps of a neuron are computed at once, and here one waits for another",
                where=network.where(projection.name),
                hint="take a feed-forward network without delays",
            )
        if analogue(network, projection):
            left_out.append(projection.name)
            continue
        spikes = spikes_of(trace, projection.pre)
        if drops_single and projection.pre not in network.inputs:
            spikes = without_single_spikes(spikes)
        layers.append(_layer(network, projection, spikes, array))
    return LoasRun(array=array, layers=tuple(layers), left_out=tuple(left_out))


def without_single_spikes(spikes: Array) -> Array:
    """Return spikes (samples, steps, ...) without those of neurons that spike once in a sample."""
    return np.asarray(spikes * (np.count_nonzero(spikes, axis=1, keepdims=True) != 1))


def preprocessed(network: Network, x: Inputs) -> Trace:
    """Return a float run in which hidden neurons' single spikes are dropped.

    x: as engines take it. A neuron that spikes once in a sample, and is neither input nor output,
    sends nothing on: the paper's preprocessing, without the fine-tuning after it. Raises
    UnsupportedError for feedback, InputError where there are several outputs.
    """
    order = schedule(network)
    if any(order.feedback.values()):
        raise UnsupportedError(
            "whether a neuron spikes once is known only after all steps",
            hint="take a feed-forward network",
        )
    last = network.output_population.name
    spikes = dict(by_input(network, x))
    output = spikes[network.inputs[0]]
    samples, steps = output.shape[:2]
    for name in order.order:
        if name in network.inputs:
            continue
        trace = EventEngine(_alone(network, name)).run(
            {p.pre: spikes[p.pre] for p in network.into(name)}, record="spikes"
        )
        if name == last:
            spikes[name], output = trace.spikes[name], trace.output
        else:
            spikes[name] = without_single_spikes(trace.spikes[name])
    return Trace(
        output=output,
        counts={name: values.sum(axis=(0, 1)).reshape(-1) for name, values in spikes.items()},
        samples=samples,
        steps=steps,
        spikes=spikes,
    )


def _alone(network: Network, name: str) -> Network:
    """Return one population with what comes into it, as inputs."""
    into = network.into(name)
    pre = dict.fromkeys(p.pre for p in into)
    inputs = (replace(network.population(one), neuron=Relay()) for one in pre)
    readout = network.readout if name in network.outputs else Readout(kind="count")
    return replace(
        network,
        populations=(*inputs, network.population(name)),
        projections=into,
        inputs=tuple(pre),
        outputs=(name,),
        readout=readout,
    )


def _layer(network: Network, projection: Projection, spikes: Array, array: Loas) -> LayerJoin:
    lines = _lines(network, projection, array.line_bits)
    post, neurons = lines[0].sparse.shape
    fan_out = sum(np.bincount(line.sparse.indices, minlength=neurons) for line in lines)
    counts = spikes.sum(axis=1, dtype=np.int64)
    active = counts > 0
    cycles = np.zeros(len(spikes), np.int64)
    stepwise = np.zeros(len(spikes), np.int64)
    most = max(1, _BATCH_VALUES // (len(lines) * post))
    for first in range(0, len(spikes), most):
        part = slice(first, first + most)
        cycles[part] = _cycles(_tiles(lines, active[part], array.elements), array.laggy_cycles)
        for step in range(spikes.shape[1]):
            tiles = _tiles(lines, spikes[part, step], array.elements)
            stepwise[part] += np.maximum(tiles, 1).sum(axis=1).max(axis=2).sum(axis=0)
    return LayerJoin(
        name=projection.name,
        pre=projection.pre,
        neurons=neurons,
        steps=spikes.shape[1],
        cycles=cycles,
        stepwise_cycles=stepwise,
        matches=active @ fan_out,
        corrections=(active * (spikes.shape[1] - counts)) @ fan_out,
        accumulates=counts @ fan_out,
        active=active.sum(axis=1),
        spikes=counts.sum(axis=1),
        line_pointers=array.lines(neurons),
        weight_bits=_weight_bits(projection, array),
    )


def _cycles(tiles: Array, laggy_cycles: int) -> Array:
    """Return the cycles of matches (tiles, lines, samples, n), int64 (samples,)."""
    samples, elements = tiles.shape[2:]
    begin = np.zeros((samples, 1), np.int64)
    summed = np.zeros((samples, elements), np.int64)
    checked = np.zeros((samples, elements), np.int64)
    for tile in tiles:
        joined = np.broadcast_to(begin, summed.shape)
        for matches in tile:
            some = matches > 0
            summed = np.where(some, np.maximum(summed, joined) + laggy_cycles, summed)
            checked = np.where(some, np.maximum(checked, summed) + matches, checked)
            joined = joined + np.maximum(matches, 1)
        begin = joined.max(axis=1, keepdims=True)
    return np.asarray(np.maximum(begin, checked).max(axis=1))


def _tiles(lines: list[Operator], active: Array, elements: int) -> Array:
    """Return matches, int64 (tiles, lines, samples, n), of active inputs (samples, pre)."""
    matches = np.stack([line.currents(active) for line in lines]).astype(np.int64)
    matches = np.pad(matches, ((0, 0), (0, 0), (0, -matches.shape[2] % elements)))
    return np.moveaxis(matches.reshape(*matches.shape[:2], -1, elements), 2, 0)


def _lines(network: Network, projection: Projection, line_bits: int) -> list[Operator]:
    """Return, for each line of the bitmasks, which inputs each output has a weight for."""
    from scipy.sparse import csr_array

    reached, kept = (_pattern(network, projection, zeros) for zeros in (True, False))
    rank = np.arange(reached.nnz) - np.repeat(reached.indptr[:-1], np.diff(reached.indptr))
    longest = int(np.diff(reached.indptr).max(initial=1))
    # Ranks from 1, so that the product with the weights' pattern drops none.
    place = csr_array((rank + 1, reached.indices, reached.indptr), shape=reached.shape)
    entries = place.multiply(kept).tocoo()
    line = (entries.data - 1) // line_bits
    return [
        Operator(
            csr_array(
                (np.ones(int(np.sum(line == at))), [c[line == at] for c in entries.coords]),
                shape=reached.shape,
            )
        )
        for at in range(-(-longest // line_bits))
    ]


def _pattern(network: Network, projection: Projection, zeros: bool) -> csr_array:
    """Return ones where a chain connects; zeros: through weights of zero too."""
    total: csr_array | None = None
    shapes = chain_shapes(network, projection)
    for synapse, shape in zip(projection.synapses, shapes, strict=False):
        part = matrix(_whole(synapse) if zeros else synapse, shape).copy()
        part.eliminate_zeros()
        part.data = np.ones_like(part.data)
        total = part if total is None else part @ total
    assert total is not None
    total.data = np.ones_like(total.data, dtype=np.int64)
    total.sort_indices()
    return total


def _whole(synapse: Synapse) -> Synapse:
    """Return ``synapse`` with no weight of zero."""
    if isinstance(synapse, Csr):
        return Dense(weight=np.ones(synapse.shape, np.float32))
    weights = weights_of(synapse)
    return synapse if weights is None else with_weights(synapse, np.ones_like(weights), None)


def _weight_bits(projection: Projection, array: Loas) -> int:
    """Return the bits of a chain's weights: a bitmask and line pointers per output channel."""
    total = 0
    for synapse in projection.synapses:
        weights = weights_of(synapse)
        if weights is None:
            continue
        kept = int(np.count_nonzero(weights))
        shape = synapse.shape if isinstance(synapse, Csr) else weights.shape
        column = int(np.prod(shape[1:]))
        pointers = array.lines(column) * kept.bit_length()
        total += shape[0] * (column + pointers) + kept * array.weight_bits
    return total
