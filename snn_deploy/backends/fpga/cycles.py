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

from collections.abc import Mapping
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
    """One core's cycles. total and every part: int64 (samples, steps); stalls: cycles in which
    a full FIFO held the events back; the counts are totals over the batch, per projection:
    entries read, accumulates (entries with a nonzero weight), pointer rows read.
    """

    total: Array
    parts: Mapping[str, Array]
    stalls: Array
    pushes: int
    entries: Mapping[str, int]
    accumulates: Mapping[str, int]
    pointer_rows: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cycles:
    """A batch's cycles. cores: by population; latency: int64 (samples,), first to last step of
    the whole network; start: by population, when each step starts, int64 (samples, steps).
    """

    cores: Mapping[str, CoreCycles]
    latency: Array
    start: Mapping[str, Array]


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
        self._sources = {c.population: {s.pre for s in c.segments} for c in program}

    def run(self, spikes: Mapping[str, Array]) -> Cycles:
        """Return the cycles of a batch; spikes: by population, 0/1, (samples, steps, ...)."""
        cores = {m.core.population: m.run(spikes) for m in self._cores}
        start, latency = self._network({n: c.total for n, c in cores.items()})
        return Cycles(cores=cores, latency=latency, start=start)

    def _network(self, total: Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
        """Return when each step of each core starts, and the latency of each sample."""
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
        latency = np.max([e[:, -1] for e in end.values()], axis=0)
        return start, np.asarray(latency)


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
        counts = np.bincount(events, minlength=flat.shape[1])
        time, slots, work, busiest, stalls, pushes = (found[..., i] for i in (0, 1, 2, 3, 4, 6))
        split = _split(time, slots, work, busiest, core)
        return CoreCycles(
            total=sum(split.values(), start=np.zeros((samples, steps), np.int64)),
            parts=split,
            stalls=stalls,
            pushes=int(pushes.sum()),
            entries=self._of_segments(counts, self._entries),
            accumulates=self._of_segments(counts, self._accumulates),
            pointer_rows=self._of_segments(
                counts, self._pointers if core.format == "csr" else self._pointers * 0
            ),
        )

    def _of_segments(self, counts: Array, per_event: Array) -> dict[str, int]:
        result, first = {}, 0
        for segment in self.core.segments:
            span = slice(first, first + segment.pre_size)
            result[segment.projection] = int(counts[span] @ per_event[span])
            first += segment.pre_size
        return result


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
