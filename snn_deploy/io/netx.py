"""Write lava-dl's network exchange format (``.net``), which its netx loads.

Layout as lava-dl 0.6.0's netx/hdf5.py and blocks read it: ``/layer/<i>/`` with type, shape,
weight, neuron, bias. netx chains layers, so the network must be one line of dense and
convolution layers. It transposes shapes and kernels from (C, H, W) to Lava's (W, H, C), but
takes biases and neuron parameters as they are: those are written in (W, H, C) order here.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np

from snn_deploy.ir.arrays import Array
from snn_deploy.ir.synapses import Conv2d, Csr, Shape

MAX_GROUPS = 127  # Lava keeps the number of groups as int8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetxLayer:
    """One layer. du, dv, vth: integers as in Lava's LIF, bias in weight units, or None.

    Each is 0-d, or (n,) in C order of ``shape``.
    """

    operator: Csr | Conv2d
    shape: Shape
    du: Array
    dv: Array
    vth: Array
    bias: Array | None


def netx_bytes(input_shape: Shape, layers: tuple[NetxLayer, ...]) -> bytes:
    """Return the bytes of a ``.net`` file for a line of layers.

    A dense layer's neurons form a line whatever its shape, so none may precede a convolution.
    """
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        root = file.create_group("layer")
        index = 0

        def add(kind: str, shape: Shape) -> h5py.Group:
            nonlocal index
            group = root.create_group(str(index))
            index += 1
            group.create_dataset("type", (1,), "S10", [kind.encode()])
            group.create_dataset("shape", data=np.array(shape))
            return group

        add("input", input_shape)
        before = input_shape
        for layer in layers:
            if isinstance(layer.operator, Csr):
                if len(before) > 1:
                    add("flatten", (math.prod(before),))
                before = (layer.operator.shape[0],)
                group = add("dense", before)
                group.create_dataset("inFeatures", data=layer.operator.shape[1])
                group.create_dataset("outFeatures", data=layer.operator.shape[0])
                _put(group, "weight", layer.operator.to_dense())
            else:
                assert len(before) == 3, "netx has no way back from a line to an image"
                group = add("conv", layer.shape)
                _conv(group, layer.operator, before, layer.shape)
                before = layer.shape
            if layer.bias is not None:
                group.create_dataset("bias", data=_bias(layer.bias, before))
            _neuron(group, layer, before)
    return buffer.getvalue()


def _put(group: object, name: str, array: Array) -> None:
    # netx casts to int; int16 holds every weight and compresses to what is nonzero.
    group.create_dataset(  # type: ignore[attr-defined]
        name, data=array.astype(np.int16), compression="gzip", compression_opts=1, shuffle=True
    )


def _conv(group: object, conv: Conv2d, before: Shape, after: Shape) -> None:
    weight, groups = merge_groups(conv.weight, conv.groups)
    values = {
        "inChannels": before[0],
        "outChannels": after[0],
        "kernelSize": list(weight.shape[2:]),
        "stride": list(conv.stride),
        "padding": [conv.padding[0], conv.padding[2]],
        "dilation": list(conv.dilation),
        "groups": groups,
    }
    for name, value in values.items():
        group.create_dataset(name, data=value)  # type: ignore[attr-defined]
    _put(group, "weight", weight[..., None])


def merge_groups(weight: Array, groups: int) -> tuple[Array, int]:
    """Return (O, I/groups, kH, kW) weights in at most MAX_GROUPS groups, padded with zeros."""
    if groups <= MAX_GROUPS:
        return weight, groups
    fewer = max(g for g in range(1, MAX_GROUPS + 1) if groups % g == 0)
    joined = groups // fewer
    outputs, inputs = weight.shape[:2]
    merged = np.zeros((outputs, joined, inputs, *weight.shape[2:]), weight.dtype)
    channels = np.arange(outputs)
    merged[channels, channels // (outputs // groups) % joined] = weight
    return merged.reshape(outputs, joined * inputs, *weight.shape[2:]), fewer


def _lava_order(values: Array, shape: Shape) -> Array:
    """Return one value per neuron in Lava's order, (W, H, C) or (n,); a 0-d one as it is."""
    return values if values.ndim == 0 else values.reshape(shape).transpose()


def _bias(bias: Array, shape: Shape) -> Array:
    """Return (n,) for a line; for an image (C,) where a channel shares one, else (W, H, C)."""
    each = np.broadcast_to(bias, (math.prod(shape),)).reshape(shape)
    if len(shape) == 3:
        channels = each[:, 0, 0]
        if bool(np.all(each == channels[:, None, None])):
            return channels
    return _lava_order(each, shape)


def _neuron(group: object, layer: NetxLayer, shape: Shape) -> None:
    neuron = group.create_group("neuron")  # type: ignore[attr-defined]
    neuron.create_dataset("type", (1,), "S10", [b"CUBA"])
    neuron.create_dataset("iDecay", data=_lava_order(layer.du + 1, shape))
    neuron.create_dataset("vDecay", data=_lava_order(layer.dv, shape))
    neuron.create_dataset("vThMant", data=_lava_order(layer.vth, shape))
    neuron.create_dataset("refDelay", data=1)
    neuron.create_dataset("gradedSpike", data=False)
