"""The accelerator's clock cycles, exactly: per sample, step and core, and of the whole network.

One step of a core takes

    C = T + 1 + 3 + words + 3

T: until the banks have swallowed the step's events (see kernel.ingest; 0 without events); 1 to
notice the end; 3 to drain the scatter pipeline; a word of all banks per cycle in the sweep
(threshold, reset, then leak; the last sweep of a sample writes zeros, so a reset costs nothing);
3 to drain the sweep. Several projections into one core are ingested one after the other, then
drained and swept once. An event takes one slot per row; an event without a row (dropped by a
pool, or without a valid tap) takes one slot and reads nothing. The spike buffer hands on one
event per cycle, in ascending neuron order.

With an engine per layer, layer l starts step t when it has finished step t-1, its sources have
finished step t, and its readers have finished step t-2: spike buffers hold two steps. A shared
engine runs the layers one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from snn_deploy.backends.fpga.decode import entries
from snn_deploy.backends.fpga.kernel import compiled
from snn_deploy.backends.fpga.program import Core, FpgaProgram, Segment
from snn_deploy.ir.arrays import Array

NOTICE_CYCLES = 1
SCATTER_DRAIN_CYCLES = 3
SWEEP_DRAIN_CYCLES = 3
BUFFERED_STEPS = 2

#: What a step's cycles go to; they sum to the total.
PARTS: dict[str, str] = {
    "work": "entries over banks, rounded up: the least that these entries take",
    "imbalance": "the fullest bank's entries beyond that",
    "issue": "slots (one event row per cycle) beyond the fullest bank's entries",
    "stall": "banks that wait for a row, or rows for a bank",
    "drain": "noticing the end of the events and draining the scatter pipeline",
    "sweep": "threshold, reset and leak, one word of all banks per cycle",
    "pipeline": "filling and emptying the pipelines",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoreCycles:
    """One core's cycles; every figure int64 (samples, steps).

    stalls: cycles in which a full FIFO held the events back; pushes: into the FIFOs. Per
    projection: entries read, accumulates (entries with a nonzero weight), pointer rows read.
    """

    total: Array
    parts: Mapping[str, Array]
    stalls: Array
    pushes: Array
    entries: Mapping[str, Array]
    accumulates: Mapping[str, Array]
    pointer_rows: Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cycles:
    """A batch's cycles. cores: by population; start and end: by population, when each step starts
    and has ended, int64 (samples, steps); sources: by population, those that feed it.
    """

    cores: Mapping[str, CoreCycles]
    start: Mapping[str, Array]
    end: Mapping[str, Array]
    sources: Mapping[str, frozenset[str]]

    @property
    def latency(self) -> Array:
        """First to last step of the whole network, int64 (samples,)."""
        return np.asarray(np.max([end[:, -1] for end in self.end.values()], axis=0))

    def finished(self, outputs: Sequence[str], steps: Array) -> Array:
        """Return when the outputs have ended the first ``steps`` (samples,), int64 (samples,)."""
        each = np.arange(len(steps))
        return np.asarray(np.max([self.end[name][each, steps - 1] for name in outputs], axis=0))

    def begun(self, time: Array) -> dict[str, Array]:
        """Return the steps that each population has begun before ``time``, int64 (samples,).

        An input has sent the steps that any of its readers has begun.
        """
        found = {n: (start < time[:, None]).sum(axis=1) for n, start in self.start.items()}
        for name, sources in self.sources.items():
            for source in sources - self.start.keys():
                found[source] = np.maximum(found.get(source, 0), found[name])
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Expansion:
    """How a core's events (all segments, one after the other) become rows."""

    pattern_of: Array
    base: Array
    pattern_first: Array
    taps: Array


