"""The inner loops of training on a CPU, compiled by numba: float32, one thread.

They give what torch's own operations give, bit for bit where the order of a sum is not left open
(a batch norm to rounding), without their temporaries: a membrane stays in the cache over all
steps, and a matrix product with spikes adds up rows instead of multiplying by 0 and 1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from snn_deploy.io.compiled import compiled
from snn_deploy.ir.arrays import Array

#: Neurons whose membranes are held in the first cache.
TILE = 2048
#: 1.0 in float32, as bits.
ONE = 0x3F800000


def scan(current: Array, constants: Array, to_value: bool, distance: Array, spikes: Array) -> None:
    """Fill in all steps of a LIF, see tickets/lif.py; arrays (steps, neurons).

    constants: float32 (keep, gain, offset, threshold, v_reset, amount).
    """
    keep, gain, offset, threshold, v_reset, amount = constants
    one, zero = np.float32(1), np.float32(0)
    v = np.empty(TILE, np.float32)
    for first in range(0, current.shape[1], TILE):
        n = min(TILE, current.shape[1] - first)
        v[:] = zero
        for t in range(current.shape[0]):
            x = current[t, first : first + n]
            d = distance[t, first : first + n]
            z = spikes[t, first : first + n]
            if to_value:
                for i in range(n):
                    charged = v[i] * keep + (x[i] * gain + offset)
                    d[i] = charged - threshold
                    fired = charged > threshold
                    z[i] = one if fired else zero
                    v[i] = v_reset if fired else charged
            else:
                for i in range(n):
                    charged = v[i] * keep + (x[i] * gain + offset)
                    d[i] = charged - threshold
                    fired = charged > threshold
                    z[i] = one if fired else zero
                    v[i] = charged - amount * z[i]


def scan_back(
    distance: Array, spikes: Array, grad: Array, constants: Array, to_value: bool, out: Array
) -> None:
    """Fill in the gradient of the current; arrays (steps, neurons).

    constants: float32 (keep, gain, pi/2 alpha, alpha/2).
    """
    keep, gain, slope, half = constants
    one, zero = np.float32(1), np.float32(0)
    carried = np.empty(TILE, np.float32)
    for first in range(0, grad.shape[1], TILE):
        n = min(TILE, grad.shape[1] - first)
        carried[:] = zero
        for t in range(grad.shape[0] - 1, -1, -1):
            d = distance[t, first : first + n]
            z = spikes[t, first : first + n]
            g = grad[t, first : first + n]
            o = out[t, first : first + n]
            for i in range(n):
                scaled = slope * d[i]
                # np.divide, unlike /, looks for no 0 and so is done on whole vectors
                whole = np.divide(one, scaled * scaled + one) * half * g[i]
                kept = keep * carried[i]
                if to_value:
                    kept = kept * (one - z[i])
                whole = whole + kept
                carried[i] = whole
                o[i] = whole * gain


def moments(x: Array, total: Array, squares: Array) -> None:
    """Add each column's sum and sum of squares; x: (rows, columns)."""
    for r in range(len(x)):
        line = x[r]
        for i in range(line.size):
            value = np.float64(line[i])
            total[i] += value
            squares[i] += value * value


