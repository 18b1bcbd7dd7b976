"""Operator graphs, the common form of tickets and NIR files, and how they become a Network.

Files describe nodes (inputs, operators, neurons, outputs) and edges. A Network has populations
and projections: every path of operators from one population to the next is a projection, and
paths that meet are added in the post population's current.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from snn_deploy.errors import InputError, SnnDeployError, UnsupportedError
from snn_deploy.ir.network import Coding, Network, Population, Projection, Readout, Source
from snn_deploy.ir.neurons import Neuron, Relay
from snn_deploy.ir.synapses import (
    BatchNorm,
    Identity,
    Shape,
    Synapse,
    bias_of,
    learned_size,
    weights_of,
    with_weights,
)

_MOST_PATHS = 10_000


class SnnDeployWarning(UserWarning):
    """Something that a user should know and that does not stop the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flatten:
    """Merge axes ``first``..``last`` (inclusive, without batch axis) in C order."""

    first: int = 0
    last: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class DelaySteps:
    """Pass values on ``steps`` later."""

    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node. value: a Synapse, Neuron, Flatten, DelaySteps, or None for input and output."""

    name: str
    kind: Literal["input", "output", "operator", "neuron"]
    value: Any = None
    shape: Shape | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What a file remembers of a projection beyond its operators."""

    name: str
    origin: str
    helper: bool


@dataclass(slots=True, kw_only=True)
class OpGraph:
    """A graph as read.

    From our own metadata: namings: (pre, *nodes, post) -> Naming; origins and populations: of
    what were populations, among them outputs that are more than a name for a neuron's spikes.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    namings: Mapping[tuple[str, ...], Naming] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    populations: frozenset[str] = frozenset()

    def add(self, node: Node) -> None:
        """Add a node; InputError where its name is taken or empty."""
        if not node.name or node.name in self.nodes:
            raise InputError(f"node name {node.name!r} is empty or used twice")
        self.nodes[node.name] = node


@dataclass(frozen=True, slots=True)
class _Path:
    pre: str
    nodes: tuple[str, ...]


class _Builder:
    def __init__(self, graph: OpGraph) -> None:
        self.graph = graph
        self.before: dict[str, list[str]] = {name: [] for name in graph.nodes}
        self.after: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for a, b in graph.edges:
            for end in (a, b):
                if end not in graph.nodes:
                    raise InputError(
                        f"an edge names {end!r}, which is not a node",
                        where=f"edge {a} -> {b}",
                        hint="the file is malformed; export it again",
                    )
            if b in self.after[a]:
                raise InputError("an edge occurs twice", where=f"edge {a} -> {b}")
            self.after[a].append(b)
            self.before[b].append(a)

    def ends(self) -> tuple[list[Node], list[Node], list[tuple[Node, str]]]:
        """Return (inputs, neurons, outputs with the population that each one reads)."""
        nodes = self.graph.nodes.values()
        inputs = [n for n in nodes if n.kind == "input"]
        neurons = [n for n in nodes if n.kind == "neuron"]
        outputs: list[tuple[Node, str]] = []
        for node in nodes:
            if node.kind != "output":
                continue
            sources = self.before[node.name]
            direct = (
                node.name not in self.graph.populations
                and len(sources) == 1
                and self.graph.nodes[sources[0]].kind == "neuron"
            )
            outputs.append((node, sources[0] if direct else node.name))
        return inputs, neurons, outputs

    def paths(self, post: str) -> list[_Path]:
        """Return every operator path that ends in ``post``, in the order of the edges."""
        found: list[_Path] = []
        stack: list[tuple[str, tuple[str, ...]]] = [(b, ()) for b in reversed(self.before[post])]
        while stack:
            name, tail = stack.pop()
            node = self.graph.nodes[name]
            if node.kind == "output":
                raise InputError("an edge leaves an output node", where=name)
            if node.kind != "operator":
                found.append(_Path(name, tail))
            elif name in tail:
                raise UnsupportedError(
                    "a loop of operators has no neuron in it",
                    where=" -> ".join((name, *tail)),
                    hint="put a neuron population into the loop",
                )
            else:
                stack += [(b, (name, *tail)) for b in reversed(self.before[name])]
            if len(found) > _MOST_PATHS:
                raise UnsupportedError(f"more than {_MOST_PATHS:,} operator paths", where=post)
        return found


def build(
    graph: OpGraph,
    *,
    dt_s: float,
    readout: Readout,
    coding: Coding,
    feedback: tuple[tuple[str, str], ...] = (),
    source: Source | None = None,
) -> Network:
    """Return the Network of an operator graph; InputError or UnsupportedError, located."""
    builder = _Builder(graph)
    inputs, neurons, outputs = builder.ends()
    relays = [node for node, reads in outputs if reads == node.name]
    posts = [*neurons, *relays]
    paths = {node.name: builder.paths(node.name) for node in posts}
    _warn_dead(graph, paths, inputs)
    shapes = _infer_shapes(graph, inputs, posts, paths)
    for node, reads in outputs:
        if node.shape is not None and node.shape != shapes[reads]:
            warnings.warn(
                f"output {node.name} declares shape {node.shape}, but {reads} has {shapes[reads]}",
                SnnDeployWarning,
                2,
            )
    projections = _projections(graph, posts, paths)
    ordered = [n for n in graph.nodes.values() if n in inputs or n in posts]
    populations = tuple(
        Population(
            name=node.name,
            shape=shapes[node.name],
            neuron=_neuron(node),
            origin=graph.origins.get(node.name, node.name),
        )
        for node in ordered
    )
    return Network(
        populations=populations,
        projections=projections,
        inputs=tuple(n.name for n in inputs),
        outputs=tuple(reads for _, reads in outputs),
        dt_s=dt_s,
        readout=readout,
        coding=coding,
        feedback=feedback,
        source=source or Source(),
    )


def _neuron(node: Node) -> Neuron:
    return node.value if node.kind == "neuron" else Relay()


def _warn_dead(graph: OpGraph, paths: Mapping[str, list[_Path]], inputs: list[Node]) -> None:
    used = {name for found in paths.values() for path in found for name in (path.pre, *path.nodes)}
    used |= set(paths) | {n.name for n in inputs}
    for node in graph.nodes.values():
        if node.kind == "operator" and node.name not in used:
            warnings.warn(f"node {node.name} leads nowhere and is left out", SnnDeployWarning, 2)


def _operator_shape(value: Any, shape: Shape) -> Shape:
    if isinstance(value, DelaySteps):
        return shape
    if isinstance(value, Flatten):
        last = value.last % len(shape)
        if not 0 <= value.first <= last:
            raise InputError(f"flatten of axes {value.first}..{value.last} does not fit {shape}")
        merged = math.prod(shape[value.first : last + 1])
        return (*shape[: value.first], merged, *shape[last + 1 :])
    result: Shape = value.out_shape(shape)
    return result


def _infer_shapes(
    graph: OpGraph, inputs: list[Node], posts: list[Node], paths: Mapping[str, list[_Path]]
) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {}
    for node in (*inputs, *posts):
        if node.shape is not None:
            shapes[node.name] = node.shape
    waiting = [n.name for n in posts if n.name not in shapes]
    while waiting:
        rest = []
        for name in waiting:
            known = next((p for p in paths[name] if p.pre in shapes), None)
            if known is None:
                rest.append(name)
                continue
            shapes[name] = _follow(graph, shapes[known.pre], known.nodes)
        if len(rest) == len(waiting):
            raise InputError(
                "the shape of a population does not follow from anything",
                where=rest[0],
                hint="give its parameters one value per neuron, or connect it to the input",
            )
        waiting = rest
    for node in inputs:
        if node.name not in shapes:
            raise InputError("an input has no shape", where=node.name)
    return shapes


def _follow(graph: OpGraph, shape: Shape, nodes: tuple[str, ...]) -> Shape:
    for name in nodes:
        try:
            shape = _operator_shape(graph.nodes[name].value, shape)
        except SnnDeployError as error:
            raise error.located(name) from None
    return shape


def _projections(
    graph: OpGraph, posts: list[Node], paths: Mapping[str, list[_Path]]
) -> tuple[Projection, ...]:
    taken: set[str] = set()
    result: list[Projection] = []
    for post in posts:
        given: set[tuple[str, ...]] = set()
        for path in paths[post.name]:
            key = (path.pre, *path.nodes, post.name)
            naming = graph.namings.get(key) or _default_naming(graph, path, post.name, taken)
            taken.add(naming.name)
            chain, delay = _chain(graph, path, given)
            result.append(
                Projection(
                    name=naming.name,
                    pre=path.pre,
                    post=post.name,
                    synapses=chain,
                    delay_steps=delay,
                    origin=naming.origin,
                    helper=naming.helper,
                )
            )
    return tuple(result)


def _chain(
    graph: OpGraph, path: _Path, given: set[tuple[str, ...]]
) -> tuple[tuple[Synapse, ...], int]:
    """Return a path's operators and delay; ``given``: rests of paths that carry constants."""
    chain: list[Synapse] = []
    delay = 0
    for i, name in enumerate(path.nodes):
        value = graph.nodes[name].value
        if isinstance(value, DelaySteps):
            delay += value.steps
            continue
        if isinstance(value, Flatten):
            continue  # Dense, Csr and neurons read in C order, which flattening keeps
        # Behind a junction, a constant belongs to the sum: only the first of the paths that go
        # on alike carries it.
        rest = path.nodes[i:]
        chain.append(_without_constant(value) if rest in given else value)
        given.add(rest)
    return tuple(chain) or (Identity(),), delay


