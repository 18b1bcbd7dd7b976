"""Read a NIR graph through the audited HDF5 reader; the ``nir`` package never sees the file.

What NIR leaves open is taken from our metadata where it is, else from :class:`NirOptions`, and
asked for where neither says it: dt, the reset kind, and what an IF's ``r`` means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from snn_deploy.errors import InputError, SnnDeployError, UnsupportedError
from snn_deploy.io.build import build, order_populations, order_projections
from snn_deploy.io.graph import DelaySteps, Flatten, Naming, Node, OpGraph, Port, as_pair
from snn_deploy.io.nir_file import PORT, FlatGraph, load
from snn_deploy.io.values import coding_of, padding_of, readout_of, shape_of
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Coding, Grid, Network, Readout, Source
from snn_deploy.ir.neurons import IF, LI, LIF, CubaLI, CubaLIF, Integrator, Threshold
from snn_deploy.ir.synapses import Conv1d, Conv2d, Dense, Diagonal, Pool2d, Shape

_NODE_FIELDS: dict[str, tuple[str, ...]] = {
    "Input": ("shape",),
    "Output": ("shape",),
    PORT: ("shape",),
    "Affine": ("weight", "bias"),
    "Linear": ("weight",),
    "Scale": ("scale",),
    "Conv1d": ("weight", "stride", "padding", "dilation", "groups"),
    "Conv2d": ("weight", "stride", "padding", "dilation", "groups"),
    "SumPool2d": ("kernel_size", "stride", "padding"),
    "AvgPool2d": ("kernel_size", "stride", "padding"),
    "Flatten": ("start_dim", "end_dim"),
    "Delay": ("delay",),
    "Threshold": ("threshold",),
    "I": ("r",),
    "IF": ("r", "v_threshold"),
    "LI": ("tau", "r", "v_leak"),
    "LIF": ("tau", "r", "v_leak", "v_threshold"),
    "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak"),
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold"),
}


MAX_DELAY_STEPS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NirOptions:
    """What the user says where the file does not: dt_s seconds, reset kind, IF's r, readout."""

    dt_s: float | None = None
    reset: Literal["value", "subtract"] | None = None
    if_r: Literal["per-step", "physical"] | None = None
    readout: Readout | None = None
    coding: Coding | None = None


def read_nir(path: Path | str, options: NirOptions | None = None) -> Network:
    """Return the Network in a ``.nir`` file; located InputError or UnsupportedError."""
    from snn_deploy.io.files import sha256_file
    from snn_deploy.io.hdf5 import open_audited

    source = Source(path=str(path), sha256=sha256_file(path), format="nir")
    with open_audited(path) as file:
        raw, metadata = load(file)
    try:
        return _Reader(raw, metadata, options or NirOptions()).network(source)
    except SnnDeployError as error:
        raise error.located(str(path)) from None


