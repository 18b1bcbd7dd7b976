"""From train's options to a configuration, and how the training's progress is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from snn_deploy.errors import UsageError


def trainer(options: dict[str, Any]) -> tuple[Any, Any]:
    """Return (train, config); MissingDependencyError without torch."""
    from snn_deploy.errors import MissingDependencyError

    try:
        from snn_deploy.tickets.trainer import TrainConfig, train
    except ImportError as error:
        raise MissingDependencyError(
            f"training needs {error.name}, which is not installed",
            hint="pip install 'snn-deploy[train]'",
        ) from None
    fields = (
        "out", "method", "arch", "data", "data_dir", "sparsity", "rounds", "epochs", "coding",
        "steps", "limit", "downscale", "bits", "qat_epochs", "masks_from", "rate_penalty",
        "epsilon", "device", "amp", "seed", "resume", "force",
    )  # fmt: skip
    values = {k: options[k] for k in fields if k in options}
    values["params"] = _pairs(options.get("params", ()))
    if options.get("qat") is not None:
        from snn_deploy.backends.arithmetics import ARITHMETICS

        values["qat"] = ARITHMETICS[options["qat"]]
    return train, TrainConfig(**values)


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    pairs = dict(text.split("=", 1) for text in texts if "=" in text)
    if len(pairs) < len(texts):
        raise UsageError(
            "a method's parameter is given once, as NAME=VALUE",
            used=", ".join(texts),
            hint="-p prior=0.2",
        )
    return pairs


@contextmanager
def training_progress(options: dict[str, Any]) -> Iterator[Callable[[Any], None] | None]:
    """Yield a function that shows loss, accuracy and sparsity: a bar on a terminal, else a line
    per phase on stderr.
    """
    if options.get("no_progress") or options.get("quiet"):
        yield None
        return
    if not sys.stderr.isatty():
        last: list[Any] = []

        def line(p: Any) -> None:
            if p.epoch == p.epochs:
                click.echo(
                    f"{p.phase}: loss {p.loss:.3f}, accuracy {100 * p.accuracy:.1f} %, "
                    f"sparsity {100 * p.sparsity:.1f} %",
                    err=True,
                )
            last[:] = [p]

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[shown]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=None, shown="")

        def update(p: Any) -> None:
            bar.update(
                task,
                description=p.phase,
                completed=p.done,
                total=p.total,
                shown=f"loss {p.loss:.3f} acc {100 * p.accuracy:.1f}% "
                f"sparse {100 * p.sparsity:.1f}%",
            )

        yield update
