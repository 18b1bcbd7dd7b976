"""The RTL as the judge: what the emitted hardware does under Verilator, cycle by cycle."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from snn_deploy.backends.base import Program
from snn_deploy.backends.fpga.simulate import (
    COUNTERS,
    KINDS,
    Files,
    Recording,
    files,
    simulate,
    versions,
)
from snn_deploy.engine.loop import Inputs, only_input
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import MEMBRANE_READOUTS, lead
from snn_deploy.ir.trace import Trace

if TYPE_CHECKING:
    from snn_deploy.backends.fpga.machine import Cycles
    from snn_deploy.backends.fpga.program import Engine, FpgaProgram, Layer

#: Cycles that a sample may take beyond those foreseen before it is taken to hang.
_PATIENCE = 2


class RtlOracle:
    """Verilator on the program's own SystemVerilog and memory images; files: others instead."""

    name = "rtl"
    tolerance = 0.0

    def __init__(self, files: Files = files) -> None:
        self._files = files

    def version(self) -> str:
        """Return what runs; MissingDependencyError where something is missing."""
        return f"RTL under {versions()}"

    def run(self, program: Program, x: Inputs) -> Trace:
        """Return spikes, states, cycles and counters of samples (samples, steps, ...)."""
        from snn_deploy.backends.fpga.target import sent

        payload = cast("FpgaProgram", program.payload)
        flat = only_input(program.real, x)
        given = sent(program, flat)
        samples, steps = given.shape[:2]
        recording = simulate(payload, given, most_cycles(payload, given), files=self._files)
        spikes: dict[str, Array] = {}
        states: dict[str, dict[str, Array]] = {}
        machine: dict[str, dict[str, dict[str, Array]]] = {"cycles": {}, "counters": {}}
        for engine, layer in payload.layers():
            name = layer.population
            shape = (samples, steps, *program.real.shapes[name])
            found = _swept(recording, payload, engine, layer, (samples, steps))
            if layer.spiking:
                spikes[name] = found["spikes"].astype(np.uint8).reshape(shape)
            states[name] = {v: found[v].reshape(shape) for v in ("u", "v")}
            machine["cycles"][name], machine["counters"][name] = _jobs(
                recording, engine, layer, (samples, steps)
            )
        spikes[payload.input[0]] = (given != 0).astype(np.uint8)
        readout = program.real.readout.kind
        parts = [
            states[n]["v"] if readout in MEMBRANE_READOUTS or n not in spikes else spikes[n]
            for n in program.real.outputs
        ]
        output = np.concatenate([p.reshape(samples, steps, -1) for p in parts], axis=2)
        assert program.qnet is not None
        machine["results"] = _results(recording, payload, (samples, steps))
        last = recording.jobs[recording.jobs[:, 0] == KINDS.index("done")]
        return Trace(
            output=program.qnet.readout_values(output),
            counts={n: s.reshape(samples * steps, -1).sum(axis=0) for n, s in spikes.items()},
            samples=samples,
            steps=steps,
            spikes=spikes,
            states=states,
            timing={"cycles": last[np.argsort(last[:, 1]), 5].astype(np.int64)},
            machine=machine,
        )


def most_cycles(program: FpgaProgram, given: Array) -> int:
    """Return a bound on the cycles of a sample: every event with the longest row, one by one."""
    steps = given.shape[1]
    longest = max(int(e.lengths.max(initial=0)) for e in program.engines)
    words = sum(layer.layout.words for _, layer in program.layers())
    events = sum(
        program.words_of(s.pre) * s.lanes for _, layer in program.layers() for s in layer.segments
    )
    return _PATIENCE * int(steps) * (events * (longest + 1) + words + 100 * len(program.engines))


def machine_of(
    program: Program, cycles: Cycles, trace: Trace
) -> dict[str, dict[str, dict[str, Array]]]:
    """Return the model's cycles and counters, and the readout's results, as the RTL's are recorded.

    trace: of the integer engine, all steps.
    """
    found: dict[str, dict[str, dict[str, Array]]] = {
        "cycles": {},
        "counters": {},
        "results": _expected(program, cycles, trace),
    }
    for name, layer in cycles.layers.items():
        found["cycles"][name] = {kind: getattr(cycles, kind)[name] for kind in KINDS[:4]}
        zero = np.zeros_like(layer.rows)
        found["counters"][name] = {
            "rows": layer.rows,
            "pushes": layer.pushes,
            "reads": sum(layer.entries.values(), start=zero),
            "adds": sum(layer.accumulates.values(), start=zero),
            "stalls": layer.stalls,
        }
    return found


