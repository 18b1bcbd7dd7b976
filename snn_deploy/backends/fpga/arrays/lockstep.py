"""A lockstep array, as SATA's and u-Ticket's: output channels are dealt to elements that wait.

An element takes a cycle for each weight of its channels. ``waits`` says after what all n elements
wait for the slowest:

    wave   n neighbouring channels, one in each element, as in u-Ticket's published code
    layer  all channels of a layer, channel j in element j mod n: the definition of engine.load
    event  as "layer", and after each input of the layer too

Steps follow one another, and layers within a step. u-Ticket's array gates: a nonzero weight takes
its cycle in every step, whether its input spiked or not, and only the adder's energy depends on
the spike. With ``skips_silent`` only spikes take cycles. Analogue values (a directly coded input)
meet every weight in every step either way. Neuron updates and memory stalls are not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from snn_deploy.engine.load import (
    LayerReach,
    axis_of,
    channel_weights,
    counted_spikes,
    ran,
    reaches,
    utilised,
)
from snn_deploy.errors import UsageError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network
from snn_deploy.ir.trace import Trace

ELEMENTS = 16  # as published
Waits = Literal["wave", "layer", "event"]
WAITS: tuple[Waits, ...] = ("wave", "layer", "event")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerCycles:
    """One layer on the array.

    channels: what is dealt out; fewer than n leave elements without work for good. work: int64
    (samples, steps, n), cycles in which each element works. cycles: int64 (samples, steps).
    accumulates: int64 (samples, steps), the work whose input spiked.
    """

    name: str
    channels: int
    work: Array
    cycles: Array
    accumulates: Array

    @property
    def elements(self) -> int:
        """Elements of the array."""
        return int(self.work.shape[2])

    @property
    def idle(self) -> int:
        """Cycles in which elements wait, over all of them."""
        return self.elements * int(self.cycles.sum()) - int(self.work.sum())

    @property
    def utilisation(self) -> float:
        """The utilisation, 0..1, as in engine.load."""
        return utilised(int(self.work.sum()), int(self.cycles.sum()), self.elements)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LockstepRun:
    """A network on the array, layer by layer."""

    elements: int
    layers: tuple[LayerCycles, ...]

    @property
    def cycles(self) -> Array:
        """Cycles of each sample, int64 (samples,)."""
        return np.asarray(sum(layer.cycles.sum(axis=1) for layer in self.layers))

    @property
    def work(self) -> int:
        """Cycles in which elements work, over all of them."""
        return sum(int(layer.work.sum()) for layer in self.layers)

    @property
    def idle(self) -> int:
        """Cycles in which elements wait, over all of them."""
        return sum(layer.idle for layer in self.layers)

    @property
    def accumulates(self) -> int:
        """The work whose input spiked."""
        return sum(int(layer.accumulates.sum()) for layer in self.layers)

    @property
    def utilisation(self) -> float | None:
        """Utilisation, 0..1, of all layers that fill the elements; None where there is none."""
        full = [layer for layer in self.layers if layer.channels >= self.elements]
        if not full:
            return None
        work = sum(int(layer.work.sum()) for layer in full)
        return utilised(work, sum(int(layer.cycles.sum()) for layer in full), self.elements)


def lockstep(
    network: Network,
    trace: Trace | None = None,
    *,
    elements: int = ELEMENTS,
    waits: Waits = "wave",
    skips_silent: bool = False,
) -> LockstepRun:
    """Return the cycles of a run's samples and steps, until the samples' stops.

    Without a trace: of one step in which every input spikes. Raises InputError where the trace
    lacks a population's spikes; UsageError for no element, an unknown wait, or nothing to skip by.
    """
    axis_of(elements, "sata")
    if waits not in WAITS:
        raise UsageError(f"unknown wait {waits!r}", hint=f"one of {', '.join(WAITS)}")
    if trace is None and skips_silent:
        raise UsageError("masks alone have no silent inputs to skip", hint="pass a run's trace")
    layers = (_layer(one, trace, elements, waits, skips_silent) for one in reaches(network, None))
    return LockstepRun(elements=elements, layers=tuple(layers))


def wave_utilisation(network: Network, elements: int = ELEMENTS) -> float | None:
    """Return the utilisation, 0..1, as u-Ticket's published code averages it; None if no layer.

    Of each wave of n neighbouring channels that holds a weight, 1 - (max - ceil(mean)) / max *
    n / (n - 1) of its nonzero weights, a kernel's counted once; the mean over a layer's waves, and
    of that over layers. Layers that do not deal evenly are left out. (The published code also
    leaves out the first convolution and dense layers.)
    """
    axis_of(elements, "sata")
    layers = []
    for weights in channel_weights(network).values():
        if len(weights) % elements:
            continue
        waves = weights.reshape(-1, elements)
        waves = waves[waves.any(axis=1)]
        if waves.size:
            most, mean = waves.max(axis=1), -(-waves.sum(axis=1) // elements)
            layers.append(np.mean(1 - (most - mean) / most * elements / max(1, elements - 1)))
    return float(np.mean(layers)) if layers else None


def _layer(
    layer: LayerReach, trace: Trace | None, elements: int, waits: Waits, skips_silent: bool
) -> LayerCycles:
    if trace is None:
        runs = np.ones((1, 1), np.int64)
    else:
        runs = (np.arange(trace.steps) < ran(trace, layer.pre)[:, None]).astype(np.int64)
    spikes = None if trace is None or layer.analogue else counted_spikes(trace, layer.pre)
    if skips_silent and spikes is not None:
        work, cycles = _spent(spikes, layer.reach, elements, waits)
    else:
        always = np.ones((1, 1, len(layer.own)), bool)
        work, cycles = _spent(always, layer.own, elements, waits)
        work, cycles = runs[..., None] * work, runs * cycles
    met = runs * layer.own.sum()
    if spikes is not None:
        met = _met(spikes, layer.reach.sum(axis=1, keepdims=True))[..., 0]
    return LayerCycles(
        name=layer.name, channels=layer.channels, work=work, cycles=cycles, accumulates=met
    )


def _spent(inputs: Array, reach: Array, elements: int, waits: Waits) -> tuple[Array, Array]:
    """Return the work (samples, steps, n) and cycles (samples, steps) of inputs (..., pre)."""
    waves = math.ceil(reach.shape[1] / elements)
    dealt = np.pad(reach, ((0, 0), (0, waves * elements - reach.shape[1])))
    dealt = dealt.reshape(len(reach), waves, elements)
    if waits != "wave":
        dealt = dealt.sum(axis=1, keepdims=True)
    busy = _met(inputs, dealt.reshape(len(reach), -1))
    busy = busy.reshape(*inputs.shape[:2], -1, elements)
    if waits == "event":
        return busy.sum(axis=2), _met(inputs, dealt.max(axis=2))[..., 0]
    return busy.sum(axis=2), busy.max(axis=3).sum(axis=2)


def _met(inputs: Array, reach: Array) -> Array:
    """Return inputs (..., pre) @ reach (pre, m), int64; exact in float64, which has BLAS."""
    return np.asarray((inputs.astype(np.float64) @ reach.astype(np.float64)).round(), np.int64)
