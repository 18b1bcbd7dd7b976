"""to_norse: a network as a torch module whose neurons are norse's own equations.

Neurons that norse has no equation for (subtract reset by another amount than the threshold, a
CubaLIF that subtracts) are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_deploy.bridges.plain_cell import parameter, plain_cell
from snn_deploy.bridges.torch_network import NetworkModule
from snn_deploy.errors import MissingDependencyError, UnsupportedError
from snn_deploy.ir.network import Network, Population
from snn_deploy.ir.neurons import IF, LI, LIF, CubaLI, CubaLIF, Integrator

Step = Callable[[Tensor, Any], tuple[Tensor, Any]]


class NorseCell(nn.Module):  # type: ignore[misc]
    """A norse step function with its parameters as buffers, a gain on the current, and its state.

    make: returns (step, state before step 0 from v and i) for parameters by name.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        parameters: dict[str, Any],
        make: Callable[[dict[str, Tensor]], tuple[Step, Callable[[Tensor, Tensor], Any]]],
    ) -> None:
        super().__init__()
        self._names, self._make = tuple(parameters), make
        for name, value in parameters.items():
            self.register_buffer(name, parameter(value, shape))

    def _made(self) -> tuple[Step, Callable[[Tensor, Tensor], Any]]:
        return self._make({name: getattr(self, name) for name in self._names})

    def start(self, zeros: Tensor) -> Any:
        """Return norse's state before step 0."""
        return self._made()[1](zeros + self.v_init, zeros)

    def forward(self, current: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return norse's output and new state."""
        return self._made()[0](current * self.gain, state)

    def membrane(self, state: Any) -> Tensor:
        """Return norse's membrane, after the reset."""
        v: Tensor = state.v
        return v


def norse_cell(network: Network, population: Population) -> nn.Module:
    """Return a population's cell; UnsupportedError where norse has no equation for it."""
    from norse.torch.functional import iaf, leaky_integrator, leaky_integrator_box, lif, lif_box
    from norse.torch.functional.reset import reset_subtract, reset_value

    neuron, shape, dt = population.neuron, population.shape, network.dt_s
    where = network.where(population.name)
    plain = plain_cell(population)
    if plain is not None:
        return plain
    start = getattr(neuron, "v_init", None)
    common: dict[str, Any] = {"v_init": np.zeros(()) if start is None else start}

    if isinstance(neuron, LIF):
        if neuron.reset == "subtract" and neuron.reset_amount is not None:
            raise _refusal(
                "norse subtracts the threshold on reset, this neuron another amount", where
            )
        method = reset_subtract if neuron.reset == "subtract" else reset_value

        def box(p: dict[str, Tensor]) -> Any:
            q = lif_box.LIFBoxParameters(p["rate"], p["leak"], p["threshold"], p["reset"],
                                         reset_method=method)  # fmt: skip
            return (
                lambda i, s: lif_box.lif_box_feed_forward_step(i, s, q, dt),
                lambda v, i: lif_box.LIFBoxFeedForwardState(v=v),
            )

        common |= {"gain": neuron.r, "rate": 1.0 / neuron.tau_s, "leak": neuron.v_leak}
        common |= {"threshold": neuron.v_threshold, "reset": neuron.v_reset}
        return NorseCell(shape, common, box)
    if isinstance(neuron, CubaLIF):
        if neuron.reset != "value":
            raise _refusal("norse's CubaLIF resets to a value only", where)

        def cuba(p: dict[str, Tensor]) -> Any:
            q = lif.LIFParameters(p["syn"], p["mem"], p["leak"], p["threshold"], p["reset"])
            return (
                lambda i, s: lif.lif_feed_forward_step(i, s, q, dt),
                lambda v, i: lif.LIFFeedForwardState(v=v, i=i),
            )

        common |= _synapse(neuron, dt)
        common |= {"threshold": neuron.v_threshold, "reset": neuron.v_reset}
        return NorseCell(shape, common, cuba)
    if isinstance(neuron, CubaLI):

        def silent(p: dict[str, Tensor]) -> Any:
            q = leaky_integrator.LIParameters(p["syn"], p["mem"], p["leak"])
            return (
                lambda i, s: leaky_integrator.li_feed_forward_step(i, s, q, dt),
                lambda v, i: leaky_integrator.LIState(v=v, i=i),
            )

        return NorseCell(shape, common | _synapse(neuron, dt), silent)
    if isinstance(neuron, LI):

        def leaky(p: dict[str, Tensor]) -> Any:
            q = leaky_integrator_box.LIBoxParameters(p["rate"], p["leak"])
            return (
                lambda i, s: leaky_integrator_box.li_box_feed_forward_step(i, s, q, dt),
                lambda v, i: leaky_integrator_box.LIBoxState(v=v),
            )

        common |= {"gain": neuron.r, "rate": 1.0 / neuron.tau_s, "leak": neuron.v_leak}
        return NorseCell(shape, common, leaky)
    if isinstance(neuron, IF) and neuron.reset == "value":

        def fire(p: dict[str, Tensor]) -> Any:
            q = iaf.IAFParameters(p["threshold"], p["reset"])
            return (
                lambda i, s: iaf.iaf_feed_forward_step(i, s, q, dt),
                lambda v, i: iaf.IAFFeedForwardState(v=v),
            )

        common |= {"gain": neuron.step(dt).gain_v, "threshold": neuron.v_threshold}
        return NorseCell(shape, common | {"reset": neuron.v_reset}, fire)
    assert isinstance(neuron, IF | Integrator)
    kind = "Integrator" if isinstance(neuron, Integrator) else "an IF that subtracts on reset"
    raise _refusal(f"norse has no equation for {kind}", where)


def _synapse(neuron: CubaLIF | CubaLI, dt: float) -> dict[str, Any]:
    """Return what both share: norse adds the whole input to the current, ours its share."""
    return {
        "gain": dt / neuron.tau_syn_s * neuron.w_in * neuron.r,
        "syn": 1.0 / neuron.tau_syn_s,
        "mem": 1.0 / neuron.tau_mem_s,
        "leak": neuron.v_leak,
    }


def _refusal(message: str, where: str) -> UnsupportedError:
    return UnsupportedError(
        message, where=where, hint="snn_deploy.to_torch runs it, and so does the float engine"
    )


def to_norse(network: Network, *, dtype: torch.dtype = torch.float32) -> NetworkModule:
    """Return a torch module that runs ``network`` with norse's neurons, and can be trained.

    As to_torch. Raises UnsupportedError for neurons that norse has no equation for.
    """
    from importlib.util import find_spec

    from snn_deploy.passes.pipeline import fold

    if find_spec("norse") is None:
        raise MissingDependencyError(
            "norse is not installed", hint="pip install 'snn-deploy[train]'"
        )
    module: NetworkModule = NetworkModule(fold(network), norse_cell).to(dtype)
    return module
