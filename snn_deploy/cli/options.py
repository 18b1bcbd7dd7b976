"""Options that several commands share, and how they become library values."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from snn_deploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snn_deploy.backends.base import Program, Target
    from snn_deploy.device.model import Device
    from snn_deploy.io.inputs import InputData
    from snn_deploy.ir.network import Network

F = TypeVar("F", bound=Callable[..., Any])


def _apply(function: F, options: list[Callable[[F], F]]) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def model_options(function: F) -> F:
    """Add MODEL and what a file may leave open."""
    return _apply(
        function,
        [
            click.argument("model", type=click.Path(path_type=Path)),
            click.option("--dt", "dt_s", type=float, metavar="SECONDS", help="Time step, if the file has none."),
            click.option(
                "--reset",
                type=click.Choice(["value", "subtract"]),
                help="How neurons reset, if the file does not say.",
            ),
            click.option(
                "--if-r",
                type=click.Choice(["per-step", "physical"]),
                help="Meaning of an IF neuron's r in NIR.",
            ),
            click.option(
                "--arch",
                metavar="FILE.py:FACTORY",
                help="The module of a plain state_dict; also mlp, conv.",
            ),
            click.option(
                "--input-shape",
                metavar="C,H,W",
                callback=_shape,
                help="Shape of one input, if --arch does not tell.",
            ),
            click.option(
                "--coding",
                type=click.Choice(["rate", "direct", "events"]),
                help="How samples become input, if the file does not say.",
            ),
            click.option("--steps", type=click.IntRange(min=1), help="Time steps of coded input."),
            click.option("--seed", type=click.IntRange(min=0), help="Seed of the rate coding."),
        ],
    )


def target_options(function: F) -> F:
    """Add the target, its device and its choices."""
    return _apply(
        function,
        [
            click.option("-t", "--target", "target_name", required=True, metavar="NAME", help="cpu, loihi, fpga, or a plugin's."),
            *lowering_options(),
        ],
    )


def lowering_options() -> list[Callable[[F], F]]:
    """Return the options that shape a lowering."""
    return [
        click.option("-d", "--device", metavar="NAME|FILE", help="Device to lower for; a TOML file of yours works."),
        click.option("--bits", type=click.IntRange(min=1, max=32), help="Weight bits."),
        click.option("--banks", type=click.IntRange(min=1), help="fpga: memory banks working in parallel."),
        click.option("--fifo-depth", type=click.IntRange(min=1), help="fpga: entries a bank may run ahead."),
    ]


def input_options(required: bool) -> Callable[[F], F]:
    """Return a decorator that adds the data set."""

    def decorate(function: F) -> F:
        return _apply(
            function,
            [
                click.option(
                    "-i",
                    "--input",
                    "input_path",
                    type=click.Path(path_type=Path),
                    required=required,
                    metavar="X.npz",
                    help="Samples x and labels y.",
                ),
                click.option("-n", "--samples", type=int, help="Only the first N samples."),
            ],
        )

    return decorate


def output_options(function: F) -> F:
    """Add where results go."""
    return _apply(
        function,
        [
            click.option("--json", "json_to", metavar="FILE|-", help="Write the report as JSON; - prints it alone."),
            click.option("--csv", "csv_to", metavar="FILE", help="Write the main table as CSV."),
            click.option("--html", "html_to", metavar="FILE", help="Write the report as one HTML file."),
            click.option("--force", is_flag=True, help="Replace existing output."),
            click.option("-q", "--quiet", is_flag=True, help="Print no report."),
            click.option("-v", "--verbose", is_flag=True, help="Print details too."),
            click.option("--no-progress", is_flag=True, help="Show no progress bar."),
        ],
    )


def load_network(options: dict[str, Any]) -> Network:
    """Return the model that the options name, as its file has it."""
    from dataclasses import replace

    from snn_deploy.frontends.load import LoadOptions, load_model
    from snn_deploy.io.nir_read import NirOptions
    from snn_deploy.ir.network import Coding

    dt_s = options.get("dt_s")
    if dt_s is not None and not dt_s > 0:
        raise UsageError(f"--dt {dt_s:g} is not a time step", hint="seconds, greater than 0")
    kind = options.get("coding")
    coding = None
    if kind is not None:
        coding = Coding(kind=kind, steps=options.get("steps"), seed=options.get("seed") or 0)
    shape = options.get("input_shape")
    arch = options.get("arch")
    nir = NirOptions(dt_s=dt_s, reset=options.get("reset"), if_r=options.get("if_r"), coding=coding)
    with shown_warnings():
        network = load_model(
            options["model"],
            LoadOptions(nir=nir, arch=arch, input_shape=shape, resolve=_resolver(arch)),
        )
    changes: dict[str, Any] = {}
    if coding is not None:
        changes = {"kind": coding.kind}
    if options.get("steps") is not None:
        changes["steps"] = options["steps"]
    if options.get("seed") is not None:
        changes["seed"] = options["seed"]
    return replace(network, coding=replace(network.coding, **changes)) if changes else network


def _resolver(arch: str | None) -> Any:
    if arch is None:
        return None
    from snn_deploy.errors import MissingDependencyError

    try:
        from snn_deploy.tickets.arch import module_from_arch
    except ImportError:
        raise MissingDependencyError(
            "--arch builds a torch module, and torch is not installed",
            hint="pip install 'snn-deploy[train]'",
        ) from None
    return lambda spec, state, shape: module_from_arch(spec, state, input_shape=shape)


def _shape(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    parts = value.replace("x", ",").split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} is not a shape such as 1,28,28")
    return tuple(int(part) for part in parts)


def folded_network(options: dict[str, Any]) -> Network:
    """Return the model after the pipeline."""
    from snn_deploy.passes.pipeline import fold

    return fold(load_network(options))


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Print our own warnings on stderr as one line each."""
    from snn_deploy.io.graph import SnnDeployWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SnnDeployWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, SnnDeployWarning):
            click.echo(f"warning: {warning.message}", err=True)
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def chosen_device(target: Target, name: str | None) -> Device:
    """Return the device to lower for; UsageError where it is not of the target's family."""
    from snn_deploy.device.load import load

    device = load(name or target.default_device)
    if device.family != target.family:
        raise UsageError(
            f"{device.name} is of family {device.family!r}, target {target.name} lowers for "
            f"{target.family!r}",
            hint=f"leave --device out (default {target.default_device}), or: snn-deploy targets list",
        )
    return device


def prepared(
    network: Network,
    target: Target,
    options: dict[str, Any],
    device_name: str | None = None,
    arithmetic: str | None = None,
) -> Program:
    """Return the target's program as the options ask for it."""
    from snn_deploy.backends.arithmetics import ARITHMETICS
    from snn_deploy.backends.base import Options
    from snn_deploy.backends.prepare import prepare

    names = {"banks": "banks", "fifo_depth": "fifo_depth"}
    settings = {k: options[v] for k, v in names.items() if options.get(v) is not None}
    chosen = Options(
        bits=options.get("bits"),
        device=chosen_device(target, device_name or options.get("device")),
        settings=settings or None,
    )
    integers = None if arithmetic in (None, "float") else ARITHMETICS[arithmetic]
    with shown_warnings():
        return prepare(network, target, chosen, integers)


def read_data(network: Network, options: dict[str, Any]) -> InputData:
    """Return the samples that the options name, checked against the network."""
    from dataclasses import replace

    from snn_deploy.io.inputs import read_inputs

    data = read_inputs(options["input_path"], network.input_population.shape)
    data = data.first(options.get("samples"))
    return replace(data, source=str(options["input_path"]))