def _patterns(segment: Segment) -> tuple[list[Array], Array, Array]:
    """Return (tap lists, list of each event, row base of each event) of one segment."""
    empty = np.array([-1], np.int64)
    events = np.arange(segment.pre_size)
    if segment.pool is not None:
        events = segment.pool.transform()
    dropped = events < 0
    if segment.window is None:
        lists = [np.zeros(1, np.int64), empty]
        return lists, dropped.astype(np.int64), segment.first_row + np.where(dropped, 0, events)
    window = segment.window
    _, height, width = window.in_shape
    kh, kw = window.kernel
    valid = (window.axis(0) >= 0)[:, None, :, None] & (window.axis(1) >= 0)[None, :, None, :]
    flat = valid.reshape(height * width, kh * kw)
    kinds, kind_of = np.unique(flat, axis=0, return_inverse=True)
    lists = [np.flatnonzero(kind).astype(np.int64) for kind in kinds]
    lists = [taps if taps.size else empty for taps in lists] + [empty]
    channel, pixel = np.divmod(np.where(dropped, 0, events), height * width)
    which = np.where(dropped, len(kinds), kind_of.reshape(-1)[pixel])
    return lists, which, segment.first_row + channel * (kh * kw)


def _expand(core: Core) -> _Expansion:
    lists: list[Array] = []
    pattern_of, base = [], []
    for segment in core.segments:
        own, which, rows = _patterns(segment)
        pattern_of.append(which + len(lists))
        base.append(rows)
        lists += own
    sizes = [taps.size for taps in lists]
    return _Expansion(
        pattern_of=np.concatenate(pattern_of).astype(np.int64),
        base=np.concatenate(base).astype(np.int64),
        pattern_first=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        taps=np.concatenate(lists),
    )


def _per_event(expansion: _Expansion, rows: Array) -> Array:
    """Return the sum of a per-row figure over the rows of each event, int64 (events,)."""
    total = np.zeros(expansion.base.size, np.int64)
    for pattern in range(expansion.pattern_first.size - 1):
        first, end = expansion.pattern_first[pattern : pattern + 2]
        here = np.flatnonzero(expansion.pattern_of == pattern)
        for tap in expansion.taps[first:end]:
            if tap >= 0:
                total[here] += rows[expansion.base[here] + tap]
    return total


