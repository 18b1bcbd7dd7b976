"""An MLP, an MLP whose hidden layers are recurrent, and a small conv net (LeNet's size)."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

from torch import nn

from snn_deploy.errors import UsageError
from snn_deploy.tickets.lif import LIF
from snn_deploy.tickets.models.layers import TimeSequential, linear
from snn_deploy.tickets.recurrent import RecurrentLIF


def mlp(
    input_shape: tuple[int, ...],
    classes: int,
    hidden: tuple[int, ...],
    neuron: dict[str, Any],
    recurrent: bool = False,
) -> TimeSequential:
    """Return fully connected layers with a LIF behind each, see ``models.build``."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(input_shape) > 1:
        layers["flatten"] = nn.Flatten()
    width = math.prod(input_shape)
    for i, units in enumerate((*hidden, classes), start=1):
        layers[f"fc{i}"] = linear(width, units)
        back = recurrent and i <= len(hidden)
        layers[f"lif{i}"] = RecurrentLIF(units, **neuron) if back else LIF(**neuron)
        width = units
    return TimeSequential(layers)


def conv(
    input_shape: tuple[int, ...], classes: int, hidden: tuple[int, ...], neuron: dict[str, Any]
) -> TimeSequential:
    """Return two convolutions with pools and a layer for the classes, see ``models.build``."""
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
    layers["fc"] = linear(second * (height // 4) * (width // 4), classes)
    layers["lif3"] = LIF(**neuron)
    return TimeSequential(layers)
