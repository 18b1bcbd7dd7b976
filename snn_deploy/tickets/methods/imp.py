"""Iterative magnitude pruning with late rewinding.

Round 0 trains the dense network and keeps its state after ``rewind_epoch`` epochs. Each later
round prunes the same share of the survivors by global magnitude, goes back to that state, and
trains again under the new masks (Frankle et al. 2020; for spiking networks Kim et al. 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snn_deploy.tickets import pruning
from snn_deploy.tickets.methods.base import Job, Method, Phase, State
from snn_deploy.tickets.sparsify.base import Masked


class Imp(Method):
    """Dense training, then one pruning round after the other."""

    def __init__(self, job: Job, params: Mapping[str, Any]) -> None:
        super().__init__(job, params)
        self.masks: pruning.Masks = {}
        self.rewind: State = {}

    def lengths(self) -> tuple[int, ...]:
        """Return the epochs of the dense network and of each round."""
        plan = self.job.plan
        last = len(plan.sparsities)
        return tuple(
            plan.epochs if number in (0, last) else plan.round_epochs for number in range(last + 1)
        )

    def phase(self) -> Phase | None:
        """Return the next round, from the weights that it rewinds to."""
        job, last = self.job, len(self.job.plan.sparsities)
        if self.done > last:
            return None
        if self.done:
            job.model.load_state_dict(self.rewind)
        else:
            self.restart()
            if not job.plan.rewind_epoch:
                self.rewind = self.snapshot()
        return Phase(
            name=f"round {self.done}/{last}" if self.done else "dense",
            epochs=self.lengths()[self.done],
            sparsifier=Masked(job.model, self.masks),
            recipe=job.recipe,
            stream=("round", self.done),
        )

    def after_epoch(self, epoch: int) -> bool:
        """Keep the state to rewind to."""
        if self.done == 0 and epoch == self.job.plan.rewind_epoch:
            self.rewind = self.snapshot()
        return False

    def finished(self, masks: pruning.Masks) -> None:
        """Prune for the next round."""
        sparsities = self.job.plan.sparsities
        if self.done < len(sparsities):
            self.masks = self.pruned(sparsities[self.done])
        super().finished(masks)

    def pruned(self, sparsity: float) -> pruning.Masks:
        """Return the next round's masks, from the trained weights."""
        return pruning.global_magnitude(
            pruning.prunable(self.job.model),
            sparsity,
            self.masks or None,
            layer_adaptive=self.job.plan.layer_adaptive,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return masks, and the state to rewind to."""
        return {**super().state_dict(), "masks": self.masks, "rewind": self.rewind}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        super().load_state_dict(state)
        self.masks, self.rewind = dict(state["masks"]), dict(state["rewind"])
