"""A population as SpikingJelly's own neuron, for crosscheck: gains go into its input current.

SpikingJelly fires at v >= threshold, so its node gets the next larger number. Where the neuron
subtracts that, as all do that come from SpikingJelly, the node is the same one. A node that
subtracts what we compare with keeps our threshold, and gets a strict comparison.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from torch import Tensor, nn

from snn_deploy.bridges.plain_cell import parameter, plain_cell
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network, Population
from snn_deploy.ir.neurons import Step

_HINT = "the other frameworks and the float engine run it"


class Strict(nn.Module):  # type: ignore[misc]
    """Heaviside step, 0 at 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Return 1 where ``x`` is greater than 0."""
        return (x > 0).to(x.dtype)


class SpikingJellyCell(nn.Module):  # type: ignore[misc]
    """A SpikingJelly node, its state kept outside of it."""

    def __init__(self, node: Any, step: Step, shape: tuple[int, ...], gain: Array, offset: Array):
        super().__init__()
        self.node = node
        self._spikes, self._current = step.threshold is not None, step.has_current
        for name, value in (("gain", gain), ("offset", offset), ("v_init", step.v_init)):
            self.register_buffer(name, parameter(value, shape))

    def start(self, zeros: Tensor) -> tuple[Tensor, Tensor]:
        """Return (current, membrane) before step 0."""
        return zeros, zeros + self.v_init

    def forward(self, current: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        """Return SpikingJelly's spikes, or its membrane for a population that never spikes."""
        drive = current * self.gain + self.offset
        i, self.node.v = state
        if not self._spikes:
            self.node.neuronal_charge(drive)
            return self.node.v, (i, self.node.v)
        if self._current:
            self.node.c = i
        spikes = self.node(drive).to(drive.dtype)
        return spikes, (self.node.c if self._current else i, self.node.v)

    def membrane(self, state: tuple[Tensor, Tensor]) -> Tensor:
        """Return v after the reset."""
        return state[1]


def spikingjelly_cell(network: Network, population: Population) -> nn.Module:
    """Return a population's cell; UnsupportedError where SpikingJelly has no such neuron."""
    plain = plain_cell(population)
    if plain is not None:
        return plain
    # Importing it logs twice that Triton is absent, which is no news on a CPU.
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
    from spikingjelly.activation_based import neuron

    step, shape = population.neuron.step(network.dt_s), population.shape
    where = network.where(population.name)
    if step.has_current and step.threshold is None:
        raise UnsupportedError(
            "SpikingJelly has no current-based neuron that never spikes", where=where, hint=_HINT
        )
    if step.has_current and bool(np.any(step.offset != 0)):
        raise UnsupportedError(
            "SpikingJelly's CUBALIFNode has no leak potential", where=where, hint=_HINT
        )
    pure = bool(np.all(step.keep_v == 1))
    if not pure and not step.has_current and bool(np.any(step.keep_v <= 0)):
        raise UnsupportedError(
            "SpikingJelly's LIFNode needs a time constant above one step", where=where, hint=_HINT
        )
    with np.errstate(divide="ignore"):
        tau = 1.0 / (1.0 - step.keep_v)
    if step.threshold is None:
        if pure:
            node = neuron.NonSpikingIFNode()
            return SpikingJellyCell(node, step, shape, step.gain_v, step.offset)
        # It divides the whole input by tau.
        node = neuron.NonSpikingLIFNode()
        node.tau = parameter(tau, shape)
        return SpikingJellyCell(node, step, shape, step.gain_v * tau, step.offset * tau)

    how = _firing(step, where)
    rest = how["v_reset"] or 0.0
    gain, offset = step.gain_v, step.offset
    if step.has_current:
        node = neuron.CUBALIFNode(**how)
        node.c_decay, node.v_decay = parameter(step.keep_u, shape), parameter(step.keep_v, shape)
        gain = gain * step.gain_u
    elif pure:
        node = neuron.IFNode(**how)
    else:
        node = neuron.LIFNode(decay_input=False, **how)
        node.tau = parameter(tau, shape)
        # The node leaks towards its reset value: what differs from that is a constant current.
        offset = offset - (1.0 - step.keep_v) * rest
    # The constructors take one number; the equations, one per neuron as well.
    strict = "surrogate_function" in how
    node.v_threshold = parameter(step.threshold if strict else _above(step), shape)
    return SpikingJellyCell(node, step, shape, gain, offset)


def _above(step: Step) -> Array:
    """Return the least membrane that fires."""
    assert step.threshold is not None
    return np.nextafter(step.threshold, np.inf)


def _firing(step: Step, where: str) -> dict[str, Any]:
    """Return the nodes' arguments for the reset and the comparison."""
    assert step.threshold is not None
    if step.reset == "value":
        if np.ptp(step.v_reset):
            raise UnsupportedError(
                "SpikingJelly's nodes have one reset value for a layer",
                where=where,
                used=f"{float(np.min(step.v_reset)):g} to {float(np.max(step.v_reset)):g}",
                hint=_HINT,
            )
        return {"v_reset": float(np.asarray(step.v_reset).flat[0])}
    amount, threshold, above = np.broadcast_arrays(step.reset_amount, step.threshold, _above(step))
    if np.array_equal(amount, above):
        return {"v_reset": None}
    if np.array_equal(amount, threshold):
        return {"v_reset": None, "surrogate_function": Strict()}
    raise UnsupportedError(
        "SpikingJelly subtracts the threshold on reset, this neuron another amount",
        where=where,
        hint=_HINT,
    )
