"""Dense networks for tests of the ONNX import: trained on digits with torch, or made by hand."""

from __future__ import annotations

import io
import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn


class Quantised(nn.Module):
    """Clip-floor-shift with a learned threshold; the straight-through gradient is torch's trick."""

    def __init__(self, levels: int, form: str = "clip first") -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(4.0))
        self.levels, self.form = levels, form

    def forward(self, x: Any) -> Any:
        if self.form == "clip last":
            stepped = self._floor(x * self.levels / self.threshold + 0.5) / self.levels
            return torch.clamp(stepped, 0, 1) * self.threshold
        x = torch.clamp(x / self.threshold, 0, 1)
        return self._floor(x * self.levels + 0.5) / self.levels * self.threshold

    def _floor(self, x: Any) -> Any:
        return x + (torch.floor(x) - x).detach() if self.training else torch.floor(x)


class Net(nn.Module):
    """Two convolutions, a pool, a dense layer on (1, 8, 8)."""

    def __init__(self, act: Any, pool: Any) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.act1, self.pool = act(), pool(2)
        self.conv2, self.act2 = nn.Conv2d(8, 16, 3, padding=1), act()
        self.drop, self.out = nn.Dropout(0.1), nn.Linear(16 * 16, 10)

    def forward(self, x: Any) -> Any:
        x = self.pool(self.act1(self.norm(self.conv1(x))))
        x = self.drop(self.act2(self.conv2(x)))
        return self.out(x.view(x.size(0), -1))


@cache
def digits() -> tuple[Any, Any, Any, Any]:
    """Return (train x, train y, test x, test y); x is float32 (n, 1, 8, 8) in 0..1."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x = (data.images[:, None] / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], data.target[order].astype(np.int64)
    return x[:1400], y[:1400], x[1400:], y[1400:]


@cache
def trained(kind: str) -> bytes:
    """Return a trained network as torch exports it: "relu", "relu max", "quantised"."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    act = (lambda: Quantised(8)) if kind == "quantised" else nn.ReLU
    net = Net(act, nn.MaxPool2d if kind == "relu max" else nn.AvgPool2d)
    x, y = (torch.from_numpy(part) for part in digits()[:2])
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(12):
        for batch in torch.randperm(len(x)).split(100):
            loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return exported(net, (1, 8, 8))


def exported(net: Any, shape: tuple[int, ...], **options: Any) -> bytes:
    """Return a module as torch.onnx.export writes it, with any batch."""
    file = io.BytesIO()
    how = {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}, "dynamo": False} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), (torch.zeros(2, *shape),), file, **how)
    return file.getvalue()


def model(
    nodes: list[Any],
    shape: tuple[Any, ...] = ("N", 4),
    constants: dict[str, Any] | None = None,
    opset: int = 17,
) -> bytes:
    """Return a model from x to y by hand."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return made.SerializeToString()


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """Return an operator called like its output."""
    return helper.make_node(op, inputs.split(), [output], name=output, **attributes)
