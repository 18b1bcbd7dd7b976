"""Calibrating the Top-K cutoff: the published rule on hand-made scores, and on networks."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from snn_deploy.backends.arithmetics import ARITHMETICS
from snn_deploy.engine.event import EventEngine
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.errors import InputError, UsageError
from snn_deploy.ir import Readout
from snn_deploy.passes.cutoff import (
    calibrate,
    calibrate_cutoff,
    cutoff_table,
    optimal_steps,
    outputs_of,
    with_table,
)
from snn_deploy.passes.pipeline import fold
from snn_deploy.passes.quantize import quantize
from tests.builders import lif, mlp, spikes

INF = math.inf


def won(*classes, of=3):
    """Return one sample's output: in each step the class that spikes, None for nobody."""
    return [[int(c == k) for k in range(of)] for c in classes]


def by_definition(outputs, labels, readout, epsilon):
    """Return the table in plain loops and exact fractions, sample by sample, bin by bin."""
    steps = outputs.shape[1]
    first, last = readout.window or (0, steps)
    gaps, best = [], []
    for sample, label in zip(outputs.tolist(), labels.tolist(), strict=True):
        groups = readout.groups or len(sample[0])
        size = len(sample[0]) // groups
        scores, gap, right = [0] * groups, [], []
        for t, step in enumerate(sample):
            if first <= t < last:
                scores = [s + sum(step[i * size : (i + 1) * size]) for i, s in enumerate(scores)]
            ordered = sorted(scores)
            gap.append(ordered[-1] - ordered[-2])
            right.append(scores.index(ordered[-1]) == label)
        gaps.append(gap)
        best.append(next((t + 1 for t in range(steps) if all(right[t:])), steps))
    largest = max(map(max, gaps))
    table = []
    for t in range(steps):
        found = INF
        for m in range(100):
            above = [g for g, gap in zip(best, gaps, strict=True) if 100 * gap[t] > m * largest]
            if above and Fraction(sum(g <= t + 1 for g in above), len(above)) >= 1 - epsilon:
                found = m * largest / 100
                break
        table.append(found)
    return tuple(table), best


def test_the_optimal_step_is_from_where_every_prediction_is_right():
    outputs = np.array([
        won(0, 0, 0, 0),
        won(1, 0, 0, 0),  # 1; 0 by the tie's lowest index; 0; 0
        won(0, 1, 1, 0),  # 0, 0, 1, then a tie
        won(1, 1, 1, 1),
        won(None, None, None, 0),  # no spike at all is class 0
        won(0, 0, 1, 1),
    ])  # fmt: skip
    scores = Readout().cumulative(outputs)
    assert optimal_steps(scores, np.zeros(6, int)).tolist() == [1, 2, 4, 4, 1, 1]
    assert optimal_steps(scores, np.ones(6, int)).tolist() == [4, 4, 4, 1, 4, 4]


def test_a_table_by_hand():
    # Gaps 1 2 3 and 1 2 1, both right from step 1; 1 0 1, wrong until its last step.
    outputs = np.array([won(1, 1, 1), won(1, 1, 0), won(0, 1, 1)])
    labels = np.ones(3, int)
    # Step 1: all three have gap 1, so the third is among them at every threshold below 1, and no
    # sample is above 1. Step 2: those above 0 are right. The last step is right by definition.
    assert cutoff_table(outputs, labels, Readout(), 0.0) == (INF, 0.0, 0.0)
    assert cutoff_table(outputs, labels, Readout(), 0.3) == (INF, 0.0, 0.0)
    assert cutoff_table(outputs, labels, Readout(), 1 / 3) == (0.0, 0.0, 0.0)


def test_thresholds_lie_on_hundredths_of_the_largest_gap():
    # Step 2: gap 2 is right, gap 0.. one sample with gap 1 is wrong: the smallest bin from 1 on.
    outputs = np.array([won(1, 1, 1), won(None, 0, 1), won(1, 1, 1)])
    assert cutoff_table(outputs, np.ones(3, int), Readout(), 0.0)[1] == pytest.approx(1.02)


