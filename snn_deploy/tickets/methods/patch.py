"""The patch ticket of a spiking transformer, on the connection ticket of its stem.

First the stem (the conv projection module) is found under a head of its own, as a choice among
random weights; the head is dropped. Then each sample's patches are ranked by what that sparse stem
makes of them, and blocks and head are trained on the best (arXiv 2311.12060: ECPT, in sequence).
The stem stays as it was found, so that it ranks after the training as it did before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray

from snn_deploy.errors import UsageError
from snn_deploy.ir.network import Coding
from snn_deploy.tickets import loop, pruning
from snn_deploy.tickets.methods.base import Job, Method, Phase, State
from snn_deploy.tickets.models.spikformer import ProjectionNet, Spikformer
from snn_deploy.tickets.patches import Selector, selector_of, tokens_kept
from snn_deploy.tickets.sparsify.base import Sparsifier
from snn_deploy.tickets.sparsify.connection import Connection


class Patch(Method):
    """Finds the stem's connection ticket, then trains the rest on the best patches.

    patches: share of the patches that each sample keeps. score_lr, binary: of the connection
    ticket. The sparsity is the stem's. Raises UsageError for a network that is no transformer.
    """

    parameters: ClassVar[Mapping[str, Any]] = {"patches": 0.7, "score_lr": 0.1, "binary": False}

    def __init__(self, job: Job, params: Mapping[str, Any]) -> None:
        super().__init__(job, params)
        if not isinstance(job.model, Spikformer):
            raise UsageError(
                "only a transformer divides its samples into patches",
                hint="--arch spikformer-tiny",
            )
        if not 0 < params["patches"] <= 1:
            raise UsageError(
                "the share of patches to keep lies above 0, and is 1 at most",
                used=f"patches = {params['patches']:g}",
                hint="0.7 drops three in ten",
            )
        self._transformer = job.model
        self._stem: State = {}
        self._tokens: float | None = None

    def lengths(self) -> tuple[int, ...]:
        """Return the epochs of the projection, and of the rest."""
        return self.job.plan.round_epochs, self.job.plan.epochs

    def phase(self) -> Phase | None:
        """Return the search for the stem, then the training of the rest."""
        job = self.job
        if self.done > 1:
            return None
        self.restart()
        if self.done == 0:
            with torch.random.fork_rng(devices=[]):  # the head's weights are drawn again below
                net = ProjectionNet(self._transformer)
            net.to(next(job.model.parameters()).device)
            return Phase(
                name="projection",
                epochs=self.lengths()[0],
                sparsifier=Connection(
                    net,
                    sparsity=job.plan.sparsity,
                    seed=loop.stream_seed(job.seed, "connection"),
                    binary=self.params["binary"],
                ),
                recipe=replace(job.recipe, lr=self.params["score_lr"]),
                stream=("projection",),
                ticket=False,
                model=net,
            )
        self._transformer.stem.load_state_dict(self._stem)
        self._transformer.stem.freeze()
        kept = self.selected(job.x.numpy())
        self._tokens = tokens_kept(kept)
        job.x = torch.from_numpy(kept)
        return Phase(
            name="patches",
            epochs=self.lengths()[1],
            sparsifier=Trained(self._transformer),
            recipe=job.recipe,
            stream=("patches",),
        )

    def selected(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return samples whose other patches are dropped; x has all patches and a keep channel."""
        if not self._stem:
            return x
        return self._selector().keep_patches(x[..., :-1, :, :], self.params["patches"])

    def _selector(self) -> Selector:
        recipe = self.job.recipe
        coding = Coding(
            kind=recipe.coding, steps=recipe.steps, seed=self.job.seed, gain=recipe.gain
        )
        return selector_of(self._transformer, coding)

    def finished(self, masks: pruning.Masks) -> None:
        """Keep the stem that was found."""
        if self.done == 0:
            self._stem = {k: v.clone() for k, v in self._transformer.stem.state_dict().items()}
        super().finished(masks)

    def found(self) -> dict[str, Any]:
        """Return the tokens kept of each sample, and how many there are."""
        rows, columns = self._transformer.grid
        return {"tokens": rows * columns, "tokens_kept": self._tokens}

    def state_dict(self) -> dict[str, Any]:
        """Return the stem that was found."""
        return {**super().state_dict(), "stem": self._stem, "tokens_kept": self._tokens}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        super().load_state_dict(state)
        self._stem, self._tokens = dict(state["stem"]), state["tokens_kept"]


class Trained(Sparsifier):
    """Updates what is not frozen."""

    def parameters(self) -> list[torch.nn.Parameter]:
        """Return the parameters that take gradients."""
        return [p for p in self.model.parameters() if p.requires_grad]
