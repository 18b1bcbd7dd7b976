"""``snn-deploy calibrate-cutoff``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snn_deploy.cli.calibration import check_calibration
from snn_deploy.cli.options import (
    analogue_option,
    bits_option,
    calibrate_option,
    check_settings,
    device_option,
    input_options,
    load_network,
    model_options,
    output_options,
    prepared,
    read_data,
    settings_option,
    shown_warnings,
)
from snn_deploy.cli.output import check_targets, emit, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snn_deploy.backends.base import Target
    from snn_deploy.engine.loop import Inputs
    from snn_deploy.io.inputs import InputData
    from snn_deploy.ir.arrays import Array
    from snn_deploy.ir.network import Network
    from snn_deploy.ir.quantized import QNetwork


@click.command("calibrate-cutoff", short_help="Give a model an early stop, calibrated on samples.")
@model_options
@input_options
@click.option(
    "-e",
    "--epsilon",
    "epsilons",
    type=float,
    multiple=True,
    required=True,
    metavar="E",
    help="Share of wrong stops that a threshold may make; repeat it for a table of trade-offs.",
)
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Model with the thresholds: .nir, or .pt of a ticket. Without it nothing is written.",
)
@click.option(
    "--evaluate",
    "evaluate_path",
    type=click.Path(path_type=Path),
    metavar="X.npz",
    help="Other labelled samples to measure the thresholds on.",
)
@click.option(
    "-t",
    "--target",
    "target_name",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="Take outputs from its integers: loihi, fpga, or a plugin's. cpu: floats.",
)
@device_option
@bits_option
@calibrate_option
@settings_option
@analogue_option
@output_options
def command(**options: Any) -> None:
    """Give MODEL one threshold per step: a sample stops once its best class leads by more.

    The thresholds are the smallest after which, on the labelled samples of --input, all but a
    share EPSILON of the stops are right. Every target then stops by them.
    """
    from dataclasses import replace

    from snn_deploy.backends.registry import target as find_target
    from snn_deploy.passes.cutoff import calibrate, effect, with_table
    from snn_deploy.passes.pipeline import fold
    from snn_deploy.report.analyse import steps_of
    from snn_deploy.report.cutoff import cutoff_report

    check_targets(options)
    out, epsilons = options["out"], list(dict.fromkeys(options["epsilons"]))
    _check_output(out, epsilons)
    target = find_target(options["target_name"])
    check_settings([target], options)
    check_calibration([target], options)
    loaded = load_network(options)
    save = None if out is None else _writer(loaded, out, options["force"])
    # A table of its own would have to be as long as the run, and plays no part.
    network = fold(replace(loaded, readout=replace(loaded.readout, cutoff=None)))
    with_table(network, ())  # refuses membranes and a single class
    data, labels = _labelled(network, options)
    never = with_table(network, (math.inf,) * (steps_of(network, data) or 1))
    other = None
    if options["evaluate_path"] is not None:
        changes = {"input_path": options["evaluate_path"], "samples": None}
        other = _labelled(never, {**options, **changes})
    qnet, place = _integers(network, target, options)
    outputs = _outputs(network, qnet, data, options)
    found = [calibrate(outputs, labels, network.readout, epsilon) for epsilon in epsilons]
    evaluated = []
    if other is not None:
        outputs = _outputs(network, qnet, other[0], options)
        readouts = [replace(network.readout, cutoff=c.table) for c in found]
        evaluated = [effect(outputs, other[1], readout) for readout in readouts]
    if save is not None:
        with shown_warnings():
            save(with_table(loaded, found[0].table))
    emit(cutoff_report(network, found, evaluated, place=place, out=out), options)


def _check_output(out: Path | None, epsilons: list[float]) -> None:
    from snn_deploy.errors import UsageError
    from snn_deploy.passes.cutoff import check_epsilon

    for epsilon in epsilons:
        check_epsilon(epsilon)
    if out is None:
        return
    if len(epsilons) > 1:
        raise UsageError(
            f"{out} holds one table, and there are {len(epsilons)} values of --epsilon",
            hint="compare them without -o, then choose one",
        )
    if out.suffix.lower() not in (".nir", ".pt"):
        raise UsageError(
            f"{out} ends in neither .nir nor .pt",
            hint="write a NIR graph, or a ticket where MODEL is one",
        )


def _writer(loaded: Network, out: Path, force: bool) -> Callable[[Network], None]:
    """Return what writes the model, as loaded but for its table, to ``out``."""
    from snn_deploy.errors import MissingDependencyError, UsageError
    from snn_deploy.io.files import write_bytes
    from snn_deploy.io.nir_write import nir_bytes
    from snn_deploy.passes.pipeline import fold

    if out.suffix.lower() == ".nir":
        return lambda network: write_bytes(out, nir_bytes(fold(network)), force)
    if loaded.source.format != "ticket":
        raise UsageError(
            f"{out} would be a ticket, and the model is none",
            where=loaded.source.path,
            hint=f"write a NIR graph: -o {out.with_suffix('.nir')}",
        )
    try:
        from snn_deploy.frontends.rewrite import rewrite_ticket
    except ImportError as error:
        raise MissingDependencyError(
            f"torch writes tickets, and {error.name} is not installed",
            hint=f"pip install 'snn-deploy[train]', or -o {out.with_suffix('.nir')}",
        ) from None
    return lambda network: rewrite_ticket(network, out, force)


def _labelled(network: Network, options: dict[str, Any]) -> tuple[InputData, Array]:
    from snn_deploy.errors import InputError
    from snn_deploy.report.analyse import check_steps

    data = read_data(network, options)
    if data.y is None:
        raise InputError(
            "the samples have no labels, and a cutoff is calibrated on what is right",
            where=data.source,
            hint="save them beside x: np.savez(path, x=x, y=labels)",
        )
    check_steps(network, data)
    return data, data.y


def _integers(
    network: Network, target: Target, options: dict[str, Any]
) -> tuple[QNetwork | None, str]:
    """Return the target's integers, None for floats, and what computes outputs in words."""
    qnet = prepared(network, target, options).qnet
    return qnet, "the float engine" if qnet is None else f"the integers of {target.name}"


def _outputs(
    network: Network, qnet: QNetwork | None, data: InputData, options: dict[str, Any]
) -> Array:
    from snn_deploy.passes.cutoff import outputs_of
    from snn_deploy.report.analyse import encoded, encoded_batches

    with progress(options, "running") as update:

        def batches() -> Iterator[Inputs]:
            for first, last in encoded_batches(network, data, data.samples):
                yield encoded(network, data, first, last)
                if update is not None:
                    update(last, data.samples)

        return outputs_of(network, batches(), qnet)
