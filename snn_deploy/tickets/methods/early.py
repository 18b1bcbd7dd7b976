"""Searches that stop early: early-bird tickets, and the early-time step (Kim et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from snn_deploy.errors import UsageError
from snn_deploy.tickets import loop, pruning
from snn_deploy.tickets.methods.base import Job, Method, Phase
from snn_deploy.tickets.methods.imp import Imp
from snn_deploy.tickets.sparsify.base import Masked, Sparsifier


class EarlyBird(Method):
    """Trains the dense network until its pruning masks stop moving, then the ticket from the start.

    After every epoch the masks of the target sparsity are drawn; the search ends when the newest
    differs from each of the ``fifo`` - 1 before it in less than ``distance`` of all entries. The
    search trains at twice the learning rate; the ticket starts from the initial weights.
    """

    parameters: ClassVar[Mapping[str, Any]] = {"fifo": 5, "distance": 0.02, "search_lr": 2.0}

    def __init__(self, job: Job, params: Mapping[str, Any]) -> None:
        super().__init__(job, params)
        if params["fifo"] < 2:
            raise UsageError(
                "masks are compared with those of the epochs before",
                used=f"fifo = {params['fifo']}",
                hint="fifo is 2 or more",
            )
        self._recent: list[pruning.Masks] = []
        self.stop_epoch: int | None = None

    def lengths(self) -> tuple[int, ...]:
        """Return the longest search, and the ticket's training."""
        return self.job.plan.epochs, self.job.plan.epochs

    def phase(self) -> Phase | None:
        """Return the search, then the ticket."""
        job = self.job
        if self.done > 1:
            return None
        self.restart()
        if self.done == 0:
            recipe = replace(job.recipe, lr=self.params["search_lr"] * job.recipe.lr)
            return Phase(
                name="search",
                epochs=job.plan.epochs,
                sparsifier=Sparsifier(job.model),
                recipe=recipe,
                stream=("round", 0),
            )
        return Phase(
            name="ticket",
            epochs=job.plan.epochs,
            sparsifier=Masked(job.model, self._recent[-1]),
            recipe=job.recipe,
            stream=("round", 1),
        )

    def after_epoch(self, epoch: int) -> bool:
        """Draw the masks of this epoch; True where they have settled."""
        if self.done:
            return False
        masks = pruning.global_magnitude(
            pruning.prunable(self.job.model),
            self.job.plan.sparsity,
            layer_adaptive=self.job.plan.layer_adaptive,
        )
        size = int(self.params["fifo"])
        self._recent = [*self._recent, masks][-size:]
        if len(self._recent) < size:
            return False
        furthest = max(mask_distance(masks, other) for other in self._recent[:-1])
        if furthest >= self.params["distance"]:
            return False
        self.stop_epoch = epoch
        return True

    def found(self) -> dict[str, Any]:
        """Return the epoch at which the masks had settled, null where they never did."""
        return {"stop_epoch": self.stop_epoch}

    def state_dict(self) -> dict[str, Any]:
        """Return the recent masks."""
        return {**super().state_dict(), "recent": self._recent, "stop_epoch": self.stop_epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        super().load_state_dict(state)
        self._recent, self.stop_epoch = list(state["recent"]), state["stop_epoch"]


class EarlyTime(Method):
    """Searches with fewer time steps, and trains the ticket with all of them.

    After ``probe_epochs`` epochs of the dense network, T_early is the smallest t' from 2 on at
    which the divergence of the class distributions accumulated to t' from those of all T steps,
    over the divergence at t' = 2, is below ``share``; T where none is. ``search``: the method whose
    phases but the last run at T_early, on recordings with as many frames from anywhere in them.
    The first ``samples`` of the training data are looked at, in evaluation mode.
    """

    parameters: ClassVar[Mapping[str, Any]] = {"probe_epochs": 2, "share": 0.6, "samples": 1000}
    search: type[Method] = Imp

    def __init__(self, job: Job, params: Mapping[str, Any]) -> None:
        super().__init__(job, params)
        self._inner = self.search(job, params)
        self.t_early: int | None = None
        self._divergence: list[float] = []

    def lengths(self) -> tuple[int, ...]:
        """Return the probe's epochs, and those of the search."""
        return int(self.params["probe_epochs"]), *self._inner.lengths()

    def phase(self) -> Phase | None:
        """Return the probe, then the search's phases at T_early but for the last."""
        job = self.job
        if self.done == 0:
            self.restart()
            return Phase(
                name="probe",
                epochs=self.lengths()[0],
                sparsifier=Sparsifier(job.model),
                recipe=job.recipe,
                stream=("probe",),
                ticket=False,
            )
        phase = self._inner.phase()
        if phase is None or self.done == len(self.lengths()) - 1:
            return phase
        assert self.t_early is not None
        return replace(phase, recipe=replace(phase.recipe, steps=self.t_early))

    def after_epoch(self, epoch: int) -> bool:
        """Find T_early at the probe's end; else ask the search."""
        if self.done:
            return self._inner.after_epoch(epoch)
        if epoch == self.lengths()[0]:
            self._divergence = divergence(self._outputs())
            self.t_early = early_step(self._divergence, self.params["share"])
        return False

    def _outputs(self) -> Tensor:
        job, most = self.job, int(self.params["samples"])
        generator = torch.Generator().manual_seed(loop.stream_seed(job.seed, "divergence"))
        x = loop.training_input(job.x[:most], replace(job.recipe, shift=0), generator)
        job.model.eval()
        with torch.no_grad():
            output: Tensor = job.model(x.to(next(job.model.parameters()).device))
        return output * job.recipe.temperature

    def finished(self, masks: pruning.Masks) -> None:
        """Hand the search's phases on."""
        if self.done:
            self._inner.finished(masks)
        super().finished(masks)

    def found(self) -> dict[str, Any]:
        """Return T_early, and the divergences that it follows from, from t' = 2 on."""
        return {
            **self._inner.found(),
            "t_early": self.t_early,
            "steps": self.job.recipe.steps,
            "divergence": self._divergence,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return T_early and the search's state."""
        return {
            **super().state_dict(),
            "t_early": self.t_early,
            "divergence": self._divergence,
            "inner": self._inner.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        super().load_state_dict(state)
        self.t_early, self._divergence = state["t_early"], list(state["divergence"])
        self._inner.load_state_dict(state["inner"])


class EarlyBirdTime(EarlyTime):
    """The early-bird search, with fewer time steps."""

    parameters: ClassVar[Mapping[str, Any]] = {**EarlyTime.parameters, **EarlyBird.parameters}
    search = EarlyBird


def mask_distance(a: pruning.Masks, b: pruning.Masks) -> float:
    """Return the share of all mask entries in which two sets of masks differ."""
    differing = sum(int((a[name] != b[name]).sum()) for name in a)
    total: int = sum(mask.numel() for mask in a.values())
    return differing / total


def divergence(logits: Tensor) -> list[float]:
    """Return KL(P_t || P_T) for t = 2 .. T-1, relative to t = 2, averaged over the samples.

    logits: (steps, samples, classes), per step. P_t: the softmax of the mean over the first t
    steps. The paper's equation; its code has the two the other way round. All 1 where t = 2 has
    no divergence, since nothing follows from a silent network.
    """
    steps = logits.shape[0]
    counts = torch.arange(1, steps + 1, device=logits.device, dtype=logits.dtype)
    means = logits.cumsum(0) / counts[:, None, None]
    log_p = functional.log_softmax(means.double(), dim=-1)
    to_last = [
        float((log_p[t - 1].exp() * (log_p[t - 1] - log_p[-1])).sum(-1).mean())
        for t in range(2, steps)
    ]
    return [value / to_last[0] if to_last[0] > 0 else 1.0 for value in to_last]


def early_step(relative: list[float], share: float) -> int:
    """Return the first t, from 2 on, whose relative divergence is below ``share``; else T."""
    return next((t for t, value in enumerate(relative, 2) if value < share), len(relative) + 2)
