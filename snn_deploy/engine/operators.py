"""Synapse chains as sparse matrices, and the fan-outs that synaptic operations are counted by.

Matrices are scipy CSR, (post neurons, pre neurons), float64. Integer weights stay exact in
float64 below 2^53, so integer engines share them and get BLAS and scipy's speed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from snn_deploy.ir.arrays import Array
from snn_deploy.ir.check import chain_shapes
from snn_deploy.ir.network import Network, Projection
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
)

if TYPE_CHECKING:
    from scipy.sparse import csr_array
else:
    csr_array = Any

_DENSE_FROM = 0.15  # above this density BLAS beats a sparse product
_DENSE_MOST = 32_000_000  # entries, 256 MB


def _taps(size: int, out: int, kernel: int, stride: int, before: int, dilation: int) -> Array:
    """Return for each (tap, output) the input index, or -1 in the padding."""
    index = np.arange(out)[None, :] * stride + np.arange(kernel)[:, None] * dilation - before
    return np.where((index >= 0) & (index < size), index, -1)


def _conv_entries(conv: Conv2d, in_shape: Shape) -> tuple[Array, Array, Array, Shape]:
    """Return (rows, columns, values, output shape) of a convolution's nonzeros."""
    _, out_h, out_w = shape = conv.out_shape(in_shape)
    out_c, group_in, kh, kw = conv.weight.shape
    top, _, left, _ = conv.padding
    ys = _taps(in_shape[1], out_h, kh, conv.stride[0], top, conv.dilation[0])
    xs = _taps(in_shape[2], out_w, kw, conv.stride[1], left, conv.dilation[1])
    rows: list[Array] = []
    columns: list[Array] = []
    values: list[Array] = []
    for ky in range(kh):
        for kx in range(kw):
            o, i = np.nonzero(conv.weight[:, :, ky, kx])
            oy, ox = np.nonzero(ys[ky] >= 0)[0], np.nonzero(xs[kx] >= 0)[0]
            if not (o.size and oy.size and ox.size):
                continue
            channel = o // (out_c // conv.groups) * group_in + i
            row = (o[:, None, None] * out_h + oy[None, :, None]) * out_w + ox[None, None, :]
            column = (channel[:, None, None] * in_shape[1] + ys[ky, oy][None, :, None]) * in_shape[
                2
            ] + xs[kx, ox][None, None, :]
            rows.append(row.ravel().astype(np.int32))
            columns.append(column.ravel().astype(np.int32))
            weight = conv.weight[o, i, ky, kx].astype(np.float64)
            values.append(np.repeat(weight, oy.size * ox.size))
    empty = np.zeros(0, np.int32)
    if not rows:
        return empty, empty, np.zeros(0), shape
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(values), shape


def _pool_as_conv(pool: Pool2d, channels: int) -> Conv2d:
    area = pool.kernel[0] * pool.kernel[1]
    value = 1.0 / area if pool.kind == "avg" else 1.0
    return Conv2d(
        weight=np.full((channels, 1, *pool.kernel), value),
        stride=pool.stride,
        padding=pool.padding,
        groups=channels,
    )


def matrix(synapse: Synapse, in_shape: Shape) -> csr_array:
    """Return one linear operator as CSR; BatchNorm and max pooling have none (fold them first)."""
    from scipy.sparse import coo_array, csr_array, dia_array

    size = int(np.prod(in_shape))
    if isinstance(synapse, Dense):
        return csr_array(np.asarray(synapse.weight, np.float64))
    if isinstance(synapse, Csr):
        data = synapse.data.astype(np.float64)
        return csr_array((data, synapse.indices, synapse.indptr), shape=synapse.shape)
    if isinstance(synapse, Identity):
        return csr_array(dia_array((np.ones((1, size)), [0]), shape=(size, size)))
    if isinstance(synapse, Diagonal):
        scale = np.broadcast_to(synapse.scale, in_shape).reshape(1, -1).astype(np.float64)
        return csr_array(dia_array((scale, [0]), shape=(size, size)))
    if isinstance(synapse, Conv1d):
        return matrix(synapse.as_conv2d(), (in_shape[0], 1, in_shape[1]))
    assert not isinstance(synapse, BatchNorm), "fold batch normalisation first"
    if isinstance(synapse, Pool2d):
        assert synapse.kind != "max", "fold max pooling first"
        synapse = _pool_as_conv(synapse, in_shape[0])
    rows, columns, values, shape = _conv_entries(synapse, in_shape)
    entries = coo_array((values, (rows, columns)), shape=(int(np.prod(shape)), size))
    result = csr_array(entries)
    result.sort_indices()
    return result


def chain_matrix(network: Network, projection: Projection) -> csr_array:
    """Return a projection's whole chain as one CSR matrix."""
    shapes = chain_shapes(network, projection)
    total: csr_array | None = None
    for synapse, shape in zip(projection.synapses, shapes, strict=False):
        part = matrix(synapse, shape)
        total = part if total is None else part @ total
    assert total is not None
    total.sort_indices()
    return total


def chain_bias(network: Network, projection: Projection) -> Array | None:
    """Return the constant current of a chain, float64 (post neurons,), or None without one."""
    shapes = chain_shapes(network, projection)
    total: Array | None = None
    for synapse, before, after in zip(projection.synapses, shapes, shapes[1:], strict=False):
        if total is not None:
            total = matrix(synapse, before) @ total
        bias = bias_of(synapse)
        if bias is not None:
            per_channel = np.asarray(bias, np.float64).reshape(-1, *[1] * (len(after) - 1))
            full = np.broadcast_to(per_channel, after).reshape(-1)
            total = full if total is None else total + full
    return total


