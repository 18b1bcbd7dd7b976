"""What quantization did to each layer's weights and each population's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from snn_deploy import units
from snn_deploy.backends.base import Program
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Population, per_neuron
from snn_deploy.ir.quantized import QNetwork, TensorReport
from snn_deploy.passes.reach import membrane_gain
from snn_deploy.report.model import Section, Table


def tensor_table(tensors: Sequence[TensorReport]) -> Table:
    """Return what quantization did to each layer."""
    return Table(
        title="",
        columns=(
            "layer",
            "bits",
            "scale",
            "max |w|",
            "max error",
            "rms error",
            "saturated",
            "nonzeros",
        ),
        rows=tuple(
            (
                t.projection,
                str(t.bits),
                f"{t.scale:.4g}",
                f"{t.max_abs:.3g}",
                f"{t.max_error:.2g}",
                f"{t.rms_error:.2g}",
                str(t.saturated),
                f"{t.nonzeros_after:,} of {t.nonzeros_before:,}",
            )
            for t in tensors
        ),
        align="lrrrrrrr",
        note="errors in the weights' own unit; nonzeros after rounding, of those before",
    )


def tensor_data(tensors: Sequence[TensorReport]) -> list[dict[str, Any]]:
    """Return the same for JSON."""
    return [
        {
            "layer": t.projection,
            "bits": t.bits,
            "scale": t.scale,
            "exponent": t.exponent,
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


def neuron_data(qnet: QNetwork) -> list[dict[str, Any]]:
    """Return what rounding did to each population's states, v and, where there is one, u.

    tau_s: the exact time constant, tau_integer_s: the one that the integers have, None without a
    leak, both of the neuron that differs most. threshold_error: the largest share of a threshold
    that rounding down took away, None for a population that never spikes.
    """
    records: list[dict[str, Any]] = []
    for population in qnet.computing():
        q, step = qnet.populations[population.name], qnet.real.step_of(population.name)
        states = [("v", step.keep_v, q.decay_v)]
        if step.has_current:
            states.append(("u", step.keep_u, q.decay_u))
        for state, keep, code in states:
            exact = 1.0 - per_neuron(keep, population.shape)
            rounded = per_neuron(code, population.shape) / (1 << qnet.arithmetic.decay_bits)
            worst = int(np.abs(rounded - exact).argmax())
            records.append(
                {
                    "population": population.name,
                    "state": state,
                    "tau_s": _tau(qnet, exact[worst]),
                    "tau_integer_s": _tau(qnet, rounded[worst]),
                    "threshold_error": _threshold_error(qnet, population) if state == "v" else None,
                }
            )
    return records


def _tau(qnet: QNetwork, lost: Array) -> float | None:
    """Return the time constant of a state that loses this share in a step."""
    return float(qnet.real.dt_s / lost) if lost > 0 else None


def _threshold_error(qnet: QNetwork, population: Population) -> float | None:
    q, step = qnet.populations[population.name], qnet.real.step_of(population.name)
    if q.threshold is None or step.threshold is None:
        return None
    unit = q.scale * (1 << q.shift) / (1 << qnet.arithmetic.threshold_shift)
    exact = per_neuron(step.threshold, population.shape) / membrane_gain(population, step) * unit
    lost = np.abs(exact - per_neuron(q.threshold, population.shape))
    return float(np.max(lost / np.where(exact == 0, 1.0, np.abs(exact)), initial=0.0))


def neuron_table(qnet: QNetwork) -> Table:
    """Return what rounding did to each population, its time constants first."""

    def tau(seconds: float | None) -> str:
        return "no leak" if seconds is None else units.seconds(seconds)

    sized = "the calibration samples" if qnet.calibrated else "an estimate from the weights"
    return Table(
        title="",
        columns=("population", "state", "time constant", "in integers", "threshold cut by"),
        rows=tuple(
            (
                r["population"],
                r["state"],
                tau(r["tau_s"]),
                tau(r["tau_integer_s"]),
                "-" if r["threshold_error"] is None else units.percent(r["threshold_error"]),
            )
            for r in neuron_data(qnet)
        ),
        align="llrrr",
        note=f"of the neuron that rounding changes most; states have room for {sized}",
    )


def quantization_section(program: Program, *, detail: bool = False) -> Section | None:
    """Return the quantization tables, or None in float."""
    if program.qnet is None:
        return None
    return Section(
        title=f"In {program.qnet.arithmetic.name} integers",
        items=(tensor_table(program.qnet.tensors), neuron_table(program.qnet)),
        detail=detail,
    )
