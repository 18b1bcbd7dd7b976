"""What a method is: a row of training runs, each decided by what the ones before it left.

The search (``tickets/search.py``) asks for a phase, trains it, and hands it back, until there is
none. All that a method knows lies in ``state_dict``, so that it can be interrupted after any epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray
from torch import Tensor, nn

from snn_deploy.io.seeded import Seeded
from snn_deploy.tickets import loop
from snn_deploy.tickets.loop import copy_state
from snn_deploy.tickets.pruning import Masks
from snn_deploy.tickets.sparsify.base import Sparsifier

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is trained, and how sparse it becomes.

    sparsities: after each pruning round, the last one the ticket's. The dense network, the last
    round, and every method's only run train ``epochs`` epochs, the rounds between ``round_epochs``.
    rewind_epoch: rounds start from the dense network's weights after so many epochs. qat_epochs: of
    what follows the method. layer_adaptive: see ``pruning.global_magnitude``.
    """

    sparsity: float
    sparsities: tuple[float, ...]
    epochs: int
    round_epochs: int
    rewind_epoch: int
    qat_epochs: int = 0
    layer_adaptive: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """What a method works on: the model (changed in place), the training data, the recipe.

    initial: the model's state before any training. penalty: a term of the loss, in every phase.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    recipe: loop.Recipe
    plan: Plan
    seed: int
    initial: State
    masks_from: Masks | None = None
    penalty: loop.Penalty | None = None

    def updates(self, epochs: int) -> int:
        """Return how many updates so many epochs are."""
        return epochs * loop.updates_per_epoch(len(self.x), self.recipe)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Phase:
    """One training run: its name, length, sparsifier (made from the model as it starts), recipe.

    stream: names the run's random numbers. ticket: its outcome is a network of the full number of
    steps, whose test accuracy is of interest; the last phase's always is. model: what is trained,
    where that is not the job's model but shares parameters with it.
    """

    name: str
    epochs: int
    sparsifier: Sparsifier
    recipe: loop.Recipe
    stream: tuple[int | str, ...]
    ticket: bool = True
    model: nn.Module | None = None


class Method(ABC):
    """Base of all methods. parameters: by name, with their defaults; ``params`` are in force."""

    parameters: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, job: Job, params: Mapping[str, Any]) -> None:
        self.job, self.params = job, params
        self.done = 0

    @abstractmethod
    def lengths(self) -> tuple[int, ...]:
        """Return the most epochs that each phase trains."""

    @abstractmethod
    def phase(self) -> Phase | None:
        """Return the next phase and put the model where it starts; None when all are done."""

    def after_epoch(self, epoch: int) -> bool:
        """Look at the model after so many epochs of the phase; True ends it."""
        return False

    def finished(self, masks: Masks) -> None:
        """Take what is needed from the trained model; masks: the sparsifier's."""
        self.done += 1

    def selected(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return samples as the network is to see them now: by default as they are."""
        return x

    def found(self) -> dict[str, Any]:
        """Return what the search found beside the weights, as JSON values."""
        return {}

    def seeded(self) -> dict[str, Seeded]:
        """Return, by name, what the finished weights are stored as in their place."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what an interrupted search needs: tensors and JSON values."""
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.done = int(state["done"])

    def restart(self) -> None:
        """Put the untrained weights back into the model."""
        self.job.model.load_state_dict(self.job.initial)

    def snapshot(self) -> State:
        """Return a copy of the model's state."""
        return copy_state(self.job.model)
