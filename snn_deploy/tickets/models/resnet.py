"""ResNet19: residual currents into binary neurons."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from snn_deploy.tickets.lif import LIF
from snn_deploy.tickets.models.layers import TimeSequential, linear, width_of_images

# Blocks of each stage and their channels as multiples of the first convolution's.
STAGES = ((3, 2), (3, 4), (2, 8))


class Residual(nn.Module):  # type: ignore[misc]
    """Two convolutions beside a shortcut; their currents are summed before the last neuron.

    Where ``stride`` or the channels change, the shortcut is a 1x1 convolution with batch norm,
    elsewhere it hands on the spikes as unit currents. Spikes stay binary.
    """

    takes_steps = True

    def __init__(self, inputs: int, outputs: int, stride: int, neuron: dict[str, Any]) -> None:
        super().__init__()
        self.main = TimeSequential(
            OrderedDict(
                conv1=nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
                bn1=nn.BatchNorm2d(outputs),
                lif1=LIF(**neuron),
                conv2=nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
                bn2=nn.BatchNorm2d(outputs),
            )
        )
        shortcut: OrderedDict[str, nn.Module] = OrderedDict()
        if stride != 1 or inputs != outputs:
            shortcut["conv"] = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            shortcut["bn"] = nn.BatchNorm2d(outputs)
        self.shortcut = TimeSequential(shortcut)
        self.lif2 = LIF(**neuron)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's spikes (steps, batch, outputs, H', W')."""
        spikes: Tensor = self.lif2(self.main(x) + self.shortcut(x))
        return spikes


def resnet19(
    input_shape: tuple[int, ...], classes: int, hidden: tuple[int, ...], neuron: dict[str, Any]
) -> TimeSequential:
    """Return a convolution, eight residual blocks and two linear layers, Kim et al. (ECCV 2022).

    input_shape: (C, H, W), H and W of 8 or more; each of the three stages halves both, and an
    average over what is left leads to the linear layers. hidden: (width,), the first
    convolution's channels, 64 in the paper: 12,619,968 weights for 3 channels and 10 classes.
    The last population spikes, as in ``vgg16``. Raises UsageError.
    """
    width = width_of_images("resnet19", input_shape, hidden, 8)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False),
        bn1=nn.BatchNorm2d(width),
        lif1=LIF(**neuron),
    )
    inputs = width
    for stage, (blocks, factor) in enumerate(STAGES, start=1):
        for block in range(1, blocks + 1):
            layers[f"block{stage}_{block}"] = Residual(
                inputs, factor * width, 2 if block == 1 else 1, neuron
            )
            inputs = factor * width
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc1"] = linear(inputs, 4 * width)
    layers["lif2"] = LIF(**neuron)
    layers["fc2"] = linear(4 * width, classes)
    layers["lif3"] = LIF(**neuron)
    return TimeSequential(layers)
