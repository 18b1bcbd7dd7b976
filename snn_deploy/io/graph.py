"""Operator graphs: nodes and edges as tickets and NIR files have them; build makes a Network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from snn_deploy.errors import InputError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.synapses import Shape


class SnnDeployWarning(UserWarning):
    """Something that a user should know and that does not stop the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flatten:
    """Merge axes ``first``..``last`` (inclusive, without batch axis) in C order."""

    first: int = 0
    last: int = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DelaySteps:
    """Pass values on ``steps`` later: an int, or one per value."""

    steps: int | Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """Pass values on: an end of a nested graph."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Node:
    """One node. value: a Synapse, Neuron, Flatten, DelaySteps, Port, or None for input and output.

    shape: what the file declares, None where it declares nothing. fixed: its weights are no
    parameters, so that nothing in it is learned.
    """

    name: str
    kind: Literal["input", "output", "operator", "neuron"]
    value: Any = None
    shape: Shape | None = None
    fixed: bool = False


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
            raise InputError(
                f"node name {node.name!r} is empty or used twice",
                hint="give each node its own name",
            )
        self.nodes[node.name] = node


def as_pair(value: Any, what: str) -> tuple[int, int]:
    """Return an int or a pair of ints as a pair; InputError otherwise."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.size not in (1, 2):
        raise InputError(
            f"{what} must be one or two whole numbers, got {value!r}",
            hint="give an int, or one per axis",
        )
    flat = [int(v) for v in array.reshape(-1)]
    return (flat[0], flat[-1])
