"""The report of ``import`` for a published checkpoint: what is left of each layer."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from snn_deploy import units
from snn_deploy.report.model import Report, Section, Table, Text
from snn_deploy.report.network import network_facts, network_text


def published_report(found: Any, kind: str, out: Path | str) -> Report:
    """Return the report of an Imported. kind: the format; out: the file that was written."""
    layers = [asdict(layer) for layer in found.layers]
    weights = sum(layer.weights for layer in found.layers)
    nonzeros = sum(layer.nonzeros for layer in found.layers)
    rows = [_row(x.name, "x".join(map(str, x.shape)), x.weights, x.nonzeros) for x in found.layers]
    table = Table(
        title="",
        columns=("layer", "shape", "weights", "nonzero", "sparse"),
        rows=(*rows, _row("all", "", weights, nonzeros)),
        align="llrrr",
        total=True,
        note="as stored, before batch norm, scales and pools are folded",
    )
    lines = [("file", str(out)), *(("note", note) for note in found.notes)]
    network = found.network
    return Report(
        command="import",
        title=f"import {network.source.path}",
        sections=(
            Section(title="", items=(network_text(network),)),
            Section(title="Layers", items=(table,)),
            Section(title="Written", items=(Text(lines=tuple(lines)),)),
        ),
        data={
            "model": network_facts(network),
            "format": kind,
            "layers": layers,
            "weights": weights,
            "nonzeros": nonzeros,
            "sparsity": 1 - nonzeros / weights,
            "notes": list(found.notes),
            "file": str(out),
        },
        rows=tuple(layers),
    )


def _row(name: str, shape: str, weights: int, nonzeros: int) -> tuple[str, ...]:
    return (name, shape, f"{weights:,}", f"{nonzeros:,}", units.percent(1 - nonzeros / weights))
