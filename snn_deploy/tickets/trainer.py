"""``train``: from a data set's name to a sparse ticket on disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import snn_deploy
from snn_deploy.errors import InputError, OutputError, UsageError
from snn_deploy.frontends.state import deployable, save_ticket
from snn_deploy.io.ticket import read_ticket
from snn_deploy.tickets import loop, pruning
from snn_deploy.tickets.allocator import keep_freed_memory
from snn_deploy.tickets.checkpoint import load_checkpoint, save_checkpoint
from snn_deploy.tickets.config import (
    TrainConfig,
    arranged,
    coding_of,
    data_of,
    grid_of,
    plan_of,
    recipe_of,
    resolved,
    step_s_of,
)
from snn_deploy.tickets.data.load import Dataset
from snn_deploy.tickets.methods.base import Job, Method
from snn_deploy.tickets.methods.catalog import METHODS
from snn_deploy.tickets.models.build import build
from snn_deploy.tickets.models.spikformer import Spikformer
from snn_deploy.tickets.patches import patch_meta
from snn_deploy.tickets.qat import OnGrid, QatResult, fine_tune
from snn_deploy.tickets.regulariser import RatePenalty
from snn_deploy.tickets.search import Round, Snapshot, search
from snn_deploy.tickets.stops import Cutoff, calibrated

__all__ = [
    "TrainConfig",
    "TrainResult",
    "arranged",
    "check_output",
    "checkpoint_path",
    "data_of",
    "resolved",
    "settings_of",
    "train",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What came out. Accuracies 0..1 on the test data; the dense network's is None where the
    method trains none.

    sparsity, nonzeros: of the weights in the ticket, zeros beyond the masks included. rounds: the
    method's phases; found: what it found beside weights.
    """

    path: Path
    dense_accuracy: float | None
    ticket_accuracy: float
    sparsity: float
    nonzeros: int
    weights: int
    rounds: tuple[Round, ...]
    found: dict[str, Any]
    qat: QatResult | None
    cutoff: Cutoff | None
    seconds: float

    @property
    def timestep_epochs(self) -> int:
        """Epochs times their steps, over all phases."""
        return sum(r.timestep_epochs for r in self.rounds)

    @property
    def cost(self) -> float:
        """Spike rate times density, summed over all epochs."""
        return sum(r.cost for r in self.rounds)


def train(
    config: TrainConfig, *, progress: Callable[[loop.Progress], None] | None = None
) -> TrainResult:
    """Train, prune and write a ticket; progress is called after every epoch.

    The same configuration gives the same weights on the same machine and versions: one thread,
    and every random stream comes from ``seed``. KeyboardInterrupt passes through and leaves the
    checkpoint of the last finished epoch. Raises UsageError, InputError, OutputError.
    """
    config = resolved(config)
    check_output(Path(config.out), config.force)
    data = data_of(config)
    keep_freed_memory()
    start = time.perf_counter()
    # Re-initialised means other weights than the ticket of the same seed began with.
    stream = "fresh weights" if config.method == "reinit" else "weights"
    with loop.deterministic(loop.stream_seed(config.seed, stream)):
        job = _job(config, data)
        method = METHODS[config.method](job, config.params)
        snapshot = _searched(config, method, data, progress)
        result = _saved(config, method, snapshot, data, start, progress)
    checkpoint_path(config.out).unlink(missing_ok=True)
    return result


def _job(config: TrainConfig, data: Dataset) -> Job:
    """Return the untrained model and all that its training needs; refuses what cannot end well."""
    x = torch.from_numpy(arranged(data.x_train[: config.limit], config))
    shape = tuple(x.shape[2:] if config.coding == "events" else x.shape[1:])
    model = build(config.arch, shape, data.classes, hidden=config.hidden, dt_s=step_s_of(config))
    with torch.no_grad():
        for weight in pruning.prunable(model).values():
            weight.mul_(config.weight_scale)
    if config.sparsity:  # the last round must have weights to keep
        pruning.global_magnitude(pruning.prunable(model), config.sparsity)
    grid = grid_of(config)
    if grid is not None:  # and the integers that are fine-tuned for must exist
        example = torch.zeros(1, *shape)
        OnGrid(deployable(model), grid, example_input=example, coding=coding_of(config))
    model.to(device_of(config))
    return Job(
        model=model,
        x=x,
        y=torch.from_numpy(data.y_train[: config.limit]),
        recipe=recipe_of(config),
        plan=plan_of(config),
        seed=config.seed,
        initial=loop.copy_state(model),
        penalty=None if config.rate_penalty is None else RatePenalty(config.rate_penalty),
        masks_from=None if config.masks_from is None else other_masks(config.masks_from, model),
    )


def _test_input(config: TrainConfig, method: Method, data: Dataset) -> NDArray[np.generic]:
    """Return the test samples as every target will see them."""
    x = method.selected(arranged(data.x_test, config))
    return loop.evaluation_input(x, method.job.recipe, config.seed)


def _searched(
    config: TrainConfig,
    method: Method,
    data: Dataset,
    progress: Callable[[loop.Progress], None] | None,
) -> Snapshot:
    """Run the method, from its checkpoint where there is one to resume."""
    settings, checkpoint, model = settings_of(config), checkpoint_path(config.out), method.job.model
    snapshot = load_checkpoint(checkpoint, settings) if config.resume else Snapshot()
    try:
        search(
            method.job,
            method,
            snapshot,
            evaluate=lambda: loop.evaluate(model, _test_input(config, method, data), data.y_test),
            save=lambda s: save_checkpoint(checkpoint, s, settings),
            progress=progress,
        )
    except InputError as error:
        raise error.located(str(checkpoint)) if error.where is None else error from None
    return snapshot


