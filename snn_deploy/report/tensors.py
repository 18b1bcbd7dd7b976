"""What quantization did to each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snn_deploy.backends.base import Program
from snn_deploy.ir.quantized import TensorReport
from snn_deploy.report.model import Section, Table


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
