"""What lowering to Loihi makes of loops, delays, resets, analogue input and single bits."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from snn_deploy.backends.base import Options
from snn_deploy.backends.loihi.decode import decode
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.device.load import load
from snn_deploy.engine.event import EventEngine
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir import Coding, Conv2d, Dense, Diagonal, Relay
from tests.builders import cuba, grid, lif, network, population, projection, row, spikes

TARGET = LoihiTarget()


def lowered(net, device="loihi1", **options):
    return prepare(net, TARGET, Options(device=load(device), **options))


def same_as_its_integers(program, x):
    """Assert that the program's own numbers run as the integers that it was lowered from."""
    ours = FixedEngine(program.qnet).run(x, "states")
    theirs = TARGET.run(program, x, "states")
    for name, states in ours.states.items():
        for variable, values in states.items():
            np.testing.assert_array_equal(values, theirs.states[name][variable])
    return ours


def refused(net, device="loihi1", **options):
    with pytest.raises(UnsupportedError) as caught:
        lowered(net, device, **options)
    assert caught.value.exit_code == 4
    return caught.value


def looped(back_delay: int, *, hidden_delay: int = 0):
    """in -> a -> b -> a: the way back takes one step and ``back_delay`` more."""
    rng = np.random.default_rng(3)
    return network(
        [population("in", (4,), Relay()), *(population(n, (4,), lif()) for n in ("a", "b"))],
        [
            projection("in", "a", Dense(weight=grid(rng, 4, 4))),
            projection("a", "b", Dense(weight=grid(rng, 4, 4)), delay_steps=hidden_delay),
            projection("b", "a", Dense(weight=grid(rng, 4, 4)), delay_steps=back_delay),
        ],
    )


# Depths.


def test_a_loop_as_long_as_its_hops_runs():
    program = lowered(looped(1))
    assert [p.depth for p in program.payload.populations] == [1, 2]
    assert {s.name: s.delay_steps for s in program.payload.synapses} == {
        "in-a": 0,
        "a-b": 0,
        "b-a": 0,
    }
    x = spikes(np.random.default_rng(0), 3, 8, (4,))
    assert same_as_its_integers(program, x).counts["b"].sum() > 0


def test_a_loop_shorter_than_its_hops_is_refused_with_the_delay_that_it_needs():
    error = refused(looped(0))
    assert error.message == "a loop is shorter than its hops: every synapse takes a step on Loihi"
    assert error.where == "b-a"
    assert error.used == "a -> b -> a: 2 hops, and 1 step until it acts again"
    assert error.hint == (
        "let b -> a take 2 steps instead of 1 (a Delay of 1 step on that edge) and train it so"
    )


def test_a_population_that_feeds_itself_needs_no_delay():
    rng = np.random.default_rng(4)
    net = network(
        [population("in", (3,), Relay()), population("a", (3,), lif())],
        [
            projection("in", "a", Dense(weight=grid(rng, 3, 3))),
            projection("a", "a", Dense(weight=grid(rng, 3, 3))),
        ],
    )
    program = lowered(net)
    assert program.payload.depth == 1
    same_as_its_integers(program, spikes(rng, 2, 8, (3,)))


def test_a_delay_takes_the_place_of_a_hop():
    program = lowered(looped(0, hidden_delay=1))
    assert program.payload.depth == 1
    assert all(s.delay_steps == 0 for s in program.payload.synapses)


def test_delays_per_synapse_stay_with_their_synapses():
    rng = np.random.default_rng(5)
    delays = np.array([[0, 3], [5, 1], [2, 0]])
    weight = np.array([[1.0, 0.5], [0.0, -0.5], [0.25, 1.0]], np.float32)
    net = network(
        [population("in", (2,), Relay()), population("a", (3,), lif())],
        [projection("in", "a", Dense(weight=weight), delay_steps=delays)],
    )
    program = lowered(net)
    (synapses,) = program.payload.synapses
    assert synapses.delay_steps.tolist() == [0, 3, 1, 2, 0]
    same_as_its_integers(program, spikes(rng, 2, 10, (2,)))


