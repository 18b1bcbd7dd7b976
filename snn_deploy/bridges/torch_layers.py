"""Synapse operators as torch layers, with the weights as parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from snn_deploy.ir.arrays import Array
from snn_deploy.ir.synapses import (
    Conv1d,
    Conv2d,
    Csr,
    Dense,
    Diagonal,
    Identity,
    Pool2d,
    Synapse,
    bias_of,
    with_weights,
)


class Scale(nn.Module):  # type: ignore[misc]
    """Elementwise scale, not trained."""

    def __init__(self, scale: Array) -> None:
        super().__init__()
        self.register_buffer("scale", torch.from_numpy(np.array(scale, np.float64)))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` scaled."""
        return x * self.scale


class Kept(nn.Module):  # type: ignore[misc]
    """Keeps the weights under a 0/1 mask; the others are 0 and get no gradient.

    A parametrization, since modules with torch's pruning hooks cannot be copied.
    """

    def __init__(self, mask: Array) -> None:
        super().__init__()
        self.register_buffer("mask", torch.from_numpy(mask))

    def forward(self, weight: Tensor) -> Tensor:
        """Return ``weight`` masked."""
        return torch.where(self.mask, weight, 0)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return what stands behind ``weight``."""
        return weight


def layer_of(synapse: Synapse) -> nn.Module:
    """Return the torch layer of a folded operator; zero weights are pruned and stay zero."""
    if isinstance(synapse, Dense | Csr):
        weight = synapse.weight if isinstance(synapse, Dense) else synapse.to_dense()
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=synapse.bias is not None)
        return nn.Sequential(nn.Flatten(), _filled(linear, weight, synapse.bias))
    if isinstance(synapse, Conv1d | Conv2d):
        return _conv(synapse)
    if isinstance(synapse, Pool2d):
        area = synapse.kernel[0] * synapse.kernel[1]
        pads, own = _pads(synapse.padding)
        # torch allows padding of half a kernel; with a divisor of its own it counts the zeros.
        if any(2 * p > k for p, k in zip(own, synapse.kernel, strict=True)):
            pads, own = synapse.padding, (0, 0)
        pool = nn.AvgPool2d(
            synapse.kernel,
            synapse.stride,
            padding=own,
            divisor_override=1 if synapse.kind == "sum" else area,
        )
        return _behind(pads, pool)
    if isinstance(synapse, Diagonal):
        return Scale(synapse.scale)
    assert isinstance(synapse, Identity), type(synapse)
    return nn.Identity()


def matrix_layer(layer: nn.Module) -> nn.Linear:
    """Return the linear layer within the layer of a matrix."""
    return next(m for m in layer.modules() if isinstance(m, nn.Linear))


def _conv(synapse: Conv1d | Conv2d) -> nn.Module:
    weight = synapse.weight
    kernel: Any
    pads: Any
    own: Any
    if isinstance(synapse, Conv2d):
        kind, kernel = nn.Conv2d, tuple(weight.shape[2:])
        pads, own = _pads(synapse.padding)
    else:
        kind, kernel = nn.Conv1d, int(weight.shape[2])
        even = synapse.padding[0] == synapse.padding[1]
        pads, own = ((0, 0), synapse.padding[0]) if even else (synapse.padding, 0)
    conv = kind(
        weight.shape[1] * synapse.groups,
        weight.shape[0],
        kernel,
        stride=synapse.stride,
        padding=own,
        dilation=synapse.dilation,
        groups=synapse.groups,
        bias=synapse.bias is not None,
    )
    return _behind(pads, _filled(conv, weight, synapse.bias))


def _pads(padding: tuple[int, int, int, int]) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Return what must be padded before, and what the layer pads itself on both sides."""
    top, bottom, left, right = padding
    if (top, left) == (bottom, right):
        return (0, 0, 0, 0), (top, left)
    return padding, (0, 0)


def _behind(pads: tuple[int, ...], layer: nn.Module) -> nn.Module:
    if not any(pads):
        return layer
    if len(pads) == 2:
        return nn.Sequential(nn.ConstantPad1d(pads, 0.0), layer)
    top, bottom, left, right = pads
    return nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), layer)


def _filled(layer: Any, weight: Array, bias: Array | None) -> nn.Module:
    layer.double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.array(weight, np.float64)))
        if bias is not None:
            layer.bias.copy_(torch.from_numpy(np.array(bias, np.float64)))
    if not np.all(weight):
        parametrize.register_parametrization(layer, "weight", Kept(np.asarray(weight != 0)))
    return layer  # type: ignore[no-any-return]


def current_synapse(synapse: Synapse, layer: nn.Module) -> Synapse:
    """Return ``synapse`` with the weights and bias that its layer has now, in its own dtype."""
    learned = next(
        (m for m in layer.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)), None
    )
    if learned is None:
        return synapse
    weight = learned.weight
    before = bias_of(synapse)
    bias = None if before is None else _array(learned.bias, before.dtype)
    if isinstance(synapse, Csr):
        rows = synapse.rows
        values = _array(weight, synapse.data.dtype)[rows, synapse.indices]
        return with_weights(synapse, values, bias)
    assert isinstance(synapse, Dense | Conv1d | Conv2d)
    return with_weights(synapse, _array(weight, synapse.weight.dtype), bias)


def _array(tensor: Tensor, dtype: Any) -> Array:
    return np.asarray(tensor.detach().cpu().numpy(), dtype)
