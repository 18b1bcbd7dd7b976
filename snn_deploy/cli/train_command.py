"""``snn-deploy train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from snn_deploy.cli.options import output_options
from snn_deploy.cli.output import check_targets, emit
from snn_deploy.cli.training import trainer, training_progress
from snn_deploy.errors import UsageError

# Named here too, because --help must not wait for torch; a test compares.
ARCHITECTURES = ("mlp", "conv", "recurrent", "vgg9", "vgg16", "resnet19", "spikformer-tiny")
DATASETS = ("digits", "mnist", "nmnist", "cifar10", "dvs128")
METHODS = (
    "imp", "eb", "et", "eb-et", "uticket", "gradr", "stds", "ndsnn", "set", "rigl", "static",
    "connection", "random", "reinit", "snip", "cutoff", "patch",
)  # fmt: skip


@click.command("train", short_help="Find a sparse ticket by training.")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="imp",
    show_default=True,
    metavar="NAME",
    help=f"How to find the ticket: {', '.join(METHODS)}.",
)
@click.option(
    "--arch",
    type=click.Choice(ARCHITECTURES),
    default="mlp",
    show_default=True,
    help="Network.",
)
@click.option(
    "--data",
    type=click.Choice(DATASETS),
    default="digits",
    show_default=True,
    help="Data set.",
)
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Folder of a data set that is not bundled."
)
@click.option(
    "--sparsity",
    type=click.FloatRange(min=0, max=1, max_open=True),
    metavar="SHARE",
    default=0.9,
    show_default=True,
    help="Share of weights to remove.",
)
@click.option("--rounds", type=click.IntRange(min=1), metavar="N", help="Pruning rounds.")
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Epochs of the dense network and the last round.",
)
@click.option(
    "--coding",
    type=click.Choice(["rate", "direct", "events"]),
    help="Input coding (default: rate; nmnist events).",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="T",
    help="Time steps (default by network and data).",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Train on the first N samples only."
)
@click.option(
    "--downscale",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of dvs128, NxN pixels become one (default 4).",
)
@click.option(
    "--qat",
    type=click.Choice(["loihi", "fpga"]),
    help="Fine-tune at the end as this target's integers compute.",
)
@click.option(
    "--bits", type=click.IntRange(min=1, max=32), metavar="N", help="Weight bits for --qat."
)
@click.option(
    "--qat-epochs", type=click.IntRange(min=1), metavar="N", help="Epochs of that fine-tuning."
)
@click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of the method (docs/methods.md).",
)
@click.option(
    "--masks-from",
    type=click.Path(path_type=Path),
    metavar="TICKET.pt",
    help="For reinit and random: whose masks.",
)
@click.option(
    "--rate-penalty",
    type=click.FloatRange(min=0, min_open=True),
    metavar="ALPHA",
    help="Weight of the spike-rate regulariser.",
)
@click.option(
    "--epsilon",
    type=click.FloatRange(min=0, max=1, max_open=True),
    metavar="SHARE",
    help="Calibrate a cutoff with so many wrong stops.",
)
@click.option(
    "--compute-on",
    "device",
    metavar="DEVICE",
    help="cpu or cuda (default: cuda where there is one).",
)
@click.option("--amp", is_flag=True, help="Layers compute in bfloat16.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of everything random.",
)
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    metavar="N",
    help="Train from SEED to SEED + N - 1: FILE-seed0.pt, ...",
)
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="J", help="Of --seeds: so many at a time."
)
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.pt",
    help="Ticket to write.",
)
@click.option(
    "--test-set",
    "test_to",
    type=click.Path(path_type=Path),
    metavar="X.npz",
    help="Write the test samples too.",
)
@click.option("--resume", is_flag=True, help="Go on from the last finished epoch.")
@output_options
def command(**options: Any) -> None:
    """Train a spiking network, prune it, and write the sparse ticket.

    Ctrl-C keeps the last finished epoch; --resume goes on from it.
    """
    if options["seeds"] is not None:
        from snn_deploy.cli.seeds import train_from_seeds

        return train_from_seeds(options)
    if options["jobs"] is not None:
        raise UsageError(
            "one training is one job",
            used=f"--jobs {options['jobs']}",
            hint="say from how many seeds to train: --seeds N",
        )
    check_targets(options)
    train, config = trainer(options)
    from snn_deploy.tickets.trainer import checkpoint_path

    kept = checkpoint_path(options["out"])
    if kept.exists() and not options["resume"]:
        click.echo(f"warning: {kept} of an earlier run is not used without --resume", err=True)
    try:
        with training_progress(options) as update:
            result = train(config, progress=update)
    except KeyboardInterrupt:
        if kept.exists():
            click.echo(f"kept the last finished epoch in {kept}; go on with --resume", err=True)
        else:
            click.echo("nothing kept: the first epoch was not finished", err=True)
        raise
    if options["test_to"] is not None:
        from snn_deploy.tickets.samples import save_test_set

        save_test_set(config, options["test_to"], options["force"])
    from snn_deploy.report.train import train_report

    emit(train_report(result, options["method"], options["arch"], options["data"]), options)
