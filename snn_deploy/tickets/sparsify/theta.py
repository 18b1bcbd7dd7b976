"""Sparsifiers that train something else than the weights: theta, of which the weights are made.

Each step puts theta in the weights' place, so that any optimizer updates it with the gradient that
belongs to it, and the weights made of the new theta back.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snn_deploy.errors import UsageError
from snn_deploy.tickets.sparsify.base import Sparsifier


class Reparametrised(Sparsifier, ABC):
    """Weights that are a function of ``theta``; a subclass says which, and its gradient.

    theta: by weight name, of the weight's shape.
    """

    def __init__(self, model: nn.Module, theta: Mapping[str, Tensor]) -> None:
        super().__init__(model)
        self.theta = {name: value.detach().clone() for name, value in theta.items()}

    @abstractmethod
    def weight(self, name: str, theta: Tensor) -> Tensor:
        """Return the weights that theta stands for."""

    @abstractmethod
    def gradient(self, name: str, gradient: Tensor) -> Tensor:
        """Return the gradient with respect to theta from that with respect to the weights."""

    def updated(self, name: str, before: Tensor, after: Tensor, group: Mapping[str, Any]) -> Tensor:
        """Return theta after the optimizer's update; group: the optimizer's settings."""
        return after

    def step(self, optimizer: Optimizer) -> None:
        """Update theta, and the weights from it."""
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        trained = {n: p for n, p in self.weights.items() if p.grad is not None and id(p) in groups}
        with torch.no_grad():
            for name, p in trained.items():
                assert p.grad is not None
                p.grad.copy_(self.gradient(name, p.grad))
                p.copy_(self.theta[name])
        optimizer.step()
        with torch.no_grad():
            for name, p in trained.items():
                self.theta[name] = self.updated(name, self.theta[name], p.clone(), groups[id(p)])
        self.write()

    def write(self) -> None:
        """Put the weights that theta stands for into the model."""
        with torch.no_grad():
            for name, p in self.weights.items():
                p.copy_(self.weight(name, self.theta[name]))

    def state_dict(self) -> dict[str, Any]:
        """Return theta."""
        return {"theta": dict(self.theta)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take theta back, and write the weights."""
        for name, value in state["theta"].items():
            self.theta[name] = value.to(self.weights[name].device).clone()
        self.write()


class GradR(Reparametrised):
    """Gradient rewiring (Chen et al., IJCAI 2021): w = s relu(theta), s the initial sign.

    The gradient reaches theta where it is negative too, so pruned synapses grow back. A Laplace
    prior of strength ``alpha`` around mu = ln(2 p) / alpha, p = 1 - sparsity, pulls theta down
    outside the optimizer's normaliser:

        theta <- theta - lr (step of the optimizer) - lr / (1 - beta1^t) alpha sign(theta - mu)

    There is no mask and no schedule. sparsity (at least 0.5) sets mu; which connectivity comes out
    follows from alpha and the number of updates. Raises UsageError.
    """

    def __init__(self, model: nn.Module, *, sparsity: float, alpha: float = 1e-3) -> None:
        if not 0.5 <= sparsity < 1 or not 0 <= alpha < math.inf:
            raise UsageError(
                "gradient rewiring needs a target sparsity of at least one half",
                used=f"sparsity = {sparsity:g}, alpha = {alpha:g}",
                hint="0.5 <= sparsity < 1 and alpha >= 0",
            )
        weights = Sparsifier(model).weights
        super().__init__(model, {name: p.detach().abs() for name, p in weights.items()})
        self._alpha = alpha
        self._mu = math.log(2 * (1 - sparsity)) / alpha if alpha else -math.inf
        self._sign = {n: torch.where(p.detach() < 0, -1.0, 1.0) for n, p in weights.items()}
        self._updates = 0

    def weight(self, name: str, theta: Tensor) -> Tensor:
        """Return s relu(theta)."""
        return self._sign[name] * theta.clamp_min(0)

    def gradient(self, name: str, gradient: Tensor) -> Tensor:
        """Return s times the weights' gradient, also where theta is negative."""
        return self._sign[name] * gradient

    def updated(self, name: str, before: Tensor, after: Tensor, group: Mapping[str, Any]) -> Tensor:
        """Return theta after the prior's pull."""
        beta = group.get("betas", (0.0,))[0]
        rate = group["lr"] / (1 - beta**self._updates)
        return after - rate * self._alpha * torch.sign(before - self._mu)

    def step(self, optimizer: Optimizer) -> None:
        """Update theta, and the weights from it."""
        self._updates += 1
        super().step(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return theta, signs, and how many updates there were."""
        return {**super().state_dict(), "sign": dict(self._sign), "updates": self._updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back, and write the weights."""
        self._sign = {n: v.to(self.weights[n].device) for n, v in state["sign"].items()}
        self._updates = int(state["updates"])
        super().load_state_dict(state)


class Stds(Reparametrised):
    """Soft-threshold growth (Chen et al., ICML 2022): w = sign(theta) max(|theta| - d, 0).

    The gradient goes straight through; d grows from 0 to ``threshold`` over the first ``stop`` of
    the ``updates`` (published: all of them), in the shape of a quarter sine or linearly
    (``schedule``). threshold None: d is the magnitude
    below which the schedule's share of all theta together lies, so that ``sparsity`` is met exactly
    at the end (our addition). Raises UsageError.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        updates: int,
        sparsity: float | None = None,
        threshold: float | None = None,
        schedule: str = "sine",
        stop: float = 1.0,
    ) -> None:
        if (
            not 0 < stop <= 1
            or (sparsity is None) == (threshold is None)
            or schedule not in ("sine", "linear")
        ):
            raise UsageError(
                "soft thresholds grow to a sparsity or to a threshold",
                used=f"sparsity = {sparsity}, threshold = {threshold}, schedule = {schedule}, "
                f"stop = {stop:g}",
                hint="give one of the two; the schedule is sine or linear, 0 < stop <= 1",
            )
        weights = Sparsifier(model).weights
        super().__init__(model, weights)
        self._total, self._sparsity, self._final = stop * updates, sparsity, threshold
        self._schedule = schedule
        self._updates = 0
        self.threshold = 0.0

    def weight(self, name: str, theta: Tensor) -> Tensor:
        """Return theta, shrunk by the threshold."""
        return torch.sign(theta) * (theta.abs() - self.threshold).clamp_min(0)

    def gradient(self, name: str, gradient: Tensor) -> Tensor:
        """Return the weights' gradient."""
        return gradient

    def write(self) -> None:
        """Move the threshold to where the schedule has it, and write the weights."""
        share = min(1.0, self._updates / self._total)
        share = math.sin(share * math.pi / 2) if self._schedule == "sine" else share
        if self._final is not None:
            self.threshold = share * self._final
        else:
            assert self._sparsity is not None
            every = torch.cat([t.abs().flatten() for t in self.theta.values()])
            pruned = every.numel() - round((1 - share * self._sparsity) * every.numel())
            self.threshold = float(every.kthvalue(pruned).values) if pruned else 0.0
        super().write()

    def step(self, optimizer: Optimizer) -> None:
        """Update theta, the threshold, and the weights from them."""
        self._updates += 1
        super().step(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return theta and how many updates there were."""
        return {**super().state_dict(), "updates": self._updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back, and write the weights."""
        self._updates = int(state["updates"])
        super().load_state_dict(state)
