"""The report of ``run``: what one target made of a data set."""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_deploy import units
from snn_deploy.engine.early import step_statistics
from snn_deploy.report.analyse import Outcome
from snn_deploy.report.cores import cores_sections, work_section
from snn_deploy.report.early import early_data, early_sections
from snn_deploy.report.layers import energy_table, layer_records, layer_tables, sources_section
from snn_deploy.report.model import Report, Section, Table, Text
from snn_deploy.report.network import network_facts, network_text
from snn_deploy.report.tensors import neuron_data, quantization_section, tensor_data


def latency_line(outcome: Outcome) -> str:
    """Return latency in words."""
    latency = outcome.latency
    hops = f" ({latency.hop_steps} of them hops)" if latency.hop_steps else ""
    parts = [f"{units.count(latency.steps)} steps{hops}"]
    if latency.cycles is not None:
        parts.append(f"{units.count(round(latency.cycles))} cycles")
    if latency.seconds is not None:
        parts.append(f"{units.seconds(latency.seconds)} ({latency.kind})")
    else:
        parts.append(f"seconds n/a: {latency.unavailable_reason}")
    return ", ".join(parts)


def energy_line(outcome: Outcome) -> str:
    """Return the energy per sample in words, with kind and basis."""
    budget = outcome.budget
    if budget.total is None:
        return f"n/a: {budget.unavailable_reason}"
    if budget.kind is None:
        return "no priced work"
    basis = f"{budget.basis} prices" if budget.basis else "prices"
    whose = outcome.program.device.priced_as or budget.device
    return f"{budget.total} per sample ({budget.kind}; {basis} of {whose})"


def analogue_lines(outcome: Outcome) -> list[tuple[str, str]]:
    """Return how values of a directly coded input entered integers, and what that cost whom."""
    qnet = outcome.program.qnet
    if qnet is None:
        return []
    lines = []
    macs = units.count(round(outcome.events.total("macs") / outcome.samples))
    if qnet.injections:
        neurons = sum(qnet.network.population(name).size for name in qnet.injections)
        lines.append(
            (
                "host",
                f"adds up the input's currents ({macs} multiply-accumulates per sample, anew in "
                f"every step) and injects {neurons:,} of them per step as bias; not in the energy",
            )
        )
    for name, level in qnet.levels.items():
        lines.append(
            (
                "graded",
                f"spikes of {name} carry whole numbers, {level:g} for a value of 1; {macs} "
                "multiply-accumulates per sample on the target",
            )
        )
    return lines


def outcome_text(outcome: Outcome) -> Text:
    """Return accuracy, latency, energy and fit of one target."""
    device = outcome.program.device
    lines = [
        ("device", f"{device.name}: {device.title}"),
        ("ran on", outcome.place),
        ("samples", f"{outcome.samples:,} of {outcome.steps} steps"),
    ]
    if outcome.accuracy is not None:
        lines.append(("accuracy", units.percent(outcome.accuracy)))
    if outcome.program.qnet is not None and outcome.target.arithmetic() is None:
        lines.append(("note", "energy and memory are those of the float program"))
    lines += analogue_lines(outcome)
    lines += [
        ("latency", latency_line(outcome)),
        ("energy", energy_line(outcome)),
        ("memory", units.bits(outcome.usage.bits())),
    ]
    if outcome.usage.resources:
        lines.append(("fit", str(outcome.fit)))
    if outcome.overflows:
        counts = ", ".join(f"{n:,} {how}" for how, n in outcome.overflows.items())
        lines.append(("overflows", f"{counts} integer states in all samples"))
    return Text(lines=tuple(lines))


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
    qnet = outcome.program.qnet
    return {
        "target": outcome.target.name,
        "device": outcome.program.device.name,
        "ran_on": outcome.place,
        "overflows": dict(outcome.overflows) or None,
        "arithmetic": None if qnet is None else qnet.arithmetic.name,
        "samples": outcome.samples,
        "steps": outcome.steps,
        "steps_run": {
            **step_statistics(outcome.steps_run),
            "per_sample": outcome.steps_run.tolist(),
        },
        "early_stop": early_data(outcome),
        "accuracy": outcome.accuracy,
        "predictions": outcome.predictions.tolist(),
        "labels": None if outcome.labels is None else outcome.labels.tolist(),
        "confusion": None if outcome.confusion is None else outcome.confusion.tolist(),
        "events": [{"where": w, "event": e, "total": n} for (w, e), n in outcome.events.items()],
        "layers": layer_records(outcome),
        "cores": None
        if outcome.core_work is None
        else [{"core": core, **done} for core, done in sorted(outcome.core_work.items())],
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
        "quantization": None if qnet is None else tensor_data(qnet.tensors),
        "neurons": None if qnet is None else neuron_data(qnet),
    }


def run_report(outcome: Outcome) -> Report:
    """Return the report of ``run``."""
    network = outcome.program.real
    # One block, so that all labels line up.
    facts = Text(lines=network_text(network).lines + outcome_text(outcome).lines)
    sections = [
        Section(title="", items=(facts,)),
        Section(title="Per layer", items=layer_tables(outcome)),
        Section(title="Energy per sample", items=(energy_table(outcome),)),
        *early_sections(outcome),
    ]
    if outcome.usage.cores is not None:
        sections += cores_sections(outcome.usage.cores, outcome.program.device.name)
    if outcome.core_work is not None:
        sections.append(work_section(outcome.core_work, outcome.samples))
    quantization = quantization_section(outcome.program, detail=True)
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
