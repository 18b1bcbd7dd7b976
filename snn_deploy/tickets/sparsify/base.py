"""The sparsifier: takes the place of ``optimizer.step()`` in anyone's training loop.

    sparsifier = DropGrow(model, sparsity=0.95, updates=epochs * len(batches))
    optimizer = torch.optim.AdamW(sparsifier.parameters())
    for x, y in batches:
        optimizer.zero_grad()
        loss_of(model(x), y).backward()
        sparsifier.step(optimizer)
    masks = sparsifier.masks()

After every step the model holds the weights that it computes with, pruned ones exactly 0. What a
method needs beside them (theta, scores, masks, generators) stays in the sparsifier and goes
through ``state_dict``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snn_deploy.tickets import pruning


class Sparsifier:
    """Keeps all weights: the base of every method, and dense training.

    model: its parameters are changed in place; move it to its device first. ``weights`` are those
    that pruning touches, by name, see ``pruning.prunable``.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.weights = pruning.prunable(model)

    def parameters(self) -> list[nn.Parameter]:
        """Return what the optimizer should hold."""
        return list(self.model.parameters())

    def step(self, optimizer: Optimizer) -> None:
        """Update the model's parameters from their gradients."""
        optimizer.step()

    def masks(self) -> pruning.Masks:
        """Return which weights are not 0, on the CPU."""
        return {name: (p.detach() != 0).cpu() for name, p in self.weights.items()}

    def density(self) -> float:
        """Return the share of the weights that are not 0."""
        total: int = sum(p.numel() for p in self.weights.values())
        return sum(int(torch.count_nonzero(p)) for p in self.weights.values()) / total

    def state_dict(self) -> dict[str, Any]:
        """Return what an interrupted run needs to go on: tensors and JSON values."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave; the model's weights are restored by the caller."""


class Masked(Sparsifier):
    """Holds given masks: pruned weights are 0 after every step.

    masks: by parameter name, True where a weight stays; weights without a mask all stay.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]) -> None:
        super().__init__(model)
        self._masks = {
            name: mask.to(self.weights[name].device, torch.bool) for name, mask in masks.items()
        }
        self._density = 1 - pruning.sparsity_of(self.masks())
        zero_pruned(self.weights, self._masks)

    def step(self, optimizer: Optimizer) -> None:
        """Update the weights that the masks keep."""
        optimizer.step()
        zero_pruned(self.weights, self._masks)

    def masks(self) -> pruning.Masks:
        """Return the masks, also where a kept weight happens to be 0."""
        every = {n: torch.ones_like(p, dtype=torch.bool) for n, p in self.weights.items()}
        return {name: mask.cpu() for name, mask in {**every, **self._masks}.items()}

    def density(self) -> float:
        """Return the share of the weights that the masks keep."""
        return self._density


def zero_pruned(weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
    """Set the weights that the masks remove to exactly 0, in place."""
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].masked_fill_(~mask, 0.0)
