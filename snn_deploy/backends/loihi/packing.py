"""Pieces onto cores: what leaves room on a core shares it, of whichever population.

Best fit, largest first, twice: once onto the core that exchanges the most spikes with the piece,
once onto the fullest. The way with fewer cores stands, then the one with less traffic between
cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from snn_deploy.backends.loihi.axons import Load
from snn_deploy.backends.loihi.cores import Amounts
from snn_deploy.backends.loihi.partition import Partition, Piece
from snn_deploy.ir.arrays import Array

if TYPE_CHECKING:
    from scipy.sparse import csr_array
else:
    csr_array = Any

_ADDED = ("neurons", "synapses", "synapse_bits", "in_axons", "out_axons")


@dataclass(slots=True, kw_only=True)
class _Open:
    """A core that is being filled."""

    pieces: list[int] = field(default_factory=list)
    loads: list[dict[str, Load]] = field(default_factory=list)
    used: Amounts = field(default_factory=Amounts)
    compartments: frozenset[int] = frozenset()
    thresholds: frozenset[int] = frozenset()
    formats: frozenset[object] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Filled:
    """A core with its pieces (numbers into the partition) and what each takes there."""

    pieces: tuple[int, ...]
    loads: tuple[dict[str, Load], ...]
    used: Amounts


class _Packer:
    def __init__(self, parts: Partition, limits: Amounts, traffic: csr_array) -> None:
        self._parts = parts
        self._limits = limits
        self._traffic = traffic
        # Beside others a piece takes at least what it takes of a core of its own.
        self._alone = [self._join(_Open(), i) for i in range(len(parts.pieces))]

    def _join(self, core: _Open, number: int) -> _Open:
        """Return the core with one more piece, whether it fits or not."""
        piece: Piece = self._parts.pieces[number]
        cutter = self._parts.cutters[piece.population]
        before = int(core.used.neurons)
        loads = cutter.loads(piece.box, before)
        more = cutter.amounts(piece.box, loads)
        compartments, thresholds = cutter.codes(piece.box)
        compartments |= core.compartments
        thresholds |= core.thresholds
        formats = core.formats | cutter.formats(piece.box, loads, before)
        sums = {k: getattr(core.used, k) + getattr(more, k) for k in _ADDED}
        return _Open(
            pieces=[*core.pieces, number],
            loads=[*core.loads, loads],
            used=Amounts(
                **sums,
                compartment_configs=len(compartments),
                threshold_configs=len(thresholds),
                synapse_formats=len(formats),
            ),
            compartments=compartments,
            thresholds=thresholds,
            formats=formats,
        )

    def pack(self, *, sociable: bool) -> list[_Open]:
        """Return cores; sociable: prefer the core with the most traffic to the fullest."""
        pieces, traffic = self._parts.pieces, self._traffic
        order = sorted(
            range(len(pieces)), key=lambda i: (-self._alone[i].used.share(self._limits), i)
        )
        allowed = np.array([getattr(self._limits, k) for k in _ADDED])
        taken = np.zeros((len(pieces), len(_ADDED)))
        on = np.full(len(pieces), -1)
        cores: list[_Open] = []
        for number in order:
            need = np.array([getattr(self._alone[number].used, k) for k in _ADDED])
            able = np.flatnonzero(np.all(taken[: len(cores)] + need <= allowed, axis=1))
            fullness = (taken[able] / allowed).max(axis=1, initial=0.0)
            heard: Array = np.zeros(able.size)
            if sociable:
                row = slice(*traffic.indptr[number : number + 2])
                there = on[traffic.indices[row]]
                weights = traffic.data[row][there >= 0]
                heard = np.bincount(there[there >= 0], weights=weights, minlength=len(cores))[able]
            for i in able[np.lexsort((able, -fullness, -heard))]:
                joined = self._joined(cores[i], number)
                if joined is not None:
                    cores[i] = joined
                    break
            else:
                i = len(cores)
                cores.append(self._alone[number])
            taken[i] = [getattr(cores[i].used, k) for k in _ADDED]
            on[number] = i
        return cores

    def _joined(self, core: _Open, number: int) -> _Open | None:
        """Return the core with one more piece, None where they do not fit together."""
        if any(self._apart(number, other) for other in core.pieces):
            return None
        joined = self._join(core, number)
        return joined if joined.used.share(self._limits) <= 1 else None

    def _apart(self, one: int, other: int) -> bool:
        a, b = self._parts.pieces[one], self._parts.pieces[other]
        return a.apart and a.population == b.population

    def within(self, cores: Sequence[_Open]) -> float:
        """Return the traffic between pieces that share a core."""
        on = np.zeros(len(self._parts.pieces), np.int64)
        for i, core in enumerate(cores):
            on[core.pieces] = i
        entries = self._traffic.tocoo()
        one, other = entries.coords
        return float(entries.data[on[one] == on[other]].sum())


def pack(parts: Partition, limits: Amounts, traffic: csr_array) -> list[Filled]:
    """Return filled cores in the order of their first pieces.

    traffic: (pieces, pieces), spikes exchanged in both directions.
    """
    packer = _Packer(parts, limits, traffic)
    ways = [packer.pack(sociable=sociable) for sociable in (True, False)]
    best = min(ways, key=lambda cores: (len(cores), -packer.within(cores)))
    filled = [Filled(pieces=tuple(c.pieces), loads=tuple(c.loads), used=c.used) for c in best]
    return sorted(filled, key=lambda core: min(core.pieces))