def _expected(program: Program, cycles: Cycles, trace: Trace) -> dict[str, dict[str, Array]]:
    """Return what the readout unit finds after each step; -1 where it does not look."""
    unit = cast("FpgaProgram", program.payload).readout
    if unit is None:
        return {}
    readout, lead_ = program.real.readout, (trace.samples, trace.steps)
    first = trace.steps - 1 if unit.thresholds is None else unit.first
    found = {name: np.full(lead_, -1, np.int64) for name in ("class", "stops", "cycle")}
    if readout.kind in MEMBRANE_READOUTS:
        found["class"][:, first] = readout.predict(trace.output)
    else:
        scores = readout.cumulative(trace.output)[:, first:]
        found["class"][:, first:] = scores.argmax(axis=2)
    found["stops"][:, first:] = 0
    if readout.cutoff is not None:
        gaps = lead(readout.cumulative(trace.output))
        above = gaps > np.array(readout.cutoff[: trace.steps])
        found["stops"][:, first:] = above[:, first:]
    found["stops"][:, -1] = 1
    found["cycle"][:, first:] = cycles.swept[unit.population][:, first:] + cycles.scan
    return {unit.population: found}


def _results(
    recording: Recording, program: FpgaProgram, shape: tuple[int, int]
) -> dict[str, dict[str, Array]]:
    """Return what the readout unit found after each step; -1 where it did not look."""
    if program.readout is None:
        return {}
    rows = recording.jobs[recording.jobs[:, 0] == KINDS.index("scanned")]
    found = {}
    for name, column in (("class", 2), ("stops", 3), ("cycle", 5)):
        found[name] = np.full(shape, -1, np.int64)
        found[name][rows[:, 1], rows[:, 4]] = rows[:, column]
    return {program.readout.population: found}


def _swept(
    recording: Recording,
    program: FpgaProgram,
    engine: Engine,
    layer: Layer,
    lead: tuple[int, int],
) -> dict[str, Array]:
    """Return spikes, v and u of a layer as swept, (samples, steps, n); -1 where nothing was."""
    rows = recording.words
    mine = rows[(rows[:, 1] == engine.index) & (rows[:, 2] == engine.layers.index(layer))]
    banks = program.banks
    ids = layer.layout.neurons()[:, mine[:, 4]].T
    there = ids >= 0
    sample = np.broadcast_to(mine[:, :1], ids.shape)[there]
    step = np.broadcast_to(mine[:, 3:4], ids.shape)[there]
    mask = mine[:, 5].astype(np.int64) & 0xFFFFFFFF | mine[:, 6].astype(np.int64) << 32
    values = {
        "spikes": (mask[:, None] >> np.arange(banks)) & 1,
        "v": mine[:, 7 : 7 + banks],
        "u": mine[:, 7 + banks :],
    }
    size = layer.layout.channels * layer.layout.pixels
    found = {}
    for name, table in values.items():
        whole = np.full((*lead, size), -1, np.int64)
        whole[sample, step, ids[there]] = table[there]
        found[name] = whole
    return found


def _jobs(
    recording: Recording, engine: Engine, layer: Layer, lead: tuple[int, int]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return a layer's cycles and counters, (samples, steps) each; -1 where nothing happened."""
    rows = recording.jobs
    ours = rows[rows[:, 2] == engine.index]
    number = engine.layers.index(layer)
    cycles = {}
    for index, kind in enumerate(KINDS[:4]):
        mine = ours[(ours[:, 0] == index) & (ours[:, 3] == number)]
        cycles[kind] = np.full(lead, -1, np.int64)
        cycles[kind][mine[:, 1], mine[:, 4]] = mine[:, 5]
    # Counters run on from job to job of a sample.
    ended = ours[ours[:, 0] == KINDS.index("ingested")]
    before = np.zeros((len(ended), len(COUNTERS)), np.int64)
    same = np.flatnonzero(ended[1:, 1] == ended[:-1, 1]) + 1
    before[same] = ended[same - 1, 6:]
    spent = ended[:, 6:] - before
    own = ended[:, 3] == number
    counters = {}
    for index, kind in enumerate(COUNTERS):
        counters[kind] = np.full(lead, -1, np.int64)
        counters[kind][ended[own, 1], ended[own, 4]] = spent[own, index]
    return cycles, counters