class Operator:
    """A projection ready to run: ``currents(x)`` maps (rows, pre) to (rows, post) float64."""

    def __init__(self, sparse: csr_array) -> None:
        post, pre = sparse.shape
        self.sparse = sparse
        dense_pays = sparse.nnz > _DENSE_FROM * post * pre and post * pre <= _DENSE_MOST
        self._dense: Array | None = sparse.toarray().T.copy() if dense_pays else None

    @property
    def cost(self) -> int:
        """What a row of values costs, in multiplications of BLAS; a stored entry takes eight."""
        return 8 * self.sparse.nnz if self._dense is None else self._dense.size

    def currents(self, values: Array) -> Array:
        """Return ``values @ matrix.T``; values is (rows, pre), any numeric dtype."""
        if self._dense is not None:
            return np.asarray(values, np.float64) @ self._dense
        return np.asarray((self.sparse @ np.asarray(values.T, np.float64)).T)


def split_delays(sparse: csr_array, delay_steps: int | Array) -> list[tuple[int, csr_array]]:
    """Return (delay, matrix) parts; an array of delays makes one part per delay."""
    if isinstance(delay_steps, int) or np.ndim(delay_steps) == 0:
        return [(int(delay_steps), sparse)]
    from scipy.sparse import csr_array

    entries = sparse.tocoo()
    rows, columns = entries.coords
    delays = np.broadcast_to(delay_steps, sparse.shape)[rows, columns]
    parts = []
    for delay in np.unique(delays):
        keep = delays == delay
        part = csr_array((entries.data[keep], (rows[keep], columns[keep])), shape=sparse.shape)
        parts.append((int(delay), part))
    return parts or [(0, sparse)]


def _axis_fan_out(size: int, out: int, kernel: int, stride: int, before: int, dil: int) -> Array:
    """Return for each input index on one axis how many (tap, output) pairs read it."""
    index = _taps(size, out, kernel, stride, before, dil)
    return np.bincount(index[index >= 0], minlength=size)


def dense_fan_out(synapse: Synapse, in_shape: Shape) -> Array:
    """Return the connections of each input neuron, zero weights included, int64 (pre,)."""
    size = int(np.prod(in_shape))
    if isinstance(synapse, Dense | Csr):
        out = synapse.out_shape(in_shape)[0]
        return np.full(size, out, np.int64)
    if isinstance(synapse, Identity | Diagonal | BatchNorm):
        return np.ones(size, np.int64)
    if isinstance(synapse, Conv1d):
        return dense_fan_out(synapse.as_conv2d(), (in_shape[0], 1, in_shape[1]))
    if isinstance(synapse, Pool2d):
        synapse = _pool_as_conv(synapse, in_shape[0])
    _, out_h, out_w = synapse.out_shape(in_shape)
    kh, kw = synapse.weight.shape[2:]
    (sy, sx), (dy, dx), (top, _, left, _) = synapse.stride, synapse.dilation, synapse.padding
    rows = _axis_fan_out(in_shape[1], out_h, kh, sy, top, dy)
    columns = _axis_fan_out(in_shape[2], out_w, kw, sx, left, dx)
    per_pixel = np.outer(rows, columns) * (synapse.weight.shape[0] // synapse.groups)
    return np.broadcast_to(per_pixel, in_shape).reshape(-1).astype(np.int64)


def nonzero_fan_out(synapse: Synapse, in_shape: Shape) -> Array:
    """Return the nonzero connections of each input neuron, int64 (pre,)."""
    part = matrix(synapse, in_shape)
    return np.bincount(part.indices[part.data != 0], minlength=part.shape[1]).astype(np.int64)


def projection_fan_out(network: Network, projection: Projection, *, zeros: bool) -> Array:
    """Return, per pre neuron, the learned connections that one of its spikes meets.

    zeros: count zero weights too. Fixed operators (pools, scales) carry a spike on and are not
    counted; a projection without learned operators counts its own connections (as helpers).
    """
    fan = dense_fan_out if zeros else nonzero_fan_out
    shapes = chain_shapes(network, projection)
    learned = [i for i, s in enumerate(projection.synapses) if isinstance(s, LEARNED)]
    counted = learned or [len(projection.synapses) - 1]
    total = np.zeros(int(np.prod(shapes[0])), np.int64)
    for i in counted:
        total += pulled_back(network, projection, i, fan(projection.synapses[i], shapes[i]))
    return total


def pulled_back(network: Network, projection: Projection, index: int, reach: Array) -> Array:
    """Return what a spike of each pre neuron meets at operator ``index`` of a chain, int64.

    reach: what one at the operator itself meets, (neurons, ...). The operators before it carry
    a spike on along all their connections.
    """
    shapes = chain_shapes(network, projection)
    for j in range(index - 1, -1, -1):
        part = matrix(projection.synapses[j], shapes[j])
        part.data = np.ones_like(part.data)
        reach = (part.T @ reach).astype(np.int64)
    return reach


def projection_products(network: Network, projection: Projection) -> int:
    """Return the nonzero connections of a projection's learned operators, each taken once.

    What analogue values cost per step: a pool adds them up before they meet weights.
    """
    shapes = chain_shapes(network, projection)
    learned = [i for i, s in enumerate(projection.synapses) if isinstance(s, LEARNED)]
    counted = learned or [len(projection.synapses) - 1]
    return sum(int(nonzero_fan_out(projection.synapses[i], shapes[i]).sum()) for i in counted)
