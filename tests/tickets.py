"""Small tickets and data for tests: written with torch.save, as a user's file would be."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

LIF = {"op": "LIF", "tau_s": 2e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0}
CODING = {"kind": "rate", "steps": 6, "seed": 3, "gain": 1.0}
CLASSES = 3


def chain(nodes: list[dict[str, Any]], coding: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the graph of nodes in a row."""
    names = [node["name"] for node in nodes]
    return {
        "dt_s": 1e-3,
        "nodes": nodes,
        "edges": [list(pair) for pair in pairwise(names)],
        "readout": {"kind": "count", "groups": None, "window": None},
        "coding": dict(coding or CODING),
        "feedback": [],
    }


def mlp_content(
    sizes: tuple[int, ...] = (12, 8, CLASSES), *, density: float = 0.5, bias: bool = True
) -> dict[str, Any]:
    """Return a ticket's content: layers fc1, lif1, fc2, ... with random weights and masks."""
    import torch

    rng = np.random.default_rng(5)
    nodes: list[dict[str, Any]] = [{"name": "input", "op": "Input", "shape": [sizes[0]]}]
    state, masks = {}, {}
    for i, (pre, post) in enumerate(pairwise(sizes), start=1):
        key = f"fc{i}.weight"
        mask = rng.random((post, pre)) < density
        mask[0, 0] = True
        weight = rng.normal(0.3, 1.0, (post, pre)).astype(np.float32)
        state[key] = torch.from_numpy(np.where(mask, weight, 0).astype(np.float32))
        masks[key] = torch.from_numpy(mask)
        node = {"name": f"fc{i}", "op": "Linear", "weight": key}
        if bias:
            node["bias"] = f"fc{i}.bias"
            state[f"fc{i}.bias"] = torch.from_numpy(rng.normal(0, 0.2, post).astype(np.float32))
        nodes += [node, {"name": f"lif{i}", **LIF}]
    nodes.append({"name": "output", "op": "Output"})
    return {
        "format": "snn-deploy/ticket",
        "version": 1,
        "graph": chain(nodes),
        "state": state,
        "masks": masks,
        "meta": {},
    }


def conv_content() -> dict[str, Any]:
    """Return a ticket's content: a convolution with batch norm, a pool and a linear layer."""
    import torch

    rng = np.random.default_rng(6)
    real = lambda *shape: torch.from_numpy(rng.normal(0.2, 0.6, shape).astype(np.float32))
    mask = torch.from_numpy(rng.random((4, 1, 3, 3)) < 0.6)
    state = {
        "conv.weight": real(4, 1, 3, 3) * mask,
        "bn.weight": torch.ones(4),
        "bn.bias": real(4) * 0.1,
        "bn.mean": real(4) * 0.1,
        "bn.var": torch.ones(4) * 1.5,
        "fc.weight": real(CLASSES, 36),
    }
    nodes = [
        {"name": "input", "op": "Input", "shape": [1, 6, 6]},
        {"name": "conv", "op": "Conv2d", "weight": "conv.weight", "padding": 1},
        {
            "name": "bn",
            "op": "BatchNorm",
            "mean": "bn.mean",
            "variance": "bn.var",
            "weight": "bn.weight",
            "bias": "bn.bias",
            "eps": 1e-5,
        },
        {"name": "lif1", **LIF},
        {"name": "pool", "op": "Pool2d", "kind": "avg", "kernel": 2, "stride": 2},
        {"name": "flatten", "op": "Flatten"},
        {"name": "fc", "op": "Linear", "weight": "fc.weight"},
        {"name": "lif2", **LIF},
        {"name": "output", "op": "Output"},
    ]
    return {
        "format": "snn-deploy/ticket",
        "version": 1,
        "graph": chain(nodes),
        "state": state,
        "masks": {"conv.weight": mask},
        "meta": {},
    }


def save(path: Path, content: Any, change: Callable[[Any], None] | None = None) -> Path:
    """Write content with torch.save, after ``change`` has edited it; returns the path."""
    import torch

    if change is not None:
        change(content)
    torch.save(content, path)
    return path


def save_data(path: Path, shape: tuple[int, ...] = (12,), samples: int = 12) -> Path:
    """Write x in 0..1 of (samples, *shape) and labels; returns the path."""
    rng = np.random.default_rng(7)
    x = rng.random((samples, *shape)).astype(np.float32)
    np.savez(path, x=x, y=rng.integers(0, CLASSES, samples))
    return path