class _Reader:
    def __init__(self, raw: FlatGraph, metadata: dict[str, Any], options: NirOptions) -> None:
        self.raw, self.metadata, self.options = raw, metadata, options
        self._shapes: dict[str, Shape] = {}
        self.dt_s = options.dt_s if options.dt_s is not None else self._metadata_dt()

    def _metadata_dt(self) -> float:
        value = self.metadata.get("dt_s")
        if value is None:
            raise InputError(
                "a NIR graph has no time step, and this one's metadata names none",
                hint="pass the dt that it was trained with: --dt SECONDS",
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise InputError(
                f"the graph's dt is {value!r}",
                where="metadata",
                hint="pass the dt that it was trained with: --dt SECONDS",
            )
        return float(value)

    def network(self, source: Source) -> Network:
        try:
            return self._network(source)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            if not self.metadata:
                raise
            raise InputError(
                f"the graph's snn_deploy metadata is malformed: {error}",
                where="metadata",
                hint="delete the metadata, and say on the command line what it said",
            ) from None

    def _network(self, source: Source) -> Network:
        rename = {p["node"]: p["name"] for p in self.metadata.get("populations", ())}
        origins = {p["name"]: p["origin"] for p in self.metadata.get("populations", ())}
        self._shapes = {
            p["node"]: shape_of(p["shape"])
            for p in self.metadata.get("populations", ())
            if "shape" in p
        }
        graph = OpGraph(
            namings=self._namings(rename), origins=origins, populations=frozenset(rename.values())
        )
        order = self.metadata.get("order") or []
        known = sorted(order) == sorted(self.raw.nodes)
        for name in order if known else self.raw.nodes:
            try:
                graph.add(self._node(name, rename.get(name, name), self.raw.nodes[name]))
            except SnnDeployError as error:
                raise error.located(name) from None
        graph.edges = [(rename.get(a, a), rename.get(b, b)) for a, b in self.raw.edges]
        network = build(
            graph,
            dt_s=self.dt_s,
            readout=self.options.readout or readout_of(self.metadata.get("readout") or {}),
            coding=self.options.coding or coding_of(self.metadata.get("coding") or {}),
            feedback=tuple(
                (rename.get(a, a), rename.get(b, b)) for a, b in self.metadata.get("feedback", ())
            ),
            grid=self._grid(),
            source=source,
        )
        network = order_populations(
            network, [p["name"] for p in self.metadata.get("populations", ())]
        )
        return order_projections(network, [p["name"] for p in self.metadata.get("projections", ())])

    def _grid(self) -> Grid | None:
        given = self.metadata.get("grid")
        if given is None:
            return None
        scale = float(given["scale"])
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"grid scale {scale}")
        return Grid(arithmetic=str(given["arithmetic"]), scale=scale, shift=int(given["shift"]))

    def _namings(self, rename: Mapping[str, str]) -> dict[tuple[str, ...], Naming]:
        return {
            tuple(rename.get(n, n) for n in p["path"]): Naming(
                name=str(p["name"]), origin=str(p["origin"]), helper=bool(p["helper"])
            )
            for p in self.metadata.get("projections", ())
        }

    def _node(self, raw_name: str, name: str, fields: dict[str, Any]) -> Node:
        kind = fields["type"]
        if kind not in _NODE_FIELDS:
            raise UnsupportedError(
                f"NIR node type {kind!r} is not known",
                hint="known: " + ", ".join(sorted({*_NODE_FIELDS} - {PORT})),
            )
        missing = [key for key in _NODE_FIELDS[kind] if key not in fields]
        if missing:
            raise InputError(
                f"{kind} node has no {missing[0]}", hint="the file is malformed: export it again"
            )
        _check_numbers(kind, fields)
        if kind in ("Input", "Output"):
            shape = shape_of(fields["shape"])
            return Node(name=name, kind="input" if kind == "Input" else "output", shape=shape)
        if kind == PORT:
            shape = shape_of(fields["shape"])
            return Node(name=name, kind="operator", value=Port(), shape=shape)
        if kind == "Scale":
            return Node(name=name, kind="operator", value=self._scale(raw_name, fields["scale"]))
        if kind in ("Affine", "Linear", "Conv1d", "Conv2d", "SumPool2d", "AvgPool2d"):
            value = _operator(kind, fields, raw_name in self.metadata.get("no_bias", ()))
            return Node(name=name, kind="operator", value=value)
        if kind == "Flatten":
            first, last = (_axis(fields[key], key) for key in ("start_dim", "end_dim"))
            return Node(name=name, kind="operator", value=Flatten(first=first, last=last))
        if kind == "Delay":
            return Node(name=name, kind="operator", value=self._delay(fields["delay"]))
        return self._neuron(raw_name, name, kind, fields)

    def _scale(self, raw_name: str, scale: Array) -> Diagonal:
        """Return the scale in the shape that we wrote it from, where its values still have it."""
        full = np.asarray(scale)
        shape = tuple(self.metadata.get("scales", {}).get(raw_name, full.shape))
        if len(shape) > full.ndim:
            raise ValueError(f"{raw_name}: a scale of shape {shape} does not fill {full.shape}")
        axes = (
            slice(1) if n == 1 else slice(None) for n in (1,) * (full.ndim - len(shape)) + shape
        )
        small = full[tuple(axes)].reshape(shape)
        same = np.array_equal(np.broadcast_to(small, full.shape), full)
        return Diagonal(scale=small if same else full)

    def _delay(self, delay: Array) -> DelaySteps:
        values = np.asarray(delay, np.float64) / self.dt_s
        steps = np.rint(values)
        wrong = ~(np.isfinite(values) & (np.abs(values - steps) <= 1e-3) & (steps >= 0))
        wrong |= steps > MAX_DELAY_STEPS
        if wrong.any() or not values.size:
            first = float(values[wrong][0]) if values.size else math.nan
            raise InputError(
                f"a delay of {first:g} steps is not a whole number of steps",
                hint=f"delays are in seconds, multiples of dt, at most {MAX_DELAY_STEPS:,} steps",
            )
        whole = steps.astype(np.int64)
        same = bool(np.all(whole == whole.flat[0]))
        return DelaySteps(steps=int(whole.flat[0]) if same else whole)

    def _neuron(self, raw_name: str, name: str, kind: str, fields: dict[str, Any]) -> Node:
        remarks = self.metadata.get("neurons", {}).get(raw_name, {})
        scalar, channel = set(remarks.get("scalar", ())), set(remarks.get("channel", ()))
        shape = self._shapes.get(raw_name) or _declared(kind, fields)

        def value(key: str, field_name: str, default: float | None = None) -> Array:
            array = np.asarray(fields.get(key, default), np.float64)
            uniform = array.size > 0 and bool(np.all(array == array.flat[0]))
            if field_name in scalar and uniform:
                return np.asarray(array.flat[0])
            if field_name in channel and array.ndim > 1:
                first = array.reshape(array.shape[0], -1)[:, :1]
                if bool(np.all(array.reshape(array.shape[0], -1) == first)):
                    return first[:, 0]
            return array

        start = remarks.get("v_init")
        reset: dict[str, Any] = {}
        if start is not None and kind != "Threshold":
            reset["v_init"] = np.asarray(start, np.float64)
        if kind in ("IF", "LIF", "CubaLIF"):
            reset["v_threshold"] = value("v_threshold", "v_threshold")
            reset["v_reset"] = value("v_reset", "v_reset", 0.0)
            reset["reset"] = self._reset_kind(remarks)
            if remarks.get("reset_amount") is not None:
                reset["reset_amount"] = np.asarray(remarks["reset_amount"], np.float64)
        if kind == "LIF":
            tau, r, leak = value("tau", "tau_s"), value("r", "r"), value("v_leak", "v_leak")
            neuron: Any = LIF(tau_s=tau, r=r, v_leak=leak, **reset)
        elif kind == "IF":
            neuron = IF(r=value("r", "r"), r_unit=self._if_unit(remarks), **reset)
        elif kind == "LI":
            tau, r, leak = value("tau", "tau_s"), value("r", "r"), value("v_leak", "v_leak")
            neuron = LI(tau_s=tau, r=r, v_leak=leak, **reset)
        elif kind in ("CubaLIF", "CubaLI"):
            cls: Any = CubaLIF if kind == "CubaLIF" else CubaLI
            neuron = cls(
                tau_syn_s=value("tau_syn", "tau_syn_s"),
                tau_mem_s=value("tau_mem", "tau_mem_s"),
                r=value("r", "r"),
                v_leak=value("v_leak", "v_leak"),
                w_in=value("w_in", "w_in", 1.0),
                **reset,
            )
        elif kind == "I":
            neuron = Integrator(r=value("r", "r"), **reset)
        else:
            neuron = Threshold(threshold=value("threshold", "threshold"))
        return Node(name=name, kind="neuron", value=neuron, shape=shape)

    def _reset_kind(self, remarks: Mapping[str, Any]) -> str:
        kind = self.options.reset or remarks.get("reset")
        if kind not in ("value", "subtract"):
            raise InputError(
                "NIR does not say how a neuron resets, and this graph's metadata does not either",
                hint="pass --reset value (v := v_reset) or --reset subtract (v -= threshold)",
            )
        return str(kind)

    def _if_unit(self, remarks: Mapping[str, Any]) -> Literal["per-step", "physical"]:
        unit = self.options.if_r or remarks.get("r_unit")
        if unit == "per-step":
            return "per-step"
        if unit == "physical":
            return "physical"
        raise InputError(
            "the meaning of an IF neuron's r is ambiguous in NIR",
            hint="pass --if-r per-step (v += r I) or --if-r physical (v += dt r I)",
        )


