"""VGG9 and VGG16: 3x3 convolutions with batch norm, max pools on spikes, then linear layers."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from snn_deploy.tickets.lif import LIF
from snn_deploy.tickets.models.layers import TimeSequential, linear, width_of_images

# Channels of the convolutions before each pool, as multiples of the first one's.
STAGES9 = ((1, 1), (2, 2), (4, 4, 4))
STAGES16 = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))


def vgg9(
    input_shape: tuple[int, ...], classes: int, hidden: tuple[int, ...], neuron: dict[str, Any]
) -> TimeSequential:
    """Return seven convolutions in three stages and two linear layers.

    input_shape: (C, H, W), H and W of 8 or more. hidden: (width,), the first convolution's
    channels. Of the VGG9 in the paper of the connection ticket (arXiv 2311.12060) only the name
    and 2.26 million weights are known here. The stages, and a hidden layer of 2 width neurons,
    are our choice that gives them: 2,259,904 weights for 3x32x32 and width 64. Everything else
    is as in ``vgg16``. Raises UsageError.
    """
    layers = _convolutions("vgg9", input_shape, hidden, neuron, STAGES9, smallest=8)
    (width,) = hidden
    height, breadth = (size // 8 for size in input_shape[1:])
    layers["fc1"] = linear(4 * width * height * breadth, 2 * width)
    layers["lif8"] = LIF(**neuron)
    layers["fc2"] = linear(2 * width, classes)
    layers["lif9"] = LIF(**neuron)
    return TimeSequential(layers)


def vgg16(
    input_shape: tuple[int, ...], classes: int, hidden: tuple[int, ...], neuron: dict[str, Any]
) -> TimeSequential:
    """Return thirteen convolutions in five stages and one linear layer, Kim et al. (ECCV 2022).

    input_shape: (C, H, W), H and W of 16 or more; a pool that would find a single row or column,
    as the fifth one does below 32, is left out. hidden: (width,), the first convolution's
    channels, 64 in the paper: 14,715,584 weights for 3x32x32. The paper adds up the last layer's
    values and reads no spikes; here a last population spikes, and is read by its count, because
    that is what every target outputs. Raises UsageError.
    """
    layers = _convolutions("vgg16", input_shape, hidden, neuron, STAGES16, smallest=16)
    (width,) = hidden
    height, breadth = (max(size // 32, 1) for size in input_shape[1:])
    layers["fc"] = linear(8 * width * height * breadth, classes)
    layers["lif14"] = LIF(**neuron)
    return TimeSequential(layers)


def _convolutions(
    arch: str,
    input_shape: tuple[int, ...],
    hidden: tuple[int, ...],
    neuron: dict[str, Any],
    stages: tuple[tuple[int, ...], ...],
    smallest: int,
) -> OrderedDict[str, nn.Module]:
    width = width_of_images(arch, input_shape, hidden, smallest)
    inputs, *size = input_shape
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    i = 0
    for stage, factors in enumerate(stages, start=1):
        for factor in factors:
            i += 1
            layers[f"conv{i}"] = nn.Conv2d(inputs, factor * width, 3, padding=1)
            layers[f"bn{i}"] = nn.BatchNorm2d(factor * width)
            layers[f"lif{i}"] = LIF(**neuron)
            inputs = factor * width
        # On spikes, a max pool is an OR, which every target computes exactly.
        if min(size) > 1:
            layers[f"pool{stage}"] = nn.MaxPool2d(2)
            size = [side // 2 for side in size]
    layers["flatten"] = nn.Flatten()
    return layers
