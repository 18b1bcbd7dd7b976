"""The connection ticket: weights that are never trained, and scores that choose among them.

    w_used = gain M w,   M = the share of a layer with the largest scores,   gain = ||M w|| / ||M||

Scores follow the straight-through gradient, ds = dL/dw_used gain w (edge-popup, Ramanujan et al.
2020; for spiking networks arXiv 2311.12060. With binary weights, w_used = gain M sign(w), and the
norms are of order 1, so that the gain is the mean magnitude of what is kept (Diffenderfer and
Kailkhura 2021). Everything else, biases and the scale and shift of batch norms, stays as it is.

The weights come from a seed by a rule that a reader can repeat without torch, so that a ticket
stores the seed, one scale and the mask: see ``io/seeded.py``. Their distribution is our choice, so
that gain M w has the spread that training starts from.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from snn_deploy.errors import UsageError
from snn_deploy.io.seeded import Seeded, uniform
from snn_deploy.tickets import pruning
from snn_deploy.tickets.sparsify.base import Sparsifier
from snn_deploy.tickets.sparsify.theta import Reparametrised


class Connection(Reparametrised):
    """Trains scores for fixed random weights; keeps the same share of every layer.

    sparsity: share of each layer that is left out. seed: of the weights, which this writes into the
    model, and of the first scores. binary: one magnitude per layer. spread: standard deviation of
    the used weights in units of 1 / sqrt(kept inputs). names: the weights that become tickets
    (default all that pruning touches). Raises UsageError.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sparsity: float,
        seed: int,
        binary: bool = False,
        spread: float = 1.7,
        names: tuple[str, ...] | None = None,
    ) -> None:
        if not 0 <= sparsity < 1:
            raise UsageError("the sparsity is a share of weights below 1", used=f"{sparsity:g}")
        chosen = Sparsifier(model).weights
        if names is not None:
            chosen = {name: chosen[name] for name in names}
        self._sparsity, self._binary = sparsity, binary
        self.seeds = {name: [seed, number] for number, name in enumerate(chosen)}
        self._drawn: dict[str, Tensor] = {}
        self._spread: dict[str, float] = {}
        scores = {}
        generator = torch.Generator().manual_seed(seed)
        for name, p in chosen.items():
            numbers = torch.from_numpy(uniform(self.seeds[name], tuple(p.shape)))
            inputs = max(1.0, (1 - sparsity) * p[0].numel())
            # gain M w has the square of w's spread; a uniform number of 1 has one of 1/sqrt(3).
            self._spread[name] = math.sqrt(3.0) * math.sqrt(spread / math.sqrt(inputs))
            self._drawn[name] = numbers.to(p.device)
            scores[name] = torch.rand(p.shape, generator=generator).to(p.device)
        super().__init__(model, scores)
        self.weights = chosen
        self._masks: pruning.Masks = {}
        # By weight: what its numbers (signs, if binary) are multiplied by, a float32 value.
        self.scale: dict[str, float] = {}
        self.write()

    def parameters(self) -> list[nn.Parameter]:
        """Return the weights alone: nothing else is trained."""
        return list(self.weights.values())

    def seeded(self) -> dict[str, Seeded]:
        """Return what the weights are, but for the masks."""
        return {
            name: Seeded(
                seed=tuple(self.seeds[name]),
                shape=tuple(p.shape),
                scale=self.scale[name],
                sign=self._binary,
            )
            for name, p in self.weights.items()
        }

    def weight(self, name: str, theta: Tensor) -> Tensor:
        """Return gain M w for these scores."""
        removed = theta.numel() - max(1, pruning.kept(theta.numel(), self._sparsity))
        mask = torch.ones_like(theta, dtype=torch.bool)
        if removed:
            mask = theta > theta.flatten().kthvalue(removed).values
        kept, spread = self._drawn[name][mask], self._spread[name]
        if self._binary:
            scale = spread * float(kept.abs().mean())
        else:
            scale = spread**2 * float(kept.square().mean().sqrt())
        self._masks[name], self.scale[name] = mask, float(np.float32(scale))
        return torch.where(mask, self._used(name), 0.0)

    def gradient(self, name: str, gradient: Tensor) -> Tensor:
        """Return the scores' gradient, straight through the choice."""
        return gradient * self._used(name)

    def _used(self, name: str) -> Tensor:
        """Return gain w, of which the masks choose: float32 numbers times a float32 scale."""
        drawn = self._drawn[name]
        return (torch.sign(drawn) if self._binary else drawn) * self.scale[name]
