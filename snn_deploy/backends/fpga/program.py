"""What the accelerator loads: cores of banks, their memory images, and the geometry of events.

One core serves one population. Neurons are channels x pixels (a plain population has one pixel);
channel c lives in bank ``perm[c] % banks`` at slot ``perm[c] // banks``, and neuron (c, pixel) at
address ``pixel * per_bank + slot`` of that bank's state memory. A permutation never moves a
channel to another slot (``perm[c] // banks == c // banks``), so a sweep that walks slot by slot,
pixel by pixel meets the neurons of every bank in ascending order, and the spike buffer can hand
events on in ascending neuron order: the order in which saturating sums are defined.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from snn_deploy.ir.arrays import Array
from snn_deploy.ir.quantized import Arithmetic

TABLES = ("threshold", "bias", "decay", "v_reset", "reset_amount")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One projection's share of a core: pointer rows ``first_row .. first_row + rows``.

    window: None where every (pooled) event has one row of its own. composite: the chain had no
    form of its own and was multiplied out. first_word, row_length: of dense rows in each bank's
    weight memory; 0 where rows have pointers. learned: the chain holds learned weights.
    """

    projection: str
    pre: str
    pre_size: int
    first_row: int
    rows: int
    pool: Pooling | None
    window: Window | None
    learned: bool
    composite: bool
    first_word: int = 0
    row_length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """Field widths in bits. entry: {index, weight}; pointer: {start, length}, length low."""

    index: int
    weight: int
    start: int
    length: int
    address: int

    @property
    def entry(self) -> int:
        """Bits of a weight memory's word."""
        return self.index + self.weight

    @property
    def pointer(self) -> int:
        """Bits of one bank's pointer."""
        return self.start + self.length


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """A neuron parameter's memory, read in the sweep.

    per: "core" (one word), "channel" (a word of all banks per slot) or "neuron" (per address).
    words: uint64 (depth, lanes), two's complement in ``bits`` where signed.
    """

    name: str
    bits: int
    signed: bool
    per: Literal["core", "channel", "neuron"]
    words: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Core:
    """One population's engine. shift: of weights into the state. spiking: has a threshold.

    weights: uint64 (banks, depth), entries {index, weight}, or weights alone in dense format.
    pointers: uint64 (rows, banks), empty in dense format. choice: why this format.
    """

    population: str
    index: int
    layout: Banks
    segments: tuple[Segment, ...]
    format: Literal["csr", "dense"]
    choice: str
    widths: Widths
    weights: Array
    pointers: Array
    tables: tuple[Table, ...]
    shift: int
    spiking: bool
    reset: Literal["value", "subtract", "none"]

    @property
    def depth(self) -> int:
        """Words of each bank's weight memory."""
        return int(self.weights.shape[1])

    @property
    def rows(self) -> int:
        """Kernel or matrix rows of all segments."""
        return sum(segment.rows for segment in self.segments)

    def lengths(self) -> Array:
        """Return the entries of every (row, bank), as the images hold them, int64."""
        if self.format == "csr":
            return (self.pointers & np.uint64((1 << self.widths.length) - 1)).astype(np.int64)
        parts = [
            np.full((s.rows, self.layout.banks), s.row_length, np.int64) for s in self.segments
        ]
        return np.concatenate(parts)

    def starts(self) -> Array:
        """Return the first word of every (row, bank), int64."""
        if self.format == "csr":
            return (self.pointers >> np.uint64(self.widths.length)).astype(np.int64)
        parts = [
            s.first_word + np.arange(s.rows, dtype=np.int64) * s.row_length for s in self.segments
        ]
        return np.repeat(np.concatenate(parts)[:, None], self.layout.banks, axis=1)

    def table(self, name: str) -> Table | None:
        """Return a parameter's table, None where the population has none."""
        return next((t for t in self.tables if t.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FpgaProgram:
    """All cores, in the order of evaluation, and what they share.

    engines: "per-layer" (each core is hardware of its own, pipelined over steps) or "shared"
    (one engine runs all cores, one after the other).
    """

    cores: tuple[Core, ...]
    inputs: tuple[tuple[str, int], ...]
    banks: int
    fifo_depth: int
    engines: Literal["per-layer", "shared"]
    arithmetic: Arithmetic

    def __iter__(self) -> Iterator[Core]:
        return iter(self.cores)

    def core(self, population: str) -> Core:
        """Return the core of a population; KeyError is ours."""
        for core in self.cores:
            if core.population == population:
                return core
        raise KeyError(population)
