"""The corners of Loihi's arithmetic, by hand, in the integer engine and in Lava.

Each case names the numbers that must come out; both have to give them.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from snn_deploy.backends.base import Options, Program
from snn_deploy.backends.loihi.decode import decode
from snn_deploy.backends.loihi.oracle import LavaOracle
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.device.load import load
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.ir import Dense, Relay
from snn_deploy.ir.synapses import with_weights
from tests.builders import integrate_and_fire, network, population, projection

TOP = (1 << 23) - 1
NEVER = (1 << 17) - 1
TARGET = LoihiTarget()


def program(
    weights: dict[str, Any], delays: dict[str, int] | None = None, **integers: Any
) -> Program:
    """Return populations a, b, ... of one neuron; weights: "in-a" and so on -> mantissa.

    integers: of every population (du, dv as the shares that are lost), in their registers' units.
    """
    names = sorted({name for edge in weights for name in edge.split("-")} - {"in"})
    neuron = integrate_and_fire(threshold=1.0)
    one = Dense(weight=np.ones((1, 1), np.float32))
    net = network(
        [population("in", (1,), Relay()), *(population(n, (1,), neuron) for n in names)],
        [
            projection(*edge.split("-"), one, name=edge, delay_steps=(delays or {}).get(edge, 0))
            for edge in weights
        ],
    )
    made = prepare(net, TARGET, Options(device=load("loihi2")))
    assert made.qnet is not None
    exact = tuple(
        replace(
            p,
            synapses=(with_weights(p.synapses[0], np.array([[weights[p.name]]], np.int32), None),),
        )
        for p in made.qnet.network.projections
    )
    values = {name: np.asarray(value, np.int64) for name, value in integers.items()}
    qnet = replace(
        made.qnet,
        network=replace(made.qnet.network, projections=exact),
        populations={
            name: replace(q, **values)  # type: ignore[arg-type]
            for name, q in made.qnet.populations.items()
        },
    )
    return TARGET.lower(made.real, qnet, Options(device=load("loihi2")))


def shifted(made: Program, exponent: int) -> Program:
    """Return the program with its weights shifted left."""
    synapses = tuple(replace(s, exponent=exponent) for s in made.payload.synapses)
    return replace(made, payload=replace(made.payload, synapses=synapses))


def both(made: Program, x: list[int]) -> dict[str, dict[str, list[int]]]:
    """Return u, v and spikes of every population, after requiring Lava's to be ours."""
    given = np.array(x, np.uint8)[None, :, None]
    ours = FixedEngine(decode(made.payload, made.qnet)).run(given, "states")
    judge = LavaOracle(timeout_s=120).run(made, given)
    found: dict[str, dict[str, list[int]]] = {}
    for p in made.payload.populations:
        tables = {**ours.states[p.name], "spikes": ours.spikes[p.name]}
        theirs = {**judge.states[p.name], "spikes": judge.spikes[p.name]}
        for name, values in tables.items():
            np.testing.assert_array_equal(theirs[name], values, err_msg=f"{p.name} {name}")
        found[p.name] = {name: values[0, :, 0].tolist() for name, values in tables.items()}
    return found


def test_layers_act_in_the_same_step_once_aligned(lava):
    """Three synapses take three steps on the chip, and none between aligned steps."""
    found = both(program({"in-a": 2, "a-b": 2, "b-c": 2}, threshold=1, decay_v=4096), [0, 1, 0, 1])
    assert [found[n]["spikes"] for n in "abc"] == [[0, 1, 0, 1]] * 3


