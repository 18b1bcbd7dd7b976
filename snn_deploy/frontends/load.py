"""Load a model of any kind that ``snn-deploy`` takes, by what the file is."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn_deploy.errors import InputError, SnnDeployError, UnsupportedError, UsageError
from snn_deploy.io.nir_read import NirOptions, read_nir
from snn_deploy.ir.network import Coding, Network, Readout, Source

if TYPE_CHECKING:
    from snn_deploy.io.state_dict import StateDict

Resolver = Callable[[str, Mapping[str, Any], tuple[int, ...] | None], tuple[Any, Any]]
KNOWN_SUFFIXES = (".pt", ".pth", ".nir", ".net", ".safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """What the command line says about a model file.

    nir: what a NIR graph leaves open; its readout and coding serve state_dicts too, the rest
    must agree with what other files say.
    arch: ``FILE.py:FACTORY`` for a plain state_dict. resolve: makes (module, example input) from
    arch, the state and input_shape, in place of calling that factory.
    """

    nir: NirOptions = field(default_factory=NirOptions)
    arch: str | None = None
    input_shape: tuple[int, ...] | None = None
    resolve: Resolver | None = None


def load_model(path: Path | str, options: LoadOptions | None = None) -> Network:
    """Return the Network in a ticket, NIR graph, lava-dl ``.net``, or state_dict (with ``arch``).

    Raises InputError (exit 3) for what is malformed or hostile, UnsupportedError (exit 4) for
    what cannot be expressed; neither runs anything that the file holds.
    """
    options = options or LoadOptions()
    path = Path(path)
    must_exist(path)
    suffix = path.suffix.lower()
    if suffix == ".nir":
        return read_nir(path, options.nir)
    if suffix == ".safetensors":
        from snn_deploy.io.state_dict import read_state_dict

        return _state_dict(path, options, read_state_dict(path))
    if suffix in (".pt", ".pth", ".ckpt"):
        return _torch_file(path, options)
    if suffix == ".net":
        return _netx(path, options)
    if suffix == ".onnx":
        raise UnsupportedError(
            "an ONNX file holds a dense network, which must be converted first",
            where=str(path),
            hint=f"snn-deploy import {path.name} --calibrate X.npz -o {path.stem}.nir",
        )
    raise InputError(
        f"{path.name} is not a model file that snn-deploy knows",
        where=str(path),
        hint=f"expected one of {', '.join(KNOWN_SUFFIXES)}",
    )


def _netx(path: Path, options: LoadOptions) -> Network:
    from snn_deploy.io.netx_read import NetxOptions, read_netx

    asked = options.nir
    network = read_netx(
        path, NetxOptions(dt_s=asked.dt_s, readout=asked.readout, coding=asked.coding)
    )
    return agreeing(network, replace(asked, dt_s=None), path)


def must_exist(path: Path) -> None:
    """Raise InputError for a path where nothing is, with the nearest name there."""
    if path.exists():
        return
    folder = path.parent if str(path.parent) else Path()
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    raise InputError(
        "no such file",
        where=str(path),
        hint=f"did you mean {folder / near[0]}?" if near else "check the path",
    )


def _torch_file(path: Path, options: LoadOptions) -> Network:
    from snn_deploy.io.files import sha256_file
    from snn_deploy.io.state_dict import state_dict_in
    from snn_deploy.io.ticket import is_ticket, network_of, parse_ticket
    from snn_deploy.io.torch_zip import read_torch_zip

    content = read_torch_zip(path)
    if is_ticket(content):
        if options.arch is not None:
            raise UsageError(
                "a ticket brings its own architecture",
                where=str(path),
                hint="leave --arch out",
            )
        source = Source(path=str(path), sha256=sha256_file(path), format="ticket")
        try:
            ticket = parse_ticket(content, source)
        except SnnDeployError as error:
            raise error.located(str(path)) from None
        return agreeing(network_of(ticket), options.nir, path)
    source = Source(path=str(path), sha256=sha256_file(path), format="state_dict")
    return _state_dict(path, options, state_dict_in(content, source))


def agreeing(network: Network, asked: NirOptions, path: Path | str) -> Network:
    """Return ``network``; UsageError where it says otherwise than what NIR graphs are asked for."""

    def check(option: str, wanted: object, found: object) -> None:
        if wanted is not None and wanted != found:
            raise UsageError(
                f"{option} is for NIR graphs, which leave it open; this model does not",
                where=str(path),
                used=f"{option} {wanted}, the model says {found}",
                hint=f"leave {option} out; another value would be another network",
            )

    check("--dt", asked.dt_s, network.dt_s)
    for population in network.populations:
        if (reset := getattr(population.neuron, "reset", None)) is not None:
            check("--reset", asked.reset, reset)
        if (unit := getattr(population.neuron, "r_unit", None)) is not None:
            check("--if-r", asked.if_r, unit)
    return network


def module_of(options: LoadOptions, arrays: Mapping[str, Any], where: str) -> tuple[Any, Any]:
    """Return the module that a state_dict belongs to, and an example of one step's input."""
    if options.arch is None:
        raise InputError(
            "a state_dict holds weights without an architecture",
            where=where,
            used=f"{len(arrays)} tensors: {', '.join(list(arrays)[:4])}, ...",
            hint="name the module that it belongs to: --arch FILE.py:FACTORY",
        )
    if options.resolve is not None:
        return options.resolve(options.arch, arrays, options.input_shape)
    from snn_deploy.frontends.state import module_with_example

    return module_with_example(options.arch, options.input_shape)


def _state_dict(path: Path, options: LoadOptions, found: StateDict) -> Network:
    from snn_deploy.io.ticket import network_of

    module, example = module_of(options, found.arrays, str(path))
    from snn_deploy.frontends.state import ticket_from_state

    ticket = ticket_from_state(
        found.arrays,
        module,
        example_input=example,
        dt_s=options.nir.dt_s,
        readout=options.nir.readout or Readout(),
        coding=options.nir.coding or Coding(),
        source=found.source,
    )
    return agreeing(network_of(ticket), options.nir, path)
