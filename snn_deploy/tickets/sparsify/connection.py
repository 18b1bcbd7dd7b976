"""The connection ticket: weights that are never trained, and scores that choose among them.

    w_used = gain M w,   M = the share of a layer with the largest scores,   gain = ||M w|| / ||M||

Scores follow the straight-through gradient, ds = dL/dw_used gain w (edge-popup, Ramanujan et al.
2020; for spiking networks arXiv 2311.12060. With binary weights, w_used = gain M sign(w), and the
norms are of order 1, so that the gain is the mean magnitude of what is kept (Diffenderfer and
Kailkhura 2021). Everything else, biases and the scale and shift of batch norms, stays as it is.

The weights come from a seed by a rule that a reader can repeat without torch: see
``io/seeded.py``. Their distribution is our choice, so that gain M w has the spread that training
starts from.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from snn_deploy.errors import UsageError
from snn_deploy.io.seeded import uniform
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
        scores = {}
        generator = torch.Generator().manual_seed(seed)
        for name, p in chosen.items():
            drawn = torch.from_numpy(uniform(self.seeds[name], tuple(p.shape)))
            inputs = max(1.0, (1 - sparsity) * p[0].numel())
            # gain M w has the square of w's spread; a uniform number of 1 has one of 1/sqrt(3).
            scale = math.sqrt(3.0) * math.sqrt(spread / math.sqrt(inputs))
            self._drawn[name] = (drawn * scale).to(p.device)
            scores[name] = torch.rand(p.shape, generator=generator).to(p.device)
        super().__init__(model, scores)
        self.weights = chosen
        self._masks: pruning.Masks = {}
        self.gain: dict[str, float] = {}
        self.write()

    def parameters(self) -> list[nn.Parameter]:
        """Return the weights alone: nothing else is trained."""
        return list(self.weights.values())

    def weight(self, name: str, theta: Tensor) -> Tensor:
        """Return gain M w for these scores."""
        removed = theta.numel() - max(1, pruning.kept(theta.numel(), self._sparsity))
        mask = torch.ones_like(theta, dtype=torch.bool)
        if removed:
            mask = theta > theta.flatten().kthvalue(removed).values
        drawn = self._drawn[name]
        kept = drawn[mask]
        if self._binary:
            gain, used = float(kept.abs().mean()), torch.sign(drawn)
        else:
            gain, used = float(kept.square().mean().sqrt()), drawn
        self._masks[name], self.gain[name] = mask, gain
        return gain * used * mask

    def gradient(self, name: str, gradient: Tensor) -> Tensor:
        """Return the scores' gradient, straight through the choice."""
        drawn = torch.sign(self._drawn[name]) if self._binary else self._drawn[name]
        return gradient * self.gain[name] * drawn
