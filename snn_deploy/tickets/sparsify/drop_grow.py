"""Sparse from the first step: weights are dropped and grown while the network trains.

Masks start at random with ERK densities, the kept weights larger by 1 / sqrt(density). Every
``every`` updates, a share of each layer's weights, the smallest, is dropped, and others grow from
0: at random (SET, Mocanu et al. 2018) or where the gradient is largest (RigL, Evci et al. 2020;
NDSNN, Huang et al. 2023). NDSNN grows fewer than it drops.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snn_deploy.errors import UsageError
from snn_deploy.tickets import pruning
from snn_deploy.tickets.sparsify import start
from snn_deploy.tickets.sparsify.base import Sparsifier, zero_pruned

Growth = Literal["gradient", "random"]


class DropGrow(Sparsifier):
    """Drops the smallest weights of each layer and grows others, a cosine fewer each time.

    sparsity: at the end. start_sparsity: at the start; where lower, the nonzero count shrinks to
    the end's along a cubic. updates: of the whole training; every: from one rewiring to the next;
    stop: share of the updates after which the masks hold. death: share of a layer's weights that
    the first rewiring drops, falling along half a cosine to ``least_death`` (constant: does not
    fall). growth: where weights grow. seed: of the masks and of random growth. Raises UsageError.

    Of NDSNN only the abstract is public text to us: its equations follow what is known of it, and
    the start (70 %), the death rates (0.5 to 0.05) and the period are our choice.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sparsity: float,
        updates: int,
        start_sparsity: float | None = None,
        growth: Growth = "gradient",
        every: int = 100,
        stop: float = 0.75,
        death: float = 0.3,
        least_death: float = 0.0,
        constant: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(model)
        first = sparsity if start_sparsity is None else start_sparsity
        shares = (first <= sparsity, 0 <= least_death <= death <= 1, 0 < stop <= 1)
        if not all(shares) or every < 1:
            raise UsageError(
                "a network is rewired from a start sparsity to a higher one",
                used=f"start_sparsity = {first:g}, sparsity = {sparsity:g}, death = {death:g} to "
                f"{least_death:g}, every = {every}, stop = {stop:g}",
                hint="start_sparsity <= sparsity, least_death <= death <= 1, every >= 1",
            )
        self._generator = torch.Generator().manual_seed(seed)
        shapes = {name: tuple(p.shape) for name, p in self.weights.items()}
        self._first = start.erdos_renyi_kernel(shapes, first)
        self._last = start.erdos_renyi_kernel(shapes, sparsity)
        masks = start.random_masks(self.weights, self._first, self._generator)
        start.rescale(model, masks)
        self._masks = {n: m.to(self.weights[n].device) for n, m in masks.items()}
        self._growth, self._every = growth, every
        self._death, self._least, self._constant = death, least_death, constant
        # The last rewiring meets the sparsity; what it grows needs an update to be nonzero.
        most = min(math.floor(stop * updates / every), (updates - 1) // every)
        self._rewirings = max(1, most)
        self._updates = 0
        zero_pruned(self.weights, self._masks)

    def step(self, optimizer: Optimizer) -> None:
        """Update the kept weights; every so many times drop and grow."""
        self._updates += 1
        number, rest = divmod(self._updates, self._every)
        rewires = rest == 0 and number <= self._rewirings
        gradients: dict[str, Tensor] = {}
        for name, p in self.weights.items():
            if p.grad is not None:
                if rewires:
                    gradients[name] = p.grad.abs()
                p.grad = p.grad * self._masks[name]
        optimizer.step()
        if rewires:
            for name, gradient in gradients.items():
                self._rewire(name, gradient, number / self._rewirings, optimizer)
        zero_pruned(self.weights, self._masks)

    def masks(self) -> pruning.Masks:
        """Return the masks, also where a weight has just grown from 0."""
        return {name: mask.cpu().clone() for name, mask in self._masks.items()}

    def density(self) -> float:
        """Return the share of the weights that the masks keep."""
        return 1 - pruning.sparsity_of(self._masks)

    def _rewire(self, name: str, gradient: Tensor, share: float, optimizer: Optimizer) -> None:
        """Drop and grow in one layer; share: of the rewirings that are done after this one."""
        p, mask = self.weights[name], self._masks[name]
        kept = int(mask.sum())
        cubic = (1 - share) ** 3
        density = self._last[name] + (self._first[name] - self._last[name]) * cubic
        wanted = max(1, round(density * mask.numel()))
        cosine = 1.0 if self._constant else 0.5 * (1 + math.cos(math.pi * share))
        rate = self._least + (self._death - self._least) * cosine
        dropped = max(kept - wanted, min(round(rate * kept), kept - 1))
        # No more can grow than there are places that were not just dropped.
        grown = min(wanted - (kept - dropped), mask.numel() - kept)
        dropped = kept + grown - wanted
        size = p.detach().abs().masked_fill(~mask, torch.inf).flatten()
        drop = torch.argsort(size, stable=True)[:dropped]
        if self._growth == "random":
            score = torch.rand(mask.shape, generator=self._generator).to(mask.device)
        else:
            score = gradient
        score = score.masked_fill(mask, -torch.inf).flatten()
        grow = torch.argsort(score, descending=True, stable=True)[:grown]
        mask.view(-1)[drop] = False
        mask.view(-1)[grow] = True
        # What the optimizer knew of these places belongs to weights that are gone.
        fresh = torch.cat([drop, grow])
        for value in optimizer.state.get(p, {}).values():
            if isinstance(value, Tensor) and value.shape == p.shape:
                value.view(-1)[fresh] = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the masks, the updates done, and the generator's state."""
        return {
            "masks": dict(self._masks),
            "updates": self._updates,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        self._masks = {n: m.to(self.weights[n].device).clone() for n, m in state["masks"].items()}
        self._updates = int(state["updates"])
        self._generator.set_state(state["generator"].cpu())
