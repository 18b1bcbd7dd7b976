"""Constant currents into a synaptic current: from a neuron that fires in every step.

Integers with a synaptic-current register add a bias to the membrane, behind that register. A
constant current before it has to arrive as spikes do, so a helper population sends them.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.network import Network, Population, Projection
from snn_deploy.ir.neurons import LIF
from snn_deploy.ir.synapses import Dense, bias_of, weights_of, with_weights
from snn_deploy.passes.analogue import analogue_into, constant_current
from snn_deploy.passes.fold import fresh_name
from snn_deploy.passes.scale import real_weights


def with_bias_neurons(network: Network, *, injected: bool) -> Network:
    """Return a folded network in which no bias enters a synaptic current.

    injected: whether the host injects currents of analogue input; there it adds the bias too.
    """
    populations = list(network.populations)
    projections = list(network.projections)
    for population in network.computing():
        name = population.name
        if not network.step_of(name).has_current or (injected and analogue_into(network, name)):
            continue
        bias = constant_current(network, name)
        if bias is None:
            continue
        fan_in = network.into(name)
        projections = [_without_bias(p) if p.post == name else p for p in projections]
        helper = fresh_name(f"{name}.bias", populations)
        source, synapses = _source(network, helper, population, bias, fan_in)
        populations.append(source)
        projections.append(synapses)
    return replace(network, populations=tuple(populations), projections=tuple(projections))


def _without_bias(projection: Projection) -> Projection:
    chain = []
    for synapse in projection.synapses:
        weights = weights_of(synapse)
        if weights is not None and bias_of(synapse) is not None:
            synapse = with_weights(synapse, weights, None)
        chain.append(synapse)
    return replace(projection, synapses=tuple(chain))


def _source(
    network: Network,
    name: str,
    population: Population,
    bias: Array,
    fan_in: tuple[Projection, ...],
) -> tuple[Population, Projection]:
    """Return neurons that always fire, as many as keep their weights below the layer's largest."""
    largest = max((float(np.max(np.abs(real_weights(p)), initial=0.0)) for p in fan_in), default=0)
    count = math.ceil(float(np.max(np.abs(bias))) / largest) if largest else 1
    always = LIF(
        tau_s=np.asarray(network.dt_s),
        r=np.asarray(1.0),
        v_leak=np.asarray(1.0),
        v_threshold=np.asarray(0.5),
        v_reset=np.asarray(0.0),
    )
    weight = np.repeat((bias / count)[:, None], count, axis=1).astype(np.float32)
    return (
        Population(name=name, shape=(count,), neuron=always, origin=population.origin),
        Projection(
            name=f"{name}.weight",
            pre=name,
            post=population.name,
            synapses=(Dense(weight=adopt(weight)),),
            origin=population.origin,
            helper=True,
        ),
    )
