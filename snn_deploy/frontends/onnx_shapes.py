"""ONNX operators that compute nothing: shapes, constants, and what stands for nothing when run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.frontends.onnx_ann import Builder, Last, Value
from snn_deploy.frontends.onnx_attributes import needs, number
from snn_deploy.frontends.onnx_wire import OnnxNode
from snn_deploy.io.graph import Flatten


def _flatten(builder: Builder, node: OnnxNode) -> Value:
    source = builder.source(node)
    axis = number(node, "axis", 1)
    needs(axis == 1, "Flatten joins the batch with something else", axis, "use axis 1")
    return _flat(builder, node, source)


def _flat(builder: Builder, node: OnnxNode, source: str) -> str:
    if len(builder.shape(source)) == 1:
        return source
    return builder.operator(node.name, Flatten(), source)


def _reshape(builder: Builder, node: OnnxNode) -> Value:
    source = builder.source(node)
    shape, wanted = builder.shape(source), builder.value(node, 1)
    if isinstance(wanted, np.ndarray):
        wanted = [int(v) for v in wanted.reshape(-1)[:8]]
    needs(isinstance(wanted, list), "Reshape to a computed shape", node.inputs[1], "use flatten")
    assert isinstance(wanted, list)
    size = int(np.prod(shape))
    rest = wanted[1:]
    if len(rest) == 1 and rest[0] in (-1, size, 0 if len(shape) == 1 else size):
        return _flat(builder, node, source)
    kept = len(rest) == len(shape) and all(
        b in (0, a, -1) for a, b in zip(shape, rest, strict=True)
    )
    needs(kept, "Reshape other than to flat samples", wanted, "flatten, or keep the shape")
    return source


def _squeeze(builder: Builder, node: OnnxNode) -> Value:
    value = builder.value(node, 0)
    if isinstance(value, list):  # one number of a shape
        return value
    source = builder.source(node)
    shape = builder.shape(source)
    needs(
        shape[1:] == (1,) * (len(shape) - 1),
        "Squeeze other than to flat samples",
        shape,
        "flatten instead",
    )
    return _flat(builder, node, source)


def _shape(builder: Builder, node: OnnxNode) -> Value:
    whole: list[int | None] = [None, *builder.shape(builder.source(node))]
    start, end = number(node, "start", 0), number(node, "end", len(whole))
    return whole[start:end]


def _of_shape(builder: Builder, node: OnnxNode, index: int = 0) -> list[int | None]:
    """Return the integers of a shape; other values are not gathered or joined."""
    value = builder.value(node, index)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.size <= 16:
        return [int(v) for v in value.reshape(-1)]
    if not isinstance(value, list):
        raise UnsupportedError(
            f"{node.op} is read in the computation of a shape only",
            hint="add branches, do not join or cut them",
        )
    return value


def _gather(builder: Builder, node: OnnxNode) -> Value:
    values, found = _of_shape(builder, node), []
    for index in _of_shape(builder, node, 1):
        if index is None or not -len(values) <= index < len(values):
            raise InputError("Gather reads beyond a shape", used=str(index), hint="export again")
        found.append(values[index])
    return found


def _concat(builder: Builder, node: OnnxNode) -> Value:
    return [v for i in range(len(node.inputs)) for v in _of_shape(builder, node, i)][:16]


def _same(builder: Builder, node: OnnxNode) -> Value:
    return builder.value(node, 0)


def _dropout(builder: Builder, node: OnnxNode) -> Value:
    training = builder.constant(node, 2)
    needs(
        training is None or not bool(np.any(training)),
        "dropout in training mode",
        "training_mode true",
        "export after model.eval()",
    )
    return builder.value(node, 0)


def _softmax(builder: Builder, node: OnnxNode) -> Value:
    source = builder.source(node)
    shape = builder.shape(source)
    needs(len(shape) == 1, f"{node.op} of an image", shape, "flatten first")
    builder.notes.append(
        f"{node.op} {node.name} is left out: it keeps the order of the scores, so read them as "
        "logits"
    )
    return Last(source)


def _constant(builder: Builder, node: OnnxNode) -> Value:
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64)):
        if name in node.attributes:
            return np.array(number(node, name, 0), dtype)
    for name, dtype in (("value_floats", np.float32), ("value_ints", np.int64)):
        if isinstance(node.attributes.get(name), list):
            return np.array(node.attributes[name], dtype)
    value = node.attributes.get("value")
    if not isinstance(value, np.ndarray):
        raise InputError("a Constant holds no tensor", hint="export the model again")
    return value


#: What each becomes.
SHAPES: dict[str, Callable[[Builder, OnnxNode], Value]] = {
    "Cast": _of_shape,
    "Concat": _concat,
    "Constant": _constant,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _same,
    "LogSoftmax": _softmax,
    "Reshape": _reshape,
    "Shape": _shape,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Unsqueeze": _of_shape,
}
