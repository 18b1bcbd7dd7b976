"""The content of a ``.nir`` file, still in NIR's terms: nodes, edges, and graphs within graphs.

A nested graph is spliced into the graph around it: its nodes get the prefix ``graph.``, and its
Input and Output nodes become ports that pass values on. An edge that names the graph means its
only Input or Output; ``graph.port`` (or ``graph/port``) names one of several.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from snn_deploy.errors import InputError, SnnDeployError, UnsupportedError
from snn_deploy.io.hdf5 import read_array, read_string, read_strings
from snn_deploy.ir.arrays import Array

METADATA_KEY = "snn_deploy"
METADATA_SCHEMA = 1
PORT = "Port"  # our type of a nested graph's Input and Output
MAX_NODES = 20_000

Fields = dict[str, Any]
Edge = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawGraph:
    """nodes: fields by node name, "type" among them; a nested graph has itself in place of them."""

    nodes: Mapping[str, Fields | RawGraph]
    edges: list[Edge]


@dataclass(slots=True, kw_only=True)
class FlatGraph:
    """A graph without nested ones. nodes: fields by node name; edges as they stand in the file."""

    nodes: dict[str, Fields] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)


def load(file: Any) -> tuple[FlatGraph, dict[str, Any]]:
    """Return the flat graph of an audited HDF5 file, and our metadata or {}; InputError."""
    if not _is_group(file, "node"):
        raise InputError(
            "not a NIR graph: group 'node' is missing",
            hint="write the graph with nir.write(path, graph)",
        )
    root = file["node"]
    raw = _graph(root, "node")
    flat = FlatGraph()
    _splice(raw, "", flat)
    metadata: dict[str, Any] = {}
    if _is_group(root, "metadata") and METADATA_KEY in root["metadata"]:
        metadata = _metadata(read_string(root["metadata"][METADATA_KEY], "node/metadata"))
    return flat, metadata


def _is_group(parent: Any, key: str) -> bool:
    return key in parent and hasattr(parent[key], "keys")


def _type(node: Any, where: str) -> str:
    if not hasattr(node, "keys") or "type" not in node:
        raise InputError(
            "a node has no type", where=where, hint="the file is malformed: export it again"
        )
    return read_string(node["type"], f"{where}/type")


def _graph(group: Any, where: str) -> RawGraph:
    kind = _type(group, where)
    if kind != "NIRGraph":
        raise InputError(
            f"the root node is {kind!r}, expected a NIRGraph",
            where=where,
            hint="wrap the node in a graph: nir.NIRGraph.from_list(node)",
        )
    for key in ("nodes", "edges"):
        if key not in group or _is_group(group, key) != (key == "nodes"):
            raise InputError(
                f"the graph has no {key}",
                where=where,
                hint="the file is malformed: export it again",
            )
    nodes: dict[str, Fields | RawGraph] = {}
    for name, node in group["nodes"].items():
        if not isinstance(name, str):
            raise InputError(
                "a node's name is not UTF-8",
                where=where,
                hint="the file is damaged: write or download it again",
            )
        path = name if where == "node" else f"{where}.{name}"
        kind = _type(node, path)
        nodes[name] = _graph(node, path) if kind == "NIRGraph" else _fields(node, kind, path)
    table = _edges(group["edges"], f"{where}/edges")
    if table.size and (table.ndim != 2 or table.shape[1] != 2):
        raise InputError(
            "the edges are not pairs of names",
            where=f"{where}/edges",
            hint="an edge is (source node, target node)",
        )
    return RawGraph(nodes=nodes, edges=[(str(a), str(b)) for a, b in table.reshape(-1, 2)])


def _edges(data: Any, where: str) -> Array:
    """Return pairs of names; numbers are the names of nodes that have numbers for names."""
    if data.dtype.kind in "iu":
        return read_array(data, where).astype(str)
    return read_strings(data, where)


def _fields(node: Any, kind: str, path: str) -> Fields:
    values: Fields = {"type": kind}
    for key, data in node.items():
        if key in ("type", "metadata") or hasattr(data, "keys"):
            continue
        read = read_string if data.dtype.kind in "OS" else read_array
        values[key] = read(data, f"{path}/{key}")
    return values


def _metadata(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(
            "the graph's snn_deploy metadata is not JSON",
            where="metadata",
            hint="delete the metadata, and say on the command line what it said",
        ) from None
    if not isinstance(content, dict) or content.get("schema") != METADATA_SCHEMA:
        raise UnsupportedError(
            "the graph's snn_deploy metadata has another schema",
            where="metadata",
            hint="upgrade snn-deploy",
        )
    return content


# ------------------------------------------------------------------------------ nested graphs


def _splice(graph: RawGraph, prefix: str, into: FlatGraph) -> None:
    """Add a graph's nodes and edges to ``into``, every name with ``prefix``."""
    for name, node in graph.nodes.items():
        if isinstance(node, RawGraph):
            _splice(node, f"{prefix}{name}.", into)
            continue
        flat = prefix + name
        if flat in into.nodes:
            raise InputError(
                f"two nodes are called {flat!r} once nested graphs are flattened",
                where=flat,
                hint="rename one of them",
            )
        port = prefix and node["type"] in ("Input", "Output")
        into.nodes[flat] = {**node, "type": PORT} if port else node
        if len(into.nodes) > MAX_NODES:
            raise UnsupportedError(
                f"the graph has more than {MAX_NODES:,} nodes",
                hint="a node is a whole layer, not a neuron",
            )
    for a, b in graph.edges:
        where = f"edge {prefix}{a} -> {prefix}{b}"
        try:
            start = prefix + _end(graph, a, "Output")
            into.edges.append((start, prefix + _end(graph, b, "Input")))
        except SnnDeployError as error:
            error.where = where
            raise


