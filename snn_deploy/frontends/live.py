"""Networks of live torch modules, framework by framework; one reading serves them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

from torch import Tensor, nn

from snn_deploy.errors import UnsupportedError, UsageError
from snn_deploy.frontends import cells
from snn_deploy.frontends.state import network_from_module
from snn_deploy.ir.network import Coding, Network, Readout


class How(TypedDict, total=False):
    """What every reader takes beside the module: as in save_ticket."""

    readout: str | Mapping[str, Any] | Readout
    coding: str | Mapping[str, Any] | Coding
    masks: Mapping[str, Any] | None


def _from(
    framework: str | None, module: nn.Module, example: Tensor, dt_s: float | None, how: How
) -> Network:
    packages = {cells.package_of(type(part)) for part in module.modules() if cells.reader_of(part)}
    others = sorted(packages - {framework})
    if others:
        raise UnsupportedError(
            f"the module holds neurons of {', '.join(others)}",
            where=type(module).__name__,
            hint=f"call snn_deploy.from_{others[0]}",
        )
    return network_from_module(module, example_input=example, dt_s=dt_s, **how)


def from_norse(
    module: nn.Module, example_input: Tensor, *, dt_s: float | None = None, **how: Unpack[How]
) -> Network:
    """Return the Network of a module with norse's cells, or its layers over time.

    example_input: one step's input with a batch axis, also where the module takes all steps.
    dt_s: seconds, by default the cells'; another is an error. readout, coding, masks: as in
    save_ticket. Raises UnsupportedError and InputError that name the submodule.
    """
    return _from("norse", module, example_input, dt_s, how)


def from_snntorch(
    module: nn.Module, example_input: Tensor, *, dt_s: float | None = None, **how: Unpack[How]
) -> Network:
    """Return the Network of a module with snnTorch's neurons; dt_s: seconds of a step.

    Otherwise as from_norse. snnTorch counts in steps, so dt_s turns its decays into time constants.
    """
    return _from("snntorch", module, example_input, dt_s, how)


def from_spikingjelly(
    module: nn.Module, example_input: Tensor, *, dt_s: float | None = None, **how: Unpack[How]
) -> Network:
    """Return the Network of a module with SpikingJelly's neurons, in either step mode.

    dt_s: seconds of a step. Otherwise as from_norse.
    """
    return _from("spikingjelly", module, example_input, dt_s, how)


def from_sinabs(
    module: nn.Module, example_input: Tensor, *, dt_s: float | None = None, **how: Unpack[How]
) -> Network:
    """Return the Network of a module with sinabs' layers in their single-spike mode.

    dt_s: seconds of a step. Otherwise as from_norse.
    """
    return _from("sinabs", module, example_input, dt_s, how)


def from_torch(
    module: nn.Module,
    example_input: Tensor | None = None,
    *,
    dt_s: float | None = None,
    **how: Unpack[How],
) -> Network:
    """Return the Network of torch layers with our neurons, or what to_torch and to_norse made.

    The latter know their network and need no example_input. Otherwise as from_norse.
    """
    if callable(known := getattr(module, "to_network", None)):
        network: Network = known()
        return network
    if example_input is None:
        raise UsageError(
            "the shape of one input sample is not known",
            hint="pass example_input: one step's input with a batch axis",
        )
    return _from(None, module, example_input, dt_s, how)