@pytest.mark.parametrize("depth", [62, 63])
def test_a_path_may_wait_62_steps(depth):
    chain = [population(f"n{i}", (1,), lif()) for i in range(depth + 1)]
    one = Dense(weight=np.ones((1, 1), np.float32))
    edges = [projection(a.name, b.name, one) for a, b in pairwise(chain)]
    net = network(
        [population("in", (1,), Relay()), *chain],
        [projection("in", "n0", one), *edges, projection("in", f"n{depth}", one)],
    )
    if depth == 62:
        assert lowered(net).payload.synapses[-1].delay_steps == 62
        return
    error = refused(net)
    assert error.message == "a synapse would have to wait longer than Loihi can"
    assert error.where == "in-n63"
    assert error.used == "63 of 62 steps, 63 of them so that all paths arrive together"
    assert error.hint == "shorten the delay, or let a relay population carry the path"


# Neurons.


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"reset": "subtract"}, "resets by subtraction"),
        ({"v_reset": -0.5}, "resets to another value than 0"),
        ({"v_init": np.array(0.25)}, "starts at another membrane than 0"),
    ],
)
def test_other_resets_and_starts_need_loihi2(changes, what):
    rng = np.random.default_rng(6)
    net = row((4,), Dense(weight=grid(rng, 4, 4)), lif(**changes))
    error = refused(net)
    assert error.message == f"a neuron {what}, and those of loihi1 reset to 0 and start at 0"
    assert error.where == "n1"
    assert error.hint == (
        "train with value reset at 0 (reset='value', v_reset=0), or use a programmable neuron: "
        "--device loihi2 (simulator only)"
    )
    program = lowered(net, "loihi2")
    assert program.payload.population("n1").programmed
    same_as_its_integers(program, spikes(rng, 2, 8, (4,)))


def test_a_bias_before_a_synaptic_current_comes_from_a_neuron():
    rng = np.random.default_rng(7)
    bias = np.array([0.5, -0.25, 1.75], np.float32)
    net = row((4,), Dense(weight=grid(rng, 3, 4), bias=bias), cuba())
    program = lowered(net)
    x = spikes(rng, 2, 12, (4,))
    ours = same_as_its_integers(program, x)
    assert ours.spikes["n1.bias"].shape == (2, 12, 2)  # 1.75 in two parts: weights are below 1
    assert ours.spikes["n1.bias"].all()
    assert program.payload.population("n1.bias").depth == 0
    events = TARGET.run(program, x).events
    assert events.at("n1.bias.weight") == {"synops_helper": 2 * 12 * 2 * 3, "packets": 2 * 12 * 2}
    # And what it computes is what the network says: membranes within rounding of the integers.
    real = EventEngine(net).run(x, "states").states["n1"]["v"]
    q = program.qnet.populations["n1"]
    gain = float(net.step_of("n1").gain_u * net.step_of("n1").gain_v)
    early = ours.states["n1"]["v"][:, 0] / (q.scale * (1 << q.shift)) * gain
    np.testing.assert_allclose(early, real[:, 0], atol=0.02)


# Analogue input.


def direct(net, steps=6):
    return replace(net, coding=Coding(kind="direct", steps=steps))


@pytest.mark.parametrize("neuron", [lif(), cuba(threshold=0.5)])
def test_the_host_injects_what_the_weights_make_of_values(neuron):
    rng = np.random.default_rng(8)
    bias = rng.normal(0, 0.2, 5).astype(np.float32)
    net = direct(row((4,), Dense(weight=grid(rng, 5, 4, fine=True), bias=bias), neuron))
    program = lowered(net)
    assert not program.payload.synapses
    assert program.payload.population("n1").injected
    x = rng.random((3, 6, 4))
    ours = same_as_its_integers(program, x)
    real = EventEngine(net).run(x, "states")
    q = program.qnet.populations["n1"]
    step = net.step_of("n1")
    membrane = (
        ours.states["n1"]["v"] / (q.scale * (1 << q.shift)) * float(step.gain_u * step.gain_v)
    )
    same = ours.spikes["n1"] == real.spikes["n1"]
    assert same.mean() > 0.9
    # Until spikes differ, what is left is rounding.
    until = np.cumprod(same.all(axis=2), axis=1).astype(bool)
    np.testing.assert_allclose(membrane[until], real.states["n1"]["v"][until], atol=0.01)


