"""Calibration of the Top-K cutoff: from outputs on labelled samples to one threshold per step.

Source: Wu et al., "Optimising event-driven spiking neural network with regularisation and
cutoff" (arXiv 2301.09522). docs/cutoff.md says where this differs from their code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from snn_deploy.engine.event import EventEngine
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.engine.loop import Inputs
from snn_deploy.errors import InputError, UsageError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.check import check
from snn_deploy.ir.network import Network, Readout, lead
from snn_deploy.ir.quantized import QNetwork

BINS = 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Effect:
    """What a table does on samples. steps: (samples,), taken by each; total_steps: without it.

    accuracy: 0..1, read after all steps; accuracy_stopped: read at the stops.
    """

    steps: Array
    total_steps: int
    accuracy: float
    accuracy_stopped: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """A table and what it does on the samples that it was taken from, so a little flattered."""

    epsilon: float
    table: tuple[float, ...]
    effect: Effect


def with_table(network: Network, table: tuple[float, ...]) -> Network:
    """Return the network with this table, checked: InputError where its readout cannot stop."""
    return check(replace(network, readout=replace(network.readout, cutoff=table)))


def check_epsilon(epsilon: float) -> None:
    """Raise UsageError where ``epsilon`` is not a share of wrong stops."""
    if not 0 <= epsilon < 1:
        raise UsageError(
            f"epsilon {epsilon:g} is not a share of wrong stops",
            hint="0 for none on the calibration samples, 0.01 for 1 %, less than 1",
        )


def optimal_steps(scores: Array, labels: Array) -> Array:
    """Return (samples,), after how many steps every prediction is and stays right, else all.

    scores: (samples, steps, classes), cumulative.
    """
    steps = scores.shape[1]
    wrong = scores.argmax(axis=2) != labels[:, None]
    last_wrong = steps - 1 - wrong[:, ::-1].argmax(axis=1)
    return np.asarray(np.where(wrong.any(axis=1), np.minimum(last_wrong + 2, steps), 1))


def cutoff_table(
    outputs: Array, labels: Array, readout: Readout, epsilon: float
) -> tuple[float, ...]:
    """Return one threshold per step, infinity where none is good enough.

    outputs: the output's spikes (samples, steps, n), of two classes or more; labels: (samples,).
    A step's threshold is the smallest of 100 values m / 100 * (largest gap of all samples and
    steps), m = 0..99, for which the samples whose gap is above it are right from that step on, but
    for a share epsilon (0 <= epsilon < 1) of them at most. Raises UsageError for another epsilon,
    InputError for a single step or a membrane readout.
    """
    check_epsilon(epsilon)
    scores = replace(readout, cutoff=None).cumulative(outputs)
    steps = scores.shape[1]
    if steps < 2:
        raise InputError(
            "a run of one step cannot stop early",
            used=f"{steps} step",
            hint="calibrate with 2 steps or more: --steps T, or samples with more steps",
        )
    gaps, best = lead(scores), optimal_steps(scores, labels)
    bins = np.arange(BINS) * gaps.max() / BINS
    table = []
    for t in range(steps):
        above = gaps[:, t, None] > bins
        stopped = above.sum(axis=0)
        wrong = (above & (best > t + 1)[:, None]).sum(axis=0)
        # A share of no samples at all says nothing, and such a threshold stops nobody.
        good = (stopped > 0) & (wrong / np.maximum(stopped, 1) <= epsilon)
        table.append(float(bins[good.argmax()]) if good.any() else math.inf)
    return tuple(table)


def effect(outputs: Array, labels: Array, readout: Readout) -> Effect:
    """Return what the readout's table does; outputs and labels as in ``cutoff_table``."""
    whole = replace(readout, cutoff=None)
    return Effect(
        steps=readout.stop_steps(outputs),
        total_steps=outputs.shape[1],
        accuracy=float(np.mean(whole.predict(outputs) == labels)),
        accuracy_stopped=float(np.mean(readout.predict(outputs) == labels)),
    )


def calibrate(outputs: Array, labels: Array, readout: Readout, epsilon: float) -> Calibration:
    """Return the table for ``epsilon`` and what it does; arguments as in ``cutoff_table``."""
    table = cutoff_table(outputs, labels, readout, epsilon)
    done = effect(outputs, labels, replace(readout, cutoff=table))
    return Calibration(epsilon=epsilon, table=table, effect=done)


def outputs_of(network: Network, batches: Iterable[Inputs], qnet: QNetwork | None = None) -> Array:
    """Return the output's values (samples, steps, n) in float, or in the integers of ``qnet``.

    network: folded. batches: encoded samples, as the engines take them.
    """
    engine = EventEngine(network) if qnet is None else FixedEngine(qnet)
    outputs = [engine.run(batch).output for batch in batches]
    return np.concatenate([values.reshape(*values.shape[:2], -1) for values in outputs])


def calibrate_cutoff(
    network: Network,
    batches: Iterable[Inputs],
    labels: Array,
    epsilon: float,
    *,
    qnet: QNetwork | None = None,
) -> Calibration:
    """Return a table for the network's readout and what it does; see ``with_table`` to set it.

    network: folded, a table of its own is ignored. batches, qnet: as in ``outputs_of``. Raises as
    ``cutoff_table``.
    """
    with_table(network, ())  # refuses a readout that cannot stop before anything runs
    return calibrate(outputs_of(network, batches, qnet), labels, network.readout, epsilon)
