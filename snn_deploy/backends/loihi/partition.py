"""All populations into pieces that each fit a core, from the outputs to the inputs.

In that order the pieces that a population's spikes go to, and so its output axons, are known when
it is cut. Where edges lead back, the pieces of the round before stand in for those to come.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from snn_deploy.backends.loihi.axons import Axons, Box, pixels_of
from snn_deploy.backends.loihi.cores import Amounts
from snn_deploy.backends.loihi.cutter import Cutter, Outgoing, split
from snn_deploy.backends.loihi.program import LoihiProgram, LoihiSynapses
from snn_deploy.errors import UsageError
from snn_deploy.ir.arrays import Array

_PASSES = 6  # over networks with feedback


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Piece:
    """A box of a population. sources: synapses -> pre neurons that reach it. apart: no other
    piece of its population may share its core.
    """

    population: str
    box: Box
    neurons: Array
    sources: Mapping[str, Array]
    apart: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Partition:
    """Pieces of all populations in the program's order, and what cut them."""

    cutters: Mapping[str, Cutter]
    pieces: tuple[Piece, ...]

    def axons(self, synapses: LoihiSynapses) -> Axons:
        """Return the kind of axon that carries synapses."""
        cutter = self.cutters[synapses.post]
        return next(cutter.axons_of(f) for f in cutter.fans if f.synapses.name == synapses.name)


def partition(program: LoihiProgram, limits: Amounts) -> Partition:
    """Return pieces that each fit a core, as far as single neurons do."""
    cutters = {p.name: Cutter(program, p, limits) for p in program.populations}
    places = {p.name: i for i, p in enumerate(program.populations)}
    feedback = any(places.get(s.pre, -1) >= places[s.post] for s in program.synapses)
    pieces: dict[str, list[Piece]] = {}
    for _ in range(_PASSES if feedback else 1):
        known = pieces
        pieces = {}
        for population in reversed(program.populations):
            cutter = cutters[population.name]
            cutter.outgoing = _outgoing(program, cutters, population.name, {**known, **pieces})
            pieces[population.name] = list(_pieces(cutter, program.splits))
        for name, cutter in cutters.items():
            cutter.outgoing = _outgoing(program, cutters, name, pieces)
        # With feedback, the pieces behind a population are only now the final ones.
        if all(
            cutters[p.population].outgoing.of(p.box) <= limits.out_axons
            for parts in pieces.values()
            for p in parts
        ):
            break
    ordered = tuple(piece for p in program.populations for piece in pieces[p.name])
    return Partition(cutters=cutters, pieces=ordered)


def _outgoing(
    program: LoihiProgram,
    cutters: Mapping[str, Cutter],
    name: str,
    pieces: Mapping[str, list[Piece]],
) -> Outgoing:
    result = Outgoing(cutters[name].grid)
    for synapses in program.synapses:
        if synapses.pre != name:
            continue
        cutter = cutters[synapses.post]
        fan = next(f for f in cutter.fans if f.synapses.name == synapses.name)
        for piece in pieces.get(synapses.post, ()):
            sources = piece.sources[synapses.name]
            result.add(sources, cutter.axons_of(fan), pixels_of(synapses.in_shape))
    return result


def _pieces(cutter: Cutter, splits: Mapping[str, int]) -> Iterator[Piece]:
    name = cutter.population.name
    boxes = cutter.cut()
    while len(boxes) < splits.get(name, 1):
        largest = max(range(len(boxes)), key=lambda i: (boxes[i].size, -i))
        boxes[largest : largest + 1] = split(boxes[largest])
    for box in boxes:
        yield Piece(
            population=name,
            box=box,
            neurons=cutter.grid.neurons(box),
            sources={f.synapses.name: f.sources(box).astype(np.int32) for f in cutter.fans},
            apart=name in splits,
        )


def named_splits(program: LoihiProgram, splits: Mapping[str, int]) -> dict[str, int]:
    """Return population -> on how many cores at least, from names of layers or populations.

    Raises UsageError for a name that the program has not, or more cores than neurons.
    """
    ends = {p.name: p.name for p in program.populations}
    ends |= {s.projection: s.post for s in program.synapses if s.projection not in ends}
    found: dict[str, int] = {}
    for name, parts in splits.items():
        if name not in ends:
            near = difflib.get_close_matches(name, ends, n=1)
            raise UsageError(
                f"no layer is called {name!r}",
                where=program.network.source.path or None,
                used=f"layers: {', '.join(dict.fromkeys(s.projection for s in program.synapses))}",
                hint=f"did you mean --split {near[0]}={parts}?" if near else "snn-deploy inspect",
            )
        neurons = math.prod(program.population(ends[name]).shape)
        if not 1 <= parts <= neurons:
            raise UsageError(
                f"{name} cannot lie on {parts:,} cores",
                where=program.network.where(name),
                used=f"{parts:,} cores for {neurons:,} neurons",
                hint=f"--split {name}=N with N from 1 to {neurons}",
            )
        found[ends[name]] = max(parts, found.get(ends[name], 1))
    return found
