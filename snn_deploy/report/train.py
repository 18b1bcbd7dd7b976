"""The report of ``train``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from snn_deploy import units
from snn_deploy.report.load import ratio
from snn_deploy.report.model import Report, Section, Table, Text


def train_report(result: Any, method: str, arch: str, data: str) -> Report:
    """Return the report of a TrainResult."""
    rounds = [asdict(r) for r in result.rounds]
    lines: tuple[tuple[str, str], ...] = (
        ("ticket", str(result.path)),
        *(
            ()
            if result.dense_accuracy is None
            else (("dense", f"{units.percent(result.dense_accuracy)} on the test data"),)
        ),
        (
            "sparse",
            f"{units.percent(result.ticket_accuracy)} on the test data at "
            f"{units.percent(result.sparsity)}",
        ),
        ("weights", f"{result.nonzeros:,} of {result.weights:,} left"),
        *_found(result.found),
        (
            "cost",
            f"{result.timestep_epochs:,} timestep-epochs, spike rate x density "
            f"{units.count(result.cost)}",
        ),
        ("took", f"{result.seconds:.1f} s"),
    )
    if result.qat is not None:
        q = result.qat
        after, before = units.percent(q.accuracy), units.percent(q.accuracy_before)
        text = f"{after} in {q.target}'s {q.bits}-bit weights, {before} before fine-tuning"
        lines = (*lines[:-1], ("integers", text), lines[-1])
    if result.cutoff is not None:
        c = result.cutoff
        text = (
            f"{units.percent(c.accuracy_stopped)} after {units.count(c.mean_steps)} of {c.steps} "
            f"steps, epsilon {c.epsilon:g}"
        )
        lines = (*lines[:-1], ("early stop", text), lines[-1])
    table = Table(
        title="",
        columns=("phase", "sparsity", "test accuracy", "epochs", "timestep-epochs"),
        rows=tuple(
            (
                r.name,
                units.percent(r.sparsity),
                "-" if r.accuracy is None else units.percent(r.accuracy),
                str(r.epochs),
                f"{r.timestep_epochs:,}",
            )
            for r in result.rounds
        ),
        align="lrrrr",
    )
    return Report(
        command="train",
        title=f"train {arch} on {data} with {method}",
        sections=(
            Section(title="", items=(Text(lines=lines),)),
            Section(title="Phases", items=(table,)),
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
            "found": result.found,
            "timestep_epochs": result.timestep_epochs,
            "cost": result.cost,
            "qat": None if result.qat is None else asdict(result.qat),
            "cutoff": None if result.cutoff is None else result.cutoff.as_json(),
        },
        rows=tuple(rounds),
    )


def _found(found: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return what a search found beside the weights, in words."""
    lines = []
    if "t_early" in found:
        lines.append(("early time", f"searched with {found['t_early']} of {found['steps']} steps"))
    if "tokens_kept" in found:
        kept = units.count(found["tokens_kept"])
        lines.append(("patches", f"{kept} of {found['tokens']} kept of each sample"))
    if "stop_epoch" in found:
        stop = found["stop_epoch"]
        text = "the masks never settled" if stop is None else f"masks settled in epoch {stop}"
        lines.append(("early bird", text))
    if "balance" in found:
        lines += _balance(found["balance"])
    return tuple(lines)


def _balance(figures: dict[str, Any]) -> list[tuple[str, str]]:
    before, after = map(ratio, figures["utilisation"])
    idle, less = figures["idle"]
    cycles = figures["cycles"]
    return [
        (
            "balance",
            f"utilisation {before} -> {after} on {figures['elements']} elements, "
            f"idle {idle:,} -> {less:,}",
        ),
        (
            "cycles",
            f"{cycles['before']:,} -> {cycles['balanced']:,} of the same nonzeros balanced "
            f"-> {cycles['after']:,}",
        ),
    ]
