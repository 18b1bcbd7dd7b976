"""Build Reports from outcomes, verdicts and findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from snn_deploy import units
from snn_deploy.backends.base import Program
from snn_deploy.backends.verify import Comparison, Fidelity, Verdict
from snn_deploy.budget.findings import Fit
from snn_deploy.ir.events import Events
from snn_deploy.ir.network import Network
from snn_deploy.ir.quantized import TensorReport
from snn_deploy.ir.synapses import learned_nonzeros, learned_size
from snn_deploy.report.analyse import Outcome
from snn_deploy.report.model import Chart, Bar, Item, Report, Section, Table, Text

_SYNOPS = ("synops_dense", "synops_event", "synops_effective", "synops_quantized")


def weights_of_network(network: Network) -> tuple[int, int]:
    """Return (nonzero, all) learned weights."""
    synapses = [s for p in network.projections for s in p.synapses]
    return sum(map(learned_nonzeros, synapses)), sum(map(learned_size, synapses))


def network_facts(network: Network) -> dict[str, Any]:
    """Return what identifies a network, as JSON values."""
    nonzeros, size = weights_of_network(network)
    return {
        "path": network.source.path,
        "sha256": network.source.sha256,
        "format": network.source.format,
        "dt_s": network.dt_s,
        "coding": network.coding.kind,
        "steps": network.coding.steps,
        "readout": network.readout.kind,
        "neurons": sum(p.size for p in network.computing()),
        "weights": size,
        "nonzeros": nonzeros,
        "sparsity": 1 - nonzeros / size if size else 0.0,
    }


def network_text(network: Network) -> Text:
    """Return the network in three lines."""
    facts = network_facts(network)
    steps = f", {facts['steps']} steps" if facts["steps"] else ""
    return Text(
        lines=(
            ("model", f"{facts['path']} ({facts['format']})"),
            (
                "network",
                f"{facts['neurons']:,} neurons, {facts['nonzeros']:,} of {facts['weights']:,} "
                f"weights nonzero ({units.percent(facts['sparsity'])} sparse)",
            ),
            (
                "input",
                f"{facts['coding']} coding{steps} of {units.si(network.dt_s, 's')}, "
                f"{facts['readout']} readout",
            ),
        )
    )


def layers(network: Network) -> list[tuple[str, tuple[str, ...]]]:
    """Return (label, places counted there) per population, in order of computation."""
    rows = []
    for population in network.computing():
        fan_in = tuple(p.name for p in network.into(population.name))
        label = f"{'+'.join(fan_in)} > {population.name}" if fan_in else population.name
        rows.append((label, (*fan_in, population.name)))
    return rows


def _per_layer(events: Events, places: Sequence[str], name: str) -> int | None:
    found = [events[p, name] for p in places if (p, name) in events]
    return sum(found) if found else None


def layer_records(outcome: Outcome) -> list[dict[str, Any]]:
    """Return one record of raw values per layer, per sample; the main table of run and compare."""
    network, records = outcome.program.real, []
    memory: dict[str, int] = {}
    for item in outcome.usage.items:
        memory[item.where] = memory.get(item.where, 0) + item.bits
    for label, places in layers(network):
        record: dict[str, Any] = {"target": outcome.target.name, "layer": label}
        for name in (*_SYNOPS, "synops_helper", "macs", "neuron_updates", "spikes", "cycles"):
            count = _per_layer(outcome.events, places, name)
            record[name] = None if count is None else count / outcome.samples
        record["memory_bits"] = sum(memory.get(p, 0) for p in places)
        energies = [outcome.budget.places.get(p) for p in places if p in outcome.budget.places]
        known = [e.nominal_pj for e in energies if e is not None]
        record["energy_pj"] = sum(known) if len(known) == len(energies) and energies else None
        records.append(record)
    return records


def _cell(value: float | None) -> str:
    return "-" if value is None else units.count(value)


def layer_table(outcome: Outcome) -> Table:
    """Return synaptic operations, updates, spikes and memory per layer and sample."""
    records = layer_records(outcome)
    names = {
        "synops_dense": "dense",
        "synops_event": "event",
        "synops_effective": "effective",
        "synops_quantized": "quantized",
        "synops_helper": "helper",
        "macs": "MACs",
        "neuron_updates": "updates",
        "spikes": "spikes",
    }
    shown = [k for k in names if any(r[k] for r in records) or k in ("synops_effective", "spikes")]
    rows = []
    for record in records:
        cells = [_cell(record[k]) for k in shown]
        rows.append((record["layer"], *cells, units.bits(record["memory_bits"])))
    totals = [sum(r[k] or 0 for r in records) for k in shown]
    rows.append(("total", *map(_cell, totals), units.bits(outcome.usage.bits())))
    return Table(
        title="",
        columns=("layer", *(names[k] for k in shown), "memory"),
        rows=tuple(rows),
        align="l" + "r" * (len(shown) + 1),
        total=True,
        note="per sample; dense, event, effective, quantized and helper are synaptic operations",
    )


def latency_line(outcome: Outcome) -> str:
    """Return latency in words."""
    latency = outcome.latency
    hops = f" ({latency.hop_steps} of them hops)" if latency.hop_steps else ""
    parts = [f"{latency.steps} steps{hops}"]
    if latency.cycles is not None:
        parts.append(f"{units.count(latency.cycles)} cycles")
    if latency.seconds is not None:
        parts.append(units.seconds(latency.seconds))
    else:
        parts.append(f"seconds n/a: {latency.unavailable_reason}")
    return ", ".join(parts)


def energy_line(outcome: Outcome) -> str:
    """Return the energy per sample in words, with kind and basis."""
    budget = outcome.budget
    if budget.total is None:
        return f"n/a: {budget.unavailable_reason}"
    return f"{budget.total} per sample ({budget.kind}; {budget.basis or 'no'} prices of {budget.title})"


def outcome_text(outcome: Outcome) -> Text:
    """Return accuracy, latency, energy and fit of one target."""
    lines = [
        ("device", f"{outcome.program.device.title}"),
        ("samples", f"{outcome.samples:,} of {outcome.steps} steps"),
    ]
    if outcome.accuracy is not None:
        lines.append(("accuracy", units.percent(outcome.accuracy)))
    lines += [
        ("latency", latency_line(outcome)),
        ("energy", energy_line(outcome)),
        ("memory", units.bits(outcome.usage.bits())),
    ]
    if outcome.usage.resources:
        lines.append(("fit", str(outcome.fit)))
    return Text(lines=tuple(lines))


def sources_section(outcomes: Sequence[Outcome]) -> Section:
    """Return where prices come from and what totals leave out."""
    items: list[Item] = []
    for outcome in outcomes:
        budget = outcome.budget
        lines = [("source", s) for s in budget.sources] + [("excludes", e) for e in budget.excludes]
        lines += [("not counted", n) for n in budget.not_counted if n not in ("macs",)]
        items.append(Text(title=budget.label, lines=tuple(lines)))
    return Section(title="Sources and what is left out", items=tuple(items), detail=True)


def energy_table(outcome: Outcome) -> Table:
    """Return every charged event with its count, price and energy per sample."""
    by_event: dict[str, list[float]] = {}
    for line in outcome.budget.lines:
        entry = by_event.setdefault(line.event, [0.0, 0.0])
        entry[0] += line.count_per_sample
        entry[1] += 0.0 if line.per_sample is None else line.per_sample.nominal_pj
    rows = []
    for event, (n, pj) in by_event.items():
        found = outcome.program.device.prices.get(event)
        each = "no price" if found is None else f"{found.nominal_pj:.4g} pJ"
        kind = "" if found is None else found.kind
        rows.append((event, _cell(n), each, units.energy(pj) if found else "n/a", kind))
    return Table(
        title="",
        columns=("event", "per sample", "price each", "energy", "kind"),
        rows=tuple(rows),
        align="lrrrl",
    )


def tensor_table(tensors: Sequence[TensorReport]) -> Table:
    """Return what quantization did to each layer."""
    return Table(
        title="",
        columns=("layer", "bits", "scale", "max |w|", "max error", "saturated", "nonzeros"),
        rows=tuple(
            (
                t.projection,
                str(t.bits),
                f"{t.scale:.4g}",
                f"{t.max_abs:.3g}",
                f"{t.max_error:.2g}",
                str(t.saturated),
                f"{t.nonzeros_after:,} of {t.nonzeros_before:,}",
            )
            for t in tensors
        ),
        align="lrrrrrr",
        note="errors in the weights' own unit; nonzeros after rounding, of those before",
    )


def tensor_data(tensors: Sequence[TensorReport]) -> list[dict[str, Any]]:
    """Return the same for JSON."""
    return [
        {
            "layer": t.projection,
            "bits": t.bits,
            "scale": t.scale,
            "max_abs": t.max_abs,
            "max_error": t.max_error,
            "rms_error": t.rms_error,
            "saturated": t.saturated,
            "nonzeros_before": t.nonzeros_before,
            "nonzeros_after": t.nonzeros_after,
            "size": t.size,
        }
        for t in tensors
    ]


def quantization_section(program: Program, *, detail: bool = False) -> Section | None:
    """Return the quantization table, or None in float."""
    if program.qnet is None:
        return None
    return Section(
        title=f"Weights in {program.qnet.arithmetic.name} integers",
        items=(tensor_table(program.qnet.tensors),),
        detail=detail,
    )


def confusion_table(confusion: np.ndarray[Any, Any]) -> Table:
    """Return true classes as rows, predicted ones as columns."""
    classes = len(confusion)
    return Table(
        title="",
        columns=("true", *map(str, range(classes))),
        rows=tuple(
            (str(i), *("." if n == 0 else str(n) for n in row)) for i, row in enumerate(confusion)
        ),
        align="r" * (classes + 1),
        note="rows: true class; columns: predicted",
    )


def outcome_data(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as JSON values."""
    latency = outcome.latency
    return {
        "target": outcome.target.name,
        "device": outcome.program.device.name,
        "samples": outcome.samples,
        "steps": outcome.steps,
        "accuracy": outcome.accuracy,
        "predictions": outcome.predictions.tolist(),
        "labels": None if outcome.labels is None else outcome.labels.tolist(),
        "confusion": None if outcome.confusion is None else outcome.confusion.tolist(),
        "events": [
            {"where": w, "event": e, "total": n} for (w, e), n in outcome.events.items()
        ],
        "layers": layer_records(outcome),
        "latency": {
            "steps": latency.steps,
            "hop_steps": latency.hop_steps,
            "cycles": latency.cycles,
            "seconds": latency.seconds,
            "kind": latency.kind,
            "unavailable_reason": latency.unavailable_reason or None,
        },
        "energy": outcome.budget.as_dict(),
        "memory": [
            {"where": i.where, "kind": i.kind, "bits": i.bits, "region": i.region}
            for i in outcome.usage.items
        ],
        "fit": outcome.fit.as_dict(),
        "quantization": (
            None
            if outcome.program.qnet is None
            else tensor_data(outcome.program.qnet.tensors)
        ),
    }


