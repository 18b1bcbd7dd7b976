"""What synapses take on a core: weight lists, input axons, and the spikes that arrive.

A spike arrives at an input axon, which names a list of weights and a base that is added to the
compartments of the list. Lists are stored in groups of up to 64 weights, each group in whole
64-bit words with 10 bits of header. Three kinds of list, the smallest that serves is taken:

- *indexed*: one entry per nonzero weight, with its compartment;
- *all*: a weight for every neuron of the box, zeros included, without indices;
- *shared*: of a convolution, indexed, one list for all axons that meet the same taps of the same
  kernel; they differ in their base alone.

A *population* axon is one for all channels of a pixel: the channel, which comes with the spike,
chooses one of as many lists, all of one length. It takes two entries of a core's output axons.

Source: nengo-loihi, block.py (bits of a list, kinds of axon), builder/validate.py (bases below
256) and conv.py (lists per set of taps); limits themselves are in the device file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np

from snn_deploy.backends.loihi.program import LoihiSynapses
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.synapses import Conv2d, Shape

Axons = Literal["discrete", "population"]
Lists = Literal["indexed", "all", "shared"]

WORD_BITS = 64
GROUP = 64
HEADER_BITS = 10
LEAST_INDEX_BITS = 6
BASES = 256
POPULATION_SLOTS = 2  # output axon entries of a population axon that carries a channel number


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Neurons of a grid (channels, rows, columns): first and last + 1 along each axis."""

    channels: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def pixels(self) -> int:
        """How many pixels each channel has."""
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])

    @property
    def size(self) -> int:
        """How many neurons there are."""
        return (self.channels[1] - self.channels[0]) * self.pixels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """A population as (channels, rows, columns); order: the channels in the order of boxes."""

    shape: tuple[int, int, int]
    order: Array

    def neurons(self, box: Box) -> Array:
        """Return the neurons of a box in the order of their compartments, int64."""
        _, height, width = self.shape
        channels = self.order[slice(*box.channels)].astype(np.int64)
        rows, columns = np.arange(*box.rows), np.arange(*box.columns)
        within = (channels[:, None, None] * height + rows[:, None]) * width + columns
        return within.ravel()

    @property
    def whole(self) -> Box:
        """The box of all neurons."""
        channels, height, width = self.shape
        return Box(channels=(0, channels), rows=(0, height), columns=(0, width))


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the synapses into one box take on its core.

    bits: of synapse memory. axons: input axons. sources: neurons whose spikes arrive. synapses:
    weights that are not zero.
    """

    lists: Lists
    bits: int
    axons: int
    sources: int
    synapses: int


def index_bits(compartments: int) -> int:
    """Return the width of an index into so many compartments; a core stores at least 6 bits."""
    return max(LEAST_INDEX_BITS, (max(compartments, 1) - 1).bit_length())


def delay_bits(synapses: LoihiSynapses) -> int:
    """Return the bits of delay that every weight of the synapses is stored with."""
    return int(np.max(synapses.delay_steps, initial=0)).bit_length()


def list_bits(weights: Array, entry_bits: int) -> Array:
    """Return the memory of lists of so many weights each, int64; none for an empty list."""
    whole, rest = np.divmod(np.asarray(weights, np.int64), GROUP)
    full = -(-(GROUP * entry_bits + HEADER_BITS) // WORD_BITS)
    last = np.where(rest > 0, -(-(rest * entry_bits + HEADER_BITS) // WORD_BITS), 0)
    bits: Array = WORD_BITS * (whole * full + last)
    return bits


@lru_cache(maxsize=64)
def _short_lists(most: int, entry_bits: int) -> Array:
    return list_bits(np.arange(most + 1), entry_bits)


def _list_table(longest: int, entry_bits: int) -> Array:
    """Return the memory of a list by its weights, 0 to at least ``longest``."""
    return _short_lists(1 << max(longest, 1).bit_length(), entry_bits)


class FanIn(Protocol):
    """Synapses into a population, as boxes of its grid see them.

    format: what their synapse format says apart from the width of indices.
    """

    synapses: LoihiSynapses
    format: tuple[int, ...]

    def load(self, box: Box, last: int, axons: Axons) -> Load:
        """Return what ``box`` takes; last: compartments of the core up to the box's end."""

    def sources(self, box: Box) -> Array:
        """Return the pre neurons with a weight into ``box``, ascending."""


def _format(synapses: LoihiSynapses) -> tuple[int, ...]:
    weights = synapses.weights
    signs = (int(np.any(weights > 0)), int(np.any(weights < 0)))
    return (synapses.weight_bits, synapses.exponent, delay_bits(synapses), *signs)


