"""The same training from several seeds, side by side, and how much its outcomes differ."""

from __future__ import annotations

import signal
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import cast

from snn_deploy.errors import ExternalToolError, InputError, SnnDeployError, UsageError
from snn_deploy.io.ticket import read_ticket
from snn_deploy.io.values import number
from snn_deploy.tickets.checkpoint import compare
from snn_deploy.tickets.loop import Progress
from snn_deploy.tickets.trainer import (
    TrainConfig,
    check_output,
    checkpoint_path,
    resolved,
    settings_of,
    train,
)

Told = Callable[[int, Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """What a seed's ticket says of itself. Accuracies 0..1 on the test data, as in TrainResult."""

    seed: int
    path: Path
    dense_accuracy: float | None
    ticket_accuracy: float
    sparsity: float
    timestep_epochs: int
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean and standard deviation (n - 1 in its denominator; None of one value)."""

    mean: float
    deviation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedsResult:
    """All seeds' results in their order, and how they spread. seconds: of this call."""

    results: tuple[SeedResult, ...]
    accuracy: Spread
    sparsity: Spread
    seconds: float


def train_seeds(
    config: TrainConfig, seeds: Sequence[int], *, jobs: int = 1, progress: Told | None = None
) -> SeedsResult:
    """Train a ticket from each seed, in place of the configuration's own, and compare them.

    Tickets stand at ``seed_path(config.out, seed)``, with the weights that ``train`` gives for the
    seed. jobs: trainings at a time; more than one run in processes of their own, so that a script
    needs ``if __name__ == "__main__":``. progress: called with the seed after every epoch.
    resume: seeds with a finished ticket are done, those with a checkpoint go on from it, others
    begin. KeyboardInterrupt ends all and leaves the checkpoints. A seed that fails does not stop
    the others; the first error is raised after them. Raises UsageError, InputError, OutputError,
    and ExternalToolError for a process that died.
    """
    if jobs < 1:
        raise UsageError("at least one training runs at a time", used=f"jobs = {jobs}")
    start = time.perf_counter()
    configs = unfinished(config, seeds)
    for one in configs:
        check_output(Path(one.out), one.force)
    told = progress or _nothing
    errors = _one_by_one(configs, told) if jobs == 1 else _side_by_side(configs, jobs, told)
    if errors:
        raise errors[0]
    results = tuple(_result(one) for one in of_seeds(config, seeds))
    return SeedsResult(
        results=results,
        accuracy=_spread([r.ticket_accuracy for r in results]),
        sparsity=_spread([r.sparsity for r in results]),
        seconds=time.perf_counter() - start,
    )


def seed_path(out: str | Path, seed: int) -> Path:
    """Return where a seed's ticket stands: ``model.pt`` becomes ``model-seed0.pt``."""
    path = Path(out)
    return path.with_name(f"{path.stem}-seed{seed}{path.suffix}")


def unfinished(config: TrainConfig, seeds: Sequence[int]) -> list[TrainConfig]:
    """Return the trainings that are left to do, one per seed.

    Without ``resume`` that is all of them. Raises UsageError (no seeds, or one twice) and
    InputError: nothing to resume, or a finished ticket of other settings.
    """
    configs = of_seeds(config, seeds)
    if not config.resume:
        return configs
    begun = [c for c in configs if checkpoint_path(c.out).exists()]
    finished = [c for c in configs if c not in begun and Path(c.out).exists()]
    if not begun and not finished:
        raise InputError(
            "there is nothing to resume",
            where=", ".join(str(checkpoint_path(c.out)) for c in configs[:3]),
            hint="a checkpoint appears after the first epoch; train without --resume",
        )
    for one in finished:
        _result(one)
    return [replace(c, resume=c in begun) for c in configs if c not in finished]


def of_seeds(config: TrainConfig, seeds: Sequence[int]) -> list[TrainConfig]:
    """Return the configuration of each seed; UsageError for no seeds, or one twice."""
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UsageError(
            "seeds are different whole numbers, 0 or more, at least one",
            used=", ".join(map(str, seeds)) or "none",
            hint="such as range(5)",
        )
    return [replace(config, seed=seed, out=seed_path(config.out, seed)) for seed in seeds]


def _result(config: TrainConfig) -> SeedResult:
    """Return what the ticket of a configuration says; InputError if it is another one's."""
    path = Path(config.out)
    meta = read_ticket(path).meta
    try:
        compare(meta.get("settings"), settings_of(resolved(config)), "ticket")
        dense = meta.get("dense_accuracy")
        return SeedResult(
            seed=config.seed,
            path=path,
            dense_accuracy=None if dense is None else number(dense, "dense_accuracy"),
            ticket_accuracy=number(meta.get("ticket_accuracy"), "ticket_accuracy"),
            sparsity=number(meta.get("sparsity"), "sparsity"),
            timestep_epochs=int(number(meta.get("timestep_epochs"), "timestep_epochs")),
            cost=number(meta.get("cost"), "cost"),
        )
    except InputError as error:
        raise error.located(str(path)) from None


def _spread(values: Sequence[float]) -> Spread:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(mean=statistics.fmean(values), deviation=deviation)


def _nothing(seed: int, progress: Progress) -> None:
    """Tell nobody."""


def _one_by_one(configs: Sequence[TrainConfig], told: Told) -> list[SnnDeployError]:
    errors = []
    for config in configs:
        try:
            train(config, progress=partial(told, config.seed))
        except SnnDeployError as error:
            errors.append(error.located(f"seed {config.seed}"))
    return errors


def _side_by_side(configs: Sequence[TrainConfig], jobs: int, told: Told) -> list[SnnDeployError]:
    """Run each training in a process; what leaves this function leaves no process behind."""
    waiting, errors = deque(configs), []
    running: dict[Connection, tuple[int, SpawnProcess]] = {}
    resource_tracker.ensure_running()  # its own start would let interrupts through again
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                with _uninterrupted():
                    config = waiting.popleft()
                    receiver, process = _started(config)
                    running[receiver] = (config.seed, process)
            for ready in wait(list(running)):
                receiver = cast("Connection", ready)
                seed, process = running[receiver]
                try:
                    said = receiver.recv()
                except (EOFError, OSError):  # closed, or cut off within a message
                    process.join()
                    receiver.close()
                    del running[receiver]
                    if process.exitcode:
                        errors.append(_died(seed, process.exitcode))
                    continue
                if isinstance(said, SnnDeployError):
                    errors.append(said.located(f"seed {seed}"))
                else:
                    told(seed, said)
    finally:
        # A checkpoint is written whole or not at all, so that a process can be ended anywhere.
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()
    return errors


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the end; processes that are started meanwhile never see one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _started(config: TrainConfig) -> tuple[Connection, SpawnProcess]:
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_train_and_tell, args=(config, sender), daemon=True)
    process.start()
    sender.close()
    return receiver, process


def _train_and_tell(config: TrainConfig, sender: Connection) -> None:
    """Train, in a process of its own, and send every epoch's progress, or the error."""
    with suppress(BrokenPipeError):  # the other end was killed: end at the next epoch
        try:
            train(config, progress=sender.send)
        except SnnDeployError as error:
            sender.send(error)


def _died(seed: int, code: int) -> SnnDeployError:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return ExternalToolError(
        f"a training process {how}",
        where=f"seed {seed}",
        hint="its checkpoint is kept: --resume, with fewer --jobs if memory was short",
    )
