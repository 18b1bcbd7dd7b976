"""Cores onto the tiles of a mesh, so that spikes cross few links.

Starts from the order of layers along a snake, and from the two slowest vectors of the traffic's
Laplacian; from each, pairs of cores (or a core and a free place) change places as long as that
lowers the sum over pairs of traffic x Manhattan distance. Small networks are then kicked out of
their valley a few times, by a generator with a fixed seed. Chips continue the mesh downwards.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from snn_deploy.backends.loihi.cores import MESH_COLUMNS, MESH_ROWS
from snn_deploy.ir.arrays import Array

if TYPE_CHECKING:
    from scipy.sparse import csr_array
else:
    csr_array = Any

_ACTIVE = 256  # cores looked at in one round
_ROUNDS = 4000
_SPECTRAL = 1024  # cores up to which eigenvectors are taken
_FEW = 160  # cores: with fewer, there is time for kicks
_KICKS = 4


def distances(tiles: int) -> Array:
    """Return the links between tiles, int64 (tiles, tiles): a mesh of rows of 8."""
    row, column = np.divmod(np.arange(tiles), MESH_COLUMNS)
    return abs(row[:, None] - row) + abs(column[:, None] - column)


def place_cores(traffic: csr_array, host: Array, per_tile: int) -> Array:
    """Return the place of each core, tile x ``per_tile`` + place on the tile, int64.

    traffic: (cores, cores), spikes from one to another, none on the diagonal. host: (cores,),
    spikes that the host sends to each; they enter at tile 0.
    """
    cores = traffic.shape[0]
    chip = MESH_COLUMNS * MESH_ROWS
    tiles = chip * math.ceil(cores / (chip * per_tile))
    both = (traffic + traffic.T).tocsr()
    mesh = _Mesh(both, host, per_tile, tiles)
    starts = []
    for order in _orders(both):
        start = np.zeros(cores, np.int64)
        start[order] = _snake(cores, per_tile)
        starts.append(start)
    cost, best = min((mesh.descend(start) for start in starts), key=lambda found: found[0])
    rng = np.random.default_rng(0)
    for _ in range(_KICKS * (_FEW // cores)):
        # A few cores change places at random, and it goes downhill from there.
        kicked = best.copy()
        chosen = rng.choice(cores, max(2, cores // 3), replace=False) if cores > 1 else [0]
        kicked[chosen] = kicked[rng.permutation(chosen)]
        found = mesh.descend(kicked)
        if found[0] < cost - 1e-9:
            cost, best = found
    return best


def _snake(cores: int, per_tile: int) -> Array:
    """Return places along rows of tiles that turn at the ends, as square a block as can be."""
    tiles = math.ceil(cores / per_tile)
    width = min(MESH_COLUMNS, math.ceil(math.sqrt(tiles)))
    row, column = np.divmod(np.arange(tiles), width)
    column = np.where(row % 2 == 0, column, width - 1 - column)
    first = (row * MESH_COLUMNS + column) * per_tile
    places: Array = (first[:, None] + np.arange(per_tile)).ravel()[:cores]
    return places


def _orders(both: csr_array) -> list[Array]:
    cores = both.shape[0]
    orders = [np.arange(cores)]
    if 2 < cores <= _SPECTRAL and both.nnz:
        dense = both.toarray()
        laplacian = np.diag(dense.sum(axis=1)) - dense
        _, vectors = np.linalg.eigh(laplacian)
        slow = vectors[:, 1]
        # An eigenvector's sign is arbitrary: the first core leads.
        slow = slow if slow[0] <= 0 else -slow
        orders.append(np.lexsort((np.arange(cores), np.round(slow, 9))))
    return orders


class _Mesh:
    """Places that change by swaps; free places are cores without traffic."""

    def __init__(self, both: csr_array, host: Array, per_tile: int, tiles: int) -> None:
        from scipy.sparse import csr_array

        places = tiles * per_tile
        self._cores = both.shape[0]
        self._both = csr_array(both)
        self._both.resize((places, places))
        self._host = np.zeros(places)
        self._host[: self._cores] = host
        self._distance = distances(tiles).astype(np.float64)
        self._per_tile = per_tile

    def descend(self, start: Array) -> tuple[float, Array]:
        """Return (cost, places of the cores) where no single swap lowers the cost."""
        places = np.full(len(self._host), -1, np.int64)
        places[: self._cores] = start
        free = np.setdiff1d(np.arange(len(places)), start, assume_unique=True)
        places[self._cores :] = free
        tile = places // self._per_tile
        pull = self._both @ self._distance[tile] + np.outer(self._host, self._distance[0])
        for _ in range(_ROUNDS):
            swaps = self._swaps(tile, pull)
            if not swaps:
                break
            for a, b in swaps:
                places[[a, b]] = places[[b, a]]
            moved = np.array(swaps).ravel()
            was, tile = tile, places // self._per_tile
            change = self._distance[tile[moved]] - self._distance[was[moved]]
            pull += self._both[:, moved] @ change
        rows = np.arange(len(tile))
        cost = float(pull[rows, tile].sum() + self._host @ self._distance[0, tile]) / 2
        return cost, places[: self._cores]

    def _swaps(self, tile: Array, pull: Array) -> list[tuple[int, int]]:
        """Return swaps that each lower the cost and do not touch each other's traffic."""
        here = pull[np.arange(len(tile)), tile]
        wish = here - pull.min(axis=1)
        active = np.argsort(-wish, kind="stable")[:_ACTIVE]
        active = active[wish[active] > 0]
        if not active.size:
            return []
        gain = here[active, None] - pull[active][:, tile] + here - pull[:, tile[active]].T
        gain -= 2 * self._both[active].toarray() * self._distance[tile[active]][:, tile]
        partner = gain.argmax(axis=1)
        best = gain[np.arange(len(active)), partner]
        floor = 1e-9 * max(1.0, float(here.max()))
        touched = np.zeros(len(tile), bool)
        swaps = []
        for i in np.argsort(-best, kind="stable"):
            if best[i] <= floor:
                break
            a, b = int(active[i]), int(partner[i])
            if touched[a] or touched[b]:
                continue
            swaps.append((a, b))
            for c in (a, b):
                touched[c] = True
                touched[self._neighbours(c)] = True
        return swaps

    def _neighbours(self, core: int) -> Array:
        first, last = self._both.indptr[core : core + 2]
        found: Array = self._both.indices[first:last]
        return found
