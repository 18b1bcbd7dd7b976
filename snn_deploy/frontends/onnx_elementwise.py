"""ONNX operators on single values, collected in Curves, and sums of branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from snn_deploy.errors import InputError
from snn_deploy.frontends.onnx_ann import Builder, Value
from snn_deploy.frontends.onnx_attributes import needs, number
from snn_deploy.frontends.onnx_curves import Curve, constant_per_channel
from snn_deploy.frontends.onnx_wire import OnnxNode
from snn_deploy.ir.arrays import Array

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
}


def _arithmetic(builder: Builder, node: OnnxNode) -> Value:
    left, right = builder.value(node, 0), builder.value(node, 1)
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return _folded(node, left, right)
    if not isinstance(left, np.ndarray) and not isinstance(right, np.ndarray):
        return _sum(builder, node)
    swapped = isinstance(left, np.ndarray)
    needs(
        not (swapped and node.op in ("Sub", "Div")),
        f"{node.op} of a constant by the network's values",
        node.inputs,
        "divide by constants, subtract constants",
    )
    constant = left if swapped else right
    assert isinstance(constant, np.ndarray)
    curve = builder.curve(node, 1 if swapped else 0)
    value = constant_per_channel(constant, builder.shape(curve.base), node.name)
    one, zero = np.ones_like(value), np.zeros_like(value)
    if node.op in ("Mul", "Div"):
        with np.errstate(all="ignore"):
            factor = value if node.op == "Mul" else one / value
        _finite(node, factor)
        return curve.then(node.name, "affine", factor, zero)
    _finite(node, value)
    return curve.then(node.name, "affine", one, value if node.op == "Add" else -value)


def _finite(node: OnnxNode, value: Array) -> None:
    if not bool(np.all(np.isfinite(value))):
        raise InputError(
            f"{node.op} by a constant gives no finite number",
            hint="a zero divisor, NaN or infinity usually means that training diverged",
        )


def _folded(node: OnnxNode, left: Array, right: Array) -> Array:
    """Return a constant computed from two, not larger than they are."""
    try:
        size = np.prod(np.broadcast_shapes(left.shape, right.shape), dtype=np.int64)
    except ValueError:
        raise InputError(
            f"{node.op} of constants of shapes {left.shape} and {right.shape}",
            hint="export the model again",
        ) from None
    needs(
        bool(size <= max(left.size, right.size)), "constants grow", size, "simplify the model first"
    )
    with np.errstate(all="ignore"):
        return np.asarray(_ARITHMETIC[node.op](left, right))


def _sum(builder: Builder, node: OnnxNode) -> Value:
    needs(node.op == "Add", f"{node.op} of two branches", node.inputs, "branches may be added")
    sources = (builder.source(node, 0), builder.source(node, 1))
    shapes = [builder.shape(s) for s in sources]
    needs(shapes[0] == shapes[1], "branches of different shapes are added", shapes, "match them")
    needs(sources[0] != sources[1], "a branch is added to itself", sources[0], "scale by 2")
    return builder.add(node.name, None, sources, shapes[0])


def _rectified(builder: Builder, node: OnnxNode) -> Value:
    curve = builder.curve(node)
    low = np.zeros(builder.shape(curve.base)[0])
    return curve.then(node.name, "clip", low, np.full_like(low, np.inf))


def _clip(builder: Builder, node: OnnxNode) -> Value:
    curve = builder.curve(node)
    shape = builder.shape(curve.base)
    bounds = []
    for index, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        value = builder.constant(node, index)
        if value is None:
            value = np.array(number(node, name, default), np.float64)
        bounds.append(constant_per_channel(value, shape, node.name))
    if bool(np.any(np.isnan(bounds[0]) | np.isnan(bounds[1]) | (bounds[0] > bounds[1]))):
        raise InputError("Clip has no interval", hint="its minimum is not below its maximum")
    return curve.then(node.name, "clip", *bounds)


def _floor(builder: Builder, node: OnnxNode) -> Value:
    curve: Curve = builder.curve(node)
    zero = np.zeros(builder.shape(curve.base)[0])
    return curve.then(node.name, "floor", zero, zero)


#: What each becomes.
ELEMENTWISE: dict[str, Callable[[Builder, OnnxNode], Value]] = {
    "Add": _arithmetic,
    "Clip": _clip,
    "Div": _arithmetic,
    "Floor": _floor,
    "Mul": _arithmetic,
    "Relu": _rectified,
    "Sub": _arithmetic,
}
