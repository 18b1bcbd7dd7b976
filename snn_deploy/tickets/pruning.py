"""Magnitude pruning over the whole network: masks and their schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from snn_deploy.errors import UsageError

Masks = dict[str, Tensor]
SHARE_PER_ROUND = 0.25


def prunable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that pruning touches: weights of two or more axes, by name."""
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.ndim >= 2 and name.rsplit(".", 1)[-1].startswith("weight")
    }


def default_rounds(sparsity: float, share: float = SHARE_PER_ROUND) -> int:
    """Return the number of rounds that prune about ``share`` of the survivors each."""
    if sparsity == 0:
        return 0
    return max(1, round(math.log(1 - sparsity) / math.log(1 - share)))


def schedule(sparsity: float, rounds: int | None = None) -> tuple[float, ...]:
    """Return the sparsity after each round; every round prunes the same share of survivors.

    The last entry is ``sparsity`` itself. Raises UsageError unless 0 <= sparsity < 1 and
    rounds >= 1 (0 rounds only for sparsity 0).
    """
    if not 0 <= sparsity < 1:
        raise UsageError(
            "the sparsity is a share of weights below 1",
            used=f"{sparsity:g}",
            hint="0.9 removes nine weights in ten",
        )
    rounds = default_rounds(sparsity) if rounds is None else rounds
    if rounds < (1 if sparsity else 0):
        raise UsageError("at least one pruning round is needed", used=f"rounds = {rounds}")
    steps = [1 - (1 - sparsity) ** (k / rounds) for k in range(1, rounds)]
    return (*steps, sparsity) if rounds else ()


def kept(total: int, sparsity: float) -> int:
    """Return how many of ``total`` weights stay: the nearest integer to (1 - sparsity) total."""
    return round((1 - sparsity) * total)


def global_magnitude(
    weights: Mapping[str, Tensor],
    sparsity: float,
    masks: Mapping[str, Tensor] | None = None,
    *,
    layer_adaptive: bool = False,
) -> Masks:
    """Return masks of the largest magnitudes of all layers together, exactly as many as asked.

    layer_adaptive: compare each weight's square as a share of the squares of its layer that are
    no smaller, as left by ``masks`` (LAMP, Lee et al. 2021): a layer's scale, which a batch norm
    behind it makes arbitrary, then decides nothing. Weights that ``masks`` has removed stay
    removed. Each layer keeps at least its largest weight, so that no layer is cut through. Ties
    go to the earlier weight. Raises UsageError where there are fewer weights to keep than layers,
    or fewer survivors than asked for.
    """
    names = list(weights)
    magnitude = [weights[name].detach().abs().flatten().double().cpu() for name in names]
    left = [torch.ones_like(m, dtype=torch.bool) for m in magnitude]
    if masks is not None:
        left = [masks[name].flatten() for name in names]
    if layer_adaptive:
        magnitude = [_share_of_larger(m * alive) for m, alive in zip(magnitude, left, strict=True)]
    magnitude = [m.masked_fill(~alive, -1.0) for m, alive in zip(magnitude, left, strict=True)]
    sizes = [m.numel() for m in magnitude]
    flat = torch.cat(magnitude)
    keep = kept(flat.numel(), sparsity)
    survivors = int((flat >= 0).sum())
    if not len(names) <= keep <= survivors:
        raise UsageError(
            "this sparsity cannot be reached",
            used=f"{keep:,} weights to keep, {len(names)} layers, {survivors:,} survivors",
            hint="keep at least one weight per layer, and never fewer zeros than the round before",
        )
    offset = 0
    for size in sizes:
        best = offset + int(flat[offset : offset + size].argmax())
        flat[best] = torch.inf
        offset += size
    order = torch.argsort(flat, descending=True, stable=True)
    mask = torch.zeros(flat.numel(), dtype=torch.bool)
    mask[order[:keep]] = True
    parts = mask.split(sizes)
    return {
        name: part.reshape(weights[name].shape).clone()
        for name, part in zip(names, parts, strict=True)
    }


def _share_of_larger(magnitude: Tensor) -> Tensor:
    """Return each square over the sum of all that are no smaller; of equals, the first is larger.

    An all-zero layer has shares of 0.
    """
    squares, order = magnitude.square().sort(descending=True, stable=True)
    share = torch.empty_like(squares)
    share[order] = squares / squares.cumsum(0).clamp_min(torch.finfo(squares.dtype).tiny)
    return share


def sparsity_of(masks: Mapping[str, Tensor]) -> float:
    """Return the share of removed weights over all masks; 0 without masks."""
    total = sum(mask.numel() for mask in masks.values())
    nonzero = sum(int(mask.sum()) for mask in masks.values())
    return 1 - nonzero / total if total else 0.0
