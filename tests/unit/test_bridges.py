"""to_torch and to_norse: exact, trainable, movable modules; crosscheck's book-keeping."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import snn_deploy
from snn_deploy.bridges import crosscheck as crosschecks
from snn_deploy.bridges.crosscheck import crosscheck
from snn_deploy.bridges.torch_network import Recording
from snn_deploy.engine.event import EventEngine
from snn_deploy.errors import InputError, OutputError, UnsupportedError
from snn_deploy.ir import Conv2d, Dense, Readout, Relay
from snn_deploy.passes.pipeline import fold
from tests.builders import (
    KINDS,
    conv_net,
    cuba,
    grid,
    integrate_and_fire,
    leaky,
    lif,
    mlp,
    network,
    population,
    projection,
    row,
    spikes,
)

MAKERS = [snn_deploy.to_torch, snn_deploy.to_norse]


def run(module, x):
    with torch.no_grad():
        return module(torch.from_numpy(x).double().movedim(0, 1)).movedim(0, 1).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_cells_run_every_kind(kind):
    rng = np.random.default_rng(3)
    net = KINDS[kind](rng)
    x = spikes(rng, 4, 14, net.input_population.shape)
    np.testing.assert_array_equal(
        run(snn_deploy.to_torch(net, dtype=torch.float64), x), EventEngine(fold(net)).run(x).output
    )


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("shape", [(1, 6), (5, 1), (5, 6)])
def test_delays_per_source_target_and_synapse(make, shape):
    rng = np.random.default_rng(4)
    delays = rng.integers(0, 4, shape)
    net = network(
        [
            population("in", (6,), Relay()),
            population("a", (5,), lif()),
            population("out", (5,), lif(8, threshold=0.25)),
        ],
        [
            projection(
                "in", "a", Dense(weight=grid(rng, 5, 6), bias=grid(rng, 5) / 4), delay_steps=delays
            ),
            projection("a", "out", Dense(weight=grid(rng, 5, 5))),
            projection("out", "a", Dense(weight=grid(rng, 5, 5)), delay_steps=delays[:, :1]),
        ],
    )
    x = spikes(rng, 6, 20, (6,), 0.6)
    module = make(net, dtype=torch.float64)
    np.testing.assert_array_equal(run(module, x), EventEngine(fold(net)).run(x).output)
    assert module.to_network() == fold(net)


def test_several_inputs_and_outputs_are_read_by_name():
    rng = np.random.default_rng(5)
    net = network(
        [
            population("eye", (1, 3, 3), Relay()),
            population("ear", (4,), Relay()),
            population("a.b", (2, 2, 2), lif()),
            population("out", (3,), lif()),
        ],
        [
            projection("eye", "a.b", Conv2d(weight=grid(rng, 2, 1, 2, 2))),
            projection("ear", "out", Dense(weight=grid(rng, 3, 4))),
            projection("a.b", "out", Dense(weight=grid(rng, 3, 8))),
        ],
        inputs=("eye", "ear"),
        outputs=("a.b", "out"),
    )
    x = {"eye": spikes(rng, 5, 9, (1, 3, 3)), "ear": spikes(rng, 5, 9, (4,))}
    module = snn_deploy.to_torch(net, dtype=torch.float64)
    tensors = {name: torch.from_numpy(values).movedim(0, 1) for name, values in x.items()}
    recording = Recording()
    out = module(tensors, recording)
    expected = EventEngine(fold(net)).run(x, "states")
    assert out.shape == (9, 5, 11)
    np.testing.assert_array_equal(out.detach().movedim(0, 1), expected.output)
    v = torch.stack(recording.membranes["a.b"], 1)
    np.testing.assert_array_equal(v.detach(), expected.states["a.b"]["v"])
    assert "cells.a_b.threshold" in module.state_dict()

    for wrong in (tensors["eye"], {"eye": tensors["eye"]}, tensors | {"ear": tensors["ear"][1:]}):
        with pytest.raises(InputError, match="the input does not fit the network") as caught:
            module(wrong)
        assert "steps come first" in caught.value.hint
    with pytest.raises(InputError, match="the network has no input 'out'") as caught:
        module(tensors | {"out": tensors["ear"]})
    assert caught.value.hint == "its inputs: eye, ear"
    with pytest.raises(InputError) as caught:
        module(tensors | {"ear": tensors["ear"][..., None]})
    assert caught.value.where == "ear"
    assert "(9, 5, 4, 1), for (steps, batch, *(4,))" in caught.value.used


def test_the_membrane_starts_where_the_network_says():
    rng = np.random.default_rng(6)
    start = np.array([0.375, -0.5, 0.0, 0.25, 0.5])
    for make in MAKERS:
        for neuron in (lif(8, v_init=start), cuba(v_init=start), integrate_and_fire(v_init=start)):
            net = row((6,), Dense(weight=grid(rng, 5, 6)), neuron)
            x = spikes(rng, 3, 12, (6,))
            expected = EventEngine(net).run(x).output
            np.testing.assert_array_equal(run(make(net, dtype=torch.float64), x), expected)
            silent = replace(net.population("n1"), neuron=replace(neuron, v_init=None))
            other = replace(net, populations=(net.population("input"), silent))
            assert not np.array_equal(expected, EventEngine(other).run(x).output)


def test_a_module_without_parameters_runs_in_its_own_dtype():
    net = row((4,), lif())
    x = np.ones((2, 7, 4), np.uint8)
    module = snn_deploy.to_torch(net)
    assert not list(module.parameters())
    out = module(torch.from_numpy(x).movedim(0, 1))
    assert out.dtype == torch.float32
    np.testing.assert_array_equal(out.movedim(0, 1), EventEngine(fold(net)).run(x).output)


@pytest.mark.parametrize("make", MAKERS)
def test_a_module_moves_to_another_device_whole(make):
    """The meta device refuses to meet tensors of any other."""
    net = KINDS["delays"](np.random.default_rng(0))
    module = make(net).to("meta")
    out = module(torch.zeros((5, 2, 6), device="meta"))
    assert (out.device.type, out.shape) == ("meta", (5, 2, 4))


def test_gradients_of_what_never_spikes_are_the_derivatives():
    rng = np.random.default_rng(7)
    net = network(
        [
            population("in", (3,), Relay()),
            population("a", (4,), leaky()),
            population("out", (2,), leaky(8)),
        ],
        [
            projection("in", "a", Dense(weight=grid(rng, 4, 3), bias=grid(rng, 4)), delay_steps=1),
            projection("a", "a", Dense(weight=grid(rng, 4, 4))),
            projection("a", "out", Dense(weight=grid(rng, 2, 4)), delay_steps=[[0, 1, 2, 0]]),
        ],
        readout=Readout(kind="mean"),
    )
    module = snn_deploy.to_torch(net, dtype=torch.float64)
    x = torch.from_numpy(rng.random((5, 2, 3))).requires_grad_()
    assert torch.autograd.gradcheck(module, (x,))
    module(x).sum().backward()
    for parameter in module.parameters():
        assert torch.count_nonzero(parameter.grad)


def test_the_surrogate_gradient_is_as_steep_as_asked():
    net = row((1,), Dense(weight=np.array([[0.5]])), lif(1, threshold=1.0))
    for alpha in (2.0, 4.0):
        module = snn_deploy.to_torch(net, dtype=torch.float64, alpha=alpha)
        x = torch.ones((1, 1, 1), dtype=torch.float64, requires_grad=True)
        module(x).sum().backward()
        slope = alpha / 2 / (1 + (np.pi / 2 * alpha * (0.5 - 1.0)) ** 2)
        assert float(x.grad) == pytest.approx(0.5 * slope)


def test_a_module_is_a_model_to_the_rest_of_the_package(tmp_path):
    rng = np.random.default_rng(8)
    net = fold(conv_net(rng))
    module = snn_deploy.to_torch(net)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 2.0**-10
    changed = module.to_network()
    assert changed != net
    assert snn_deploy.from_torch(module) == changed
    with pytest.warns(UserWarning, match="infers a wrong shape for a grouped"):
        path = snn_deploy.save_nir(changed, tmp_path / "m.nir")
    assert snn_deploy.load_model(path) == changed
    with pytest.warns(UserWarning, match="wrong"), pytest.raises(OutputError, match="exists"):
        snn_deploy.save_nir(changed, path)
    with pytest.raises(UnsupportedError, match="a module made from a network has no") as caught:
        snn_deploy.save_ticket(module, tmp_path / "m.pt", example_input=torch.zeros(1, 2, 8, 8))
    assert "snn_deploy.save_nir(module.to_network(), path)" in caught.value.hint
    for before, after in zip(net.projections, changed.projections, strict=True):
        for a, b in zip(before.synapses, after.synapses, strict=True):
            if isinstance(a, Conv2d):
                assert np.array_equal(np.asarray(a.weight) == 0, np.asarray(b.weight) == 0)
    assert copy.deepcopy(module).to_network() == changed
    other = snn_deploy.to_torch(net)
    other.load_state_dict(module.state_dict())
    assert other.to_network() == changed


def test_an_if_that_subtracts_is_none_of_norses():
    net = row((3,), Dense(weight=np.ones((2, 3))), integrate_and_fire(reset="subtract"))
    with pytest.raises(
        UnsupportedError, match="norse has no equation for an IF that sub"
    ) as caught:
        snn_deploy.to_norse(net)
    assert caught.value.where == "n1"
    assert "snn_deploy.to_torch runs it" in caught.value.hint


# Resets and starts that one framework takes and the next does not.

BELOW_HALF = np.nextafter(0.5, 0.0)


@pytest.mark.parametrize(
    ("neuron", "able"),
    [
        # snnTorch subtracts threshold / beta; SpikingJelly and norse the threshold.
        (lif(reset="subtract", reset_amount=1.0), {"snntorch"}),
        (lif(reset="subtract"), {"norse", "spikingjelly"}),
        (integrate_and_fire(reset="subtract"), {"snntorch", "spikingjelly"}),
        (cuba(reset="subtract", reset_amount=0.5), {"snntorch"}),
        (cuba(reset="subtract"), {"spikingjelly"}),
        # What SpikingJelly's own comparison, v >= 0.5, becomes.
        (lif(threshold=BELOW_HALF, reset="subtract", reset_amount=0.5), {"spikingjelly"}),
        (
            integrate_and_fire(BELOW_HALF, reset="subtract", reset_amount=0.5),
            {"spikingjelly"},
        ),
        (cuba(threshold=BELOW_HALF, reset="subtract", reset_amount=0.5), {"spikingjelly"}),
        (cuba(v_leak=0.25), {"norse", "nir-euler"}),
        (lif(v_reset=[0.0, -0.25, 0.125, 0.0, 0.25]), {"norse", "nir-euler"}),
        (lif(v_init=0.25), {"norse", "snntorch", "spikingjelly"}),
        (lif(v_init=0.75), {"norse", "spikingjelly"}),
        (lif(threshold=-0.125), {"norse", "spikingjelly", "nir-euler"}),
        (lif(1), {"norse", "snntorch", "nir-euler"}),
        (leaky(np.array([2, 4, 8, 2, 4])), {"norse", "snntorch", "spikingjelly", "nir-euler"}),
    ],
)
def test_who_has_which_reset_and_start(neuron, able):
    rng = np.random.default_rng(9)
    bias = np.full(5, 0.25, np.float32)
    silent = "LI" in type(neuron).__name__ and not hasattr(neuron, "reset")
    readout = Readout(kind="mean" if silent else "count")
    net = row((6,), Dense(weight=grid(rng, 5, 6), bias=bias), neuron, readout=readout)
    results = crosscheck(net, spikes(rng, 10, 30, (6,), 0.5))
    ran = {r.name for r in results if r.comparison is not None}
    assert ran == able | {"onnx"}
    for result in results:
        if result.comparison is None:
            assert (result.where, bool(result.reason), bool(result.hint)) == ("n1", True, True)
            continue
        assert result.comparison.equal, (result.name, result.comparison.first)
        assert result.spikes > 100 or silent


def test_every_framework_shows_the_membrane_but_a_delayed_subtraction():
    rng = np.random.default_rng(9)
    x = spikes(rng, 4, 20, (6,), 0.5)
    for result in crosscheck(mlp(rng, 6, 5, 4), x):
        assert result.hidden == ()
        assert result.comparison.values["v"] == 4 * 20 * 9
    net = mlp(rng, 6, 5, 4, neuron=lif(reset="subtract", reset_amount=1.0))
    (result,) = crosscheck(net, x, ["snntorch"])
    assert result.hidden == ("n1", "n2")
    assert set(result.comparison.values) == {"spikes"}


# crosscheck's own book-keeping.


def test_samples_in_portions_give_the_same_result(monkeypatch):
    rng = np.random.default_rng(10)
    net = fold(mlp(rng, 8, 7, 5))
    x = spikes(rng, 7, 12, (8,))
    broken = np.array(x)
    broken[4, 5] = 1 - broken[4, 5]

    real = crosschecks.peer

    def other(name):
        judge = real(name)
        run_it = judge.run
        # Found by content, since portions come without their place.
        judge.run = lambda network, some: run_it(
            network, np.stack([broken[4] if np.array_equal(s, x[4]) else s for s in some])
        )
        return judge

    monkeypatch.setattr(crosschecks, "peer", other)
    whole = crosscheck(net, x, ["norse", "nir-euler"])
    monkeypatch.setattr(crosschecks, "_VALUES", 2 * 12 * 20)
    parts = crosscheck(net, x, ["norse", "nir-euler"])
    assert parts == whole
    assert [r.comparison.samples for r in whole] == [7, 7]
    assert [r.comparison.first.sample for r in whole] == [4, 4]
    assert not whole[0].rounding


def test_a_tie_that_rounding_decides_is_told_from_a_mistake():
    """Tenths are no binary fractions: v rounds to either side of the threshold."""
    rng = np.random.default_rng(9)
    weights = rng.integers(-5, 6, (8, 6)) / 10
    net = row((6,), Dense(weight=weights), lif(10, threshold=0.1))
    rng = np.random.default_rng(1)
    (result,) = crosscheck(net, spikes(rng, 60, 40, (6,)), ["norse"])
    assert result.comparison.mismatches["spikes"] > 0
    assert result.margin < 1e-15
    assert result.rounding


def test_silence_is_named():
    quiet, readout = Dense(weight=-np.ones((3, 4))), Readout(kind="mean")
    net = row((4,), quiet, lif(), Dense(weight=np.ones((2, 3))), leaky(), readout=readout)
    (result,) = crosscheck(net, np.ones((2, 5, 4)), ["nir-euler"])
    assert result.comparison.equal
    assert (result.silent, result.spikes) == (("n1",), 0)
