"""The Loihi target: lowered to Lava's integers, placed on cores, judged by Lava."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from snn_deploy.backends.arithmetics import LOIHI
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
from snn_deploy.backends.loihi.cores import CoreMap
from snn_deploy.backends.loihi.decode import decode
from snn_deploy.backends.loihi.lowering import lower
from snn_deploy.backends.loihi.mapping import place
from snn_deploy.backends.loihi.partition import named_splits
from snn_deploy.backends.loihi.program import LoihiProgram
from snn_deploy.backends.loihi.usage import usage
from snn_deploy.backends.prepare import EXPONENTS
from snn_deploy.engine.loop import Inputs, Record
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.events import Events
from snn_deploy.ir.network import Network
from snn_deploy.ir.quantized import Arithmetic, QNetwork
from snn_deploy.ir.trace import Trace

if TYPE_CHECKING:
    from snn_deploy.device.usage import Usage

#: Setting -> (what it is, least, most).
SETTINGS: dict[str, tuple[str, int, int]] = {
    EXPONENTS: ("1: weight exponents in every layer, for finer thresholds; no .net file then", 0, 1)
}


class LoihiTarget:
    """Intel's Loihi through Lava; no chip is needed and none is claimed."""

    name = "loihi"
    title = "Loihi (Lava simulator)"
    family = "loihi"
    default_device = "loihi1"
    charged: tuple[str, ...] = (
        "synops_quantized",
        "synops_helper",
        "neuron_updates",
        "neuron_updates_active",
        "packets",
        "hops",
    )
    places: tuple[str, ...] = ("emulator", "lava", "netx")
    maps_cores = True
    settings = SETTINGS

    def arithmetic(self) -> Arithmetic | None:
        """Return Loihi's integers as Lava executes them."""
        return LOIHI

    def constraints(self) -> tuple[tuple[str, str], ...]:
        """Return what can be lowered."""
        return (
            ("Linear, Affine", "dense synapses, sparse in memory; weights on Loihi's 8-bit grid"),
            ("Conv1d, Conv2d", "convolution, kernels shared where the chip can"),
            ("SumPool2d, AvgPool2d", "fused into the convolution or dense layer that follows"),
            ("max pooling", "on spikes only: grouped convolution and a threshold population"),
            ("batch norm, scales", "folded into weights and biases"),
            ("LIF, IF, CubaLIF, LI, CubaLI, I", "decays in 1/4096 per step, per neuron if need be"),
            ("reset", "to 0; to other values, or by subtraction, on loihi2 (simulator only)"),
            ("v_init", "0; others on loihi2 (simulator only)"),
            ("bias", "13 bits, in weight units; into a synaptic current from a neuron that fires"),
            ("delays", "per synapse, up to 62 steps with those that align paths"),
            ("recurrence", "loops whose delays are as long as their hops"),
            ("rate or event input", "spikes from the host"),
            ("direct input", "--analogue bias: the host injects currents; graded: loihi2 spikes"),
        )

    def lower(self, network: Network, qnet: QNetwork | None, options: Options) -> Program:
        """Return populations, synapses and cores; located errors for what has no form."""
        assert qnet is not None
        assert options.device is not None
        payload = lower(qnet, options.device)
        splits = named_splits(payload, options.splits or {})
        payload = replace(payload, splits=splits, margin=options.margin)
        return Program(
            target=self.name, real=network, qnet=qnet, payload=payload, device=options.device
        )

    def mapping(self, program: Program) -> CoreMap:
        """Return the placement on the program's device."""
        # Run, usage and write all ask, and placing a large network takes seconds.
        return once(program, "placement", lambda: place(program.payload, program.device))

    def run(self, program: Program, x: Inputs, record: Record = "output") -> Trace:
        """Run what the program holds on the integer engine."""
        from snn_deploy.engine.fixed import FixedEngine

        qnet = program.qnet
        assert qnet is not None
        engine = once(program, "engine", lambda: FixedEngine(decode(program.payload, qnet)))
        return counted(self, program, engine.run(x, recording(program, record)), record)

    def extra_steps(self, program: Program) -> dict[str, int]:
        """Return how much earlier than the output's each population's steps run.

        A population of depth d runs aligned step t in the chip's step t + d. The host sees the
        output of step t at the end of the chip's step t + D, when it has run t + 1 + D - d steps.
        """
        loihi: LoihiProgram = program.payload
        depth = dict.fromkeys(loihi.network.inputs, 0)
        depth.update((p.name, p.depth) for p in loihi.populations)
        last = max(depth[name] for name in loihi.network.outputs)
        return {name: last - d for name, d in depth.items()}

    def events(self, program: Program, trace: Trace) -> Events:
        """Return synops, updates and spikes, packets and hops by the placement.

        Currents that the host injects count as its operations, one per neuron and step.
        """
        loihi: LoihiProgram = program.payload
        events = operations(program, trace)
        mapping = self.mapping(program)
        counts: dict[tuple[str, str], int] = {
            (p.name, "host_ops"): math.prod(p.shape) * trace.work(p.name)
            for p in loihi.populations
            if p.injected
        }
        crossed = 0
        for synapses in loihi.synapses:
            spikes = trace.counts[synapses.pre]
            counts[synapses.name, "packets"] = int(spikes @ mapping.targets[synapses.name])
            if mapping.links is not None:
                crossed += int(spikes @ mapping.links[synapses.name])
        if mapping.links is not None:
            counts["network on chip", "hops"] = crossed
        return events + Events(counts)

    def core_work(self, program: Program, trace: Trace) -> dict[int, dict[str, int]]:
        """Return the events of a trace by core."""
        from snn_deploy.backends.loihi.work import core_work

        return core_work(program, trace, self.mapping(program))

    def latency(self, program: Program, trace: Trace) -> Latency:
        """Return steps; seconds per step have no public source."""
        loihi: LoihiProgram = program.payload
        depth = loihi.depth
        if trace.stop is not None:  # the host waits for the output alone
            depth = max(loihi.population(name).depth for name in loihi.network.outputs)
        return Latency(
            steps=trace.mean_steps + depth,
            hop_steps=depth,
            unavailable_reason="no public time per step for this workload",
        )

    def usage(self, program: Program) -> Usage:
        """Return memory and axons per core."""
        return once(program, "usage", lambda: usage(program.payload, self.mapping(program)))

    def oracle(self) -> Oracle | None:
        """Return Lava."""
        from snn_deploy.backends.loihi.oracle import LavaOracle

        return LavaOracle()

    def simulators(self) -> tuple[Oracle, ...]:
        """Return Lava, and lava-dl's netx, which runs the file that ``write`` writes."""
        from snn_deploy.backends.loihi.netx_oracle import NetxOracle
        from snn_deploy.backends.loihi.oracle import LavaOracle

        return LavaOracle(), NetxOracle()

    def write(self, program: Program, folder: Path, stem: str) -> list[str]:
        """Write ``<stem>.net`` (lava-dl netx), where its line of layers can say it, and cores."""
        from snn_deploy.backends.loihi.netx_job import net_file
        from snn_deploy.io.files import write_bytes, write_json, write_text

        loihi: LoihiProgram = program.payload
        names: list[str] = []
        try:
            content = net_file(loihi)
        except UnsupportedError as error:
            write_text(folder / "NO_NET_FILE.txt", f"{error}\n")
            names.append("NO_NET_FILE.txt")
        else:
            write_bytes(folder / f"{stem}.net", content)
            names.append(f"{stem}.net")
        write_json(folder / "cores.json", self.usage(program).cores)
        return [*names, "cores.json"]
