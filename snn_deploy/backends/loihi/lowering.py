"""From a quantized network to the Loihi program; located errors for what has no form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snn_deploy.backends.arithmetics import LOIHI
from snn_deploy.backends.loihi.align import depths
from snn_deploy.backends.loihi.job import weight_limits
from snn_deploy.backends.loihi.program import (
    NEVER,
    LoihiPopulation,
    LoihiProgram,
    LoihiSynapses,
    integer_csr,
)
from snn_deploy.device.model import Device
from snn_deploy.engine.operators import chain_matrix
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.check import chain_shapes
from snn_deploy.ir.network import Network, Population, Projection
from snn_deploy.ir.quantized import QNetwork
from snn_deploy.ir.schedule import schedule
from snn_deploy.ir.synapses import (
    Conv1d,
    Conv2d,
    Csr,
    Dense,
    Diagonal,
    Pool2d,
    Shape,
    Synapse,
    weights_of,
    with_weights,
)
from snn_deploy.passes.scale import is_mixed, weight_grid

_MOST_BITS = LOIHI.weight_bits
PAYLOAD_BITS = 24


def lower(qnet: QNetwork, device: Device) -> LoihiProgram:
    """Return the Loihi program of a quantized network; located errors for what has no form.

    device: whether its neurons can be programmed and its spikes carry values.
    """
    network = qnet.network
    plan = schedule(network)
    depth = depths(network)
    reports = {report.projection: report for report in qnet.tensors}
    synapses: list[LoihiSynapses] = []
    for projection in network.projections:
        wait = plan.feedback[projection.name] + depth[projection.post] - depth[projection.pre] - 1
        report = reports.get(projection.name)
        bits, exponent = (_MOST_BITS, 0) if report is None else (report.bits, report.exponent)
        made = _synapses(network, projection, wait, bits, exponent)
        synapses += _by_sign(made) if bits == 1 else [made]
    populations = tuple(
        _population(qnet, network.population(name), depth[name])
        for name in plan.order
        if name not in network.inputs
    )
    if qnet.levels:
        synapses = [_graded(s) if s.pre in qnet.levels else s for s in synapses]
    program = LoihiProgram(populations=populations, synapses=tuple(synapses), network=network)
    found = device.limits.get("programmable_neurons")
    if found is None or not found.value:
        _check_fixed_neurons(program, device)
    return program


def _graded(synapses: LoihiSynapses) -> LoihiSynapses:
    return replace(synapses, payload_bits=PAYLOAD_BITS)


def _check_fixed_neurons(program: LoihiProgram, device: Device) -> None:
    """Raise for what only programmable neurons and graded spikes can do."""
    network = program.network
    for population in program.populations:
        if population.programmed:
            what = (
                "resets by subtraction"
                if population.reset == "subtract"
                else "starts at another membrane than 0"
                if bool(np.any(population.v_init))
                else "resets to another value than 0"
            )
            raise UnsupportedError(
                f"a neuron {what}, and those of {device.name} reset to 0 and start at 0",
                where=network.where(population.name),
                hint="train with value reset at 0 (reset='value', v_reset=0), or use a "
                "programmable neuron: --device loihi2 (simulator only)",
            )
    for synapses in program.synapses:
        if synapses.payload_bits:
            raise UnsupportedError(
                f"the spikes of {device.name} carry no values",
                where=network.where(synapses.name),
                hint="let the host inject the currents (--analogue bias), or use --device loihi2",
            )


def _int(value: Array) -> int | Array:
    return int(value) if value.ndim == 0 else value


def _population(qnet: QNetwork, population: Population, depth: int) -> LoihiPopulation:
    q = qnet.populations[population.name]
    never = q.threshold is None
    return LoihiPopulation(
        name=population.name,
        shape=population.shape,
        depth=depth,
        du=_int(np.asarray(q.decay_u - 1)),
        dv=_int(q.decay_v),
        vth=NEVER if q.threshold is None else _int(q.threshold),
        bias=None if q.bias is None else _int(q.bias),
        origin=population.origin,
        # A membrane that reaches the largest threshold is reset to 0 by the chip's own neuron.
        reset="subtract" if q.reset == "subtract" else "value",
        v_reset=0 if never else _int(q.v_reset),
        reset_amount=_int(q.reset_amount) if q.reset == "subtract" else 0,
        v_init=_int(q.v_init),
        injected=population.name in qnet.injections,
    )


def _synapses(
    network: Network, projection: Projection, wait: int, bits: int, exponent: int
) -> LoihiSynapses:
    """Return the projection as synapses that wait ``wait`` steps beyond the projection's delay."""
    pre, post = network.population(projection.pre), network.population(projection.post)
    delay = np.asarray(projection.delay_steps)
    operator: Csr | Conv2d | None = None
    shapes = (pre.shape, post.shape)
    if delay.ndim == 0:
        operator, shapes = _as_convolution(network, projection)
    if operator is None:
        operator, shapes = _as_csr(network, projection), (pre.shape, post.shape)
        if delay.ndim:
            delay = np.broadcast_to(delay, operator.shape)[operator.rows, operator.indices]
    delay = delay + wait
    if delay.size and int(delay.max()) > LOIHI.max_delay_steps:
        raise UnsupportedError(
            "a synapse would have to wait longer than Loihi can",
            where=network.where(projection.name),
            used=f"{int(delay.max())} of {LOIHI.max_delay_steps} steps, "
            f"{wait} of them so that all paths arrive together",
            hint="shorten the delay, or let a relay population carry the path",
        )
    made = LoihiSynapses(
        name=projection.name,
        projection=projection.name,
        pre=projection.pre,
        post=projection.post,
        operator=_mantissas(operator, exponent),
        in_shape=shapes[0],
        out_shape=shapes[1],
        exponent=exponent,
        delay_steps=int(delay) if delay.ndim == 0 else adopt(delay.astype(np.int32)),
        weight_bits=_MOST_BITS,
        helper=projection.helper,
        origin=projection.origin,
    )
    _check_weights(network, made)
    return replace(made, weight_bits=_stored_bits(made.weights, bits))


