"""The report of ``calibrate-cutoff``: what each epsilon gains and loses, and the thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snn_deploy import units
from snn_deploy.engine.early import step_statistics
from snn_deploy.io.values import cutoff_json
from snn_deploy.ir.network import Network
from snn_deploy.passes.cutoff import Calibration, Effect
from snn_deploy.report.model import Report, Section, Table, Text
from snn_deploy.report.network import network_facts, network_text


def effect_data(effect: Effect) -> dict[str, Any]:
    """Return what a table does on samples, as JSON values."""
    return {
        "samples": len(effect.steps),
        "total_steps": effect.total_steps,
        "steps": step_statistics(effect.steps),
        "accuracy": effect.accuracy,
        "accuracy_stopped": effect.accuracy_stopped,
    }


def cutoff_report(
    network: Network,
    calibrations: Sequence[Calibration],
    evaluated: Sequence[Effect],
    *,
    place: str,
    out: Path | None,
) -> Report:
    """Return the report of one or more calibrations of ``network``.

    evaluated: of each, what it does on samples that it was not taken from; or empty. place: what
    the outputs were computed by. out: the file written, if any.
    """
    first = calibrations[0].effect
    facts = Text(
        lines=(
            ("samples", f"{len(first.steps):,} of {first.total_steps} steps, with {place}"),
            ("without", f"{units.percent(first.accuracy)} right after all steps"),
            *(
                ("evaluated", f"{len(e.steps):,} other samples, {units.percent(e.accuracy)} right")
                for e in evaluated[:1]
            ),
        )
    )
    sections = [
        Section(title="", items=(network_text(network),)),
        Section(title="Calibration", items=(facts, _trade_off(calibrations, evaluated))),
    ]
    if len(calibrations) == 1:
        sections.append(Section(title="Thresholds", items=(_thresholds(calibrations[0]),)))
    written = "nothing: a file is written for one --epsilon and -o" if out is None else str(out)
    sections.append(Section(title="Written", items=(Text(lines=(("file", written),)),)))
    found = [
        {
            "epsilon": c.epsilon,
            "cutoff": cutoff_json(c.table),
            "calibration": effect_data(c.effect),
            "evaluation": effect_data(evaluated[i]) if evaluated else None,
        }
        for i, c in enumerate(calibrations)
    ]
    return Report(
        command="calibrate-cutoff",
        title=f"calibrate-cutoff {network.source.path}",
        sections=tuple(sections),
        data={
            "model": network_facts(network),
            "computed_by": place,
            "calibrations": found,
            "file": None if out is None else str(out),
        },
        rows=tuple(_records(calibrations, evaluated)),
    )


def _pairs(
    calibrations: Sequence[Calibration], evaluated: Sequence[Effect]
) -> list[tuple[float, str, Effect]]:
    """Return (epsilon, which samples, effect) of every row."""
    rows = []
    for i, calibration in enumerate(calibrations):
        rows.append((calibration.epsilon, "calibration", calibration.effect))
        if evaluated:
            rows.append((calibration.epsilon, "evaluation", evaluated[i]))
    return rows


def _records(
    calibrations: Sequence[Calibration], evaluated: Sequence[Effect]
) -> list[dict[str, Any]]:
    records = []
    for epsilon, samples, effect in _pairs(calibrations, evaluated):
        data = effect_data(effect)
        steps = {f"{name}_steps": value for name, value in data.pop("steps").items()}
        records.append({"epsilon": epsilon, "on": samples, **data, **steps})
    return records


def _trade_off(calibrations: Sequence[Calibration], evaluated: Sequence[Effect]) -> Table:
    rows = []
    for epsilon, samples, effect in _pairs(calibrations, evaluated):
        steps = step_statistics(effect.steps)
        lost = 100 * (effect.accuracy - effect.accuracy_stopped)
        rows.append(
            (
                f"{epsilon:g}",
                samples,
                *(units.count(steps[name]) for name in ("mean", "median", "p95")),
                f"{effect.total_steps / steps['mean']:.2f}x",
                units.percent(effect.accuracy_stopped),
                f"{lost:.2f}",
            )
        )
    note = "steps per sample; fewer: all steps / mean; lost: points of accuracy against all steps"
    if not evaluated:
        note += "; measured on the samples that the thresholds were taken from"
    return Table(
        title="",
        columns=("epsilon", "samples", "mean", "median", "95 %", "fewer", "accuracy", "lost"),
        rows=tuple(rows),
        align="rlrrrrrr",
        note=note,
    )


def _thresholds(calibration: Calibration) -> Table:
    effect = calibration.effect
    rows = [
        (
            str(t),
            "never stops" if math.isinf(threshold) else f"{threshold:.4g}",
            units.percent(float(np.mean(effect.steps <= t))),
        )
        for t, threshold in enumerate(calibration.table, start=1)
    ]
    return Table(
        title="",
        columns=("step", "threshold", "stopped"),
        rows=tuple(rows),
        align="rrr",
        note="a sample stops where its gap, in spikes, is above the threshold, and after the last "
        "step; stopped: share of the calibration samples by then",
    )