def _without_constant(synapse: Synapse) -> Synapse:
    if isinstance(synapse, BatchNorm):
        zero = np.zeros_like(synapse.bias)
        return replace(synapse, mean=zero, bias=zero)
    weights = weights_of(synapse)
    if weights is None or bias_of(synapse) is None:
        return synapse
    return with_weights(synapse, weights, None)


def _default_naming(graph: OpGraph, path: _Path, post: str, taken: set[str]) -> Naming:
    learned = [
        n
        for n in path.nodes
        if isinstance(graph.nodes[n].value, Synapse) and learned_size(graph.nodes[n].value)
    ]
    base = learned[-1] if learned else (path.nodes[0] if path.nodes else f"{path.pre}-{post}")
    name, n = base, 2
    while name in taken:
        name, n = f"{base}.{n}", n + 1
    return Naming(name=name, origin=base, helper=not learned)


def order_populations(network: Network, names: list[str]) -> Network:
    """Return ``network`` with populations in the order of ``names`` where it lists them all."""
    if sorted(names) != sorted(p.name for p in network.populations):
        return network
    return replace(network, populations=tuple(network.population(n) for n in names))


def order_projections(network: Network, names: list[str]) -> Network:
    """Return ``network`` with projections in the order of ``names`` where it lists them all."""
    by_name = {p.name: p for p in network.projections}
    if sorted(names) != sorted(by_name):
        return network
    return replace(network, projections=tuple(by_name[n] for n in names))


def as_pair(value: Any, what: str) -> tuple[int, int]:
    """Return an int or a pair of ints as a pair; InputError otherwise."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.size not in (1, 2):
        raise InputError(f"{what} must be one or two whole numbers, got {value!r}")
    flat = [int(v) for v in array.reshape(-1)]
    return (flat[0], flat[-1])