def _saved(
    config: TrainConfig,
    method: Method,
    snapshot: Snapshot,
    data: Dataset,
    start: float,
    progress: Callable[[loop.Progress], None] | None,
) -> TrainResult:
    """Fine-tune and calibrate as asked, write the ticket, and return what came out."""
    job, rounds, grid = method.job, tuple(snapshot.finished), grid_of(config)
    inputs, labels = _test_input(config, method, data), data.y_test
    example = torch.zeros(1, *inputs.shape[2:])
    trained = job.model.cpu()
    model, masks = deployable(trained), snapshot.masks
    if model is not trained:  # another form of the same weights: zeros are its masks
        masks = {n: torch.ones_like(p, dtype=torch.bool) for n, p in weights_of(model)}
    accuracy, tuned, stops = rounds[-1].accuracy, None, None
    if grid is not None:
        assert config.qat_epochs is not None
        tuned = fine_tune(
            model,
            job.x,
            job.y,
            job.recipe,
            grid,
            epochs=config.qat_epochs,
            seed=config.seed,
            masks=masks,
            example_input=example,
            coding=coding_of(config),
            inputs=inputs,
            labels=labels,
            progress=progress,
            done=sum(r.epochs for r in rounds),
        )
        accuracy = loop.evaluate(model, inputs, labels)
    if config.epsilon is not None:
        stops = calibrated(
            model,
            job.x,
            job.y,
            job.recipe,
            epsilon=config.epsilon,
            seed=config.seed,
            inputs=inputs,
            labels=labels,
        )
    # A weight may be 0 without being masked: rounded, or grown and never moved.
    masks = {name: masks[name] & (p != 0) for name, p in weights_of(model)}
    assert accuracy is not None
    result = TrainResult(
        path=Path(config.out),
        dense_accuracy=next((r.accuracy for r in rounds if r.name == "dense"), None),
        ticket_accuracy=accuracy,
        sparsity=pruning.sparsity_of(masks),
        nonzeros=sum(int(m.sum()) for m in masks.values()),
        weights=sum(m.numel() for m in masks.values()),
        rounds=rounds,
        found=method.found(),
        qat=tuned,
        cutoff=stops,
        seconds=time.perf_counter() - start,
    )
    meta = {"patches": patch_meta(trained)} if isinstance(trained, Spikformer) else {}
    save_ticket(
        model,
        result.path,
        example_input=example,
        masks=masks,
        readout={"kind": "count", "cutoff": None if stops is None else list(stops.table)},
        coding=coding_of(config),
        meta={**_meta(settings_of(config), result), **meta},
        # Weights that were rounded, or put into another form, have no seed.
        seeded=method.seeded() if grid is None and model is trained else None,
        force=config.force,
    )
    return result


def checkpoint_path(out: str | Path) -> Path:
    """Return where the checkpoint of a ticket stands: ``<out>.ckpt``."""
    return Path(f"{os.fspath(out)}.ckpt")


def weights_of(model: torch.nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    """Return the weights that masks are of, with their names."""
    return pruning.prunable(model).items()


def device_of(config: TrainConfig) -> torch.device:
    """Return where to train; UsageError for a device that is not there."""
    if config.device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(config.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"there is no device {config.device!r}",
            used=str(error).splitlines()[0],
            hint="--compute-on cpu, or cuda where torch sees a GPU",
        ) from None
    return device


def other_masks(path: str | Path, model: torch.nn.Module) -> pruning.Masks:
    """Return another ticket's masks for ``model``; InputError where they do not fit."""
    masks = {k: torch.from_numpy(np.array(m, bool)) for k, m in read_ticket(path).masks.items()}
    weights = pruning.prunable(model)
    wanted = {name: tuple(p.shape) for name, p in weights.items()}
    found = {name: tuple(mask.shape) for name, mask in masks.items() if mask.ndim > 1}
    if found != wanted:
        differing = sorted(wanted.items() ^ found.items())
        raise InputError(
            "the other ticket's masks are not those of this network",
            where=str(path),
            used=", ".join(f"{name} {list(shape)}" for name, shape in differing[:4]),
            hint="train it with the same --arch and --data",
        )
    return {name: masks[name] for name in weights}


def check_output(out: Path, force: bool) -> None:
    """Refuse before training what could not be written after it."""
    if out.exists() and not force:
        raise OutputError(f"{out} exists already", where=str(out), hint="add --force to replace it")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise OutputError(
            "the folder of the ticket does not exist, or is not writable",
            where=str(out.parent),
            hint="create the folder, or choose another one",
        )


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Return what fixes the weights, as JSON values: paths and switches do not."""
    settings = asdict(config)
    settings["qat"] = None if config.qat is None else config.qat.name
    for name in ("out", "data_dir", "device", "resume", "force"):
        del settings[name]
    settings["masks_from"] = None if config.masks_from is None else str(config.masks_from)
    settings["params"] = dict(config.params)
    settings["hidden"] = list(config.hidden or ())
    return settings


def _meta(settings: dict[str, Any], result: TrainResult) -> dict[str, Any]:
    return {
        "method": settings["method"],
        "seed": settings["seed"],
        "data": settings["data"],
        "settings": settings,
        "dense_accuracy": result.dense_accuracy,
        "ticket_accuracy": result.ticket_accuracy,
        "sparsity": result.sparsity,
        "rounds": [asdict(r) for r in result.rounds],
        "timestep_epochs": result.timestep_epochs,
        "cost": result.cost,
        "found": result.found,
        "qat": None if result.qat is None else asdict(result.qat),
        "cutoff": None if result.cutoff is None else result.cutoff.as_json(),
        "versions": {
            "snn-deploy": getattr(snn_deploy, "__version__", "unknown"),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
