"""The example target: the float network, with one table lookup per neuron and step."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from snn_deploy.backends.base import Latency, Options, Oracle, Program
from snn_deploy.device.usage import MemoryItem, Resource, Usage
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.events import Events
from snn_deploy.ir.network import Network
from snn_deploy.ir.quantized import Arithmetic, QNetwork
from snn_deploy.ir.trace import Trace

ENTRY_BITS = 16


class ExampleTarget:
    """Lowers feed-forward networks of value-reset neurons to tables."""

    name = "example"
    title = "Example plugin (lookup tables)"
    family = "neuromorphic"
    default_device = str(files("snn_deploy_example_target").joinpath("table-chip.toml"))
    charged = ("synops_effective", "synops_helper", "example:lookups")
    places = ("emulator",)

    def arithmetic(self) -> Arithmetic | None:
        return None

    def constraints(self) -> tuple[tuple[str, str], ...]:
        return (("all neurons", "value reset"), ("recurrence", "refused"))

    def lower(self, network: Network, qnet: QNetwork | None, options: Options) -> Program:
        assert options.device is not None
        if network.feedback:
            raise UnsupportedError(
                "tables hold no feedback",
                where=network.where(network.feedback[0][0]),
                hint="remove the recurrent connection",
            )
        tables = {p.name: p.size for p in network.computing()}
        return Program(
            target=self.name, real=network, qnet=qnet, payload=tables, device=options.device
        )

    def run(self, program: Program, x: Any, record: str = "output") -> Trace:
        from snn_deploy.engine.event import EventEngine

        trace = EventEngine(program.real).run(x, record)
        return replace(trace, events=self.events(program, trace))

    def events(self, program: Program, trace: Trace) -> Events:
        from snn_deploy.engine.count import Counter

        work = trace.samples * trace.steps
        lookups = {(name, "example:lookups"): n * work for name, n in program.payload.items()}
        return Counter(program.real).count(trace) + Events(lookups)

    def latency(self, program: Program, trace: Trace) -> Latency:
        return Latency(steps=trace.steps, unavailable_reason="the example has no clock")

    def usage(self, program: Program) -> Usage:
        entries = sum(program.payload.values())
        return Usage(
            items=tuple(
                MemoryItem(where=name, kind="state", bits=n * ENTRY_BITS, region="tables")
                for name, n in program.payload.items()
            ),
            resources=(
                Resource(
                    name="table entries",
                    where="the chip",
                    used=entries,
                    limit_key="table_entries",
                    unit="entries",
                    contributors=tuple(program.payload.items()),
                ),
            ),
        )

    def oracle(self) -> Oracle | None:
        return None

    def write(self, program: Program, folder: Path, stem: str) -> list[str]:
        from snn_deploy.io.files import write_json

        write_json(folder / "tables.json", dict(program.payload))
        return ["tables.json"]