@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.1])
@pytest.mark.parametrize(
    "readout",
    [Readout(), Readout(kind="vote", groups=3), Readout(window=(2, 7)), Readout(cutoff=(0.0,))],
)
def test_the_table_is_the_definitions(readout, epsilon):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 100)
    likely = 0.25 + 0.3 * (np.arange(6) // (2 if readout.kind == "vote" else 1) == labels[:, None])
    outputs = (rng.random((100, 9, 6)) < likely[:, None]).astype(np.uint8)
    wanted, best = by_definition(outputs, labels, readout, Fraction(str(epsilon)))
    assert cutoff_table(outputs, labels, readout, epsilon) == wanted
    scores = replace(readout, cutoff=None).cumulative(outputs)
    assert optimal_steps(scores, labels).tolist() == best
    assert len(set(wanted)) > 2


def test_a_share_of_exactly_epsilon_is_allowed():
    # 29 of 100 samples with gap 1 are wrong after the first step; 0.29 * 100 < 29 in floats.
    outputs = np.array([won(0, 1, 1)] * 29 + [won(1, 1, 1)] * 71)
    labels = np.ones(100, int)
    assert cutoff_table(outputs, labels, Readout(), 0.29)[0] == 0.0
    assert cutoff_table(outputs, labels, Readout(), 0.28)[0] == INF


def test_outputs_without_a_spike_stop_nobody():
    table = cutoff_table(np.zeros((4, 3, 3)), np.zeros(4, int), Readout(), 0.0)
    assert table == (INF, INF, INF)


def test_what_a_calibration_does_to_its_samples():
    outputs = np.array([won(1, 1, 1), won(1, 1, 0), won(0, 1, 1)])
    found = calibrate(outputs, np.ones(3, int), Readout(), 1 / 3)
    assert found.table == (0.0, 0.0, 0.0)
    assert found.effect.steps.tolist() == [1, 1, 1]
    assert found.effect.total_steps == 3
    assert found.effect.accuracy == 1.0
    assert found.effect.accuracy_stopped == pytest.approx(2 / 3)


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, math.nan])
def test_an_epsilon_that_is_no_share_is_refused(epsilon):
    with pytest.raises(UsageError) as caught:
        cutoff_table(np.zeros((2, 3, 3)), np.zeros(2, int), Readout(), epsilon)
    assert caught.value.message == f"epsilon {epsilon:g} is not a share of wrong stops"
    assert caught.value.hint == "0 for none on the calibration samples, 0.01 for 1 %, less than 1"


def test_a_run_of_one_step_is_refused():
    with pytest.raises(InputError) as caught:
        cutoff_table(np.ones((2, 1, 3)), np.zeros(2, int), Readout(), 0.0)
    assert caught.value.message == "a run of one step cannot stop early"
    assert caught.value.used == "1 step"
    assert "2 steps or more: --steps T" in caught.value.hint


def test_membranes_have_no_scores_so_far():
    with pytest.raises(InputError) as caught:
        cutoff_table(np.zeros((2, 3, 3)), np.zeros(2, int), Readout(kind="mean"), 0.0)
    assert caught.value.message == ("a mean readout has no scores so far: these are sums of spikes")
    assert caught.value.hint == "read spikes: count, or vote with its groups"


def eager(**changes):
    """Return a network whose outputs fire often, and 40 samples of 9 steps for it."""
    rng = np.random.default_rng(4)
    neuron = lif(threshold=0.125)
    net = fold(mlp(rng, 8, 12, 4, bias=False, neuron=neuron, **changes))
    return net, spikes(rng, 40, 9, (8,))


def test_a_network_is_calibrated_in_float_or_in_integers():
    net, x = eager()
    outputs = EventEngine(net).run(x).output
    labels = net.readout.predict(outputs)
    found = calibrate_cutoff(net, [x[:15], x[15:]], labels, 0.0)
    assert found.table == cutoff_table(outputs, labels, Readout(), 0.0)
    assert found.effect.accuracy == 1.0
    assert found.effect.steps.mean() < 9
    # A network's own table plays no part in a new one.
    again = calibrate_cutoff(with_table(net, found.table), [x], labels, 0.0)
    assert again.table == found.table
    qnet = quantize(net, ARITHMETICS["fpga"], bits=3)
    integers = calibrate_cutoff(net, [x], labels, 0.0, qnet=qnet)
    spiked = FixedEngine(qnet).run(x).output
    assert (outputs_of(net, [x], qnet) == spiked).all()
    assert (spiked != outputs).any()
    assert integers.table == cutoff_table(spiked, labels, Readout(), 0.0) != found.table


def test_a_network_that_reads_membranes_is_refused_before_it_runs():
    net, _ = eager(readout=Readout(kind="last"))
    with pytest.raises(InputError) as caught:
        calibrate_cutoff(net, iter(()), np.zeros(0, int), 0.0)
    assert caught.value.message.startswith("a last readout has no early stop")