def run_report(outcome: Outcome) -> Report:
    """Return the report of ``run``."""
    network = outcome.program.real
    quantization = quantization_section(outcome.program)
    sections = [
        Section(title="", items=(network_text(network), outcome_text(outcome))),
        Section(title="Per layer", items=(layer_table(outcome),)),
        Section(title="Energy per sample", items=(energy_table(outcome),)),
    ]
    if quantization is not None:
        sections.append(quantization)
    if outcome.confusion is not None:
        sections.append(
            Section(title="Confusion", items=(confusion_table(outcome.confusion),), detail=True)
        )
    sections.append(sources_section([outcome]))
    return Report(
        command="run",
        title=f"run on {outcome.target.title}",
        sections=tuple(sections),
        data={"model": network_facts(network), "result": outcome_data(outcome)},
        rows=tuple(layer_records(outcome)),
    )


def _comparison_lines(comparison: Comparison) -> list[tuple[str, str]]:
    exact = "bit for bit" if comparison.tolerance == 0 else f"states within {comparison.tolerance:g}"
    lines = [("compared", f"{comparison.judge} with our {comparison.ours}, {exact}")]
    for variable, n in comparison.values.items():
        lines.append((variable, f"{comparison.mismatches[variable]:,} mismatches in {n:,} values"))
    if comparison.first is not None:
        lines.append(("first", str(comparison.first)))
    return lines


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
                    ("", "model only: no independent simulator ran (RTL not run)"),
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
    if verdict.fidelity is not None:
        items.append(_fidelity_text(verdict.fidelity))
    return Section(title=title, items=tuple(items))


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


