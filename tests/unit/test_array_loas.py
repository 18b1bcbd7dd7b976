"""The temporal-parallel inner join against a machine that is stepped cycle by cycle."""

from __future__ import annotations

from collections import defaultdict, deque

import numpy as np
import pytest

from snn_deploy.backends.fpga.arrays.loas import (
    Loas,
    loas,
    preprocessed,
    without_single_spikes,
)
from snn_deploy.engine.count import Counter
from snn_deploy.engine.event import EventEngine
from snn_deploy.engine.operators import chain_matrix
from snn_deploy.errors import InputError, UnsupportedError, UsageError
from snn_deploy.ir import Coding, Dense, Relay
from tests.builders import KINDS, grid, lif, mlp, network, population, projection, row, spikes
from tests.unit.test_count import CASES, connections

SINGLE = ("dense", "csr", "conv", "conv stride padding", "conv groups dilation", "conv1d")
SMALL = Loas(elements=2, line_bits=4, adders=2)


def run_of(net, x):
    return EventEngine(net).run(np.asarray(x, np.uint8), record="spikes")


class Element:
    """A TPPE: joins a line, sums up the inputs' bitmask and checks words, each on its own."""

    def __init__(self, laggy_cycles, steps):
        self.laggy_cycles, self.steps = laggy_cycles, steps
        self.lines, self.matches = deque(), deque()  # to join; of the line at hand
        self.to_sum, self.summing = deque(), 0
        self.to_check, self.known = deque(), 0  # matches with their line; lines that are known
        self.joined_lines = 0
        self.pseudo = defaultdict(int)
        self.corrections = defaultdict(lambda: np.zeros(steps, np.int64))
        self.corrected = 0

    @property
    def joining(self):
        return bool(self.lines or self.matches)

    @property
    def busy(self):
        return self.joining or bool(self.to_sum or self.summing or self.to_check)

    def cycle(self):
        """Return nothing; do what one clock cycle does. The checker sees the last cycle's sums."""
        if self.to_check and self.to_check[0][0] < self.known:
            _, output, word, weight = self.to_check.popleft()
            missing = 1 - np.asarray(word, np.int64)
            self.corrections[output] += missing * weight
            self.corrected += int(missing.sum())
        if not self.matches and self.lines:
            output, self.matches = self.lines.popleft()
            self.matches = deque((output, *match) for match in self.matches)
            if self.matches:
                self.to_sum.append(self.joined_lines)
                self.joined_lines += 1
        if not self.summing and self.to_sum:
            self.to_sum.popleft()
            self.summing = self.laggy_cycles
        if self.summing:
            self.summing -= 1
            self.known += self.summing == 0
        if self.matches:
            output, word, weight = self.matches.popleft()
            self.pseudo[output] += weight
            self.to_check.append((self.joined_lines - 1, output, word, weight))


def stepped(net, trace, sample, array):
    """Return (cycles, currents (steps, outputs), matches, corrections) of a one-operator layer."""
    (p,) = net.projections
    (synapse,) = p.synapses
    shape = net.population(p.pre).shape
    words = np.asarray(trace.spikes[p.pre])[sample].reshape(trace.steps, -1).T
    fibers = defaultdict(list)
    for i, o, weight, _ in connections(synapse, shape):
        fibers[o].append((i, round(float(weight) * 64)))
    outputs = net.population(p.post).size
    longest = max(len(fiber) for fiber in fibers.values())
    elements = [Element(array.laggy_cycles, trace.steps) for _ in range(array.elements)]
    cycles = 0
    for first in range(0, outputs, array.elements):
        for at, element in enumerate(elements):
            fiber = sorted(fibers[first + at]) if first + at < outputs else []
            for begin in range(0, longest, array.line_bits):
                line = fiber[begin : begin + array.line_bits]
                matches = deque((words[i], w) for i, w in line if w and words[i].any())
                element.lines.append((first + at, matches))
        while any(element.joining for element in elements):
            for element in elements:
                element.cycle()
            cycles += 1
    while any(element.busy for element in elements):
        for element in elements:
            element.cycle()
        cycles += 1
    currents = np.zeros((trace.steps, outputs), np.int64)
    for element in elements:
        for output, value in element.pseudo.items():
            currents[:, output] = value - element.corrections[output]
    matches = sum(element.joined_lines for element in elements)
    return cycles, currents, matches, sum(element.corrected for element in elements)


