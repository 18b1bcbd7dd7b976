"""The accelerator's clock cycles, exactly: per sample, step and layer, and of the whole machine.

An engine has two units. **Ingest** of a layer's step takes in the events of its sources (see
kernel.ingest for its length), **sweep** then updates the layer's neurons, a word of all banks per
cycle:

    sweep = 1 + words + 4

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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from snn_deploy.backends.fpga.decode import rows_of_entries
from snn_deploy.backends.fpga.kernel import PIPELINE, compiled
from snn_deploy.backends.fpga.program import Engine, FpgaProgram, Layer, Segment
from snn_deploy.ir.arrays import Array

SWEEP_FIXED = 5
#: Of a scan of the readout unit, beside a cycle per neuron.
SCAN_FIXED = 5

#: What a layer's busy cycles go to; they sum to ingest and sweep together.
PARTS: dict[str, str] = {
    "work": "entries over banks, rounded up: the least that these entries take",
    "imbalance": "the fullest bank's entries beyond that",
    "issue": "events (one per cycle) beyond the fullest bank's entries",
    "stall": "events that wait for a full bank",
    "pipeline": "filling and emptying the ingest pipeline, and banks that wait for a row",
    "sweep": "updating the neurons, a word of all banks per cycle",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerCycles:
    """One layer's cycles; every figure int64 (samples, steps).

    ingest, sweep: how long. parts: of both. stalls: cycles in which a full FIFO held the events
    back; rows: read; pushes: into FIFOs. Per projection: entries read, accumulates (those that
    reach a neuron), rows.
    """

    ingest: Array
    sweep: int
    parts: Mapping[str, Array]
    stalls: Array
    rows: Array
    pushes: Array
    entries: Mapping[str, Array]
    accumulates: Mapping[str, Array]
    pointer_rows: Mapping[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cycles:
    """A batch's cycles, from the start of each sample.

    layers: by population. begin, ingested, swept: by population, the cycle in which a step's ingest
    starts, that after it ends, and that after its sweep, int64 (samples, steps); the input has
    begin and swept (sent). sources: by population, those that feed it. scan: how long the readout
    unit takes after an output's sweep, 0 without one.
    """

    layers: Mapping[str, LayerCycles]
    begin: Mapping[str, Array]
    ingested: Mapping[str, Array]
    sweeping: Mapping[str, Array]
    swept: Mapping[str, Array]
    sources: Mapping[str, frozenset[str]]
    scan: int

    def finished(self, outputs: Sequence[str], steps: Array) -> Array:
        """Return when the result of the first ``steps`` (samples,) is there, int64 (samples,)."""
        each = np.arange(len(steps))
        swept = np.max([self.swept[name][each, steps - 1] for name in outputs], axis=0)
        return np.asarray(swept + self.scan)

    def begun(self, time: Array) -> dict[str, Array]:
        """Return the steps that each population has begun before ``time``, int64 (samples,).

        An input has sent the steps that any of its readers has begun.
        """
        found = {
            n: (begin < time[:, None]).sum(axis=1)
            for n, begin in self.begin.items()
            if n in self.layers
        }
        for name, sources in self.sources.items():
            for source in sources - self.layers.keys():
                found[source] = np.maximum(found.get(source, 0), found[name])
        return found


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
        return _Machine(self.program, layers, sent, self._sources).run()

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


class _Machine:
    """The engines' jobs in time, each figure (samples,) at once."""

    def __init__(
        self,
        program: FpgaProgram,
        layers: Mapping[str, LayerCycles],
        sent: Array,
        sources: Mapping[str, frozenset[str]],
    ) -> None:
        self._program, self._layers, self._sources = program, layers, sources
        self._sent = sent
        self._samples, self._steps = sent.shape
        names = [program.input[0], *layers]
        shape = (self._samples, self._steps)
        self._begin, self._ingested, self._sweeping, self._swept = (
            {n: np.full(shape, -1, np.int64) for n in names} for _ in range(4)
        )
        self._known: dict[str, set[tuple[str, int]]] = {"ingested": set(), "swept": set()}

    def run(self) -> Cycles:
        """Return when everything happens; a machine that waits for itself is our bug."""
        units: list[_Unit] = [_Input(self), *(_Runner(self, e) for e in self._program.engines)]
        while units:
            moved = [unit.move() for unit in units]
            assert any(moved), "the engines wait for one another"
            units = [unit for unit in units if not unit.over]
        return Cycles(
            layers=self._layers,
            begin=self._begin,
            ingested=self._ingested,
            sweeping=self._sweeping,
            swept=self._swept,
            sources=self._sources,
            scan=self.scan,
        )

    @property
    def scan(self) -> int:
        """Return the cycles of a scan of the readout unit."""
        unit = self._program.readout
        return 0 if unit is None else unit.neurons + SCAN_FIXED

    def room(self, pre: str, step: int) -> Array | None:
        """Return when every reader has room for a step of ``pre``; None while that is open."""
        ready = np.zeros(self._samples, np.int64)
        unit = self._program.readout
        if unit is not None and unit.thresholds is not None and unit.population == pre and step:
            ready = self._swept[pre][:, step - 1] + self.scan
        for edge in self._program.edges:
            if edge.pre != pre or step < edge.ahead:
                continue
            reader = self._program.engines[edge.engine].layers[edge.last].population
            if (reader, step - edge.ahead) not in self._known["ingested"]:
                return None
            np.maximum(ready, self._ingested[reader][:, step - edge.ahead], out=ready)
        return ready