def _check_numbers(kind: str, fields: Mapping[str, Any]) -> None:
    for key in (*_NODE_FIELDS[kind], "bias", "v_reset", "w_in"):
        if isinstance(fields.get(key), str) and key != "padding":
            raise InputError(
                f"{kind}.{key} is text, expected numbers",
                used=repr(fields[key])[:60],
                hint="the file is malformed: export it again",
            )


def _axis(value: Any, key: str) -> int:
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.size != 1:
        raise InputError(
            f"{key} must be one whole number, got {' '.join(repr(value).split())[:60]}",
            hint="axes count from 0, without a batch axis; -1 is the last",
        )
    return int(array.reshape(-1)[0])


def _declared(kind: str, fields: Mapping[str, Any]) -> Shape | None:
    """Return the shape that a neuron's parameters have together, None where all are one value."""
    shapes: list[Shape] = [np.shape(fields[key]) for key in _NODE_FIELDS[kind]]
    try:
        together: Shape = np.broadcast_shapes(*shapes)
        return together or None
    except ValueError:
        return tuple(max(shapes, key=math.prod))  # check() names what does not fit


def _operator(kind: str, fields: dict[str, Any], no_bias: bool) -> Any:
    if kind in ("Affine", "Linear"):
        bias = None if kind == "Linear" or no_bias else fields["bias"]
        return Dense(weight=np.asarray(fields["weight"]), bias=bias)
    if kind in ("SumPool2d", "AvgPool2d"):
        return Pool2d(
            kind="sum" if kind == "SumPool2d" else "avg",
            kernel=as_pair(fields["kernel_size"], "kernel_size"),
            stride=as_pair(fields["stride"], "stride"),
            padding=padding_of(fields["padding"]),
        )
    weight = np.asarray(fields["weight"])
    axes = 3 if kind == "Conv1d" else 4
    if weight.ndim != axes:
        raise InputError(
            f"{kind} weight has {weight.ndim} axes, expected {axes}",
            hint="weights are (out, in/groups, kernel axes)",
        )
    bias = None if no_bias or "bias" not in fields else np.asarray(fields["bias"])
    groups = as_pair(fields["groups"], "groups")[0]
    stride, dilation = as_pair(fields["stride"], "stride"), as_pair(fields["dilation"], "dilation")
    padding = _padding(fields["padding"], weight.shape[2:], dilation, stride)
    if kind == "Conv1d":
        return Conv1d(
            weight=weight,
            bias=bias,
            stride=stride[0],
            padding=padding[-2:],
            dilation=dilation[0],
            groups=groups,
        )
    return Conv2d(
        weight=weight, bias=bias, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


def _padding(
    value: Any, kernel: tuple[int, ...], dilation: tuple[int, int], stride: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right); "same" follows torch: the odd pixel goes to the end."""
    if not isinstance(value, str):
        return padding_of(value)
    if value == "valid":
        return (0, 0, 0, 0)
    if value != "same":
        raise InputError(f"padding {value!r} is not known", hint="'same', 'valid' or numbers")
    if stride != (1, 1):
        raise InputError("padding 'same' needs stride 1", hint="give the padding in numbers")
    pads: list[int] = []
    for size, step in zip((1, *kernel)[-2:], dilation, strict=True):
        total = step * (size - 1)
        pads += [total // 2, total - total // 2]
    return (pads[0], pads[1], pads[2], pads[3])
