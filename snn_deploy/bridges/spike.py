"""The spike function of every trainable module of ours."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def surrogate(distance: Tensor, alpha: float) -> Tensor:
    """Return the derivative of ``atan(pi/2 alpha x) / pi + 1/2`` at ``distance``."""
    # In place: training a convolution spends more time on its membranes than on its products.
    return (math.pi / 2 * alpha * distance).square_().add_(1).reciprocal_().mul_(alpha / 2)


class Spike(torch.autograd.Function):  # type: ignore[misc]
    """Heaviside step (strict) forwards, ATan surrogate backwards."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor, alpha: float) -> Tensor:
        """Return 1 where ``distance`` is greater than 0."""
        ctx.save_for_backward(distance)
        ctx.alpha = alpha
        return (distance > 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return the surrogate's gradient."""
        (distance,) = ctx.saved_tensors
        return grad * surrogate(distance, ctx.alpha), None
