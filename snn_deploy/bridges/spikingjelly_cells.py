"""A population as SpikingJelly's own neuron, for crosscheck: gains go into its input current.

SpikingJelly's surrogate functions fire at v >= threshold. It takes any function in their place: a
strict one here, so that both a spike and what it subtracts use the same threshold.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_deploy.bridges.norse_cells import plain_cell
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network, Population, fitted
from snn_deploy.ir.neurons import Step

_HINT = "the other frameworks and the float engine run it"


class Strict(nn.Module):  # type: ignore[misc]
    """Heaviside step, 0 at 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Return 1 where ``x`` is greater than 0."""
        return (x > 0).to(x.dtype)


class SpikingJellyCell(nn.Module):  # type: ignore[misc]
    """SpikingJelly's IFNode or LIFNode, its state kept outside of it."""

    def __init__(self, neuron: Any, step: Step, shape: tuple[int, ...], rest: float) -> None:
        super().__init__()
        self.neuron, self._shape = neuron, shape
        # The node leaks towards its reset value: what differs from that is a constant current.
        offset = fitted(step.offset, shape) - (1 - fitted(step.keep_v, shape)) * rest
        for name, value in (("gain", step.gain_v), ("offset", offset), ("v_init", step.v_init)):
            fit = np.array(fitted(value, shape), np.float64)
            self.register_buffer(name, torch.from_numpy(fit))

    def start(self, batch: int, dtype: torch.dtype) -> Tensor:
        """Return the membrane before step 0."""
        v: Tensor = torch.zeros((batch, *self._shape), dtype=dtype) + self.v_init
        return v

    def forward(self, current: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return SpikingJelly's spikes and its membrane."""
        self.neuron.v = state
        spikes = self.neuron(current * self.gain + self.offset)
        return spikes.to(current.dtype), self.neuron.v

    def membrane(self, state: Tensor) -> Tensor:
        """Return v after the reset."""
        return state


def spikingjelly_cell(network: Network, population: Population) -> nn.Module:
    """Return a population's cell; UnsupportedError where SpikingJelly has no such neuron."""
    plain = plain_cell(population)
    if plain is not None:
        return plain
    # Importing it logs twice that Triton is absent, which is no news on a CPU.
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)
    from spikingjelly.activation_based import neuron

    step, where = population.neuron.step(network.dt_s), network.where(population.name)
    name = type(population.neuron).__name__
    if step.threshold is None or step.has_current:
        raise UnsupportedError(
            f"{name} has no counterpart among SpikingJelly's IFNode and LIFNode",
            where=where,
            hint=_HINT,
        )

    def one(value: Array, what: str) -> float:
        if np.ptp(value):
            raise UnsupportedError(
                f"SpikingJelly's nodes have one {what} for a layer",
                where=where,
                used=f"{float(np.min(value)):g} to {float(np.max(value)):g}",
                hint=_HINT,
            )
        return float(np.asarray(value).flat[0])

    keep, threshold = one(step.keep_v, "time constant"), one(step.threshold, "threshold")
    rest: float | None = one(step.v_reset, "reset value") if step.reset == "value" else None
    if rest is None and one(step.reset_amount, "reset") != threshold:
        raise UnsupportedError(
            "SpikingJelly subtracts the threshold on reset, this neuron another amount",
            where=where,
            hint=_HINT,
        )
    how: dict[str, Any] = {
        "v_threshold": threshold,
        "v_reset": rest,
        "surrogate_function": Strict(),
    }
    if keep == 1:
        node = neuron.IFNode(**how)
    elif keep == 0:
        raise UnsupportedError(
            "SpikingJelly's LIFNode needs a time constant above one step", where=where, hint=_HINT
        )
    else:
        node = neuron.LIFNode(tau=1.0 / (1.0 - keep), decay_input=False, **how)
    return SpikingJellyCell(node, step, population.shape, rest or 0.0)
