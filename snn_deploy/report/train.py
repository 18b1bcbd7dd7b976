"""The report of ``train``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from snn_deploy import units
from snn_deploy.report.model import Report, Section, Table, Text


def train_report(result: Any, method: str, arch: str, data: str) -> Report:
    """Return the report of a TrainResult."""
    rounds = [asdict(r) for r in result.rounds]
    lines: tuple[tuple[str, str], ...] = (
        ("ticket", str(result.path)),
        ("dense", f"{units.percent(result.dense_accuracy)} on the test data"),
        ("sparse", f"{units.percent(result.ticket_accuracy)} at {units.percent(result.sparsity)}"),
        ("weights", f"{result.nonzeros:,} of {result.weights:,} left"),
        ("took", f"{result.seconds:.1f} s"),
    )
    if result.qat is not None:
        q = result.qat
        after, before = units.percent(q.accuracy), units.percent(q.accuracy_before)
        text = f"{after} in {q.target}'s {q.bits}-bit weights, {before} before fine-tuning"
        lines = (*lines[:-1], ("integers", text), lines[-1])
    table = Table(
        title="",
        columns=("round", "sparsity", "test accuracy"),
        rows=tuple(
            (str(i), units.percent(r.sparsity), units.percent(r.accuracy))
            for i, r in enumerate(result.rounds)
        ),
        align="rrr",
    )
    return Report(
        command="train",
        title=f"train {arch} on {data} with {method}",
        sections=(
            Section(title="", items=(Text(lines=lines),)),
            Section(title="Rounds", items=(table,)),
        ),
        data={
            "ticket": str(result.path),
            "method": method,
            "dense_accuracy": result.dense_accuracy,
            "ticket_accuracy": result.ticket_accuracy,
            "sparsity": result.sparsity,
            "nonzeros": result.nonzeros,
            "weights": result.weights,
            "rounds": rounds,
            "qat": None if result.qat is None else asdict(result.qat),
        },
        rows=tuple(rounds),
    )
