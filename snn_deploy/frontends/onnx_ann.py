"""A dense network under construction from ONNX nodes, and the values known so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.frontends.ann import AnnGraph, AnnNode
from snn_deploy.frontends.onnx_curves import (
    Curve,
    Stage,
    quantised_activation,
    simple_activation,
)
from snn_deploy.frontends.onnx_wire import OnnxNode
from snn_deploy.io.graph import Flatten
from snn_deploy.io.shapes import operator_shape
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.synapses import (
    BatchNorm,
    Conv1d,
    Conv2d,
    Dense,
    Diagonal,
    Shape,
    Synapse,
    bias_of,
    weights_of,
    with_weights,
)

#: A value: a node's name, an elementwise function of one, a constant, or the integers of a shape,
#: None for the batch.
Value = str | Curve | np.ndarray | list[int | None]


#: Values of one sample that a layer may have: what a file says costs nothing, running it does.
MOST_VALUES = 2**24
#: Stands for an operator's name where the output reads a value.
OUTPUT = "the output"


class Last(str):
    """A node that only the output may read: what was left out behind it keeps the order alone."""


def fits_in_memory(shape: Shape) -> None:
    """Raise UnsupportedError for a layer that is larger than any that is run here."""
    size = math.prod(shape)
    if size > MOST_VALUES:
        raise UnsupportedError(
            "a layer is too large",
            used=f"{size:,} of {MOST_VALUES:,} values, shape {shape}",
            hint="check the padding and the input's size",
        )


class Builder:
    """The dense network under construction, and the values that are known so far."""

    def __init__(self, constants: dict[str, Array]) -> None:
        self.graph = AnnGraph()
        self.values: dict[str, Value] = dict(constants)
        self.notes: list[str] = []
        self._wanted: dict[str, str] = {}

    def add(self, wanted: str, value: Any, inputs: tuple[str, ...], shape: Shape) -> str:
        """Add a node, its name numbered where it is taken; return the name."""
        fits_in_memory(shape)
        base = self._wanted.get(wanted) or _module_name(wanted)
        name = _numbered(base, self.graph.nodes)
        self._wanted[name] = base
        self.graph.nodes[name] = AnnNode(name=name, value=value, inputs=inputs, shape=shape)
        return name

    def operator(self, wanted: str, value: Synapse | Flatten, source: str) -> str:
        """Add an operator that reads one node."""
        return self.add(wanted, value, (source,), operator_shape(value, self.shape(source)))

    def shape(self, name: str) -> Shape:
        """Return the shape of a node's output, without batch."""
        return self.graph.nodes[name].shape

    def value(self, node: OnnxNode, index: int) -> Value:
        """Return an operator's input."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if name not in self.values:
            raise InputError(
                f"{node.op} reads {name!r}, which nothing before it makes",
                hint="export the model again: its operators must stand in order",
            )
        return self.values[name]

    def constant(self, node: OnnxNode, index: int) -> Array | None:
        """Return a constant input, None where it is left out; UnsupportedError if computed."""
        if index >= len(node.inputs) or not node.inputs[index]:
            return None
        value = self.value(node, index)
        if not isinstance(value, np.ndarray):
            raise UnsupportedError(
                f"{node.op} computes with {node.inputs[index]!r}, which is not a constant",
                hint="only weights and parameters that are stored in the file are read",
            )
        return value

    def source(self, node: OnnxNode, index: int = 0) -> str:
        """Return the node that an operator reads; a row of elementwise operators becomes one."""
        value = self.value(node, index)
        if isinstance(value, Curve):
            value = self.settled(value)
            self.values[node.inputs[index]] = value
        if isinstance(value, Last) and node.op != OUTPUT:
            raise UnsupportedError(
                f"{node.op} reads a softmax, which is left out as it keeps the order alone",
                hint="let the softmax be the last operator",
            )
        if not isinstance(value, str):
            raise UnsupportedError(
                f"{node.op} reads a constant where the network's values should be",
                hint="simplify the model before it is exported",
            )
        return value

    def curve(self, node: OnnxNode, index: int = 0) -> Curve:
        """Return an operator's input as an elementwise function, to be continued."""
        value = self.value(node, index)
        if isinstance(value, Curve):
            return value
        return Curve(base=self.source(node, index), name=node.name, stages=())

    def settled(self, curve: Curve) -> str:
        """Return the node that a curve becomes."""
        if any(stage.kind == "floor" for stage in curve.stages):
            quantised = quantised_activation(curve)
            return self.add(curve.name, quantised, (curve.base,), self.shape(curve.base))
        name = curve.base
        for stage in curve.stages:
            if stage.kind == "clip":
                activation = simple_activation(stage)
                name = self.add(stage.name, activation, (name,), self.shape(name))
            else:
                name = self._affine(stage, name)
        return name

    def _affine(self, stage: Stage, source: str) -> str:
        """Return ``a x + b``: within the layer before, or as a scale where nothing is added."""
        before = self.graph.nodes[source]
        a, b = stage.a, stage.b
        if isinstance(before.value, Dense | Conv1d | Conv2d):
            weights, bias = weights_of(before.value), bias_of(before.value)
            assert weights is not None
            scaled = (weights * a.reshape(-1, *[1] * (weights.ndim - 1))).astype(weights.dtype)
            shifted = (b if bias is None else a * bias + b).astype(weights.dtype)
            layer = with_weights(before.value, scaled, shifted)
            return self.add(before.name, layer, before.inputs, before.shape)
        if isinstance(before.value, BatchNorm):
            weight, bias_ = a * before.value.weight, a * before.value.bias + b
            norm = replace(before.value, weight=weight, bias=bias_)
            return self.add(before.name, norm, before.inputs, before.shape)
        if np.any(b):
            raise UnsupportedError(
                "a constant is added where no layer stands before",
                where=stage.name,
                hint="scale and shift the data before they enter the network",
            )
        scale = a.reshape(-1, *[1] * (len(before.shape) - 1))
        return self.operator(stage.name, Diagonal(scale=scale), source)

    def finished(self) -> AnnGraph:
        """Return the graph without nodes that the output does not read, numbered anew."""
        graph = self.graph
        needed = {graph.output, graph.input.name}
        for node in reversed(graph.nodes.values()):
            if node.name in needed:
                needed.update(node.inputs)
        new: dict[str, str] = {}
        result = AnnGraph()
        for name, node in graph.nodes.items():
            if name in needed:
                new[name] = _numbered(self._wanted[name], result.nodes)
                inputs = tuple(new[before] for before in node.inputs)
                result.nodes[new[name]] = replace(node, name=new[name], inputs=inputs)
        result.output = new[graph.output]
        if not result.activations():
            raise UnsupportedError(
                "no activation leads to the output, so no neuron would spike",
                where=result.output,
                hint="convert a network with rectifiers",
            )
        return result


def _module_name(name: str) -> str:
    """Return the module's path where torch names an operator "/module/Operator"."""
    parts = name.strip("/").split("/")
    return ".".join(parts[:-1] or parts) or "node"


def _numbered(base: str, taken: Mapping[str, object]) -> str:
    name, count = base, 2
    while name in taken:
        name, count = f"{base}_{count}", count + 1
    return name
