"""Run a program over a data set in batches, and gather everything that reports show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from snn_deploy.backends.base import Latency, Oracle, Program, Target, counted
from snn_deploy.budget.findings import Fit, findings, verdict
from snn_deploy.budget.price import Budget, price
from snn_deploy.device.usage import Usage
from snn_deploy.engine.loop import Inputs
from snn_deploy.errors import InputError
from snn_deploy.io.inputs import InputData, encode, encode_several
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.events import Events
from snn_deploy.ir.network import Network
from snn_deploy.ir.trace import Trace, joined

_BATCH_VALUES = 40_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Uncut:
    """What the same run gives when every sample takes all steps.

    in_flight: population -> steps that it had run beyond the sample's own when the stop took
    effect, mean over the samples; those that are not 0.
    """

    events: Events
    latency: Latency
    budget: Budget
    in_flight: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What a run on one target gave. events are totals over ``samples``; budget is per sample.

    predictions (samples,); accuracy and confusion (true, predicted) where labels were given.
    place: what ran it, our model of the target or a simulator with its version. trace:
    population -> (samples, steps, *shape) where asked for. overflows: as in Trace. steps_run:
    (samples,), up to each sample's early stop. uncut: None where the target ran all steps.
    core_work: event -> total by core, of a target with cores.
    """

    target: Target
    program: Program
    samples: int
    steps: int
    predictions: Array
    labels: Array | None
    accuracy: float | None
    confusion: Array | None
    events: Events
    budget: Budget
    latency: Latency
    usage: Usage
    fit: Fit
    place: str
    steps_run: Array
    uncut: Uncut | None = None
    core_work: Mapping[int, Mapping[str, int]] | None = None
    overflows: dict[str, int] = field(default_factory=dict)
    trace: dict[str, Array] = field(default_factory=dict)


def batch_size(network: Network, steps: int) -> int:
    """Return how many samples a batch may hold so that memory stays bounded."""
    widest = max(p.size for p in network.populations)
    return int(max(1, min(512, _BATCH_VALUES // (widest * steps))))


def steps_of(network: Network, data: InputData) -> int | None:
    """Return how many steps the samples of ``data`` take, None where nothing says so."""
    return int(data.x.shape[1]) if data.kind == "steps" else network.coding.steps


def check_steps(network: Network, data: InputData) -> None:
    """Raise InputError, located, where the readout does not fit the steps of ``data``."""
    steps = steps_of(network, data)
    if steps is None:
        return  # encoding refuses it
    try:
        network.readout.check_steps(steps)
    except InputError as error:
        raise error.located(network.where(network.outputs[0])) from None


def encoded_batches(network: Network, data: InputData, count: int) -> list[tuple[int, int]]:
    """Return (first, last) of each batch of the first ``count`` samples."""
    size = batch_size(network, steps_of(network, data) or 1)
    return [(i, min(i + size, count)) for i in range(0, count, size)]


def encoded(network: Network, data: InputData, first: int, last: int) -> Inputs:
    """Return samples first..last-1 as the network sees them; the same spikes in any batch."""
    part = data.part(first, last)
    if part.several:
        return encode_several(part, network.coding, first)
    return encode(part, network.coding, first_index=first)


def classes_of(network: Network) -> int:
    """Return how many classes the readout tells apart."""
    groups = network.readout.groups if network.readout.kind == "vote" else None
    return groups or sum(network.population(name).size for name in network.outputs)


def check_labels(network: Network, data: InputData) -> None:
    """Raise InputError where a label names a class that the network does not have."""
    if data.y is None or int(data.y.max()) < classes_of(network):
        return
    at = int(data.y.argmax())
    raise InputError(
        "a label names a class that the network does not have",
        where=f"{data.source} -> y" if data.source else None,
        used=f"y[{at}] is {int(data.y[at])}, classes 0..{classes_of(network) - 1}",
        hint="pass the labels that the network was trained on",
    )


def run(
    target: Target,
    program: Program,
    data: InputData,
    *,
    simulator: Oracle | None = None,
    keep_trace: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Return the outcome of all samples of ``data``.

    simulator: an independent one in place of our model of the target (Lava, say).
    """
    network = program.real
    labels = data.y
    check_labels(network, data)
    check_steps(network, data)
    predictions: list[Array] = []
    parts: list[Trace] = []
    kept: dict[str, list[Array]] = {}
    for first, last in encoded_batches(network, data, data.samples):
        x = encoded(network, data, first, last)
        if simulator is None:
            trace = target.run(program, x, "spikes" if keep_trace else "output")
        else:
            trace = counted(target, program, simulator.run(program, x))
        predictions.append(network.readout.predict(trace.output))
        # Only counts and timing go on: a whole data set's spikes and states need not fit.
        parts.append(replace(trace, output=trace.output[:1], spikes={}, states={}))
        for name, spikes in trace.spikes.items() if keep_trace else ():
            kept.setdefault(name, []).append(spikes)
        if progress is not None:
            progress(last, data.samples)
    whole = joined(parts)
    predicted = np.concatenate(predictions)
    latency, budget = _priced(target, program, whole)
    usage = target.usage(program)
    by_core = getattr(target, "core_work", None)
    return Outcome(
        target=target,
        program=program,
        samples=whole.samples,
        steps=whole.steps,
        predictions=predicted,
        labels=labels,
        accuracy=None if labels is None else float(np.mean(predicted == labels)),
        confusion=None if labels is None else confusion(labels, predicted, classes_of(network)),
        events=whole.events,
        budget=budget,
        latency=latency,
        usage=usage,
        fit=verdict(findings(usage, program.device), program.device.name, usage.excludes),
        place=_place(target, program, simulator),
        steps_run=np.full(whole.samples, whole.steps) if whole.stop is None else whole.stop.steps,
        uncut=_uncut(target, program, whole),
        core_work=None if by_core is None else by_core(program, whole),
        overflows=dict(whole.overflows),
        trace={name: np.concatenate(arrays) for name, arrays in kept.items()},
    )


def _priced(target: Target, program: Program, trace: Trace) -> tuple[Latency, Budget]:
    """Return latency and energy per sample."""
    latency = target.latency(program, trace)
    seconds = None if latency.seconds is None else latency.seconds * trace.samples
    budget = price(
        trace.events,
        program.device,
        charged=target.charged,
        samples=trace.samples,
        duration_s=seconds,
        label=f"{target.name} on {program.device.name}",
    )
    return latency, budget


def _uncut(target: Target, program: Program, trace: Trace) -> Uncut | None:
    stop = trace.stop
    if stop is None:
        return None
    latency, budget = _priced(target, program, stop.whole)
    beyond = {name: float(np.mean(ran - stop.steps)) for name, ran in stop.ran.items()}
    return Uncut(
        events=stop.whole.events,
        latency=latency,
        budget=budget,
        in_flight={name: steps for name, steps in beyond.items() if steps},
    )


def _place(target: Target, program: Program, simulator: Oracle | None) -> str:
    if simulator is not None:
        return simulator.version()
    if program.qnet is not None and target.arithmetic() is None:
        return f"our engine, in {program.qnet.arithmetic.name}'s integers"
    return "our model of the target"


def confusion(labels: Array, predicted: Array, classes: int) -> Array:
    """Return counts (true class, predicted class)."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (labels, predicted), 1)
    return table
