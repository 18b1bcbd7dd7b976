"""The accelerator's clock cycles, exactly: per sample, step and layer, and of the whole machine.

An engine has two units. **Ingest** of a layer's step takes in the events of its sources (see
kernel.ingest for its length), **sweep** then updates the layer's neurons, a word of all banks per
cycle:

    sweep = 1 + words + 5

They overlap: while one half of the accumulators is swept, the other takes the next job's events.
A job is a layer's step; an engine's jobs have a fixed order. In cycles from the start of a sample,

    ingest starts  when the job before is ingested, the job before that is swept, and all sources
                   have swept the steps that are asked for
    sweep starts   when the job is ingested, the job before is swept, and every reader has taken in
                   the step that the new one replaces in its buffer

The input takes one event per cycle (a step without events one cycle). The readout unit scans
the output's scores, a neuron per cycle, after the last step; with a cutoff after every step, and
the output's next sweep waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from snn_deploy.backends.fpga.decode import rows_of_entries
from snn_deploy.backends.fpga.kernel import PIPELINE, compiled
from snn_deploy.backends.fpga.machine import Cycles, LayerCycles, Machine
from snn_deploy.backends.fpga.program import Engine, FpgaProgram, Layer, Segment
from snn_deploy.ir.arrays import Array

SWEEP_FIXED = 6

#: What a layer's busy cycles go to; they sum to ingest and sweep together.
PARTS: dict[str, str] = {
    "work": "entries over banks, rounded up: the least that these entries take",
    "imbalance": "the fullest bank's entries beyond that",
    "issue": "events (one per cycle) beyond the fullest bank's entries",
    "stall": "events that wait for a full bank",
    "pipeline": "filling and emptying the ingest pipeline, and banks that wait for a row",
    "sweep": "updating the neurons, a word of all banks per cycle",
}


class CycleModel:
    """A program's cycles; made once, applied to many batches of spikes."""

    def __init__(self, program: FpgaProgram) -> None:
        self.program = program
        self._models = {
            layer.population: _LayerModel(program, engine, layer)
            for engine, layer in program.layers()
        }
        self._order = {name: program.order_of(name) for name in (program.input[0], *self._models)}
        self._sources = {
            layer.population: frozenset(s.pre for s in layer.segments)
            for _, layer in program.layers()
        }

    def run(self, spikes: Mapping[str, Array]) -> Cycles:
        """Return the cycles of a batch; spikes: by population, (samples, steps, ...), of an
        analogue input its values.
        """
        events = {n: self._events(n, spikes[n]) for n in self._order}
        layers = {name: model.run(events) for name, model in self._models.items()}
        sent = np.maximum(1, events[self.program.input[0]].counts())
        return Machine(self.program, layers, sent, self._sources).run()

    def _events(self, name: str, values: Array) -> _Events:
        order = self._order[name]
        flat = values.reshape(*values.shape[:2], -1) != 0
        ordered = flat[:, :, np.maximum(order, 0)] & (order >= 0)
        return _Events.of(ordered)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Events:
    """A population's events of a batch. at: positions (word * lanes + lane) of all, one (sample,
    step) after the other; first: (samples * steps + 1,), where each starts.
    """

    at: Array
    first: Array
    samples: int
    steps: int

    @staticmethod
    def of(active: Array) -> _Events:
        samples, steps, size = active.shape
        cell, at = np.nonzero(active.reshape(samples * steps, size))
        first = np.searchsorted(cell, np.arange(samples * steps + 1)).astype(np.int64)
        return _Events(at=at, first=first, samples=samples, steps=steps)

    def counts(self) -> Array:
        """Return how many there are, int64 (samples, steps)."""
        return np.diff(self.first).reshape(self.samples, self.steps)

    def spans(self, delay: int) -> tuple[Array, Array, Array]:
        """Return (begin, end, early) of the events that arrive in every (sample, step)."""
        shape = (self.samples, self.steps)
        begin, end = (np.zeros(shape, np.int64) for _ in range(2))
        kept = max(0, self.steps - delay)
        first = self.first[:-1].reshape(shape), self.first[1:].reshape(shape)
        begin[:, delay:], end[:, delay:] = first[0][:, :kept], first[1][:, :kept]
        early = np.broadcast_to(np.arange(self.steps) < delay, shape)
        return begin.reshape(-1), end.reshape(-1), early.reshape(-1)


