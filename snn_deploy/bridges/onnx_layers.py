"""Synapse operators as ONNX nodes on one step's values, (batch, *shape).

onnxruntime's CPU kernels of Conv and AveragePool take no float64; there, windows are gathered by
Slice and multiplied by MatMul, which do.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np

from snn_deploy.bridges.onnx_graph import Graph
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.check import chain_shapes
from snn_deploy.ir.network import Network, Projection
from snn_deploy.ir.synapses import (
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


def chain(graph: Graph, network: Network, projection: Projection, value: str) -> str:
    """Add a projection's operators behind ``value``; return what arrives, in the post's shape."""
    shapes = chain_shapes(network, projection)
    for i, synapse in enumerate(projection.synapses):
        name = projection.name if len(projection.synapses) == 1 else f"{projection.name}.{i}"
        value = operator(graph, synapse, shapes[i], shapes[i + 1], value, name)
    return reshaped(graph, value, shapes[-1], network.shapes[projection.post], projection.name)


def reshaped(graph: Graph, value: str, shape: Shape, wanted: Shape, name: str) -> str:
    """Add a Reshape where the shapes without batch differ."""
    if shape == wanted:
        return value
    target = graph.integers(f"{name}.shape", (-1, *wanted))
    return graph.node("Reshape", [value, target], f"{name}.reshaped")


def operator(graph: Graph, synapse: Synapse, before: Shape, after: Shape, x: str, name: str) -> str:
    """Add one operator of a folded network."""
    if isinstance(synapse, Identity):
        return x
    if isinstance(synapse, Diagonal):
        scale = np.broadcast_to(synapse.scale, before)
        return graph.node("Mul", [x, graph.constant(f"{name}.scale", scale)], name)
    if isinstance(synapse, Dense | Csr):
        weight = synapse.weight if isinstance(synapse, Dense) else synapse.to_dense()
        return dense(graph, weight, synapse.bias, before, x, name)
    if isinstance(synapse, Pool2d):
        synapse = _pool_as_conv(synapse, before[0])
    assert isinstance(synapse, Conv1d | Conv2d), type(synapse)
    if graph.dtype != np.float64:
        return _conv(graph, synapse, x, name)
    if isinstance(synapse, Conv2d):
        return _windows(graph, synapse, before, after, x, name)
    row = (before[0], 1, before[1])
    x = reshaped(graph, x, before, row, name)
    out = (after[0], 1, after[1])
    x = _windows(graph, synapse.as_conv2d(), row, out, x, name)
    return reshaped(graph, x, out, after, name)


def dense(graph: Graph, weight: Array, bias: Array | None, shape: Shape, x: str, name: str) -> str:
    """Add x W^T + b; ``x`` is flattened first where it is not a row."""
    if len(shape) > 1:
        x = graph.node("Flatten", [x], f"{name}.flat", axis=1)
    inputs = [x, graph.constant(f"{name}.weight", weight)]
    if bias is not None:
        inputs.append(graph.constant(f"{name}.bias", bias))
    return graph.node("Gemm", inputs, name, transB=1)


def _pool_as_conv(pool: Pool2d, channels: int) -> Conv2d:
    """Return a pool as a convolution of ones: AveragePool would divide, and round."""
    assert pool.kind != "max", "fold max pooling first"
    value = 1.0 / math.prod(pool.kernel) if pool.kind == "avg" else 1.0
    return Conv2d(
        weight=np.full((channels, 1, *pool.kernel), value),
        stride=pool.stride,
        padding=pool.padding,
        groups=channels,
    )


def _conv(graph: Graph, conv: Conv1d | Conv2d, x: str, name: str) -> str:
    inputs = [x, graph.constant(f"{name}.weight", conv.weight)]
    if conv.bias is not None:
        inputs.append(graph.constant(f"{name}.bias", conv.bias))
    if isinstance(conv, Conv2d):
        top, bottom, left, right = conv.padding
        pads, strides, dilations = [top, left, bottom, right], [*conv.stride], [*conv.dilation]
    else:
        pads, strides, dilations = [*conv.padding], [conv.stride], [conv.dilation]
    return graph.node(
        "Conv",
        inputs,
        name,
        kernel_shape=list(conv.weight.shape[2:]),
        strides=strides,
        dilations=dilations,
        pads=pads,
        group=conv.groups,
    )


def _windows(graph: Graph, conv: Conv2d, before: Shape, after: Shape, x: str, name: str) -> str:
    """Add a convolution as one Slice per tap of the kernel and one grouped MatMul."""
    top, bottom, left, right = conv.padding
    if any(conv.padding):
        pads = graph.integers(f"{name}.pads", (0, 0, top, left, 0, 0, bottom, right))
        x = graph.node("Pad", [x, pads], f"{name}.padded")
    channels = before[0]
    out_channels, group_in, kernel_height, kernel_width = conv.weight.shape
    (step_y, step_x), (_, height, width) = conv.stride, after
    axes = graph.integers(f"{name}.axes", (2, 3))
    steps = graph.integers(f"{name}.steps", (step_y, step_x))
    one_tap = graph.integers(f"{name}.tap_shape", (-1, channels, 1, height * width))
    taps = []
    for row, column in product(range(kernel_height), range(kernel_width)):
        y, z = row * conv.dilation[0], column * conv.dilation[1]
        starts = graph.integers(f"{name}.starts", (y, z))
        ends = graph.integers(
            f"{name}.ends", (y + (height - 1) * step_y + 1, z + (width - 1) * step_x + 1)
        )
        part = graph.node("Slice", [x, starts, ends, axes, steps], f"{name}.slice")
        taps.append(graph.node("Reshape", [part, one_tap], f"{name}.tap"))
    count = kernel_height * kernel_width
    joined = graph.node("Concat", taps, f"{name}.taps", axis=2) if count > 1 else taps[0]
    grouped = graph.integers(f"{name}.grouped", (-1, conv.groups, group_in * count, height * width))
    columns = graph.node("Reshape", [joined, grouped], f"{name}.columns")
    weight = conv.weight.reshape(conv.groups, out_channels // conv.groups, group_in * count)
    weights = graph.constant(f"{name}.weight", weight)
    product_ = graph.node("MatMul", [weights, columns], f"{name}.product")
    shape = graph.integers(f"{name}.shape", (-1, out_channels, height, width))
    y_ = graph.node("Reshape", [product_, shape], f"{name}.image")
    if conv.bias is None:
        return y_
    bias = graph.constant(f"{name}.bias", conv.bias.reshape(-1, 1, 1))
    return graph.node("Add", [y_, bias], name)