@pytest.mark.parametrize("array", [SMALL, Loas(elements=3, line_bits=6, adders=6), Loas()])
@pytest.mark.parametrize("name", SINGLE)
def test_against_a_machine_stepped_cycle_by_cycle(name, array):
    net = CASES[name]()
    x = spikes(np.random.default_rng(2), 3, 4, net.input_population.shape, 0.35)
    trace = run_of(net, x)
    (layer,) = loas(net, trace, array).layers
    matrix = chain_matrix(net, net.projections[0])
    for sample in range(3):
        cycles, currents, lines, corrected = stepped(net, trace, sample, array)
        assert layer.cycles[sample] == cycles
        assert layer.corrections[sample] == corrected
        # The corrected sums are the currents of every step, exactly.
        exact = x[sample].reshape(4, -1) @ (matrix.toarray().T * 64)
        assert np.array_equal(currents, exact)
        assert lines > 0


@pytest.mark.parametrize("name", [*SINGLE, "pooled dense", "deep", "max pool"])
def test_matches_and_corrections_amount_to_the_accumulates(name):
    net = CASES[name]()
    x = spikes(np.random.default_rng(2), 3, 4, net.input_population.shape)
    trace = run_of(net, x)
    run = loas(net, trace, SMALL)
    for layer in run.layers:
        assert np.array_equal(4 * layer.matches - layer.corrections, layer.accumulates)
    total = sum(int(layer.accumulates.sum()) for layer in run.layers)
    assert total == Counter(net).count(trace).total("synops_effective") > 0


def dense(weight):
    return row((weight.shape[1],), Dense(weight=np.asarray(weight, np.float32)), lif())


def test_cycles_by_hand():
    weight = np.array([[1, 1, 0, 1, 0, 1]])
    # Neuron 0 spikes always, 1 once, 2 never, 3 twice, 4 always, 5 once; steps are rows.
    x = [[[1, 0, 0, 1, 1, 0], [1, 1, 0, 1, 1, 0], [1, 0, 0, 0, 1, 1]]]
    net = dense(weight)
    trace = run_of(net, x)
    run = loas(net, trace, Loas(elements=1, line_bits=4, adders=1))
    (layer,) = run.layers
    # Line 0 has three matches and is summed in cycles 1-4; line 1 has one, joined in cycle 4 and
    # summed in cycles 5-8. Checks: 5, 6, 7, and 9.
    assert layer.cycles.tolist() == [9]
    # One step after the other: 2 + 1, 3 + 1, 1 + 1 cycles.
    assert layer.stepwise_cycles.tolist() == [9]
    assert (layer.matches.tolist(), layer.corrections.tolist()) == ([4], [0 + 2 + 1 + 2])
    assert layer.accumulates.tolist() == [3 + 1 + 2 + 1]
    assert (layer.active.tolist(), layer.spikes.tolist()) == ([5], [10])
    assert run.silent == pytest.approx(1 / 6)
    assert run.spike_sparsity == pytest.approx(1 - 10 / 18)
    assert run.utilisation == pytest.approx(4 / 9)
    # A bit per neuron, two pointers of three bits, five words of three; a bit per step; 3 bits
    # per spike. Weights: six mask bits, two pointers of three bits, four values of eight.
    assert layer.packed_bits.tolist() == [6 + 2 * 3 + 5 * 3]
    assert layer.map_bits == 18
    assert layer.coordinate_bits.tolist() == [30]
    assert layer.weight_bits == 6 + 2 * 3 + 4 * 8


def test_silence_costs_the_scan_alone():
    net = dense(np.ones((5, 10)))
    run = loas(net, run_of(net, np.zeros((2, 4, 10))), SMALL)
    (layer,) = run.layers
    # Three tiles of two outputs, three lines each.
    assert layer.cycles.tolist() == [9, 9]
    assert layer.stepwise_cycles.tolist() == [4 * 9] * 2
    assert layer.matches.sum() == layer.corrections.sum() == layer.active.sum() == 0
    assert (run.silent, run.spike_sparsity, run.utilisation) == (1, 1, 0)
    assert layer.packed_bits.tolist() == [10 + 3 * 4] * 2


