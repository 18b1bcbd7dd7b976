"""``snn-deploy demo``: from training to three targets, on real digits."""

from __future__ import annotations

import time
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from snn_deploy.backends.base import Oracle, Target
    from snn_deploy.report.model import Report

MARKER = "demo.json"
_ARCHS = ("mlp", "conv")
_SPARSITY = 0.9
_VERIFIED_SAMPLES = 20
_TARGETS = ("cpu", "loihi", "fpga")


@click.command("demo", short_help="Train a small ticket and take it to every target.")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder to make (default: demo, or the first of demo-2, demo-3, ... that is free).",
)
@click.option(
    "--arch",
    "archs",
    type=click.Choice(_ARCHS),
    multiple=True,
    help="Only this network; repeat for several.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of everything random.",
)
@click.option("--force", is_flag=True, help="Replace the folder of an earlier demo.")
@click.option("-v", "--verbose", is_flag=True, help="Print details too.")
@click.option("--no-progress", is_flag=True, help="Show no progress.")
def command(
    folder: Path | None,
    archs: tuple[str, ...],
    seed: int,
    force: bool,
    verbose: bool,
    no_progress: bool,
) -> None:
    """Train small sparse tickets on handwritten digits and take them to every target.

    For each network: train, prune to 90 %, export as NIR and for cpu, loihi and fpga, check each
    target against an independent simulator, compare them, and write an HTML report.
    """
    from snn_deploy.backends.registry import target as find_target
    from snn_deploy.cli.output import emit
    from snn_deploy.errors import MismatchError, OutputError
    from snn_deploy.io.files import new_folder, write_json

    if folder is None:
        names = chain(["demo"], (f"demo-{n}" for n in count(2)))
        folder = next(Path(n) for n in names if force or not Path(n).exists())
    elif folder.exists() and not force:
        raise OutputError(
            f"{folder} exists already",
            where=str(folder),
            hint="add --force to replace it, or name another folder with -o",
        )
    targets = [find_target(name) for name in _TARGETS]
    # A missing simulator is reported before the training, not after it.
    judges = {target.name: _judge(target) for target in targets}
    start = time.perf_counter()
    quiet = {"no_progress": no_progress, "quiet": False, "verbose": verbose}
    with new_folder(folder, force=force, marker=MARKER) as building:
        reports: dict[str, Report] = {}
        for arch in archs or _ARCHS:
            reports[arch] = _one(arch, seed, building, folder, targets, judges, quiet)
        write_json(building / MARKER, {name: r.as_json() for name, r in reports.items()})
    for report in reports.values():
        emit(report, quiet)
        click.echo()
    for arch in reports:
        click.echo(f"report  {folder / f'{arch}.html'}")
    click.echo(f"files   {folder} (tickets, NIR graphs, artifacts per target)")
    wrong = [
        f"{arch} on {name}"
        for arch, report in reports.items()
        for name, verdict in report.data["verdicts"].items()
        if not verdict["equal"]
    ]
    click.echo(f"took {time.perf_counter() - start:.0f} s", err=True)
    if wrong:
        raise MismatchError(
            "the simulators disagree",
            where=", ".join(wrong),
            hint=f"report this with the folder {folder}: equal numbers are the promise",
        )


def _judge(target: Target) -> Oracle | None:
    """Return a target's judge. Without a compiler for the RTL, the FPGA's model runs alone."""
    from snn_deploy.errors import MissingDependencyError

    judge = target.oracle()
    if judge is None:
        return None
    try:
        judge.version()
    except MissingDependencyError as error:
        if target.name != "fpga":
            raise
        click.echo(f"fpga: model only: {error.message}; {error.hint}", err=True)
        return None
    return judge


def _one(
    arch: str,
    seed: int,
    folder: Path,
    home: Path,
    targets: list[Target],
    judges: dict[str, Oracle | None],
    options: dict[str, Any],
) -> Report:
    """Take one network from training to its report; writes into ``folder``, to become ``home``."""
    from dataclasses import replace

    from snn_deploy.backends.prepare import prepare
    from snn_deploy.backends.verify import verify
    from snn_deploy.cli.training import trainer, training_progress
    from snn_deploy.frontends.load import load_model
    from snn_deploy.io.files import write_text
    from snn_deploy.io.inputs import read_inputs
    from snn_deploy.passes.pipeline import fold
    from snn_deploy.report.analyse import encoded, run
    from snn_deploy.report.build import compare_report, rank_notes
    from snn_deploy.report.export import export
    from snn_deploy.report.html import html_text
    from snn_deploy.tickets.samples import save_test_set

    ticket, samples = folder / f"{arch}.pt", folder / f"{arch}-test.npz"
    settings = {"arch": arch, "out": ticket, "seed": seed, "sparsity": _SPARSITY}
    click.echo(f"{arch}: training on digits", err=True)
    train, config = trainer(settings)
    with training_progress(options) as update:
        result = train(config, progress=update)
    save_test_set(config, samples)
    network = fold(load_model(ticket))
    # The folder has its final name only at the end; reports name that one.
    source = replace(network.source, path=str(home / ticket.name))
    network = replace(network, source=source)
    data = read_inputs(samples, network.input_population.shape)
    programs = [(target, prepare(network, target)) for target in targets]
    export(network, programs, folder / f"{arch}-export")
    outcomes, verdicts = [], {}
    for target, program in programs:
        judge = judges[target.name]
        by = judge.version() if judge else "model only"
        click.echo(f"{arch}: {target.name}: run, verify ({by})", err=True)
        outcomes.append(run(target, program, data))
        x = encoded(network, data, 0, _VERIFIED_SAMPLES)
        labels = None if data.y is None else data.y[:_VERIFIED_SAMPLES]
        verdicts[target.name] = verify(target, program, x, labels, judge)
    notes, rank_data = rank_notes(outcomes)
    report = compare_report(
        network,
        outcomes,
        notes,
        verdicts,
        title=f"{arch} on digits: {100 * result.sparsity:.0f} % sparse, dense network "
        f"{100 * result.dense_accuracy:.1f} %, ticket {100 * result.ticket_accuracy:.1f} %",
        rank_data=rank_data,
    )
    write_text(folder / f"{arch}.html", html_text(report))
    return report
