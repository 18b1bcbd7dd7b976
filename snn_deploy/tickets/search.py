"""The search: a method's phases, one after the other, kept after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from snn_deploy.errors import InputError
from snn_deploy.tickets import loop, pruning
from snn_deploy.tickets.methods.base import Job, Method, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A finished phase. accuracy: 0..1 on the test data, None for what is no ticket.

    epochs: trained; timestep_epochs: the steps of each, summed; cost: spike rate times density,
    summed over the epochs; spike_rate: in the last epoch, per neuron and step.
    """

    number: int
    name: str
    sparsity: float
    accuracy: float | None
    epochs: int
    timestep_epochs: int
    cost: float
    spike_rate: float
    seconds: float = field(compare=False)


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """How far a search has come; what a checkpoint holds.

    method, run: state_dicts, run's of the phase under way (None between phases). model: the weights
    after the last finished phase, masks: its sparsifier's.
    """

    finished: list[Round] = field(default_factory=list)
    method: dict[str, Any] | None = None
    run: dict[str, Any] | None = None
    model: dict[str, torch.Tensor] = field(default_factory=dict)
    masks: pruning.Masks = field(default_factory=dict)


def search(
    job: Job,
    method: Method,
    snapshot: Snapshot,
    *,
    evaluate: Callable[[], float],
    save: Callable[[Snapshot], None],
    progress: Callable[[loop.Progress], None] | None = None,
) -> None:
    """Run what ``snapshot`` lacks of the method and leave the last phase's weights in the model.

    evaluate: the model's accuracy on the test data. save: is called after every epoch; progress
    after that, so that an interrupt there loses nothing.
    """
    with intact():
        if snapshot.method is not None:
            method.load_state_dict(snapshot.method)
        if snapshot.finished:  # the next phase starts from elsewhere; here it shows that it fits
            job.model.load_state_dict(snapshot.model)
    while (phase := _next(method)) is not None:
        run = loop.Run(
            job.model if phase.model is None else phase.model,
            job.x,
            job.y,
            phase.recipe,
            epochs=phase.epochs,
            seed=loop.stream_seed(job.seed, *phase.stream),
            sparsifier=phase.sparsifier,
            penalty=job.penalty,
        )
        if snapshot.run is not None:
            with intact():
                run.load_state_dict(snapshot.run)
        over = False
        while not over:
            record = run.epoch()
            epoch = len(run.records)
            over = method.after_epoch(epoch) or epoch == phase.epochs
            shown = _progress(method, snapshot, phase.name, run, record)
            if over:
                masks = run.sparsifier.masks()
                last = method.done == len(method.lengths()) - 1
                ticket = phase.ticket or last
                snapshot.finished.append(
                    _round(
                        len(snapshot.finished),
                        phase.name,
                        run.records,
                        pruning.sparsity_of(masks),
                        evaluate() if ticket else None,
                    )
                )
                snapshot.model, snapshot.masks = loop.copy_state(job.model), masks
                snapshot.run = None
                method.finished(masks)
            else:
                snapshot.run = run.state_dict()
            snapshot.method = method.state_dict()
            save(snapshot)
            if progress is not None:
                progress(shown)
    job.model.load_state_dict(snapshot.model)


@contextmanager
def intact() -> Iterator[None]:
    """Turn what goes wrong while a snapshot is taken back into an InputError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise InputError(
            "this is not a training checkpoint of ours, or it is damaged",
            hint="remove it and train without --resume",
        ) from error


def _next(method: Method) -> Phase | None:
    with intact():  # it may start from weights that a snapshot held
        return method.phase()


def _round(
    number: int,
    name: str,
    records: list[loop.Epoch],
    sparsity: float,
    accuracy: float | None,
) -> Round:
    return Round(
        number=number,
        name=name,
        sparsity=sparsity,
        accuracy=accuracy,
        epochs=len(records),
        timestep_epochs=sum(r.steps for r in records),
        cost=sum(r.cost for r in records),
        spike_rate=records[-1].spike_rate,
        seconds=sum(r.seconds for r in records),
    )


def _progress(
    method: Method, snapshot: Snapshot, name: str, run: loop.Run, record: loop.Epoch
) -> loop.Progress:
    """Return what is shown; the total is what was trained and what is still planned."""
    lengths, before = method.lengths(), sum(r.epochs for r in snapshot.finished)
    return loop.Progress(
        phase=name,
        epoch=len(run.records),
        epochs=run.epochs,
        done=before + len(run.records),
        total=before + sum(lengths[method.done :]) + method.job.plan.qat_epochs,
        loss=record.loss,
        accuracy=record.accuracy,
        sparsity=1 - record.density,
    )
