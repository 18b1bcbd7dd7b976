"""A network as one ONNX Scan over time; ``onnx_export`` is the way in."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from onnx import FunctionProto, ModelProto, TensorProto, ValueInfoProto, checker, helper

from snn_deploy._version import __version__
from snn_deploy.bridges.onnx_graph import IR_VERSION, OPSET, Graph, Names
from snn_deploy.bridges.onnx_layers import chain, dense, reshaped
from snn_deploy.bridges.onnx_neurons import (
    DOMAIN,
    Advanced,
    advance,
    function,
    function_name,
    states,
)
from snn_deploy.errors import UnsupportedError
from snn_deploy.io.values import readout_json
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.check import chain_shapes
from snn_deploy.ir.network import MEMBRANE_READOUTS, Network, Population, Projection, fitted
from snn_deploy.ir.neurons import Relay
from snn_deploy.ir.schedule import schedule
from snn_deploy.ir.synapses import Shape

METADATA_KEY = "snn_deploy"
#: Protocol buffers end here.
MOST_BYTES = 2**31 - 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """dtype: float32 or float64. record: what every population did as outputs."""

    dtype: Any
    record: bool


@dataclass(frozen=True, slots=True)
class _State:
    """A value that lives from step to step: its name before, its dims, its first value."""

    name: str
    dims: tuple[int | str, ...]
    start: str


class _Builder:
    """Fills the body (one step) and the outer graph (states' first values, the Scan)."""

    def __init__(self, network: Network, settings: Settings) -> None:
        self._network, self._settings = network, settings
        self._plan = schedule(network)
        self._constants: list[TensorProto] = []
        names = Names()
        # Inputs and outputs come first, so that they get the names that they are known by.
        self._inputs = {name: names.new(name) for name in network.inputs}
        self._outer = Graph(names, self._constants, settings.dtype)
        self._body = Graph(names, self._constants, settings.dtype)
        self._now: dict[str, str] = {}
        self._held: dict[str, dict[str, str]] = {}
        self._buffers: dict[str, str] = {}
        self._states: list[_State] = []
        self._after: list[str] = []
        self._functions: dict[str, FunctionProto] = {}

    def model(self) -> ModelProto:
        """Return the model, checked."""
        outputs = self._outputs()
        for name, (population, _) in outputs.items():
            if self._outer.names.new(name) != name:
                raise UnsupportedError(
                    f"an input and an output of the ONNX model would both be called {name!r}",
                    where=self._network.where(population.name),
                    hint=f"give the input {name!r} another name",
                )
        self._batch = self._outer.node(
            "Shape", [self._inputs[self._network.inputs[0]]], "batch", start=1, end=2
        )
        body = self._step(outputs)
        return self._assemble(body, outputs)

    def _outputs(self) -> dict[str, tuple[Population, str]]:
        """Return the model's outputs: name -> population, variable."""
        network = self._network
        membrane = network.readout.kind in MEMBRANE_READOUTS
        found: dict[str, tuple[Population, str]] = {}
        for name in network.outputs:
            spikes = not membrane and network.step_of(name).threshold is not None
            self._add(found, network.population(name), "z" if spikes else "v")
        for population in network.computing() if self._settings.record else ():
            step = network.step_of(population.name)
            if step.threshold is not None:
                self._add(found, population, "z")
            self._add(found, population, "v")
            if step.has_current:
                self._add(found, population, "u")
        return found

    def _add(
        self, found: dict[str, tuple[Population, str]], population: Population, variable: str
    ) -> None:
        found[f"{population.name}.{variable}"] = (population, variable)

    # One step.

    def _step(self, outputs: dict[str, tuple[Population, str]]) -> list[str]:
        """Fill the body; return the names of its inputs that are read step by step."""
        network, body = self._network, self._body
        read = []
        for name in network.inputs:
            self._now[name] = body.names.new(f"{name}.now")
            read.append(self._now[name])
        for population in network.computing():
            self._start(population)
        delays = {name: self._longest_delay(name) for name in network.shapes}
        for name, steps in delays.items():
            if steps:
                dims: tuple[int | str, ...] = (steps, "B", *network.shapes[name])
                start = self._expanded(f"{name}.nothing", np.zeros((1,) * len(dims)), dims)
                self._buffers[name] = self._state(f"{name}.past", dims, start)
        done = {name: Advanced(now, now, None) for name, now in self._now.items()}
        for name in self._plan.order:
            if name in network.inputs:
                continue
            population, step = network.population(name), network.step_of(name)
            if not isinstance(population.neuron, Relay):
                self._functions.setdefault(
                    function_name(population, step), function(population, step)
                )
            current = self._current(population)
            done[name] = advance(body, population, step, current, self._held[name])
            self._now[name] = done[name].z
        for population in network.computing():
            for variable in states(population, network.step_of(population.name)):
                self._after.append(self._held[population.name][variable])
        for name, steps in delays.items():
            if steps:
                self._after.append(self._pushed(name, steps))
        self._seen = [
            body.node("Identity", [getattr(done[p.name], variable)], f"{p.name}.{variable}.now")
            for p, variable in outputs.values()
        ]
        return read

    def _start(self, population: Population) -> None:
        """Declare a population's states."""
        step = self._network.step_of(population.name)
        self._held[population.name] = {}
        for variable in states(population, step):
            dims: tuple[int | str, ...] = ("B", *population.shape)
            first = step.v_init if variable == "v" else np.zeros(())
            value = fitted(first, population.shape)
            name = f"{population.name}.{variable}"
            start = self._expanded(f"{name}_init", value, dims)
            self._held[population.name][variable] = self._state(f"{name}.before", dims, start)

    def _state(self, name: str, dims: tuple[int | str, ...], start: str) -> str:
        name = self._body.names.new(name)
        self._states.append(_State(name, dims, start))
        return name

    def _expanded(self, name: str, value: Array, dims: tuple[int | str, ...]) -> str:
        """Return a value of ``dims`` in the outer graph; one of them is the batch."""
        at = dims.index("B")
        parts = [self._batch]
        before, after = [int(d) for d in dims[:at]], [int(d) for d in dims[at + 1 :]]
        if before:
            parts.insert(0, self._outer.integers(f"{name}.before", before))
        parts.append(self._outer.integers(f"{name}.after", after))
        shape = self._outer.node("Concat", parts, f"{name}.shape", axis=0)
        constant = self._outer.constant(f"{name}.value", value)
        return self._outer.node("Expand", [constant, shape], name)

    def _longest_delay(self, pre: str) -> int:
        longest = 0
        for projection in self._network.out_of(pre):
            late = self._plan.feedback[projection.name]
            longest = max(longest, int(np.max(projection.delay_steps)) + late)
        return longest

    def _pushed(self, name: str, steps: int) -> str:
        """Return a population's past with its newest value in front."""
        body, past = self._body, self._buffers[name]
        axis = body.integers(f"{name}.axis", (0,))
        newest = body.node("Unsqueeze", [self._now[name], axis], f"{name}.newest")
        if steps == 1:
            return newest
        start, end = body.integers(f"{name}.start", (0,)), body.integers(f"{name}.end", (-1,))
        kept = body.node("Slice", [past, start, end, axis], f"{name}.kept")
        return body.node("Concat", [newest, kept], f"{name}.next_past", axis=0)

    # Currents.

    def _current(self, population: Population) -> str:
        """Return the sum of what arrives, in the order of the projections."""
        arriving = [self._arriving(p) for p in self._network.into(population.name)]
        if not arriving:
            dims: tuple[int | str, ...] = ("B", *population.shape)
            zero = np.zeros((1,) * len(population.shape))
            return self._expanded(f"{population.name}.no_current", zero, dims)
        total = arriving[0]
        for more in arriving[1:]:
            total = self._body.node("Add", [total, more], f"{population.name}.current")
        return total

    def _sent(self, projection: Projection, steps: int) -> str:
        """Return the value that left ``steps`` ago, 0 for "now"."""
        if steps == 0:
            return self._now[projection.pre]
        body = self._body
        index = body.constant(f"{projection.name}.ago", steps - 1, np.int64)
        past = self._buffers[projection.pre]
        return body.node("Gather", [past, index], f"{projection.name}.sent", axis=0)

    def _arriving(self, projection: Projection) -> str:
        late = self._plan.feedback[projection.name]
        delay = np.asarray(projection.delay_steps)
        if delay.ndim == 0:
            return self._through(projection, self._sent(projection, int(delay) + late))
        if delay.shape[0] == 1:  # by source: the values that leave now
            shape = self._network.shapes[projection.pre]
            parts = [
                self._masked(projection, self._sent(projection, int(d) + late), delay == d, shape)
                for d in np.unique(delay)
            ]
            return self._through(projection, self._sum(projection, parts))
        if delay.shape[1] == 1:  # by target: the rows that arrive now
            shape = self._network.shapes[projection.post]
            parts = []
            for d in np.unique(delay):
                value = self._through(projection, self._sent(projection, int(d) + late))
                parts.append(self._masked(projection, value, delay == d, shape))
            return self._sum(projection, parts)
        return self._by_synapse(projection, delay, late)

    def _through(self, projection: Projection, value: str) -> str:
        return chain(self._body, self._network, projection, value)

    def _masked(self, projection: Projection, value: str, keep: Array, shape: Shape) -> str:
        mask = self._body.constant(f"{projection.name}.mask", keep.reshape(shape))
        return self._body.node("Mul", [value, mask], f"{projection.name}.masked")

    def _sum(self, projection: Projection, parts: list[str]) -> str:
        total = parts[0]
        for part in parts[1:]:
            total = self._body.node("Add", [total, part], f"{projection.name}.sum")
        return total

    def _by_synapse(self, projection: Projection, delay: Array, late: int) -> str:
        """Return what arrives where each synapse has a delay: one matrix per delay."""
        from snn_deploy.engine.operators import chain_bias, chain_matrix, split_delays

        network, body = self._network, self._body
        bias = chain_bias(network, projection)
        before, name = network.shapes[projection.pre], projection.name
        parts = []
        for steps, sparse in split_delays(chain_matrix(network, projection), delay):
            sent = self._sent(projection, steps + late)
            parts.append(dense(body, sparse.toarray(), bias, before, sent, name))
            bias = None  # a constant adds once
        total = self._sum(projection, parts)
        flat = (int(np.prod(chain_shapes(network, projection)[-1])),)
        return reshaped(body, total, flat, network.shapes[projection.post], name)

    # The whole.

    def _assemble(self, read: list[str], outputs: dict[str, tuple[Population, str]]) -> ModelProto:
        network = self._network
        body_inputs = [self._body.info(s.name, s.dims) for s in self._states]
        for name, value in zip(network.inputs, read, strict=True):
            body_inputs.append(self._body.info(value, ("B", *network.shapes[name])))
        body_outputs = [
            self._body.info(name, state.dims)
            for name, state in zip(self._after, self._states, strict=True)
        ]
        for name, (population, _) in zip(self._seen, outputs.values(), strict=True):
            body_outputs.append(self._body.info(name, ("B", *population.shape)))
        body = helper.make_graph(self._body.nodes, "step", body_inputs, body_outputs)

        given, left = [], []
        inputs: list[ValueInfoProto] = [
            self._outer.info(self._inputs[name], ("T", "B", *network.shapes[name]))
            for name in network.inputs
        ]
        results = [
            self._outer.info(name, ("T", "B", *population.shape))
            for name, (population, _) in outputs.items()
        ]
        for state in self._states:
            given.append(state.start)
            left.append(self._outer.names.new(f"{state.name}.last"))
        self._outer.nodes.append(
            helper.make_node(
                "Scan",
                [*given, *self._inputs.values()],
                [*left, *outputs],
                name="time",
                body=body,
                num_scan_inputs=len(read),
            )
        )
        graph = helper.make_graph(
            self._outer.nodes, "network", inputs, results, initializer=self._constants
        )
        model = helper.make_model(
            graph,
            functions=list(self._functions.values()),
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
            ir_version=IR_VERSION,
            producer_name="snn-deploy",
            producer_version=__version__,
        )
        helper.set_model_props(model, {METADATA_KEY: self._metadata()})
        return model

    def _metadata(self) -> str:
        network = self._network
        found = {
            "dt_s": network.dt_s,
            "readout": readout_json(network.readout),
            "coding": asdict(network.coding),
            "inputs": list(network.inputs),
            "outputs": list(network.outputs),
            "neurons": {p.name: type(p.neuron).__name__ for p in network.computing()},
        }
        return json.dumps(found, sort_keys=True)


def model_bytes(network: Network, settings: Settings) -> bytes:
    """Return the model of a folded network; the same network gives the same bytes."""
    model = _Builder(network, settings).model()
    size = sum(len(t.raw_data) for t in model.graph.initializer)
    if size > MOST_BYTES:
        raise UnsupportedError(
            "the network is larger than one ONNX file may be",
            where=network.source.path or None,
            used=f"{size:,} of {MOST_BYTES:,} bytes of weights",
            hint="ONNX holds zeros too: use float32, or fewer delays per synapse",
        )
    data: bytes = model.SerializeToString(deterministic=True)
    checker.check_model(data, full_check=True)
    return data
