"""Early stop in reports: steps taken, what that saves, and what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_deploy import units
from snn_deploy.engine.early import PLACE, step_statistics
from snn_deploy.report.analyse import Outcome
from snn_deploy.report.layers import cell
from snn_deploy.report.model import Item, Section, Table, Text

_COMPARED = {
    "synops_effective": "effective synops",
    "synops_quantized": "quantized synops",
    "macs": "MACs",
    "neuron_updates": "neuron updates",
    "spikes": "spikes",
    "packets": "packets",
    "hops": "hops",
}


def _savings(outcome: Outcome) -> list[tuple[str, str, float, float]]:
    """Return (key, label, in all steps, until the stop) per sample of what both runs know."""
    uncut = outcome.uncut
    assert uncut is not None
    rows = []
    for key, label in _COMPARED.items():
        if before := uncut.events.total(key):
            after = outcome.events.total(key)
            rows.append((key, label, before / outcome.samples, after / outcome.samples))
    whole, cut = uncut.latency, outcome.latency
    rows.append(("latency_steps", "steps of latency", whole.steps, cut.steps))
    if whole.cycles is not None and cut.cycles is not None:
        rows.append(("cycles", "cycles", whole.cycles, cut.cycles))
    energies = [b.total.nominal_pj for b in (uncut.budget, outcome.budget) if b.total is not None]
    if len(energies) == 2 and energies[0] > 0:
        rows.append(("energy_pj", "energy", energies[0], energies[1]))
    return rows


def early_data(outcome: Outcome) -> dict[str, Any] | None:
    """Return an early stop as JSON values; None where the readout has no cutoff.

    savings: per sample, by what is saved. in_flight_steps: as in analyse.Uncut.
    """
    if outcome.program.real.readout.cutoff is None:
        return None
    if outcome.uncut is None:
        return {"honoured": False}
    return {
        "honoured": True,
        "stopped_early": int(np.sum(outcome.steps_run < outcome.steps)),
        "in_flight_steps": dict(outcome.uncut.in_flight),
        "host_ops": outcome.events[PLACE, "host_ops"],
        "savings": {
            key: {"all_steps": before, "stopped": after, "saved": 1 - after / before}
            for key, _, before, after in _savings(outcome)
        },
    }


def early_line(outcome: Outcome) -> str:
    """Return in words how many steps the samples take."""
    if outcome.uncut is None:
        return "not on this target: all steps run and count, predictions are read at the stop"
    steps = step_statistics(outcome.steps_run)
    stopped = int(np.sum(outcome.steps_run < outcome.steps))
    return (
        f"{units.count(steps['mean'])} of {outcome.steps} steps (median "
        f"{units.count(steps['median'])}, 95 % within {units.count(steps['p95'])}); "
        f"{stopped:,} of {outcome.samples:,} samples stop early"
    )


def early_items(outcome: Outcome) -> tuple[Item, ...]:
    """Return what an early stop saves and costs; nothing where the readout has no cutoff."""
    if outcome.program.real.readout.cutoff is None:
        return ()
    if outcome.uncut is None:
        return (Text(lines=(("stop", early_line(outcome)),), tone="unsure"),)
    flying = ", ".join(f"{name} {steps:+.3g}" for name, steps in outcome.uncut.in_flight.items())
    host = units.count(outcome.events[PLACE, "host_ops"] / outcome.samples)
    facts = Text(
        lines=(
            ("stop", early_line(outcome)),
            (
                "in flight",
                f"{flying} steps when the stop takes effect, counted" if flying else "none",
            ),
            ("host", f"{host} reads and comparisons per sample (host_ops), not in the energy"),
        )
    )
    rows = []
    for key, label, before, after in _savings(outcome):
        shown = [units.energy(v) if key == "energy_pj" else cell(v) for v in (before, after)]
        rows.append((label, *shown, units.percent(1 - after / before)))
    table = Table(
        title="",
        columns=("per sample", "all steps", "until the stop", "saved"),
        rows=tuple(rows),
        align="lrrr",
    )
    return facts, table


def early_sections(outcome: Outcome) -> tuple[Section, ...]:
    """Return the section of an early stop, or none."""
    items = early_items(outcome)
    return (Section(title="Early stop", items=items),) if items else ()
