"""``snn-deploy import``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from snn_deploy.cli import values
from snn_deploy.cli.options import dt_option, output_options, state_options
from snn_deploy.cli.output import check_targets, emit
from snn_deploy.errors import UsageError

FORMATS = ("onnx", "plain", "lth", "gradr", "stds", "cutoff")
# Options that one kind of file alone takes, by their names in a shell.
_OF_ONNX = {
    "input_path": "--calibrate",
    "samples": "--samples",
    "percentile": "--percentile",
    "per_channel": "--per-channel",
    "start": "--start",
}
_OF_CHECKPOINTS = {
    "arch": "--arch",
    "input_shape": "--input-shape",
    "readout": "--readout",
    "seed": "--seed",
    "masks": "--masks",
    "threshold": "--threshold",
    "renames": "--rename",
}


@click.command("import", short_help="Make a ticket of a checkpoint or an ONNX network.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.pt|FILE.nir",
    help="Ticket or graph to write.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    help="What MODEL is; an .onnx file says it itself.",
)
@click.option(
    "--masks",
    type=click.Path(path_type=Path),
    metavar="MASKS.pkl",
    help="lth: the pickled list of masks.",
)
@click.option("--threshold", metavar="D|D.json", help="stds: the threshold, or one for each layer.")
@click.option(
    "--rename",
    "renames",
    multiple=True,
    metavar="FROM=TO",
    callback=values.renames,
    help="Another name for a parameter, or for all below a leading part of their names.",
)
@dt_option
@state_options
@click.option(
    "-c",
    "--calibrate",
    "input_path",
    type=click.Path(path_type=Path),
    metavar="X.npz",
    help="onnx: samples x that thresholds are taken from, and labels y.",
)
@click.option(
    "-n",
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    help="onnx: only the first N samples.",
)
@click.option(
    "--percentile",
    type=float,
    metavar="P",
    help="onnx: of a layer's positive activations, its threshold (99.9).",
)
@click.option(
    "--per-channel", is_flag=True, default=None, help="onnx: a threshold for each channel."
)
@click.option(
    "--start",
    type=float,
    metavar="SHARE",
    help="onnx: membrane at the start, in thresholds (0.5).",
)
@output_options
def command(**options: Any) -> None:
    """Make a ticket (.pt) or a NIR graph of MODEL, a network that other code has saved.

    MODEL is a state_dict, alone or in a checkpoint, of --arch. --format says where its zeros are:
    plain and gradr: in the weights; lth: in the list --masks; stds: below --threshold; cutoff:
    in the weights, under the names of that code. Whole pickled modules are refused.

    MODEL.onnx is a dense network with rectifiers: it becomes spiking neurons of the same rates.
    Thresholds are learned ones (quantised activations) or percentiles of the activations on the
    data of --calibrate. With data, both networks decide on them and are compared. Defaults: 32
    steps of 1 ms, direct coding.
    """
    check_targets(options)
    kind = _kind(options)
    foreign = _OF_CHECKPOINTS if kind == "onnx" else _OF_ONNX
    for name, shown in foreign.items():
        if options[name] not in (None, ()):
            raise UsageError(
                f"{shown} is not for format {kind}",
                hint=f"leave {shown} out; snn-deploy import --help says which format takes it",
            )
    allowed = (".nir",) if kind == "onnx" else (".pt", ".nir")
    if options["out"].suffix.lower() not in allowed:
        raise UsageError(
            f"{options['out']} does not end in {' or '.join(allowed)}",
            hint="a checkpoint becomes a ticket (.pt) or a graph (.nir), ONNX becomes a graph",
        )
    emit(_from_onnx(options) if kind == "onnx" else _from_checkpoint(kind, options), options)


def _kind(options: dict[str, Any]) -> str:
    """Return the format, which only an .onnx file tells by its name."""
    named = options["model"].suffix.lower() == ".onnx"
    kind = options["kind"] or ("onnx" if named else None)
    if kind is None:
        raise UsageError(
            f"{options['model']} does not say where its zeros are: name its format",
            hint=f"--format {'|'.join(FORMATS[1:])}; NIR graphs, tickets and lava-dl networks "
            "are read by every command as they are",
        )
    if named != (kind == "onnx"):
        raise UsageError(
            f"{options['model']} is not of format {kind}",
            hint="an .onnx file has format onnx, and nothing else has",
        )
    return str(kind)


def _from_checkpoint(kind: str, options: dict[str, Any]) -> Any:
    from snn_deploy.cli.options import load_options, shown_warnings
    from snn_deploy.errors import MissingDependencyError
    from snn_deploy.io.files import write_bytes
    from snn_deploy.io.nir_write import nir_bytes
    from snn_deploy.report.published import published_report

    try:
        from snn_deploy.frontends.published.load import Published, import_checkpoint
        from snn_deploy.frontends.published.sparse import soft_thresholds
        from snn_deploy.frontends.state import write_ticket
    except ImportError as error:
        raise MissingDependencyError(
            f"a checkpoint is loaded into a torch module, and {error.name} is not installed",
            hint="pip install 'snn-deploy[train]'",
        ) from None

    given, out = options["threshold"], options["out"]
    how = Published(
        format=kind,  # type: ignore[arg-type]
        masks=options["masks"],
        thresholds=None if given is None else soft_thresholds(given),
        renames=options["renames"],
    )
    with shown_warnings():
        found = import_checkpoint(options["model"], how, load_options(options))
        graph = nir_bytes(found.network) if out.suffix.lower() == ".nir" else None
    if graph is None:
        write_ticket(found.content, out, force=options["force"])
    else:
        write_bytes(out, graph, options["force"])
    return published_report(found, kind, out)


def _from_onnx(options: dict[str, Any]) -> Any:
    from snn_deploy.cli.options import shown_warnings
    from snn_deploy.cli.output import progress
    from snn_deploy.frontends.convert import Rates
    from snn_deploy.frontends.onnx_import import convert_onnx
    from snn_deploy.io.files import write_bytes
    from snn_deploy.io.nir_write import nir_bytes
    from snn_deploy.passes.pipeline import fold
    from snn_deploy.report.analyse import check_labels
    from snn_deploy.report.import_model import import_report

    names = ("percentile", "per_channel", "steps", "dt_s", "start", "coding")
    rates = Rates(**{name: options[name] for name in names if options[name] is not None})
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
    return import_report(network, conversion, agreement, options["out"])


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
