"""``build``: a network by its name."""

from __future__ import annotations

from typing import Any

from snn_deploy.errors import UsageError
from snn_deploy.tickets.models import small
from snn_deploy.tickets.models.layers import TimeSequential

ARCHITECTURES = ("mlp", "conv", "recurrent")


def build(
    arch: str,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    hidden: tuple[int, ...] | None = None,
    dt_s: float = 1e-3,
    tau_s: float | None = None,
    v_threshold: float = 1.0,
) -> TimeSequential:
    """Return an untrained network whose last population has one neuron per class.

    arch: "mlp" (hidden: widths of the hidden layers), "recurrent" (the same, each hidden
    population fed by its own spikes of the step before), or "conv" (conv, pool, conv, pool, fully
    connected; hidden: channels of the two convolutions). input_shape: one sample's shape; conv
    needs (C, H, W), H and W of 4 or more, and its pools leave out an odd row or column. tau_s: by
    default 2 dt_s. Weights come from torch's global generator. Raises UsageError.
    """
    neuron: dict[str, Any] = {
        "dt_s": dt_s,
        "tau_s": 2 * dt_s if tau_s is None else tau_s,
        "v_threshold": v_threshold,
    }
    if arch == "mlp":
        return small.mlp(input_shape, classes, (256, 128) if hidden is None else hidden, neuron)
    if arch == "recurrent":
        widths = (256,) if hidden is None else hidden
        return small.mlp(input_shape, classes, widths, neuron, recurrent=True)
    if arch == "conv":
        return small.conv(input_shape, classes, (32, 64) if hidden is None else hidden, neuron)
    raise UsageError(
        f"unknown architecture {arch!r}",
        hint=f"one of {', '.join(ARCHITECTURES)}, or file.py:factory",
    )
