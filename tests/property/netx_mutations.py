"""lava-dl files that differ from a good one in their structure or in one value."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

Tree = dict[str, Any]

NAMES = ("weight", "bias", "delay", "7", "weight_rec", "shape", "neuron")
ODD: tuple[Any, ...] = (
    0, -1, 1.5, 127, 4096, 131072, 2**31, -(2**63), 1e30, float("nan"), float("inf"), True,
    np.uint64(2**63), "x", "conv", "", [], [[]], [0], [0, 0, 0], [-1, 3, 4], [10**6] * 3, [1] * 40,
    [1, 2], [3, 4, 2], np.zeros((0, 3)), np.ones((1,) * 6), np.array([1 + 2j]),
    np.full((2, 1, 2, 2), 300), np.array(["a", "b"], "S2"), np.zeros(3, [("a", "f4"), ("b", "i2")]),
    {}, {"type": "CUBA"},
)  # fmt: skip


def net_tree() -> Tree:
    """Return an image of analogue input, a convolution, recurrence and delays."""

    def neuron() -> Tree:
        return {"type": "CUBA", "iDecay": 1024, "vDecay": 512, "vThMant": 10, "refDelay": 1}

    weights = np.arange(144).reshape(6, 24) * 2 - 100
    layers: list[Tree] = [
        {"type": "input", "shape": [1, 4, 5], "weight": 3, "bias": 2},
        {
            "type": "conv", "shape": [2, 3, 4], "weight": np.ones((2, 1, 2, 2), int), "stride": 1,
            "padding": 0, "dilation": 1, "groups": 1, "bias": [1, 2],
        },
        {"type": "flatten", "shape": [24]},
        {"type": "dense_rec", "shape": [6], "weight": weights, "weight_rec": np.eye(6) * 2},
        {"type": "dense", "shape": [3], "weight": weights[:3, :6], "delay": [0, 1, 2], "bias": 1},
    ]  # fmt: skip
    for layer in layers:
        if layer["type"] != "flatten":
            layer["neuron"] = neuron()
    return {"simulation": {"Ts": 1.0}, "layer": {str(i): v for i, v in enumerate(layers)}}


def changed_net(seed: int) -> bytes:
    """Return the bytes of a file with one or two places changed."""
    dice = random.Random(seed)
    tree = net_tree()
    for _ in range(dice.choice((1, 1, 2)) if seed else 0):
        parent, key = dice.choice(list(_places(tree)))
        kind = dice.random()
        if kind < 0.7:
            parent[key] = dice.choice(ODD)
        elif kind < 0.8:
            del parent[key]
        elif kind < 0.9:
            parent[dice.choice(NAMES)] = parent.pop(key)
        elif isinstance(parent[key], np.ndarray):
            parent[key] = parent[key] * dice.choice((-1, 0, 0.5, 100, 1e-3))
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        _write(file, tree)
    return buffer.getvalue()


def _places(tree: Tree) -> Iterator[tuple[Tree, str]]:
    for key, value in tree.items():
        yield tree, key
        if isinstance(value, dict):
            yield from _places(value)


def _write(group: h5py.Group, tree: Tree) -> None:
    for key, value in tree.items():
        if isinstance(value, dict):
            _write(group.create_group(key), value)
        elif isinstance(value, str):
            group.create_dataset(key, (1,), "S10", [value.encode()])
        else:
            group[key] = value
