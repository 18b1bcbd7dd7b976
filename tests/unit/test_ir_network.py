"""Schedule, readout, parameters, events, spikes and the text form of a network."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.engine.event import EventEngine
from snn_deploy.errors import InputError
from snn_deploy.ir import (
    Coding,
    Conv2d,
    Csr,
    Dense,
    Events,
    Identity,
    Pool2d,
    Readout,
    Relay,
    per_neuron,
    schedule,
    to_text,
)
from tests.builders import KINDS, grid, lif, network, population, projection, row, spikes


def wired(edges, *, names=("in", "a", "b", "c", "out"), feedback=()):
    """Return a network of one neuron per population with the given edges."""
    one = lambda: Dense(weight=np.full((1, 1), 0.5, np.float32))
    return network(
        [population(n, (1,), lif() if n != "in" else Relay()) for n in names],
        [projection(a, b, one()) for a, b in edges],
        outputs=("out",),
        feedback=feedback,
    )


def late(net):
    return {(p.pre, p.post) for p in net.projections if schedule(net).feedback[p.name]}


LOOP = [("in", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("c", "out")]


def test_feed_forward_edges_act_within_the_step():
    net = wired([("in", "a"), ("a", "b"), ("b", "c"), ("c", "out"), ("in", "out"), ("a", "c")])
    assert late(net) == set()
    plan = schedule(net)
    assert plan.order == ("in", "a", "b", "c", "out")
    assert plan.depth == {"in": 0, "a": 1, "b": 2, "c": 3, "out": 4}


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        (LOOP, {("c", "a")}),
        ([*LOOP, ("b", "b")], {("c", "a"), ("b", "b")}),
        # a and c are equally far from the input: both edges between them wait.
        ([*LOOP, ("in", "c"), ("a", "c")], {("a", "c"), ("c", "a"), ("b", "c")}),
        # A skip across components never waits, however short its other end's path is.
        ([*LOOP, ("in", "out")], {("c", "a")}),
    ],
)
def test_an_edge_that_does_not_lead_further_from_the_input_waits(edges, expected):
    assert late(wired(edges)) == expected


def test_named_edges_wait_as_well():
    assert late(wired(LOOP, feedback=(("b", "c"),))) == {("c", "a"), ("b", "c")}
    assert late(wired(LOOP, feedback=(("c", "out"),))) == {("c", "a"), ("c", "out")}


def test_in_every_loop_some_edge_waits():
    # Whatever the wiring, what acts within the step has an order.
    rng = np.random.default_rng(0)
    names = ("in", "a", "b", "c", "out")
    pairs = [(x, y) for x in names for y in names if y != "in"]
    loops = 0
    for _ in range(150):
        keep = [pair for pair in pairs if rng.random() < 0.4]
        net = wired(keep)
        plan = schedule(net)
        position = {name: i for i, name in enumerate(plan.order)}
        assert sorted(plan.order) == sorted(names)
        for p in net.projections:
            if not plan.feedback[p.name]:
                assert position[p.pre] < position[p.post]
        loops += any(plan.feedback.values())
    assert loops > 100


def test_a_loop_without_input_runs_late():
    net = wired([("in", "out"), ("a", "b"), ("b", "a"), ("b", "out")])
    assert late(net) == {("a", "b"), ("b", "a")}


def renamed(net, rename):
    return replace(
        net,
        populations=tuple(replace(p, name=rename[p.name]) for p in net.populations),
        projections=tuple(
            replace(p, pre=rename[p.pre], post=rename[p.post]) for p in net.projections
        ),
        inputs=tuple(rename[n] for n in net.inputs),
        outputs=tuple(rename[n] for n in net.outputs),
        feedback=tuple((rename[a], rename[b]) for a, b in net.feedback),
    )


@pytest.mark.parametrize("kind", ["recurrent", "skip", "delays", "forced feedback"])
def test_nothing_depends_on_names_or_order(kind):
    rng = np.random.default_rng(0)
    net = KINDS[kind](rng)
    x = spikes(rng, 3, 12, net.input_population.shape, 0.7)
    expected = EventEngine(net).run(x, "states").states
    assert all(np.count_nonzero(states["v"]) > 5 for states in expected.values())
    names = [p.name for p in net.populations]
    for shuffled in itertools.islice(itertools.permutations(names), 0, None, 5):
        other = renamed(net, dict(zip(names, shuffled, strict=True)))
        order = rng.permutation(len(other.populations)), rng.permutation(len(other.projections))
        other = replace(
            other,
            populations=tuple(other.populations[i] for i in order[0]),
            projections=tuple(other.projections[i] for i in order[1]),
        )
        found = EventEngine(other).run(x, "states").states
        for name, now in zip(names[1:], shuffled[1:], strict=True):
            np.testing.assert_array_equal(found[now]["v"], expected[name]["v"])


# Parameters.


@pytest.mark.parametrize(
    ("value", "shape", "expected"),
    [
        (2.0, (3,), [2, 2, 2]),
        ([2.0], (3,), [2, 2, 2]),
        ([1.0, 2.0, 3.0], (3,), [1, 2, 3]),
        ([1.0, 2.0], (2, 1, 2), [1, 1, 2, 2]),
        ([1.0, 2.0], (2, 2, 1), [1, 1, 2, 2]),
        ([1.0, 2.0], (2, 2), [1, 1, 2, 2]),
        ([[[1.0]], [[2.0]]], (2, 1, 2), [1, 1, 2, 2]),
        ([1.0, 2.0, 3.0, 4.0], (2, 1, 2), [1, 2, 3, 4]),
        ([[[1.0, 2.0]]], (2, 1, 2), [1, 2, 1, 2]),
    ],
)
def test_parameters_are_broadcast_per_channel_or_per_neuron(value, shape, expected):
    assert per_neuron(value, shape).tolist() == expected


@pytest.mark.parametrize(
    ("size", "shape"),
    [(2, (3,)), (4, (2, 3, 4)), (3, (2, 3, 4)), (5, (2, 5)), (6, (2, 3, 4))],
)
def test_parameters_of_another_size_are_refused_even_where_numpy_would_broadcast(size, shape):
    with pytest.raises(ValueError, match=r"\("):
        per_neuron(np.ones(size), shape)


# Readout.

VALUES = np.array([[[1, 0, 5, 0], [2, 4, 0, 0], [0, 4, 1, 3]]], np.float64)


@pytest.mark.parametrize(
    ("readout", "scores", "prediction"),
    [
        (Readout(kind="count"), [3, 8, 6, 3], 1),
        (Readout(kind="vote", groups=2), [11, 9], 0),
        (Readout(kind="last"), [0, 4, 1, 3], 1),
        (Readout(kind="max"), [2, 4, 5, 3], 2),
        (Readout(kind="mean"), [1, 8 / 3, 2, 1], 1),
        (Readout(kind="count", window=(0, 1)), [1, 0, 5, 0], 2),
        (Readout(kind="last", window=(0, 2)), [2, 4, 0, 0], 1),
    ],
)
def test_readout(readout, scores, prediction):
    np.testing.assert_allclose(readout.scores(VALUES)[0], scores)
    assert readout.predict(VALUES).tolist() == [prediction]


def test_ties_go_to_the_lowest_index():
    assert Readout().predict(np.array([[[0, 1, 1]], [[0, 0, 0]]])).tolist() == [1, 0]


def test_a_window_beyond_the_run_is_refused():
    with pytest.raises(InputError, match="window ends after the last step") as caught:
        Readout(kind="last", window=(5, 8)).scores(VALUES)
    assert caught.value.used == "window (5, 8) of 3 steps"
    assert caught.value.hint == "run more steps, or choose an earlier window"


# Events and spikes.


def test_events_add_by_place_and_name():
    a = Events({("fc", "spikes"): 2, ("fc", "macs"): 0})
    b = Events({("fc", "spikes"): 3, ("out", "spikes"): 1, ("out", "myplugin:waits"): 7})
    total = a + b
    assert total["fc", "spikes"] == 5
    assert total.total("spikes") == 6
    assert total.at("out") == {"spikes": 1, "myplugin:waits": 7}
    assert total.places() == ("fc", "out")
    assert total.names() == ("spikes", "macs", "myplugin:waits")
    assert total.has("macs")
    assert not total.has("cycles")
    assert Events.sum([a, b, Events()]) == total
    assert dict(a) == {("fc", "spikes"): 2, ("fc", "macs"): 0}


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({("fc", "spike"): 1}, "unknown event 'spike'; plugins name theirs 'plugin:event'"),
        ({("fc", "spikes"): -1}, "event 'spikes' at 'fc' has a negative count"),
    ],
)
def test_events_are_known_and_not_negative(counts, message):
    with pytest.raises(ValueError, match=message):
        Events(counts)


# Text.

TEXT = """\
network dt 0.001 s, readout count, coding rate over 8 steps
  input [2x4x4] Relay() input
  n1 [3x3x3] LIF(tau_s=0.002, r=1, v_leak=0, v_threshold=[0.25..0.5], v_reset=0, reset=value)
  n2 [5] LIF(tau_s=0.002, r=1, v_leak=0, v_threshold=0.5, v_reset=0, reset=value) output
  input -> n1: Conv2d(3x2x2x2, 24 of 24 nonzero, bias)
  n1 -> n2: Pool2d(sum 2x2, padding (0, 1, 0, 1)) . Csr(5x27, 1 of 135 nonzero) delay 2 [helper]
