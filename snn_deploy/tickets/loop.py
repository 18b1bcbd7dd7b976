"""One training run, and the evaluation that deployment repeats exactly."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from snn_deploy.errors import InputError
from snn_deploy.io.inputs import encode
from snn_deploy.ir.network import Coding
from snn_deploy.tickets.rate import SpikeRate
from snn_deploy.tickets.sparsify.base import Sparsifier

CodingKind = Literal["rate", "direct", "events"]
EVAL_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a progress bar shows after each epoch.

    phase: "dense", "round k/n" or "qat". epoch counts from 1 to epochs within the phase; done of
    total counts epochs over the whole job. loss and accuracy (0..1) are of the training data in
    this epoch, sparsity of the masks in force.
    """

    phase: str
    epoch: int
    epochs: int
    done: int
    total: int
    loss: float
    accuracy: float
    sparsity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Numbers of one training run: lr is Adam's peak, reached after a warm-up, then a cosine.

    temperature scales spike counts into logits: a lead of ``steps`` spikes is worth it. shift:
    training samples move by up to so many pixels along both axes, each time anew. amp: layers
    compute in bfloat16, neurons and the loss in float32.
    """

    steps: int
    coding: CodingKind
    gain: float
    lr: float
    batch_size: int
    weight_decay: float
    temperature: float = 10.0
    shift: int = 0
    amp: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """What one epoch was: T, loss and accuracy (0..1) of the training data while it ran, spikes
    per neuron and step, the share of weights that were not 0, and its time.
    """

    steps: int
    loss: float
    accuracy: float
    spike_rate: float
    density: float
    seconds: float

    @property
    def cost(self) -> float:
        """Spike rate times density: what an event-driven machine would do, per dense weight."""
        return self.spike_rate * self.density


class Penalty(Protocol):
    """A term of the loss that sees what happens inside the model while it computes."""

    def watch(self, model: nn.Module) -> AbstractContextManager[object]:
        """Return a context in which the model's forward pass is observed."""
        ...

    def __call__(self, output: Tensor, labels: Tensor) -> Tensor:
        """Return the term for what was observed; output: (steps, batch, classes)."""
        ...


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Run torch on one thread from a seeded global generator; give back what was there."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


def stream_seed(*parts: int | str) -> int:
    """Return a 63-bit seed for one named stream: (seed, "round", 3) never repeats another."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Run:
    """One training run of a model, epoch by epoch; ``state_dict`` holds all that the next needs.

    x: (n, ...) analogue samples or (n, steps, ...) events, y: (n,) labels, both on the CPU; the
    model is trained in place, where its parameters are. Batches, moves and spikes come from
    ``seed`` alone. sparsifier: updates the model (None: all of it, dense). forward: computes in
    place of ``model`` itself, with its parameters. penalty: a term of the loss from the model's
    output and the labels, computed under ``penalty.watch``.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        recipe: Recipe,
        *,
        epochs: int,
        seed: int,
        sparsifier: Sparsifier | None = None,
        forward: Callable[[Tensor], Tensor] | None = None,
        penalty: Penalty | None = None,
    ) -> None:
        self._model, self._x, self._y, self._recipe = model, x, y, recipe
        self.sparsifier = Sparsifier(model) if sparsifier is None else sparsifier
        self._forward = model if forward is None else forward
        self._penalty = penalty
        self._generator = torch.Generator().manual_seed(seed)
        self._optimizer = torch.optim.AdamW(
            self.sparsifier.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
        )
        self._device = next(model.parameters()).device
        self._updates = epochs * updates_per_epoch(len(x), recipe)
        self.epochs = epochs
        self.records: list[Epoch] = []

    def epoch(self) -> Epoch:
        """Train one epoch more; raises InputError where the loss stops being finite."""
        model, recipe, done = self._model, self._recipe, len(self.records)
        start = time.perf_counter()
        update = done * updates_per_epoch(len(self._x), recipe)
        warm_up = max(1, round(0.05 * self._updates))
        order = torch.randperm(len(self._x), generator=self._generator)
        total_loss, correct, density = 0.0, 0, 0.0
        model.train()
        with SpikeRate(model) as rate:
            for chosen in order.split(recipe.batch_size):
                share = min(1.0, (update + 1) / warm_up)
                share *= 0.5 * (1 + math.cos(math.pi * update / self._updates))
                for group in self._optimizer.param_groups:
                    group["lr"] = recipe.lr * share
                x = training_input(self._x[chosen], recipe, self._generator).to(self._device)
                y = self._y[chosen].to(self._device)
                density += self.sparsifier.density() * len(chosen)
                loss, counts = self._loss(x, y)
                self._optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.sparsifier.step(self._optimizer)
                update += 1
                total_loss += float(loss.detach()) * len(chosen)
                correct += int((counts.argmax(1) == y).sum())
        if not math.isfinite(total_loss):
            raise InputError(
                "training diverged: the loss is not finite",
                used=f"epoch {done + 1}, learning rate {recipe.lr:g}",
                hint="use a smaller learning rate",
            )
        n = len(self._x)
        self.records.append(
            Epoch(
                steps=recipe.steps,
                loss=total_loss / n,
                accuracy=correct / n,
                spike_rate=rate.mean(),
                density=density / n,
                seconds=time.perf_counter() - start,
            )
        )
        return self.records[-1]

    def _loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of a batch, and its output spikes summed over the steps."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._recipe.amp):
            if self._penalty is None:
                output = self._forward(x)
            else:
                with self._penalty.watch(self._model):
                    output = self._forward(x)
        counts = output.float().sum(0)
        logits = counts * (self._recipe.temperature / self._recipe.steps)
        loss = functional.cross_entropy(logits, y)
        if self._penalty is not None:
            loss = loss + self._penalty(output, y)
        return loss, counts

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the last epoch: tensors and JSON values."""
        return {
            "model": copy_state(self._model),
            "optimizer": self._optimizer.state_dict(),
            "sparsifier": self.sparsifier.state_dict(),
            "generator": self._generator.get_state(),
            "records": [asdict(record) for record in self.records],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; raises KeyError, TypeError, ValueError or RuntimeError."""
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.sparsifier.load_state_dict(state["sparsifier"])
        self._generator.set_state(state["generator"])
        self.records = [Epoch(**record) for record in state["records"]]


