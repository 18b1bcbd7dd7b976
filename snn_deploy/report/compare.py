"""The report of ``compare`` and the demo: several targets side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from snn_deploy import units
from snn_deploy.backends.verify import Verdict
from snn_deploy.budget.price import ranking
from snn_deploy.ir.network import Network
from snn_deploy.report.analyse import Outcome
from snn_deploy.report.early import early_items, early_line
from snn_deploy.report.layers import (
    cell,
    energy_chart,
    energy_table,
    layer_records,
    layer_tables,
    sources_section,
)
from snn_deploy.report.model import Bar, Chart, Item, Report, Section, Table, Text
from snn_deploy.report.network import network_facts, network_text
from snn_deploy.report.outcome import confusion_table, energy_line, outcome_data, outcome_text
from snn_deploy.report.tensors import neuron_table, tensor_table
from snn_deploy.report.verdict import verdict_data, verdict_line, verify_section


def rank_notes(
    outcomes: Sequence[Outcome],
) -> tuple[list[tuple[str, str]], list[dict[str, object]]]:
    """Return (pair of targets, whether and why they may be ranked by energy), and JSON values."""
    ranks = ranking([o.budget for o in outcomes])
    names = {o.budget.label: o.target.name for o in outcomes}
    notes = [
        (
            f"{names[r.first]}, {names[r.second]}",
            r.reason if r.ranked else f"not ranked: {r.reason}",
        )
        for r in ranks
    ]
    return notes, [r.as_dict() for r in ranks]


def compare_report(
    network: Network,
    outcomes: Sequence[Outcome],
    notes: Sequence[tuple[str, str]],
    verdicts: Mapping[str, Verdict] | None = None,
    title: str = "compare",
    rank_data: Sequence[Mapping[str, Any]] = (),
    left_out: Sequence[tuple[str, str]] = (),
) -> Report:
    """Return the report of ``compare`` and the demo.

    notes, rank_data: from ``rank_notes``. left_out: (target, why it did not run).
    """
    verdicts = verdicts or {}
    about = Text(lines=tuple((o.target.name, energy_line(o)) for o in outcomes), title="Energy")
    items: list[Item] = [about]
    if verdicts:
        lines = tuple((name, verdict_line(verdict)) for name, verdict in verdicts.items())
        equal = all(verdict.equal for verdict in verdicts.values())
        items.insert(0, Text(lines=lines, title="Verified", tone="good" if equal else "bad"))
    if network.readout.cutoff is not None:
        stops = tuple((o.target.name, early_line(o)) for o in outcomes)
        items.append(Text(lines=stops, title="Early stop"))
    if notes:
        items.append(Text(lines=tuple(notes), title="Ranking by energy", tone="unsure"))
    if left_out:
        items.append(Text(lines=tuple(left_out), title="Left out", tone="bad"))
    sections = [
        Section(title="", items=(network_text(network), _table(outcomes, verdicts))),
        Section(title="", items=tuple(items)),
        Section(title="", items=(_operations_chart(outcomes[0]),)),
        Section(title="", items=(_memory_chart(outcomes),), detail=True),
    ]
    for o in outcomes:
        verdict = verdicts.get(o.target.name)
        detail: list[Item] = [
            outcome_text(o),
            *layer_tables(o),
            energy_table(o),
            energy_chart(o),
            *early_items(o),
        ]
        if verdict is not None:
            detail += verify_section(o.program, verdict, "").items
        if o.program.qnet is not None:
            detail += [tensor_table(o.program.qnet.tensors), neuron_table(o.program.qnet)]
        if o.confusion is not None:
            detail.append(confusion_table(o.confusion))
        sections.append(Section(title=o.target.title, items=tuple(detail), detail=True))
    sections.append(sources_section(outcomes))
    return Report(
        command="compare",
        title=title,
        sections=tuple(sections),
        data={
            "model": network_facts(network),
            "targets": [outcome_data(o) for o in outcomes],
            "ranking": list(rank_data),
            "left_out": [{"target": name, "reason": why} for name, why in left_out],
            "verdicts": {k: verdict_data(v) for k, v in verdicts.items()},
        },
        rows=tuple(record for o in outcomes for record in layer_records(o)),
    )


def _table(outcomes: Sequence[Outcome], verdicts: Mapping[str, Verdict]) -> Table:
    """Return one row per target."""
    columns = ["target", "accuracy", "effective", "quantized", "memory", "latency", "energy"]
    if verdicts:
        columns.append("mismatches")
    rows = []
    for o in outcomes:
        quantized = o.events.total("synops_quantized") / o.samples
        row = [
            o.target.name,
            "-" if o.accuracy is None else units.percent(o.accuracy),
            cell(round(o.events.total("synops_effective") / o.samples)),
            cell(round(quantized)) if o.events.has("synops_quantized") else "-",
            units.bits(o.usage.bits()),
            _latency_cell(o),
            "n/a" if o.budget.total is None else units.energy(o.budget.total.nominal_pj),
        ]
        if verdicts:
            row.append(_verdict_cell(verdicts.get(o.target.name)))
        rows.append(tuple(row))
    bases = {(o.budget.basis, o.budget.kind) for o in outcomes}
    differ = "; energies have different bases, see below" if len(bases) > 1 else ""
    return Table(
        title="",
        columns=tuple(columns),
        rows=tuple(rows),
        align="l" + "r" * (len(columns) - 1),
        note=f"per sample; effective and quantized are synaptic operations{differ}",
    )


def _operations_chart(outcome: Outcome) -> Chart:
    """Return what sparsity saves, in steps."""
    bars = []
    for name in ("dense", "event", "effective"):
        value = outcome.events.total(f"synops_{name}") / outcome.samples
        bars.append(Bar(label=name, value=value, text=cell(round(value))))
    return Chart(
        title=f"Synaptic operations per sample on {outcome.target.name}",
        unit="operations",
        bars=tuple(bars),
        note="dense: all connections, every step; event: spikes x fan-out; effective: spikes x "
        "nonzero fan-out",
    )


def _memory_chart(outcomes: Sequence[Outcome]) -> Chart:
    """Return the memory of every target by what it holds."""
    bars = []
    for o in outcomes:
        kinds = dict.fromkeys(item.kind for item in o.usage.items)
        bars.append(
            Bar(
                label=o.target.name,
                value=float(o.usage.bits()),
                text=units.bits(o.usage.bits()),
                parts=tuple((str(kind), float(o.usage.bits(kind))) for kind in kinds),
            )
        )
    return Chart(title="Memory by what it holds", unit="bits", bars=tuple(bars))


def _latency_cell(outcome: Outcome) -> str:
    latency = outcome.latency
    if latency.seconds is not None:
        return units.seconds(latency.seconds)
    return f"{units.count(latency.steps)} steps"


def _verdict_cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return "-"
    compared = verdict.proof or verdict.lowering
    total = sum(compared.mismatches.values())
    return f"{total:,}" if verdict.proof else f"{total:,} (model)"
