"""NIR's published equations on the graph that we write, as the official package reads it.

The graph goes through ``nir.read``, so this checks our writer too, and everything below works on
the objects of the ``nir`` package in plain numpy: forward Euler, one step at a time, all samples
at once. It takes from the network only which edges carry the previous step's values, which NIR
leaves open.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from snn_deploy.errors import UnsupportedError
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.io.nir_file import METADATA_KEY
from snn_deploy.io.nir_write import nir_bytes
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network
from snn_deploy.ir.neurons import IF, Relay
from snn_deploy.ir.schedule import schedule
from snn_deploy.ir.synapses import bias_of

Values = dict[str, Array]


def read_back(network: Network) -> Any:
    """Return ``network`` as the nir package reads what we write; UnsupportedError for the rest."""
    import nir

    for population in network.computing():
        neuron, where = population.neuron, network.where(population.name)
        if getattr(neuron, "reset", "value") == "subtract":
            raise UnsupportedError(
                "NIR has no field for a reset that subtracts",
                where=where,
                hint="the graph means another network to readers of plain NIR",
            )
        if getattr(neuron, "v_init", None) is not None and np.any(neuron.v_init):  # type: ignore
            raise UnsupportedError(
                "NIR has no field for a membrane that starts elsewhere than at 0",
                where=where,
                hint="the graph means another network to readers of plain NIR",
            )
    for projection in network.projections:
        delay = np.asarray(projection.delay_steps)
        biased = any(bias_of(s) is not None for s in projection.synapses)
        if biased and delay.ndim == 2 and delay.shape[0] > 1:
            raise UnsupportedError(
                "NIR delays a bias together with what a target neuron receives",
                where=network.where(projection.name),
                hint="here a bias acts from the first step on: use one delay, or no bias there",
            )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", SnnDeployWarning)
        path = Path(folder) / "graph.nir"
        path.write_bytes(nir_bytes(network))
        return nir.read(path, type_check=False)


def run(network: Network, x: Mapping[str, Array]) -> tuple[Values, Values]:
    """Return (outputs, membranes) by population, (samples, steps, *shape).

    x: by input population, (samples, steps, *shape). A population that never spikes puts out its
    membrane. Raises UnsupportedError, located, for what NIR has no field for.
    """
    graph = read_back(network)
    metadata = json.loads(graph.metadata[METADATA_KEY])
    node_of = {p["name"]: p["node"] for p in metadata["populations"]}
    waits = schedule(network).feedback
    late = {(p["path"][0], p["path"][1]) for p in metadata["projections"] if waits[p["name"]]}
    per_step = {
        node_of[p.name]
        for p in network.computing()
        if isinstance(p.neuron, IF) and p.neuron.r_unit == "per-step"
    }
    inputs = {node_of[name]: np.asarray(values, np.float64) for name, values in x.items()}
    machine = _Machine(graph, network.dt_s, late, per_step, inputs)
    machine.run()
    outputs, membranes = {}, {}
    for population in network.computing():
        node = node_of[population.name]
        outputs[population.name] = np.stack(machine.values[node], 1)
        if isinstance(population.neuron, Relay):
            membranes[population.name] = outputs[population.name]
        if node in machine.membranes:
            membranes[population.name] = np.stack(machine.membranes[node], 1)
    return outputs, membranes


class _Machine:
    def __init__(
        self, graph: Any, dt: float, late: set[tuple[str, str]], per_step: set[str], inputs: Values
    ) -> None:
        self._nodes, self._dt, self._late, self._per_step = graph.nodes, dt, late, per_step
        self._inputs = inputs
        first = next(iter(inputs.values()))
        self._samples, self._steps = first.shape[:2]
        self._before: dict[str, list[str]] = {name: [] for name in graph.nodes}
        order: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(graph.nodes, ()))
        for a, b in graph.edges:
            self._before[b].append(a)
            if (a, b) not in late:
                order.add(b, a)
        self._order = list(order.static_order())
        self._state: dict[str, Any] = {}
        self.values: dict[str, list[Array]] = {name: [] for name in graph.nodes}
        self.membranes: dict[str, list[Array]] = {}

    def run(self) -> None:
        """Fill values and membranes."""
        for t in range(self._steps):
            for name in self._order:
                if name in self._inputs:
                    self.values[name].append(self._inputs[name][:, t])
                    continue
                shape = _fixed_shape(self._nodes[name])
                total: Any = 0.0
                for source in self._before[name]:
                    ago = (source, name) in self._late
                    if t < ago:
                        continue
                    value = self.values[source][t - ago]
                    # A line may feed an image of the same size, in C order.
                    total = total + (value if shape is None else value.reshape(-1, *shape))
                self.values[name].append(self._apply(name, total))

    def _apply(self, name: str, x: Any) -> Array:
        node = self._nodes[name]
        kind = type(node).__name__
        if kind == "Output":
            return np.asarray(x)
        if kind in _OPERATORS:
            if np.ndim(x) == 0:  # nothing has arrived over the late edges yet
                x = np.zeros((self._samples, *self._shape_before(name)))
            return np.asarray(_OPERATORS[kind](node, x))
        if kind == "Delay":
            return self._delay(name, node, np.asarray(x))
        return self._neuron(name, node, kind, x)

    def _shape_before(self, name: str) -> tuple[int, ...]:
        source = self._before[name][0]
        known = self._nodes[source]
        for field in ("v_threshold", "threshold", "tau", "tau_mem", "r", "scale", "delay"):
            if hasattr(known, field):
                return np.shape(getattr(known, field))
        if hasattr(known, "weight") and np.ndim(known.weight) == 2:
            return (known.weight.shape[0],)
        raise AssertionError(f"{name}: a late edge leaves a population")

    def _delay(self, name: str, node: Any, x: Array) -> Array:
        steps = np.rint(np.asarray(node.delay) / self._dt).astype(int)
        kept = self._state.setdefault(name, [])
        kept.append(np.broadcast_to(x, (self._samples, *steps.shape)))
        out = np.zeros((self._samples, *steps.shape))
        for ago in np.unique(steps):
            if ago < len(kept):
                here = steps == ago
                out[:, here] = kept[-1 - ago][:, here]
        return out

    def _neuron(self, name: str, node: Any, kind: str, current: Any) -> Array:
        if kind == "Threshold":
            full = np.broadcast_to(current, (self._samples, *np.shape(node.threshold)))
            self.membranes.setdefault(name, []).append(np.array(full, np.float64))
            return np.asarray(full > node.threshold, np.float64)
        shape = np.shape(node.r)
        v, i = self._state.get(name, (np.zeros((self._samples, *shape)),) * 2)
        current = np.broadcast_to(current, v.shape)
        dt = self._dt
        if kind in ("CubaLIF", "CubaLI"):
            i = i + dt / node.tau_syn * (node.w_in * current - i)
            current = i
        if kind == "I":
            v = v + dt * node.r * current
        elif kind == "IF":
            v = v + (1.0 if name in self._per_step else dt) * node.r * current
        else:
            tau = node.tau_mem if kind in ("CubaLIF", "CubaLI") else node.tau
            v = v + dt / tau * (node.v_leak - v + node.r * current)
        out = v
        if kind in ("IF", "LIF", "CubaLIF"):
            fired = v > node.v_threshold
            v = np.where(fired, node.v_reset, v)
            out = fired.astype(np.float64)
        self._state[name] = (v, i)
        self.membranes.setdefault(name, []).append(v)
        return np.asarray(out)


def _fixed_shape(node: Any) -> tuple[int, ...] | None:
    """Return the shape that a neuron or output has whatever feeds it, None for an operator."""
    kind = type(node).__name__
    if kind == "Output":
        return tuple(int(n) for n in node.output_type["output"])
    if kind in ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF"):
        return tuple(np.shape(node.r))
    return tuple(np.shape(node.threshold)) if kind == "Threshold" else None


def _affine(node: Any, x: Array) -> Array:
    y = x.reshape(len(x), -1) @ np.asarray(node.weight, np.float64).T
    return np.asarray(y + node.bias if hasattr(node, "bias") else y)


def _windows(x: Array, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Array:
    """Return (samples, C, H', W', kH, kW) of an image (samples, C, H, W)."""
    kernel, stride, dilation = (np.broadcast_to(v, 2) for v in (kernel, stride, dilation))
    if isinstance(padding, str):
        extra = dilation * (kernel - 1) if padding == "same" else np.zeros(2, int)
        sides = [(int(e // 2), int(e - e // 2)) for e in extra]
    else:
        sides = [(int(p), int(p)) for p in np.broadcast_to(padding, 2)]
    x = np.pad(x, ((0, 0), (0, 0), *sides))
    reach = tuple(int(d * (k - 1) + 1) for d, k in zip(dilation, kernel, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))
    (sy, sx), (dy, dx) = stride, dilation
    return view[:, :, ::sy, ::sx, ::dy, ::dx]


def _conv2d(node: Any, x: Array) -> Array:
    weight = np.asarray(node.weight, np.float64)
    groups = int(np.asarray(node.groups).reshape(-1)[0])
    view = _windows(x, weight.shape[2:], node.stride, node.padding, node.dilation)
    view = view.reshape(len(x), groups, -1, *view.shape[2:])
    weight = weight.reshape(groups, -1, *weight.shape[1:])
    y = np.einsum("goikl,ngiyxkl->ngoyx", weight, view, optimize=True)
    y = y.reshape(len(x), -1, *y.shape[3:])
    return np.asarray(y + np.asarray(node.bias)[:, None, None])


def _one(value: Any) -> int:
    return int(np.asarray(value).reshape(-1)[0])


def _conv1d(node: Any, x: Array) -> Array:
    """Return a Conv1d as a Conv2d of one row."""
    named = isinstance(node.padding, str)
    image = SimpleNamespace(
        weight=node.weight[:, :, None],
        bias=node.bias,
        groups=node.groups,
        stride=(1, _one(node.stride)),
        dilation=(1, _one(node.dilation)),
        padding=node.padding if named else (0, _one(node.padding)),
    )
    return _conv2d(image, x[:, :, None])[:, :, 0]


def _sum_pool(node: Any, x: Array) -> Array:
    return np.asarray(_windows(x, node.kernel_size, node.stride, node.padding, 1).sum((4, 5)))


def _avg_pool(node: Any, x: Array) -> Array:
    return np.asarray(_windows(x, node.kernel_size, node.stride, node.padding, 1).mean((4, 5)))


_OPERATORS = {
    "Affine": _affine,
    "Linear": _affine,
    "Scale": lambda node, x: x * node.scale,
    "Flatten": lambda node, x: x.reshape(len(x), -1),
    "Conv1d": _conv1d,
    "Conv2d": _conv2d,
    "SumPool2d": _sum_pool,
    "AvgPool2d": _avg_pool,
}