class _LayerModel:
    def __init__(self, program: FpgaProgram, engine: Engine, layer: Layer) -> None:
        self.layer = layer
        self._depth = program.fifo_depth
        self._banks = program.banks
        banks = np.arange(program.banks)
        lengths = engine.lengths
        held = lengths > 0
        self._row_first = np.concatenate([[0], np.cumsum(held.sum(axis=1))]).astype(np.int64)
        self._row_bank = np.broadcast_to(banks, lengths.shape)[held].astype(np.int64)
        self._row_length = lengths[held].astype(np.int64)
        self._rows = [s.rows_of(program.words_of(s.pre)) for s in layer.segments]
        self._parts = [
            _PerEvent.of(engine, s, rows)
            for s, rows in zip(layer.segments, self._rows, strict=True)
        ]

    def run(self, events: Mapping[str, _Events]) -> LayerCycles:
        layer = self.layer
        rows, spans, offset = [], [], 0
        entries: dict[str, Array] = {}
        adds: dict[str, Array] = {}
        pointers: dict[str, Array] = {}
        for segment, row_of, part in zip(layer.segments, self._rows, self._parts, strict=True):
            own = events[segment.pre]
            begin, end, early = own.spans(segment.delay)
            spans.append((begin + offset, end + offset, early))
            rows.append(row_of[own.at])
            offset += own.at.size
            for found, figure in (
                (entries, part.entries), (adds, part.adds), (pointers, part.rows),
            ):  # fmt: skip
                total = np.concatenate([[0], np.cumsum(figure[own.at])])
                value = (total[end] - total[begin]).reshape(own.samples, own.steps)
                name = segment.projection
                found[name] = found[name] + value if name in found else value
        begin, end, early = (np.stack(column, axis=1) for column in zip(*spans, strict=True))
        found_ = compiled()(
            np.ascontiguousarray(begin),
            np.ascontiguousarray(end),
            np.ascontiguousarray(early),
            np.concatenate(rows).astype(np.int64),
            self._row_first,
            self._row_bank,
            self._row_length,
            self._banks,
            self._depth,
        )
        shape = next(iter(entries.values())).shape
        cycles, ticks, count, pushes, busiest, stalls = (
            found_[:, i].reshape(shape) for i in range(6)
        )
        work = sum(entries.values(), start=np.zeros(shape, np.int64))
        even = -(-work // self._banks)
        slots = (end - begin).sum(axis=1).reshape(shape)
        bound = np.maximum(slots, busiest)
        sweep = layer.layout.words + SWEEP_FIXED
        wait = np.maximum(0, cycles - bound - (ticks - slots) - PIPELINE)
        return LayerCycles(
            ingest=cycles,
            sweep=sweep,
            parts={
                "work": even,
                "imbalance": busiest - even,
                "issue": bound - busiest,
                "stall": wait,
                "pipeline": cycles - bound - wait,
                "sweep": np.full(shape, sweep),
            },
            stalls=stalls,
            rows=count,
            pushes=pushes,
            entries=entries,
            accumulates=adds,
            pointer_rows=pointers,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _PerEvent:
    """What an event at each position costs: entries read, accumulates, rows; int64 (positions,)."""

    entries: Array
    adds: Array
    rows: Array

    @staticmethod
    def of(engine: Engine, segment: Segment, rows: Array) -> _PerEvent:
        lengths = engine.lengths.sum(axis=1)
        safe, there = np.maximum(rows, 0), rows >= 0
        entries = np.where(there, lengths[safe], 0)
        adds = entries
        if segment.map is not None and segment.taps:
            row, _, _, tap, _ = rows_of_entries(engine)
            per_tap = np.zeros((engine.rows, segment.taps), np.int64)
            inside = tap < segment.taps
            np.add.at(per_tap, (row[inside], tap[inside]), 1)
            kept = np.repeat(segment.map.reach, segment.lanes, axis=0)
            adds = np.where(there, (per_tap[safe] * kept).sum(axis=1), 0)
        return _PerEvent(entries=entries, adds=adds, rows=there.astype(np.int64))
