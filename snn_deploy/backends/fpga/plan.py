"""Which geometry each projection gets: events with kernels, events with rows, or multiplied out.

A kernel's entries serve all pixels, so convolutions (grouped, strided, dilated, 1-D), sum pools
and one-to-one maps of channels keep tiny images; fully connected layers have a row per event. A
sum pool that tiles its input is a division of the event's address. Every other chain is
multiplied out into one sparse matrix, whose rows are stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from snn_deploy.backends.fpga.program import Pooling, Window
from snn_deploy.engine.operators import chain_matrix, matrix, split_delays
from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.check import chain_shapes
from snn_deploy.ir.network import Network, Projection
from snn_deploy.ir.quantized import QNetwork
from snn_deploy.ir.schedule import schedule
from snn_deploy.ir.synapses import (
    LEARNED,
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Geometry:
    """A projection's rows and their entries, before neurons are placed in banks.

    With a window: row (c, ky, kx), target = output channel. Without: row = (pooled) event,
    target = neuron. row, target, weight: int64, sorted by row, then target; no zeros.
    """

    projection: Projection
    pool: Pooling | None
    window: Window | None
    rows: int
    row: Array
    target: Array
    weight: Array
    learned: bool
    composite: bool
    delay: int = 0

    @property
    def pre(self) -> str:
        """The population that it comes from."""
        return self.projection.pre


def check_supported(qnet: QNetwork) -> tuple[str, ...]:
    """Return the computing populations in order of evaluation.

    Raises UnsupportedError, located, for what the engines cannot carry between layers or read.
    """
    network = qnet.network
    plan = schedule(network)
    for projection in network.projections:
        pre = projection.pre
        if pre not in network.inputs and network.step_of(pre).threshold is None:
            raise UnsupportedError(
                f"{pre} does not spike, and only spikes travel between the engines",
                where=network.where(projection.name),
                hint="put a spiking population between them, or make it the output",
            )
    names = tuple(n for n in plan.order if n not in network.inputs)
    for name in names:
        if not network.into(name):
            if any(p.pre == name and p.helper for p in network.projections):
                raise UnsupportedError(
                    "a bias adds to a synaptic current here, and only events do",
                    where=network.where(name),
                    hint="train this layer without a bias, or use --target loihi",
                )
            raise InputError(
                "nothing feeds this population",
                where=network.where(name),
                hint="connect it, or remove it from the graph",
            )
    return names


def geometries(network: Network, projection: Projection) -> list[Geometry]:
    """Return how a projection of a quantized network is stored: one part per delay."""
    late = schedule(network).feedback[projection.name]
    if np.ndim(projection.delay_steps) == 0:
        delay = int(projection.delay_steps) + late  # type: ignore[arg-type]
        return [replace(geometry(network, projection), delay=delay)]
    learned = not projection.helper and any(isinstance(s, LEARNED) for s in projection.synapses)
    size = network.population(projection.pre).size
    found = []
    for delay, part in split_delays(chain_matrix(network, projection), projection.delay_steps):
        target, rows = part.tocoo().coords
        weight = np.rint(part.tocoo().data).astype(np.int64)
        made = _made(
            projection,
            None,
            None,
            size,
            rows,
            target,
            weight,
            learned,
            composite=len(projection.synapses) > 1,
        )
        found.append(replace(made, delay=delay + late))
    return found


def geometry(network: Network, projection: Projection) -> Geometry:
    """Return how a projection is stored, whatever its delay."""
    learned = not projection.helper and any(isinstance(s, LEARNED) for s in projection.synapses)
    chain: list[Synapse] = [s for s in projection.synapses if not isinstance(s, Identity)]
    shape: Shape = network.population(projection.pre).shape
    pool = _tiling(chain[0], shape) if chain else None
    rest = chain[1:] if pool else chain
    inner: Shape = pool.out_shape if pool else shape
    if len(rest) == 1 and isinstance(rest[0], Dense | Csr):
        rows, target, weight = _entries(rest[0], inner)
        size = int(np.prod(inner))
        return _made(projection, pool, None, size, rows, target, weight, learned)
    conv = _as_conv(rest, inner)
    if conv is not None:
        kernel, inner3 = conv
        return _kernel(projection, pool, kernel, inner3, learned)
    whole = chain_matrix(network, projection).tocoo()
    target, rows = whole.coords
    size = int(np.prod(shape))
    parts = (rows, target, np.rint(whole.data).astype(np.int64))
    return _made(projection, None, None, size, *parts, learned, composite=True)


def kernel_shape(network: Network, plan: Geometry) -> tuple[int, int]:
    """Return (channels, pixels) of the output of a projection with a window."""
    assert plan.window is not None
    channels, height, width = plan.window.out_shape
    size = network.population(plan.projection.post).size
    assert channels * height * width == size, chain_shapes(network, plan.projection)
    return channels, height * width


def multiplied_out(network: Network, plan: Geometry) -> Geometry:
    """Return a projection with a window as rows of single events, for a post population whose
    neurons are laid out for another shape.
    """
    whole = chain_matrix(network, plan.projection).tocoo()
    target, rows = whole.coords
    size = network.population(plan.projection.pre).size
    weight = np.rint(whole.data).astype(np.int64)
    made = _made(
        plan.projection, None, None, size, rows, target, weight, plan.learned, composite=True
    )
    return replace(made, delay=plan.delay)


def _made(
    projection: Projection,
    pool: Pooling | None,
    window: Window | None,
    rows: int,
    row: Array,
    target: Array,
    weight: Array,
    learned: bool,
    composite: bool = False,
) -> Geometry:
    keep = np.flatnonzero(weight)
    row, target, weight = (a[keep].astype(np.int64) for a in (row, target, weight))
    order = np.lexsort((target, row))
    return Geometry(
        projection=projection,
        pool=pool,
        window=window,
        rows=rows,
        row=row[order],
        target=target[order],
        weight=weight[order],
        learned=learned,
        composite=composite,
    )


def _tiling(synapse: Synapse, shape: Shape) -> Pooling | None:
    """Return the address transform of a sum pool whose windows tile the input, else None."""
    if not isinstance(synapse, Pool2d) or synapse.kind != "sum":
        return None
    if synapse.stride != synapse.kernel or any(synapse.padding):
        return None
    channels, height, width = shape
    return Pooling(shape=(channels, height, width), kernel=synapse.kernel)


def _entries(synapse: Dense | Csr, shape: Shape) -> tuple[Array, Array, Array]:
    """Return (pre, post, weight) of a fully connected layer."""
    found = matrix(synapse, shape).tocoo()
    target, rows = found.coords
    return rows, target, np.rint(found.data).astype(np.int64)


def _as_conv(chain: list[Synapse], shape: Shape) -> tuple[Conv2d, tuple[int, int, int]] | None:
    """Return the chain as one ungrouped convolution on (C, H, W), or None where it is not one."""
    if len(chain) == 1 and isinstance(chain[0], Conv1d):
        return _ungrouped(chain[0].as_conv2d()), (shape[0], 1, shape[1])
    if len(shape) != 3:
        return None
    shape3 = (shape[0], shape[1], shape[2])
    if len(chain) == 1 and isinstance(chain[0], Conv2d):
        return _ungrouped(chain[0]), shape3
    pool = chain[0] if chain and isinstance(chain[0], Pool2d) else None
    scales = chain[1:] if pool else chain
    if not all(isinstance(s, Diagonal) for s in scales):
        return None
    after = pool.out_shape(shape) if pool else shape
    scale = np.ones(shape[0])
    for diagonal in scales:
        assert isinstance(diagonal, Diagonal)
        full = np.broadcast_to(diagonal.scale, after).reshape(shape[0], -1)
        if not bool(np.all(full == full[:, :1])):
            return None
        scale = scale * full[:, 0]
    kernel, stride, padding = (1, 1), (1, 1), (0, 0, 0, 0)
    if pool is not None:
        if pool.kind != "sum":
            return None
        kernel, stride, padding = pool.kernel, pool.stride, pool.padding
    weight = np.diag(scale)[:, :, None, None] * np.ones((1, 1, *kernel))
    return Conv2d(weight=weight, stride=stride, padding=padding), shape3


def _ungrouped(conv: Conv2d) -> Conv2d:
    """Return the same convolution with one group; the zeros that this adds are not stored."""
    if conv.groups == 1:
        return conv
    out, group_in, kh, kw = conv.weight.shape
    group_out = out // conv.groups
    weight = np.zeros((out, group_in * conv.groups, kh, kw), conv.weight.dtype)
    for g in range(conv.groups):
        rows = slice(g * group_out, (g + 1) * group_out)
        weight[rows, g * group_in : (g + 1) * group_in] = conv.weight[rows]
    return Conv2d(weight=weight, stride=conv.stride, padding=conv.padding, dilation=conv.dilation)


def _kernel(
    projection: Projection,
    pool: Pooling | None,
    conv: Conv2d,
    shape: tuple[int, int, int],
    learned: bool,
) -> Geometry:
    out, channels, kh, kw = conv.weight.shape
    _, out_h, out_w = conv.out_shape(shape)
    window = Window(
        in_shape=shape,
        out_shape=(out, out_h, out_w),
        kernel=(kh, kw),
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
    )
    integer = np.rint(conv.weight).astype(np.int64)
    target, c, ky, kx = np.nonzero(integer)
    row = (c * kh + ky) * kw + kx
    weight = integer[target, c, ky, kx]
    return _made(projection, pool, window, channels * kh * kw, row, target, weight, learned)
