"""The Loihi program: populations and synapses in Lava's own integers, and their cores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from snn_deploy.backends.arithmetics import LOIHI
from snn_deploy.backends.loihi.job import weight_limits
from snn_deploy.errors import MismatchError, UnsupportedError
from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.check import chain_shapes
from snn_deploy.ir.network import Network, Population, Projection
from snn_deploy.ir.quantized import QNetwork
from snn_deploy.ir.schedule import schedule
from snn_deploy.ir.synapses import (
    Conv2d,
    Csr,
    Dense,
    Diagonal,
    Pool2d,
    Shape,
    Synapse,
)
from snn_deploy.passes.scale import is_mixed, weight_grid


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoihiPopulation:
    """A population as Lava's LIF in its fixed-point model takes it.

    du: -1..4095, dv: 0..4096, vth: compared as v > vth << 6, bias: added as bias << 6, or None;
    each an int or (n,). A population without a threshold gets the largest one. depth: hops from
    the input, that is, by how many steps it runs late.
    """

    name: str
    shape: Shape
    depth: int
    du: int | Array
    dv: int | Array
    vth: int | Array
    bias: int | Array | None
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoihiSynapses:
    """One projection: a Csr or Conv2d of integer weights, without bias.

    pad_steps: delay that makes a shorter path arrive with the longest one. weight_bits: what a
    weight takes in a core's memory. helper: nothing in it is learned.
    """

    name: str
    pre: str
    post: str
    operator: Csr | Conv2d
    pad_steps: int
    weight_bits: int
    helper: bool
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoihiProgram:
    """What goes to the chip or its simulator. network: names, shapes, readout and coding."""

    populations: tuple[LoihiPopulation, ...]
    synapses: tuple[LoihiSynapses, ...]
    network: Network

    @property
    def depth(self) -> int:
        """Steps that the last population runs late."""
        return max((p.depth for p in self.populations), default=0)

    def population(self, name: str) -> LoihiPopulation:
        """Return a population by name."""
        return next(p for p in self.populations if p.name == name)


_NEVER = (1 << 17) - 1
_MOST_BITS = LOIHI.weight_bits


def lower(qnet: QNetwork) -> LoihiProgram:
    """Return the Loihi program of a quantized network; located errors for what has no form."""
    network = qnet.network
    plan = schedule(network)
    for projection in network.projections:
        if plan.feedback[projection.name]:
            raise UnsupportedError(
                "recurrent edges are not lowered to Loihi",
                where=network.where(projection.name),
                hint="use --target cpu for this network",
            )
        if np.any(projection.delay_steps):
            raise UnsupportedError(
                "synaptic delays are not lowered to Loihi",
                where=network.where(projection.name),
                hint="use --target cpu for this network",
            )
    depth = dict.fromkeys(network.inputs, 0)
    populations: list[LoihiPopulation] = []
    for name in plan.order:
        if name in network.inputs:
            continue
        fan_in = network.into(name)
        if not fan_in:
            raise UnsupportedError(
                "a population has no input", where=network.where(name), hint="remove it"
            )
        depth[name] = 1 + max(depth[p.pre] for p in fan_in)
        populations.append(_population(qnet, network.population(name), depth[name]))
    bits = {report.projection: report.bits for report in qnet.tensors}
    synapses = tuple(
        _synapses(network, p, depth[p.post] - depth[p.pre] - 1, bits.get(p.name, _MOST_BITS))
        for p in network.projections
    )
    return LoihiProgram(populations=tuple(populations), synapses=synapses, network=network)


def _int(value: Array) -> int | Array:
    return int(value) if value.ndim == 0 else value


def _population(qnet: QNetwork, population: Population, depth: int) -> LoihiPopulation:
    q = qnet.populations[population.name]
    return LoihiPopulation(
        name=population.name,
        shape=population.shape,
        depth=depth,
        du=_int(np.asarray(q.decay_u - 1)),
        dv=_int(q.decay_v),
        vth=_NEVER if q.threshold is None else _int(q.threshold),
        bias=None if q.bias is None else _int(q.bias),
        origin=population.origin,
    )


def _stored_bits(weights: Array, bits: int) -> int:
    """Return the bits of a stored weight: those asked for where all lie on their grid.

    A core stores 1 to 6 or 8; a chain multiplied out may leave its learned weights' range.
    """
    step, top = weight_grid(LOIHI, bits, mixed=is_mixed(weights))
    on_grid = bool(np.all(weights % step == 0)) and bool(np.all(np.abs(weights) <= top))
    return bits if on_grid and bits != 7 else _MOST_BITS


def _synapses(network: Network, projection: Projection, pad_steps: int, bits: int) -> LoihiSynapses:
    operator: Csr | Conv2d | None = None
    if not pad_steps:
        operator = _as_convolution(network, projection)
    if operator is None:
        operator = _as_csr(network, projection)
    weights = operator.data if isinstance(operator, Csr) else operator.weight
    low, high = (int(weights.min()), int(weights.max())) if weights.size else (0, 0)
    least, most = weight_limits(low, high, dense=isinstance(operator, Csr))
    if low < least or high > most:
        raise UnsupportedError(
            "a pool and the layer behind it make weights that 8 bits do not hold",
            where=network.where(projection.name),
            used=f"{low} to {high}, allowed {least} to {most}",
            hint="use a pool whose windows do not overlap (stride = kernel), or put it elsewhere",
        )
    return LoihiSynapses(
        name=projection.name,
        pre=projection.pre,
        post=projection.post,
        operator=operator,
        pad_steps=pad_steps,
        weight_bits=_stored_bits(weights, bits),
        helper=projection.helper,
        origin=projection.origin,
    )


def _as_csr(network: Network, projection: Projection) -> Csr:
    """Return the whole chain as one sparse matrix; exact, because its parts are linear."""
    from snn_deploy.engine.operators import chain_matrix

    only = projection.synapses[0]
    if len(projection.synapses) == 1 and isinstance(only, Csr):
        return only
    if len(projection.synapses) == 1 and isinstance(only, Dense):
        return Csr.from_dense(only.weight)
    total = chain_matrix(network, projection)
    total.eliminate_zeros()
    return Csr(
        indptr=adopt(total.indptr.astype(np.int64)),
        indices=adopt(total.indices.astype(np.int32)),
        data=adopt(np.rint(total.data).astype(np.int32)),
        shape=(total.shape[0], total.shape[1]),
    )


def _as_convolution(network: Network, projection: Projection) -> Conv2d | None:
    """Return the chain as one convolution where that is exact, else None."""
    shapes = chain_shapes(network, projection)
    chain: list[Synapse] = list(projection.synapses)
    scale = 1
    last = chain[-1]
    if isinstance(last, Diagonal) and last.scale.size == 1:
        scale = int(last.scale)
        chain.pop()
    if len(network.population(projection.post).shape) != 3:
        return None
    conv: Conv2d | None
    match chain:
        case [Conv2d() as conv]:
            pass
        case [Pool2d() as pool]:
            conv = _pool_kernel(pool, shapes[0][0])
        case [Pool2d() as pool, Conv2d() as behind]:
            conv = _fuse(pool, behind, shapes[0])
        case _:
            conv = None
    if conv is None:
        return None
    top, bottom, left, right = conv.padding
    if (top, left) != (bottom, right):
        return None
    return replace(conv, weight=adopt(conv.weight * scale), bias=None)


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


def decode(program: LoihiProgram, qnet: QNetwork) -> QNetwork:
    """Return the QNetwork that the program's own numbers describe.

    Running it executes what was lowered, so a wrong weight, threshold, decay, bias or delay in
    the program shows against the QNetwork that it was made from. Raises MismatchError, located,
    where spikes would arrive before their step: no un-pipelined network does that.
    """
    network = qnet.network
    populations = dict(qnet.populations)
    for population in program.populations:
        q = populations[population.name]
        populations[population.name] = replace(
            q,
            decay_u=np.asarray(population.du, np.int64) + 1,
            decay_v=np.asarray(population.dv, np.int64),
            threshold=_threshold(population, silent=q.threshold is None),
            bias=None if population.bias is None else np.asarray(population.bias, np.int64),
        )
    by_name = {s.name: s for s in program.synapses}
    late = {p.name: p.depth for p in program.populations} | dict.fromkeys(network.inputs, 0)
    projections = []
    for projection in network.projections:
        synapses = by_name[projection.name]
        # Steps beyond the aligned ones are a real delay; a lowering without faults has none.
        extra = late[projection.pre] + 1 + synapses.pad_steps - late[projection.post]
        if extra < 0:
            raise MismatchError(
                "the program delivers spikes before the step that they belong to",
                where=network.where(projection.name),
                used=f"{-extra} steps too early",
            )
        projections.append(replace(projection, synapses=(synapses.operator,), delay_steps=extra))
    decoded = replace(network, projections=tuple(projections))
    return replace(qnet, network=decoded, populations=populations)


def _threshold(population: LoihiPopulation, *, silent: bool) -> Array | None:
    vth = np.asarray(population.vth, np.int64)
    return None if silent and bool(np.all(vth == _NEVER)) else vth
