"""Synapse operators: the linear maps on the way from one population to the next.

A projection holds a chain of them. Weights keep the dtype they came in (float32 as a rule;
integers after quantization). Shapes are per step, without batch or time: (N,) or (C, H, W).
Dense and Csr read their input flattened in C order, so a separate flatten is not needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from snn_deploy.errors import InputError
from snn_deploy.ir.arrays import Array, frozen, same

Shape = tuple[int, ...]
Pair = tuple[int, int]


class _Operator:
    """Freezes array fields; compares by value."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                if value.dtype.kind == "f" and not np.all(np.isfinite(value)):
                    raise InputError(
                        f"{type(self).__name__}.{field.name} is not finite",
                        used=f"{int((~np.isfinite(value)).sum()):,} of {value.size:,} values",
                        hint="a NaN or infinite weight usually means that training diverged",
                    )
                object.__setattr__(self, field.name, frozen(value))

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    __hash__ = None  # type: ignore[assignment]


def _check_bias(bias: Array | None, out: int, kind: str) -> None:
    if bias is not None and bias.shape != (out,):
        raise InputError(
            f"{kind} bias has shape {bias.shape}, expected ({out},)",
            hint="one bias per output neuron or channel",
        )


def _expect(in_shape: Shape, size: int, kind: str) -> None:
    if math.prod(in_shape) != size:
        raise InputError(
            f"{kind} expects {size:,} inputs and gets {math.prod(in_shape):,} (shape {in_shape})",
            hint="compare the layer's in_features with the shape of what feeds it",
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dense(_Operator):
    """Fully connected: weight (out, in), bias (out,) or None."""

    weight: Array
    bias: Array | None = None

    def __post_init__(self) -> None:
        _Operator.__post_init__(self)
        if self.weight.ndim != 2:
            raise InputError(
                f"Dense weight has {self.weight.ndim} axes, expected (out, in)",
                hint="store the weight as a matrix of (outputs, inputs)",
            )
        _check_bias(self.bias, self.weight.shape[0], "Dense")

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return ``(out,)``."""
        _expect(in_shape, self.weight.shape[1], "Dense")
        return (self.weight.shape[0],)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Csr(_Operator):
    """Fully connected and sparse, compressed by output row.

    indptr (out+1,) int64, indices (nnz,) int32 ascending in each row, data (nnz,),
    shape (out, in), bias (out,) or None. Explicit zeros are not stored.
    """

    indptr: Array
    indices: Array
    data: Array
    shape: Pair
    bias: Array | None = None

    def __post_init__(self) -> None:
        _Operator.__post_init__(self)
        out, width = self.shape
        ok = (
            self.indptr.shape == (out + 1,)
            and int(self.indptr[0]) == 0
            and int(self.indptr[-1]) == self.data.size == self.indices.size
            and bool(np.all(np.diff(self.indptr) >= 0))
            and (
                self.indices.size == 0
                or (int(self.indices.min()) >= 0 and int(self.indices.max()) < width)
            )
        )
        if not ok:
            raise InputError("malformed sparse matrix", hint="indptr, indices and data disagree")
        _check_bias(self.bias, out, "Csr")

    @classmethod
    def from_dense(cls, weight: Array, bias: Array | None = None) -> Csr:
        """Return the nonzeros of ``weight`` (out, in)."""
        rows, columns = np.nonzero(weight)
        counts = np.bincount(rows, minlength=weight.shape[0])
        return cls(
            indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            indices=columns.astype(np.int32),
            data=weight[rows, columns],
            shape=(weight.shape[0], weight.shape[1]),
            bias=bias,
        )

    @property
    def rows(self) -> Array:
        """The output row of each stored weight, (nnz,)."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))

    def to_dense(self) -> Array:
        """Return the (out, in) array."""
        dense = np.zeros(self.shape, self.data.dtype)
        dense[self.rows, self.indices] = self.data
        return dense

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return ``(out,)``."""
        _expect(in_shape, self.shape[1], "Csr")
        return (self.shape[0],)


def _window(size: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> int:
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


def _need_axes(in_shape: Shape, axes: int, kind: str) -> None:
    if len(in_shape) != axes:
        names = "(C, L)" if axes == 2 else "(C, H, W)"
        if len(in_shape) == axes + 1:
            hint = "shapes hold one sample of one step: leave out axes of batch and time"
        elif len(in_shape) == axes - 1 and axes == 3:
            hint = f"an image of one channel has the shape (1, {in_shape[0]}, {in_shape[1]})"
        else:
            hint = "flatten only after the last convolution or pool"
        raise InputError(f"{kind} expects an input of shape {names} and gets {in_shape}", hint=hint)


def _nonempty(shape: Shape, kind: str, in_shape: Shape) -> Shape:
    if min(shape) < 1:
        raise InputError(
            f"{kind} leaves nothing of an input of shape {in_shape}",
            hint="the kernel is larger than the padded input",
        )
    return shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conv1d(_Operator):
    """Cross-correlation over one axis: weight (out, in/groups, k), padding (before, after)."""

    weight: Array
    bias: Array | None = None
    stride: int = 1
    padding: Pair = (0, 0)
    dilation: int = 1
    groups: int = 1

    def __post_init__(self) -> None:
        _Operator.__post_init__(self)
        if self.weight.ndim != 3:
            raise InputError(
                f"Conv1d weight has {self.weight.ndim} axes, expected 3",
                hint="store the weight as (out, in/groups, kernel)",
            )
        if min(self.stride, self.dilation, self.groups) < 1 or min(self.padding) < 0:
            raise InputError(
                "Conv1d stride, dilation and groups are at least 1, padding at least 0",
                hint="correct the value, or export the layer again",
            )
        _check_bias(self.bias, self.weight.shape[0], "Conv1d")

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return ``(out, L')``."""
        _need_axes(in_shape, 2, "Conv1d")
        _check_groups(self.weight.shape, self.groups, in_shape[0], "Conv1d")
        k = self.weight.shape[2]
        length = _window(in_shape[1], k, self.stride, *self.padding, self.dilation)
        return _nonempty((self.weight.shape[0], length), "Conv1d", in_shape)

    def as_conv2d(self) -> Conv2d:
        """Return the same map on (C, 1, L)."""
        return Conv2d(
            weight=self.weight[:, :, None, :],
            bias=self.bias,
            stride=(1, self.stride),
            padding=(0, 0, *self.padding),
            dilation=(1, self.dilation),
            groups=self.groups,
        )


def _check_groups(weight_shape: Shape, groups: int, channels: int, kind: str) -> None:
    if weight_shape[1] * groups != channels or weight_shape[0] % groups:
        raise InputError(
            f"{kind} weight {weight_shape} with {groups} groups does not fit {channels} channels",
            hint="weight is (out, in/groups, ...), and groups divides both channel counts",
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conv2d(_Operator):
    """Cross-correlation: weight (out, in/groups, kH, kW), padding (top, bottom, left, right)."""

    weight: Array
    bias: Array | None = None
    stride: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        _Operator.__post_init__(self)
        if self.weight.ndim != 4:
            raise InputError(
                f"Conv2d weight has {self.weight.ndim} axes, expected 4",
                hint="store the weight as (out, in/groups, kernel rows, kernel columns)",
            )
        if min(*self.stride, *self.dilation, self.groups) < 1 or min(self.padding) < 0:
            raise InputError(
                "Conv2d stride, dilation and groups are at least 1, padding at least 0",
                hint="correct the value, or export the layer again",
            )
        _check_bias(self.bias, self.weight.shape[0], "Conv2d")

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return ``(out, H', W')``."""
        _need_axes(in_shape, 3, "Conv2d")
        _check_groups(self.weight.shape, self.groups, in_shape[0], "Conv2d")
        top, bottom, left, right = self.padding
        kh, kw = self.weight.shape[2:]
        height = _window(in_shape[1], kh, self.stride[0], top, bottom, self.dilation[0])
        width = _window(in_shape[2], kw, self.stride[1], left, right, self.dilation[1])
        return _nonempty((self.weight.shape[0], height, width), "Conv2d", in_shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool2d(_Operator):
    """Pooling over (H, W). "avg" divides by the kernel's area; "max" stands before folding only."""

    kind: Literal["sum", "avg", "max"]
    kernel: Pair
    stride: Pair
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        _Operator.__post_init__(self)
        if min(*self.kernel, *self.stride) < 1 or min(self.padding) < 0:
            raise InputError(
                "Pool2d kernel and stride are at least 1, padding at least 0",
                hint="correct the value, or export the layer again",
            )

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return ``(C, H', W')``."""
        _need_axes(in_shape, 3, "Pool2d")
        top, bottom, left, right = self.padding
        height = _window(in_shape[1], self.kernel[0], self.stride[0], top, bottom, 1)
        width = _window(in_shape[2], self.kernel[1], self.stride[1], left, right, 1)
        return _nonempty((in_shape[0], height, width), "Pool2d", in_shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Diagonal(_Operator):
    """Elementwise scale, broadcast against the input's shape."""

    scale: Array

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return ``in_shape``."""
        try:
            fits = np.broadcast_shapes(self.scale.shape, in_shape) == in_shape
        except ValueError:
            fits = False
        if not fits:
            raise InputError(
                f"scale of shape {self.scale.shape} does not fit {in_shape}",
                hint="give one scale, or one for each value that passes",
            )
        return in_shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Identity(_Operator):
    """One to one; the post population may have another shape of the same size."""

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return ``in_shape``."""
        return in_shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchNorm(_Operator):
    """Inference-mode batch normalisation per channel (axis 0), all arrays (C,)."""

    mean: Array
    variance: Array
    weight: Array
    bias: Array
    eps: float = 1e-5

    def __post_init__(self) -> None:
        _Operator.__post_init__(self)
        if len({a.shape for a in (self.mean, self.variance, self.weight, self.bias)}) != 1:
            raise InputError(
                "BatchNorm arrays have different lengths",
                hint="mean, variance, weight and bias have one value per channel",
            )
        if bool(np.any(self.variance < 0)):
            raise InputError(
                "BatchNorm variance is negative", hint="store running_var, not its logarithm"
            )

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return ``in_shape``."""
        if self.mean.shape != in_shape[:1]:
            raise InputError(
                f"BatchNorm over {self.mean.size} channels gets {in_shape}",
                hint="compare num_features with the channels of the layer before",
            )
        return in_shape

    def affine(self) -> tuple[Array, Array]:
        """Return (scale, shift), float64, so that y = scale x + shift."""
        scale = np.asarray(self.weight, np.float64) / np.sqrt(
            np.asarray(self.variance, np.float64) + self.eps
        )
        return scale, np.asarray(self.bias, np.float64) - scale * self.mean


Synapse = Dense | Csr | Conv1d | Conv2d | Pool2d | Diagonal | Identity | BatchNorm
LEARNED = (Dense, Csr, Conv1d, Conv2d)


def weights_of(synapse: Synapse) -> Array | None:
    """Return the learned weights (a Csr's stored ones), or None for a fixed operator."""
    if isinstance(synapse, Csr):
        return synapse.data
    return synapse.weight if isinstance(synapse, Dense | Conv1d | Conv2d) else None


def with_weights(synapse: Synapse, weights: Array, bias: Array | None) -> Synapse:
    """Return ``synapse`` with other weights of the same layout and another bias."""
    if isinstance(synapse, Csr):
        return replace(synapse, data=weights, bias=bias)
    assert isinstance(synapse, Dense | Conv1d | Conv2d)
    return replace(synapse, weight=weights, bias=bias)


def bias_of(synapse: Synapse) -> Array | None:
    """Return the bias of a learned operator, or None."""
    return synapse.bias if isinstance(synapse, Dense | Csr | Conv1d | Conv2d) else None


def learned_nonzeros(synapse: Synapse) -> int:
    """Return the number of nonzero learned weights (shared kernels counted once)."""
    weights = weights_of(synapse)
    return 0 if weights is None else int(np.count_nonzero(weights))


def learned_size(synapse: Synapse) -> int:
    """Return the number of learned weights, zeros included."""
    if isinstance(synapse, Csr):
        return synapse.shape[0] * synapse.shape[1]
    weights = weights_of(synapse)
    return 0 if weights is None else int(weights.size)