def test_full_activity_needs_no_correction():
    weight = grid(np.random.default_rng(1), 6, 10, density=0.5)
    net = dense(weight)
    trace = run_of(net, np.ones((1, 4, 10)))
    run = loas(net, trace, Loas(elements=2, line_bits=16, adders=16))
    (layer,) = run.layers
    assert layer.corrections.tolist() == [0]
    assert layer.matches.tolist() == [np.count_nonzero(weight)]
    assert run.silent == run.spike_sparsity == 0
    per_output = np.count_nonzero(weight, axis=1).reshape(3, 2)
    assert layer.stepwise_cycles.tolist() == [4 * int(per_output.max(axis=1).sum())]


def test_one_element_and_as_many_as_outputs():
    net, trace = two_layers()
    one = loas(net, trace, Loas(elements=1))
    assert np.all(one.cycles >= sum(layer.matches for layer in one.layers))
    wide = loas(net, trace, Loas(elements=16))
    assert np.all(wide.cycles <= one.cycles)
    for few, many in zip(one.layers, wide.layers, strict=True):
        assert np.array_equal(few.matches, many.matches)


def test_a_slower_prefix_sum_costs_cycles_and_no_operations():
    net, trace = two_layers()
    fast, slow = (loas(net, trace, Loas(elements=4, adders=n)) for n in (128, 16))
    assert (fast.array.laggy_cycles, slow.array.laggy_cycles) == (1, 8)
    assert np.all(fast.cycles < slow.cycles)
    assert np.array_equal(fast.stepwise_cycles, slow.stepwise_cycles)


def two_layers():
    net = mlp(np.random.default_rng(3), 20, 16, 8, density=0.4)
    return net, run_of(net, spikes(np.random.default_rng(4), 3, 4, (20,)))


def test_the_gain_over_single_steps_grows_with_the_steps_and_silence_falls():
    rng = np.random.default_rng(6)
    net = dense(rng.random((32, 256)) < 0.05)
    gains, silent = [], []
    for steps in (1, 4, 8):
        trace = run_of(net, spikes(rng, 4, steps, (256,), 0.2))
        run = loas(net, trace, Loas(adders=128))
        gains.append(run.stepwise_cycles.sum() / run.cycles.sum())
        silent.append(run.silent)
    assert gains == sorted(gains)
    assert gains[0] <= 1
    assert gains[2] > 2 * gains[0]
    assert silent == sorted(silent, reverse=True)


def test_batches_change_nothing(monkeypatch):
    net, trace = two_layers()
    whole = loas(net, trace)
    monkeypatch.setattr("snn_deploy.backends.fpga.arrays.loas._BATCH_VALUES", 1)
    assert np.array_equal(loas(net, trace).cycles, whole.cycles)
    assert np.array_equal(loas(net, trace).stepwise_cycles, whole.stepwise_cycles)


def test_single_spikes_are_dropped_behind_the_input():
    values = np.array([[[1, 1, 0], [0, 1, 0], [0, 1, 0]]], np.uint8)
    assert without_single_spikes(values).tolist() == [[[0, 1, 0]] * 3]
    net, trace = two_layers()
    plain, dropped = loas(net, trace), loas(net, trace, drops_single=True)
    assert np.array_equal(plain.layers[0].active, dropped.layers[0].active)
    once = (trace.spikes["n1"].sum(axis=1) == 1).sum(axis=1)
    assert once.sum() > 0
    assert np.array_equal(plain.layers[1].active - once, dropped.layers[1].active)


def test_preprocessing_is_run_through_the_network():
    one = np.eye(3, dtype=np.float32)
    net = row((3,), Dense(weight=one), lif(1, threshold=0.5), Dense(weight=one),
              lif(1, threshold=0.5))  # fmt: skip
    x = np.array([[[1, 1, 0], [0, 1, 0], [0, 1, 0]]], np.uint8)
    ran = preprocessed(net, x)
    # The input's single spike makes one in the hidden layer, which sends it no further.
    assert ran.spikes["input"].tolist() == x.tolist()
    assert ran.spikes["n1"].tolist() == [[[0, 1, 0]] * 3]
    assert ran.output.tolist() == ran.spikes["n2"].tolist() == [[[0, 1, 0]] * 3]
    assert {name: counts.tolist() for name, counts in ran.counts.items()} == {
        "input": [1, 3, 0], "n1": [0, 3, 0], "n2": [0, 3, 0]
    }  # fmt: skip
    # The output's own single spikes are read out.
    late = np.array([[[0, 0, 0], [0, 0, 0], [0, 0, 1]]], np.uint8)
    direct = row((3,), Dense(weight=one), lif(1, threshold=0.5))
    ran = preprocessed(direct, late)
    assert ran.output.tolist() == ran.spikes["n1"].tolist() == late.tolist()


