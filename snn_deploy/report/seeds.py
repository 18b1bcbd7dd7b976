"""The report of ``train --seeds``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from snn_deploy import units
from snn_deploy.report.model import Report, Section, Table, Text


def seeds_report(result: Any, method: str, arch: str, data: str) -> Report:
    """Return the report of a SeedsResult."""
    spreads = {"ticket_accuracy": result.accuracy, "sparsity": result.sparsity}
    lines = (
        ("tickets", f"{len(result.results)}, one per seed"),
        (
            "sparse",
            f"{_spread(result.accuracy)} on the test data at {_spread(result.sparsity)}",
        ),
        ("took", f"{result.seconds:.1f} s"),
    )
    table = Table(
        title="",
        columns=("seed", "ticket", "sparsity", "test accuracy", "timestep-epochs"),
        rows=tuple(
            (
                str(r.seed),
                str(r.path),
                units.percent(r.sparsity),
                units.percent(r.ticket_accuracy),
                f"{r.timestep_epochs:,}",
            )
            for r in result.results
        ),
        align="rlrrr",
        note="mean +- standard deviation over the seeds, n - 1 in its denominator",
    )
    seeds = [
        {
            "seed": r.seed,
            "ticket": str(r.path),
            "dense_accuracy": r.dense_accuracy,
            "ticket_accuracy": r.ticket_accuracy,
            "sparsity": r.sparsity,
            "timestep_epochs": r.timestep_epochs,
            "cost": r.cost,
        }
        for r in result.results
    ]
    return Report(
        command="train",
        title=f"train {arch} on {data} with {method}, {len(seeds)} seeds",
        sections=(
            Section(title="", items=(Text(lines=lines),)),
            Section(title="Seeds", items=(table,)),
        ),
        data={
            "method": method,
            "seeds": seeds,
            **{name: asdict(spread) for name, spread in spreads.items()},
        },
        rows=(
            *seeds,
            {"seed": "mean", **{name: s.mean for name, s in spreads.items()}},
            {"seed": "standard deviation", **{name: s.deviation for name, s in spreads.items()}},
        ),
    )


def _spread(spread: Any) -> str:
    if spread.deviation is None:
        return units.percent(spread.mean)
    return f"{units.percent(spread.mean)} +- {units.percent(spread.deviation)}"
