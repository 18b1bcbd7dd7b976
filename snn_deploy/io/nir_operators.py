"""Synapse operators as NIR nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.synapses import (
    Conv1d,
    Conv2d,
    Csr,
    Dense,
    Diagonal,
    Pool2d,
    Shape,
    Synapse,
)


def flatten_node(shape: Shape) -> dict[str, Any]:
    """Return a Flatten node for an input of ``shape``."""
    return {"type": "Flatten", "start_dim": 0, "end_dim": -1, "input_type": np.array(shape)}


def _both_sides(padding: tuple[int, int, int, int], where: str) -> tuple[int, int]:
    """Return (rows, columns) of padding that is the same on both sides."""
    top, bottom, left, right = padding
    if (top, left) != (bottom, right):
        raise UnsupportedError(
            "NIR has no asymmetric padding",
            where=where,
            hint="use the same padding on both sides",
        )
    return top, left


def operator_node(synapse: Synapse, shape: Shape, where: str) -> tuple[dict[str, Any], str]:
    """Return an operator's node and the suffix of its name; UnsupportedError, located."""
    if isinstance(synapse, Dense | Csr):
        weight = synapse.weight if isinstance(synapse, Dense) else synapse.to_dense()
        if synapse.bias is None:
            return {"type": "Linear", "weight": weight}, ""
        return {"type": "Affine", "weight": weight, "bias": synapse.bias}, ""
    if isinstance(synapse, Conv2d):
        padding: Any = "same"
        if not is_same(synapse):
            padding = np.array(_both_sides(synapse.padding, where))
        return {
            "type": "Conv2d",
            "weight": synapse.weight,
            "bias": _bias(synapse),
            "stride": np.array(synapse.stride),
            "padding": padding,
            "dilation": np.array(synapse.dilation),
            "groups": synapse.groups,
            "input_shape": np.array(shape[1:]),
        }, ""
    if isinstance(synapse, Conv1d):
        pad: Any = "same"
        if not is_same(synapse.as_conv2d()):
            _, pad = _both_sides((0, 0, *synapse.padding), where)
        return {
            "type": "Conv1d",
            "weight": synapse.weight,
            "bias": _bias(synapse),
            "stride": synapse.stride,
            "padding": pad,
            "dilation": synapse.dilation,
            "groups": synapse.groups,
            "input_shape": shape[1],
        }, ""
    if isinstance(synapse, Pool2d):
        top, left = _both_sides(synapse.padding, where)
        kind = "SumPool2d" if synapse.kind == "sum" else "AvgPool2d"
        return {
            "type": kind,
            "kernel_size": np.array(synapse.kernel),
            "stride": np.array(synapse.stride),
            "padding": np.array((top, left)),
        }, ".pool"
    assert isinstance(synapse, Diagonal), "fold the network before writing it"
    scale = np.broadcast_to(synapse.scale, shape)
    return {"type": "Scale", "scale": np.ascontiguousarray(scale)}, ".scale"


def is_same(conv: Conv2d) -> bool:
    """Return whether one side's odd pixel makes it torch's padding "same", which NIR has."""
    extra = [d * (k - 1) for d, k in zip(conv.dilation, conv.weight.shape[2:], strict=True)]
    wanted = tuple(side for e in extra for side in (e // 2, e - e // 2))
    uneven = any(e % 2 for e in extra)
    return uneven and conv.stride == (1, 1) and conv.padding == wanted


def _bias(synapse: Conv1d | Conv2d) -> Array:
    if synapse.bias is not None:
        return synapse.bias
    return np.zeros(synapse.weight.shape[0], synapse.weight.dtype)
