"""Rate conversion: a dense network with rectifiers becomes spiking neurons of the same rates.

A rectifier becomes an integrate-and-fire neuron that subtracts its threshold t where it fires.
Driven by a constant current x, it fires at the rate clip(x, 0, t)/t up to one spike in T steps, so
spikes of amplitude t stand for the activation; the amplitude goes into the weights that read them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from snn_deploy.errors import InputError, UnsupportedError, UsageError
from snn_deploy.frontends.ann import (
    Activation,
    AnnGraph,
    AnnNode,
    evaluate,
    is_max_pool,
    per_channel,
)
from snn_deploy.io.build import build
from snn_deploy.io.graph import Node, OpGraph, SnnDeployWarning
from snn_deploy.ir.arrays import Array, frozen
from snn_deploy.ir.check import check
from snn_deploy.ir.network import Coding, Network, Readout, Source
from snn_deploy.ir.neurons import IF, Integrator
from snn_deploy.ir.synapses import Diagonal

#: Activations of a layer that percentiles are taken of; of more, a sample of so many.
MOST_KEPT = 2**24
#: Values of the largest layer that are computed at a time.
_AT_A_TIME = 2**22


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How a network is converted.

    percentile: of a layer's positive activations, its threshold. per_channel: a threshold for each
    channel. steps: T. start: the membrane before step 0, in thresholds; 1/2 turns rounding down
    into rounding to the nearest, 0 is the older custom. coding: "direct" or "rate", of values in
    0..1, for targets that take spikes alone.
    """

    percentile: float = 99.9
    per_channel: bool = False
    steps: int = 32
    dt_s: float = 1e-3
    start: float = 0.5
    coding: Literal["direct", "rate"] = "direct"

    def __post_init__(self) -> None:
        _in_range(0 < self.percentile <= 100, "percentile", self.percentile, "above 0, up to 100")
        _in_range(self.steps >= 1, "steps", self.steps, "1 or more")
        _in_range(0 < self.dt_s < float("inf"), "dt_s", self.dt_s, "seconds, above 0")
        _in_range(0 <= self.start < 1, "start", self.start, "0 up to, not including, 1")
        if self.coding not in ("direct", "rate"):
            raise UsageError(f"coding {self.coding!r} is none", hint="coding is direct or rate")


def _in_range(good: bool, name: str, value: float, allowed: str) -> None:
    if not good:
        raise UsageError(f"{name} {value:g} is out of range", hint=f"{name} is {allowed}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConvertedLayer:
    """How one activation became spikes.

    rule: "percentile", "learned" (quantised activations) or "bound" (a clip without data).
    threshold: one value, or one per channel. levels: of a quantised activation. clipped: share of
    the positive calibration activations above the threshold, None without data.
    """

    name: str
    neurons: int
    rule: str
    threshold: Array
    levels: int | None
    clipped: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "name": self.name,
            "neurons": self.neurons,
            "rule": self.rule,
            "threshold": np.asarray(self.threshold).tolist(),
            "levels": self.levels,
            "clipped": self.clipped,
        }


def thresholds(
    graph: AnnGraph, rates: Rates, calibration: Array | None
) -> tuple[ConvertedLayer, ...]:
    """Return each activation's threshold.

    Quantised activations bring theirs (Bu et al., ICLR 2022). Others get the percentile of what
    they do on ``calibration`` (samples, *shape) (data-based normalisation: Diehl et al., IJCNN
    2015; the percentile: Rueckauer et al., Front. Neurosci. 11:682, 2017); a channel that is never
    active gets its layer's. A clip without data gets its bound. Raises UsageError where data are
    needed and missing, InputError where a layer is never active.
    """
    seen = {} if calibration is None else _positive(graph, calibration)
    return tuple(_layer(node, rates, seen) for node in graph.activations())


def _layer(node: AnnNode, rates: Rates, seen: Mapping[str, list[Array]]) -> ConvertedLayer:
    value = node.value
    assert isinstance(value, Activation)
    channels = seen.get(node.name)
    if value.levels is not None:
        rule, threshold = "learned", value.upper
    elif channels is not None:
        rule, threshold = "percentile", _percentile(node, channels, rates)
    elif value.upper is not None:
        rule, threshold = "bound", value.upper
    else:
        raise UsageError(
            "an unbounded rectifier has no threshold of its own",
            where=node.name,
            hint="give calibration data: --calibrate X.npz, or calibration=x in Python",
        )
    assert threshold is not None
    clipped = None
    if channels is not None and (total := sum(c.size for c in channels)):
        limits = np.broadcast_to(threshold, len(channels))
        above = sum(int((c > t).sum()) for c, t in zip(channels, limits, strict=True))
        clipped = above / total
    return ConvertedLayer(
        name=node.name,
        neurons=int(np.prod(node.shape)),
        rule=rule,
        threshold=frozen(threshold, np.float64),
        levels=value.levels,
        clipped=clipped,
    )


def _percentile(node: AnnNode, channels: list[Array], rates: Rates) -> Array:
    everything = np.concatenate(channels)
    if not everything.size:
        raise InputError(
            "this layer is never active on the calibration data",
            where=node.name,
            hint="calibrate with data that the network was trained on, scaled as it was then",
        )
    whole = np.percentile(everything, rates.percentile)
    if not rates.per_channel:
        return np.asarray(whole)
    return np.array([np.percentile(c, rates.percentile) if c.size else whole for c in channels])


