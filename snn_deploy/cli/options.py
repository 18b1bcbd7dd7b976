"""Options that several commands share, and how they become library values."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from snn_deploy.cli import values
from snn_deploy.cli.cores import split_option
from snn_deploy.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from snn_deploy.backends.base import Program, Target
    from snn_deploy.device.model import Device
    from snn_deploy.frontends.load import LoadOptions
    from snn_deploy.io.inputs import InputData
    from snn_deploy.ir.network import Network

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]


def _all(*options: Decorator[Any]) -> Decorator[Any]:
    """Return one decorator that adds several options, shown in this order."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


dt_option = click.option(
    "--dt",
    "dt_s",
    type=float,
    metavar="SECONDS",
    help="Time step of a NIR graph, or of neurons that count in steps.",
)
#: What a state_dict leaves open.
state_options = _all(
    click.option(
        "--arch",
        metavar="NAME|FILE.py:FACTORY",
        help="The module of a plain state_dict: mlp, recurrent, conv, or FILE.py, which is run.",
    ),
    click.option(
        "--input-shape",
        metavar="C,H,W",
        callback=values.shape,
        help="Shape of one input, if --arch does not tell.",
    ),
    click.option(
        "--readout",
        metavar="KIND",
        callback=values.readout,
        help="count, vote:CLASSES, last, max or mean, in place of the file's.",
    ),
    click.option(
        "--coding",
        type=click.Choice(["rate", "direct", "events"]),
        help="How samples become input, in place of what the file says.",
    ),
    click.option(
        "--steps",
        type=click.IntRange(min=1),
        metavar="T",
        help="Time steps of coded input, in place of the file's.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        metavar="N",
        help="Seed of the rate coding, in place of the file's.",
    ),
)
#: MODEL, and what a file may leave open.
model_options = _all(
    click.argument("model", type=click.Path(path_type=Path)),
    dt_option,
    click.option(
        "--reset",
        type=click.Choice(["value", "subtract"]),
        help="How the neurons of a NIR graph reset.",
    ),
    click.option(
        "--if-r",
        type=click.Choice(["per-step", "physical"]),
        help="Meaning of an IF neuron's r in NIR.",
    ),
    click.option(
        "--feedback",
        multiple=True,
        metavar="PRE->POST",
        callback=values.feedback,
        help="An edge that takes a step, in place of the rule for loops.",
    ),
    state_options,
)

device_option = click.option(
    "-d",
    "--device",
    metavar="NAME|FILE",
    help="Device to lower for; a TOML file of yours works.",
)
bits_option = click.option(
    "--bits",
    type=click.IntRange(min=1, max=32),
    metavar="N",
    help="Weight bits: loihi 1 to 8, fpga 2 to 8.",
)
settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=N",
    callback=values.settings,
    help="A setting of the target, see: snn-deploy targets ops TARGET.",
)
analogue_option = click.option(
    "--analogue",
    type=click.Choice(["bias", "graded"]),
    help="How direct input enters integers: currents that the host injects, or graded spikes; "
    "without it, what the target prefers.",
)
proxy_option = click.option(
    "--proxy-prices",
    metavar="DEVICE",
    help="Energy prices of another device where the own one has none, marked as a proxy.",
)
calibrate_option = click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="X.npz",
    help="Samples whose float run sets the range of integer states.",
)
#: The target, its device and its choices.
target_options = _all(
    click.option(
        "-t",
        "--target",
        "target_name",
        required=True,
        metavar="NAME",
        help="cpu, loihi, fpga, or a plugin's.",
    ),
    device_option,
    bits_option,
    calibrate_option,
    settings_option,
    split_option,
    analogue_option,
    proxy_option,
)
#: The data set.
input_options = _all(
    click.option(
        "-i",
        "--input",
        "input_path",
        type=click.Path(path_type=Path),
        required=True,
        metavar="X.npz",
        help="Samples x and, where known, labels y.",
    ),
    click.option(
        "-n",
        "--samples",
        type=click.IntRange(min=1),
        metavar="N",
        help="Only the first N samples.",
    ),
)
#: Where results go.
output_options = _all(
    click.option(
        "--json", "json_to", metavar="FILE|-", help="Write the report as JSON; - prints it alone."
    ),
    click.option("--csv", "csv_to", metavar="FILE", help="Write the main table as CSV."),
    click.option("--html", "html_to", metavar="FILE", help="Write the report as one HTML file."),
    click.option("--force", is_flag=True, help="Replace existing output."),
    click.option("-q", "--quiet", is_flag=True, help="Print no report."),
    click.option("-v", "--verbose", is_flag=True, help="Print details too."),
    click.option("--no-progress", is_flag=True, help="Show no progress."),
)


