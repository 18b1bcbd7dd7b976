"""Tickets: the ``.pt`` files that training writes, read with numpy alone.

A ticket is a plain dict ``{format, version, graph, state, masks, meta}`` of tensors and JSON
values. ``graph`` lists nodes and edges; a node's parameter is a number, a list, or the name of
a tensor in ``state``. Version 2 adds ``seeded``: tensors that are a seed and a mask, see
``io/seeded.py``. Nothing in it is pickled code, and nothing in it is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

import numpy as np

from snn_deploy.errors import InputError, SnnDeployError, UnsupportedError
from snn_deploy.io.build import build
from snn_deploy.io.graph import DelaySteps, Flatten, Node, OpGraph, as_pair
from snn_deploy.io.seeded import expanded
from snn_deploy.io.values import coding_of, number, padding_of, readout_of, shape_of
from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.network import Network, Source
from snn_deploy.ir.neurons import NEURON_TYPES
from snn_deploy.ir.synapses import (
    BatchNorm,
    Conv1d,
    Conv2d,
    Dense,
    Diagonal,
    Identity,
    Pool2d,
    Synapse,
)

FORMAT = "snn-deploy/ticket"
VERSION = 1
SEEDED_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What a ticket file holds: graph (JSON), state and masks (arrays by name), meta (JSON)."""

    graph: Mapping[str, Any]
    state: Mapping[str, Array]
    masks: Mapping[str, Array]
    meta: Mapping[str, Any]
    source: Source


def is_ticket(content: object) -> bool:
    """Return whether the content of a ``.pt`` file claims to be a ticket."""
    return isinstance(content, dict) and content.get("format") == FORMAT


def read_ticket(path: Path | str) -> Ticket:
    """Return the ticket in a ``.pt`` file; InputError for anything malformed or hostile."""
    from snn_deploy.io.files import sha256_file
    from snn_deploy.io.torch_zip import read_torch_zip

    content = read_torch_zip(path)
    source = Source(path=str(path), sha256=sha256_file(path), format="ticket")
    try:
        return parse_ticket(content, source)
    except SnnDeployError as error:
        raise error.located(str(path)) from None


def parse_ticket(content: object, source: Source) -> Ticket:
    """Return the ticket in a file's content, its parts checked for kind."""
    if not isinstance(content, dict) or not is_ticket(content):
        keys = list(content)[:3] if isinstance(content, dict) else []
        raise InputError(
            "this .pt file is not a ticket",
            used=f"its first keys are {keys}" if keys else f"it holds a {type(content).__name__}",
            hint="a plain state_dict needs its module: --arch FILE.py:FACTORY (or --arch mlp|conv)",
        )
    version = content.get("version")
    if not isinstance(version, int) or version not in (VERSION, SEEDED_VERSION):
        raise UnsupportedError(
            f"ticket version {version!r} is not known, this release reads "
            f"{VERSION} and {SEEDED_VERSION}",
            hint="upgrade snn-deploy, or save the ticket again",
        )
    graph, meta = content.get("graph"), content.get("meta", {})
    if not isinstance(graph, dict) or not isinstance(meta, dict):
        raise InputError("the ticket has no graph", hint="save it with snn_deploy.save_ticket")
    state = _arrays(content.get("state"), "state")
    masks = _arrays(content.get("masks", {}), "masks")
    if version == SEEDED_VERSION:
        state, masks = expanded(content.get("seeded"), state, masks)
    return Ticket(graph=graph, state=state, masks=masks, meta=meta, source=source)


def _arrays(value: object, what: str) -> dict[str, Array]:
    if not isinstance(value, dict):
        raise InputError(
            f"the ticket's {what} is not a dict of tensors",
            hint="save it with snn_deploy.save_ticket",
        )
    for key, array in value.items():
        if not isinstance(key, str) or not isinstance(array, np.ndarray):
            raise InputError(
                f"{what} entry {key!r} is not a tensor",
                where=what,
                hint="save it with snn_deploy.save_ticket",
            )
    return dict(value)


