"""``snn-deploy import``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from snn_deploy.cli.options import output_options
from snn_deploy.cli.output import check_targets, emit, progress


@click.command("import", short_help="Convert a dense ONNX network to a spiking one.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.nir",
    help="Graph to write.",
)
@click.option(
    "-c",
    "--calibrate",
    "input_path",
    type=click.Path(path_type=Path),
    metavar="X.npz",
    help="Samples x that thresholds are taken from, and labels y.",
)
@click.option(
    "-n", "--samples", type=click.IntRange(min=1), metavar="N", help="Only the first N samples."
)
@click.option(
    "--percentile",
    type=float,
    default=99.9,
    show_default=True,
    metavar="P",
    help="Of a layer's positive activations, its threshold.",
)
@click.option("--per-channel", is_flag=True, help="A threshold for each channel.")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    metavar="T",
    help="Time steps of a sample.",
)
@click.option(
    "--dt",
    "dt_s",
    type=float,
    default=1e-3,
    show_default=True,
    metavar="SECONDS",
    help="Length of a time step.",
)
@click.option(
    "--start",
    type=float,
    default=0.5,
    show_default=True,
    metavar="SHARE",
    help="Membrane at the start, in thresholds.",
)
@click.option(
    "--coding",
    type=click.Choice(["direct", "rate"]),
    default="direct",
    show_default=True,
    help="How samples become input; integer targets take rate.",
)
@output_options
def command(**options: Any) -> None:
    """Convert MODEL.onnx, a dense network with rectifiers, to spiking neurons of the same rates.

    Thresholds are learned ones (quantised activations) or percentiles of the activations on the
    data of --calibrate. With data, both networks decide on them and are compared.
    """
    from snn_deploy.cli.options import shown_warnings
    from snn_deploy.errors import UsageError
    from snn_deploy.frontends.convert import Rates
    from snn_deploy.frontends.onnx_import import convert_onnx
    from snn_deploy.io.files import write_bytes
    from snn_deploy.io.nir_write import nir_bytes
    from snn_deploy.passes.pipeline import fold
    from snn_deploy.report.analyse import check_labels
    from snn_deploy.report.import_model import import_report

    check_targets(options)
    for name, suffix in (("model", ".onnx"), ("out", ".nir")):
        if options[name].suffix.lower() != suffix:
            raise UsageError(
                f"{options[name]} does not end in {suffix}",
                hint="import takes ONNX and writes NIR; other models are read by every command",
            )
    rates = Rates(
        percentile=options["percentile"],
        per_channel=options["per_channel"],
        steps=options["steps"],
        dt_s=options["dt_s"],
        start=options["start"],
        coding=options["coding"],
    )
    data = _data(options)
    with shown_warnings():
        conversion = convert_onnx(options["model"], None if data is None else data.x, rates)
        network = fold(conversion.network)
        content = nir_bytes(network)
    agreement = None
    if data is not None:
        check_labels(network, data)
        with progress(options, "deciding") as update:
            agreement = conversion.agreement(data.x, data.y, update)
    write_bytes(options["out"], content, options["force"])
    emit(import_report(network, conversion, agreement, options["out"]), options)


def _data(options: dict[str, Any]) -> Any:
    """Return the samples of --calibrate; their shape is checked against the model later."""
    if options["input_path"] is None:
        return None
    from snn_deploy.io.files import open_regular
    from snn_deploy.io.inputs import read_inputs
    from snn_deploy.io.npz import open_npz, read_array

    path = options["input_path"]
    with open_regular(path) as file:
        shape = read_array(open_npz(file, str(path), 16 * 2**30), "x").shape[1:]
    return read_inputs(path, shape).first(options["samples"])
