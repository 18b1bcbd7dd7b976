"""The shapes of a graph's populations, from what files declare and from what feeds them."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from snn_deploy.errors import InputError, SnnDeployError
from snn_deploy.io.graph import DelaySteps, Flatten, Node, OpGraph, Port
from snn_deploy.io.paths import Layout, Path
from snn_deploy.ir.synapses import Shape


@dataclass(slots=True, kw_only=True)
class Shapes:
    """of: shape by population. findings: declared shapes that differ, in words."""

    of: dict[str, Shape] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def operator_shape(value: Any, shape: Shape) -> Shape:
    """Return the shape that an operator makes of ``shape``; InputError where it does not fit."""
    if isinstance(value, Port):
        return shape
    if isinstance(value, DelaySteps):
        if np.size(value.steps) not in (1, math.prod(shape)):
            raise InputError(
                f"{np.size(value.steps)} delays do not fit {shape}",
                hint="give one delay, or one for each value that passes",
            )
        return shape
    if isinstance(value, Flatten):
        return _flattened(value, shape)
    result: Shape = value.out_shape(shape)
    return result


def _flattened(value: Flatten, shape: Shape) -> Shape:
    last = value.last % len(shape)
    if len(shape) == 1 and value.first == 1:
        return shape  # counted with a batch axis: there is nothing to flatten
    if not 0 <= value.first <= last:
        raise InputError(
            f"flatten of axes {value.first}..{value.last} does not fit {shape}",
            hint="axes count from 0, without a batch axis",
        )
    merged = math.prod(shape[value.first : last + 1])
    return (*shape[: value.first], merged, *shape[last + 1 :])


def follow(graph: OpGraph, shape: Shape, nodes: tuple[str, ...]) -> list[Shape]:
    """Return the shapes before, between and after operators; a located error where one fails."""
    shapes = [shape]
    for name in nodes:
        try:
            shapes.append(operator_shape(graph.nodes[name].value, shapes[-1]))
        except SnnDeployError as error:
            raise error.located(name) from None
    return shapes


def infer_shapes(graph: OpGraph, layout: Layout) -> Shapes:
    """Return the shape of every input and post of ``layout``, in any order of the file.

    Parameters of one value, or with axes of size 1, stretch to the shape of what feeds them.
    """
    shapes = Shapes()
    for node in layout.inputs:
        if node.shape is None:
            raise InputError("an input has no shape", where=node.name, hint="give it one")
        shapes.of[node.name] = node.shape
    readers: dict[str, list[tuple[Node, Path]]] = {}
    for node in layout.posts:
        for path in layout.paths[node.name]:
            readers.setdefault(path.pre, []).append((node, path))
    settled = deque(shapes.of)
    # Inputs first; then shapes that no feed could stretch; then the rest as declared.
    elastic = [n for n in layout.posts if n.shape is not None and 1 in n.shape]
    rigid = [n for n in layout.posts if n.shape is not None and 1 not in n.shape]
    for node in rigid:
        if node.kind == "neuron":
            shapes.of[node.name] = _known(node)
            settled.append(node.name)
    waiting = deque(elastic)
    while True:
        while settled:
            name = settled.popleft()
            for node, path in readers.get(name, ()):
                if node.name not in shapes.of:
                    fed = follow(graph, shapes.of[name], path.nodes)[-1]
                    shapes.of[node.name] = _stretched(node, fed)
                    settled.append(node.name)
        while waiting and waiting[0].name in shapes.of:
            waiting.popleft()
        if not waiting:
            break
        node = waiting.popleft()
        shapes.of[node.name] = _known(node)
        settled.append(node.name)
    missing = next((n for n in layout.posts if n.name not in shapes.of), None)
    if missing is not None:
        raise InputError(
            "the shape of a population does not follow from anything",
            where=missing.name,
            hint="give its parameters one value per neuron, or connect it to the input",
        )
    _check_declared(graph, layout, shapes)
    return shapes


def _known(node: Node) -> Shape:
    assert node.shape is not None
    return node.shape


def _stretched(node: Node, fed: Shape) -> Shape:
    """Return the shape of a population that ``fed`` arrives at, as its parameters allow."""
    if node.kind != "neuron" or node.shape is None:
        return fed
    if math.prod(node.shape) == math.prod(fed):
        return node.shape
    if math.prod(node.shape) == 1:
        return fed
    same_axes = len(node.shape) == len(fed)
    if same_axes and all(n in (1, full) for n, full in zip(node.shape, fed, strict=True)):
        return fed
    return node.shape  # check() names what does not fit


def _check_declared(graph: OpGraph, layout: Layout, shapes: Shapes) -> None:
    for name, reads in layout.outputs.items():
        declared = graph.nodes[name].shape
        if declared is not None and declared != shapes.of[reads]:
            shapes.findings.append(
                f"output {name} declares shape {declared}, but {reads} has {shapes.of[reads]}"
            )
    seen: set[str] = set()
    for found in layout.paths.values():
        for path in found:
            passed = follow(graph, shapes.of[path.pre], path.nodes)
            for name, shape in zip(path.nodes, passed, strict=False):
                declared = graph.nodes[name].shape
                if declared is not None and declared != shape and name not in seen:
                    seen.add(name)
                    shapes.findings.append(f"{name} declares shape {declared}, but gets {shape}")