def network_of(ticket: Ticket) -> Network:
    """Return the Network that a ticket describes, masks applied; located InputErrors."""
    try:
        return _network(ticket)
    except SnnDeployError as error:
        raise error.located(ticket.source.path or "ticket") from None


def _network(ticket: Ticket) -> Network:
    state = _masked(ticket)
    graph = OpGraph()
    for entry in _list(ticket.graph, "nodes"):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise InputError("a graph node has no name", hint="save it with snn_deploy.save_ticket")
        try:
            graph.add(_node(entry, state))
        except SnnDeployError as error:
            raise error.located(entry["name"]) from None
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"malformed node: {error}",
                where=entry["name"],
                hint="save it with snn_deploy.save_ticket",
            ) from None
    graph.edges = list(_edges(_list(ticket.graph, "edges"), "edges"))
    return build(
        graph,
        dt_s=number(ticket.graph.get("dt_s"), "dt_s"),
        readout=readout_of(ticket.graph.get("readout") or {}),
        coding=coding_of(ticket.graph.get("coding") or {}),
        feedback=_edges(ticket.graph.get("feedback") or [], "feedback"),
        source=ticket.source,
    )


def _masked(ticket: Ticket) -> dict[str, Array]:
    state = dict(ticket.state)
    for key, mask in ticket.masks.items():
        weights = state.get(key)
        if weights is None:
            raise InputError(
                "a mask names a tensor that the ticket does not hold",
                where=f"masks -> {key}",
                hint="masks go by the state key, such as 'fc1.weight'",
            )
        if mask.shape != weights.shape:
            raise InputError(
                "a mask and its weights have different shapes",
                where=f"masks -> {key}",
                used=f"mask {mask.shape}, weights {weights.shape}",
                hint="save the mask in the layout of the weight tensor",
            )
        if not bool(np.all((mask == 0) | (mask == 1))):
            raise InputError(
                "a mask holds values other than 0 and 1",
                where=f"masks -> {key}",
                hint="save (score > threshold), not the scores",
            )
        state[key] = adopt(np.where(mask.astype(bool), weights, np.zeros((), weights.dtype)))
    return state


def _list(graph: Mapping[str, Any], key: str) -> list[Any]:
    value = graph.get(key)
    if not isinstance(value, list | tuple):
        raise InputError(
            f"the ticket's graph has no list of {key}", hint="save it with snn_deploy.save_ticket"
        )
    return list(value)


def _edges(value: object, what: str) -> tuple[tuple[str, str], ...]:
    """Return pairs of names; InputError for anything else."""
    pairs: list[tuple[str, str]] = []
    for edge in value if isinstance(value, list | tuple) else (value,):
        if not (
            isinstance(edge, list | tuple)
            and len(edge) == 2
            and all(isinstance(name, str) for name in edge)
        ):
            raise InputError(
                f"an edge is not a pair of names: {edge!r}",
                where=what,
                hint="an edge is [source node, target node]",
            )
        pairs.append((edge[0], edge[1]))
    return tuple(pairs)


class _Fields:
    """Access to a node's fields: tensors by name, numbers as they are."""

    def __init__(self, entry: Mapping[str, Any], state: Mapping[str, Array]) -> None:
        self.entry, self.state = entry, state

    def array(self, key: str) -> Array:
        value = self.entry.get(key)
        if isinstance(value, str):
            if value not in self.state:
                raise InputError(
                    f"parameter {key} refers to tensor {value!r}, which the ticket does not hold",
                    hint="the file was edited or cut; save the ticket again",
                )
            return self.state[value]
        if value is None:
            raise InputError(
                f"parameter {key} is missing", hint="save it with snn_deploy.save_ticket"
            )
        return np.asarray(value, np.float64)

    def weights(self, key: str) -> Array:
        array = self.array(key)
        if array.dtype.kind not in "fiu":
            raise InputError(
                f"{key} holds {array.dtype} values, expected numbers",
                hint="save it with snn_deploy.save_ticket",
            )
        if not bool(np.all(np.isfinite(array))):
            raise InputError(
                f"{key} holds NaN or infinite values",
                used=f"{int((~np.isfinite(array)).sum()):,} of {array.size:,}",
                hint="training diverged: lower the learning rate and train again",
            )
        return array if array.dtype.kind == "f" else array.astype(np.float32)

    def optional(self, key: str) -> Array | None:
        return None if self.entry.get(key) is None else self.weights(key)

    def get(self, key: str, default: Any) -> Any:
        value = self.entry.get(key)
        return default if value is None else value


