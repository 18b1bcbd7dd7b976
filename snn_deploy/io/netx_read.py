"""Read lava-dl's network exchange format (``.net``): integers, as its netx gives them to Lava.

What a layer means follows lava-dl 0.6.0's netx/hdf5.py and Lava 0.10's fixed-point LIF. The unit
of all real numbers is one step of a weight: u and v are Lava's divided by 64, a threshold is
vThMant, and the network's grid tells quantization to keep the integers as they are. Decays are
shares of 4096. A bias goes into v, not into the synaptic current.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snn_deploy.errors import InputError, SnnDeployError, UnsupportedError, UsageError
from snn_deploy.io.graph import SnnDeployWarning, as_pair
from snn_deploy.io.netx_neurons import FULL_DECAY, neuron_of
from snn_deploy.io.netx_values import delays, integer, need, number, text, whole, whole_numbers
from snn_deploy.io.values import padding_of, shape_of
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Coding, Grid, Network, Population, Projection, Readout, Source
from snn_deploy.ir.neurons import CubaLI, CubaLIF, Neuron, Relay
from snn_deploy.ir.synapses import Conv2d, Dense, Diagonal, Shape

#: Lava shifts every summed weight by this much; thresholds and biases are shifted alike.
SHIFT = 6
GRID = Grid(arithmetic="loihi", scale=1.0, shift=SHIFT)
_MIXED = (-256, 254)
_REFUSED = ("pool", "convT", "unpool", "average", "concat", "dense_comp")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetxOptions:
    """What a file may leave open. dt_s: seconds; None takes the file's simulation/Ts."""

    dt_s: float | None = None
    readout: Readout | None = None
    coding: Coding | None = None


def read_netx(path: Path | str, options: NetxOptions | None = None) -> Network:
    """Return the Network in a ``.net`` file, its grid set; located errors.

    Layers input, conv, dense, dense_rec and flatten with neurons of type CUBA or LOIHI. Raises
    InputError for what is malformed, UnsupportedError for other layers and neurons, UsageError
    where neither the file nor the options name a time step.
    """
    from snn_deploy.io.files import sha256_file
    from snn_deploy.io.hdf5 import open_audited

    source = Source(path=str(path), sha256=sha256_file(path), format="netx")
    with open_audited(path) as file:
        tree = _tree(file, "")
    try:
        return _Reader(tree, options or NetxOptions()).network(source)
    except SnnDeployError as error:
        raise error.located(str(path)) from None


def _tree(group: Any, where: str) -> dict[str, Any]:
    """Return everything in a group: arrays, texts, and groups as dicts."""
    from snn_deploy.io.hdf5 import read_array, read_string

    found: dict[str, Any] = {}
    for key, value in group.items():
        if not isinstance(key, str):
            raise InputError("a name is not UTF-8", where=where or None, hint="the file is damaged")
        path = f"{where}/{key}"
        if hasattr(value, "keys"):
            found[key] = _tree(value, path)
        else:
            letters = value.dtype.kind in "OS"
            found[key] = (read_string if letters else read_array)(value, path)
    return found


