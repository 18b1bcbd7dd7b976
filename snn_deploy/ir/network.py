"""Network: populations joined by projections, with everything that fixes what it computes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from snn_deploy.errors import InputError
from snn_deploy.ir.arrays import Array, frozen, same
from snn_deploy.ir.neurons import Neuron, Step
from snn_deploy.ir.synapses import Shape, Synapse

ReadoutKind = Literal["count", "vote", "last", "max", "mean"]
CodingKind = Literal["rate", "direct", "events"]
MEMBRANE_READOUTS = ("last", "max", "mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Neurons of one type. shape: (N,) or (C, H, W). origin: its name in the file it came from."""

    name: str
    shape: Shape
    neuron: Neuron
    origin: str = ""

    @property
    def size(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Projection:
    """A chain of synapse operators from ``pre`` to ``post``.

    delay_steps: extra steps, an int >= 0, or integers that broadcast to (post size, pre size),
    kept in their smallest form: an int, (1, pre), (post, 1) or (post, pre). helper: True where a
    lowering or a pass made it and nothing in it is learned.
    """

    name: str
    pre: str
    post: str
    synapses: tuple[Synapse, ...]
    delay_steps: int | Array = 0
    origin: str = ""
    helper: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "delay_steps", _smallest(self.delay_steps))

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    __hash__ = None  # type: ignore[assignment]


