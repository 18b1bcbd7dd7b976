"""Layers on a CPU faster than torch has them, for training: what they are given are spikes.

A pool gives torch's own bits. A linear layer of spikes sums the rows of its weights in ascending
order, where torch's library has one of its own: the same to rounding, and the same in every run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from snn_deploy.ir.arrays import Array
from snn_deploy.tickets import kernels
from snn_deploy.tickets.rate import SpikeRate

#: Above this share of ones a dense product is as fast.
MOST_ONES = 0.2
#: Multiplications, or values, below which preparing costs more than it saves.
SMALLEST_PRODUCT = 1 << 20
SMALLEST_POOL = 1 << 16
#: Outputs below which the sums are too short to gain.
NARROWEST = 16


def apply(layer: nn.Module, x: Tensor) -> Tensor:
    """Return ``layer(x)``; x: (samples, ...)."""
    fits = x.dtype == torch.float32 and x.device.type == "cpu"
    if fits and layer.training and torch.is_grad_enabled() and not observed(layer):
        if type(layer) is nn.Linear:
            return _linear(layer, x)
        if x.numel() >= SMALLEST_POOL and halves(layer):
            out: Tensor = _Pool.apply(x)
            return out
    return layer(x)


def observed(layer: nn.Module) -> bool:
    """Return whether more than a SpikeRate sees what the layer itself is given or gives."""
    hooks = (
        *layer._forward_hooks.values(), *layer._forward_pre_hooks.values(),
        *layer._backward_hooks.values(), *layer._backward_pre_hooks.values(),
    )  # fmt: skip
    others = [hook for hook in hooks if type(getattr(hook, "__self__", None)) is not SpikeRate]
    return bool(others) or torch.is_autocast_enabled("cpu")


def halves(layer: nn.Module) -> bool:
    """Return whether the layer takes the mean of each 2x2 field."""
    if type(layer) is not nn.AvgPool2d:
        return False
    sizes = (layer.kernel_size, layer.stride)
    plain = not layer.ceil_mode and layer.divisor_override is None
    return plain and all(s in (2, (2, 2)) for s in sizes) and layer.padding in (0, (0, 0))


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    outputs = len(layer.weight)
    if x.ndim == 2 and outputs >= NARROWEST and x.numel() * outputs >= SMALLEST_PRODUCT:
        values = x.detach().contiguous().view(torch.int32).numpy()
        first, where = kernels.kernel(kernels.events)(values, int(MOST_ONES * values.size))
        if len(first):
            out: Tensor = _Gathered.apply(x, layer.weight, layer.bias, first, where)
            return out
    return layer(x)


class _Gathered(torch.autograd.Function):  # type: ignore[misc]
    """A linear layer of spikes: sums of weights instead of products."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, first: Array, where: Array
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.ones = (first, where)
        ctx.biased = bias is not None
        size = (len(x), len(weight))
        out = torch.zeros(size) if bias is None else bias.detach().expand(size).contiguous()
        matrix = weight.detach().t().contiguous()
        _gather(first, where, matrix, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        first, where = ctx.ones
        grad_x = grad @ weight if ctx.needs_input_grad[0] else None
        grad_weight = None
        if ctx.needs_input_grad[1]:
            begin, rows = kernels.kernel(kernels.transposed)(first, where, weight.shape[1])
            grad_weight = torch.zeros(weight.shape[::-1])
            _gather(begin, rows, grad.contiguous(), grad_weight)
            grad_weight = grad_weight.t()
        grad_bias = grad.sum(0) if ctx.biased and ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias, None, None


def _gather(first: Array, where: Array, matrix: Tensor, out: Tensor) -> None:
    kernels.kernel(kernels.gathered)(first, where, matrix.numpy(), out.numpy())


class _Pool(torch.autograd.Function):  # type: ignore[misc]
    """The mean of each 2x2 field."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = x.shape
        flat = x.detach().contiguous().flatten(0, -3)
        rows, columns = x.shape[-2:]
        out = torch.empty(*x.shape[:-2], rows // 2, columns // 2)
        kernels.kernel(kernels.pool)(flat.numpy(), out.flatten(0, -3).numpy())
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        even = all(n % 2 == 0 for n in ctx.size[-2:])
        out = torch.empty(ctx.size) if even else torch.zeros(ctx.size)
        flat = grad.contiguous().flatten(0, -3).numpy()
        kernels.kernel(kernels.pool_back)(flat, out.flatten(0, -3).numpy())
        return out
