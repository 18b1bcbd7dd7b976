"""NIR files that someone could have meant well: good graphs, then changed at random."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

Tree = dict[str, Any]


def _lif(n: Any, **changes: Any) -> Tree:
    values = {"tau": 2e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.5, "v_reset": 0.0} | changes
    return {"type": "LIF"} | {k: np.broadcast_to(v, n).copy() for k, v in values.items()}


def _cuba(n: int) -> Tree:
    values = {"tau_syn": 2e-3, "tau_mem": 4e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.5}
    return {"type": "CubaLIF", "w_in": np.ones(n)} | {k: np.full(n, v) for k, v in values.items()}


def _graph(nodes: Tree, edges: list[tuple[str, str]]) -> Tree:
    return {"type": "NIRGraph", "nodes": nodes, "edges": list(edges)}


def _ends(pre: Any, post: Any) -> Tree:
    return {
        "input": {"type": "Input", "shape": np.array(pre)},
        "output": {"type": "Output", "shape": np.array(post)},
    }


def _line(*names: str) -> list[tuple[str, str]]:
    return list(itertools.pairwise(names))


def dense() -> Tree:
    rng = np.random.default_rng(0)
    nodes = {**_ends([4], [3]), "fc1": {"type": "Affine", "weight": rng.random((5, 4))}}
    nodes["fc1"]["bias"] = rng.random(5)
    nodes |= {"lif1": _lif(5), "d": {"type": "Delay", "delay": np.full(5, 2e-3)}}
    nodes |= {"fc2": {"type": "Linear", "weight": rng.random((3, 5)).astype("f4")}}
    nodes |= {"n": {"type": "IF", "r": np.ones(3), "v_threshold": np.ones(3)}}
    return _graph(nodes, _line("input", "fc1", "lif1", "d", "fc2", "n", "output"))


def conv() -> Tree:
    rng = np.random.default_rng(1)
    nodes = {**_ends([2, 8, 8], [3])}
    nodes["c"] = {
        "type": "Conv2d", "weight": rng.random((4, 2, 3, 3)), "bias": np.zeros(4), "stride": [1, 1],
        "padding": [1, 1], "dilation": [1, 1], "groups": 1, "input_shape": [8, 8],
    }  # fmt: skip
    nodes["n1"] = _lif((4, 8, 8))
    for name, kind in (("sum", "SumPool2d"), ("avg", "AvgPool2d")):
        nodes[name] = {"type": kind, "kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0]}
    nodes["t"] = {"type": "Threshold", "threshold": np.full((4, 4, 4), 0.5)}
    nodes["s"] = {"type": "Scale", "scale": np.full((4, 2, 2), 0.5)}
    nodes["f"] = {"type": "Flatten", "start_dim": 0, "end_dim": -1, "input_type": [4, 2, 2]}
    nodes["fc"] = {"type": "Linear", "weight": rng.random((3, 16))}
    nodes["n2"] = {"type": "LI", "tau": np.full(3, 2e-3), "r": np.ones(3), "v_leak": np.zeros(3)}
    names = ("input", "c", "n1", "sum", "t", "avg", "s", "f", "fc", "n2", "output")
    return _graph(nodes, _line(*names))


def nested() -> Tree:
    rng = np.random.default_rng(2)
    inner = {**_ends([4], [4]), "lif": _cuba(4), "w": {"type": "Linear", "weight": np.eye(4)}}
    edges = [("input", "lif"), ("lif", "w"), ("w", "lif"), ("lif", "output")]
    nodes = {**_ends([3], [2]), "fc": {"type": "Linear", "weight": rng.random((4, 3))}}
    nodes |= {"cell": _graph(inner, edges), "out": {"type": "Linear", "weight": rng.random((2, 4))}}
    nodes["n"] = {"type": "I", "r": np.ones(2)}
    return _graph(nodes, _line("input", "fc", "cell", "out", "n", "output"))


GRAPHS: tuple[Callable[[], Tree], ...] = (dense, conv, nested)
_TYPES = (
    "Input", "Output", "Affine", "Linear", "Scale", "Conv1d", "Conv2d", "SumPool2d", "AvgPool2d",
    "Flatten", "Delay", "Threshold", "I", "IF", "LI", "LIF", "CubaLI", "CubaLIF", "NIRGraph", "RNN",
    "",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    np.nan, np.inf, -1.0, 0.0, 1e300, 10**9, -(10**18), True, "same", "x", "", [], [1, 2, 3],
    np.zeros((0, 4)), np.zeros((2, 2, 2, 2, 2)), np.full(5, np.nan), np.arange(3), 2**31, 0.5,
    np.zeros(4, "f2"), np.full((300, 300), 2.0, "f4"), [0, 0], [10**9, 10**9], [[1], [2]],
)  # fmt: skip


def _some_graph(tree: Tree, dice: random.Random) -> Tree:
    inner = [
        n
        for n in tree["nodes"].values()
        if isinstance(n.get("nodes"), dict) and isinstance(n.get("edges"), list)
    ]
    return _some_graph(dice.choice(inner), dice) if inner and dice.random() < 0.5 else tree


def _mutate(tree: Tree, dice: random.Random) -> None:
    graph = _some_graph(tree, dice)
    nodes, edges = graph.get("nodes", {}), graph.get("edges", [])
    name = dice.choice(list(nodes)) if nodes else ""
    node = nodes.get(name, {})
    field = dice.choice(list(node)) if node else "type"
    at = dice.randrange(len(edges)) if edges else 0
    other = dice.choice([*nodes, "ghost", "cell.lif", "cell/output", f"{name}.", "a.b.c"])
    kind = dice.randrange(13)
    if kind == 0 and nodes:
        del nodes[name]
    elif kind == 1 and node:
        del node[field]
    elif kind == 2 and node:
        node[field] = dice.choice(_VALUES)
    elif kind == 3 and node:
        node["type"] = dice.choice(_TYPES)
    elif kind == 4 and edges:
        del edges[at]
    elif kind == 5 and edges:
        edges[at] = (edges[at][0], other) if dice.random() < 0.5 else (other, edges[at][1])
    elif kind == 6:
        edges.append((name, other))
    elif kind == 7 and edges:
        edges.append(edges[at])
    elif kind == 8 and isinstance(node.get(field), np.ndarray):
        value = node[field]
        node[field] = dice.choice((value[:-1], value[None], value.T, value.reshape(-1), value[:1]))
    elif kind == 9 and isinstance(node.get(field), np.ndarray):
        with np.errstate(all="ignore"):
            node[field] = node[field].astype(dice.choice(("f2", "i8", "u1", "f8", "?", "c8")))
    elif kind == 10:
        nodes[dice.choice(("new", name + ".x", "cell.lif"))] = dice.choice(GRAPHS)()
    elif kind == 11:
        graph["metadata"] = {
            "snn_deploy": dice.choice(
                (
                    '{"schema": 1}', "{", "[]", '{"schema": 1, "dt_s": NaN}', "null",
                    '{"schema": 1, "populations": [{"node": "n", "name": "n", "origin": 1}]}',
                    '{"schema": 1, "populations": [{"node": "n", "name": "n", "origin": "", '
                    '"shape": [100000, 100000]}]}',
                    '{"schema": 1, "neurons": {"lif1": {"reset": "odd", "v_init": "x"}}}',
                    '{"schema": 1, "neurons": {"lif1": {"reset": "value", "v_init": [1, 2]}}}',
                    '{"schema": 1, "grid": {"arithmetic": "loihi", "scale": 0, "shift": 6}}',
                    '{"schema": 1, "dt_s": 0.001, "scales": {"s": [1, 1, 1, 1], "n": 1}}',
                    '{"schema": 1, "order": 5, "feedback": [["n"]]}',
                    '{"schema": 1, "readout": {"kind": "vote"}, "coding": {"steps": -1}}',
                    '{"schema": 1, "projections": [{"path": [[]], "name": "", "origin": "", '
                    '"helper": 1}]}',
                )
            )
        }  # fmt: skip
    elif kind == 12:
        graph[dice.choice(("type", "nodes", "edges"))] = dice.choice(
            ("x", np.ones(3), [("a", "b")])
        )


def mutated(seed: int) -> bytes:
    """Return the bytes of a graph after one to three changes."""
    dice = random.Random(seed)
    tree = GRAPHS[seed % len(GRAPHS)]()
    for _ in range(dice.choice((1, 1, 2, 3))):
        if not isinstance(tree.get("nodes"), dict) or not isinstance(tree.get("edges"), list):
            break
        _mutate(tree, dice)
    return nir_file(tree)


def damaged(seed: int) -> bytes:
    """Return the bytes of a good graph after a few flipped bytes, and now and then cut."""
    return _flipped(nir_file(GRAPHS[seed % len(GRAPHS)]()), random.Random(seed))


def damaged_net(seed: int) -> bytes:
    """Return the bytes of a lava-dl network after a few flipped bytes."""
    from snn_deploy.backends.loihi.netx_job import net_file
    from snn_deploy.backends.loihi.target import LoihiTarget
    from snn_deploy.backends.prepare import prepare
    from snn_deploy.passes.pipeline import fold
    from tests.builders import KINDS

    kind = ("mlp", "conv", "per neuron")[seed % 3]
    program = prepare(fold(KINDS[kind](np.random.default_rng(0))), LoihiTarget())
    return _flipped(net_file(program.payload), random.Random(seed))


def _flipped(good: bytes, dice: random.Random) -> bytes:
    data = bytearray(good)
    for _ in range(dice.choice((1, 2, 5, 20))):
        data[dice.randrange(len(data))] = dice.randrange(256)
    return bytes(data[: dice.randrange(len(data))] if dice.random() < 0.1 else data)


def nir_file(tree: Tree) -> bytes:
    """Return a tree in the HDF5 layout of NIR."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["version"] = "1.0.8"
        _write(file.create_group("node"), tree)
    return buffer.getvalue()


def _write(group: h5py.Group, tree: Tree) -> None:
    for key, value in tree.items():
        if isinstance(value, dict):
            inner = group.create_group(key or "empty")
            _write(inner, value)
        elif (
            key == "edges" and isinstance(value, list) and all(isinstance(e, tuple) for e in value)
        ):
            table = np.array(value, dtype=object).reshape(-1, 2)
            group.create_dataset(key, data=table, dtype=h5py.string_dtype())
        elif isinstance(value, np.ndarray) and value.size > 1:
            group.create_dataset(key, data=value, compression="gzip")
        else:
            group[key] = value
