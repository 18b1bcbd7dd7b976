"""The report of ``verify``: both answers."""

from __future__ import annotations

from typing import Any

from snn_deploy import units
from snn_deploy.backends.base import Program
from snn_deploy.backends.verify import Fidelity, Stops, Verdict
from snn_deploy.engine.compare import Comparison
from snn_deploy.report.model import Item, Report, Section, Text
from snn_deploy.report.network import network_facts, network_text


def _comparison_lines(comparison: Comparison) -> list[tuple[str, str]]:
    exact = (
        "bit for bit" if comparison.tolerance == 0 else f"states within {comparison.tolerance:g}"
    )
    lines = [("compared", f"{comparison.judge} with our {comparison.ours}, {exact}")]
    for variable, n in comparison.values.items():
        lines.append((variable, f"{comparison.mismatches[variable]:,} mismatches in {n:,} values"))
    if comparison.note:
        lines.append(("note", comparison.note))
    if comparison.first is not None:
        lines.append(("first", str(comparison.first)))
    return lines


def verdict_line(verdict: Verdict) -> str:
    """Return the first answer in one line: how many values, of what, against whom."""
    compared = verdict.proof or verdict.lowering
    wrong, total = sum(compared.mismatches.values()), sum(compared.values.values())
    count = f"{wrong:,} mismatches in {total:,} values ({', '.join(compared.values)})"
    if verdict.proof is None:
        return f"model only: {count} between the {compared.judge} and our {compared.ours}"
    exact = "bit for bit" if compared.tolerance == 0 else f"within {compared.tolerance:g}"
    note = f"; {compared.note}" if compared.note else ""
    return f"{count} of {compared.samples:,} samples, against {compared.judge}, {exact}{note}"


def _comparison_data(comparison: Comparison | None) -> dict[str, Any] | None:
    if comparison is None:
        return None
    first = comparison.first
    return {
        "judge": comparison.judge,
        "ours": comparison.ours,
        "samples": comparison.samples,
        "steps": comparison.steps,
        "tolerance": comparison.tolerance,
        "values": dict(comparison.values),
        "mismatches": dict(comparison.mismatches),
        "note": comparison.note or None,
        "first": None
        if first is None
        else {
            "population": first.population,
            "variable": first.variable,
            "sample": first.sample,
            "step": first.step,
            "neuron": first.neuron,
            "judge": first.judge,
            "ours": first.ours,
        },
    }


def verify_section(program: Program, verdict: Verdict, title: str) -> Section:
    """Return both answers of verify."""
    items: list[Item] = []
    if verdict.proof is None:
        items.append(
            Text(
                title="(a) independent simulator",
                lines=(
                    ("judge", "none: model only, no independent simulator ran"),
                    *_comparison_lines(verdict.lowering),
                ),
                tone="unsure" if verdict.lowering.equal else "bad",
            )
        )
    else:
        items.append(
            Text(
                title="(a) independent simulator",
                lines=(
                    ("samples", f"{verdict.proof.samples:,} of {verdict.proof.steps} steps"),
                    *_comparison_lines(verdict.proof),
                ),
                tone="good" if verdict.proof.equal else "bad",
            )
        )
        if not verdict.lowering.equal:
            items.append(
                Text(
                    title="lowering",
                    lines=tuple(_comparison_lines(verdict.lowering)),
                    tone="bad",
                )
            )
    if verdict.stops is not None:
        compared = verdict.proof or verdict.lowering
        items.append(_stops_text(verdict.stops, compared.samples))
    if verdict.fidelity is not None:
        items.append(_fidelity_text(verdict.fidelity))
    return Section(title=title, items=tuple(items))


def _stops_text(stops: Stops, samples: int) -> Text:
    line = f"{stops.early:,} of {samples:,} samples stop before the last step"
    line += f"; {stops.different:,} stop elsewhere" if stops.different else ", the same everywhere"
    return Text(
        title="early stop (all steps are compared)",
        lines=(("stops", line),),
        tone="bad" if stops.different else "good",
    )


def _fidelity_text(fidelity: Fidelity) -> Text:
    lines = [
        ("spikes", f"{units.percent(fidelity.equal_spikes)} of all spikes are fired by both"),
        ("predictions", f"{units.percent(fidelity.equal_predictions)} equal"),
    ]
    if fidelity.accuracy_float is not None and fidelity.accuracy_integer is not None:
        lines.append(
            (
                "accuracy",
                f"{units.percent(fidelity.accuracy_float)} in float, "
                f"{units.percent(fidelity.accuracy_integer)} in integers",
            )
        )
    return Text(title="(b) integers against the trained network (measured)", lines=tuple(lines))


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON values."""
    fidelity = verdict.fidelity
    return {
        "equal": verdict.equal,
        "proof": _comparison_data(verdict.proof),
        "lowering": _comparison_data(verdict.lowering),
        "stops": None
        if verdict.stops is None
        else {"early": verdict.stops.early, "different": verdict.stops.different},
        "fidelity": None
        if fidelity is None
        else {
            "equal_spikes": fidelity.equal_spikes,
            "equal_predictions": fidelity.equal_predictions,
            "accuracy_float": fidelity.accuracy_float,
            "accuracy_integer": fidelity.accuracy_integer,
        },
    }


def verify_report(program: Program, verdict: Verdict, title: str) -> Report:
    """Return the report of ``verify``."""
    network = program.real
    compared = verdict.proof or verdict.lowering
    total = sum(compared.mismatches.values())
    kind = "" if verdict.proof else " (model only)"
    return Report(
        command="verify",
        title=f"verify {title}: {total:,} mismatches{kind}",
        sections=(
            Section(title="", items=(network_text(network),)),
            verify_section(program, verdict, ""),
        ),
        data={
            "model": network_facts(network),
            "target": program.target,
            "verdict": verdict_data(verdict),
        },
        rows=tuple(
            {"variable": v, "values": n, "mismatches": compared.mismatches[v]}
            for v, n in compared.values.items()
        ),
    )