def _node(entry: Mapping[str, Any], state: Mapping[str, Array]) -> Node:
    name, op = entry["name"], entry.get("op")
    fields = _Fields(entry, state)
    shape = None if entry.get("shape") is None else shape_of(entry["shape"])
    if op == "Input":
        if shape is None:
            raise InputError(
                "an input has no shape", hint="a node Input needs shape, without a batch axis"
            )
        return Node(name=name, kind="input", shape=shape)
    if op == "Output":
        return Node(name=name, kind="output", shape=shape)
    if op == "Flatten":
        value: Any = Flatten(first=int(fields.get("first", 0)), last=int(fields.get("last", -1)))
        return Node(name=name, kind="operator", value=value)
    if op == "Delay":
        return Node(name=name, kind="operator", value=DelaySteps(steps=int(fields.get("steps", 0))))
    if op in NEURON_TYPES and op != "Relay":
        return Node(name=name, kind="neuron", value=_neuron(str(op), fields), shape=shape)
    fixed = bool(fields.get("fixed", False))
    return Node(name=name, kind="operator", value=_synapse(op, fields), fixed=fixed)


def _neuron(op: str, fields: _Fields) -> Any:
    cls = NEURON_TYPES[op]
    values: dict[str, Any] = {}
    for key in (field.name for field in dataclass_fields(cls)):
        given = fields.entry.get(key)
        if key in ("reset", "r_unit"):
            if given is not None:
                allowed = ("value", "subtract") if key == "reset" else ("per-step", "physical")
                if given not in allowed:
                    raise InputError(f"{key} is {given!r}", hint=" or ".join(allowed))
                values[key] = given
        elif not (key in ("reset_amount", "v_init") and given is None):
            values[key] = fields.array(key)
    return cls(**values)


def _synapse(op: object, fields: _Fields) -> Synapse:
    if op == "Linear":
        return Dense(weight=fields.weights("weight"), bias=fields.optional("bias"))
    if op == "Conv2d":
        return Conv2d(
            weight=fields.weights("weight"),
            bias=fields.optional("bias"),
            stride=as_pair(fields.get("stride", 1), "stride"),
            padding=padding_of(fields.get("padding", 0)),
            dilation=as_pair(fields.get("dilation", 1), "dilation"),
            groups=int(fields.get("groups", 1)),
        )
    if op == "Conv1d":
        return Conv1d(
            weight=fields.weights("weight"),
            bias=fields.optional("bias"),
            stride=as_pair(fields.get("stride", 1), "stride")[0],
            padding=as_pair(fields.get("padding", 0), "padding"),
            dilation=as_pair(fields.get("dilation", 1), "dilation")[0],
            groups=int(fields.get("groups", 1)),
        )
    if op == "BatchNorm":
        return BatchNorm(
            mean=fields.weights("mean"),
            variance=fields.weights("variance"),
            weight=fields.weights("weight"),
            bias=fields.weights("bias"),
            eps=number(fields.get("eps", 1e-5), "eps"),
        )
    if op == "Pool2d":
        kind = fields.get("kind", "sum")
        if kind not in ("sum", "avg", "max"):
            raise InputError(f"unknown pool {kind!r}", hint="sum, avg or max")
        kernel = as_pair(fields.get("kernel", 2), "kernel")
        return Pool2d(
            kind=kind,
            kernel=kernel,
            stride=as_pair(fields.get("stride", list(kernel)), "stride"),
            padding=padding_of(fields.get("padding", 0)),
        )
    if op == "Scale":
        return Diagonal(scale=fields.weights("scale"))
    if op == "Identity":
        return Identity()
    raise UnsupportedError(
        f"operator {op!r} is not known", hint="see the list of operators in docs/tickets.md"
    )
