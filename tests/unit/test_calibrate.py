"""Calibration: how far states really go, and what the integers make of it."""

from __future__ import annotations

import numpy as np
import pytest

from snn_deploy.backends.arithmetics import FPGA, LOIHI
from snn_deploy.engine.event import EventEngine
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.engine.reference import run_reference
from snn_deploy.ir import Coding, Dense, Readout
from snn_deploy.ir.network import per_neuron
from snn_deploy.passes.calibrate import observe
from snn_deploy.passes.pipeline import fold
from snn_deploy.passes.quantize import MARGIN, quantize
from snn_deploy.passes.reach import Reached
from snn_deploy.report.tensors import neuron_data
from tests.builders import DT, KINDS, cuba, leaky, lif, row, spikes

LAST = Readout(kind="last")
both = pytest.mark.parametrize("arithmetic", [LOIHI, FPGA], ids=lambda a: a.name)


def reached(network, sample):
    """Return by population how far the reference engine's u and v go, the latter before resets."""
    found = {}
    for name, trace in run_reference(network, sample).items():
        step, shape = network.step_of(name), network.shapes[name]

        def row(value, shape=shape):
            return per_neuron(value, shape)

        u, v = (trace[key].reshape(len(sample), -1) for key in "uv")
        past = np.concatenate([row(step.v_init)[None], v[:-1]])
        v = row(step.keep_v) * past + row(step.gain_v) * u + row(step.offset)
        # Without a state of its own, u is the current.
        current = u / row(step.gain_u) if step.has_current else u
        gain = row(step.gain_u) * row(step.gain_v)
        found[name] = (np.max(np.abs(current)), np.max(np.abs(v / gain)))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_it_sees_the_states_of_the_reference_engine_before_their_resets(kind):
    network = fold(KINDS[kind](np.random.default_rng(0)))
    x = spikes(np.random.default_rng(1), 3, 10, network.input_population.shape)
    singles = [reached(network, sample) for sample in x]
    seen = observe(network, [x])
    assert seen.keys() == singles[0].keys()
    for name, reached_here in seen.items():
        current, v = (max(s[name][i] for s in singles) for i in (0, 1))
        assert reached_here.current == pytest.approx(current, rel=1e-12)
        assert reached_here.state == pytest.approx(max(current, v), rel=1e-12)
        assert current > 0


def test_a_value_reset_is_seen_before_it_happens():
    rng = np.random.default_rng(3)
    weight, bias = rng.normal(0, 1, (5, 8)).astype("f4"), rng.normal(0, 0.2, 5).astype("f4")
    neuron = lif(4, threshold=0.3, v_leak=0.1, v_reset=-0.2, r=0.5)
    x = spikes(rng, 6, 20, (8,))
    furthest, keep, gain = 0.0, 0.75, 0.25 * 0.5
    v = np.zeros((6, 5))
    for t in range(20):
        current = x[:, t] @ weight.T.astype(float) + bias
        v = keep * v + gain * current + 0.25 * 0.1
        furthest = max(furthest, abs(v / gain).max(), abs(current).max())
        v = np.where(v > 0.3, -0.2, v)
    (seen,) = observe(row((8,), Dense(weight=weight, bias=bias), neuron), [x]).values()
    assert seen.state == pytest.approx(furthest)


@pytest.mark.parametrize("kind", ["skip", "recurrent", "delays", "conv", "per neuron"])
def test_batches_do_not_matter(kind):
    network = fold(KINDS[kind](np.random.default_rng(0)))
    x = spikes(np.random.default_rng(1), 6, 8, network.input_population.shape)
    whole = observe(network, [x])
    assert observe(network, iter([x[:1], x[1:4], x[4:]])) == whole
    assert all(reached.state > 0 for reached in whole.values())


