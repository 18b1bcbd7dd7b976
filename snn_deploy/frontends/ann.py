"""Dense networks with rectifying activations: the artificial side of a rate conversion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from snn_deploy.io.graph import Flatten
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.synapses import (
    BatchNorm,
    Conv1d,
    Conv2d,
    Dense,
    Diagonal,
    Identity,
    Pool2d,
    Shape,
    Synapse,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Activation:
    """``clip(x, 0, upper)``, or with ``levels`` L quantised: ``A clip(floor(x L/upper + 1/2)/L,
    0, 1)`` with A the amplitude.

    upper: None without a bound, else one value or one per channel. levels: None where it is not
    quantised. amplitude: None for ``upper``.
    """

    upper: Array | None = None
    levels: int | None = None
    amplitude: Array | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnnNode:
    """One node. value: a Synapse, Flatten or Activation; None for the input and for sums.

    inputs: what it reads, a sum of them where there are several. shape: of its output, without
    batch.
    """

    name: str
    value: Synapse | Flatten | Activation | None
    inputs: tuple[str, ...]
    shape: Shape


@dataclass(slots=True, kw_only=True)
class AnnGraph:
    """Nodes in order of evaluation, the first is the input. output: the node that is read."""

    nodes: dict[str, AnnNode] = field(default_factory=dict)
    output: str = ""

    @property
    def input(self) -> AnnNode:
        """The input."""
        return next(iter(self.nodes.values()))

    def readers(self, name: str) -> list[AnnNode]:
        """Return the nodes that read ``name``."""
        return [node for node in self.nodes.values() if name in node.inputs]

    def activations(self) -> list[AnnNode]:
        """Return the nodes that become neurons."""
        return [n for n in self.nodes.values() if isinstance(n.value, Activation)]


def is_max_pool(node: AnnNode) -> bool:
    """Return whether a node pools by maximum."""
    return isinstance(node.value, Pool2d) and node.value.kind == "max"


def pools_behind_activations(graph: AnnGraph) -> AnnGraph:
    """Return the same function with max pools moved behind the activation that reads them.

    Activations are monotone, so the maximum may as well be taken of their outputs. A pool with
    another reader stays where it is.
    """
    nodes = list(graph.nodes.values())
    moved = True
    while moved:
        moved = False
        current = AnnGraph(nodes={n.name: n for n in nodes}, output=graph.output)
        for pool in nodes:
            readers = current.readers(pool.name)
            if not is_max_pool(pool) or len(readers) != 1 or graph.output == pool.name:
                continue
            (after,) = readers
            if isinstance(after.value, Activation) and after.inputs == (pool.name,):
                nodes = list(_swapped(nodes, pool, after, current.nodes))
                graph = replace(graph, output=_renamed(graph.output, after.name, pool.name))
                moved = True
                break
    return AnnGraph(nodes={n.name: n for n in nodes}, output=graph.output)


def _renamed(name: str, old: str, new: str) -> str:
    return new if name == old else name


def _swapped(
    nodes: list[AnnNode], pool: AnnNode, after: AnnNode, known: dict[str, AnnNode]
) -> Iterator[AnnNode]:
    for node in nodes:
        if node is after:
            continue
        if node is pool:
            yield replace(after, inputs=pool.inputs, shape=known[pool.inputs[0]].shape)
            yield replace(pool, inputs=(after.name,))
        else:
            inputs = tuple(_renamed(name, after.name, pool.name) for name in node.inputs)
            yield replace(node, inputs=inputs)


def evaluate(graph: AnnGraph, x: Array) -> Iterator[tuple[AnnNode, Array, Array]]:
    """Yield (node, what it reads, what it puts out) in order for ``x`` (samples, *shape).

    Values are float64 (samples, *shape), and are let go when their last reader is done.
    """
    last = {name: node.name for node in graph.nodes.values() for name in node.inputs}
    found: dict[str, Array] = {}
    for node in graph.nodes.values():
        if node.inputs:
            value = sum((found[name] for name in node.inputs[1:]), found[node.inputs[0]])
        else:
            value = np.asarray(x, np.float64)
        result = _apply(node, value).reshape(len(x), *node.shape)
        for name in {*node.inputs}:
            if last[name] == node.name:
                del found[name]
        if node.name in last:
            found[node.name] = result
        yield node, value, result


def scores(graph: AnnGraph, x: Array) -> Array:
    """Return the output (samples, *shape) for ``x`` (samples, *shape)."""
    for node, _, value in evaluate(graph, x):
        if node.name == graph.output:
            return value
    raise AssertionError("the output is a node")


def per_channel(value: Array, shape: Shape) -> Array:
    """Return one value, or one per channel, so that it broadcasts against ``shape``."""
    flat = np.asarray(value, np.float64)
    return flat.reshape(-1, *[1] * (len(shape) - 1)) if flat.ndim else flat


def _apply(node: AnnNode, x: Array) -> Array:
    value = node.value
    if isinstance(value, Activation):
        return activate(value, x, node.shape)
    if value is None or isinstance(value, Flatten | Identity):
        return x
    if isinstance(value, Dense):
        y = x.reshape(len(x), -1) @ np.asarray(value.weight, np.float64).T
        return y if value.bias is None else y + value.bias
    if isinstance(value, Diagonal):
        return np.asarray(x * value.scale)
    if isinstance(value, BatchNorm):
        scale, shift = (per_channel(v, node.shape) for v in value.affine())
        return x * scale + shift
    if isinstance(value, Conv1d):
        return _conv(value.as_conv2d(), x[:, :, None])
    if isinstance(value, Conv2d):
        return _conv(value, x)
    assert isinstance(value, Pool2d), type(value)
    empty = -np.inf if value.kind == "max" else 0.0
    view = _windows(x, value.kernel, value.stride, value.padding, (1, 1), empty)
    if value.kind == "max":
        return np.asarray(view.max(axis=(4, 5)))
    return np.asarray(view.mean(axis=(4, 5)) if value.kind == "avg" else view.sum(axis=(4, 5)))


def activate(value: Activation, x: Array, shape: Shape) -> Array:
    """Return an activation's output for ``x`` (samples, *shape)."""
    if value.upper is None:
        return np.maximum(x, 0.0)
    upper = per_channel(value.upper, shape)
    if value.levels is None:
        return np.asarray(np.clip(x, 0.0, upper))
    amplitude = upper if value.amplitude is None else per_channel(value.amplitude, shape)
    steps = np.floor(x * (value.levels / upper) + 0.5) / value.levels
    return np.asarray(amplitude * np.clip(steps, 0.0, 1.0))


def _windows(x: Array, kernel: Any, stride: Any, padding: Any, dilation: Any, empty: float) -> Any:
    """Return (samples, C, H', W', kH, kW) of an image (samples, C, H, W)."""
    top, bottom, left, right = padding
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=empty)
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def _conv(conv: Conv2d, x: Array) -> Array:
    """Return a convolution as one matrix product per tap, which needs no more than the output."""
    weight = np.asarray(conv.weight, np.float64)
    view = _windows(x, weight.shape[2:], conv.stride, conv.padding, conv.dilation, 0.0)
    samples, height, width = len(x), int(view.shape[2]), int(view.shape[3])
    out = np.zeros((samples, conv.groups, len(weight) // conv.groups, height * width))
    grouped = weight.reshape(conv.groups, -1, *weight.shape[1:])
    for row, column in product(range(weight.shape[2]), range(weight.shape[3])):
        tap = view[..., row, column].reshape(samples, conv.groups, -1, height * width)
        out += grouped[..., row, column] @ tap
    y = out.reshape(samples, -1, height, width)
    return y if conv.bias is None else y + conv.bias[:, None, None]
