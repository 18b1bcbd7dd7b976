"""The report of ``crosscheck``: one network in several frameworks, spike for spike."""

from __future__ import annotations

from collections.abc import Mapping
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


def _status(result: PeerResult) -> str:
    if not result.installed:
        return "not installed"
    if result.comparison is None:
        return "cannot"
    return "equal" if result.comparison.equal else "mismatch"


def _states(counts: Mapping[str, int]) -> int:
    """Return a count over all states: membranes, and synaptic currents where both show them."""
    return sum(n for variable, n in counts.items() if variable != "spikes")


def _row(result: PeerResult) -> dict[str, Any]:
    comparison = result.comparison
    return {
        "framework": result.name,
        "version": result.version or None,
        "status": _status(result),
        "spikes": None if comparison is None else result.spikes,
        "spike_values": None if comparison is None else comparison.values.get("spikes", 0),
        "mismatched_spikes": None if comparison is None else comparison.mismatches.get("spikes", 0),
        "state_values": None if comparison is None else _states(comparison.values),
        "mismatched_states": None if comparison is None else _states(comparison.mismatches),
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
            "margin": result.margin,
        },
        "reason": result.reason or None,
        "where": result.where or None,
        "hint": result.hint or None,
        "never_spiked": list(result.silent),
        "state_not_shown": list(result.hidden),
    }


def _compared(result: PeerResult) -> list[tuple[str, str]]:
    """Return the lines on a framework that ran."""
    comparison = result.comparison
    assert comparison is not None
    lines = [(result.name, f"{result.version}, states within {comparison.tolerance:g}")]
    if result.silent:
        lines.append(
            (result.name, f"never spiked, which proves little: {', '.join(result.silent)}")
        )
    if result.hidden:
        lines.append((result.name, f"shows another state: {', '.join(result.hidden)}"))
    if result.margin is not None:
        why = ": rounding decides there" if result.rounding else ""
        lines.append((result.name, f"first mismatch {result.margin:.1e} from the threshold{why}"))
    return lines


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
            rows.append((result.name, "-", "-", "-", _status(result), "-"))
            continue
        shown = _states(comparison.values) > 0
        states = f"{_states(comparison.mismatches):,}" if shown else "-"
        rows.append(
            (
                result.name,
                f"{result.spikes:,}",
                f"{comparison.mismatches.get('spikes', 0):,}",
                states,
                _first(comparison.first),
                f"{result.latency_steps}",
            )
        )
    items: list[Item] = [
        Table(
            title="",
            columns=("framework", "spikes", "mismatched", "states", "first mismatch", "latency"),
            rows=tuple(rows),
            align="lrrrlr",
            note="spikes: fired there, in all populations; mismatched: spikes that differ; "
            "states: membranes (and currents where it shows them) that differ by more than the "
            "tolerance; latency: declared steps beyond ours",
        )
    ]
    if ran:
        lines = [line for r in ran for line in _compared(r)]
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
