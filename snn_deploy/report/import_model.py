"""The report of ``import``: what a dense network became, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from snn_deploy import units
from snn_deploy.ir.network import Network
from snn_deploy.report.model import Item, Report, Section, Table, Text
from snn_deploy.report.network import network_facts, network_text


def import_report(network: Network, conversion: Any, agreement: Any, out: Path | str) -> Report:
    """Return the report of a Conversion. network: folded, as written to ``out``.

    agreement: an Agreement of the dense and the spiking network, or None without data.
    """
    layers = [layer.as_dict() for layer in conversion.layers]
    table = Table(
        title="",
        columns=("layer", "neurons", "threshold", "taken from", "clipped"),
        rows=tuple(_row(layer) for layer in layers),
        align="lrrlr",
        note="threshold: of the neurons and the value of one of their spikes; clipped: share of "
        "the positive activations in the data above it",
    )
    sections = [
        Section(title="", items=(network_text(network),)),
        Section(title="Layers", items=(table,)),
    ]
    if agreement is not None:
        sections.append(Section(title="Decisions", items=(_decisions(network, agreement),)))
    lines: list[tuple[str, str]] = [("file", str(out))]
    lines += [("left out", note) for note in conversion.notes]
    items: tuple[Item, ...] = (Text(lines=tuple(lines)),)
    sections.append(Section(title="Written", items=items))
    return Report(
        command="import",
        title=f"import {network.source.path}",
        sections=tuple(sections),
        data={
            "model": network_facts(network),
            "layers": layers,
            "notes": list(conversion.notes),
            "samples": None if agreement is None else agreement.samples,
            "same_decisions": None if agreement is None else agreement.same,
            "dense_accuracy": _share(agreement, "dense_correct"),
            "spiking_accuracy": _share(agreement, "spiking_correct"),
            "file": str(out),
        },
        rows=tuple(layers),
    )


def _row(layer: dict[str, Any]) -> tuple[str, ...]:
    threshold = np.asarray(layer["threshold"])
    shown = f"{float(threshold.min()):.4g}"
    if threshold.ndim:
        shown += f" to {float(threshold.max()):.4g}"
    rule = f"{layer['rule']}, {layer['levels']} levels" if layer["levels"] else layer["rule"]
    clipped = "-" if layer["clipped"] is None else units.percent(layer["clipped"])
    return (layer["name"], f"{layer['neurons']:,}", shown, rule, clipped)


def _share(agreement: Any, what: str) -> float | None:
    if agreement is None or getattr(agreement, what) is None:
        return None
    return float(getattr(agreement, what) / agreement.samples)


def _decisions(network: Network, agreement: Any) -> Text:
    steps = network.coding.steps
    lines = [
        (
            "same",
            f"{agreement.same:,} of {agreement.samples:,} samples are decided alike after "
            f"{steps} steps",
        )
    ]
    dense, spiking = _share(agreement, "dense_correct"), _share(agreement, "spiking_correct")
    if dense is not None and spiking is not None:
        lines.append(("dense", f"{units.percent(dense)} right"))
        lines.append(("spiking", f"{units.percent(spiking)} right"))
    lines.append(("", "measured on the data that the thresholds were taken from"))
    return Text(lines=tuple(lines))
