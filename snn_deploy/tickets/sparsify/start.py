"""Where sparse training starts: densities of the layers, random masks, scaled weights, and SNIP.

A layer that keeps a share d of its inputs has currents smaller by sqrt(d): unless its weights grow
by 1 / sqrt(d), a spiking network pruned at random falls silent, and is no control.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from snn_deploy.errors import UsageError
from snn_deploy.tickets import pruning


def erdos_renyi_kernel(shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """Return a density per layer that falls with its size (ERK, Evci et al., ICML 2020).

    shapes: of the weights, (outputs, inputs, *kernel). A layer's density is proportional to
    sum(shape) / prod(shape); what would exceed 1 is dense. All together have the given sparsity,
    to rounding. Raises UsageError for a sparsity outside [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise UsageError("the sparsity is a share of weights below 1", used=f"{sparsity:g}")
    size = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / size[name] for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        wanted = (1 - sparsity) * sum(size.values()) - sum(size[name] for name in dense)
        scale = wanted / sum(raw[n] * size[n] for n in shapes if n not in dense)
        over = {name for name in shapes if name not in dense and scale * raw[name] >= 1}
        if not over:
            return {name: 1.0 if name in dense else scale * raw[name] for name in shapes}
        dense |= over
        if dense == set(shapes):
            return dict.fromkeys(shapes, 1.0)


def random_masks(
    weights: Mapping[str, Tensor], density: Mapping[str, float] | float, generator: torch.Generator
) -> pruning.Masks:
    """Return random masks: layer by layer to the given densities, or of all layers together.

    density: by weight name, or one share of all weights together. Every layer keeps at least one
    weight. generator: on the CPU.
    """
    noise = {name: torch.rand(w.shape, generator=generator) for name, w in weights.items()}
    if not isinstance(density, Mapping):
        return pruning.global_magnitude(noise, 1 - density)
    return {
        name: pruning.global_magnitude({name: noise[name]}, 1 - max(share, 1 / value.numel()))[name]
        for (name, value), share in zip(weights.items(), _in_order(density, weights), strict=True)
    }


def _in_order(density: Mapping[str, float], weights: Mapping[str, Tensor]) -> list[float]:
    return [density[name] for name in weights]


def rescale(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Multiply each layer's weights by 1 / sqrt(its density), in place."""
    weights = pruning.prunable(model)
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].div_(math.sqrt(float(mask.float().mean())))


def snip(model: nn.Module, loss: Callable[[nn.Module], Tensor], sparsity: float) -> pruning.Masks:
    """Return the masks of the largest weight x gradient of one loss (Lee et al., ICLR 2019).

    loss: of the model on a batch, with a graph. The model's gradients are cleared after it. All
    layers together; each keeps at least one weight.
    """
    weights = pruning.prunable(model)
    model.zero_grad(set_to_none=True)
    loss(model).backward()  # type: ignore[no-untyped-call]
    scores = {
        name: (torch.zeros_like(p) if p.grad is None else p.detach() * p.grad).abs().cpu()
        for name, p in weights.items()
    }
    model.zero_grad(set_to_none=True)
    return pruning.global_magnitude(scores, sparsity)
