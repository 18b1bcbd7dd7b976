"""Write lava-dl's network exchange format (``.net``), which its netx loads.

Layout as lava-dl 0.6.0's netx/hdf5.py and blocks read it: ``/layer/<i>/`` with type, shape,
weight, neuron. netx chains layers, so the network must be one line of dense and convolution
layers with one set of neuron parameters per layer.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from snn_deploy.ir.arrays import Array
from snn_deploy.ir.synapses import Conv2d, Csr, Shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetxLayer:
    """One layer. du, dv, vth: integers as in Lava's LIF; bias (n,) in weight units, or None."""

    operator: Csr | Conv2d
    shape: Shape
    du: int
    dv: int
    vth: int
    bias: Array | None


def netx_bytes(input_shape: Shape, layers: tuple[NetxLayer, ...]) -> bytes:
    """Return the bytes of a ``.net`` file for a line of layers."""
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
                    add("flatten", (int(np.prod(before)),))
                size = layer.operator.shape[0]
                group = add("dense", (size,))
                group.create_dataset("inFeatures", data=layer.operator.shape[1])
                group.create_dataset("outFeatures", data=size)
                _put(group, "weight", layer.operator.to_dense())
                before = (size,)
            else:
                group = add("conv", layer.shape)
                _conv(group, layer.operator, before, layer.shape)
                before = layer.shape
            if layer.bias is not None:
                group.create_dataset("bias", data=layer.bias)
            _neuron(group, layer)
    return buffer.getvalue()


def _put(group: object, name: str, array: Array) -> None:
    # netx casts to int; int16 holds every weight and compresses to what is nonzero.
    group.create_dataset(  # type: ignore[attr-defined]
        name, data=array.astype(np.int16), compression="gzip", compression_opts=1, shuffle=True
    )


def _conv(group: object, conv: Conv2d, before: Shape, after: Shape) -> None:
    values = {
        "inChannels": before[0],
        "outChannels": after[0],
        "kernelSize": list(conv.weight.shape[2:]),
        "stride": list(conv.stride),
        "padding": [conv.padding[0], conv.padding[2]],
        "dilation": list(conv.dilation),
        "groups": conv.groups,
    }
    for name, value in values.items():
        group.create_dataset(name, data=value)  # type: ignore[attr-defined]
    _put(group, "weight", conv.weight[..., None])


def _neuron(group: object, layer: NetxLayer) -> None:
    neuron = group.create_group("neuron")  # type: ignore[attr-defined]
    neuron.create_dataset("type", (1,), "S10", [b"CUBA"])
    neuron.create_dataset("iDecay", data=layer.du + 1)
    neuron.create_dataset("vDecay", data=layer.dv)
    neuron.create_dataset("vThMant", data=layer.vth)
    neuron.create_dataset("refDelay", data=1)
    neuron.create_dataset("gradedSpike", data=False)
