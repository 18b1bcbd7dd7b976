"""The report of ``inspect``."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from snn_deploy import units
from snn_deploy.engine.load import Load
from snn_deploy.ir.network import Network, Projection
from snn_deploy.ir.quantized import QNetwork
from snn_deploy.ir.synapses import learned_nonzeros, learned_size
from snn_deploy.ir.text import synapse_text, to_text
from snn_deploy.report.load import load_data, load_table
from snn_deploy.report.model import Item, Report, Section, Table, Text
from snn_deploy.report.network import network_facts, network_text
from snn_deploy.report.tensors import neuron_data, neuron_table, tensor_data, tensor_table


def _parameters(neuron: object) -> str:
    parts = []
    for field in fields(neuron):  # type: ignore[arg-type]
        value = getattr(neuron, field.name)
        if isinstance(value, np.ndarray):
            low, high = float(value.min()), float(value.max())
            parts.append(f"{field.name} {low:g}" + (f"..{high:g}" if high != low else ""))
        elif value is not None:
            parts.append(f"{field.name} {value}")
    return ", ".join(parts)


def _record(projection: Projection) -> dict[str, Any]:
    nonzeros = sum(map(learned_nonzeros, projection.synapses))
    size = sum(map(learned_size, projection.synapses))
    return {
        "projection": projection.name,
        "pre": projection.pre,
        "post": projection.post,
        "operators": [synapse_text(s) for s in projection.synapses],
        "weights": size,
        "nonzeros": nonzeros,
        "density": nonzeros / size if size else None,
        "delay_steps": int(np.max(projection.delay_steps)),
        "helper": projection.helper,
    }


def inspect_report(
    network: Network, qnet: QNetwork | None = None, load: Load | None = None
) -> Report:
    """Return the report of one network, with its quantization and load where they are given."""
    populations = Table(
        title="",
        columns=("population", "shape", "neuron", "parameters"),
        rows=tuple(
            (
                p.name,
                "x".join(map(str, p.shape)),
                "input" if p.name in network.inputs else type(p.neuron).__name__,
                _parameters(p.neuron),
            )
            for p in network.populations
        ),
        align="lrll",
    )
    records = [_record(p) for p in network.projections]
    projections = Table(
        title="",
        columns=("projection", "from", "to", "operators", "nonzeros", "density"),
        rows=tuple(
            (
                r["projection"] + (" (helper)" if r["helper"] else ""),
                r["pre"],
                r["post"],
                " then ".join(text.split("(")[0] for text in r["operators"]),
                f"{r['nonzeros']:,} of {r['weights']:,}" if r["weights"] else "-",
                "-" if r["density"] is None else units.percent(r["density"]),
            )
            for r in records
        ),
        align="llllrr",
    )
    sections = [
        Section(title="", items=(network_text(network),)),
        Section(title="Populations", items=(populations,)),
        Section(title="Projections", items=(projections,)),
    ]
    data: dict[str, Any] = {
        "model": network_facts(network),
        "text": to_text(network),
        "projections": records,
    }
    if qnet is not None:
        items: list[Item] = [tensor_table(qnet.tensors), neuron_table(qnet), _registers(qnet)]
        sections.append(Section(title=f"In {qnet.arithmetic.name} integers", items=tuple(items)))
        data["quantization"] = tensor_data(qnet.tensors)
        data["neurons"] = neuron_data(qnet)
    if load is not None:
        title = f"Load of {load.elements} processing elements"
        sections.append(Section(title=title, items=(load_table(load),)))
        data["load"] = load_data(load)
    lines = tuple(("", line) for line in to_text(network).splitlines())
    sections.append(Section(title="Text form", items=(Text(lines=lines),), detail=True))
    return Report(
        command="inspect",
        title=f"inspect {network.source.path}",
        sections=tuple(sections),
        data=data,
        rows=tuple({k: v for k, v in r.items() if k != "operators"} for r in records),
    )


def _range(value: Any) -> str:
    if value is None:
        return "-"
    low, high = int(np.min(value)), int(np.max(value))
    return f"{low:,}" if low == high else f"{low:,}..{high:,}"


def _registers(qnet: QNetwork) -> Table:
    full = 1 << qnet.arithmetic.decay_bits
    rows = []
    for population in qnet.computing():
        q = qnet.populations[population.name]
        keep = 1 - float(np.min(q.decay_v)) / full
        rows.append(
            (
                population.name,
                f"{q.scale:.4g}",
                str(q.shift),
                _range(q.decay_v),
                f"{keep:.4f}",
                _range(q.threshold),
                _range(q.bias),
            )
        )
    return Table(
        title="",
        columns=("population", "scale", "shift", "decay", "keeps", "threshold", "bias"),
        rows=tuple(rows),
        align="lrrrrrr",
        note=f"decay in 1/{full} per step; keeps: share of v left after a step",
    )
