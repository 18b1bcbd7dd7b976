"""The trace of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from snn_deploy.ir.arrays import Array
from snn_deploy.ir.events import Events
from snn_deploy.ir.network import Projection


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """What a run of a batch of samples left behind.

    output: the readout's values of the output population, (samples, steps, n): spikes, or the
    membrane for a membrane readout; several outputs stand side by side in their order. counts: per
    population, int64 (n,), spikes summed over samples and steps. spikes: per population uint8
    (samples, steps, *shape), where recorded (analogue values of a Relay as float64). states:
    population -> variable ("v" after reset, "u") -> (samples, steps, *shape), where recorded.
    timing: per sample figures by name ("cycles"). samples and steps: what ran. overflows: integer
    states that were "saturated" at the end of their range or "wrapped" around it; empty for floats
    and where nobody watched. stop: where samples stopped early, else None; counts, events and
    timing then end there, output, spikes and states go on to the last step. machine: what clocked
    hardware did in all steps, where recorded: kind ("cycles", "counters", "results") -> population
    -> figure -> int64 (samples, steps).
    """

    output: Array
    counts: Mapping[str, Array]
    samples: int
    steps: int
    spikes: Mapping[str, Array] = field(default_factory=dict)
    states: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    events: Events = field(default_factory=Events)
    timing: Mapping[str, Array] = field(default_factory=dict)
    overflows: Mapping[str, int] = field(default_factory=dict)
    stop: Stop | None = None
    machine: Mapping[str, Mapping[str, Mapping[str, Array]]] = field(default_factory=dict)

    @property
    def mean_steps(self) -> float:
        """Steps up to a sample's stop, mean over the samples."""
        return self.steps if self.stop is None else float(np.mean(self.stop.steps))

    def work(self, population: str) -> int:
        """Return the steps that a population ran, summed over the samples."""
        if self.stop is None:
            return self.samples * self.steps
        return int(self.stop.ran[population].sum())

    def carried(self, projection: Projection) -> tuple[Array, int]:
        """Return the spikes (n,) that a projection carried, and in how many steps of samples."""
        if self.stop is not None and projection.name in self.stop.arrived:
            return self.stop.arrived[projection.name], self.work(projection.post)
        return self.counts[projection.pre], self.work(projection.pre)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stop:
    """Where the samples of a trace stopped.

    steps: int64 (samples,), steps up to each stop (see Readout.stop_steps). ran: population ->
    int64 (samples,), the steps that it had run when the stop took effect, those in flight
    included. arrived: projection -> spikes (n,) that its target had taken in, on a machine where
    that may be fewer than were sent. whole: the run without the stop: counts, events, timing.
    """

    steps: Array
    ran: Mapping[str, Array]
    arrived: Mapping[str, Array]
    whole: Trace


def spikes_until(values: Array, ran: Array) -> Array:
    """Return int64 (n,), the spikes of (samples, steps, ...) in the first ``ran`` (samples,)."""
    flat = values.reshape(*values.shape[:2], -1)
    kept = flat[np.arange(flat.shape[1]) < ran[:, None]]
    return np.asarray(np.count_nonzero(kept, axis=0), np.int64)


def joined(parts: Sequence[Trace]) -> Trace:
    """Return the traces of consecutive samples, of as many steps each, as one."""
    head = parts[0]
    if len(parts) == 1:
        return head
    stops = [p.stop for p in parts if p.stop is not None]
    return Trace(
        output=np.concatenate([p.output for p in parts]),
        counts=_summed(p.counts for p in parts),
        samples=sum(p.samples for p in parts),
        steps=head.steps,
        spikes=_chained([p.spikes for p in parts]),
        states={n: _chained([p.states[n] for p in parts]) for n in head.states},
        events=Events.sum(p.events for p in parts),
        timing=_chained([p.timing for p in parts]),
        overflows={k: sum(p.overflows[k] for p in parts) for k in head.overflows},
        machine={
            kind: {n: _chained([p.machine[kind][n] for p in parts]) for n in by_name}
            for kind, by_name in head.machine.items()
        },
        stop=None
        if not stops
        else Stop(
            steps=np.concatenate([s.steps for s in stops]),
            ran=_chained([s.ran for s in stops]),
            arrived=_summed(s.arrived for s in stops),
            whole=joined([s.whole for s in stops]),
        ),
    )


def _chained(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _summed(parts: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    first, *others = parts
    total = {name: np.array(values) for name, values in first.items()}
    for other in others:
        for name, values in other.items():
            total[name] += values
    return total