def fan_in(synapses: LoihiSynapses, grid: Grid) -> FanIn:
    """Return the synapses as a fan-in of a population with this grid."""
    if isinstance(synapses.operator, Conv2d) and synapses.out_shape == grid.shape:
        return ConvFanIn(synapses, synapses.operator, grid.order)
    return ListedFanIn(synapses, grid)


def connections(synapses: LoihiSynapses) -> tuple[Array, Array, Array]:
    """Return (indptr, indices, weights) by post neuron, as Csr has them; zeros are left out."""
    from snn_deploy.engine.operators import matrix

    entries = matrix(synapses.operator, synapses.in_shape)
    kept = entries.data != 0
    before = np.concatenate([[0], np.cumsum(kept)])
    return before[entries.indptr], entries.indices[kept], entries.data[kept]


class ListedFanIn:
    """Synapses without a structure to share: each source has a list of its own."""

    def __init__(self, synapses: LoihiSynapses, grid: Grid) -> None:
        self.synapses = synapses
        self.format = _format(synapses)
        self._grid = grid
        self._indptr, self._indices, _ = connections(synapses)
        self._pre = math.prod(synapses.in_shape)
        self._delay = delay_bits(synapses)

    def _counts(self, box: Box) -> Array:
        neurons = self._grid.neurons(box)
        first, last = int(neurons[0]), int(neurons[-1]) + 1
        if last - first == neurons.size and np.all(np.diff(neurons) == 1):
            entries = self._indices[self._indptr[first] : self._indptr[last]]
        else:
            starts = self._indptr[neurons].astype(np.int64)
            lengths = self._indptr[neurons + 1] - starts
            offsets = np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
            entries = self._indices[offsets + np.arange(offsets.size)]
        return np.bincount(entries, minlength=self._pre)

    def load(self, box: Box, last: int, axons: Axons) -> Load:
        """Return what ``box`` takes; last: compartments of the core up to the box's end."""
        counts = self._counts(box)
        counts = counts[counts > 0]
        entry = self.synapses.weight_bits + self._delay
        indexed = int(_list_table(box.size, entry + index_bits(last))[counts].sum())
        every = counts.size * int(_list_table(box.size, entry)[box.size])
        return Load(
            lists="indexed" if indexed <= every else "all",
            bits=min(indexed, every),
            axons=counts.size,
            sources=counts.size,
            synapses=int(counts.sum()),
        )

    def sources(self, box: Box) -> Array:
        """Return the pre neurons with a weight into ``box``, ascending."""
        return np.flatnonzero(self._counts(box))


