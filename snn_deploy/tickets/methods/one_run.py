"""Methods that find the ticket within one training run, and the controls that they need."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch.nn import functional

from snn_deploy.errors import UsageError
from snn_deploy.io.seeded import MAX_WEIGHTS, Seeded, seeded_of
from snn_deploy.tickets import loop, pruning
from snn_deploy.tickets.methods.base import Job, Method, Phase
from snn_deploy.tickets.sparsify import start
from snn_deploy.tickets.sparsify.base import Masked, Sparsifier
from snn_deploy.tickets.sparsify.connection import Connection
from snn_deploy.tickets.sparsify.drop_grow import DropGrow
from snn_deploy.tickets.sparsify.theta import GradR, Stds


class OneRun(Method):
    """One training run under one sparsifier, from the initial weights."""

    def lengths(self) -> tuple[int, ...]:
        """Return the run's epochs."""
        return (self.job.plan.epochs,)

    def phase(self) -> Phase | None:
        """Return the run."""
        if self.done:
            return None
        self.restart()
        return Phase(
            name="training",
            epochs=self.job.plan.epochs,
            sparsifier=self.sparsifier(),
            recipe=self.job.recipe,
            stream=("round", 0),
        )

    @abstractmethod
    def sparsifier(self) -> Sparsifier:
        """Return what the run trains under."""

    def seed(self, what: str) -> int:
        """Return the seed of a named stream of this job."""
        return loop.stream_seed(self.job.seed, what)


class GradientRewiring(OneRun):
    """Gradient rewiring: how sparse the ticket becomes follows from the prior, not from a mask."""

    parameters: ClassVar[Mapping[str, Any]] = {"prior": 0.1}

    def sparsifier(self) -> Sparsifier:
        """Return GradR."""
        return GradR(self.job.model, sparsity=self.job.plan.sparsity, alpha=self.params["prior"])


class SoftThreshold(OneRun):
    """Soft-threshold growth; threshold 0 meets the sparsity exactly."""

    parameters: ClassVar[Mapping[str, Any]] = {"threshold": 0.0, "schedule": "sine", "stop": 0.5}

    def sparsifier(self) -> Sparsifier:
        """Return Stds."""
        threshold = self.params["threshold"] or None
        return Stds(
            self.job.model,
            updates=self.job.updates(self.job.plan.epochs),
            sparsity=None if threshold else self.job.plan.sparsity,
            threshold=threshold,
            schedule=self.params["schedule"],
            stop=self.params["stop"],
        )


class Rewired(OneRun):
    """Drop and grow; every: epochs from one rewiring to the next."""

    parameters: ClassVar[Mapping[str, Any]] = {"every": 0.25, "death": 0.3, "stop": 0.75}
    settings: ClassVar[Mapping[str, Any]] = {}

    def sparsifier(self) -> Sparsifier:
        """Return DropGrow."""
        job, params = self.job, dict(self.params)
        every = max(1, round(params.pop("every") * job.updates(1)))
        return DropGrow(
            job.model,
            sparsity=job.plan.sparsity,
            updates=job.updates(job.plan.epochs),
            every=every,
            seed=self.seed("rewiring"),
            **self.settings,
            **params,
        )


class Set(Rewired):
    """SET: random growth, the same share at every rewiring, to the end."""

    parameters: ClassVar[Mapping[str, Any]] = {"every": 0.25, "death": 0.3, "stop": 1.0}
    settings: ClassVar[Mapping[str, Any]] = {"growth": "random", "constant": True}


class Ndsnn(Rewired):
    """NDSNN: gradient growth while the number of nonzeros shrinks."""

    parameters: ClassVar[Mapping[str, Any]] = {
        "every": 0.25, "death": 0.5, "least_death": 0.05, "stop": 0.75, "start_sparsity": 0.7,
    }  # fmt: skip

    def sparsifier(self) -> Sparsifier:
        """Return DropGrow; a ticket less sparse than the start begins where it ends."""
        first = min(self.params["start_sparsity"], self.job.plan.sparsity)
        self.params = {**self.params, "start_sparsity": first}
        return super().sparsifier()


