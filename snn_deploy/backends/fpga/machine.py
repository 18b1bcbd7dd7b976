"""The engines' jobs in time: when ingest and sweep of every layer and step begin and end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from snn_deploy.backends.fpga.program import Engine, FpgaProgram, Layer
from snn_deploy.ir.arrays import Array

#: Of a scan of the readout unit, beside a cycle per neuron.
SCAN_FIXED = 5


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


class Machine:
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
        stops = unit is not None and unit.thresholds is not None and unit.population == pre
        if unit is not None and stops and step > unit.first:
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

    def __init__(self, machine: Machine) -> None:
        self.m = machine

    def move(self) -> bool:
        """Do what is known by now; False where that is nothing."""
        raise NotImplementedError


class _Input(_Unit):
    """The stream of input events."""

    def __init__(self, machine: Machine) -> None:
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

    def __init__(self, machine: Machine, engine: Engine) -> None:
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
