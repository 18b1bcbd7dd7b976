"""What the accelerator loads: engines of layers, their memory images, and how events become rows.

A layer serves one population. Neurons are channels x pixels (a plain population has one pixel);
channel c lives in bank ``perm[c] % banks`` at slot ``perm[c] // banks``, and neuron (c, pixel) at
word ``pixel * per_bank + slot`` of that bank. A sweep walks the words in order; the spikes of one
word, a lane for each bank, travel together, and a reader takes them lane after lane. That is the
order in which events arrive: sums are exact, so it decides about cycles alone, not about values.

An engine runs one layer, or several one after the other. Its images are those of targets/rtl.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from snn_deploy.ir.arrays import Array
from snn_deploy.ir.quantized import Arithmetic


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Banks:
    """Where a population's neurons live. perm: int64 (channels,), injective."""

    banks: int
    channels: int
    pixels: int
    perm: Array

    @property
    def per_bank(self) -> int:
        """Channels per bank, the slots."""
        return -(-self.channels // self.banks)

    @property
    def words(self) -> int:
        """Words of each bank's state memory."""
        return self.per_bank * self.pixels

    def places(self) -> tuple[Array, Array]:
        """Return (bank, address) of every neuron, int64 (N,)."""
        pixel = np.arange(self.pixels)
        bank = np.repeat(self.perm % self.banks, self.pixels)
        address = (self.perm // self.banks)[:, None] + pixel[None, :] * self.per_bank
        return bank, address.reshape(-1)

    def neurons(self) -> Array:
        """Return the neuron at (bank, address), int64, -1 where there is none."""
        table = np.full((self.banks, self.words), -1, np.int64)
        table[self.places()] = np.arange(self.channels * self.pixels)
        return table


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """Address transform of an event: (c, y, x) becomes (c, y // kh, x // kw), or is dropped.

    shape: (C, H, W) before. kernel: window and stride.
    """

    shape: tuple[int, int, int]
    kernel: tuple[int, int]

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """Shape after pooling."""
        channels, height, width = self.shape
        return channels, height // self.kernel[0], width // self.kernel[1]

    def transform(self) -> Array:
        """Return the pooled index of every event, int64, -1 where it is dropped."""
        _, height, width = self.out_shape
        c, y, x = np.indices(self.shape, sparse=True)
        y, x = y // self.kernel[0], x // self.kernel[1]
        pooled = (c * height + y) * width + x
        return np.where((y < height) & (x < width), pooled, -1).reshape(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Geometry of a convolution: an event expands to its valid taps in kernel raster order.

    Pointer row of (c, ky, kx): ``(c * kh + ky) * kw + kx``; its entries add at
    ``(oy * W' + ox) * per_bank`` where ``oy * stride + ky * dilation - top == y``, x likewise.
    """

    in_shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]

    def axis(self, which: int) -> Array:
        """Return, for (input index, tap) of axis 0 (y) or 1 (x), the output index or -1."""
        size, out = self.in_shape[1 + which], self.out_shape[1 + which]
        tap = np.arange(self.kernel[which]) * self.dilation[which]
        reach = np.arange(size)[:, None] + self.padding[2 * which] - tap[None, :]
        index = reach // self.stride[which]
        valid = (reach >= 0) & (reach % self.stride[which] == 0) & (index < out)
        return np.where(valid, index, -1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Map:
    """How the words of a source become rows where a kernel slides over its pixels, or a pool.

    row: int64 (words,), the row of the word's lane 0, -1 where nothing reads it. base: where the
    kernel lies: an entry adds at ``base - index``, modulo the address. reach: bool (words, taps),
    the taps that stay inside the image; no columns for a pool.
    """

    row: Array
    base: Array
    reach: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """One projection's share of a layer, or of one of its delays: rows ``first_row ..``.

    lanes: of the source's words (1 for an input). map: None where the row of (word, lane) is
    ``first_row + word * lanes + lane``. delay: steps, feedback included. composite: the chain had
    no form of its own and was multiplied out. learned: the chain holds learned weights.
    """

    projection: str
    pre: str
    delay: int
    lanes: int
    first_row: int
    rows: int
    map: Map | None
    taps: int
    learned: bool
    composite: bool

    def rows_of(self, words: int) -> Array:
        """Return the row of every (word, lane) of the source, -1 for none, int64."""
        lane = np.arange(self.lanes)
        if self.map is None:
            return self.first_row + np.arange(words * self.lanes)
        rows = np.where(self.map.row[:, None] < 0, -1, self.map.row[:, None] + lane)
        return rows.reshape(-1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """A neuron parameter: one value, or a word of all banks per slot or per address.

    words: int64 (depth, lanes); bits: of each.
    """

    name: str
    bits: int
    per: Literal["layer", "slot", "word"]
    words: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """One population on an engine.

    shift: of sums into the state. state: its first word in the engine's state memories. skew:
    steps that it lags behind the engine's first layer. sum_most: the largest sum that its
    accumulators can hold in a step. leak: whether membranes decay; current: whether a synaptic
    current is kept.
    """

    population: str
    index: int
    layout: Banks
    segments: tuple[Segment, ...]
    tables: tuple[Table, ...]
    shift: int
    spiking: bool
    reset: Literal["value", "subtract", "none"]
    state: int
    skew: int
    sum_most: int
    current: bool
    leak: bool

    def table(self, name: str) -> Table:
        """Return a parameter; KeyError is ours."""
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(name)

    def last_lanes(self) -> int:
        """Return which lanes of a pixel's last slot hold a neuron, as bits."""
        slot, lane = np.divmod(self.layout.perm, self.layout.banks)
        return sum(1 << int(b) for b in lane[slot == self.layout.per_bank - 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """Field widths of an engine, in bits. length: of a row's length, or of its bitmap.

    tap and index: of an entry; start: of a row; address: of a neuron in a bank; value: of an
    event's value, 0 for spikes; sum: of an accumulator; current: of u.
    """

    weight: int
    index: int
    tap: int
    start: int
    length: int
    address: int
    value: int
    sum: int
    current: int

    @property
    def pointer(self) -> int:
        """Bits of one bank's pointer."""
        return self.start + self.length


Format = Literal["csr", "bitmap", "dense"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Engine:
    """Layers that share banks. choice: why its rows have this format.

    weights: uint64 (banks, depth), entries {tap, index, weight}, or weights alone. starts, lengths:
    int64 (rows, banks), of rows in the weight memory. bitmaps: uint64 (rows, banks) in that format.
    """

    index: int
    layers: tuple[Layer, ...]
    format: Format
    choice: str
    widths: Widths
    weights: Array
    starts: Array
    lengths: Array
    bitmaps: Array | None

    @property
    def name(self) -> str:
        """Its layers' names."""
        return "+".join(layer.population for layer in self.layers)

    @property
    def depth(self) -> int:
        """Words of each bank's weight memory."""
        return int(self.weights.shape[1])

    @property
    def rows(self) -> int:
        """Rows of all its layers."""
        return len(self.lengths)

    @property
    def taps(self) -> int:
        """Taps of its largest kernel, 0 where none slides."""
        return max(s.taps for layer in self.layers for s in layer.segments)

    @property
    def entry_bits(self) -> int:
        """Bits of a weight memory's word."""
        w = self.widths
        return w.weight + (w.index + w.tap if self.format == "csr" else 0)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Those of all layers, in order."""
        return tuple(s for layer in self.layers for s in layer.segments)

    @property
    def states(self) -> int:
        """Words of its state memories."""
        return sum(layer.layout.words for layer in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Spikes of a population on their way to an engine. steps: held, a power of two; delay: the
    longest at which the engine looks back; last: the layer whose ingest ends a step's use.
    """

    pre: str
    engine: int
    lanes: int
    words: int
    steps: int
    delay: int
    last: int

    @property
    def ahead(self) -> int:
        """By how many steps the writer may be ahead of what the reader has taken in."""
        return self.steps - self.delay


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadoutUnit:
    """What reads the prediction from the output layer's sweeps.

    kind: spikes summed ("count"), membranes summed ("mean"), the largest ("max") or the last.
    group: neurons of a class. first, last: steps [first, last) that count. thresholds: whole leads,
    one per step, above which a sample stops; None where it runs all steps. bits: of a score.
    """

    population: str
    kind: Literal["count", "mean", "max", "last"]
    neurons: int
    group: int
    first: int
    last: int
    thresholds: tuple[int, ...] | None
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FpgaProgram:
    """All engines, and the edges between them.

    input: name and size. readout: None where the host reads the output's spikes or membranes.
    """

    engines: tuple[Engine, ...]
    edges: tuple[Edge, ...]
    input: tuple[str, int]
    readout: ReadoutUnit | None
    banks: int
    fifo_depth: int
    arithmetic: Arithmetic

    def layers(self) -> Iterator[tuple[Engine, Layer]]:
        """Yield every layer with its engine, in order of evaluation."""
        found = [(e, layer) for e in self.engines for layer in e.layers]
        yield from sorted(found, key=lambda pair: pair[1].index)

    def layer(self, population: str) -> tuple[Engine, Layer]:
        """Return a population's engine and layer; KeyError is ours."""
        for engine, layer in self.layers():
            if layer.population == population:
                return engine, layer
        raise KeyError(population)

    def order_of(self, population: str) -> Array:
        """Return the neuron at every (word, lane) in the order of events, -1 for none."""
        if population == self.input[0]:
            return np.arange(self.input[1])
        return self.layer(population)[1].layout.neurons().T.reshape(-1)

    def words_of(self, population: str) -> int:
        """Return the words of a population's spikes."""
        if population == self.input[0]:
            return self.input[1]
        return self.layer(population)[1].layout.words

    def edges_to(self, engine: int) -> tuple[Edge, ...]:
        """Return the edges that an engine reads, in order."""
        return tuple(e for e in self.edges if e.engine == engine)
