"""The networks that ``train`` offers, all time-batched: an MLP, a small conv net, and an MLP
whose hidden layers are recurrent.

Layers without state see all steps at once as one batch (steps * batch, ...): one matrix product
or convolution for the whole sample, then each LIF scans over the steps.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from snn_deploy.errors import UsageError
from snn_deploy.tickets.lif import LIF
from snn_deploy.tickets.recurrent import RecurrentLIF

ARCHITECTURES = ("mlp", "conv", "recurrent")


class TimeSequential(nn.Sequential):  # type: ignore[misc]
    """``nn.Sequential`` over (steps, batch, ...): LIF sees steps, other layers one big batch."""

    # The frontends read this mark: forward applies the children in order, nothing else.
    time_batched = True

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer's output, (steps, batch, ...)."""
        steps, batch = x.shape[:2]
        for layer in self:
            if isinstance(layer, LIF | TimeSequential):
                x = layer(x)
            else:
                x = layer(x.flatten(0, 1)).unflatten(0, (steps, batch))
        return x


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
        return _mlp(input_shape, classes, (256, 128) if hidden is None else hidden, neuron)
    if arch == "recurrent":
        widths = (256,) if hidden is None else hidden
        return _mlp(input_shape, classes, widths, neuron, recurrent=True)
    if arch == "conv":
        return _conv(input_shape, classes, (32, 64) if hidden is None else hidden, neuron)
    raise UsageError(
        f"unknown architecture {arch!r}",
        hint=f"one of {', '.join(ARCHITECTURES)}, or file.py:factory",
    )


def _mlp(
    input_shape: tuple[int, ...],
    classes: int,
    hidden: tuple[int, ...],
    neuron: dict[str, Any],
    recurrent: bool = False,
) -> TimeSequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(input_shape) > 1:
        layers["flatten"] = nn.Flatten()
    width = math.prod(input_shape)
    for i, units in enumerate((*hidden, classes), start=1):
        layers[f"fc{i}"] = _linear(width, units)
        back = recurrent and i <= len(hidden)
        layers[f"lif{i}"] = RecurrentLIF(units, **neuron) if back else LIF(**neuron)
        width = units
    return TimeSequential(layers)


def _conv(
    input_shape: tuple[int, ...], classes: int, hidden: tuple[int, ...], neuron: dict[str, Any]
) -> TimeSequential:
    if len(input_shape) != 3 or min(input_shape[1:]) < 4 or len(hidden) != 2:
        raise UsageError(
            "the conv net needs samples of shape (C, H, W), H and W of 4 or more, and two widths",
            used=f"input shape {tuple(input_shape)}, hidden {tuple(hidden)}",
            hint="use --arch mlp for flat samples",
        )
    channels, height, width = input_shape
    first, second = hidden
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (inputs, outputs) in enumerate(((channels, first), (first, second)), start=1):
        layers[f"conv{i}"] = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        layers[f"bn{i}"] = nn.BatchNorm2d(outputs)
        layers[f"lif{i}"] = LIF(**neuron)
        layers[f"pool{i}"] = nn.AvgPool2d(2)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = _linear(second * (height // 4) * (width // 4), classes)
    layers["lif3"] = LIF(**neuron)
    return TimeSequential(layers)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a layer whose currents reach a threshold of 1 from sparse unit spikes."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.mul_(3.0)
    return layer
