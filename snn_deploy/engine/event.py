"""The fast float engine: sparse products over whole batches, the neuron equations in float64."""

from __future__ import annotations

import numpy as np

from snn_deploy.engine.loop import Inputs, Loop, Record
from snn_deploy.engine.operators import chain_bias
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network, per_neuron
from snn_deploy.ir.trace import Trace


class _FloatCell:
    def __init__(self, network: Network, name: str, bias: Array | float, samples: int) -> None:
        population = network.population(name)
        step = population.neuron.step(network.dt_s)

        def row(value: Array) -> Array:
            return per_neuron(value, population.shape)

        self._keep_u, self._gain_u = row(step.keep_u), row(step.gain_u)
        self._keep_v, self._gain_v = row(step.keep_v), row(step.gain_v)
        self._offset, self._bias = row(step.offset), bias
        self._threshold = None if step.threshold is None else row(step.threshold)
        self._reset = step.reset
        self._v_reset, self._amount = row(step.v_reset), row(step.reset_amount)
        self._current_state = step.has_current
        self.variables: tuple[str, ...] = ("u", "v") if step.has_current else ("v",)
        self._u = np.zeros((samples, population.size))
        self._v = np.tile(row(step.v_init), (samples, 1))

    def step(self, current: Array) -> Array:
        drive = current + self._bias
        if self._current_state:
            self._u = self._keep_u * self._u + self._gain_u * drive
            drive = self._u
        self._v = self._keep_v * self._v + self._gain_v * drive + self._offset
        if self._threshold is None:
            return self._v
        fired = self._v > self._threshold
        if self._reset == "value":
            self._v = np.where(fired, self._v_reset, self._v)
        elif self._reset == "subtract":
            self._v = self._v - fired * self._amount
        return fired.astype(np.uint8)

    def state(self, variable: str) -> Array:
        return self._u if variable == "u" else self._v


class EventEngine:
    """Runs a folded Network in float64.

    x: (samples, steps, *input shape), binary or analogue; one array per input name where the
    network has several.
    """

    def __init__(self, network: Network) -> None:
        biases: dict[str, Array | float] = {}
        for population in network.computing():
            parts = [chain_bias(network, p) for p in network.into(population.name)]
            present = [b for b in parts if b is not None]
            biases[population.name] = np.sum(present, axis=0) if present else 0.0

        def make(name: str, samples: int) -> _FloatCell:
            return _FloatCell(network, name, biases[name], samples)

        self._loop = Loop(network, make)

    def run(self, x: Inputs, record: Record = "output") -> Trace:
        """Return the trace of a batch; every sample starts from the initial state."""
        return self._loop.run(x, record)