class _Reader:
    def __init__(self, tree: dict[str, Any], options: NetxOptions) -> None:
        self._options = options
        self._layers = self._ordered(tree.get("layer"))
        simulation = tree.get("simulation")
        self._simulation = simulation if isinstance(simulation, dict) else {}
        self._dt_s = self._step_s()
        self._populations: list[Population] = []
        self._projections: list[Projection] = []

    @staticmethod
    def _ordered(layers: Any) -> list[dict[str, Any]]:
        if not isinstance(layers, dict) or not layers:
            raise InputError(
                "not a netx network: group 'layer' is missing",
                hint="export it with lava.lib.dl.slayer's export_hdf5",
            )
        names = [str(i) for i in range(len(layers))]
        if sorted(layers) != sorted(names) or not all(isinstance(v, dict) for v in layers.values()):
            raise InputError(
                "the layers are not numbered from 0",
                where="layer",
                used=", ".join(sorted(layers)[:6]),
                hint="export the network again",
            )
        return [layers[name] for name in names]

    def _step_s(self) -> float:
        if self._options.dt_s is not None:
            return self._options.dt_s
        step = self._simulation.get("Ts")
        if step is None:
            raise UsageError(
                "a .net file counts in steps, and this one does not say how long one is",
                hint="pass --dt SECONDS (lava-dl trains with steps of 1 ms unless told otherwise)",
            )
        value = number(step, "simulation/Ts")
        if value <= 0:
            raise InputError(
                "the time step is not positive", where="simulation/Ts", hint="pass --dt SECONDS"
            )
        return value / 1000.0

    def network(self, source: Source) -> Network:
        """Return the whole network."""
        for index, layer in enumerate(self._layers):
            try:
                self._layer(index, layer)
            except SnnDeployError as error:
                raise error.located(f"layer/{index}") from None
        if len(self._populations) < 2:
            raise InputError("the network has no neurons", hint="export the network again")
        direct = isinstance(self._projections[0].synapses[0], Diagonal)
        steps = self._simulation.get("tSample")
        coding = Coding(
            kind="direct" if direct else "events",
            steps=None if steps is None or not direct else max(1, int(number(steps, "tSample"))),
        )
        return Network(
            populations=tuple(self._populations),
            projections=tuple(self._projections),
            inputs=(self._populations[0].name,),
            outputs=(self._populations[-1].name,),
            dt_s=self._dt_s,
            readout=self._options.readout or Readout(),
            coding=self._options.coding or coding,
            grid=GRID,
            source=source,
        )

    def _layer(self, index: int, layer: dict[str, Any]) -> None:
        kind = text(layer, "type")
        name = f"layer{index}"
        if kind == "input":
            self._input(name, layer)
        elif kind == "flatten":
            if not self._populations:
                raise InputError("a flatten layer comes first", hint="export the network again")
        elif kind == "conv":
            self._conv(name, layer)
        elif kind in ("dense", "dense_rec"):
            self._dense(name, layer, recurrent=kind == "dense_rec")
        elif kind in _REFUSED:
            raise UnsupportedError(
                f"a layer of type {kind!r} is not read: netx does not load it either",
                hint="use conv and dense layers; a pool is a convolution with equal weights",
            )
        else:
            raise InputError(
                f"layer type {kind!r} is not known",
                hint="input, conv, dense, dense_rec or flatten",
            )

    # ------------------------------------------------------------------ layers

    def _relay(self, shape: Shape) -> Population:
        relay = Population(name="input", shape=shape, neuron=Relay(), origin="input")
        self._populations.append(relay)
        return relay

    def _before(self, shape: Shape) -> Population:
        """Return what feeds a layer: the one before, or the input of ``shape``."""
        return self._populations[-1] if self._populations else self._relay(shape)

    def _input(self, name: str, layer: dict[str, Any]) -> None:
        if self._populations:
            raise InputError("an input layer does not come first", hint="export the network again")
        shape = shape_of(need(layer, "shape"))
        pre = self._relay(shape)
        if "neuron" not in layer:
            return
        weight = integer(layer.get("weight", 64), "weight")
        bias = integer(layer.get("bias", 0), "bias")
        given = layer["neuron"]
        if isinstance(given, dict):
            # netx writes the input into the neurons' bias, past u, so u stays 0 and cannot decay.
            layer = {**layer, "neuron": {**given, "iDecay": FULL_DECAY}}
        neuron = neuron_of(layer, shape, np.asarray(float(bias)), self._dt_s)
        self._add(name, pre, shape, neuron, Diagonal(scale=np.asarray(float(weight))))

    def _add(
        self,
        name: str,
        pre: Population,
        shape: Shape,
        neuron: Neuron,
        synapse: Any,
        delay: int | Array = 0,
    ) -> Population:
        post = Population(name=name, shape=shape, neuron=neuron, origin=name)
        self._populations.append(post)
        self._projections.append(
            Projection(
                name=f"{name}.weight",
                pre=pre.name,
                post=name,
                synapses=(synapse,),
                delay_steps=delay,
                origin=name,
            )
        )
        return post

    def _conv(self, name: str, layer: dict[str, Any]) -> None:
        shape = shape_of(need(layer, "shape"))
        weight = whole(need(layer, "weight"), "weight")
        if weight.ndim == 5 and weight.shape[4] == 1:
            weight = weight[..., 0]
        if weight.ndim != 4 or len(shape) != 3:
            raise InputError(
                f"a conv layer has weights of shape {weight.shape} and shape {shape}",
                hint="weights are (out, in/groups, rows, columns), shape is (C, H, W)",
            )
        if not self._populations:
            raise InputError(
                "a conv layer comes first, and nothing says how large its input is",
                hint="put an input layer with a shape before it",
            )
        if np.any(delays(layer.get("delay"), weight.shape[:2])):
            raise UnsupportedError(
                "a convolution with delays is not read: netx drops them",
                where="delay",
                hint="export the layer without delays",
            )
        groups = integer(layer.get("groups", 1), "groups")
        top, _, left, _ = padding_of(_pair(layer, "padding", 0))
        bias = self._bias(layer, shape)
        channels = bias is not None and bias.ndim <= 1
        neuron = neuron_of(layer, shape, None if channels else bias, self._dt_s)
        spread = None
        if channels and bias is not None:
            spread = np.broadcast_to(bias, (weight.shape[0],)).astype(np.float64)
        if spread is not None and isinstance(neuron, CubaLIF | CubaLI):
            neuron, spread = neuron_of(layer, shape, spread, self._dt_s), None
        conv = Conv2d(
            weight=weight,
            bias=spread,
            stride=_pair(layer, "stride", 1),
            padding=(top, top, left, left),
            dilation=_pair(layer, "dilation", 1),
            groups=groups,
        )
        pre = self._before(shape)
        made = conv.out_shape(pre.shape)
        if made != shape:
            raise InputError(
                f"the layer says it has shape {shape}, its convolution gives {made}",
                hint="export the network again",
            )
        self._add(name, pre, shape, neuron, conv)

    def _dense(self, name: str, layer: dict[str, Any], *, recurrent: bool) -> None:
        shape = (math.prod(shape_of(need(layer, "shape"))),)
        weight = self._matrix(layer, "weight", shape[0])
        bias = self._bias(layer, shape)
        neuron = neuron_of(layer, shape, None, self._dt_s)
        spread = None if bias is None else np.broadcast_to(bias, shape).astype(np.float64)
        if spread is not None and isinstance(neuron, CubaLIF | CubaLI):
            neuron, spread = neuron_of(layer, shape, spread, self._dt_s), None
        pre = self._before((weight.shape[1],))
        delay = delays(layer.get("delay"), weight.shape)
        if recurrent and np.any(delay):
            raise UnsupportedError(
                "a dense_rec layer with delays is not read: netx loads it at another scale",
                where="delay",
                hint="export the layer without delays",
            )
        post = self._add(name, pre, shape, neuron, Dense(weight=weight, bias=spread), delay)
        if recurrent:
            back = self._matrix(layer, "weight_rec", shape[0])
            self._projections.append(
                Projection(
                    name=f"{name}.weight_rec",
                    pre=post.name,
                    post=post.name,
                    synapses=(Dense(weight=back),),
                    origin=name,
                )
            )

    @staticmethod
    def _matrix(layer: dict[str, Any], key: str, out: int) -> Array:
        weight = whole(need(layer, key), key)
        if weight.ndim == 1 and weight.size % out == 0:
            weight = weight.reshape(out, -1)
        if weight.ndim != 2 or weight.shape[0] != out:
            raise InputError(
                f"{key} has shape {weight.shape} for {out} neurons",
                hint="weights are (outputs, inputs)",
            )
        low, high = _MIXED
        if weight.size and weight.min() < 0 < weight.max():
            if weight.min() < low or weight.max() > high:
                warnings.warn(
                    f"{key}: weights beyond {low}..{high} are clipped, as netx clips them",
                    SnnDeployWarning,
                    2,
                )
            weight = np.clip(weight, low, high)
        return weight

    @staticmethod
    def _bias(layer: dict[str, Any], shape: Shape) -> Array | None:
        """Return a bias 0-d, per channel, or (C, H, W); None without one."""
        if "bias" not in layer:
            return None
        bias = whole(layer["bias"], "bias")
        if bias.size == 1:
            return bias.reshape(())
        if bias.shape == (shape[0],):
            return bias
        if len(shape) == 3 and bias.shape == shape[::-1]:
            return bias.transpose()
        raise InputError(
            f"a bias of shape {bias.shape} does not fit a layer of shape {shape}",
            hint="one for all, one per channel, or (W, H, C)",
        )


def _pair(layer: dict[str, Any], key: str, default: int) -> tuple[int, int]:
    return as_pair(whole_numbers(layer.get(key, default), key), key)