def norm_scan(
    x: Array, scale: Array, shift: Array, constants: Array, to_value: bool, out: Array
) -> float:
    """Fill in the spikes of a LIF whose current is ``scale * x + shift``; return how many.

    x: (steps, batch, rows, columns, channels); scale, shift: a value for each of an even number of
    rows, computed at once; constants: as in ``scan``. out: of x's shape, or of half its rows
    and columns for the mean of the spikes of each 2x2 field, an odd last one left out.
    """
    keep, gain, offset, threshold, v_reset, amount = constants
    one, zero, quarter = np.float32(1), np.float32(0), np.float32(0.25)
    steps, batch, rows, columns, channels = x.shape
    width, pooled = columns * channels, out.shape[2] < rows
    lines = x.reshape(steps, batch, rows * width)
    whole = out.reshape(steps, batch, out.shape[2] * out.shape[3] * channels)
    v, count = np.empty(scale.size, np.float32), np.zeros(scale.size, np.float32)
    buffer = np.empty(scale.size, np.float32)
    for begin in range(0, rows * width, scale.size):
        n = min(scale.size, rows * width - begin)
        for m in range(batch):
            v[:] = zero
            for t in range(steps):
                line = lines[t, m, begin : begin + n]
                z = buffer[:n] if pooled else whole[t, m, begin : begin + n]
                for i in range(n):
                    charged = v[i] * keep + ((line[i] * scale[i] + shift[i]) * gain + offset)
                    fired = charged > threshold
                    z[i] = one if fired else zero
                    count[i] += z[i]
                    after = v_reset if to_value else charged - amount
                    v[i] = after if fired else charged
                if pooled:
                    fields = z.reshape(n // width, columns, channels)
                    half = out[t, m, begin // width // 2 :]
                    for r in range(n // width // 2):
                        for c in range(columns // 2):
                            a, b = fields[2 * r, 2 * c], fields[2 * r, 2 * c + 1]
                            d, e = fields[2 * r + 1, 2 * c], fields[2 * r + 1, 2 * c + 1]
                            o = half[r, c]
                            for k in range(channels):
                                o[k] = (((a[k] + b[k]) + d[k]) + e[k]) * quarter
    return float(count.sum(dtype=np.float64))


def norm_scan_back(
    x: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    grad: Array,
    constants: Array,
    to_value: bool,
    out: Array,
    sums: Array,
    products: Array,
) -> None:
    """Fill in the gradient of the current in ``norm_scan``, and add up it, and it times x - mean.

    grad: of what that filled in. The membranes are computed again. constants: as there, and (pi/2
    alpha, alpha/2). mean, sums, products: of the same size as scale and shift.
    """
    keep, gain, offset, threshold, v_reset, amount, slope, half = constants
    one, zero, quarter = np.float32(1), np.float32(0), np.float32(0.25)
    steps, batch, rows, columns, channels = x.shape
    width, pooled = columns * channels, grad.shape[2] < rows
    lines, outs = x.reshape(steps, batch, rows * width), out.reshape(steps, batch, rows * width)
    grads = grad.reshape(steps, batch, grad.shape[2] * grad.shape[3] * channels)
    size = scale.size
    distance = np.empty((steps, size), np.float32)
    v, s, p = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    buffer = np.empty(size, np.float32)
    for begin in range(0, rows * width, size):
        n = min(size, rows * width - begin)
        buffer[:] = zero
        for m in range(batch):
            v[:] = zero
            for t in range(steps):
                line, d = lines[t, m, begin : begin + n], distance[t]
                for i in range(n):
                    charged = v[i] * keep + ((line[i] * scale[i] + shift[i]) * gain + offset)
                    d[i] = charged - threshold
                    after = v_reset if to_value else charged - amount
                    v[i] = after if charged > threshold else charged
            v[:], s[:], p[:] = zero, zero, zero  # from here on v is the gradient carried back
            for t in range(steps - 1, -1, -1):
                if pooled:
                    fields = buffer[:n].reshape(n // width, columns, channels)
                    shares = grad[t, m, begin // width // 2 :]
                    for r in range(n // width // 2):
                        for c in range(columns // 2):
                            a, b = fields[2 * r, 2 * c], fields[2 * r, 2 * c + 1]
                            share = shares[r, c]
                            for k in range(channels):
                                a[k] = b[k] = share[k] * quarter
                        fields[2 * r + 1] = fields[2 * r]
                g = buffer[:n] if pooled else grads[t, m, begin : begin + n]
                line, d = lines[t, m, begin : begin + n], distance[t]
                o = outs[t, m, begin : begin + n]
                for i in range(n):
                    scaled = slope * d[i]
                    total = np.divide(one, scaled * scaled + one) * half * g[i]
                    kept = keep * v[i]
                    if to_value:
                        kept = zero if d[i] > zero else kept
                    total = total + kept
                    v[i] = total
                    total = total * gain
                    o[i] = total
                    s[i] += total
                    p[i] += total * (line[i] - mean[i])
            # The steps in single precision, the samples in double.
            for i in range(n):
                sums[i] += s[i]
                products[i] += p[i]


def norm_back(
    x: Array, scale: Array, mean: Array, middle: Array, share: Array, grad: Array
) -> None:
    """Make ``scale * (grad - middle - share * (x - mean))`` of ``grad``; both (rows, columns)."""
    for r in range(len(x)):
        line, o = x[r], grad[r]
        for i in range(line.size):
            o[i] = scale[i] * (o[i] - middle[i] - share[i] * (line[i] - mean[i]))


def events(x: Array, most: int) -> tuple[Array, Array]:
    """Return where each row's ones are: (first entry per row and the end, their columns).

    x: (rows, columns), the bits of float32 values as int32. Nothing (two empty arrays) where
    values are not all 0 or 1, or more than ``most`` of them are 1.
    """
    rows, columns = x.shape
    first = np.zeros(rows + 1, np.int32)
    where = np.empty(most + columns, np.int32)
    n = 0
    for r in range(rows):
        line, others = x[r], 0
        for c in range(columns):
            others += (line[c] != 0) & (line[c] != ONE)
        if others or n > most:
            return np.empty(0, np.int32), np.empty(0, np.int32)
        for c in range(columns):
            where[n] = c
            n += line[c] != 0
        first[r + 1] = n
    return first, where[:n]


def transposed(first: Array, where: Array, columns: int) -> tuple[Array, Array]:
    """Return the same ones by column, rows ascending."""
    rows = first.size - 1
    begin = np.zeros(columns + 1, np.int32)
    for c in where:
        begin[c + 1] += 1
    for c in range(columns):
        begin[c + 1] += begin[c]
    free = begin.copy()
    out = np.empty(where.size, np.int32)
    for r in range(rows):
        for k in range(first[r], first[r + 1]):
            c = where[k]
            out[free[c]] = r
            free[c] += 1
    return begin, out


def gathered(first: Array, where: Array, matrix: Array, out: Array) -> None:
    """Add to each row of ``out`` the rows of ``matrix`` that its ones point at, in order."""
    width = matrix.shape[1]
    for r in range(out.shape[0]):
        total = out[r]
        k, end = first[r], first[r + 1]
        while k + 8 <= end:  # eight at once: the sums are read and written an eighth as often
            a, b = matrix[where[k]], matrix[where[k + 1]]
            c, d = matrix[where[k + 2]], matrix[where[k + 3]]
            e, f = matrix[where[k + 4]], matrix[where[k + 5]]
            g, h = matrix[where[k + 6]], matrix[where[k + 7]]
            for i in range(width):
                half = (((total[i] + a[i]) + b[i]) + c[i]) + d[i]
                total[i] = (((half + e[i]) + f[i]) + g[i]) + h[i]
            k += 8
        while k < end:
            a = matrix[where[k]]
            for i in range(width):
                total[i] += a[i]
            k += 1


def pool(x: Array, out: Array) -> None:
    """Fill in the mean of each 2x2 field; x: (images, rows, columns), an odd last one left out."""
    quarter = np.float32(0.25)
    for n in range(out.shape[0]):
        for i in range(out.shape[1]):
            a, b, o = x[n, 2 * i], x[n, 2 * i + 1], out[n, i]
            for j in range(out.shape[2]):
                o[j] = (((a[2 * j] + a[2 * j + 1]) + b[2 * j]) + b[2 * j + 1]) * quarter


def pool_back(grad: Array, out: Array) -> None:
    """Fill in the gradient of ``pool``'s input; ``out`` holds zeros before."""
    quarter = np.float32(0.25)
    for n in range(grad.shape[0]):
        for i in range(grad.shape[1]):
            a, b, g = out[n, 2 * i], out[n, 2 * i + 1], grad[n, i]
            for j in range(grad.shape[2]):
                share = g[j] * quarter
                a[2 * j] = share
                a[2 * j + 1] = share
                b[2 * j] = share
                b[2 * j + 1] = share


@functools.cache
def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return one of the functions above, compiled."""
    return compiled(function)


def started() -> bool:
    """Return whether a kernel was compiled, or loaded, in this process."""
    return kernel.cache_info().currsize > 0