"""


def test_text_form():
    weight = np.zeros((5, 27), np.float32)
    weight[1, 2] = 0.5
    net = row(
        (2, 4, 4),
        Conv2d(weight=np.ones((3, 2, 2, 2)), bias=np.zeros(3)),
        lif(threshold=[0.25, 0.5, 0.5]),
        Pool2d(kind="sum", kernel=(2, 2), stride=(1, 1), padding=(0, 1, 0, 1)),
        Csr.from_dense(weight),
        lif(),
        coding=Coding(kind="rate", steps=8),
    )
    first, second = net.projections
    net = replace(net, projections=(first, replace(second, delay_steps=2, helper=True)))
    assert to_text(net) == TEXT
    for cutoff, words in (((2.0, 2.0), "2"), ((2.0, 0.5, math.inf), "[0.5..inf]")):
        told = to_text(replace(net, readout=Readout(cutoff=cutoff)))
        assert told == TEXT.replace("count,", f"count with cutoff {words},")


def test_names_from_files_cannot_draw_on_the_terminal():
    net = network(
        [population("in", (1,), Relay()), population("a\x1b[31m", (1,), lif())],
        [projection("in", "a\x1b[31m", Identity())],
    )
    assert "\x1b" not in to_text(net)
    assert "a\\x1b[31m [1] LIF" in to_text(net)


def test_csr_is_what_dense_was():
    weight = grid(np.random.default_rng(2), 4, 6, density=0.3)
    csr = Csr.from_dense(weight)
    np.testing.assert_array_equal(csr.to_dense(), weight)
    assert csr.data.size == np.count_nonzero(weight)
    assert csr.data.dtype == np.float32