def _positive(graph: AnnGraph, x: Array) -> dict[str, list[Array]]:
    """Return by activation, for each channel, its positive values: all, or a fixed sample."""
    chance = np.random.default_rng(0)
    parts: dict[str, list[list[Array]]] = {
        node.name: [[] for _ in range(node.shape[0])] for node in graph.activations()
    }
    for batch in batches(graph, x):
        for node, read, value in evaluate(graph, batch):
            if not isinstance(node.value, Activation):
                continue
            # What a quantised activation clips is seen before it only.
            values = value if node.value.levels is None else read.reshape(value.shape)
            share = MOST_KEPT / (len(x) * float(np.prod(node.shape)))
            for channel, kept in enumerate(parts[node.name]):
                line = values[:, channel].reshape(-1)
                line = line[line > 0]
                if share < 1:
                    line = line[chance.random(line.size) < share]
                kept.append(line.astype(np.float32))
    return {name: [np.concatenate(c) for c in channels] for name, channels in parts.items()}


def batches(graph: AnnGraph, x: Array) -> Iterator[Array]:
    """Yield ``x`` in parts of which all layers fit in memory."""
    largest = max(int(np.prod(node.shape)) for node in graph.nodes.values())
    size = max(1, min(64, _AT_A_TIME // largest))
    for start in range(0, len(x), size):
        yield x[start : start + size]


def to_network(
    graph: AnnGraph, layers: tuple[ConvertedLayer, ...], rates: Rates, source: Source
) -> Network:
    """Return the spiking network of a dense one, with each activation's threshold in ``layers``.

    Max pools pool spikes: they must stand behind an activation (see pools_behind_activations).

    Input is direct, the same values at every step, or rate coded. The scores are sums over the
    steps, T times the dense network's: an Integrator of gain 1 per step, read at the last.
    """
    result = _Spiking(graph, {layer.name: layer.threshold for layer in layers}, rates).graph
    network = build(
        result,
        dt_s=rates.dt_s,
        readout=Readout(kind="last"),
        coding=Coding(kind=rates.coding, steps=rates.steps),
        source=source,
    )
    return check(network)


class _Spiking:
    """The operator graph of the spiking network."""

    def __init__(self, graph: AnnGraph, threshold: Mapping[str, Array], rates: Rates) -> None:
        self._threshold, self._rates = threshold, rates
        self.graph = OpGraph()
        # By dense node: the spiking graph's nodes whose sum it is.
        self._values: dict[str, tuple[str, ...]] = {}
        # By dense node that puts out spikes: their amplitude.
        self._amplitude: dict[str, Array] = {}
        self._shapes = {node.name: node.shape for node in graph.nodes.values()}
        for node in graph.nodes.values():
            self._add(node)
        self._connect(
            Node(
                name=self._fresh("scores"),
                kind="neuron",
                value=Integrator(r=np.array(1.0 / rates.dt_s)),
                shape=(int(np.prod(self._shapes[graph.output])),),
            ),
            self._read(graph.output),
        )
        scores = next(reversed(self.graph.nodes))
        self._connect(Node(name=self._fresh("output"), kind="output"), (scores,))

    def _fresh(self, name: str) -> str:
        taken, wanted, count = {*self.graph.nodes, *self._shapes}, name, 2
        while name in taken:
            name, count = f"{wanted}_{count}", count + 1
        return name

    def _connect(self, node: Node, sources: tuple[str, ...]) -> None:
        self.graph.add(node)
        self.graph.edges.extend((source, node.name) for source in sources)

    def _add(self, node: AnnNode) -> None:
        name = node.name
        if not node.inputs:
            self.graph.add(Node(name=name, kind="input", shape=node.shape))
        elif node.value is None:
            self._values[name] = tuple(s for i in node.inputs for s in self._read(i))
            return
        elif isinstance(node.value, Activation):
            self._neuron(node, node.value)
        elif is_max_pool(node):
            before = node.inputs[0]
            if before not in self._amplitude:
                raise UnsupportedError(
                    "max pooling is exact on spikes only, and here it pools other values",
                    where=name,
                    hint="let a rectifier stand right before or right behind the pool, or use "
                    "average pooling",
                )
            warnings.warn(
                f"max pooling {name} becomes the maximum of spikes in each step, which is above "
                "the maximum of rates; average pooling converts exactly",
                SnnDeployWarning,
                2,
            )
            self._connect(Node(name=name, kind="operator", value=node.value), self._values[before])
            self._amplitude[name] = self._amplitude[before]
        else:
            sources = self._read(node.inputs[0])
            self._connect(Node(name=name, kind="operator", value=node.value), sources)
        self._values[name] = (name,)

    def _neuron(self, node: AnnNode, value: Activation) -> None:
        threshold = self._threshold[node.name]
        neuron = IF(
            r=np.array(1.0),
            # The methods fire at v >= t, our neurons at v > threshold.
            v_threshold=np.nextafter(threshold, 0.0),
            v_reset=np.array(0.0),
            reset="subtract",
            reset_amount=threshold,
            v_init=self._rates.start * threshold,
        )
        sources = tuple(s for i in node.inputs for s in self._read(i))
        self._connect(Node(name=node.name, kind="neuron", value=neuron, shape=node.shape), sources)
        amplitude = value.amplitude if value.levels is not None else None
        self._amplitude[node.name] = threshold if amplitude is None else amplitude

    def _read(self, name: str) -> tuple[str, ...]:
        """Return what a reader of ``name`` is connected to: spikes with their amplitude."""
        if name not in self._amplitude:
            return self._values[name]
        scaled = f"{name}.amplitude"
        if scaled not in self.graph.nodes:
            scale = per_channel(self._amplitude[name], self._shapes[name])
            node = Node(name=scaled, kind="operator", value=Diagonal(scale=frozen(scale)))
            self._connect(node, self._values[name])
        return (scaled,)