def _mantissas(operator: Csr | Conv2d, exponent: int) -> Csr | Conv2d:
    """Return the operator with its weights as they are stored: 2^exponent times smaller."""
    weights = weights_of(operator)
    assert weights is not None
    stored = with_weights(operator, adopt(weights >> exponent), None)
    assert isinstance(stored, Csr | Conv2d)
    return stored


def _check_weights(network: Network, synapses: LoihiSynapses) -> None:
    weights = synapses.weights
    low, high = (int(weights.min()), int(weights.max())) if weights.size else (0, 0)
    least, most = weight_limits(low, high, dense=isinstance(synapses.operator, Csr))
    if low < least or high > most:
        raise UnsupportedError(
            "a pool and the layer behind it make weights that 8 bits do not hold",
            where=network.where(synapses.name),
            used=f"{low} to {high}, allowed {least} to {most}",
            hint="use a pool whose windows do not overlap (stride = kernel), or put it elsewhere",
        )


def _stored_bits(weights: Array, bits: int) -> int:
    """Return the bits of a stored weight: those asked for where all lie on their grid.

    A core stores 1 to 6 or 8; a chain multiplied out may leave its learned weights' range.
    """
    step, top = weight_grid(LOIHI, bits, mixed=is_mixed(weights))
    on_grid = bool(np.all(weights % step == 0)) and bool(np.all(np.abs(weights) <= top))
    return bits if on_grid and bits != 7 else _MOST_BITS


def _by_sign(synapses: LoihiSynapses) -> list[LoihiSynapses]:
    """Return excitatory and inhibitory synapses apart: one bit has no room for a sign."""
    weights = synapses.weights
    if not is_mixed(weights):
        return [synapses]
    parts = []
    for ending, mine in (("excitatory", weights > 0), ("inhibitory", weights < 0)):
        operator, delay = synapses.operator, synapses.delay_steps
        if isinstance(operator, Csr):
            counts = np.bincount(operator.rows[mine], minlength=operator.shape[0])
            operator = Csr(
                indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
                indices=operator.indices[mine],
                data=weights[mine],
                shape=operator.shape,
            )
            delay = delay if isinstance(delay, int) else delay[mine]
        else:
            kept = with_weights(operator, np.where(mine, weights, 0), None)
            assert isinstance(kept, Conv2d)
            operator = kept
        part = replace(
            synapses, name=f"{synapses.name}.{ending}", operator=operator, delay_steps=delay
        )
        parts.append(replace(part, weight_bits=_stored_bits(part.weights, 1)))
    return parts


def _as_csr(network: Network, projection: Projection) -> Csr:
    """Return the whole chain as one sparse matrix; exact, because its parts are linear."""
    only = projection.synapses[0]
    if len(projection.synapses) == 1 and isinstance(only, Csr):
        return only
    if len(projection.synapses) == 1 and isinstance(only, Dense):
        return Csr.from_dense(only.weight)
    return integer_csr(chain_matrix(network, projection))


def _as_convolution(
    network: Network, projection: Projection
) -> tuple[Conv2d | None, tuple[Shape, Shape]]:
    """Return the chain as one convolution where that is exact, else None; and its shapes."""
    shapes = chain_shapes(network, projection)
    post = network.population(projection.post).shape
    chain: list[Synapse] = list(projection.synapses)
    scale = 1
    last = chain[-1]
    if isinstance(last, Diagonal) and last.scale.size == 1:
        scale = int(last.scale)
        chain.pop()
    ends = (shapes[0], post)
    conv: Conv2d | None
    match chain:
        case [Conv1d() as line]:
            conv = line.as_conv2d()
            ends = ((shapes[0][0], 1, shapes[0][1]), (shapes[1][0], 1, shapes[1][1]))
        case [Conv2d() as conv]:
            pass
        case [Pool2d() as pool]:
            conv = _pool_kernel(pool, shapes[0][0])
        case [Pool2d() as pool, Conv2d() as behind]:
            conv = _fuse(pool, behind, shapes[0])
        case _:
            conv = None
    if conv is None or post != shapes[-1]:
        return None, ends
    return replace(conv, weight=adopt(conv.weight * scale), bias=None), ends


def _pool_kernel(pool: Pool2d, channels: int) -> Conv2d:
    return Conv2d(
        weight=np.ones((channels, 1, *pool.kernel), np.int32),
        stride=pool.stride,
        padding=pool.padding,
        groups=channels,
    )


def _fuse(pool: Pool2d, conv: Conv2d, shape: Shape) -> Conv2d | None:
    """Return a sum pool and the convolution behind it as one larger convolution.

    Exact for pools that tile their input, and, where the convolution pads, tile it whole.
    """
    tiles = pool.kernel == pool.stride and pool.padding == (0, 0, 0, 0)
    whole = all(size % k == 0 for size, k in zip(shape[1:], pool.kernel, strict=True))
    if not tiles or conv.dilation != (1, 1) or not (whole or conv.padding == (0, 0, 0, 0)):
        return None
    kh, kw = pool.kernel
    top, bottom, left, right = conv.padding
    return Conv2d(
        weight=adopt(conv.weight.repeat(kh, axis=2).repeat(kw, axis=3)),
        stride=(conv.stride[0] * kh, conv.stride[1] * kw),
        padding=(top * kh, bottom * kh, left * kw, right * kw),
        groups=conv.groups,
    )