def test_a_neuron_that_feeds_itself_does_so_one_step_later(lava):
    made = program({"in-a": 2, "a-a": 2}, threshold=1, decay_v=4096)
    assert both(made, [0, 1, 0, 0, 0])["a"]["spikes"] == [0, 1, 1, 1, 1]
    late = program({"in-a": 2, "a-a": 2}, {"a-a": 2}, threshold=1, decay_v=4096)
    assert both(late, [1, 0, 0, 0, 0, 0, 0])["a"]["spikes"] == [1, 0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize("sign", [1, -1])
def test_decays_round_toward_zero(lava, sign):
    """3 << 6 = 192, then x * 4000 >> 12 of the magnitude, for either sign."""
    made = program({"in-a": 3 * sign}, threshold=NEVER, decay_v=96, decay_u=4096)
    expected = [192]
    for _ in range(4):
        expected.append(expected[-1] * 4000 >> 12)
    assert both(made, [1, 0, 0, 0, 0])["a"]["v"] == [sign * v for v in expected]
    made = program({"in-a": 3 * sign}, threshold=NEVER, decay_v=4096, decay_u=96)
    assert both(made, [1, 0, 0, 0, 0])["a"]["u"] == [sign * u for u in expected]


def test_a_state_of_one_is_lost_by_the_smallest_decay(lava):
    """1 * 4095 >> 12 is 0: rounding toward zero forgets what is left at last."""
    made = program({"in-a": 1}, threshold=NEVER, decay_v=1)
    v = both(made, [1, *[0] * 70])["a"]["v"]
    assert v[0] == 64
    assert v[-1] == 0
    assert all(b == a - 1 for a, b in pairwise(v) if a)


def test_the_current_wraps_at_its_ends(lava):
    """255 << 7 << 6 four times is 8,355,840; the fifth passes 2^23 and comes out below 0."""
    made = shifted(program({"in-a": 255}, threshold=NEVER, decay_u=0, decay_v=4096), 7)
    step = 255 << 13
    u = both(made, [1] * 6)["a"]["u"]
    assert u[:4] == [step * k for k in range(1, 5)]
    assert u[4] == 5 * step - (1 << 24)
    assert u[5] == 6 * step - (1 << 24)
    made = shifted(program({"in-a": -255}, threshold=NEVER, decay_u=0, decay_v=4096), 7)
    assert both(made, [1] * 6)["a"]["u"] == [-value for value in u]


def test_the_membrane_saturates_at_its_ends(lava):
    up = shifted(program({"in-a": 255}, threshold=NEVER, decay_u=4096, decay_v=0), 7)
    step = 255 << 13
    # The largest threshold is NEVER << 6 = 8,388,544: at the very end the neuron does fire.
    found = both(up, [1] * 5)["a"]
    assert found["v"] == [step, 2 * step, 3 * step, 4 * step, 0]
    assert found["spikes"] == [0, 0, 0, 0, 1]
    down = shifted(program({"in-a": -255}, threshold=NEVER, decay_u=4096, decay_v=0), 7)
    assert both(down, [1] * 6)["a"]["v"] == [-step, -2 * step, -3 * step, -4 * step, -TOP, -TOP]


def test_a_tie_with_the_threshold_is_no_spike(lava):
    tie = both(program({"in-a": 25}, threshold=25, decay_v=4096), [1, 1])["a"]
    assert (tie["spikes"], tie["v"]) == ([0, 0], [25 << 6] * 2)
    over = both(program({"in-a": 26}, threshold=25, decay_v=4096), [1, 1])["a"]
    assert (over["spikes"], over["v"]) == ([1, 1], [0, 0])


def test_what_is_subtracted_saturates_too(lava):
    made = program({"in-a": 2}, threshold=1, decay_v=0, reset_amount=TOP)
    populations = {n: replace(q, reset="subtract") for n, q in made.qnet.populations.items()}
    qnet = replace(made.qnet, populations=populations)
    made = TARGET.lower(made.real, qnet, Options(device=load("loihi2")))
    assert both(made, [1, 0, 1])["a"]["v"] == [128 - TOP, 128 - TOP, 256 - TOP]
    value = program({"in-a": 2}, threshold=1, decay_v=0, v_reset=-TOP)
    assert both(value, [1, 1, 0])["a"]["v"] == [-TOP, 128 - TOP, 128 - TOP]


def test_a_bias_starts_with_the_sample_and_not_before(lava):
    """c is three steps late; its bias must not have worked for three steps when it starts."""
    made = program({"in-a": 2, "a-b": 2, "b-c": 2}, threshold=100, decay_v=0, bias=30)
    found = both(made, [0] * 5)
    for name in "abc":
        assert found[name]["v"] == [1920, 3840, 5760, 0, 1920]
