"""Iterative magnitude pruning with late rewinding, resumable after every round.

Round 0 trains the dense network and keeps its state after ``rewind_epoch`` epochs. Each later
round prunes the same share of the survivors by global magnitude, goes back to that state, and
trains again under the new masks (Frankle et al. 2020; for spiking networks Kim et al. 2022).
Every round draws from its own seeded stream, so a resumed run repeats an uninterrupted one.
"""

from __future__ import annotations

import io
import pickle
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snn_deploy.errors import InputError
from snn_deploy.io.files import atomic_write, read_limited
from snn_deploy.tickets import loop, pruning

State = dict[str, Tensor]
CHECKPOINT_FORMAT = "snn-deploy/train-checkpoint"
CHECKPOINT_VERSION = 1
_MAX_CHECKPOINT_BYTES = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Epochs of each phase and the sparsity after each round.

    The dense network and the last round train ``epochs`` epochs, the rounds between
    ``round_epochs``, each on a learning-rate schedule of its own. Rewinding goes back to the
    dense network's state after ``rewind_epoch`` epochs. qat_epochs: of what follows the rounds.
    layer_adaptive: how weights are compared, see ``pruning.global_magnitude``.
    """

    sparsities: tuple[float, ...]
    epochs: int
    round_epochs: int
    rewind_epoch: int
    qat_epochs: int = 0
    layer_adaptive: bool = False

    def length(self, number: int) -> int:
        """Return how many epochs round ``number`` (0: dense) runs."""
        return self.epochs if number in (0, len(self.sparsities)) else self.round_epochs

    @property
    def total(self) -> int:
        """Epochs of the whole job."""
        return sum(self.length(k) for k in range(len(self.sparsities) + 1)) + self.qat_epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A finished round: 0 is the dense network. accuracy: 0..1 on the test data."""

    number: int
    sparsity: float
    accuracy: float


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """Everything that the next round needs; what a checkpoint holds."""

    finished: list[Round] = field(default_factory=list)
    state: State = field(default_factory=dict)
    rewind: State = field(default_factory=dict)
    masks: pruning.Masks = field(default_factory=dict)


def run(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: loop.Recipe,
    plan: Plan,
    *,
    seed: int,
    evaluate: Callable[[nn.Module], float],
    snapshot: Snapshot,
    save: Callable[[Snapshot], None],
    progress: Callable[[loop.Progress], None] | None = None,
) -> Snapshot:
    """Run the rounds that ``snapshot`` lacks and leave the last one's weights in ``model``.

    save is called after every round. An interrupt loses the round under way and nothing else.
    """
    if snapshot.finished:
        model.load_state_dict(snapshot.state)
    for number in range(len(snapshot.finished), len(plan.sparsities) + 1):
        if number:
            snapshot.masks = pruning.global_magnitude(
                pruning.prunable(model),
                plan.sparsities[number - 1],
                snapshot.masks or None,
                layer_adaptive=plan.layer_adaptive,
            )
            model.load_state_dict(snapshot.rewind)
        elif not plan.rewind_epoch:
            snapshot.rewind = copy_state(model)

        def after_epoch(epoch: int, loss: float, accuracy: float, number: int = number) -> None:
            if number == 0 and epoch == plan.rewind_epoch:
                snapshot.rewind = copy_state(model)
            if progress is not None:
                progress(_report(plan, number, epoch, loss, accuracy, snapshot.masks))

        loop.fit(
            model,
            x,
            y,
            recipe,
            epochs=plan.length(number),
            seed=loop.stream_seed(seed, "round", number),
            masks=snapshot.masks,
            after_epoch=after_epoch,
        )
        snapshot.state = copy_state(model)
        sparsity = pruning.sparsity_of(snapshot.masks)
        snapshot.finished.append(Round(number=number, sparsity=sparsity, accuracy=evaluate(model)))
        save(snapshot)
    return snapshot


def copy_state(model: nn.Module) -> State:
    """Return a copy of the state_dict that later training does not change."""
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def _report(
    plan: Plan, number: int, epoch: int, loss: float, accuracy: float, masks: pruning.Masks
) -> loop.Progress:
    return loop.Progress(
        phase=f"round {number}/{len(plan.sparsities)}" if number else "dense",
        epoch=epoch,
        epochs=plan.length(number),
        done=sum(plan.length(k) for k in range(number)) + epoch,
        total=plan.total,
        loss=loss,
        accuracy=accuracy,
        sparsity=pruning.sparsity_of(masks),
    )


def save_checkpoint(path: Path, snapshot: Snapshot, config: dict[str, Any]) -> None:
    """Write ``snapshot`` and its settings, whole or not at all; raises OutputError."""
    content = {
        "format": CHECKPOINT_FORMAT,
        "version": CHECKPOINT_VERSION,
        "config": config,
        "finished": [[r.number, r.sparsity, r.accuracy] for r in snapshot.finished],
        "state": snapshot.state,
        "rewind": snapshot.rewind,
        "masks": snapshot.masks,
    }
    # Through memory: torch turns a full disk into a RuntimeError, atomic_write into exit 10.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(path, force=True) as file:
        file.write(buffer.getbuffer())


def load_checkpoint(path: Path, config: dict[str, Any], model: nn.Module) -> Snapshot:
    """Return the snapshot at ``path``; InputError where it is broken or of other settings."""
    if not path.is_file():
        raise InputError(
            "there is nothing to resume",
            where=str(path),
            hint="a checkpoint appears after the first finished round; train without --resume",
        )
    data = read_limited(path, _MAX_CHECKPOINT_BYTES)
    broken = InputError(
        "this is not a training checkpoint of ours, or it is damaged",
        where=str(path),
        hint="remove it and train without --resume",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on foreign pickles before refusing them
            content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as err:
        raise broken from err
    if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
        raise broken
    if content.get("version") != CHECKPOINT_VERSION:
        raise InputError(
            "the checkpoint is of another version of snn-deploy",
            where=str(path),
            used=f"version {content.get('version')}, this one reads {CHECKPOINT_VERSION}",
            hint="train without --resume",
        )
    _compare(path, content.get("config"), config)
    try:
        snapshot = Snapshot(
            finished=[
                Round(number=int(n), sparsity=float(s), accuracy=float(a))
                for n, s, a in content["finished"]
            ],
            state=dict(content["state"]),
            rewind=dict(content["rewind"]),
            masks=dict(content["masks"]),
        )
        probe = copy_state(model)
        for state in (snapshot.rewind, snapshot.state):
            model.load_state_dict(state)
        model.load_state_dict(probe)
        shapes = {name: p.shape for name, p in pruning.prunable(model).items()}
        masks = {name: m.shape for name, m in snapshot.masks.items() if m.dtype == torch.bool}
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as err:
        raise broken from err
    numbers = [r.number for r in snapshot.finished]
    if numbers != list(range(len(numbers))) or not numbers or masks not in ({}, shapes):
        raise broken
    return snapshot


def _compare(path: Path, found: object, wanted: dict[str, Any]) -> None:
    found = found if isinstance(found, dict) else {}
    keys = sorted(found.keys() | wanted.keys(), key=str)
    differing = [k for k in keys if found.get(k) != wanted.get(k)]
    if differing:
        shown = [f"{k}: {found.get(k)!r} then, {wanted.get(k)!r} now" for k in differing]
        raise InputError(
            "the checkpoint was made with other settings",
            where=str(path),
            used=re.sub(r"\s+", " ", "; ".join(shown)),
            hint="give the same settings as before, or train without --resume",
        )
