"""One simulator against another: every recorded spike and state of two traces, compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from snn_deploy.errors import MismatchError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network
from snn_deploy.ir.schedule import schedule
from snn_deploy.ir.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """The first value that differs. neuron: index in C order, None for what a whole population
    did; judge and ours: both values.
    """

    population: str
    origin: str
    variable: str
    sample: int
    step: int
    neuron: int | None
    judge: float
    ours: float

    def __str__(self) -> str:
        which = self.variable if self.neuron is None else f"{self.variable} of neuron {self.neuron}"
        return (
            f"{self.origin or self.population}, {which} at step {self.step} of sample "
            f"{self.sample}: {self.judge:g} there, {self.ours:g} here"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One simulator against another. values: compared numbers by variable; mismatches too.

    judge: what ran, or "" where none did (model only). tolerance: 0 means bit for bit. note: what
    the judge did not record and which populations never spiked, "" where neither is the case.
    """

    judge: str
    ours: str
    samples: int
    steps: int
    tolerance: float
    values: Mapping[str, int]
    mismatches: Mapping[str, int]
    first: Mismatch | None
    note: str = ""

    @property
    def equal(self) -> bool:
        """Whether nothing differed."""
        return not any(self.mismatches.values())


def compare(
    network: Network, judge: Trace, ours: Trace, *, names: tuple[str, str], tolerance: float
) -> Comparison:
    """Compare the spikes of every population that the judge recorded, and states of both.

    names: of the judge and of ours; the note names what was left out, and at least one population
    is compared. Spikes are always compared exactly; NaN equals nothing. Populations go in the
    order of evaluation, so the first mismatch is the most upstream one. Raises MismatchError,
    located, where the two recorded different numbers of samples, steps or neurons.
    """
    values: dict[str, int] = {}
    wrong: dict[str, int] = {}
    first: Mismatch | None = None
    left_out: list[str] = []
    silent: list[str] = []
    for name in schedule(network).order:
        if name in network.inputs:
            continue
        tables: list[tuple[str, Array, Array, float]] = []
        missing: list[str] = []
        if network.step_of(name).threshold is not None:
            if name in judge.spikes:
                tables.append(("spikes", judge.spikes[name], ours.spikes[name], 0.0))
                if not (np.any(judge.spikes[name]) or np.any(ours.spikes[name])):
                    silent.append(name)
            else:
                missing.append("spikes")
        mine, theirs = ours.states.get(name, {}), judge.states.get(name, {})
        for variable in ("u", "v"):
            if variable in mine and variable in theirs:
                tables.append((variable, theirs[variable], mine[variable], tolerance))
            elif variable in mine:
                missing.append(variable)
        if not tables:
            left_out.append(name)
        elif missing:
            left_out.append(f"{' and '.join(missing)} of {name}")
        for variable, left, right, slack in tables:
            a = np.asarray(left, np.float64).reshape(*left.shape[:2], -1)
            b = np.asarray(right, np.float64).reshape(*right.shape[:2], -1)
            if a.shape != b.shape:
                raise MismatchError(
                    f"{names[0]} and {names[1]} recorded different amounts of {variable}",
                    where=network.where(name),
                    used=f"{a.shape} there, {b.shape} here (samples, steps, neurons)",
                )
            differs = ~(np.abs(a - b) <= slack)
            values[variable] = values.get(variable, 0) + differs.size
            wrong[variable] = wrong.get(variable, 0) + int(differs.sum())
            found = _first(differs)
            if found is not None and (first is None or found[:2] < (first.sample, first.step)):
                first = Mismatch(
                    population=name,
                    origin=network.where(name),
                    variable=variable,
                    sample=found[0],
                    step=found[1],
                    neuron=found[2],
                    judge=float(a[found]),
                    ours=float(b[found]),
                )
    for kind in judge.machine.keys() & ours.machine.keys():
        found_ = _machine(network, kind, judge, ours)
        values[kind], wrong[kind] = found_[:2]
        late = found_[2]
        if late is not None and first is None:
            first = late
    assert values, "a judge records at least one population"
    return Comparison(
        judge=names[0],
        ours=names[1],
        samples=ours.samples,
        steps=ours.steps,
        tolerance=tolerance,
        values=values,
        mismatches=wrong,
        first=first,
        note=_note(names[0], left_out, silent),
    )


def _machine(
    network: Network, kind: str, judge: Trace, ours: Trace
) -> tuple[int, int, Mismatch | None]:
    """Return how many figures of a kind were compared, how many differ, and the first."""
    total = wrong = 0
    first: Mismatch | None = None
    for name, figures in ours.machine[kind].items():
        for figure, mine in figures.items():
            theirs = judge.machine[kind][name][figure]
            differs = theirs != mine
            total += differs.size
            wrong += int(differs.sum())
            at = np.argwhere(differs)
            if len(at) and (first is None or tuple(at[0]) < (first.sample, first.step)):
                sample, step = int(at[0][0]), int(at[0][1])
                first = Mismatch(
                    population=name,
                    origin=network.where(name),
                    variable=f"{kind}: {figure}",
                    sample=sample,
                    step=step,
                    neuron=None,
                    judge=float(theirs[sample, step]),
                    ours=float(mine[sample, step]),
                )
    return total, wrong, first


def _note(judge: str, left_out: list[str], silent: list[str]) -> str:
    parts = [f"{judge} did not record {', '.join(left_out)}"] if left_out else []
    if silent:
        parts.append(
            f"{', '.join(silent)} never spiked in these samples: equal silence proves little"
        )
    return "; ".join(parts)


def _first(differs: Array) -> tuple[int, int, int] | None:
    at = np.argwhere(differs)
    return None if not len(at) else (int(at[0][0]), int(at[0][1]), int(at[0][2]))
