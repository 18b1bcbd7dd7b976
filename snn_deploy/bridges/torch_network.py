"""A folded network as a torch module: torch's layers, a framework's neurons, our wiring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from snn_deploy.bridges.torch_layers import current_synapse, layer_of, matrix_layer
from snn_deploy.engine.loop import by_input
from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.ir.network import MEMBRANE_READOUTS, Network, Population, Projection
from snn_deploy.ir.schedule import schedule
from snn_deploy.ir.synapses import Csr, Dense


class Cell(Protocol):
    """A population's module."""

    def start(self, zeros: Tensor) -> Any:
        """Return the state before step 0. zeros: (batch, *shape), of the run's dtype and device."""

    def __call__(self, current: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return the output of a step, (batch, *shape), and the new state."""

    def membrane(self, state: Any) -> Tensor | None:
        """Return v after the reset, or None where the framework shows another quantity."""


#: Makes a population's cell; UnsupportedError, located, where the framework has no equation.
CellMaker = Callable[[Network, Population], nn.Module]

#: By population, what it put out at the steps that are still read.
_Past = dict[str, dict[int, Tensor]]


@dataclass(slots=True)
class Recording:
    """What a run left behind: by population, one tensor (batch, *shape) per step."""

    outputs: dict[str, list[Tensor]] = field(default_factory=dict)
    membranes: dict[str, list[Tensor]] = field(default_factory=dict)


class NetworkModule(nn.Module):  # type: ignore[misc]
    """Runs a folded Network step by step. Weights and biases are parameters, pruned ones stay 0.

    layers and cells go by projection and population, "." replaced by "_". It moves between
    devices and dtypes as every torch module does.
    """

    def __init__(self, network: Network, make_cell: CellMaker) -> None:
        super().__init__()
        self.network = network
        self._plan = schedule(network)
        names = [p.name for p in network.populations] + [p.name for p in network.projections]
        self._keys = _keys(names)
        # What runs, even where there is no parameter: zeros are made like this one.
        self.register_buffer("_zero", torch.zeros((), dtype=torch.float64), persistent=False)
        self.cells = nn.ModuleDict(
            {self._keys[p.name]: make_cell(network, p) for p in network.computing()}
        )
        self.layers = nn.ModuleDict()
        for projection in network.projections:
            parts = [layer_of(s) for s in projection.synapses]
            if _delays_synapses(projection) and not _is_matrix(projection):
                raise UnsupportedError(
                    "a delay per synapse has no torch layer but a matrix",
                    where=network.where(projection.name),
                    hint="use one delay per source or target neuron",
                )
            self.layers[self._keys[projection.name]] = nn.Sequential(*parts)

    def forward(
        self, x: Tensor | Mapping[str, Tensor], recording: Recording | None = None
    ) -> Tensor:
        """Return the outputs' spikes, or membranes for a membrane readout, (steps, batch, n).

        x: (steps, batch, *shape), or one such tensor per input name. recording: filled with what
        every population did. Raises InputError for another shape.
        """
        given = by_input(self.network, x)
        steps, batch = self._check_inputs(given)
        with parametrize.cached():  # masks the weights once, not at every step
            return self._run(given, steps, batch, recording)

    def _run(
        self, given: Mapping[str, Tensor], steps: int, batch: int, recording: Recording | None
    ) -> Tensor:
        network = self.network
        zeros = {
            p.name: self._zero.expand(batch, *network.shapes[p.name]) for p in network.populations
        }
        states = {p.name: self._cell(p.name).start(zeros[p.name]) for p in network.computing()}
        past: _Past = {p.name: {} for p in network.populations}
        waits = self._longest_waits()
        read: list[Tensor] = []
        membrane = network.readout.kind in MEMBRANE_READOUTS
        for t in range(steps):
            for name in self._plan.order:
                if name in given:
                    past[name][t] = given[name][t].to(self._zero)
                    continue
                current = zeros[name]
                for projection in network.into(name):
                    arriving = self._arriving(projection, past, zeros[projection.pre], t)
                    current = current + arriving.reshape(current.shape)
                past[name][t], states[name] = self._cell(name)(current, states[name])
            outputs = [self._read(n, past[n][t], states, membrane) for n in network.outputs]
            read.append(torch.cat([o.reshape(batch, -1) for o in outputs], 1))
            if recording is not None:
                self._record(recording, {name: values[t] for name, values in past.items()}, states)
            for name, values in past.items():
                values.pop(t - waits[name], None)
        return torch.stack(read)

    def _check_inputs(self, given: Mapping[str, Tensor]) -> tuple[int, int]:
        """Return (steps, batch)."""
        if extra := set(given) - set(self.network.inputs):
            raise InputError(
                f"the network has no input {sorted(extra)[0]!r}",
                hint=f"its inputs: {', '.join(self.network.inputs)}",
            )
        lengths = {tuple(values.shape[:2]) for values in given.values()}
        for name in self.network.inputs:
            wanted = self.network.shapes[name]
            found = tuple(given[name].shape) if name in given else ()
            if found[2:] != wanted or len(found) < 2 or len(lengths) > 1:
                raise InputError(
                    "the input does not fit the network",
                    where=self.network.where(name),
                    used=f"{found or 'none'}, for (steps, batch, *{wanted})",
                    hint="steps come first; give one tensor per input name where there are several",
                )
        return lengths.pop()

    def _longest_waits(self) -> dict[str, int]:
        """Return for how many steps each population's output is still read."""
        return {
            p.name: max(
                (
                    int(np.max(q.delay_steps)) + self._plan.feedback[q.name]
                    for q in self.network.out_of(p.name)
                ),
                default=0,
            )
            for p in self.network.populations
        }

    def _cell(self, name: str) -> Any:
        return self.cells[self._keys[name]]

    def _read(self, name: str, output: Tensor, states: Mapping[str, Any], membrane: bool) -> Tensor:
        if not membrane or name not in states:
            return output
        value = self._cell(name).membrane(states[name])
        if value is None:
            raise UnsupportedError(
                "this framework does not show the membrane that the readout asks for",
                where=self.network.where(name),
                hint="use a count readout, or another framework",
            )
        return value

    def _record(
        self, recording: Recording, outputs: Mapping[str, Tensor], states: Mapping[str, Any]
    ) -> None:
        for name, value in outputs.items():
            recording.outputs.setdefault(name, []).append(value)
            if name in states and (v := self._cell(name).membrane(states[name])) is not None:
                recording.membranes.setdefault(name, []).append(v)

    def _arriving(self, projection: Projection, past: _Past, zeros: Tensor, t: int) -> Tensor:
        """Return what a projection adds at step ``t``; its biases act from the first step on."""
        layer = self.layers[self._keys[projection.name]]
        late = self._plan.feedback[projection.name]

        def sent(steps: int) -> Tensor:
            return past[projection.pre].get(t - steps - late, zeros)

        delay = np.asarray(projection.delay_steps)
        if delay.ndim == 0:
            return layer(sent(int(delay)))  # type: ignore[no-any-return]
        each = {int(d): torch.from_numpy(delay == d).to(zeros.device) for d in np.unique(delay)}
        if _delays_synapses(projection):
            linear = matrix_layer(layer)
            parts = [F.linear(sent(d).flatten(1), linear.weight * here) for d, here in each.items()]
            total = sum(parts[1:], parts[0])
            return total if linear.bias is None else total + linear.bias
        if delay.shape[0] == 1:  # by source: the values that leave now
            mixed = zeros
            for d, here in each.items():
                mixed = torch.where(here.reshape(zeros.shape[1:]), sent(d), mixed)
            return layer(mixed)  # type: ignore[no-any-return]
        rows = [(layer(sent(d)).flatten(1), here.reshape(-1)) for d, here in each.items()]
        total = rows[0][0]
        for value, here in rows[1:]:  # by target: the rows that arrive now
            total = torch.where(here, value, total)
        return total

    def to_network(self) -> Network:
        """Return the network with the weights and biases that the module has now."""
        projections = tuple(
            replace(
                projection,
                synapses=tuple(
                    current_synapse(synapse, layer)
                    for synapse, layer in zip(
                        projection.synapses, self.layers[self._keys[projection.name]], strict=True
                    )
                ),
            )
            for projection in self.network.projections
        )
        return replace(self.network, projections=projections)


def _delays_synapses(projection: Projection) -> bool:
    return min(np.shape(projection.delay_steps), default=1) > 1


def _is_matrix(projection: Projection) -> bool:
    return len(projection.synapses) == 1 and isinstance(projection.synapses[0], Dense | Csr)


def _keys(names: list[str]) -> dict[str, str]:
    """Return names as torch allows them for modules, each different."""
    keys: dict[str, str] = {}
    for name in names:
        key = base = name.replace(".", "_") or "_"
        count = 2
        while key in keys.values() or hasattr(nn.ModuleDict, key):
            key, count = f"{base}_{count}", count + 1
        keys[name] = key
    return keys
