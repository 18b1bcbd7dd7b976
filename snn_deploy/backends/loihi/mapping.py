"""From a program to its cores: cut, pack, place, and count what spikes send where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from snn_deploy.backends.loihi.cores import Core, CoreMap, Slice, core_limits, limit
from snn_deploy.backends.loihi.packing import Filled, pack
from snn_deploy.backends.loihi.partition import Partition, Piece, partition
from snn_deploy.backends.loihi.placement import distances, place_cores
from snn_deploy.backends.loihi.program import LoihiProgram
from snn_deploy.device.model import Device
from snn_deploy.ir.arrays import Array

if TYPE_CHECKING:
    from scipy.sparse import csr_array
else:
    csr_array = Any


def place(
    program: LoihiProgram, device: Device, rates: Mapping[str, Array] | None = None
) -> CoreMap:
    """Return the cores of every population; cores beyond the chip are counted, not refused.

    rates: spikes of every neuron (n,) by population, in any unit; without them all neurons are
    taken to spike alike.
    """
    limits = core_limits(device, program.margin)
    parts = partition(program, limits)
    traffic, host = _traffic(program, parts.pieces, rates)
    filled = pack(parts, limits, traffic + traffic.T)
    on = np.zeros(len(parts.pieces), np.int64)
    for i, core in enumerate(filled):
        on[list(core.pieces)] = i
    per_tile = limit(device, "cores_per_tile")
    places, tiles = np.arange(len(filled)), None
    if math.isfinite(per_tile):
        hosted = np.bincount(on, weights=host, minlength=len(filled))
        places = place_cores(_joined(traffic, on, len(filled)), hosted, int(per_tile))
        tiles = places // int(per_tile)
    targets, links = _wire(program, parts.pieces, on, tiles)
    cores = [
        _core(parts, core, int(places[i]), None if tiles is None else int(tiles[i]))
        for i, core in enumerate(filled)
    ]
    return CoreMap(
        device=device,
        cores=tuple(sorted(cores, key=lambda core: core.index)),
        grids={name: cutter.grid for name, cutter in parts.cutters.items()},
        axons={s.name: parts.axons(s) for s in program.synapses},
        targets=targets,
        links=links,
    )


def _traffic(
    program: LoihiProgram, pieces: Sequence[Piece], rates: Mapping[str, Array] | None
) -> tuple[csr_array, Array]:
    """Return spikes (from piece, to piece), and those from the host to each piece."""
    from scipy.sparse import coo_array

    shapes = program.network.shapes
    weights = {
        name: np.ones(math.prod(shape)) if rates is None else np.asarray(rates[name], np.float64)
        for name, shape in shapes.items()
    }
    owner = {name: np.zeros(math.prod(shape), np.int64) for name, shape in shapes.items()}
    for number, piece in enumerate(pieces):
        owner[piece.population][piece.neurons] = number
    host = np.zeros(len(pieces))
    rows, columns, values = [], [], []
    for number, piece in enumerate(pieces):
        for synapses in program.into(piece.population):
            sources = piece.sources[synapses.name]
            spikes = weights[synapses.pre][sources]
            if synapses.pre in program.network.inputs:
                host[number] += spikes.sum()
                continue
            sent = np.bincount(owner[synapses.pre][sources], weights=spikes)
            senders = np.flatnonzero(sent)
            rows.append(senders)
            columns.append(np.full(senders.size, number))
            values.append(sent[senders])
    shape = (len(pieces), len(pieces))
    none = [np.zeros(0, np.int64)]
    entries = (np.concatenate(none + rows), np.concatenate(none + columns))
    return coo_array((np.concatenate(none + values), entries), shape=shape).tocsr(), host


def _joined(traffic: csr_array, on: Array, cores: int) -> csr_array:
    """Return the traffic between cores from that between pieces; on: the core of each piece."""
    from scipy.sparse import coo_array

    entries = traffic.tocoo()
    sender, receiver = (on[side] for side in entries.coords)
    apart = sender != receiver
    return coo_array(
        (entries.data[apart], (sender[apart], receiver[apart])), shape=(cores, cores)
    ).tocsr()


def _wire(
    program: LoihiProgram, pieces: Sequence[Piece], on: Array, tiles: Array | None
) -> tuple[dict[str, Array], dict[str, Array] | None]:
    """Return packets and links of one spike of each pre neuron, by synapses.

    Routes are Manhattan, one per core reached. The host's spikes enter at tile 0.
    """
    shapes = program.network.shapes
    homes = {name: np.zeros(math.prod(shape), np.int64) for name, shape in shapes.items()}
    if tiles is not None:
        distance = distances(int(tiles.max()) + 1)
        for number, piece in enumerate(pieces):
            homes[piece.population][piece.neurons] = tiles[on[number]]
    targets = {s.name: np.zeros(math.prod(shapes[s.pre]), np.int64) for s in program.synapses}
    links = {name: np.zeros_like(counts) for name, counts in targets.items()}
    for number, piece in enumerate(pieces):
        for synapses in program.into(piece.population):
            sources = piece.sources[synapses.name]
            targets[synapses.name][sources] += 1
            if tiles is not None:
                there = tiles[on[number]]
                links[synapses.name][sources] += distance[homes[synapses.pre][sources], there]
    return targets, links if tiles is not None else None


def _core(parts: Partition, filled: Filled, index: int, tile: int | None) -> Core:
    chosen = [parts.pieces[number] for number in filled.pieces]
    return Core(
        index=index,
        tile=tile,
        slices=tuple(
            Slice(population=p.population, box=p.box, neurons=p.neurons, loads=loads)
            for p, loads in zip(chosen, filled.loads, strict=True)
        ),
        used=filled.used,
    )