@both
@pytest.mark.parametrize("kind", ["mlp", "mlp slow", "conv", "skip", "recurrent", "li"])
def test_calibrated_states_keep_their_margin_and_saturate_nowhere(arithmetic, kind):
    network = fold(KINDS[kind](np.random.default_rng(0)))
    x = spikes(np.random.default_rng(1), 6, 12, network.input_population.shape)
    observed = observe(network, [x])
    qnet = quantize(network, arithmetic, observed=observed)
    assert qnet.calibrated
    for name, furthest in observed.items():
        q = qnet.populations[name]
        assert MARGIN * furthest.state * q.scale * (1 << q.shift) <= arithmetic.state_max * (
            1 + 1e-9
        )
    assert FixedEngine(qnet).run(x).overflows == {"saturated": 0, "wrapped": 0}


def wide():
    """Return a layer of many inputs that almost never fire together, and sparse spikes for it."""
    rng = np.random.default_rng(4)
    weight = rng.normal(0.5, 0.05, (6, 3000)).astype("f4")
    return row((3000,), Dense(weight=weight), leaky(40), readout=LAST), spikes(
        rng, 3, 10, (3000,), 0.002
    )


def test_samples_that_stay_near_give_finer_integers_than_the_estimate():
    network, x = wide()
    estimated = quantize(network, FPGA)
    calibrated = quantize(network, FPGA, observed=observe(network, [x]))
    (before,), (after,) = estimated.tensors, calibrated.tensors
    assert after.rms_error < before.rms_error / 4
    assert FixedEngine(calibrated).run(x).overflows["saturated"] == 0
    assert not estimated.calibrated


def test_samples_say_how_large_the_currents_of_analogue_input_become():
    # The estimate takes every value for 1; these samples stay below 0.02.
    rng = np.random.default_rng(5)
    weight = rng.normal(0.5, 0.05, (6, 3000)).astype("f4")
    network = row(
        (3000,),
        Dense(weight=weight),
        lif(threshold=12.0),
        coding=Coding(kind="direct", steps=4),
    )
    x = rng.random((3, 4, 3000)) * 0.02
    estimated = quantize(network, LOIHI).injections["n1"]
    qnet = quantize(network, LOIHI, observed=observe(network, [x]))
    assert qnet.injections["n1"].scale > 10 * estimated.scale
    ints, floats = FixedEngine(qnet).run(x).output, EventEngine(network).run(x).output
    assert np.mean(ints == floats) > 0.95
    assert 0.05 < floats.mean() < 0.95


def test_a_population_that_never_moves_keeps_the_largest_unit():
    weight = np.random.default_rng(0).normal(0, 0.3, (3, 4)).astype("f4")
    network = row((4,), Dense(weight=weight), lif())
    observed = observe(network, [np.zeros((2, 5, 4), np.uint8)])
    assert observed == {"n1": Reached(current=0.0, state=0.0)}
    (report,) = quantize(network, LOIHI, observed=observed).tensors
    assert report.max_abs * report.scale == pytest.approx(254)


# What the reports say about neurons.


def test_time_constants_and_thresholds_are_reported_as_rounded():
    weight = np.random.default_rng(2).normal(0, 0.3, (4, 5)).astype("f4")
    threshold = np.array([0.31, 0.5, 0.77, 0.2])
    qnet = quantize(row((5,), Dense(weight=weight), cuba(3, 7, threshold=threshold)), LOIHI)
    v, u = neuron_data(qnet)
    q = qnet.populations["n1"]
    assert (v["state"], u["state"]) == ("v", "u")
    assert (v["tau_s"], u["tau_s"]) == pytest.approx((7 * DT, 3 * DT), rel=1e-9)
    assert u["tau_integer_s"] == pytest.approx(DT * 4096 / 1365)
    assert v["tau_integer_s"] == pytest.approx(DT * 4096 / 585)
    exact = threshold * 3 * 7 * q.scale
    assert v["threshold_error"] == pytest.approx(np.max((exact - np.floor(exact)) / exact))
    assert u["threshold_error"] is None


def test_a_leak_that_rounds_away_is_told():
    network = row((5,), Dense(weight=np.ones((2, 5), "f4")), leaky(20_000), readout=LAST)
    (only,) = neuron_data(quantize(network, LOIHI))
    assert only["tau_s"] == pytest.approx(20_000 * DT)
    assert only["tau_integer_s"] is None
    assert only["threshold_error"] is None
