"""What every framework's cells share: parameters as tensors, and the populations that need no
neuron of a framework, which are comparators and relays of values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snn_deploy.ir.network import Population, fitted
from snn_deploy.ir.neurons import Relay, Threshold
from snn_deploy.ir.synapses import Shape


def parameter(value: Any, shape: Shape) -> Tensor:
    """Return a neuron's parameter (see ``fitted``) as a float64 tensor of its own."""
    return torch.from_numpy(np.array(fitted(value, shape), np.float64))


class PlainCell(nn.Module):  # type: ignore[misc]
    """A comparator, or a population that passes values on. It has no state."""

    def __init__(self, population: Population) -> None:
        super().__init__()
        neuron = population.neuron
        self._compares = isinstance(neuron, Threshold)
        if isinstance(neuron, Threshold):
            self.register_buffer("threshold", parameter(neuron.threshold, population.shape))

    def start(self, zeros: Tensor) -> Any:
        """Return no state."""
        return None

    def forward(self, current: Tensor, state: Any) -> tuple[Tensor, Tensor]:
        """Return 1 where the current exceeds the threshold, or the current itself."""
        if self._compares:
            return (current > self.threshold).to(current.dtype), current
        return current, current

    def membrane(self, state: Tensor) -> Tensor:
        """Return the current."""
        return state


def plain_cell(population: Population) -> PlainCell | None:
    """Return the cell of a comparator or relay, None for a neuron with a state."""
    return PlainCell(population) if isinstance(population.neuron, Threshold | Relay) else None
