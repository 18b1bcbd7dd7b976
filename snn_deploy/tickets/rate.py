"""How often the neurons of a model fire, watched from outside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from snn_deploy.tickets.lif import LIF


class SpikeRate:
    """Counts the spikes of every LIF in ``model`` while it is entered: a context manager."""

    def __init__(self, model: nn.Module) -> None:
        self._neurons = [m for m in model.modules() if isinstance(m, LIF)]
        self._hooks: list[Any] = []
        self._spikes: list[Tensor] = []
        self._seen = 0

    def __enter__(self) -> SpikeRate:
        self._hooks = [m.register_forward_hook(self._watch) for m in self._neurons]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _watch(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        # Each step for itself in float32, whose sums of ones are exact up to 16 million.
        counts = output.detach().flatten(1).sum(1)
        self.add(counts.sum(dtype=torch.float64), output.numel())

    def add(self, spikes: Tensor, places: int) -> None:
        """Count ``spikes``, a float64 scalar, of so many neurons and steps."""
        self._spikes.append(spikes)
        self._seen += places

    def mean(self) -> float:
        """Return the spikes per neuron and step, 0 where nothing ran."""
        return float(torch.stack(self._spikes).sum()) / self._seen if self._seen else 0.0
