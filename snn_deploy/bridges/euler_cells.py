"""to_torch: a network as a trainable torch module with our own neurons."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snn_deploy.bridges.plain_cell import parameter
from snn_deploy.bridges.spike import Spike
from snn_deploy.bridges.torch_network import NetworkModule
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network, Population


class EulerCell(nn.Module):  # type: ignore[misc]
    """One population: forward Euler as every engine computes it, with an ATan surrogate.

    The coefficients are buffers, not trained. alpha: the surrogate's steepness.
    """

    def __init__(self, network: Network, population: Population, alpha: float = 2.0) -> None:
        super().__init__()
        step = population.neuron.step(network.dt_s)
        self._reset, self._has_current, self._alpha = step.reset, step.has_current, alpha

        def keep(name: str, value: Array) -> None:
            self.register_buffer(name, parameter(value, population.shape))

        for name in ("keep_u", "gain_u", "keep_v", "gain_v", "offset", "v_reset", "reset_amount"):
            keep(name, getattr(step, name))
        keep("v_init", step.v_init)
        self._spikes = step.threshold is not None
        if step.threshold is not None:
            keep("threshold", step.threshold)

    def start(self, zeros: Tensor) -> tuple[Tensor, Tensor]:
        """Return (u, v) before step 0."""
        return zeros, zeros + self.v_init

    def forward(self, current: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        """Return spikes, or v for a population that never spikes, and the new state."""
        u, v = state
        if self._has_current:
            u = current = self.keep_u * u + self.gain_u * current
        v = self.keep_v * v + self.gain_v * current + self.offset
        if not self._spikes:
            return v, (u, v)
        spikes: Tensor = Spike.apply(v - self.threshold, self._alpha)
        fired = spikes.detach()
        if self._reset == "value":
            v = v * (1 - fired) + self.v_reset * fired
        elif self._reset == "subtract":
            v = v - self.reset_amount * fired
        return spikes, (u, v)

    def membrane(self, state: tuple[Tensor, Tensor]) -> Tensor:
        """Return v after the reset."""
        return state[1]


def to_torch(
    network: Network, *, dtype: torch.dtype = torch.float32, alpha: float = 2.0
) -> NetworkModule:
    """Return a torch module that runs ``network`` and can be trained.

    forward takes (steps, batch, *shape) and returns (steps, batch, n) spikes, or membranes for a
    membrane readout; ``to_network()`` gives the Network with the trained weights. The network is
    folded first, and zero weights are pruned and stay zero. alpha: the steepness of the spikes'
    surrogate gradient. Raises UnsupportedError for a delay per synapse within a chain of
    operators.
    """
    from snn_deploy.passes.pipeline import fold

    made = NetworkModule(fold(network), partial(EulerCell, alpha=alpha))
    module: NetworkModule = made.to(dtype)
    return module
