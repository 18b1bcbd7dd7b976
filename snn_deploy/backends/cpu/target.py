"""The CPU target: the float network itself, judged by norse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from snn_deploy.backends.base import (
    Latency,
    Options,
    Oracle,
    Program,
    counted,
    once,
    operations,
    recording,
)
from snn_deploy.engine.loop import Inputs, Record
from snn_deploy.ir.events import Events
from snn_deploy.ir.network import Network
from snn_deploy.ir.quantized import Arithmetic, QNetwork
from snn_deploy.ir.synapses import Csr, bias_of, weights_of
from snn_deploy.ir.trace import Trace

if TYPE_CHECKING:
    from snn_deploy.device.usage import Usage

_STATE_BITS = 64


class CpuTarget:
    """The reference on any computer: float64 states, weights as they were trained."""

    name = "cpu"
    title = "CPU reference (float)"
    family = "cpu"
    default_device = "cpu45"
    charged: tuple[str, ...] = ("synops_effective", "synops_helper", "macs", "neuron_updates")
    places: tuple[str, ...] = ("emulator",)

    def arithmetic(self) -> Arithmetic | None:
        """Return None: it computes in float."""
        return None

    def constraints(self) -> tuple[tuple[str, str], ...]:
        """Return what can be lowered."""
        return (
            ("all operators", "after folding; sparse where fewer than half the weights are left"),
            ("all neurons", "value and subtract reset"),
            ("recurrence, delays", "whole steps"),
            ("rate, event and direct input", "direct input costs multiply-accumulates"),
        )

    def lower(self, network: Network, qnet: QNetwork | None, options: Options) -> Program:
        """Return the program: the folded network."""
        assert options.device is not None
        return Program(
            target=self.name, real=network, qnet=qnet, payload=network, device=options.device
        )

    def run(self, program: Program, x: Inputs, record: Record = "output") -> Trace:
        """Run the float engine, or another target's integers if the program has them."""
        from snn_deploy.engine.event import EventEngine
        from snn_deploy.engine.fixed import FixedEngine

        def made() -> EventEngine | FixedEngine:
            qnet = program.qnet
            return EventEngine(program.payload) if qnet is None else FixedEngine(qnet)

        trace = once(program, "engine", made).run(x, recording(program, record))
        return counted(self, program, trace, record)

    def extra_steps(self, program: Program) -> dict[str, int]:
        """Return nothing: every population runs a step before any runs the next."""
        return {}

    def events(self, program: Program, trace: Trace) -> Events:
        """Return synops, MACs, updates and spikes."""
        return operations(program, trace)

    def latency(self, program: Program, trace: Trace) -> Latency:
        """Return steps; wall-clock time depends on the machine and is not a property of it."""
        return Latency(
            steps=trace.mean_steps, unavailable_reason="depends on the computer; see tools/bench.py"
        )

    def usage(self, program: Program) -> Usage:
        """Return the bits that weights, biases, indices, pointers and states take in memory."""
        from snn_deploy.device.usage import MemoryItem, Usage

        network: Network = program.payload
        items: list[MemoryItem] = []
        for projection in network.projections:
            for synapse in projection.synapses:
                weights = weights_of(synapse)
                if weights is None:
                    continue
                bits = 8 * (weights.nbytes + (0 if (b := bias_of(synapse)) is None else b.nbytes))
                items.append(
                    MemoryItem(where=projection.name, kind="weights", bits=bits, region="memory")
                )
                if isinstance(synapse, Csr):
                    items += [
                        MemoryItem(
                            where=projection.name,
                            kind="indices",
                            bits=8 * synapse.indices.nbytes,
                            region="memory",
                        ),
                        MemoryItem(
                            where=projection.name,
                            kind="pointers",
                            bits=8 * synapse.indptr.nbytes,
                            region="memory",
                        ),
                    ]
        for population in network.computing():
            states = 2 if population.neuron.step(network.dt_s).has_current else 1
            items.append(
                MemoryItem(
                    where=population.name,
                    kind="state",
                    bits=_STATE_BITS * states * population.size,
                    region="memory",
                )
            )
        return Usage(items=tuple(items), resources=())

    def oracle(self) -> Oracle | None:
        """Return norse."""
        from snn_deploy.backends.cpu.norse_oracle import NorseOracle

        return NorseOracle()

    def write(self, program: Program, folder: Path, stem: str) -> list[str]:
        """Write the program as arrays and a description, and how to run it."""
        from snn_deploy.backends.cpu.program_file import program_arrays
        from snn_deploy.io.npz import save_npz

        name = f"{stem}.npz"
        save_npz(folder / name, program_arrays(program.payload))
        return [name]
