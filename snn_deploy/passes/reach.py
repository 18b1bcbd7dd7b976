"""How far a membrane goes, estimated from the weights: what sets its headroom in a register.

A register that saturates changes sums silently, and one sized for every input firing at once in
every step would leave no room for the weights. So inputs are taken to fire independently in a
quarter of the steps, and the membrane to stay within four standard deviations of its mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from snn_deploy.ir.arrays import Array
from snn_deploy.ir.check import chain_shapes
from snn_deploy.ir.network import Network, Population, Projection, per_neuron
from snn_deploy.ir.neurons import Step
from snn_deploy.ir.synapses import Csr, Diagonal, Pool2d, Synapse, weights_of

_RATE = 0.25
_DEVIATIONS = 4.0
_UNKNOWN_STEPS = 100  # of an input whose length is not known: what a perfect integrator adds up


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """How far a population's states went on samples, in units of current.

    current: the largest |u / gain|, or |I| without a synaptic current. state: the largest of it
    and |v / gain|, before resets.
    """

    current: float
    state: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drive:
    """A step's current per neuron: mean between low and high (N,), and variance (N,)."""

    low: Array
    high: Array
    variance: Array


def reach(network: Network, population: Population, step: Step, offset: Array) -> float:
    """Return the largest magnitude that v / gain is expected to meet, in units of current.

    offset: constant current per step, bias and leak, (N,). A spike's reset ends every climb, so
    a population that spikes climbs for one step, and falls for as long as its state remembers.
    """
    drive = _drive(network, population)
    steps = float(network.coding.steps or _UNKNOWN_STEPS)
    memory_u = _memory(per_neuron(step.keep_u, population.shape), steps) if step.has_current else 1
    memory_v = _memory(per_neuron(step.keep_v, population.shape), steps)
    kept = memory_u * memory_v
    spread = _DEVIATIONS * np.sqrt(drive.variance)
    fall = np.maximum(-(drive.low + offset), 0) * kept + spread * memory_u * np.sqrt(memory_v)
    if step.threshold is None:
        climb = np.maximum(drive.high + offset, 0) * kept + spread * memory_u * np.sqrt(memory_v)
    else:
        real = per_neuron(step.threshold, population.shape)
        threshold = np.maximum(real / membrane_gain(population, step), 0)
        climb = threshold + np.maximum(drive.high + offset, 0) * memory_u + spread * memory_u
    return float(np.max(np.maximum(fall, climb), initial=0.0))


def membrane_gain(population: Population, step: Step) -> Array:
    """Return what a unit of current adds to v, (N,): states in integers are divided by it."""
    return per_neuron(step.gain_u, population.shape) * per_neuron(step.gain_v, population.shape)


def _memory(keep: Array, steps: float) -> Array:
    """Return how many steps' currents a state holds: 1 / (1 - keep), at most ``steps``."""
    return np.minimum(1.0 / np.maximum(1.0 - keep, 1.0 / steps), steps)


def _drive(network: Network, population: Population) -> _Drive:
    low, high, variance = (np.zeros(population.size) for _ in range(3))
    for projection in network.into(population.name):
        first, second = _sums(projection)
        after = chain_shapes(network, projection)[-1]
        pixels = population.size // after[0]
        if first.size not in (1, population.size) and first.size * pixels == population.size:
            first, second = np.repeat(first, pixels), np.repeat(second, pixels)
        fits = first.size in (1, population.size)
        # Where channels cannot be told apart any more, the lowest and the highest bound all.
        low += _RATE * (first if fits else first.min())
        high += _RATE * (first if fits else first.max())
        variance += _RATE * (1 - _RATE) * (second if fits else second.max())
    return _Drive(low=low, high=high, variance=variance)


def _sums(projection: Projection) -> tuple[Array, Array]:
    """Return the sum of the weights that end in a neuron and that of their squares.

    One for all, or one per output row or channel. Borders of convolutions count as their middle.
    """
    first = second = np.ones(1)
    for synapse in projection.synapses:
        if isinstance(synapse, Pool2d):
            area = float(math.prod(synapse.kernel))
            share = 1.0 if synapse.kind == "sum" else 1.0 / area
            first, second = first * area * share, second * area * share**2
        elif isinstance(synapse, Diagonal):
            scale = float(np.max(np.abs(synapse.scale), initial=0.0))
            first, second = first * scale, second * scale**2
        elif weights_of(synapse) is not None:
            sums, squares = _rows(synapse)
            first, second = sums * np.max(np.abs(first)), squares * np.max(second)
    return first, second


def _rows(synapse: Synapse) -> tuple[Array, Array]:
    """Return (sum, sum of squares) of the weights of each output neuron or channel."""
    weights = weights_of(synapse)
    assert weights is not None
    values = weights.astype(np.float64)
    if isinstance(synapse, Csr):
        row = synapse.rows
        size = synapse.shape[0]
        return (
            np.bincount(row, weights=values, minlength=size),
            np.bincount(row, weights=values**2, minlength=size),
        )
    flat = values.reshape(len(values), -1)
    return flat.sum(axis=1), (flat**2).sum(axis=1)
