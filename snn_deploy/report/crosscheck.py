"""The report of ``crosscheck``: one network in several frameworks, spike for spike."""

from __future__ import annotations

from typing import Any

from snn_deploy.bridges.crosscheck import PeerResult
from snn_deploy.engine.compare import Mismatch
from snn_deploy.ir.network import Network
from snn_deploy.report.model import Item, Report, Section, Table, Text
from snn_deploy.report.network import network_facts, network_text


def _first(first: Mismatch | None) -> str:
    if first is None:
        return "-"
    return f"{first.population}, neuron {first.neuron}, step {first.step} ({first.variable})"


def _row(result: PeerResult) -> dict[str, Any]:
    comparison = result.comparison
    return {
        "framework": result.name,
        "version": result.version or None,
        "status": "not installed"
        if not result.installed
        else "cannot"
        if comparison is None
        else "equal"
        if comparison.equal
        else "mismatch",
        "spikes": None if comparison is None else result.spikes,
        "spike_values": None if comparison is None else comparison.values.get("spikes", 0),
        "mismatched_spikes": None if comparison is None else comparison.mismatches.get("spikes", 0),
        "membrane_values": None if comparison is None else comparison.values.get("v", 0),
        "mismatched_membranes": None if comparison is None else comparison.mismatches.get("v", 0),
        "tolerance": None if comparison is None else comparison.tolerance,
        "latency_steps": None if comparison is None else result.latency_steps,
        "first": None
        if comparison is None or comparison.first is None
        else {
            "population": comparison.first.population,
            "variable": comparison.first.variable,
            "sample": comparison.first.sample,
            "step": comparison.first.step,
            "neuron": comparison.first.neuron,
            "theirs": comparison.first.judge,
            "ours": comparison.first.ours,
        },
        "reason": result.reason or None,
        "where": result.where or None,
        "hint": result.hint or None,
        "note": (comparison.note or None) if comparison else None,
    }


def crosscheck_report(
    network: Network, results: tuple[PeerResult, ...], samples: int, steps: int
) -> Report:
    """Return what each framework made of the network, as a table and in data."""
    ran = [r for r in results if r.comparison is not None]
    wrong = sum(sum(r.comparison.mismatches.values()) for r in ran if r.comparison is not None)
    rows = []
    for result in results:
        comparison = result.comparison
        if comparison is None:
            rows.append((result.name, "-", "-", "-", "-", "-"))
            continue
        membranes = f"{comparison.mismatches['v']:,}" if "v" in comparison.values else "-"
        rows.append(
            (
                result.name,
                f"{result.spikes:,}",
                f"{comparison.mismatches.get('spikes', 0):,}",
                membranes,
                _first(comparison.first),
                f"{result.latency_steps}",
            )
        )
    items: list[Item] = [
        Table(
            title="",
            columns=("framework", "spikes", "mismatched", "membranes", "first mismatch", "latency"),
            rows=tuple(rows),
            align="lrrrlr",
            note="spikes: fired there, in all populations; mismatched: spikes that differ; "
            "membranes: v that differ by more than the tolerance, - where it shows another "
            "quantity; latency: declared steps beyond ours",
        )
    ]
    if ran:
        lines = [
            (r.name, f"{r.version}, membranes within {r.comparison.tolerance:g}")
            for r in ran
            if r.comparison is not None
        ]
        tone: Any = "bad" if wrong else "good"
        items.append(Text(title="Compared with our float engine", lines=tuple(lines), tone=tone))
    cannot = [r for r in results if r.installed and r.comparison is None]
    if cannot:
        lines = []
        for r in cannot:
            lines.append((r.name, f"{r.reason} ({r.where})" if r.where else r.reason))
        items.append(Text(title="Cannot express this network", lines=tuple(lines), tone="unsure"))
    missing = [r for r in results if not r.installed]
    if missing:
        items.append(
            Text(
                title="Not installed",
                lines=tuple((r.name, r.hint) for r in missing),
                tone="unsure",
            )
        )
    frameworks = f"{len(ran)} of {len(results)} frameworks"
    title = f"crosscheck: {wrong:,} mismatches in {frameworks}"
    data = [_row(r) for r in results]
    return Report(
        command="crosscheck",
        title=title,
        sections=(
            Section(
                title="",
                items=(
                    network_text(network),
                    Text(lines=(("samples", f"{samples:,} of {steps} steps"),)),
                ),
            ),
            Section(title="Spike for spike", items=tuple(items)),
        ),
        data={
            "network": network_facts(network),
            "samples": samples,
            "steps": steps,
            "mismatches": wrong,
            "frameworks": data,
        },
        rows=tuple({k: v for k, v in row.items() if k != "first"} for row in data),
    )