def fit_report(network: Network, fits: Mapping[str, tuple[str, Fit]]) -> Report:
    """Return the report of ``fit``: device name -> (title, verdict)."""
    rows, records = [], []
    items: list[Item] = []
    for name, (title, fit) in fits.items():
        answer = {True: "fits", False: "does not fit", None: "not decided"}[fit.fits]
        tight = fit.tightest
        share = "-" if tight is None or tight.share is None else units.percent(tight.share)
        what = "-" if tight is None else f"{tight.name}, {tight.where}"
        rows.append((name, answer, share, what))
        records += [{"device": name, "fits": fit.fits, **f.as_dict()} for f in fit.findings]
        for finding in fit.exceeds[:3]:
            items.append(
                Text(
                    title=f"{name}: {title}",
                    lines=(("exceeds", str(finding)), ("hint", finding.hint or "")),
                    tone="bad",
                )
            )
        unknown = list(dict.fromkeys(f"{f.name}: {f.reason}" for f in fit.unknown))
        if unknown and not fit.exceeds:
            items.append(
                Text(
                    title=f"{name}: {title}",
                    lines=tuple(("unknown", u) for u in unknown[:4]),
                    tone="unsure",
                )
            )
    table = Table(
        title="",
        columns=("device", "verdict", "fullest", "of what"),
        rows=tuple(rows),
        align="llrl",
    )
    return Report(
        command="fit",
        title="fit",
        sections=(
            Section(title="", items=(network_text(network), table)),
            Section(title="Why", items=tuple(items)) if items else Section(title="", items=()),
        ),
        data={
            "model": network_facts(network),
            "devices": {name: fit.as_dict() for name, (_, fit) in fits.items()},
        },
        rows=tuple(records),
    )