def lead(scores: Array) -> Array:
    """Return the largest minus the second largest of (..., classes), two classes or more."""
    ordered = np.sort(scores, axis=-1)
    return np.asarray(ordered[..., -1] - ordered[..., -2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Readout:
    """How a prediction is read from the output population.

    count: spikes per neuron summed over the window; vote: the same, summed over ``groups``
    contiguous equal groups of neurons; last, max, mean: of the membrane. window: [first, last)
    steps, None for all. Ties go to the lowest index. cutoff: None, or one threshold per step, in
    spikes, 0 to infinity: a sample stops after the first step whose gap between the largest and
    the second largest score so far is above it (see stop_steps). Only for count and vote.
    """

    kind: ReadoutKind = "count"
    groups: int | None = None
    window: tuple[int, int] | None = None
    cutoff: tuple[float, ...] | None = None

    def scores(self, values: Array) -> Array:
        """Return (samples, classes) from the output's spikes or membrane (samples, steps, n).

        With a cutoff, as they stand at each sample's stop. Raises InputError where the window
        does not lie within the steps, or the cutoff is shorter than they are.
        """
        values = values.reshape(*values.shape[:2], -1)
        if self.cutoff is not None:
            ran = np.arange(values.shape[1]) < self.stop_steps(values)[:, None]
            values = np.where(ran[:, :, None], values, 0)
        self.check_steps(values.shape[1])
        if self.window is not None:
            values = values[:, self.window[0] : self.window[1]]
        if self.kind == "last":
            scores = values[:, -1]
        elif self.kind == "max":
            scores = values.max(axis=1)
        elif self.kind == "mean":
            scores = values.mean(axis=1)
        else:
            scores = values.sum(axis=1, dtype=np.float64)
        if self.kind == "vote":
            scores = scores.reshape(len(scores), self.groups or 1, -1).sum(axis=2)
        return np.asarray(scores)

    def predict(self, values: Array) -> Array:
        """Return (samples,) class indices; the lowest index wins a tie."""
        return np.asarray(self.scores(values).argmax(axis=1))

    def stop_steps(self, values: Array) -> Array:
        """Return (samples,) int64, how many steps each sample takes: t + 1 if it stops after t.

        values: the output's spikes (samples, steps, n). A sample stops after the first step t
        with gap > cutoff[t]; gap: largest minus second largest score of the window's steps up to
        t. The last step always stops; without a cutoff it alone does. Raises as ``scores``.
        """
        samples, steps = values.shape[:2]
        if self.cutoff is None:
            self.check_steps(steps)
            return np.full(samples, steps)
        stops = lead(self.cumulative(values)) > np.array(self.cutoff[:steps])
        stops[:, -1] = True
        return np.asarray(stops.argmax(axis=1) + 1)

    def cumulative(self, values: Array) -> Array:
        """Return (samples, steps, classes), the scores of the window's steps up to each step.

        values: the output's spikes (samples, steps, n). Raises InputError as ``scores``, and for a
        membrane readout.
        """
        if self.kind in MEMBRANE_READOUTS:
            raise InputError(
                f"a {self.kind} readout has no scores so far: these are sums of spikes",
                hint="read spikes: count, or vote with its groups",
            )
        samples, steps = values.shape[:2]
        self.check_steps(steps)
        first, last = self.window or (0, steps)
        counted = np.array(values.reshape(samples, steps, -1), np.float64)
        counted[:, :first] = 0
        counted[:, last:] = 0
        if self.kind == "vote":
            counted = counted.reshape(samples, steps, self.groups or 1, -1).sum(axis=3)
        return np.asarray(counted.cumsum(axis=1))

    def check_steps(self, steps: int) -> None:
        """Raise InputError where the window or the cutoff does not fit a run of ``steps``."""
        if self.cutoff is not None and len(self.cutoff) < steps:
            raise InputError(
                "the readout's cutoff table is shorter than the run",
                used=f"{len(self.cutoff)} thresholds for {steps} steps",
                hint=f"run at most {len(self.cutoff)} steps, or give one threshold per step",
            )
        if self.window is not None and self.window[1] > steps:
            raise InputError(
                "the readout window ends after the last step",
                used=f"window {self.window} of {steps} steps",
                hint="run more steps, or choose an earlier window",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """How samples become input: "rate" (Bernoulli, by the host), "direct" (analogue), "events"."""

    kind: CodingKind = "events"
    steps: int | None = None
    seed: int = 0
    gain: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a network was read from."""

    path: str = ""
    sha256: str = ""
    format: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The integers that a file was made for: they hold as they are in that arithmetic.

    arithmetic: its name. scale: weight units per real unit; shift: left shift of summed weights
    into the state, both of every population.
    """

    arithmetic: str
    scale: float
    shift: int


class _Index:
    """Look-ups of a network by name; of two equal names the first counts, check() refuses both."""

    __slots__ = ("into", "origin", "out_of", "population")

    def __init__(
        self, populations: tuple[Population, ...], projections: tuple[Projection, ...]
    ) -> None:
        self.population = {p.name: p for p in reversed(populations)}
        self.origin = {p.name: p.origin for p in populations}
        self.origin.update({p.name: p.origin for p in projections})
        self.into: dict[str, tuple[Projection, ...]] = _grouped(projections, "post")
        self.out_of: dict[str, tuple[Projection, ...]] = _grouped(projections, "pre")


def _grouped(projections: tuple[Projection, ...], end: str) -> dict[str, tuple[Projection, ...]]:
    found: dict[str, list[Projection]] = {}
    for projection in projections:
        found.setdefault(getattr(projection, end), []).append(projection)
    return {name: tuple(several) for name, several in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """A spiking network. populations and projections keep the order of their file.

    inputs and outputs are population names; inputs are Relay populations. feedback: pairs
    (pre, post) that take one step although the distance rule would not say so. grid: set where
    the file held integers.
    """

    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dt_s: float
    readout: Readout = field(default_factory=Readout)
    coding: Coding = field(default_factory=Coding)
    feedback: tuple[tuple[str, str], ...] = ()
    grid: Grid | None = None
    source: Source = field(default_factory=Source)
    _index: _Index = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", _Index(self.populations, self.projections))

    def __eq__(self, other: object) -> bool:
        """Compare what the network computes; its source does not count."""
        if not isinstance(other, Network):
            return NotImplemented
        return all(
            same(getattr(self, f.name), getattr(other, f.name))
            for f in fields(self)
            if f.compare and f.name != "source"
        )

    __hash__ = None  # type: ignore[assignment]

    def population(self, name: str) -> Population:
        """Return the population called ``name``; KeyError is ours, never the user's."""
        return self._index.population[name]

    def into(self, name: str) -> tuple[Projection, ...]:
        """Return the projections that end in ``name``, in order: the order in which they add."""
        return self._index.into.get(name, ())

    def out_of(self, name: str) -> tuple[Projection, ...]:
        """Return the projections that start in ``name``, in order."""
        return self._index.out_of.get(name, ())

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Shape of each population by name."""
        return {p.name: p.shape for p in self.populations}

    @property
    def input_population(self) -> Population:
        """The only input; InputError where there are several."""
        return self._only(self.inputs, "input")

    @property
    def output_population(self) -> Population:
        """The only output; InputError where there are several."""
        return self._only(self.outputs, "output")

    def _only(self, names: tuple[str, ...], kind: str) -> Population:
        if len(names) != 1:
            raise InputError(
                f"the network has {len(names)} {kind}s, one is needed here",
                where=", ".join(names) or None,
                hint=f"keep one {kind} node",
            )
        return self.population(names[0])

    def step_of(self, name: str) -> Step:
        """Return the Euler coefficients of a population."""
        return self.population(name).neuron.step(self.dt_s)

    def computing(self) -> Iterator[Population]:
        """Yield the populations that are not inputs, in order."""
        return (p for p in self.populations if p.name not in self.inputs)

    def where(self, name: str) -> str:
        """Return ``file -> node`` for messages."""
        node = self._index.origin.get(name) or name
        return f"{self.source.path} -> {node}" if self.source.path else node


def _smallest(delay: int | Array) -> int | Array:
    """Return a delay as an int where all are equal, else without the axes along which they are."""
    array = np.asarray(delay)
    if array.dtype.kind not in "iu" or array.size == 0:
        return delay  # check() refuses it with its place
    if bool(np.all(array == array.flat[0])):
        return int(array.flat[0])
    if array.ndim == 2:
        if bool(np.all(array == array[:, :1])):
            array = array[:, :1]
        elif bool(np.all(array == array[:1])):
            array = array[:1]
    return frozen(array, np.int64)


def fitted(value: Any, shape: Shape) -> Array:
    """Return ``value`` (one, per channel or per neuron) in a form that broadcasts to ``shape``.

    Raises ValueError for an array of any other shape: one that numpy would broadcast along the
    last axis is a mistake here.
    """
    array = np.asarray(value)
    if array.size == math.prod(shape):
        return array.reshape(shape)
    if array.size == 1:
        return array.reshape(())
    if array.ndim == 1 and array.size == shape[0]:
        return array.reshape(-1, *[1] * (len(shape) - 1))
    if array.ndim != len(shape) or any(
        n not in (1, m) for n, m in zip(array.shape, shape, strict=True)
    ):
        raise ValueError(f"{array.shape} does not fit {shape}")
    return array


def per_neuron(value: Any, shape: Shape) -> Array:
    """Return ``value`` (see fitted) for each neuron, flattened to (N,)."""
    return frozen(np.broadcast_to(fitted(value, shape), shape).ravel())
