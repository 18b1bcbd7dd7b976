"""Cores: what a device allows them, what they hold, and the mapping as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from snn_deploy.backends.loihi.axons import Axons, Box, Grid, Load
from snn_deploy.backends.loihi.program import LoihiPopulation
from snn_deploy.device.model import Device
from snn_deploy.device.usage import within
from snn_deploy.ir.arrays import Array

SCHEMA = 1
MESH_COLUMNS = 8
MESH_ROWS = 4


def limit(device: Device, key: str) -> float:
    """Return a limit of the device file, infinity where it names none."""
    found = device.limits.get(key)
    if found is None:
        return math.inf
    assert not isinstance(found.value, tuple), key
    return float(found.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """What neurons take of a core, or a core of what it has; infinity where it is not known."""

    neurons: float = 0
    synapses: float = 0
    synapse_bits: float = 0
    in_axons: float = 0
    out_axons: float = 0
    compartment_configs: float = 0
    threshold_configs: float = 0
    synapse_formats: float = 0

    def share(self, of: Amounts) -> float:
        """Return the largest share of ``of``; at most 1 fits."""
        pairs = ((getattr(self, f.name), getattr(of, f.name)) for f in fields(self))
        return max(used / allowed if allowed else math.inf for used, allowed in pairs if used)


def core_limits(device: Device, margin: float = 0.0) -> Amounts:
    """Return what a core holds, less the margin: a share of each limit, 0 <= margin < 1.

    Of a device without limits of a core, an even share of what its file states for the chip: a
    choice that keeps cores alike, not a limit.
    """
    cores = limit(device, "cores_per_chip")
    neurons = limit(device, "neurons_per_core")
    if math.isinf(neurons):
        neurons = _even(limit(device, "neurons_per_chip"), cores)
    synapses = math.inf
    if "synapse_bits_per_core" not in device.limits:
        synapses = _even(limit(device, "synapses_per_chip"), cores)
    limits = {
        "neurons": neurons,
        "synapses": synapses,
        "synapse_bits": limit(device, "synapse_bits_per_core"),
        "in_axons": limit(device, "in_axons_per_core"),
        "out_axons": limit(device, "out_axons_per_core"),
        "compartment_configs": limit(device, "compartment_configs_per_core"),
        "threshold_configs": limit(device, "threshold_configs_per_core"),
        "synapse_formats": limit(device, "synapse_formats_per_core"),
    }
    allowed = {k: v if math.isinf(v) else within(v, margin) for k, v in limits.items()}
    # A list names compartments by index, so there are no more than indices.
    allowed["neurons"] = min(allowed["neurons"], 2 ** limit(device, "index_bits"))
    return Amounts(**allowed)


def _even(total: float, parts: float) -> float:
    return total if math.isinf(total) or math.isinf(parts) else total // parts


def compartment_configs(population: LoihiPopulation) -> int | Array:
    """Return a number per pair of decays, of all neurons (n,) or one for all of them."""
    code: int | Array = (population.du + 1) * 4097 + population.dv
    return code


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slice:
    """Neurons of one population on a core: a box of its grid.

    neurons: in the order of their compartments. loads: of the synapses that end here, by name.
    """

    population: str
    box: Box
    neurons: Array
    loads: Mapping[str, Load]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Core:
    """One core. index: tile x cores per tile + place on the tile, where tiles are known."""

    index: int
    tile: int | None
    slices: tuple[Slice, ...]
    used: Amounts

    @property
    def layers(self) -> tuple[tuple[str, int], ...]:
        """Return (synapses, bits) of everything stored here; slices of a population add up."""
        found: dict[str, int] = {}
        for part in self.slices:
            for name, load in part.loads.items():
                found[name] = found.get(name, 0) + load.bits
        return tuple(found.items())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoreMap:
    """Where a program lies on a device.

    cores: by index. grids: of every population. axons: kind of each synapses' axons. targets:
    synapses -> (pre neurons,) packets that one spike sends, one per core reached. links:
    synapses -> (pre neurons,) links between tiles that those packets cross, None without tiles.
    """

    device: Device
    cores: tuple[Core, ...]
    grids: Mapping[str, Grid]
    axons: Mapping[str, Axons]
    targets: Mapping[str, Array]
    links: Mapping[str, Array] | None

    def slices_of(self, population: str) -> Iterator[tuple[Core, Slice]]:
        """Yield every core that holds a part of a population, and the part."""
        for core in self.cores:
            for part in core.slices:
                if part.population == population:
                    yield core, part

    @property
    def chips(self) -> int:
        """How many chips so many cores take."""
        per_chip = limit(self.device, "cores_per_chip")
        return max(1, math.ceil(len(self.cores) / per_chip))

    def position(self, core: Core) -> tuple[int, int, int] | None:
        """Return (chip, column, row) of a core's tile, None without tiles."""
        if core.tile is None:
            return None
        row, column = divmod(core.tile, MESH_COLUMNS)
        return row // MESH_ROWS, column, row % MESH_ROWS

    def used(self) -> Amounts:
        """Return the sums over all cores."""
        return Amounts(
            **{f.name: sum(getattr(c.used, f.name) for c in self.cores) for f in fields(Amounts)}
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the whole mapping as JSON values.

        A slice is given by its ranges along the population's channels (in ``order``, where the
        population has one), rows and columns; neuron = (channel * rows + row) * columns + column.
        """
        limits = core_limits(self.device)
        known = [f.name for f in fields(Amounts) if math.isfinite(getattr(limits, f.name))]
        return {
            "schema": SCHEMA,
            "device": self.device.name,
            "device_sha256": self.device.sha256,
            "mesh": None if self.links is None else [MESH_COLUMNS, MESH_ROWS],
            "cores_per_tile": None if self.links is None else self._per_tile,
            "limits": {name: int(getattr(limits, name)) for name in known},
            "totals": {"cores": len(self.cores), "chips": self.chips, **_amounts(self.used())},
            "populations": {
                name: {
                    "shape": list(grid.shape),
                    "order": None if _plain(grid.order) else grid.order.tolist(),
                    "cores": sorted({core.index for core, _ in self.slices_of(name)}),
                }
                for name, grid in self.grids.items()
            },
            "synapses": {
                name: {
                    "axons": kind,
                    "packets_per_spike": _mean(self.targets[name]),
                    "links_per_spike": None if self.links is None else _mean(self.links[name]),
                }
                for name, kind in self.axons.items()
            },
            "cores": [self._core(core) for core in self.cores],
        }

    @property
    def _per_tile(self) -> int:
        return int(limit(self.device, "cores_per_tile"))

    def _core(self, core: Core) -> dict[str, Any]:
        place = self.position(core)
        return {
            "core": core.index,
            "tile": core.tile,
            "chip": None if place is None else place[0],
            "position": None if place is None else list(place[1:]),
            "place": None if place is None else core.index % self._per_tile,
            "used": _amounts(core.used),
            "slices": [
                {
                    "population": part.population,
                    "neurons": part.box.size,
                    "channels": list(part.box.channels),
                    "rows": list(part.box.rows),
                    "columns": list(part.box.columns),
                    "synapses": {
                        name: {"lists": x.lists, "bits": x.bits, "in_axons": x.axons}
                        for name, x in part.loads.items()
                    },
                }
                for part in core.slices
            ],
        }


def _amounts(used: Amounts) -> dict[str, int]:
    return {f.name: int(getattr(used, f.name)) for f in fields(used)}


def _plain(order: Array) -> bool:
    return bool(np.array_equal(order, np.arange(order.size)))


def _mean(values: Array) -> float:
    return round(float(values.mean()), 6) if values.size else 0.0
