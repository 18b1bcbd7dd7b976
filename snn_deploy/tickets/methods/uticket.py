"""Iterative magnitude pruning whose masks balance the work of processing elements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from snn_deploy.engine import load
from snn_deploy.tickets import loop, pruning
from snn_deploy.tickets.balance import balanced, mask_load
from snn_deploy.tickets.methods.base import Job
from snn_deploy.tickets.methods.imp import Imp


class Uticket(Imp):
    """Balances the masks of every pruning round, see ``balance.balanced``.

    Weights that balancing recovers start from where the round rewinds to, and train along.
    """

    parameters: ClassVar[Mapping[str, Any]] = {
        "elements": 16,
        "mapping": "sata",
        "choice": "random",
    }

    def __init__(self, job: Job, params: Mapping[str, Any]) -> None:
        super().__init__(job, params)
        self._found: dict[str, Any] = {}
        self._balanced(pruning.prunable(job.model), {})  # unfit parameters: before the training

    def pruned(self, sparsity: float) -> pruning.Masks:
        """Return the next round's masks, balanced."""
        before = super().pruned(sparsity)
        after = self._balanced(pruning.prunable(self.job.model), before)
        self._found = self._figures(before, after)
        return after

    def _balanced(self, weights: Mapping[str, Any], masks: pruning.Masks) -> pruning.Masks:
        return balanced(
            masks,
            weights,
            self.params["elements"],
            loop.stream_seed(self.job.seed, "round", self.done),
            mapping=self.params["mapping"],
            choice=self.params["choice"],
        )

    def _figures(self, before: pruning.Masks, after: pruning.Masks) -> dict[str, Any]:
        elements, mapping = self.params["elements"], self.params["mapping"]
        loads = [mask_load(masks, elements, mapping) for masks in (before, after)]
        parts = load.decomposition(*loads)
        return {
            "elements": elements,
            "mapping": mapping,
            "utilisation": [one.utilisation for one in loads],
            "idle": [one.idle for one in loads],
            "nonzeros": [one.work for one in loads],
            "cycles": {"before": parts.before, "balanced": parts.balanced, "after": parts.after},
            "layers": [
                {
                    "name": a.name,
                    "utilisation": [load.utilisation(a.work), load.utilisation(b.work)],
                    "ceiling": a.ceiling,
                }
                for a, b in zip(*(one.layers for one in loads), strict=True)
            ],
        }

    def found(self) -> dict[str, Any]:
        """Return the load before and after the last round's balancing, as pairs.

        cycles: before, of the same nonzeros balanced, after. An unpruned network has no rounds.
        """
        return {"balance": self._found} if self._found else {}

    def state_dict(self) -> dict[str, Any]:
        """Return the search's state and the figures."""
        return {**super().state_dict(), "balance": self._found}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them back."""
        super().load_state_dict(state)
        self._found = dict(state["balance"])
