"""A folded network as a torch module: torch's layers, a framework's neurons, our wiring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from snn_deploy.bridges.torch_layers import current_synapse, layer_of
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.network import MEMBRANE_READOUTS, Network, Population, Projection
from snn_deploy.ir.schedule import schedule


class Cell(Protocol):
    """A population's module."""

    def start(self, batch: int, dtype: torch.dtype) -> Any:
        """Return the state before step 0."""

    def __call__(self, current: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return the output of a step, (batch, *shape), and the new state."""

    def membrane(self, state: Any) -> Tensor | None:
        """Return v after the reset, or None where the framework shows another quantity."""


#: Makes a population's cell; UnsupportedError, located, where the framework has no equation.
CellMaker = Callable[[Network, Population], nn.Module]


@dataclass(slots=True)
class Recording:
    """What a run left behind: by population, one tensor (batch, *shape) per step."""

    outputs: dict[str, list[Tensor]] = field(default_factory=dict)
    membranes: dict[str, list[Tensor]] = field(default_factory=dict)


class NetworkModule(nn.Module):  # type: ignore[misc]
    """Runs a folded Network step by step. Weights and biases are parameters, pruned ones stay 0.

    layers and cells go by projection and population, "." replaced by "_".
    """

    def __init__(self, network: Network, make_cell: CellMaker) -> None:
        super().__init__()
        self.network = network
        self._plan = schedule(network)
        names = [p.name for p in network.populations] + [p.name for p in network.projections]
        self._keys = _keys(names)
        self.cells = nn.ModuleDict(
            {self._keys[p.name]: make_cell(network, p) for p in network.computing()}
        )
        self.layers = nn.ModuleDict()
        for projection in network.projections:
            if min(np.shape(projection.delay_steps), default=1) > 1:
                raise UnsupportedError(
                    "a delay per synapse has no torch layer",
                    where=network.where(projection.name),
                    hint="use one delay per source or target neuron",
                )
            parts = [layer_of(s) for s in projection.synapses]
            self.layers[self._keys[projection.name]] = nn.Sequential(*parts)

    def forward(
        self, x: Tensor | Mapping[str, Tensor], recording: Recording | None = None
    ) -> Tensor:
        """Return the outputs' spikes, or membranes for a membrane readout, (steps, batch, n).

        x: (steps, batch, *shape), or one such tensor per input name. recording: filled with what
        every population did.
        """
        network = self.network
        given = x if isinstance(x, Mapping) else {network.inputs[0]: x}
        first = next(iter(given.values()))
        steps, batch = first.shape[:2]
        dtype = next((p.dtype for p in self.parameters()), first.dtype)
        states = {p.name: self._cell(p.name).start(batch, dtype) for p in network.computing()}
        past: dict[str, list[Tensor]] = {p.name: [] for p in network.populations}
        read: list[Tensor] = []
        membrane = network.readout.kind in MEMBRANE_READOUTS
        for t in range(steps):
            for name in self._plan.order:
                if name in given:
                    past[name].append(given[name][t].to(dtype))
                    continue
                shape = (batch, *network.shapes[name])
                current = torch.zeros(shape, dtype=dtype)
                for projection in network.into(name):
                    current = current + self._arriving(projection, past, t).reshape(shape)
                out, states[name] = self._cell(name)(current, states[name])
                past[name].append(out)
            outputs = [self._read(n, past, states, membrane) for n in network.outputs]
            read.append(torch.cat([o.reshape(batch, -1) for o in outputs], 1))
            if recording is not None:
                self._record(recording, past, states)
        return torch.stack(read)

    def _cell(self, name: str) -> Any:
        return self.cells[self._keys[name]]

    def _read(
        self, name: str, past: Mapping[str, list[Tensor]], states: Mapping[str, Any], membrane: bool
    ) -> Tensor:
        if not membrane or name not in states:
            return past[name][-1]
        value = self._cell(name).membrane(states[name])
        if value is None:
            raise UnsupportedError(
                "this framework does not show the membrane that the readout asks for",
                where=self.network.where(name),
                hint="use a count readout, or another framework",
            )
        return value

    def _record(
        self, recording: Recording, past: Mapping[str, list[Tensor]], states: Mapping[str, Any]
    ) -> None:
        for name, values in past.items():
            recording.outputs.setdefault(name, []).append(values[-1])
            if name in states and (v := self._cell(name).membrane(states[name])) is not None:
                recording.membranes.setdefault(name, []).append(v)

    def _arriving(self, projection: Projection, past: dict[str, list[Tensor]], t: int) -> Tensor:
        """Return what a projection adds at step ``t``."""
        layer = self.layers[self._keys[projection.name]]
        source = past[projection.pre]
        late = self._plan.feedback[projection.name]
        shape = self.network.shapes[projection.pre]

        def sent(steps: int) -> Tensor:
            if steps <= t:
                return source[t - steps]
            like = next(iter(v[-1] for v in past.values() if v))
            return torch.zeros((like.shape[0], *shape), dtype=like.dtype)

        delay = np.asarray(projection.delay_steps)
        if delay.ndim == 0:
            return layer(sent(int(delay) + late))  # type: ignore[no-any-return]
        if delay.shape[0] == 1:  # by source: the values that leave now
            mixed = torch.zeros_like(sent(late))
            for steps in np.unique(delay):
                here = torch.from_numpy((delay == steps).reshape(shape))
                mixed = torch.where(here, sent(int(steps) + late), mixed)
            return layer(mixed)  # type: ignore[no-any-return]
        total: Tensor | None = None
        for steps in np.unique(delay):  # by target: the rows that arrive now
            value = layer(sent(int(steps) + late)).flatten(1)
            here = torch.from_numpy((delay == steps).reshape(-1))
            total = torch.where(here, value, torch.zeros_like(value) if total is None else total)
        assert total is not None
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