def _coding_changes(options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the coding that the options name."""
    return {
        field: options[name]
        for field, name in (("kind", "coding"), ("steps", "steps"), ("seed", "seed"))
        if options.get(name) is not None
    }


def load_options(options: dict[str, Any]) -> LoadOptions:
    """Return what the options say about a model file; UsageError for a step that is none."""
    from snn_deploy.frontends.load import LoadOptions
    from snn_deploy.io.nir_read import NirOptions
    from snn_deploy.ir.network import Coding

    dt_s = options.get("dt_s")
    if dt_s is not None and not 0 < dt_s < float("inf"):
        raise UsageError(f"--dt {dt_s:g} is not a time step", hint="seconds, greater than 0")
    changes = _coding_changes(options)
    nir = NirOptions(
        dt_s=dt_s,
        reset=options.get("reset"),
        if_r=options.get("if_r"),
        readout=options.get("readout"),
        coding=Coding(**changes) if "kind" in changes else None,
    )
    arch = options.get("arch")
    return LoadOptions(
        nir=nir, arch=arch, input_shape=options.get("input_shape"), resolve=_resolver(arch)
    )


def load_network(options: dict[str, Any]) -> Network:
    """Return the model that the options name, as its file has it."""
    from dataclasses import replace

    from snn_deploy.frontends.load import load_model
    from snn_deploy.ir.check import check

    how = load_options(options)
    readout, changes = how.nir.readout, _coding_changes(options)
    with shown_warnings():
        network = load_model(options["model"], how)
    if options.get("feedback"):
        given = tuple(dict.fromkeys((*network.feedback, *options["feedback"])))
        network = check(replace(network, feedback=given))
    if readout is not None and network.readout != readout:
        network = check(replace(network, readout=readout))
    return replace(network, coding=replace(network.coding, **changes)) if changes else network


def _resolver(arch: str | None) -> Any:
    if arch is None:
        return None
    from snn_deploy.errors import MissingDependencyError

    try:
        from snn_deploy.tickets.arch import module_from_arch
    except ImportError as error:
        raise MissingDependencyError(
            f"--arch builds a torch module, and {error.name} is not installed",
            hint="pip install 'snn-deploy[train]'",
        ) from None

    def resolve(spec: str, state: Any, shape: tuple[int, ...] | None) -> Any:
        try:
            return module_from_arch(spec, state, input_shape=shape)
        except SystemExit as stop:
            # The user's file is run; that it exits must not look like success.
            raise InputError(
                f"the file of --arch ended the program with exit({stop.code!r})",
                where=spec,
                hint="let the factory return the module, and guard scripts with __main__",
            ) from None

    return resolve


def folded_network(options: dict[str, Any]) -> Network:
    """Return the model after the pipeline."""
    from snn_deploy.passes.pipeline import fold

    return fold(load_network(options))


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Print our own warnings on stderr as one line each, even where an error follows."""
    from snn_deploy.io.graph import SnnDeployWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SnnDeployWarning)
        try:
            yield
        finally:
            ours = [w for w in caught if issubclass(w.category, SnnDeployWarning)]
            for text in dict.fromkeys(str(w.message) for w in ours):
                click.echo(f"warning: {text}", err=True)
    for w in caught:
        if w not in ours:
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)


def chosen_device(target: Target, name: str | None) -> Device:
    """Return the device to lower for; UsageError where it is not of the target's family."""
    from snn_deploy.report.targets import device_named

    device = device_named(name or target.default_device)
    if device.family != target.family:
        usual = device_named(target.default_device).name
        raise UsageError(
            f"{device.name} is of family {device.family!r}, target {target.name} lowers for "
            f"{target.family!r}",
            hint=f"leave --device out (default {usual}), or: snn-deploy targets list",
        )
    return device


def check_settings(targets: Sequence[Target], options: dict[str, Any]) -> None:
    """Raise UsageError for a ``--set`` that none of the targets knows."""
    from snn_deploy.report.targets import target_settings

    known = [name for target in targets for name in target_settings(target)]
    for name in options.get("settings") or ():
        if name not in known:
            raise UsageError(
                f"no setting is called {name!r}",
                where=", ".join(target.name for target in targets),
                hint=f"settings: {', '.join(known)}" if known else "leave --set out",
            )


def prepared(
    network: Network, target: Target, options: dict[str, Any], arithmetic: str | None = None
) -> Program:
    """Return the target's program as the options ask for it.

    Where the user named no device, each target takes its default.
    """
    from snn_deploy.backends.arithmetics import ARITHMETICS
    from snn_deploy.backends.base import Options
    from snn_deploy.backends.prepare import prepare
    from snn_deploy.cli.calibration import observed
    from snn_deploy.device.proxy import with_proxy_prices
    from snn_deploy.report.targets import device_named, target_settings

    known = target_settings(target)
    device = chosen_device(target, options.get("device"))
    if options.get("proxy_prices"):
        device = with_proxy_prices(device, device_named(options["proxy_prices"]))
    integers = None if arithmetic in (None, "float") else ARITHMETICS[arithmetic]
    floats = integers is None and target.arithmetic() is None
    chosen = Options(
        bits=options.get("bits"),
        device=device,
        splits=options.get("splits") if getattr(target, "maps_cores", False) else None,
        settings={k: v for k, v in (options.get("settings") or {}).items() if k in known} or None,
        analogue=options.get("analogue"),
        observed=None if floats else observed(network, options.get("calibrate")),
    )
    with shown_warnings():
        return prepare(network, target, chosen, integers)


def read_data(network: Network, options: dict[str, Any]) -> InputData:
    """Return the samples that the options name, checked against the network."""
    from dataclasses import replace

    from snn_deploy.io.inputs import read_for
    from snn_deploy.report.analyse import check_labels

    path = options["input_path"]
    data = read_for(path, {name: network.shapes[name] for name in network.inputs})
    data = replace(data.first(options.get("samples")), source=str(path))
    check_labels(network, data)
    return data
