"""``snn-deploy train --seeds``: a ticket from each of several seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from snn_deploy.cli.output import check_targets, emit
from snn_deploy.cli.training import trainer, training_progress


def train_from_seeds(options: dict[str, Any]) -> None:
    """Train, and report how the tickets differ."""
    _, config = trainer(options)
    from snn_deploy.report.seeds import seeds_report
    from snn_deploy.tickets.samples import save_test_set
    from snn_deploy.tickets.seeds import train_seeds, unfinished
    from snn_deploy.tickets.trainer import checkpoint_path

    seeds = range(config.seed, config.seed + options["seeds"])
    left = unfinished(config, seeds)
    tests = _test_sets(config, seeds, options["test_to"])
    checked = {**options, "out": None, "test_to": None}
    check_targets(checked, *(Path(one.out) for one in left), *(path for _, path in tests))
    kept = [checkpoint_path(one.out) for one in left]
    for path in kept:
        if path.exists() and not config.resume:
            click.echo(f"warning: {path} of an earlier run is not used without --resume", err=True)
    try:
        with training_progress(options) as update:
            told = None if update is None else _of_all(update, len(left))
            result = train_seeds(config, seeds, jobs=options["jobs"] or 1, progress=told)
    except KeyboardInterrupt:
        there = [str(path) for path in kept if path.exists()]
        if there:
            text = f"kept the last finished epochs in {', '.join(there)}; go on with --resume"
        elif any(Path(one.out).exists() for one in left):
            text = "kept the finished tickets; go on with --resume"
        else:
            text = "nothing kept: no first epoch was finished"
        click.echo(text, err=True)
        raise
    for one, path in tests:
        save_test_set(one, path, options["force"])
    emit(seeds_report(result, options["method"], options["arch"], options["data"]), options)


def _test_sets(config: Any, seeds: Sequence[int], to: Path | None) -> list[tuple[Any, Path]]:
    """Return the files of test samples to write, and whose: one of all, but for patch tickets."""
    from snn_deploy.tickets.seeds import of_seeds, seed_path

    if to is None:
        return []
    if config.method != "patch":  # each of these drops other patches of a sample
        return [(config, to)]
    return [(one, seed_path(to, one.seed)) for one in of_seeds(config, seeds)]


def _of_all(update: Callable[[Any], None], trainings: int) -> Callable[[int, Any], None]:
    """Return what shows one seed's epoch as a part of all trainings."""
    seen: dict[int, Any] = {}

    def told(seed: int, progress: Any) -> None:
        seen[seed] = progress
        done = sum(p.done for p in seen.values())
        # Those that have not begun are taken to be as long as this one.
        total = sum(p.total for p in seen.values()) + (trainings - len(seen)) * progress.total
        update(replace(progress, phase=f"seed {seed} {progress.phase}", done=done, total=total))

    return told