class _Axis:
    """One spatial axis of a convolution: which taps each input position has into a span.

    slices: the kernel's weights at each tap, as bytes: equal ones share lists, as those of a pool
    that was fused into the convolution do.
    """

    def __init__(
        self, size: int, slices: list[bytes], stride: int, before: int, dilation: int
    ) -> None:
        kernel = len(slices)
        known = {weights: tap for tap, weights in reversed(list(enumerate(slices)))}
        self._alike = np.array([known[weights] for weights in slices])
        position = np.arange(size)[:, None] + before - np.arange(kernel)[None, :] * dilation
        self._output = np.where(position % stride == 0, position // stride, -1)
        self._known: dict[tuple[int, int], tuple[Array, Array, Array, Array]] = {}

    def classes(self, span: tuple[int, int]) -> tuple[Array, Array, Array, Array]:
        """Return (taps, first, of, base) for the outputs of a span.

        taps: bool (classes, kernel), a set of taps of each class. first: the input positions that
        have any. of: the class of each. base: how far into the span each one's first output lies.
        """
        if span not in self._known:
            taken = (self._output >= span[0]) & (self._output < span[1])
            first = np.flatnonzero(taken.any(axis=1))
            taken = taken[first]
            outputs = self._output[first]
            nearest = np.where(taken, outputs, span[1]).min(axis=1, initial=span[1])
            # Of a class are those with the same weights at the same distances from their base.
            met = self._alike * (span[1] + 1) + outputs - nearest[:, None]
            keys = np.sort(np.where(taken, met, -1), axis=1)
            _, chosen, of = np.unique(keys, axis=0, return_index=True, return_inverse=True)
            self._known[span] = taken[chosen], first, of.reshape(-1), nearest - span[0]
        return self._known[span]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Classes:
    """Input pixels that meet the same taps. taps: (kernel taps, classes). pixels, lists: of each
    class, the second more than 1 where bases do not suffice.
    """

    taps: Array
    pixels: Array
    lists: Array


class ConvFanIn:
    """A convolution: sources that meet the same taps of the same kernel share a list."""

    def __init__(self, synapses: LoihiSynapses, operator: Conv2d, order: Array) -> None:
        self.synapses = synapses
        self.format = _format(synapses)
        out, per_group, height, width = operator.weight.shape
        group = order // (out // operator.groups)
        # nonzeros of the output channels before each, by input channel and tap
        whole = np.int16 if out < 1 << 15 else np.int32
        before = np.zeros((out + 1, operator.groups, per_group, height * width), whole)
        for i, channel in enumerate(order):
            before[i + 1] = before[i]
            before[i + 1, group[i]] += operator.weight[channel].reshape(per_group, -1) != 0
        self._before = before.reshape(out + 1, -1, height * width)
        top, _, left, _ = operator.padding
        _, rows, columns = synapses.in_shape
        weight = operator.weight
        down = [weight[:, :, tap].tobytes() for tap in range(height)]
        across = [weight[:, :, :, tap].tobytes() for tap in range(width)]
        self._rows = _Axis(rows, down, operator.stride[0], top, operator.dilation[0])
        self._columns = _Axis(columns, across, operator.stride[1], left, operator.dilation[1])
        self._entry = synapses.weight_bits + delay_bits(synapses)
        self._known: dict[tuple[tuple[int, int], tuple[int, int]], _Classes] = {}

    def _classes(self, box: Box) -> _Classes:
        """Return the classes of input pixels that a box tells apart."""
        key = (box.rows, box.columns)
        if key not in self._known:
            down, _, row, above = self._rows.classes(box.rows)
            across, _, column, left = self._columns.classes(box.columns)
            pixels = np.outer(np.bincount(row), np.bincount(column))
            lists = np.ones_like(pixels)
            if box.pixels > BASES:
                # What a base cannot say is in the indices: as many lists as there are of those.
                part = (above[:, None] * (box.columns[1] - box.columns[0]) + left) // BASES
                rows = np.broadcast_to(row[:, None], part.shape)
                columns = np.broadcast_to(column, part.shape)
                kinds = np.unique(np.stack([k.ravel() for k in (rows, columns, part)]), axis=1)
                lists = np.zeros_like(pixels)
                np.add.at(lists, (kinds[0], kinds[1]), 1)
            self._known[key] = _Classes(
                taps=np.kron(down, across).astype(np.float32).T,
                pixels=pixels.ravel(),
                lists=lists.ravel(),
            )
        return self._known[key]

    def _weights(self, box: Box, classes: _Classes) -> Array:
        """Return the weights that a source has, int32 (channels, classes)."""
        first, last = box.channels
        kernels = (self._before[last] - self._before[first]).astype(np.float32)
        weights: Array = (kernels @ classes.taps).astype(np.int32)  # exact: small whole numbers
        return weights

    def load(self, box: Box, last: int, axons: Axons) -> Load:
        """Return what ``box`` takes; last: compartments of the core up to the box's end."""
        classes = self._classes(box)
        weights = self._weights(box, classes)
        entry = self._entry + index_bits(last)
        sources = int(np.count_nonzero(weights, axis=0) @ classes.pixels)
        synapses = int(weights.sum(axis=0) @ classes.pixels)
        if axons == "population":
            # Lists of all channels lie one behind the other, each as long as the longest.
            longest = weights.max(axis=0, initial=0)
            bits = int(list_bits(len(weights) * longest, entry) @ classes.lists)
            taken = int((longest > 0) @ classes.pixels)
            return Load(lists="shared", bits=bits, axons=taken, sources=sources, synapses=synapses)
        table = _list_table(box.size, entry)
        shared = int(table[weights].sum(axis=0) @ classes.lists)
        every = sources * int(_list_table(box.size, self._entry)[box.size])
        return Load(
            lists="shared" if shared <= every else "all",
            bits=min(shared, every),
            axons=sources,
            sources=sources,
            synapses=synapses,
        )

    def sources(self, box: Box) -> Array:
        """Return the pre neurons with a weight into ``box``, ascending."""
        down, rows, row, _ = self._rows.classes(box.rows)
        across, columns, column, _ = self._columns.classes(box.columns)
        weights = self._weights(box, self._classes(box)).reshape(-1, len(down), len(across))
        channel, i, j = np.nonzero(weights[:, row[:, None], column])
        _, height, width = self.synapses.in_shape
        return (channel * height + rows[i]) * width + columns[j]


def pixels_of(shape: Shape) -> int:
    """Return the pixels of a channel: how many population axons the neurons of a shape have."""
    return math.prod(shape[1:])


def format_of(fan: FanIn, load: Load, last: int) -> tuple[int, ...]:
    """Return what the synapse format of a list says: equal tuples share one on a core."""
    return (*fan.format, 0 if load.lists == "all" else index_bits(last))
