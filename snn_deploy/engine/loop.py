"""The loop that the event and the integer engine share: who is evaluated when, on what.

Feed-forward networks run layer by layer over all steps (one product per projection, then a
scan); a network with feedback runs step by step. Both give the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, TypeVar

import numpy as np

from snn_deploy.engine.operators import Operator, chain_matrix, split_delays
from snn_deploy.errors import InputError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import MEMBRANE_READOUTS, Network
from snn_deploy.ir.schedule import schedule
from snn_deploy.ir.synapses import Shape
from snn_deploy.ir.trace import Trace

Record = Literal["output", "spikes", "states"]


class Cell(Protocol):
    """One population's state for a batch of samples."""

    variables: tuple[str, ...]

    def step(self, current: Array) -> Array:
        """Advance by a step and return the output values; current: (samples, n), all fan-ins."""

    def state(self, variable: str) -> Array:
        """Return "v" (after reset) or "u", (samples, n)."""


#: Makes a population's cell, by its name, for a number of samples.
CellFactory = Callable[[str, int], Cell]


Inputs = Array | Mapping[str, Array]
T = TypeVar("T")


def by_input(network: Network, x: T | Mapping[str, T]) -> Mapping[str, T]:
    """Return values by input name; what is no mapping belongs to the only input."""
    return x if isinstance(x, Mapping) else {network.inputs[0]: x}


def only_input(network: Network, x: Inputs) -> Array:
    """Return the values of the network's only input; InputError where it has several."""
    return by_input(network, x)[network.input_population.name]


def check_input(network: Network, x: Inputs) -> dict[str, Array]:
    """Return each input population's values as (samples, steps, n).

    x: (samples, steps, *shape), or one such array per input name where there are several. Raises
    InputError where a shape is not the network's, or samples and steps differ.
    """
    if not isinstance(x, Mapping):
        return {network.inputs[0]: _flat(x, network.input_population.shape)}
    if sorted(x) != sorted(network.inputs):
        raise InputError(
            "the arrays are not those of the network's inputs",
            used=f"{', '.join(sorted(x))}; the network has {', '.join(network.inputs)}",
            hint="give one array per input, under the input's name",
        )
    flat = {name: _flat(x[name], network.shapes[name]) for name in network.inputs}
    if len({values.shape[:2] for values in flat.values()}) > 1:
        raise InputError(
            "the inputs have different numbers of samples or steps",
            used=", ".join(f"{name} {values.shape[:2]}" for name, values in flat.items()),
            hint="cut all inputs to the same samples and steps",
        )
    return flat


def _flat(x: Array, shape: Shape) -> Array:
    if x.ndim != len(shape) + 2 or tuple(x.shape[2:]) != shape:
        raise InputError(
            f"input has shape {tuple(x.shape)}, the network takes (samples, steps, "
            + ", ".join(map(str, shape))
            + ")",
            hint="store x as (samples, steps, *shape), or encode static samples first",
        )
    if x.shape[1] < 1:
        raise InputError("input has no time steps", used="T = 0", hint="at least one step")
    if x.shape[0] < 1:
        raise InputError("input has no samples")
    return x.reshape(*x.shape[:2], -1)