def test_preprocessing_of_several_inputs_and_outputs():
    one = np.eye(2, dtype=np.float32)
    parts = [population(name, (2,), Relay()) for name in ("a", "b")]
    out = [population(name, (2,), lif(1, threshold=0.5)) for name in ("c", "d")]
    edges = [projection("a", "c", Dense(weight=one)), projection("b", "c", Dense(weight=one))]
    x = {"a": np.array([[[1, 0]]], np.uint8), "b": np.array([[[0, 1]]], np.uint8)}
    net = network([*parts, out[0]], edges, inputs=("a", "b"))
    assert preprocessed(net, x).output.tolist() == [[[1, 1]]]
    two = network([*parts, *out], [*edges, projection("a", "d", Dense(weight=one))],
                  inputs=("a", "b"), outputs=("c", "d"))  # fmt: skip
    with pytest.raises(InputError, match="2 outputs, one is needed") as caught:
        preprocessed(two, x)
    assert caught.value.hint == "keep one output node"


def test_preprocessing_without_single_spikes_is_the_plain_run():
    net = CASES["deep"]()
    x = np.repeat(spikes(np.random.default_rng(5), 4, 1, (6,)), 6, axis=1)
    plain = run_of(net, x)
    kept = [i for i in range(4) if all(
        not np.any(plain.spikes[name][i].sum(axis=0) == 1) for name in ("a", "b"))]  # fmt: skip
    assert kept
    ran = preprocessed(net, x)
    for name in ("in", "a", "b", "out"):
        assert np.array_equal(ran.spikes[name][kept], plain.spikes[name][kept])
    assert np.array_equal(ran.output[kept], plain.output[kept])


def test_the_published_shares_of_silent_neurons_lie_where_packing_can_put_them():
    # Artifact of the paper, Table II: spike sparsity, silent, silent without single spikes; T = 4.
    for spikes_off, silent, dropped in (
        (0.81195, 0.712559, 0.766834), (0.82325, 0.740898, 0.79581), (0.686667, 0.595935, 0.660811),
    ):  # fmt: skip
        once = dropped - silent
        assert 1 - 4 * (1 - spikes_off) < silent < spikes_off
        # Neurons that spike once, and others that do so two to four times, give these spikes.
        many = 1 - silent - once
        assert once + 2 * many <= 4 * (1 - spikes_off) <= once + 4 * many


def test_analogue_layers_are_left_out():
    net = row((6,), Dense(weight=grid(np.random.default_rng(1), 5, 6)), lif(),
              Dense(weight=grid(np.random.default_rng(2), 4, 5)), lif(),
              coding=Coding(kind="direct", steps=4, seed=0, gain=1.0))  # fmt: skip
    trace = EventEngine(net).run(np.random.default_rng(2).random((2, 4, 6)), record="spikes")
    run = loas(net, trace)
    assert run.left_out == ("w1",)
    assert [layer.name for layer in run.layers] == ["w2"]


@pytest.mark.parametrize("name", ["recurrent", "delays", "forced feedback"])
def test_what_a_step_waits_for_is_refused(name):
    net = KINDS[name](np.random.default_rng(1))
    trace = run_of(net, np.zeros((1, 3, net.input_population.size)))
    with pytest.raises(UnsupportedError, match="all steps of a neuron are computed at once") as e:
        loas(net, trace)
    assert any(p.name in e.value.where for p in net.projections)
    assert e.value.hint == "take a feed-forward network without delays"
    if name != "delays":
        with pytest.raises(UnsupportedError, match="known only after all steps") as e:
            preprocessed(net, trace.spikes[net.inputs[0]])
        assert e.value.hint == "take a feed-forward network"


def test_unfit_requests():
    with pytest.raises(UsageError, match="adders of the array is less than one") as caught:
        Loas(adders=0)
    assert (caught.value.used, caught.value.hint) == ("adders = 0", "the published array has 16")
    net, _ = two_layers()
    with pytest.raises(InputError, match="recorded no spikes") as missing:
        loas(net, EventEngine(net).run(np.zeros((1, 2, 20), np.uint8)))
    assert missing.value.hint == 'record them: run(x, record="spikes")'