def fit(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    *,
    epochs: int,
    seed: int,
    sparsifier: Sparsifier | None = None,
    forward: Callable[[Tensor], Tensor] | None = None,
    after_epoch: Callable[[int, Epoch], None] | None = None,
) -> list[Epoch]:
    """Train ``model`` in place for ``epochs`` epochs, see Run; after_epoch: (number, record)."""
    run = Run(model, x, y, recipe, epochs=epochs, seed=seed, sparsifier=sparsifier, forward=forward)
    for number in range(1, epochs + 1):
        record = run.epoch()
        if after_epoch is not None:
            after_epoch(number, record)
    return run.records


def updates_per_epoch(samples: int, recipe: Recipe) -> int:
    """Return how many batches an epoch has."""
    return math.ceil(samples / recipe.batch_size)


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the state_dict that later training does not change."""
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def training_input(x: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Return (steps, batch, ...): the events, fresh Bernoulli spikes, or the samples repeated."""
    if recipe.shift:
        x = shifted(x, recipe.shift, generator)
    if recipe.coding == "events":
        return windows(x, recipe.steps, generator).movedim(1, 0).to(torch.get_default_dtype())
    if recipe.coding == "direct":
        return (recipe.gain * x).expand(recipe.steps, *x.shape)
    chance = (recipe.gain * x).clamp(0, 1)
    drawn = torch.rand((recipe.steps, *x.shape), generator=generator)
    return drawn.lt_(chance).to(x.dtype)


def windows(x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Return (n, steps, ...): as many successive frames of each recording (n, frames, ...).

    Where they start is drawn from ``generator``, uniformly: a run of fewer steps than a recording
    has frames sees all of it over the epochs. Recordings of ``steps`` frames come back whole.
    """
    spare = x.shape[1] - steps
    if spare <= 0:
        return x
    first = torch.randint(spare + 1, (len(x), 1), generator=generator)
    return x[torch.arange(len(x))[:, None], first + torch.arange(steps)]


def shifted(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Return samples (n, ..., H, W), each moved by -most..most pixels along both axes.

    What moves in is 0. The moves are drawn from ``generator``, uniformly.
    """
    height, width = x.shape[-2:]
    wide = functional.pad(x, (most,) * 4)
    moves = torch.randint(2 * most + 1, (len(x), 2), generator=generator).tolist()
    rows = zip(wide, moves, strict=True)
    return torch.stack([s[..., i : i + height, j : j + width] for s, (i, j) in rows])


def evaluation_input(x: NDArray[Any], recipe: Recipe, seed: int) -> NDArray[np.generic]:
    """Return (n, steps, ...) as every target sees it: encoded once, on the host, from ``seed``."""
    coding = Coding(kind=recipe.coding, steps=recipe.steps, seed=seed, gain=recipe.gain)
    return np.asarray(encode(x, coding))


def evaluate(model: nn.Module, inputs: NDArray[np.generic], labels: NDArray[np.int64]) -> float:
    """Return the accuracy (0..1) by spike count, the lowest index winning a tie.

    inputs: (n, steps, ...) as ``evaluation_input`` gives them. The training flag is restored.
    """
    was_training = model.training
    model.eval()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    correct = 0
    with torch.no_grad():
        for start in range(0, len(labels), EVAL_BATCH):
            part = np.ascontiguousarray(inputs[start : start + EVAL_BATCH].swapaxes(0, 1))
            counts = model(torch.from_numpy(part.astype(np.float32)).to(device)).sum(0)
            # numpy's argmax is defined to take the first of equals; torch's is not.
            guess = counts.cpu().numpy().argmax(1)
            correct += int((guess == labels[start : start + EVAL_BATCH]).sum())
    model.train(was_training)
    return correct / len(labels)