def _end(graph: RawGraph, name: str, port: str) -> str:
    """Return the node that an edge's end means; port: the kind that it finds in a nested graph."""
    node = graph.nodes.get(name)
    if node is not None and not isinstance(node, RawGraph):
        return name
    if node is not None:
        ports = [n for n, f in node.nodes.items() if _is_port(f, port)]
        if len(ports) != 1:
            raise InputError(
                f"the nested graph {name!r} has {len(ports) or 'no'} {port} node"
                + "s" * (len(ports) != 1),
                hint=f"name one: {', '.join(f'{name}.{p}' for p in ports[:4])}"
                if ports
                else f"add an {port} node to the nested graph",
            )
        return f"{name}.{ports[0]}"
    for at in [i for i, letter in enumerate(name) if letter in "./"]:
        head, tail = name[:at], name[at + 1 :]
        inner = graph.nodes.get(head)
        if isinstance(inner, RawGraph) and (tail in inner.nodes or _leads_on(inner, tail)):
            found = inner.nodes.get(tail)
            if found is not None and not isinstance(found, RawGraph) and not _is_port(found, port):
                raise InputError(
                    f"the edge reaches into the nested graph {head!r} past its {port} nodes",
                    hint=f"connect {tail!r} to an {port} node inside, and that one outside",
                )
            return f"{head}.{_end(inner, tail, port)}"
    near = difflib.get_close_matches(name, graph.nodes, n=1)
    shown = ", ".join(list(graph.nodes)[:6]) + ", ..." * (len(graph.nodes) > 6)
    raise InputError(
        f"an edge names {name!r}, which is not a node",
        hint=f"did you mean {near[0]!r}?" if near else f"the graph has {shown or 'no nodes'}",
    )


def _is_port(node: Fields | RawGraph, port: str) -> bool:
    return not isinstance(node, RawGraph) and node["type"] == port


def _leads_on(graph: RawGraph, name: str) -> bool:
    return any(
        name.startswith((f"{n}.", f"{n}/"))
        for n, f in graph.nodes.items()
        if isinstance(f, RawGraph)
    )