class Untrained(OneRun):
    """The connection ticket: random weights, of which only the choice is trained.

    score_lr: learning rate of the scores, which are numbers from 0 to 1 (published: 0.1).
    """

    parameters: ClassVar[Mapping[str, Any]] = {"binary": False, "score_lr": 0.1}

    def __init__(self, job: Job, params: Mapping[str, Any]) -> None:
        super().__init__(job, params)
        self._connection: Connection | None = None
        self._seeded: dict[str, Seeded] = {}

    def phase(self) -> Phase | None:
        """Return the run, at the scores' learning rate."""
        phase = super().phase()
        if phase is None:
            return None
        return replace(phase, recipe=replace(phase.recipe, lr=self.params["score_lr"]))

    def sparsifier(self) -> Sparsifier:
        """Return Connection."""
        self._connection = Connection(
            self.job.model,
            sparsity=self.job.plan.sparsity,
            seed=self.seed("connection"),
            binary=bool(self.params["binary"]),
        )
        return self._connection

    def finished(self, masks: pruning.Masks) -> None:
        """Take seeds and scales from the sparsifier."""
        super().finished(masks)
        assert self._connection is not None
        self._seeded = self._connection.seeded()

    def seeded(self) -> dict[str, Seeded]:
        """Return the weights' seeds, unless they are more than a ticket's reader makes."""
        few = sum(math.prod(entry.shape) for entry in self._seeded.values()) <= MAX_WEIGHTS
        return self._seeded if few else {}

    def state_dict(self) -> dict[str, Any]:
        """Return the progress, and the seeds once they are there."""
        seeded = {name: entry.as_json() for name, entry in self._seeded.items()}
        return {**super().state_dict(), "seeded": seeded}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        super().load_state_dict(state)
        self._seeded = {name: seeded_of(entry) for name, entry in state["seeded"].items()}


class Control(OneRun):
    """Training under masks that no search has found. rescale: weights make up for what is missing,
    by 1 / sqrt(their layer's density).
    """

    def sparsifier(self) -> Sparsifier:
        """Return fixed masks."""
        masks = self.masks()
        if self.params["rescale"]:
            start.rescale(self.job.model, masks)
        return Masked(self.job.model, masks)

    @abstractmethod
    def masks(self) -> pruning.Masks:
        """Return the masks."""


class Random(Control):
    """Random masks. layout: "global", "layer" (each layer as dense as in another ticket, or as
    the sparsity says), "erk".
    """

    parameters: ClassVar[Mapping[str, Any]] = {"layout": "layer", "rescale": True}

    def masks(self) -> pruning.Masks:
        """Return random masks."""
        weights, sparsity = pruning.prunable(self.job.model), self.job.plan.sparsity
        layout = self.params["layout"]
        density: Mapping[str, float] | float = 1 - sparsity
        if layout == "erk":
            shapes = {name: tuple(p.shape) for name, p in weights.items()}
            density = start.erdos_renyi_kernel(shapes, sparsity)
        elif layout == "layer":
            given = self.job.masks_from
            density = (
                dict.fromkeys(weights, 1 - sparsity)
                if given is None
                else {name: float(mask.float().mean()) for name, mask in given.items()}
            )
        elif layout != "global":
            raise UsageError(f"unknown layout {layout!r}", hint="layer, global or erk")
        generator = torch.Generator().manual_seed(self.seed("masks"))
        return start.random_masks(weights, density, generator)


class Static(Random):
    """Random masks with ERK densities: drop and grow without dropping or growing."""

    parameters: ClassVar[Mapping[str, Any]] = {"layout": "erk", "rescale": True}


class Reinitialised(Control):
    """The masks of another ticket over fresh weights, as they are drawn."""

    parameters: ClassVar[Mapping[str, Any]] = {"rescale": False}

    def masks(self) -> pruning.Masks:
        """Return the other ticket's masks."""
        assert self.job.masks_from is not None
        return self.job.masks_from


class Snip(Control):
    """Masks from the sensitivity of the loss before training."""

    parameters: ClassVar[Mapping[str, Any]] = {"samples": 1000, "rescale": False}

    def masks(self) -> pruning.Masks:
        """Return the masks of one batch."""
        job = self.job
        generator = torch.Generator().manual_seed(self.seed("snip"))
        chosen = torch.randperm(len(job.x), generator=generator)[: int(self.params["samples"])]
        device = next(job.model.parameters()).device
        x = loop.training_input(job.x[chosen], job.recipe, generator).to(device)
        y = job.y[chosen].to(device)

        def loss(model: Any) -> torch.Tensor:
            counts = model(x).sum(0) * (job.recipe.temperature / job.recipe.steps)
            return functional.cross_entropy(counts, y)

        return start.snip(job.model, loss, job.plan.sparsity)
