"""Calibration: how far each population's states really go, on samples of the user's own.

``reach`` estimates it from the weights; these runs in float observe it instead.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from snn_deploy.engine.loop import Inputs, Loop
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network, per_neuron
from snn_deploy.passes.analogue import constant_current
from snn_deploy.passes.reach import Reached, membrane_gain


class _Watched:
    """A population in float, its states divided by their gain; keeps their largest magnitude."""

    variables: tuple[str, ...] = ("v",)

    def __init__(
        self, network: Network, name: str, samples: int, furthest: dict[str, Reached]
    ) -> None:
        population, step = network.population(name), network.step_of(name)

        def row(value: Array) -> Array:
            return per_neuron(value, population.shape)

        # quantize refuses other gains.
        gain = membrane_gain(population, step)
        gain = np.where(gain > 0, gain, 1.0)
        bias = constant_current(network, name)
        self._name, self._furthest = name, furthest
        self._keep_u = row(step.keep_u) if step.has_current else np.zeros(population.size)
        self._keep_v = row(step.keep_v)
        self._bias = 0.0 if bias is None else bias
        self._offset = row(step.offset) / gain
        self._gain = gain
        self._threshold = None if step.threshold is None else row(step.threshold) / gain
        self._reset = step.reset
        self._v_reset, self._amount = row(step.v_reset) / gain, row(step.reset_amount) / gain
        self._u = np.zeros((samples, population.size))
        self._v = np.tile(row(step.v_init) / gain, (samples, 1))

    def step(self, current: Array) -> Array:
        self._u = self._keep_u * self._u + current + self._bias
        self._v = self._keep_v * self._v + self._u + self._offset
        u, v = (float(np.max(np.abs(state), initial=0.0)) for state in (self._u, self._v))
        before = self._furthest.get(self._name, Reached(current=0.0, state=0.0))
        self._furthest[self._name] = Reached(
            current=max(before.current, u), state=max(before.state, u, v)
        )
        if self._threshold is None:
            return np.asarray(self._v * self._gain)
        fired = self._v > self._threshold
        if self._reset == "value":
            self._v = np.where(fired, self._v_reset, self._v)
        elif self._reset == "subtract":
            self._v = self._v - fired * self._amount
        return fired.astype(np.uint8)

    def state(self, variable: str) -> Array:
        return np.asarray(self._v * self._gain)


def observe(network: Network, batches: Iterable[Inputs]) -> dict[str, Reached]:
    """Return how far each population's states go before their resets.

    network: folded. batches: encoded samples, as the engines take them; memory is that of one.
    """
    furthest: dict[str, Reached] = {}
    loop = Loop(network, lambda name, samples: _Watched(network, name, samples, furthest))
    for batch in batches:
        loop.run(batch)
    return furthest
