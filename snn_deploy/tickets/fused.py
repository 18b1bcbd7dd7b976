"""A convolution, its batch norm, a LIF and a pool of 2x2 in one, for training on a CPU.

Images have their channels last: torch's convolutions then copy nothing. Neither the normalised
values nor, before a pool, the spikes are stored: the scan computes them from what the
convolution gives, and the backward pass computes the membranes from it once more. It is what the
modules give one after the other, to rounding, and the same in every run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_deploy.ir.arrays import Array
from snn_deploy.tickets import kernels
from snn_deploy.tickets.fast_layers import halves, observed
from snn_deploy.tickets.lif import LIF, compiles

#: Values of the convolution's input below which starting numba costs more than it saves.
SMALLEST = 1 << 16


def length(layers: Sequence[nn.Module], x: Tensor) -> int:
    """Return how many of the first layers ``apply`` takes: 4, 3 without a pool, or none, 0.

    x: (steps, batch, channels, rows, columns).
    """
    if [type(layer) for layer in layers[:3]] != [nn.Conv2d, nn.BatchNorm2d, LIF]:
        return 0
    conv, norm, neuron, *others = layers
    fits = (
        x.ndim == 5
        and x.shape[0] * x.shape[1] > 1
        and x.numel() >= SMALLEST
        and compiles(x, neuron.numbers())
        and torch.is_grad_enabled()
        and conv.out_channels == norm.num_features
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and norm.weight.dtype == torch.float32
        and neuron.watch is None
        and not observed(norm)
        and not observed(neuron)
    )
    pooled = bool(others) and halves(others[0]) and not observed(others[0])
    return 3 + pooled if fits else 0


def apply(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Return what these layers, see ``length``, make of x; the norm's statistics move on."""
    conv, norm, neuron, *pool = layers
    steps, batch, channels, *size = x.shape
    # Through ``flatten``, so that the strides of a single channel, too, say that it is last.
    images = x.flatten(0, 1).movedim(1, -1).flatten(1).unflatten(1, (*size, channels))
    x = conv(images.movedim(-1, 1)).movedim(1, -1).contiguous().unflatten(0, (steps, batch))
    mean, variance = _moments(x.detach())
    inverse = (variance + norm.eps).rsqrt()
    out, count = _NormScan.apply(x, norm.weight, norm.bias, mean, inverse, neuron, bool(pool))
    values = x.numel() // len(mean)
    with torch.no_grad():
        norm.num_batches_tracked += 1
        unbiased = variance * (values / (values - 1))
        for running, new in ((norm.running_mean, mean), (norm.running_var, unbiased)):
            running.lerp_(new.to(running), norm.momentum)
    for hook in neuron._forward_hooks.values():  # of SpikeRate alone, see ``length``
        hook.__self__.add(torch.tensor(count, dtype=torch.float64), x.numel())
    spikes: Tensor = out.movedim(-1, 2)
    return spikes


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return each channel's mean and variance, in double precision."""
    lines = _rows(x)
    sums = torch.zeros(2, lines.shape[1], dtype=torch.float64)
    kernels.kernel(kernels.moments)(lines, *sums.numpy())
    mean, square = _per_channel(sums, x)
    return mean, (square - mean * mean).clamp_(min=0)


def _rows(x: Tensor) -> Array:
    """Return all images' rows, (rows, columns * channels)."""
    rows: Array = x.flatten(3).flatten(0, 2).numpy()
    return rows


def _per_channel(sums: Tensor, x: Tensor) -> Tensor:
    """Return each channel's means of sums over x that stand there pixel by pixel."""
    return sums.unflatten(1, (-1, x.shape[-1])).sum(1) * (x.shape[-1] / x.numel())


def _spread(pixels: int, *values: Tensor) -> list[Array]:
    """Return each channel's number for every pixel."""
    return [value.float().repeat(pixels).numpy() for value in values]


class _NormScan(torch.autograd.Function):  # type: ignore[misc]
    """The spikes, or their means in 2x2 fields, and how many spikes there are.

    x: (steps, batch, rows, columns, channels). mean, inverse: of each channel, the latter of its
    standard deviation.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        inverse: Tensor,
        neuron: LIF,
        pooled: bool,
    ) -> tuple[Tensor, float]:
        steps, batch, rows, columns, channels = x.shape
        scale = weight.detach() * inverse
        shift = bias.detach() - scale * mean
        pixels = max(1, kernels.TILE // (columns * channels) // 2) * 2 * columns
        surrogate = (math.pi / 2 * neuron.alpha, neuron.alpha / 2)
        numbers = np.array((*neuron.numbers(), *surrogate), np.float32)
        to_value = neuron.reset == "value"
        ctx.save_for_backward(x, scale, shift, mean, inverse)
        ctx.scan = (pixels, numbers, to_value)
        size = (rows // 2, columns // 2) if pooled else (rows, columns)
        out = x.new_empty(steps, batch, *size, channels)
        scan = kernels.kernel(kernels.norm_scan)
        spread = _spread(pixels, scale, shift)
        return out, scan(x.detach().numpy(), *spread, numbers[:6], to_value, out.numpy())

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
        x, scale, shift, mean, inverse = ctx.saved_tensors
        pixels, numbers, to_value = ctx.scan
        out = torch.empty_like(x)
        sums = torch.zeros(2, pixels * x.shape[-1], dtype=torch.float64)
        kernels.kernel(kernels.norm_scan_back)(
            x.numpy(),
            *_spread(pixels, scale, shift, mean),
            grad.contiguous().numpy(),
            numbers,
            to_value,
            out.numpy(),
            *sums.numpy(),
        )
        middle, product = _per_channel(sums, x)
        values = _spread(x.shape[3], scale, mean, middle, product * inverse.square())
        kernels.kernel(kernels.norm_back)(_rows(x), *values, _rows(out))
        count = x.numel() // x.shape[-1]
        grad_weight, grad_bias = (a.to(x) for a in (product * inverse * count, middle * count))
        return out, grad_weight, grad_bias, None, None, None, None
