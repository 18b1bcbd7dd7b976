"""The ticket graph under construction, and the values that flow through a traced step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from snn_deploy.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Signal:
    """A value inside the step: a tensor of its shape, and the nodes whose sum it is."""

    tensor: Tensor
    sources: tuple[str, ...]


@dataclass(slots=True)
class Builder:
    """Nodes and edges under construction.

    neurons: the populations that spike. tensors: what nodes refer to beyond the module's state.
    all_steps: whether the module takes all steps at once, so that its axes count from time.
    """

    nodes: list[dict[str, Any]] = field(default_factory=list)
    edges: list[list[str]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    neurons: set[str] = field(default_factory=set)
    called: set[nn.Module] = field(default_factory=set)
    dt_s: dict[str, float] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    asked_dt_s: float | None = None
    all_steps: bool = False
    notes: list[str] = field(default_factory=list)

    def add(self, wanted: str, node: dict[str, Any], sources: tuple[str, ...]) -> str:
        name, count = wanted, 1
        while name in self.names:
            count += 1
            name = f"{wanted}_use{count}"
        self.names.add(name)
        self.nodes.append({"name": name, **node})
        self.edges.extend([source, name] for source in sources)
        return name


@dataclass(frozen=True, slots=True)
class Attribute:
    """A parameter or constant that forward uses by itself."""

    path: str
    value: Any = None


def add_operator(builder: Builder, name: str, node: dict[str, Any], x: Signal) -> str:
    """Add a stateless node that reads ``x`` and return its name; a sum is refused."""
    if len(x.sources) > 1:
        spikes = all(source in builder.neurons for source in x.sources)
        raise UnsupportedError(
            f"{node['op']} reads a sum of {'spikes' if spikes else 'branches'}",
            where=f"{name} <- {', '.join(x.sources)}",
            hint="add the branches' currents right before a neuron (spike-element-wise addition "
            "gives values other than 0 and 1); a batch norm belongs on each branch",
        )
    return builder.add(name, node, x.sources)
