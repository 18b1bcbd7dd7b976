"""Folding: batch norm, scales and average pools go into weights, max pools become spikes.

Masks survive: a per-channel scale turns no zero into a nonzero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.check import chain_shapes
from snn_deploy.ir.network import Network, Population, Projection
from snn_deploy.ir.neurons import Threshold
from snn_deploy.ir.schedule import schedule
from snn_deploy.ir.synapses import (
    LEARNED,
    BatchNorm,
    Conv1d,
    Conv2d,
    Csr,
    Dense,
    Diagonal,
    Identity,
    Pool2d,
    Shape,
    Synapse,
    bias_of,
    weights_of,
    with_weights,
)

SPARSE_BELOW = 0.5


def _scaled_rows(synapse: Synapse, scale: Array) -> Array:
    """Return the weights with output row or channel o multiplied by scale[o]."""
    weights = weights_of(synapse)
    assert weights is not None
    if isinstance(synapse, Csr):
        rows = synapse.rows
        return (weights * scale[rows]).astype(weights.dtype)
    shaped = scale.reshape(-1, *[1] * (weights.ndim - 1))
    return (weights * shaped).astype(weights.dtype)


def fold_batch_norm(network: Network) -> Network:
    """Fold each BatchNorm into the learned operator right before it."""
    return _map_chains(network, _fold_batch_norm)


def _fold_batch_norm(network: Network, projection: Projection) -> tuple[Synapse, ...]:
    chain: list[Synapse] = []
    for synapse in projection.synapses:
        if not isinstance(synapse, BatchNorm):
            chain.append(synapse)
            continue
        if not chain or not isinstance(chain[-1], LEARNED):
            raise UnsupportedError(
                "batch normalisation does not follow a convolution or linear layer",
                where=network.where(projection.name),
                hint="place it directly behind the layer whose output it normalises",
            )
        before = chain[-1]
        scale, shift = synapse.affine()
        bias = bias_of(before)
        folded = shift if bias is None else scale * bias + shift
        weights = _scaled_rows(before, scale)
        chain[-1] = with_weights(before, adopt(weights), adopt(folded.astype(weights.dtype)))
    return tuple(chain)


def _map_chains(
    network: Network, rewrite: Callable[[Network, Projection], tuple[Synapse, ...]]
) -> Network:
    projections = tuple(replace(p, synapses=rewrite(network, p)) for p in network.projections)
    return replace(network, projections=projections)


def lower_max_pool(network: Network) -> Network:
    """Replace max pools on unit spikes by a sum pool and a Threshold(0.5) population, exactly."""
    populations: list[Population] = list(network.populations)
    projections: list[Projection] = []
    feedback = list(network.feedback)
    for projection in network.projections:
        current = projection
        while any(isinstance(s, Pool2d) and s.kind == "max" for s in current.synapses):
            first = next(
                i
                for i, s in enumerate(current.synapses)
                if isinstance(s, Pool2d) and s.kind == "max"
            )
            before, pool, after = (
                current.synapses[:first],
                current.synapses[first],
                current.synapses[first + 1 :],
            )
            _require_unit_spikes(network, populations, current, before)
            assert isinstance(pool, Pool2d)
            shape = chain_shapes(network, projection)[len(projection.synapses) - len(after)]
            name = fresh_name(f"{projection.name}.max", populations)
            populations.append(
                Population(
                    name=name,
                    shape=shape,
                    neuron=Threshold(threshold=np.array(0.5)),
                    origin=projection.origin,
                )
            )
            projections.append(
                Projection(
                    name=f"{name}.sum",
                    pre=current.pre,
                    post=name,
                    synapses=(*before, replace(pool, kind="sum")),
                    delay_steps=current.delay_steps,
                    origin=projection.origin,
                    helper=True,
                )
            )
            current = replace(current, pre=name, synapses=after or (Identity(),), delay_steps=0)
        projections.append(current)
        moved = current.pre != projection.pre
        if moved and (projection.pre, projection.post) in network.feedback:
            feedback.append((current.pre, current.post))
    joined = {(p.pre, p.post) for p in projections}
    lowered = replace(
        network,
        populations=tuple(populations),
        projections=tuple(projections),
        feedback=tuple(pair for pair in feedback if pair in joined),
    )
    return lowered if len(populations) == len(network.populations) else _timed_as(network, lowered)


def _timed_as(network: Network, lowered: Network) -> Network:
    """Return ``lowered`` with the same edges taking a step as in ``network``.

    New populations lengthen paths, so in a loop the distances, and with them the edges that wait,
    may change: those that no longer would are named as feedback.
    """
    wanted, found = schedule(network).feedback, schedule(lowered).feedback
    forced = [
        (p.pre, p.post)
        for p in lowered.projections
        if wanted.get(p.name, 0) and not found[p.name] and (p.pre, p.post) not in lowered.feedback
    ]
    lowered = replace(lowered, feedback=(*lowered.feedback, *dict.fromkeys(forced)))
    found = schedule(lowered).feedback
    for projection in lowered.projections:
        if found[projection.name] != wanted.get(projection.name, 0):
            raise UnsupportedError(
                "max pooling in this loop would make another connection wait a step",
                where=network.where(projection.name),
                hint="use average pooling, or take the pool out of the loop",
            )
    return lowered


def _require_unit_spikes(
    network: Network,
    populations: list[Population],
    projection: Projection,
    before: tuple[Synapse, ...],
) -> None:
    pre = next(p for p in populations if p.name == projection.pre)
    spiking = pre.neuron.step(network.dt_s).threshold is not None
    binary_input = pre.name in network.inputs and network.coding.kind != "direct"
    if before or not (spiking or binary_input):
        raise UnsupportedError(
            "max pooling is exact on spikes only, and here it pools currents or analogue values",
            where=network.where(projection.name),
            hint="move the pool behind the spiking neuron, or use average pooling",
        )


def fresh_name(name: str, populations: list[Population]) -> str:
    """Return ``name``, or with the first number behind it that no population has."""
    taken = {p.name for p in populations}
    candidate, n = name, 2
    while candidate in taken:
        candidate, n = f"{name}{n}", n + 1
    return candidate


def fold_scales(network: Network) -> Network:
    """Turn average pools into sum pools and fold every scale into a learned neighbour."""
    return _map_chains(network, _fold_scales)


def _fold_scales(network: Network, projection: Projection) -> tuple[Synapse, ...]:
    chain: list[Synapse] = []
    shapes: list[Shape] = [network.population(projection.pre).shape]
    for synapse in projection.synapses:
        if isinstance(synapse, Pool2d) and synapse.kind == "avg":
            area = synapse.kernel[0] * synapse.kernel[1]
            chain += [replace(synapse, kind="sum"), Diagonal(scale=np.array(1.0 / area))]
        else:
            chain.append(synapse)
    for synapse in chain:
        shapes.append(synapse.out_shape(shapes[-1]))
    while (at := _first_foldable(chain, shapes)) is not None:
        chain, shapes = _fold_one(chain, shapes, *at)
    return tuple(chain) or (Identity(),)


def _channels(scale: Array, shape: Shape) -> Array | None:
    """Return one factor per channel (axis 0 of ``shape``), or None where a channel has several."""
    full = np.broadcast_to(np.asarray(scale, np.float64), shape).reshape(shape[0], -1)
    return full[:, 0] if bool(np.all(full == full[:, :1])) else None


def _first_foldable(chain: list[Synapse], shapes: list[Shape]) -> tuple[int, int] | None:
    """Return (index of a scale, index of the learned operator that can take it)."""
    for i, synapse in enumerate(chain):
        if not isinstance(synapse, Diagonal):
            continue
        channels = _channels(synapse.scale, shapes[i])
        for path in (range(i + 1, len(chain)), range(i - 1, -1, -1)):
            for j in path:
                other = chain[j]
                if isinstance(other, LEARNED):
                    if _takes(other, channels, scale_first=j > i):
                        return i, j
                    break
                # A scale passes other scales; one per channel passes a sum pool as well.
                pool = isinstance(other, Pool2d) and other.kind == "sum" and channels is not None
                if not (pool or isinstance(other, Diagonal | Identity)):
                    break
    return None


def _takes(learned: Synapse, channels: Array | None, *, scale_first: bool) -> bool:
    if isinstance(learned, Dense | Csr):
        return True
    assert isinstance(learned, Conv1d | Conv2d)
    if channels is None:
        return False
    uniform = bool(np.all(channels == channels[0]))
    return uniform or not scale_first or learned.groups == 1


def _fold_one(
    chain: list[Synapse], shapes: list[Shape], at: int, into: int
) -> tuple[list[Synapse], list[Shape]]:
    """Return the chain with the scale at ``at`` multiplied into the operator at ``into``."""
    scale, learned = chain[at], chain[into]
    assert isinstance(scale, Diagonal)
    weights, bias = weights_of(learned), bias_of(learned)
    assert weights is not None
    # Where pools lie between the two, shapes differ and the scale is one per channel.
    side = shapes[into] if into > at else shapes[into + 1]
    channels = _channels(scale.scale, shapes[at])
    if channels is None:
        full = np.broadcast_to(np.asarray(scale.scale, np.float64), side).reshape(-1)
    else:
        full = np.repeat(channels, math.prod(side[1:]))
    if into < at:
        factor = full if isinstance(learned, Dense | Csr) else channels
        assert factor is not None
        new = _scaled_rows(learned, factor)
        bias = None if bias is None else adopt((bias * factor).astype(bias.dtype))
    elif isinstance(learned, Csr):
        new = weights * full[learned.indices]
    elif isinstance(learned, Dense):
        new = weights * full
    else:
        assert channels is not None
        new = weights * _per_input(learned, channels)
    chain = list(chain)
    chain[into] = with_weights(learned, adopt(np.asarray(new, weights.dtype)), bias)
    return chain[:at] + chain[at + 1 :], shapes[:at] + shapes[at + 1 :]


def _per_input(conv: Synapse, channels: Array) -> Array:
    """Return factors that broadcast against a kernel; with groups they are all equal."""
    assert isinstance(conv, Conv1d | Conv2d)
    per_group = conv.weight.shape[1]
    return channels[:per_group].reshape(1, -1, *[1] * (conv.weight.ndim - 2))


def sparsify(network: Network) -> Network:
    """Store fully connected weights with less than half nonzeros as Csr."""

    def rewrite(_: Network, projection: Projection) -> tuple[Synapse, ...]:
        return tuple(_sparse(s) for s in projection.synapses)

    return _map_chains(network, rewrite)


def _sparse(synapse: Synapse) -> Synapse:
    if not isinstance(synapse, Dense):
        return synapse
    nonzero = int(np.count_nonzero(synapse.weight))
    if nonzero >= SPARSE_BELOW * synapse.weight.size:
        return synapse
    return Csr.from_dense(synapse.weight, synapse.bias)


def drop_identities(network: Network) -> Network:
    """Remove identity operators beside others."""

    def rewrite(_: Network, projection: Projection) -> tuple[Synapse, ...]:
        rest = tuple(s for s in projection.synapses if not isinstance(s, Identity))
        return rest or (Identity(),)

    return _map_chains(network, rewrite)
