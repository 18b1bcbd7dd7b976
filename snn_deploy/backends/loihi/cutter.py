"""One population into boxes that each fit a core.

A population is cut as a grid (channels, rows, columns): into tiles of rows and columns, and each
tile into ranges of channels as long as fit. Small tiles with all channels keep input axons few,
large ones let convolutions share their lists; every sensible tile is tried on samples, the best
are cut in full, and the one that needs the fewest cores, then the fewest packets, is taken.
Nothing here depends on chance or on time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from snn_deploy.backends.loihi.axons import (
    POPULATION_SLOTS,
    Axons,
    Box,
    ConvFanIn,
    FanIn,
    Grid,
    Load,
    fan_in,
    format_of,
)
from snn_deploy.backends.loihi.cores import Amounts, compartment_configs
from snn_deploy.backends.loihi.program import LoihiPopulation, LoihiProgram
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.synapses import Conv2d

_IN_FULL = 4  # tiles that are cut in full
_ASPECT = 2.5  # of a tile at most, unless it is as long as the grid
Span = tuple[int, int]
Tiling = tuple[list[Span], list[Span]]  # rows, columns


class Outgoing:
    """Entries of output axons that the neurons of a population need."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._discrete = np.zeros(math.prod(grid.shape), np.int64)
        self._pixels: dict[int, Array] = {}
        self._before: Array | None = None

    def add(self, sources: Array, axons: Axons, pixels: int) -> None:
        """Count one piece that ``sources`` reach; pixels: of each of their channels."""
        self._before = None
        if axons == "discrete":
            self._discrete[sources] += 1
            return
        counts = self._pixels.setdefault(pixels, np.zeros(pixels, np.int64))
        counts[np.unique(sources % pixels)] += 1

    def of(self, box: Box) -> int:
        """Return the entries of a box on one core: the channels of a pixel share theirs."""
        channels, height, width = shape = self._grid.shape
        if self._before is None:
            # sums over the channels before each
            self._before = np.zeros((channels + 1, height, width), np.int64)
            ordered = self._discrete.reshape(shape)[self._grid.order]
            np.cumsum(ordered, axis=0, out=self._before[1:])
        place = slice(*box.rows), slice(*box.columns)
        first, last = box.channels
        total = int(self._before[last][place].sum()) - int(self._before[first][place].sum())
        for pixels, counts in self._pixels.items():
            if pixels == height * width:
                needed = counts.reshape(height, width)[place].sum()
            else:
                needed = counts[np.unique(self._grid.neurons(box) % pixels)].sum()
            total += POPULATION_SLOTS * int(needed)
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class _Score:
    """cores: of these pieces, and those that their sources need more. packets: per round."""

    cores: float
    packets: int