@pytest.mark.parametrize("delay", [2, np.array([[0, 3, 1, 0], [1, 0, 2, 5]])])
def test_what_the_host_injects_keeps_its_delays(delay):
    rng = np.random.default_rng(12)
    net = direct(
        network(
            [population("in", (4,), Relay()), population("a", (2,), lif(threshold=50.0))],
            [projection("in", "a", Dense(weight=grid(rng, 2, 4, fine=True)), delay_steps=delay)],
        )
    )
    program = lowered(net)
    x = rng.random((2, 6, 4))
    ours = same_as_its_integers(program, x).states["a"]["v"]
    real = EventEngine(net).run(x, "states").states["a"]["v"]
    q, step = program.qnet.populations["a"], net.step_of("a")
    unit = float(step.gain_u * step.gain_v) / (q.scale * (1 << q.shift))
    assert abs(real).max() > 0.1
    np.testing.assert_allclose(ours * unit, real, atol=2 / q.scale)


def test_a_current_beyond_the_bias_register_is_refused():
    net = direct(row((2,), Dense(weight=np.ones((1, 2), np.float32)), lif()))
    program = lowered(net)
    TARGET.run(program, np.ones((1, 6, 2)))
    with pytest.raises(UnsupportedError) as caught:
        TARGET.run(program, np.full((1, 6, 2), 900.0))
    error = caught.value
    assert error.message == "a current that the host injects does not fit the 13-bit bias register"
    assert error.where == "n1"
    assert "range -4,096 to 4,095" in error.used
    assert error.hint == (
        "scale the input to values between 0 and 1, or give samples of it: --calibrate X.npz"
    )


def test_graded_spikes_carry_values():
    rng = np.random.default_rng(9)
    net = direct(row((4,), Dense(weight=grid(rng, 5, 4, fine=True)), lif()))
    error = refused(net, analogue="graded")
    assert error.message == "the spikes of loihi1 carry no values"
    assert error.hint == (
        "let the host inject the currents (--analogue bias), or use --device loihi2"
    )
    program = lowered(net, "loihi2", analogue="graded")
    (synapses,) = program.payload.synapses
    assert synapses.payload_bits == 24
    level = program.qnet.levels["input"]
    assert level >= 16
    (tensor,) = program.qnet.tensors  # in the weights' own unit, whatever the level
    (weight,) = (p.synapses[0].weight for p in net.projections)
    assert tensor.max_abs == abs(weight).max()
    stored = synapses.weights << synapses.exponent
    np.testing.assert_allclose(
        stored / (tensor.scale * (1 << synapses.exponent)),
        weight[weight != 0] if stored.ndim == 1 else weight,
        atol=tensor.max_error * 1.001,
    )
    x = rng.random((3, 6, 4))
    ours = same_as_its_integers(program, x)
    real = EventEngine(net).run(x, "spikes")
    assert (ours.spikes["n1"] == real.spikes["n1"]).mean() > 0.9


def test_a_scale_alone_can_be_graded():
    net = direct(row((3,), Diagonal(scale=np.array([0.5, 1.0, 0.75])), lif(threshold=0.3)))
    program = lowered(net, "loihi2", analogue="graded")
    ours = same_as_its_integers(program, np.random.default_rng(1).random((2, 6, 3)))
    assert ours.counts["n1"].sum() > 0


# Weights.


@pytest.mark.parametrize(
    "operator",
    [
        Dense(weight=np.array([[1.0, -1.0, 0.0], [0.9, 0.0, 1.1]], np.float32)),
        Conv2d(weight=np.array([[[[1.0, -1.0]]], [[[0.9, 1.1]]]], np.float32)),
    ],
)
def test_one_bit_of_both_signs_is_stored_apart(operator):
    shape = (3,) if isinstance(operator, Dense) else (1, 2, 3)
    program = lowered(row(shape, operator, lif()), bits=1)
    parts = {s.name: s for s in program.payload.synapses}
    assert set(parts) == {"w1.excitatory", "w1.inhibitory"}
    for name, part in parts.items():
        assert part.weight_bits == 1
        values = set(np.unique(part.weights[part.weights != 0]).tolist())
        assert values == ({128} if name.endswith("excitatory") else {-128})
    assert len(decode(program.payload, program.qnet).network.projections) == 2
    same_as_its_integers(program, spikes(np.random.default_rng(2), 2, 8, shape))
