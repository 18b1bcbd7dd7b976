"""How an operator graph becomes a Network.

Every path of operators from one population to the next is a projection, and paths that meet are
added in the post population's current.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from snn_deploy.errors import UnsupportedError
from snn_deploy.io.graph import (
    DelaySteps,
    Flatten,
    Naming,
    Node,
    OpGraph,
    Port,
    SnnDeployWarning,
)
from snn_deploy.io.paths import Layout, Path
from snn_deploy.io.shapes import follow, infer_shapes
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Coding, Grid, Network, Population, Projection, Readout, Source
from snn_deploy.ir.neurons import Neuron, Relay
from snn_deploy.ir.synapses import (
    BatchNorm,
    Diagonal,
    Identity,
    Shape,
    Synapse,
    bias_of,
    learned_size,
    weights_of,
    with_weights,
)


def build(
    graph: OpGraph,
    *,
    dt_s: float,
    readout: Readout,
    coding: Coding,
    feedback: tuple[tuple[str, str], ...] = (),
    grid: Grid | None = None,
    source: Source | None = None,
) -> Network:
    """Return the Network of an operator graph; InputError or UnsupportedError, located.

    What is connected to nothing is left out with a warning.
    """
    layout = Layout(graph)
    shapes = infer_shapes(graph, layout)
    for finding in (*layout.findings, *shapes.findings):
        warnings.warn(finding, SnnDeployWarning, 2)
    return Network(
        populations=tuple(
            Population(
                name=node.name,
                shape=shapes.of[node.name],
                neuron=_neuron(node),
                origin=graph.origins.get(node.name, node.name),
            )
            for node in graph.nodes.values()
            if node.name in shapes.of
        ),
        projections=_projections(graph, layout, shapes.of),
        inputs=tuple(n.name for n in layout.inputs),
        outputs=tuple(layout.outputs.values()),
        dt_s=dt_s,
        readout=readout,
        coding=coding,
        feedback=feedback,
        grid=grid,
        source=source or Source(),
    )


def _neuron(node: Node) -> Neuron:
    return node.value if node.kind == "neuron" else Relay()


def _projections(
    graph: OpGraph, layout: Layout, shapes: Mapping[str, Shape]
) -> tuple[Projection, ...]:
    taken: set[str] = set()
    result: list[Projection] = []
    for post in layout.posts:
        given: set[tuple[str, ...]] = set()
        for path in layout.paths[post.name]:
            key = (path.pre, *path.nodes, post.name)
            naming = graph.namings.get(key) or _default_naming(graph, path, post.name, taken)
            taken.add(naming.name)
            chain = _Chain(graph, path, shapes[path.pre], given)
            result.append(
                Projection(
                    name=naming.name,
                    pre=path.pre,
                    post=post.name,
                    synapses=tuple(chain.synapses) or (Identity(),),
                    delay_steps=chain.delay,
                    origin=naming.origin,
                    helper=naming.helper,
                )
            )
    return tuple(result)


class _Chain:
    """A path's operators and its delay; ``given``: rests of paths that carry constants."""

    def __init__(
        self, graph: OpGraph, path: Path, shape: Shape, given: set[tuple[str, ...]]
    ) -> None:
        self.synapses: list[Synapse] = []
        self._steps = 0
        self._per_pre: Array | None = None
        self._per_post: Array | None = None
        self._mixes = False
        self._constant: str | None = None
        for i, (name, _) in enumerate(
            zip(path.nodes, follow(graph, shape, path.nodes), strict=False)
        ):
            value = graph.nodes[name].value
            if isinstance(value, DelaySteps):
                self._wait(name, value)
            elif not isinstance(value, Flatten | Port):
                # Dense, Csr and neurons read in C order, which flattening keeps. Behind a
                # junction, a constant belongs to the sum: only the first of the paths that go on
                # alike carries it.
                rest = path.nodes[i:]
                self._append(name, _without_constant(value) if rest in given else value)
                given.add(rest)

    @property
    def delay(self) -> int | Array:
        """The whole delay, one for all synapses or by source and target."""
        parts = [part for part in (self._per_pre, self._per_post) if part is not None]
        return self._steps + sum(parts[1:], parts[0]) if parts else self._steps

    def _append(self, name: str, synapse: Synapse) -> None:
        if not isinstance(synapse, Diagonal | Identity | BatchNorm):
            if self._per_post is not None:
                raise UnsupportedError(
                    "a Delay with several values stands between two layers",
                    where=name,
                    hint="put it right behind or right before a neuron, or use one delay for all",
                )
            self._mixes = True
        bias = bias_of(synapse)
        if isinstance(synapse, BatchNorm) or (bias is not None and bool(np.any(bias))):
            self._constant = name
        self.synapses.append(synapse)

    def _wait(self, name: str, value: DelaySteps) -> None:
        steps = np.asarray(value.steps)
        if steps.any() and self._constant is not None:
            warnings.warn(
                f"the bias of {self._constant} stands before the delay {name}: here it acts from "
                "the first step on, not that much later",
                SnnDeployWarning,
                2,
            )
        if steps.size == 1:
            self._steps += int(steps.reshape(-1)[0])
        elif self._mixes:
            column = steps.reshape(-1, 1)
            self._per_post = column if self._per_post is None else self._per_post + column
        else:
            line = steps.reshape(1, -1)
            self._per_pre = line if self._per_pre is None else self._per_pre + line


def _without_constant(synapse: Synapse) -> Synapse:
    if isinstance(synapse, BatchNorm):
        zero = np.zeros_like(synapse.bias)
        return replace(synapse, mean=zero, bias=zero)
    weights = weights_of(synapse)
    if weights is None or bias_of(synapse) is None:
        return synapse
    return with_weights(synapse, weights, None)


def _default_naming(graph: OpGraph, path: Path, post: str, taken: set[str]) -> Naming:
    nodes = [n for n in path.nodes if not isinstance(graph.nodes[n].value, Port)]
    learned = [
        n
        for n in nodes
        if isinstance(graph.nodes[n].value, Synapse)
        and learned_size(graph.nodes[n].value)
        and not graph.nodes[n].fixed
    ]
    base = learned[-1] if learned else (nodes[0] if nodes else f"{path.pre}-{post}")
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
