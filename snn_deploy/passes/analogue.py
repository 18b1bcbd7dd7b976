"""How values of a directly coded input enter integers that take spikes.

Either the host multiplies and adds, and gives each neuron its current in every step ("bias"), or
spikes carry whole numbers, and the target multiplies ("graded").
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from snn_deploy.engine.operators import chain_bias, chain_matrix
from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.network import Network, Population, Projection, per_neuron
from snn_deploy.ir.neurons import Step
from snn_deploy.ir.quantized import Arithmetic
from snn_deploy.ir.synapses import Diagonal, bias_of, with_weights
from snn_deploy.passes.reach import membrane_gain, reach
from snn_deploy.passes.scale import (
    Room,
    choose_scale,
    is_mixed,
    learned_of,
    real_weights,
    weight_grid,
)

AnalogueMode = Literal["bias", "graded"]
_MOST_LEVELS = 256


def analogue_into(network: Network, name: str) -> tuple[Projection, ...]:
    """Return the projections that bring analogue values into a population, in order."""
    if network.coding.kind != "direct":
        return ()
    return tuple(p for p in network.into(name) if p.pre in network.inputs)


def constant_current(network: Network, name: str) -> Array | None:
    """Return the sum of all biases, float64 (N,), or None where they are absent or zero."""
    parts = [b for b in (chain_bias(network, p) for p in network.into(name)) if b is not None]
    total = np.sum(parts, axis=0) if parts else None
    return total if total is not None and bool(np.any(total)) else None


def largest_current(
    network: Network, population: Population, step: Step, injected: tuple[Projection, ...]
) -> Array:
    """Return the largest |current| that the host may have to give a neuron, (N,).

    Values are taken to lie between 0 and the coding's gain, as images do; where the host also
    keeps a synaptic current, it adds up what lasts.
    """
    largest = np.zeros(population.size)
    for projection in injected:
        entries = chain_matrix(network, projection) * network.coding.gain
        positive = np.asarray(entries.maximum(0).sum(axis=1)).reshape(-1)
        negative = np.asarray((-entries).maximum(0).sum(axis=1)).reshape(-1)
        largest += np.maximum(positive, negative)
    if not injected or not step.has_current:
        return largest
    bias = constant_current(network, population.name)
    largest += 0.0 if bias is None else np.abs(bias)
    lost = 1.0 - per_neuron(step.keep_u, population.shape)
    return largest / np.maximum(lost, 1.0 / float(network.coding.steps or 100))


def with_levels(
    network: Network, arithmetic: Arithmetic, bits: int
) -> tuple[Network, dict[str, float]]:
    """Return the network on inputs multiplied by a power of two, and that number per input.

    It is the largest at which the weights behind the input still fill their grid.
    """
    levels: dict[str, float] = {}
    for name in network.inputs:
        fits = float(_MOST_LEVELS)
        while fits > 1 and not all(
            _fills(_scaled(network, name, fits), p.post, arithmetic, bits)
            for p in network.out_of(name)
        ):
            fits /= 2
        levels[name] = fits
        network = _scaled(network, name, fits)
    return network, levels


def _scaled(network: Network, name: str, level: float) -> Network:
    """Return the network that takes ``level`` times the values of an input."""
    projections = tuple(_divided(p, level) if p.pre == name else p for p in network.projections)
    return replace(network, projections=projections)


def _divided(projection: Projection, level: float) -> Projection:
    learned = learned_of(projection)
    if learned is None:
        whole = next((s for s in projection.synapses if isinstance(s, Diagonal)), None)
        scale = Diagonal(scale=(1.0 if whole is None else whole.scale) / np.asarray(level))
        chain = tuple(scale if s is whole else s for s in projection.synapses)
        return replace(projection, synapses=chain if whole is not None else (*chain, scale))
    weights = adopt(real_weights(projection) / np.asarray(level, real_weights(projection).dtype))
    divided = with_weights(learned, weights, bias_of(learned))
    return replace(
        projection,
        synapses=tuple(divided if s is learned else s for s in projection.synapses),
    )


def _fills(network: Network, name: str, arithmetic: Arithmetic, bits: int) -> bool:
    """Return whether the fan-in's weights use more than half of the grid that they have."""
    population = network.population(name)
    step = population.neuron.step(network.dt_s)
    gain = membrane_gain(population, step)
    bias = constant_current(network, name)
    offset = per_neuron(step.offset, population.shape) / gain + (0.0 if bias is None else bias)
    threshold = None
    if step.threshold is not None:
        threshold = per_neuron(step.threshold, population.shape) / gain
    fan_in = network.into(name)
    room = Room(reach=reach(network, population, step, offset))
    scale = choose_scale(fan_in, arithmetic, bits, threshold, offset, room)
    analogue = [
        (real_weights(p), scale.units / (1 << exponent))
        for p, exponent in zip(fan_in, scale.exponents, strict=True)
        if p.pre in network.inputs
    ]
    return all(
        float(np.max(np.abs(w), initial=0.0)) * units * 2
        > weight_grid(arithmetic, bits, mixed=is_mixed(w))[1]
        for w, units in analogue
    )
