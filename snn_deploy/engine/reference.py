"""The reference engine: float64, dense, one sample and one step at a time, nothing clever.

It shares no code with the fast engines but the neurons' Euler coefficients and the schedule;
they are tested against it.
"""

from __future__ import annotations

import numpy as np

from snn_deploy.engine.loop import Inputs, by_input
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network, Projection, per_neuron
from snn_deploy.ir.schedule import schedule
from snn_deploy.ir.synapses import (
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
)


def apply(synapse: Synapse, x: Array) -> Array:
    """Return the operator's output for one input of its input shape (bias included)."""
    if isinstance(synapse, Dense | Csr):
        weight = synapse.weight if isinstance(synapse, Dense) else synapse.to_dense()
        out = np.asarray(weight, np.float64) @ x.reshape(-1)
        return out if synapse.bias is None else out + synapse.bias
    if isinstance(synapse, Identity):
        return x
    if isinstance(synapse, Diagonal):
        return x * synapse.scale
    if isinstance(synapse, BatchNorm):
        scale, shift = synapse.affine()
        axes = (-1, *[1] * (x.ndim - 1))
        return x * scale.reshape(axes) + shift.reshape(axes)
    if isinstance(synapse, Conv1d):
        return apply(synapse.as_conv2d(), x[:, None, :])[:, 0, :]
    if isinstance(synapse, Pool2d):
        return _pool(synapse, x)
    return _conv(synapse, x)


def _padded(x: Array, padding: tuple[int, int, int, int], value: float = 0.0) -> Array:
    top, bottom, left, right = padding
    return np.pad(x, ((0, 0), (top, bottom), (left, right)), constant_values=value)


def _conv(conv: Conv2d, x: Array) -> Array:
    shape = conv.out_shape(x.shape)
    padded = _padded(x, conv.padding)
    out = np.zeros(shape)
    per_group_out, per_group_in = shape[0] // conv.groups, conv.weight.shape[1]
    kh, kw = conv.weight.shape[2:]
    for o in range(shape[0]):
        first = o // per_group_out * per_group_in
        for y in range(shape[1]):
            for z in range(shape[2]):
                rows = slice(y * conv.stride[0], None, conv.dilation[0])
                columns = slice(z * conv.stride[1], None, conv.dilation[1])
                window = padded[first : first + per_group_in, rows, columns][:, :kh, :kw]
                out[o, y, z] = np.sum(conv.weight[o].astype(np.float64) * window)
    return out if conv.bias is None else out + conv.bias[:, None, None]


def _pool(pool: Pool2d, x: Array) -> Array:
    shape = pool.out_shape(x.shape)
    padded = _padded(x, pool.padding, -np.inf if pool.kind == "max" else 0.0)
    out = np.zeros(shape)
    for y in range(shape[1]):
        for z in range(shape[2]):
            top, left = y * pool.stride[0], z * pool.stride[1]
            window = padded[:, top : top + pool.kernel[0], left : left + pool.kernel[1]]
            out[:, y, z] = window.max((1, 2)) if pool.kind == "max" else window.sum((1, 2))
    return out / (pool.kernel[0] * pool.kernel[1]) if pool.kind == "avg" else out


def _current(projection: Projection, values: list[Array], late: int, shape: Shape) -> Array:
    """Return what a projection adds at this step, flat; values[-1] is the newest."""

    def through(delay: int) -> Array:
        value = values[-1 - delay] if delay < len(values) else np.zeros(shape)
        for synapse in projection.synapses:
            value = apply(synapse, value)
        return value.reshape(-1)

    if np.ndim(projection.delay_steps) == 0:
        return through(int(projection.delay_steps) + late)
    # A delay per synapse: one column of the chain's matrix after the other.
    zero = np.zeros(shape)
    constant = zero
    for synapse in projection.synapses:
        constant = apply(synapse, constant)
    total = constant = constant.reshape(-1)
    each = np.broadcast_to(projection.delay_steps, (total.size, zero.size)) + late
    for pre in range(zero.size):
        unit = zero.copy()
        unit.flat[pre] = 1.0
        for synapse in projection.synapses:
            unit = apply(synapse, unit)
        sent = [values[-1 - d].flat[pre] if d < len(values) else 0.0 for d in each[:, pre]]
        total = total + (unit.reshape(-1) - constant) * np.array(sent)
    return total


def run_reference(network: Network, x: Inputs) -> dict[str, dict[str, Array]]:
    """Return, for one sample (steps, *input shape), population -> {"z", "v", "u"} over steps.

    x: one array per input name where there are several. "z" holds spikes, or the value of a
    population that never spikes.
    """
    given = by_input(network, x)
    plan = schedule(network)
    history: dict[str, list[Array]] = {p.name: [] for p in network.populations}
    states = {
        p.name: {"u": np.zeros(p.size), "v": per_neuron(network.step_of(p.name).v_init, p.shape)}
        for p in network.populations
    }
    traces: dict[str, dict[str, list[Array]]] = {
        p.name: {"z": [], "u": [], "v": []} for p in network.computing()
    }
    for t in range(len(next(iter(given.values())))):
        for name in plan.order:
            population = network.population(name)
            if name in network.inputs:
                history[name].append(np.asarray(given[name][t], np.float64))
                continue
            current = np.zeros(population.size)
            for projection in network.into(name):
                late = plan.feedback[projection.name]
                past = history[projection.pre]
                # A feedback source has not been evaluated in this step yet.
                newest = past if len(past) == t + 1 else [*past, np.zeros(())]
                shape = network.population(projection.pre).shape
                current += _current(projection, newest, late, shape)
            z = _advance(network, name, states[name], current)
            history[name].append(z.reshape(population.shape))
            for key, value in (("z", z), ("u", states[name]["u"]), ("v", states[name]["v"])):
                traces[name][key].append(value.reshape(population.shape))
    return {n: {k: np.array(v) for k, v in s.items()} for n, s in traces.items()}


def _advance(network: Network, name: str, state: dict[str, Array], current: Array) -> Array:
    population = network.population(name)
    step = population.neuron.step(network.dt_s)

    def row(value: Array) -> Array:
        return per_neuron(value, population.shape)

    u = row(step.keep_u) * state["u"] + row(step.gain_u) * current if step.has_current else current
    v = row(step.keep_v) * state["v"] + row(step.gain_v) * u + row(step.offset)
    fired = np.zeros(population.size, bool)
    if step.threshold is not None:
        fired = v > row(step.threshold)
        if step.reset == "value":
            v = np.where(fired, row(step.v_reset), v)
        elif step.reset == "subtract":
            v = np.where(fired, v - row(step.reset_amount), v)
    state["u"], state["v"] = u, v
    return v.copy() if step.threshold is None else fired.astype(np.float64)