def compare_report(
    network: Network,
    outcomes: Sequence[Outcome],
    notes: Sequence[tuple[str, str]],
    verdicts: Mapping[str, Verdict] | None = None,
    title: str = "compare",
    rank_data: Sequence[Mapping[str, Any]] = (),
) -> Report:
    """Return the report of ``compare`` and the demo. notes: (pair, why it is ranked or not)."""
    rows = []
    for o in outcomes:
        verdict = (verdicts or {}).get(o.target.name)
        row = [
            o.target.name,
            "-" if o.accuracy is None else units.percent(o.accuracy),
            _cell(o.events.total("synops_effective") / o.samples),
            _cell(o.events.total("synops_quantized") / o.samples)
            if o.events.has("synops_quantized")
            else "-",
            units.bits(o.usage.bits()),
            _latency_cell(o),
            "n/a" if o.budget.total is None else units.energy(o.budget.total.nominal_pj),
        ]
        if verdicts is not None:
            row.append(_verdict_cell(verdict))
        rows.append(tuple(row))
    columns = ["target", "accuracy", "effective", "quantized", "memory", "latency", "energy"]
    if verdicts is not None:
        columns.append("mismatches")
    table = Table(
        title="",
        columns=tuple(columns),
        rows=tuple(rows),
        align="l" + "r" * (len(columns) - 1),
        note="per sample; effective and quantized are synaptic operations; energies have "
        "different bases, see below",
    )
    about = Text(
        lines=tuple((o.target.name, energy_line(o)) for o in outcomes), title="Energy"
    )
    ranks = Text(lines=tuple(notes), title="Ranking by energy", tone="unsure")
    charts = (
        Chart(
            title="Synaptic operations per sample",
            unit="operations",
            bars=tuple(
                Bar(
                    label=label,
                    value=outcomes[0].events.total(event) / outcomes[0].samples,
                    text=_cell(outcomes[0].events.total(event) / outcomes[0].samples),
                )
                for label, event in (
                    ("dense", "synops_dense"),
                    ("event", "synops_event"),
                    ("effective", "synops_effective"),
                )
            ),
            note="dense: all connections, every step; event: spikes x fan-out; effective: spikes "
            "x nonzero fan-out",
        ),
    )
    sections = [
        Section(title="", items=(network_text(network), table)),
        Section(title="", items=(about, ranks) if notes else (about,)),
        Section(title="", items=charts),
    ]
    for o in outcomes:
        verdict = (verdicts or {}).get(o.target.name)
        detail: list[Item] = [outcome_text(o), layer_table(o), energy_table(o)]
        if verdict is not None:
            detail += verify_section(o.program, verdict, "").items
        if o.program.qnet is not None:
            detail.append(tensor_table(o.program.qnet.tensors))
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
            "verdicts": {k: verdict_data(v) for k, v in (verdicts or {}).items()},
        },
        rows=tuple(record for o in outcomes for record in layer_records(o)),
    )


def _latency_cell(outcome: Outcome) -> str:
    latency = outcome.latency
    if latency.seconds is not None:
        return units.seconds(latency.seconds)
    return f"{latency.steps} steps"


def _verdict_cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return "-"
    compared = verdict.proof or verdict.lowering
    total = sum(compared.mismatches.values())
    return f"{total:,}" if verdict.proof else f"{total:,} (model)"