class Loop:
    """A network made ready once; ``run`` it on many batches."""

    def __init__(self, network: Network, make_cell: CellFactory) -> None:
        self.network = network
        self.make_cell = make_cell
        self.plan = schedule(network)
        self.operators: dict[str, list[tuple[int, Operator]]] = {}
        for projection in network.projections:
            parts = split_delays(chain_matrix(network, projection), projection.delay_steps)
            late = self.plan.feedback[projection.name]
            self.operators[projection.name] = [(d + late, Operator(m)) for d, m in parts]
        self._recurrent = any(self.plan.feedback.values())

    def run(self, x: Inputs, record: Record = "output") -> Trace:
        """Run samples (see check_input) from their initial state; returns a Trace."""
        values = check_input(self.network, x)
        simulate = self._stepwise if self._recurrent else self._layerwise
        return simulate(values, record)

    def _layerwise(self, x: dict[str, Array], record: Record) -> Trace:
        samples, steps, _ = next(iter(x.values())).shape
        book = Book(self.network, samples, steps, record)
        values: dict[str, Array] = dict(x)
        left = {p.name: len(self.network.out_of(p.name)) for p in self.network.populations}
        for name, given in x.items():
            book.keep(name, given)
        for name in self.plan.order:
            if name in self.network.inputs:
                continue
            arriving = []
            for projection in self.network.into(name):
                for delay, operator in self.operators[projection.name]:
                    arriving.append((operator, delayed(values[projection.pre], delay)))
            size = self.network.population(name).size
            current = np.zeros((samples, steps, size))
            for operator, late in arriving:
                flat = late.reshape(samples * steps, -1)
                current += operator.currents(flat).reshape(current.shape)
            cell = self.make_cell(name, samples)
            out: Array = np.empty((samples, steps, size), _dtype(self.network, name))
            for t in range(steps):
                out[:, t] = cell.step(current[:, t])
                book.note(name, t, cell)
            values[name] = out
            book.keep(name, out)
            for projection in self.network.into(name):
                left[projection.pre] -= 1
                if left[projection.pre] == 0:
                    del values[projection.pre]
        return book.trace()

    def _stepwise(self, x: dict[str, Array], record: Record) -> Trace:
        samples, steps, _ = next(iter(x.values())).shape
        book = Book(self.network, samples, steps, record)
        values: dict[str, Array] = {
            p.name: np.zeros((samples, steps, p.size), _dtype(self.network, p.name))
            for p in self.network.populations
        }
        values.update(x)
        cells = {p.name: self.make_cell(p.name, samples) for p in self.network.computing()}
        for t in range(steps):
            for name in self.plan.order:
                if name in self.network.inputs:
                    continue
                current = np.zeros((samples, self.network.population(name).size))
                for projection in self.network.into(name):
                    for delay, operator in self.operators[projection.name]:
                        if t >= delay:
                            current += operator.currents(values[projection.pre][:, t - delay])
                values[name][:, t] = cells[name].step(current)
                book.note(name, t, cells[name])
        for name, value in values.items():
            book.keep(name, value)
        return book.trace()


def _dtype(network: Network, name: str) -> type:
    return np.uint8 if network.step_of(name).threshold is not None else np.float64


def delayed(values: Array, delay: int) -> Array:
    """Return values (samples, steps, n) that come ``delay`` steps later, zeros before."""
    if delay == 0:
        return values
    late = np.zeros_like(values)
    late[:, delay:] = values[:, :-delay]
    return late


class Book:
    """Collects what a run was asked to record, and always the output and spike counts."""

    def __init__(self, network: Network, samples: int, steps: int, record: Record) -> None:
        self.network, self.samples, self.steps, self.record = network, samples, steps, record
        self.spikes: dict[str, Array] = {}
        self.counts: dict[str, Array] = {}
        self.states: dict[str, dict[str, Array]] = {}
        self.outputs: dict[str, Array] = {}
        self.membrane = network.readout.kind in MEMBRANE_READOUTS

    def note(self, name: str, t: int, cell: Cell) -> None:
        """Store a cell's states after a step where they were asked for."""
        if self.record == "states":
            wanted = cell.variables
        elif self.membrane and name in self.network.outputs:
            wanted = ("v",)
        else:
            return
        for variable in wanted:
            value = cell.state(variable)
            store = self.states.setdefault(name, {})
            if variable not in store:
                store[variable] = np.zeros((self.samples, self.steps, value.shape[1]), value.dtype)
            store[variable][:, t] = value

    def keep(self, name: str, values: Array) -> None:
        """Count a population's values (samples, steps, n), and store them."""
        self.counts[name] = np.count_nonzero(values, axis=(0, 1)).astype(np.int64)
        self.store(name, values)

    def store(self, name: str, values: Array) -> None:
        """Store a population's values where they were asked for."""
        if self.record != "output":
            self.spikes[name] = values
        if name in self.network.outputs and not self.membrane:
            self.outputs[name] = values

    def trace(self) -> Trace:
        """Return what was kept."""
        read = self.outputs
        if self.membrane:
            read = {name: self.states[name]["v"] for name in self.network.outputs}
        several = [read[name] for name in self.network.outputs]
        output = several[0] if len(several) == 1 else np.concatenate(several, axis=2)
        shapes: Mapping[str, tuple[int, ...]] = self.network.shapes
        lead = (self.samples, self.steps)
        states = self.states if self.record == "states" else {}
        return Trace(
            output=output,
            counts=self.counts,
            samples=self.samples,
            steps=self.steps,
            spikes={n: v.reshape(*lead, *shapes[n]) for n, v in self.spikes.items()},
            states={
                n: {k: v.reshape(*lead, *shapes[n]) for k, v in s.items()}
                for n, s in states.items()
            },
        )