class Cutter:
    """Cuts one population. outgoing: to be set, before ``cut``, from the pieces behind it."""

    def __init__(self, program: LoihiProgram, population: LoihiPopulation, limits: Amounts) -> None:
        self.population = population
        self.axons: Axons = "discrete"
        self._limits = limits
        self._configs = compartment_configs(population)
        self.grid = _grid(program, population, self._configs, limits)
        self.outgoing = Outgoing(self.grid)
        self.fans = tuple(fan_in(s, self.grid) for s in program.into(population.name))
        self._senders = {
            s.name: math.prod(s.in_shape) / limits.neurons
            for s in program.into(population.name)
            if s.pre not in program.network.inputs
        }

    def axons_of(self, fan: FanIn) -> Axons:
        """Return the kind of axon that carries a fan-in."""
        return self.axons if isinstance(fan, ConvFanIn) else "discrete"

    def loads(self, box: Box, before: int = 0) -> dict[str, Load]:
        """Return what synapses into a box take behind ``before`` compartments of a core."""
        last = before + box.size
        return {f.synapses.name: f.load(box, last, self.axons_of(f)) for f in self.fans}

    def formats(self, box: Box, loads: Mapping[str, Load], before: int = 0) -> frozenset[object]:
        """Return the synapse formats that loads need."""
        last = before + box.size
        return frozenset(format_of(f, loads[f.synapses.name], last) for f in self.fans)

    def codes(self, box: Box) -> tuple[frozenset[int], frozenset[int]]:
        """Return the compartment and the threshold configurations of a box."""
        found = []
        for codes in (np.asarray(self._configs), np.asarray(self.population.vth)):
            asked = codes[self.grid.neurons(box)] if codes.ndim else codes.reshape(1)
            found.append(frozenset(asked.tolist()))
        return found[0], found[1]

    def amounts(self, box: Box, loads: Mapping[str, Load]) -> Amounts:
        """Return what a box takes of a core of its own."""
        compartments, thresholds = self.codes(box)
        return Amounts(
            neurons=box.size,
            synapses=sum(load.synapses for load in loads.values()),
            synapse_bits=sum(load.bits for load in loads.values()),
            in_axons=sum(load.axons for load in loads.values()),
            out_axons=self.outgoing.of(box),
            compartment_configs=len(compartments),
            threshold_configs=len(thresholds),
            synapse_formats=len(self.formats(box, loads)),
        )

    def share(self, box: Box) -> float:
        """Return the largest share of a core's limits that a box takes."""
        return self.amounts(box, self.loads(box)).share(self._limits)

    def cut(self) -> list[Box]:
        """Return the boxes, and set the kind of axon that they want."""
        convolved = any(isinstance(fan, ConvFanIn) for fan in self.fans)
        kinds: tuple[Axons, ...] = ("discrete", "population") if convolved else ("discrete",)
        whole = []
        for axons in kinds:
            self.axons = axons
            whole.append((self.share(self.grid.whole), axons))
        share, self.axons = min(whole, key=lambda entry: entry[0])
        if share <= 1:
            return [self.grid.whole]  # no packets are fewer
        ranked = []
        for axons in kinds:
            self.axons = axons
            for tiling in _tilings(self.grid.shape, self._limits.neurons):
                ranked.append((self._sampled(tiling), axons, tiling))
        ranked.sort(key=lambda entry: (entry[0].cores, entry[0].packets))
        best: tuple[_Score, Axons, list[Box]] | None = None
        for _, axons, (rows, columns) in ranked[:_IN_FULL]:
            self.axons = axons
            boxes = [box for r in rows for c in columns for box in self._fill(r, c)]
            score = self._score((box, 1.0) for box in boxes)
            if best is None or (score.cores, score.packets) < (best[0].cores, best[0].packets):
                best = score, axons, boxes
        assert best is not None
        self.axons = best[1]
        return best[2]

    def _sampled(self, tiling: Tiling) -> _Score:
        """Return the score as the first boxes of tiles tell it, the middle one of each size."""
        rows, columns = tiling
        boxes = []
        for down in _by_length(rows):
            for across in _by_length(columns):
                box = next(self._fill(down[len(down) // 2], across[len(across) // 2], exact=False))
                (y, end), (x, last) = down[0], across[0]
                size = self.grid.shape[0] * (end - y) * (last - x) * len(down) * len(across)
                boxes.append((box, size / box.size))
        return self._score(boxes)

    def _score(self, boxes: Iterable[tuple[Box, float]]) -> _Score:
        """Return the score of boxes that stand for so many each."""
        cores, packets = 0.0, 0.0
        entries = dict.fromkeys(self._senders, 0.0)
        for box, times in boxes:
            loads = self.loads(box)
            used = max(1e-6, self.amounts(box, loads).share(self._limits))
            # Boxes that fill less than half a core, a third, ... share it with others.
            cores += times * (used if used > 1 else 1 / math.floor(1 / used + 1e-9))
            for fan in self.fans:
                load = loads[fan.synapses.name]
                packets += times * load.sources
                if fan.synapses.name in entries:
                    many = self.axons_of(fan) == "population"
                    slots = POPULATION_SLOTS * load.axons if many else load.sources
                    entries[fan.synapses.name] += times * slots
        for name, count in entries.items():
            cores += max(0.0, count / self._limits.out_axons - self._senders[name])
        # Less than a quarter of a core is no reason for more packets.
        return _Score(cores=math.ceil(4 * cores - 1e-6) / 4, packets=round(packets))

    def _fill(
        self, rows: Span, columns: Span, start: int = 0, *, exact: bool = True
    ) -> Iterator[Box]:
        """Yield boxes of as many channels as fit; a tile of which not one fits is halved.

        A single neuron that fits no core gets one to itself: findings say what it lacks.
        """
        channels = self.grid.shape[0]
        pixels = (rows[1] - rows[0]) * (columns[1] - columns[0])
        most = int(min(channels, self._limits.neurons / pixels))
        guess = most
        while start < channels:
            least = 1 if exact else max(1, guess // 16)
            end = self._end(start, min(start + most, channels), start + guess, rows, columns, least)
            if end == start and pixels > 1:
                for part in _halves(rows, columns):
                    yield from self._fill(*part, start, exact=exact)
                return
            end = max(end, start + 1)
            yield Box(channels=(start, end), rows=rows, columns=columns)
            start, guess = end, end - start

    def _end(self, start: int, most: int, guess: int, rows: Span, columns: Span, least: int) -> int:
        """Return the channel before which the longest box from ``start`` that fits ends.

        guess: where to look first. least: by how much less than the longest it may be, plus 1.
        """

        def fits(end: int) -> bool:
            return self.share(Box(channels=(start, end), rows=rows, columns=columns)) <= 1

        if most <= start:
            return start
        if fits(most):
            return most
        good, bad = start, most
        probe = min(max(guess, start + 1), most - 1)
        while bad - good > least:
            probe = probe if good < probe < bad else (good + bad) // 2
            if fits(probe):
                good = probe
                probe += max(1, (bad - probe) // 8)
            else:
                bad = probe
                probe = 0
        return good


def _even(size: int, length: int) -> list[Span]:
    """Return as few spans as are not longer than ``length``, as equal as can be."""
    parts = math.ceil(size / length)
    return list(pairwise(size * i // parts for i in range(parts + 1)))


def _full(size: int, length: int) -> list[Span]:
    """Return spans of ``length``, and what remains."""
    return list(pairwise([*range(0, size, length), size]))


def _by_length(spans: list[Span]) -> list[list[Span]]:
    """Return spans of equal length together."""
    found: dict[int, list[Span]] = {}
    for first, last in spans:
        found.setdefault(last - first, []).append((first, last))
    return list(found.values())


def _halves(rows: Span, columns: Span) -> list[tuple[Span, Span]]:
    if rows[1] - rows[0] >= columns[1] - columns[0]:
        middle = (rows[0] + rows[1]) // 2
        return [((rows[0], middle), columns), ((middle, rows[1]), columns)]
    middle = (columns[0] + columns[1]) // 2
    return [(rows, (columns[0], middle)), (rows, (middle, columns[1]))]


def _tilings(shape: tuple[int, int, int], most: float) -> list[Tiling]:
    """Return tilings worth trying, the largest tiles first; of a square grid upright tiles alone.

    Tiles are as equal as can be, or powers of two with what remains: that remainder shares cores.
    """
    _, height, width = shape

    def shared(size: int) -> list[int]:
        return sorted({math.ceil(size / parts) for parts in range(1, size + 1)}, reverse=True)

    def powers(size: int) -> list[int]:
        return [1 << i for i in reversed(range(size.bit_length()))]

    found = []
    for sizes, spans in ((shared, _even), (powers, _full)):
        found += [
            (spans(height, h), spans(width, w))
            for h in sizes(height)
            for w in sizes(width)
            if h * w <= most
            and (h >= w or height != width)
            and (max(h, w) <= _ASPECT * min(h, w) or h == height or w == width)
        ]
    # Where a power of two divides the grid, both ways are the same.
    return [tiling for i, tiling in enumerate(found) if tiling not in found[:i]]


def _grid(
    program: LoihiProgram, population: LoihiPopulation, codes: int | Array, limits: Amounts
) -> Grid:
    """Return the grid by which a population is cut.

    Channels of like configuration lie together where there are more kinds than a core has.
    """
    convolved = (
        s.out_shape for s in program.into(population.name) if isinstance(s.operator, Conv2d)
    )
    shape = next(convolved, population.shape)
    if len(shape) == 2:
        shape = (shape[0], 1, shape[1])
    elif len(shape) != 3:
        shape = (math.prod(shape), 1, 1)
    order = np.arange(shape[0])
    first = order * (shape[1] * shape[2])
    kinds = [np.asarray(codes), np.asarray(population.vth)]
    most = (limits.compartment_configs, limits.threshold_configs)
    arrays = [kind[first] for kind in kinds if kind.ndim]
    if arrays and any(np.unique(k).size > allowed for k, allowed in zip(kinds, most, strict=True)):
        order = np.lexsort(arrays)
    return Grid(shape=(shape[0], shape[1], shape[2]), order=order)


def split(box: Box) -> list[Box]:
    """Return two halves of a box of more than one neuron, along channels if it has several."""
    first, last = box.channels
    if last - first > 1:
        middle = (first + last) // 2
        return [replace(box, channels=(first, middle)), replace(box, channels=(middle, last))]
    return [replace(box, rows=r, columns=c) for r, c in _halves(box.rows, box.columns)]
