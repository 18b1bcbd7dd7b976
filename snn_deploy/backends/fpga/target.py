"""The FPGA target: memory images, the integers that they hold, and the cycles that they take."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from snn_deploy.backends.arithmetics import FPGA
from snn_deploy.backends.base import Latency, Options, Oracle, Program, once, operations
from snn_deploy.errors import InputError, UsageError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.events import Events
from snn_deploy.ir.network import Network
from snn_deploy.ir.quantized import Arithmetic, QNetwork
from snn_deploy.ir.trace import Trace, joined, spikes_until

if TYPE_CHECKING:
    from snn_deploy.backends.fpga.layout import Settings
    from snn_deploy.backends.fpga.machine import Cycles
    from snn_deploy.backends.fpga.program import FpgaProgram
    from snn_deploy.backends.fpga.synthesis import Synthesis
    from snn_deploy.device.usage import Usage
    from snn_deploy.engine.loop import Inputs, Record

#: Setting -> (what it is, least, most).
SETTINGS: dict[str, tuple[str, int, int]] = {
    "banks": ("neuron banks that add in parallel, a power of two", 1, 64),
    "fifo_depth": ("pointers that wait before a bank, a power of two", 2, 64),
    "engines": ("engines that share the layers; 0: one per layer", 0, 64),
    "dense_rows": ("1: rows without indices where they take fewer bits; 0: never", 0, 1),
    "bitmap_rows": ("1: rows with a bitmap where they take fewer bits; 0: never", 0, 1),
}
_POWERS = ("banks", "fifo_depth")
_CHUNK_VALUES = 16_000_000  # neurons x steps x samples held at once


class FpgaTarget:
    """A run-ahead, sparse, event-driven accelerator; its cycles are modelled, not synthesized."""

    name = "fpga"
    title = "FPGA accelerator (RTL, and its cycle model)"
    family = "fpga"
    default_device = "ecp5-25f"
    charged = (
        "synops_quantized",
        "synops_helper",
        "neuron_updates",
        "weight_read_bits",
        "index_read_bits",
        "pointer_read_bits",
        "state_read_bits",
        "state_write_bits",
    )
    places = ("emulator", "rtl")
    settings = SETTINGS

    def arithmetic(self) -> Arithmetic | None:
        """Return the accelerator's integers."""
        return FPGA

    def constraints(self) -> tuple[tuple[str, str], ...]:
        """Return what can be lowered."""
        return (
            (
                "Linear, Affine",
                "rows with indices, bitmaps or neither, whichever takes fewest bits",
            ),
            ("Conv1d, Conv2d", "groups, stride, dilation, padding; one kernel for all pixels"),
            ("SumPool2d, AvgPool2d", "tiling pools divide the event's address; others are kernels"),
            ("max pooling", "on spikes only: a sum pool and a threshold population"),
            ("other chains", "multiplied out into one sparse matrix"),
            ("batch norm, scales", "folded into weights and biases"),
            ("LIF, IF, LI, Integrator", "value or subtract reset; 16-bit membrane that saturates"),
            ("CubaLIF, CubaLI", "24-bit current; refused with a bias, or where it could overflow"),
            ("analogue (direct) input", "whole numbers that events carry: multiply-accumulates"),
            ("recurrence, delays", "up to 62 steps, per projection or per synapse"),
        )

    def lower(self, network: Network, qnet: QNetwork | None, options: Options) -> Program:
        """Return the memory images; located errors for what has no form, UsageError for settings
        out of range.
        """
        from snn_deploy.backends.fpga.layout import build
        from snn_deploy.device.load import load

        assert qnet is not None
        device = load(self.default_device) if options.device is None else options.device
        if device.family != self.family:
            raise UsageError(
                f"{device.name} is not an FPGA",
                used=f"family {device.family}",
                hint=f"--device {self.default_device}, or another FPGA of `targets list`",
            )
        payload = build(qnet, settings(options.settings))
        return Program(target=self.name, real=network, qnet=qnet, payload=payload, device=device)

    def run(self, program: Program, x: Inputs, record: str = "output") -> Trace:
        """Run what the memory images hold; counts memory accesses and cycles too.

        timing: "cycles" per sample; "cycles/<population>" and "cycles/<population>/<part>" per
        sample, summed over its steps (parts: see cycles.PARTS).
        """
        from snn_deploy.backends.fpga.cycles import CycleModel
        from snn_deploy.backends.fpga.decode import decode
        from snn_deploy.backends.fpga.oracle import machine_of
        from snn_deploy.engine.fixed import FixedEngine
        from snn_deploy.engine.loop import only_input

        qnet = program.qnet
        assert qnet is not None
        x = only_input(program.real, x)
        payload = cast("FpgaProgram", program.payload)
        engine = once(program, "engine", lambda: FixedEngine(decode(payload, qnet)))
        model = once(program, "cycles", lambda: CycleModel(payload))
        size = sum(p.size for p in program.real.populations)
        most = max(1, _CHUNK_VALUES // max(1, size * (x.shape[1] if x.ndim > 1 else 1)))
        parts: list[Trace] = []
        for first in range(0, max(1, len(x)), most):
            wanted = cast("Record", "spikes" if record == "output" else record)
            part = x[first : first + most]
            trace = engine.run(part, wanted)
            name = program.real.input_population.name
            cycles = model.run({**trace.spikes, name: sent(program, part)})
            trace = _measured(payload, program, trace, cycles)
            if record == "states":
                trace = replace(trace, machine=machine_of(program, cycles, trace))
            parts.append(replace(trace, spikes={}) if record == "output" else trace)
        return joined(parts)

    def events(self, program: Program, trace: Trace) -> Events:
        """Return what all steps of a trace with spikes cost."""
        cycles = self.cycles(program, trace)
        every = np.full(trace.samples, trace.steps)
        finished = cycles.finished(program.real.outputs, every)
        return _counted(program.payload, program, trace, cycles, finished).events

    def cycles(self, program: Program, trace: Trace) -> Cycles:
        """Return the cycles per sample, step and population of a trace with spikes."""
        from snn_deploy.backends.fpga.cycles import CycleModel

        return once(program, "cycles", lambda: CycleModel(program.payload)).run(trace.spikes)

    def latency(self, program: Program, trace: Trace) -> Latency:
        """Return mean cycles per sample, and seconds at the device file's clock."""
        cycles = float(np.mean(trace.timing["cycles"]))
        clock = program.device.timing.get("clock_hz")
        if clock is None or isinstance(clock.value, tuple):
            why = program.device.unknown.get("clock_hz", f"{program.device.name} states no clock")
            return Latency(steps=trace.mean_steps, cycles=cycles, unavailable_reason=why)
        # Cycles are exact; a clock that nobody measured makes the seconds an estimate.
        kind = "simulated" if clock.kind in ("measured", "simulated") else "estimated"
        return Latency(
            steps=trace.mean_steps, cycles=cycles, seconds=cycles / clock.value, kind=kind
        )

    def usage(self, program: Program) -> Usage:
        """Return memory bits by layer, and block RAM."""
        from snn_deploy.backends.fpga.memory import usage

        return usage(program.payload, program.device)

    def oracle(self) -> Oracle | None:
        """Return Verilator on the RTL that ``write`` emits."""
        from snn_deploy.backends.fpga.oracle import RtlOracle

        return RtlOracle()

    def synthesize(
        self, program: Program, folder: Path, report: Callable[[str], None]
    ) -> Synthesis:
        """Return what the hardware that ``write`` left in ``folder`` takes of the device.

        report: told each step in a line. Raises MissingDependencyError, ExternalToolError,
        FitError, and UsageError for a device that no tool at hand synthesizes for.
        """
        from snn_deploy.backends.fpga.artifacts import SOURCES, TOP
        from snn_deploy.backends.fpga.design import Design
        from snn_deploy.backends.fpga.synth import synthesize

        design = Design(
            top="accelerator",
            sources=[folder / name for name in (*SOURCES, TOP)],
            images=sorted(folder.glob("*.hex")),
        )
        with tempfile.TemporaryDirectory(prefix="snn-deploy-synthesis-") as work:
            return synthesize(design, program.device.name, work=work, report=report)

    def write(self, program: Program, folder: Path, stem: str) -> list[str]:
        """Write hex images and ``config.json``; ``stem`` is not used, memories have fixed names."""
        from snn_deploy.backends.fpga.artifacts import write

        return write(program.payload, program.real, folder)


def settings(given: Mapping[str, int] | None) -> Settings:
    """Return the settings of a lowering; UsageError for an unknown one or a value out of range."""
    from snn_deploy.backends.fpga.layout import Settings

    known = ", ".join(SETTINGS)
    for name, value in (given or {}).items():
        if name not in SETTINGS:
            raise UsageError(f"the fpga target has no setting {name!r}", hint=f"settings: {known}")
        what, least, most = SETTINGS[name]
        power = name not in _POWERS or (value & (value - 1)) == 0
        if isinstance(value, bool) or not least <= value <= most or not power:
            raise UsageError(
                f"{name} is out of range ({what})",
                used=f"{value}, range {least}..{most}",
                hint=f"--set {name}={max(least, min(most, 8 if name == 'banks' else 4))}",
            )
    chosen = dict(given or {})
    return Settings(
        banks=chosen.get("banks", 8),
        fifo_depth=chosen.get("fifo_depth", 4),
        engines=chosen.get("engines", 0),
        dense_rows=bool(chosen.get("dense_rows", 1)),
        bitmap_rows=bool(chosen.get("bitmap_rows", 1)),
    )


def _measured(payload: FpgaProgram, program: Program, trace: Trace, cycles: Cycles) -> Trace:
    """Return the trace with events and timing, until each sample's stop under a cutoff.

    A sample stops when the output has finished its step. A layer that has begun a step by then
    has that step counted whole: layers run ahead of the output, as far as the buffers let them.
    """
    from snn_deploy.engine.early import until

    network = program.real
    every = np.full(trace.samples, trace.steps)
    whole = _counted(payload, program, trace, cycles, cycles.finished(network.outputs, every))
    if network.readout.cutoff is None:
        return whole
    stops = network.readout.stop_steps(trace.output)
    latency = cycles.finished(network.outputs, stops)
    ran = cycles.begun(latency)
    arrived = {p.name: spikes_until(trace.spikes[p.pre], ran[p.post]) for p in network.projections}
    return _counted(payload, program, until(whole, stops, ran, arrived), cycles, latency)


def sent(program: Program, x: Array) -> Array:
    """Return the whole numbers that the input sends, 0 for no event; InputError for others."""
    from snn_deploy.backends.fpga.pack import VALUE_BITS
    from snn_deploy.engine.host import graded_input

    assert program.qnet is not None
    if not program.qnet.levels:
        return x
    given = graded_input(program.qnet, x)[program.real.input_population.name]
    top = (1 << (VALUE_BITS - 1)) - 1
    largest = int(np.max(np.abs(given), initial=0))
    if largest > top:
        raise InputError(
            "an input value is larger than the events of this target can carry",
            used=f"{largest:,} of {top:,} levels",
            hint="scale the input to at most 1, or pass samples that the network was trained on",
        )
    return np.asarray(given)


def _counted(
    payload: FpgaProgram, program: Program, trace: Trace, cycles: Cycles, latency: Array
) -> Trace:
    """Return the trace with what the accelerator did: operations, accesses and cycles."""
    from snn_deploy.engine.count import analogue

    counts = dict(operations(program, trace))
    v_bits = payload.arithmetic.state_max.bit_length() + 1
    timing: dict[str, Array] = {"cycles": latency}
    graded = {p.name for p in program.real.projections if analogue(program.real, p)}
    for engine, layer in payload.layers():
        name, widths = layer.population, engine.widths
        found = cycles.layers[name]
        ran = np.full(trace.samples, trace.steps) if trace.stop is None else trace.stop.ran[name]
        done = np.arange(trace.steps) < ran[:, None]
        work, entries, added_all = trace.work(name), 0, 0
        for segment in layer.segments:
            where = segment.projection
            if (where, "weight_read_bits") in counts:
                continue  # another delay of the same projection: counted together
            read = int(found.entries[where][done].sum())
            added = int(found.accumulates[where][done].sum())
            entries += read
            added_all += added
            if where in graded:
                counts[where, "macs"] = added
            elif segment.learned:
                # What the accelerator adds up beyond the learned connections is the lowering's
                # own: zeros of full rows, and chains multiplied out, which merge or add some.
                own = min(added, counts[where, "synops_quantized"])
                counts[where, "synops_quantized"] = own
                if segment.composite or engine.format == "dense":
                    counts[where, "synops_helper"] = added - own
            else:
                counts[where, "synops_helper"] = added
            counts[where, "weight_read_bits"] = read * widths.weight
            counts[where, "index_read_bits"] = read * (engine.entry_bits - widths.weight)
            rows = int(found.pointer_rows[where][done].sum())
            pointer = 0 if engine.format == "dense" else payload.banks * widths.pointer
            counts[where, "pointer_read_bits"] = rows * pointer
        swept = work * payload.banks * layer.layout.words
        kept = v_bits + (payload.arithmetic.state_bits if layer.current else 0)
        # A sum is read and written for every entry, read and cleared in every sweep.
        accesses = (added_all + swept) * widths.sum + swept * kept
        counts[name, "state_read_bits"] = accesses
        counts[name, "state_write_bits"] = accesses
        busy = found.ingest + found.sweep
        counts[name, "cycles"] = int(busy[done].sum())
        counts[name, "fpga:stall_cycles"] = int(found.stalls[done].sum())
        counts[name, "fpga:fifo_pushes"] = int(found.pushes[done].sum())
        counts[name, "fpga:parameter_read_bits"] = work * sum(
            layer.layout.words * payload.banks * t.bits for t in layer.tables if t.per != "layer"
        )
        timing[f"cycles/{name}"] = (busy * done).sum(axis=1)
        for part, spent in found.parts.items():
            timing[f"cycles/{name}/{part}"] = (spent * done).sum(axis=1)
    return replace(trace, events=Events(counts), timing=timing)
