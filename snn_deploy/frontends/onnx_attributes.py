"""Attributes of ONNX operators, and what is refused of them."""

from __future__ import annotations

from typing import Any

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.frontends.onnx_wire import OnnxNode


def needs(good: bool, message: str, used: object, hint: str) -> None:
    """Raise UnsupportedError where ``good`` is false."""
    if not good:
        raise UnsupportedError(message, used=str(used), hint=hint)


def whole_numbers(node: OnnxNode, name: str, count: int, default: int) -> tuple[int, ...]:
    """Return an attribute of ``count`` integers."""
    value = node.attributes.get(name) or [default] * count
    if not isinstance(value, list) or len(value) != count or not all(type(v) is int for v in value):
        raise InputError(
            f"{node.op}.{name} is not {count} whole numbers",
            used=str(value)[:60],
            hint="export the model again",
        )
    return tuple(value)


def number(node: OnnxNode, name: str, default: float) -> Any:
    """Return an attribute of one number, whole where the default is."""
    value = node.attributes.get(name, default)
    if not isinstance(value, type(default)):
        raise InputError(f"{node.op}.{name} is not a number", hint="export the model again")
    return value