class _Unit:
    over = False

    def __init__(self, machine: _Machine) -> None:
        self.m = machine

    def move(self) -> bool:
        """Do what is known by now; False where that is nothing."""
        raise NotImplementedError


class _Input(_Unit):
    """The stream of input events."""

    def __init__(self, machine: _Machine) -> None:
        super().__init__(machine)
        self._name, self._step = machine._program.input[0], 0
        self._free = np.zeros(machine._samples, np.int64)

    def move(self) -> bool:
        m, name, moved = self.m, self._name, False
        while self._step < m._steps:
            room = m.room(name, self._step)
            if room is None:
                break
            begin = np.maximum(self._free, room)
            self._free = begin + m._sent[:, self._step]
            m._begin[name][:, self._step] = begin
            m._swept[name][:, self._step] = self._free
            m._known["swept"].add((name, self._step))
            self._step += 1
            moved = True
        self.over = self._step == m._steps
        return moved


class _Runner(_Unit):
    """An engine: its jobs, ingested and swept in order."""

    def __init__(self, machine: _Machine, engine: Engine) -> None:
        super().__init__(machine)
        most = max(layer.skew for layer in engine.layers)
        self._jobs: list[tuple[Layer, int, int]] = []
        gap = 0  # turns of layers that have no step then, a cycle each
        for slot in range(machine._steps + most):
            for layer in engine.layers:
                step = slot - layer.skew
                if 0 <= step < machine._steps:
                    self._jobs.append((layer, step, gap))
                    gap = 0
                else:
                    gap += 1
        none = np.zeros(machine._samples, np.int64)
        self._ingest_free, self._sweep_free = none, none
        self._half_free = [none, none]  # when each half of the accumulators is clear
        self._ingested = self._swept = 0

    def move(self) -> bool:
        moved = False
        while self._sweep() or self._ingest():
            moved = True
        self.over = self._swept == len(self._jobs)
        return moved

    def _ingest(self) -> bool:
        m = self.m
        # Both halves are taken until the job before the last is swept.
        if self._ingested == len(self._jobs) or self._ingested >= self._swept + 2:
            return False
        layer, step, gap = self._jobs[self._ingested]
        begin = np.maximum(self._ingest_free + gap, self._half_free[self._ingested % 2])
        for segment in layer.segments:
            source = step - segment.delay
            if source < 0:
                continue
            if (segment.pre, source) not in m._known["swept"]:
                return False
            begin = np.maximum(begin, m._swept[segment.pre][:, source])
        name = layer.population
        end = begin + m._layers[name].ingest[:, step]
        m._begin[name][:, step], m._ingested[name][:, step] = begin, end
        m._known["ingested"].add((name, step))
        self._ingest_free = end
        self._ingested += 1
        return True

    def _sweep(self) -> bool:
        m = self.m
        if self._swept == self._ingested:
            return False
        layer, step, gap = self._jobs[self._swept]
        name = layer.population
        room = m.room(name, step)
        if room is None:
            return False
        begin = np.maximum(self._sweep_free + gap, m._ingested[name][:, step])
        begin = np.maximum(begin, room)
        end = begin + m._layers[name].sweep
        m._sweeping[name][:, step], m._swept[name][:, step] = begin, end
        m._known["swept"].add((name, step))
        self._half_free[self._swept % 2] = self._sweep_free = end
        self._swept += 1
        return True