class CycleModel:
    """A program's cycles; made once, applied to many batches of spikes."""

    def __init__(self, program: FpgaProgram) -> None:
        self.program = program
        self._cores = [_CoreModel(core, program.fifo_depth) for core in program]
        self._sources = {c.population: frozenset(s.pre for s in c.segments) for c in program}

    def run(self, spikes: Mapping[str, Array]) -> Cycles:
        """Return the cycles of a batch; spikes: by population, 0/1, (samples, steps, ...)."""
        cores = {m.core.population: m.run(spikes) for m in self._cores}
        start, end = self._network({n: c.total for n, c in cores.items()})
        return Cycles(cores=cores, start=start, end=end, sources=self._sources)

    def _network(self, total: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return when each step of each core starts and has ended."""
        samples, steps = next(iter(total.values())).shape
        start = {name: np.zeros((samples, steps), np.int64) for name in total}
        end = {name: np.zeros((samples, steps), np.int64) for name in total}
        readers = {
            name: [post for post, sources in self._sources.items() if name in sources]
            for name in total
        }
        clock = np.zeros(samples, np.int64)
        for t in range(steps):
            for name in total:
                if self.program.engines == "shared":
                    start[name][:, t] = clock
                    clock = clock + total[name][:, t]
                    end[name][:, t] = clock
                    continue
                begin = end[name][:, t - 1].copy() if t else np.zeros(samples, np.int64)
                for source in self._sources[name] & total.keys():
                    np.maximum(begin, end[source][:, t], out=begin)
                if t >= BUFFERED_STEPS:
                    for reader in readers[name]:
                        np.maximum(begin, end[reader][:, t - BUFFERED_STEPS], out=begin)
                start[name][:, t] = begin
                end[name][:, t] = begin + total[name][:, t]
        return start, end


class _CoreModel:
    def __init__(self, core: Core, fifo_depth: int) -> None:
        self.core = core
        self._depth = fifo_depth
        self._expansion = _expand(core)
        lengths = core.lengths()
        self._lengths = np.ascontiguousarray(lengths)
        self._entries = _per_event(self._expansion, lengths.sum(axis=1))
        self._pointers = _per_event(self._expansion, np.ones(len(lengths), np.int64))
        row, _, _, weight = entries(core)
        nonzero = np.bincount(row[weight != 0], minlength=len(lengths)).astype(np.int64)
        self._accumulates = _per_event(self._expansion, nonzero)

    def run(self, spikes: Mapping[str, Array]) -> CoreCycles:
        core = self.core
        parts = [spikes[s.pre].reshape(*spikes[s.pre].shape[:2], -1) != 0 for s in core.segments]
        active = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        samples, steps = active.shape[:2]
        flat = active.reshape(samples * steps, -1)
        where, events = np.nonzero(flat)
        first = np.searchsorted(where, np.arange(samples * steps + 1)).astype(np.int64)
        e = self._expansion
        found = compiled()(
            first,
            events.astype(np.int64),
            e.pattern_of,
            e.base,
            e.pattern_first,
            e.taps,
            self._lengths,
            self._depth,
        ).reshape(samples, steps, -1)
        by_step = _BySegment(core, where, events, (samples, steps))
        time, slots, work, busiest, stalls, pushes = (found[..., i] for i in (0, 1, 2, 3, 4, 6))
        split = _split(time, slots, work, busiest, core)
        return CoreCycles(
            total=sum(split.values(), start=np.zeros((samples, steps), np.int64)),
            parts=split,
            stalls=stalls,
            pushes=pushes,
            entries=by_step.sums(self._entries),
            accumulates=by_step.sums(self._accumulates),
            pointer_rows=by_step.sums(
                self._pointers if core.format == "csr" else self._pointers * 0
            ),
        )


class _BySegment:
    """A batch's events, to be summed per segment, sample and step.

    where: the flat (sample, step) of each event; events: their index in the segments' line.
    """

    def __init__(self, core: Core, where: Array, events: Array, lead: tuple[int, int]) -> None:
        ends = np.cumsum([0, *(s.pre_size for s in core.segments)])
        self._cell = where * len(core.segments) + np.searchsorted(ends, events, side="right") - 1
        self._events, self._lead = events, lead
        self._names = [s.projection for s in core.segments]

    def sums(self, per_event: Array) -> dict[str, Array]:
        """Return the sums of a figure of each event, int64 (samples, steps) by projection."""
        shape = (*self._lead, len(self._names))
        # Sums of whole numbers far below 2^53: exact in bincount's floats.
        flat = np.bincount(
            self._cell, weights=per_event[self._events], minlength=int(np.prod(shape))
        )
        table = flat.astype(np.int64).reshape(shape)
        return {name: table[..., i] for i, name in enumerate(self._names)}


def _split(time: Array, slots: Array, work: Array, busiest: Array, core: Core) -> dict[str, Array]:
    """Return the parts of C, each (samples, steps)."""
    even = -(-work // core.layout.banks)
    bound = np.maximum(slots, busiest)
    # No schedule beats one slot per cycle, and no bank starts before the pipeline is full.
    least = np.maximum(slots + 1, np.where(busiest > 0, busiest + 3, 0))
    least = np.where(slots > 0, least, 0)
    constant = np.ones_like(time)
    return {
        "work": even,
        "imbalance": busiest - even,
        "issue": bound - busiest,
        "stall": time - least,
        "drain": constant * (NOTICE_CYCLES + SCATTER_DRAIN_CYCLES),
        "sweep": constant * core.layout.words,
        "pipeline": least - bound + SWEEP_DRAIN_CYCLES,
    }
