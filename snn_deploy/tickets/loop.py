"""One training run under fixed masks, and the evaluation that deployment repeats exactly."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from snn_deploy.errors import InputError
from snn_deploy.io.inputs import encode
from snn_deploy.ir.network import Coding
from snn_deploy.tickets import pruning

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
    training samples move by up to so many pixels along both axes, each time anew.
    """

    steps: int
    coding: CodingKind
    gain: float
    lr: float
    batch_size: int
    weight_decay: float
    temperature: float = 10.0
    shift: int = 0


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


def fit(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    *,
    epochs: int,
    seed: int,
    masks: Mapping[str, Tensor],
    forward: Callable[[Tensor], Tensor] | None = None,
    after_epoch: Callable[[int, float, float], None] | None = None,
) -> None:
    """Train ``model`` in place for ``epochs`` epochs, with an optimizer and schedule of its own.

    x: (n, ...) analogue samples or (n, steps, ...) events, y: (n,) labels. Masked weights are 0
    at every step. Batches, moves and spikes come from ``seed`` alone. forward: computes in place
    of ``model`` itself, with its parameters. after_epoch gets (epochs done, loss, accuracy).
    Raises InputError where the loss stops being finite.
    """
    forward = model if forward is None else forward
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    batches = math.ceil(len(x) / recipe.batch_size)
    warm_up = max(1, round(0.05 * epochs * batches))
    pruning.apply(model, masks)
    model.train()
    update = 0
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        total_loss, correct = 0.0, 0
        for chosen in order.split(recipe.batch_size):
            share = update / (epochs * batches)
            rate = min(1.0, (update + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * share))
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * rate
            counts = forward(_training_input(x[chosen], recipe, generator)).sum(0)
            loss = functional.cross_entropy(counts * (recipe.temperature / recipe.steps), y[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            pruning.apply(model, masks)
            update += 1
            total_loss += float(loss.detach()) * len(chosen)
            correct += int((counts.argmax(1) == y[chosen]).sum())
        if not math.isfinite(total_loss):
            raise InputError(
                "training diverged: the loss is not finite",
                used=f"epoch {epoch + 1}, learning rate {recipe.lr:g}",
                hint="use a smaller learning rate",
            )
        if after_epoch is not None:
            after_epoch(epoch + 1, total_loss / len(x), correct / len(x))


def _training_input(x: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Return (steps, batch, ...): the events, fresh Bernoulli spikes, or the samples repeated."""
    if recipe.shift:
        x = shifted(x, recipe.shift, generator)
    if recipe.coding == "events":
        return x.movedim(1, 0).to(torch.get_default_dtype())
    if recipe.coding == "direct":
        return (recipe.gain * x).expand(recipe.steps, *x.shape)
    chance = (recipe.gain * x).clamp(0, 1)
    return (torch.rand((recipe.steps, *x.shape), generator=generator) < chance).to(x.dtype)


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
    correct = 0
    with torch.no_grad():
        for start in range(0, len(labels), EVAL_BATCH):
            part = np.ascontiguousarray(inputs[start : start + EVAL_BATCH].swapaxes(0, 1))
            counts = model(torch.from_numpy(part.astype(np.float32))).sum(0)
            # numpy's argmax is defined to take the first of equals; torch's is not.
            guess = counts.numpy().argmax(1)
            correct += int((guess == labels[start : start + EVAL_BATCH]).sum())
    model.train(was_training)
    return correct / len(labels)
