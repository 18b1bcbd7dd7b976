"""What each ONNX operator becomes in a dense network. The meaning is that of ONNX's own pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from snn_deploy.errors import InputError
from snn_deploy.frontends.onnx_ann import Builder, Value, fits_in_memory
from snn_deploy.frontends.onnx_attributes import needs, number, whole_numbers
from snn_deploy.frontends.onnx_elementwise import ELEMENTWISE
from snn_deploy.frontends.onnx_shapes import SHAPES
from snn_deploy.frontends.onnx_wire import OnnxNode
from snn_deploy.io.graph import Flatten
from snn_deploy.ir.arrays import Array, frozen
from snn_deploy.ir.synapses import BatchNorm, Conv1d, Conv2d, Dense, Pool2d, Shape


def _weights(builder: Builder, node: OnnxNode, index: int, axes: int) -> Array:
    value = builder.constant(node, index)
    if value is None or value.ndim != axes or value.dtype.kind != "f":
        raise InputError(
            f"{node.op} needs weights of {axes} axes",
            used="none" if value is None else f"{value.dtype}, shape {value.shape}",
            hint="export the model again",
        )
    return value.astype(np.float32) if value.dtype.itemsize < 4 else value


def _bias(builder: Builder, node: OnnxNode, index: int, out: int) -> Array | None:
    value = builder.constant(node, index)
    if value is None:
        return None
    if value.size not in (1, out) or value.dtype.kind != "f":
        raise InputError(
            f"{node.op} has {value.size} biases for {out} outputs", hint="export the model again"
        )
    return frozen(np.broadcast_to(value.reshape(-1), (out,)))


# Layers.


def _gemm(builder: Builder, node: OnnxNode) -> Value:
    source = builder.source(node)
    needs(
        not number(node, "transA", 0), "Gemm with transA turns the batch", 1, "multiply by weights"
    )
    weight = _weights(builder, node, 1, 2)
    weight = weight if number(node, "transB", 0) else weight.T
    alpha, beta = number(node, "alpha", 1.0), number(node, "beta", 1.0)
    bias = _bias(builder, node, 2, weight.shape[0])
    weight = frozen((weight * alpha).astype(weight.dtype))
    bias = None if bias is None else frozen((bias * beta).astype(weight.dtype))
    return _dense(builder, node, Dense(weight=weight, bias=bias), source)


def _matmul(builder: Builder, node: OnnxNode) -> Value:
    source = builder.source(node)
    return _dense(builder, node, Dense(weight=_weights(builder, node, 1, 2).T), source)


def _dense(builder: Builder, node: OnnxNode, dense: Dense, source: str) -> str:
    shape = builder.shape(source)
    needs(
        len(shape) == 1,
        f"{node.op} multiplies along the last axis of an image only",
        shape,
        "flatten before a dense layer",
    )
    return builder.operator(node.name, dense, source)


def _pads(node: OnnxNode, shape: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> list[int]:
    """Return padding as ONNX orders it: all begins, then all ends. shape: (C, ...)."""
    pads = _padding(node, shape[1:], kernel, stride, dilation)
    axes = len(kernel)
    padded = zip(shape[1:], pads[:axes], pads[axes:], strict=True)
    fits_in_memory((shape[0], *(n + a + b for n, a, b in padded)))
    return pads


def _padding(
    node: OnnxNode, size: Shape, kernel: Shape, stride: Shape, dilation: Shape
) -> list[int]:
    how = node.attributes.get("auto_pad", "NOTSET")
    if how in ("NOTSET", "VALID"):
        pads = whole_numbers(node, "pads", 2 * len(kernel), 0)
        return list(pads) if how == "NOTSET" else [0] * len(pads)
    needs(how in ("SAME_UPPER", "SAME_LOWER"), "auto_pad is none of ONNX's", how, "use pads")
    begins, ends = [], []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        small, large = total // 2, total - total // 2
        begins.append(small if how == "SAME_UPPER" else large)
        ends.append(large if how == "SAME_UPPER" else small)
    return begins + ends


def _conv(builder: Builder, node: OnnxNode) -> Value:
    source = builder.source(node)
    shape = builder.shape(source)
    axes = len(shape) - 1
    needs(axes in (1, 2), f"Conv over {axes} axes", shape, "one or two axes are supported")
    weight = _weights(builder, node, 1, axes + 2)
    bias = _bias(builder, node, 2, weight.shape[0])
    stride = whole_numbers(node, "strides", axes, 1)
    dilation = whole_numbers(node, "dilations", axes, 1)
    needs(min(stride + dilation) >= 1, "stride and dilation start at 1", stride, "use 1 or more")
    pads = _pads(node, shape, weight.shape[2:], stride, dilation)
    groups = number(node, "group", 1)
    if axes == 1:
        conv: Conv1d | Conv2d = Conv1d(
            weight=weight, bias=bias, stride=stride[0], padding=(pads[0], pads[1]),
            dilation=dilation[0], groups=groups,
        )  # fmt: skip
    else:
        top, left, bottom, right = pads
        conv = Conv2d(
            weight=weight, bias=bias, stride=(stride[0], stride[1]),
            padding=(top, bottom, left, right), dilation=(dilation[0], dilation[1]), groups=groups,
        )  # fmt: skip
    return builder.operator(node.name, conv, source)


def _batch_norm(builder: Builder, node: OnnxNode) -> Value:
    source = builder.source(node)
    needs(
        not number(node, "training_mode", 0),
        "batch normalisation in training mode",
        "training_mode 1",
        "export after model.eval()",
    )
    needs(
        number(node, "spatial", 1) == 1,
        "batch normalisation of single values",
        "spatial 0",
        "normalise channels",
    )
    scale, bias, mean, variance = (_weights(builder, node, i, 1) for i in (1, 2, 3, 4))
    norm = BatchNorm(
        mean=mean, variance=variance, weight=scale, bias=bias, eps=number(node, "epsilon", 1e-5)
    )
    return builder.operator(node.name, norm, source)


# Pools.


def _image(builder: Builder, node: OnnxNode) -> tuple[str, Shape]:
    source = builder.source(node)
    shape = builder.shape(source)
    needs(len(shape) == 3, f"{node.op} over other than two axes", shape, "pool images (C, H, W)")
    return source, shape


def _pool(builder: Builder, node: OnnxNode) -> Value:
    source, shape = _image(builder, node)
    kernel, stride = whole_numbers(node, "kernel_shape", 2, 0), whole_numbers(node, "strides", 2, 1)
    dilation = whole_numbers(node, "dilations", 2, 1)
    needs(dilation == (1, 1), f"{node.op} with dilation", dilation, "use dilation 1")
    needs(min(kernel + stride) >= 1, "a pool's kernel is empty", kernel, "use 1 or more")
    top, left, bottom, right = pads = _pads(node, shape, kernel, stride, (1, 1))
    if number(node, "ceil_mode", 0):
        sizes = zip(shape[1:], kernel, stride, pads[:2], pads[2:], strict=True)
        needs(
            all((n + a + b - k) % s == 0 for n, k, s, a, b in sizes),
            f"{node.op} with ceil_mode reads beyond the image",
            shape,
            "use ceil_mode=False, or a size that the stride divides",
        )
    average = node.op == "AveragePool"
    needs(
        not average or not any(pads) or bool(number(node, "count_include_pad", 0)),
        "an average pool leaves its padding out of the count",
        pads,
        "use count_include_pad=True, or no padding",
    )
    pool = Pool2d(
        kind="avg" if average else "max",
        kernel=(kernel[0], kernel[1]),
        stride=(stride[0], stride[1]),
        padding=(top, bottom, left, right),
    )
    return builder.operator(node.name, pool, source)


def _global_pool(builder: Builder, node: OnnxNode) -> Value:
    source, shape = _image(builder, node)
    kind: Any = "max" if node.op == "GlobalMaxPool" else "avg"
    size = (shape[1], shape[2])
    return builder.operator(node.name, Pool2d(kind=kind, kernel=size, stride=size), source)


def _reduce_mean(builder: Builder, node: OnnxNode) -> Value:
    source, shape = _image(builder, node)
    given = builder.constant(node, 1)
    axes = node.attributes.get("axes", []) if given is None else given.reshape(-1).tolist()
    needs(
        isinstance(axes, list) and sorted(a % 4 for a in axes) == [2, 3],
        "ReduceMean is read as the mean over an image only",
        axes,
        "take the mean over both image axes",
    )
    size = (shape[1], shape[2])
    pooled = builder.operator(node.name, Pool2d(kind="avg", kernel=size, stride=size), source)
    keep = bool(number(node, "keepdims", 1))
    return pooled if keep else builder.operator(node.name, Flatten(), pooled)


#: All that are read.
OPERATORS: dict[str, Callable[[Builder, OnnxNode], Value]] = {
    **ELEMENTWISE,
    **SHAPES,
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "ReduceMean": _reduce_mean,
}
