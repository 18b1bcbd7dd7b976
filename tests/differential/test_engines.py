"""The fast float engine against the obvious one, against norse, and its matrices against torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.base import Options
from snn_deploy.backends.cpu.norse_oracle import NorseOracle
from snn_deploy.backends.cpu.target import CpuTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.backends.verify import verify
from snn_deploy.engine.event import EventEngine
from snn_deploy.engine.operators import chain_bias, chain_matrix
from snn_deploy.engine.reference import run_reference
from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.ir import Conv1d, Conv2d, Csr, Dense, Diagonal, Pool2d, Relay, Threshold
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

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("kind", KINDS)
def test_event_engine_equals_the_reference(kind):
    fired = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        net = KINDS[kind](rng)
        x = spikes(rng, 2, 12, net.input_population.shape)
        trace = EventEngine(net).run(x, "states")
        for sample in range(2):
            expected = run_reference(net, x[sample])
            for name, values in expected.items():
                np.testing.assert_array_equal(trace.spikes[name][sample], values["z"], name)
                for variable, states in trace.states[name].items():
                    np.testing.assert_allclose(
                        states[sample], values[variable], rtol=0, atol=1e-12, err_msg=name
                    )
                fired += np.count_nonzero(values["z"])
    assert fired > 20


def test_a_membrane_at_its_threshold_does_not_fire():
    rng = np.random.default_rng(0)
    net = mlp(rng, 12, 20, neuron=lif(threshold=0.5))
    trace = EventEngine(net).run(spikes(rng, 40, 12, (12,)), "states")
    ties = trace.states["n1"]["v"] == 0.5
    assert np.count_nonzero(ties) > 20
    assert not np.any(trace.spikes["n1"][ties])


def test_samples_do_not_see_each_other():
    rng = np.random.default_rng(1)
    for kind in ("conv", "recurrent", "delays"):
        net = KINDS[kind](rng)
        x = spikes(rng, 5, 9, net.input_population.shape)
        together = EventEngine(net).run(x).output
        for i in range(5):
            np.testing.assert_array_equal(EventEngine(net).run(x[i : i + 1]).output[0], together[i])


def test_delays_per_synapse_equal_one_projection_per_delay():
    rng = np.random.default_rng(2)
    weight, delay = grid(rng, 5, 6), rng.integers(0, 4, (5, 6))
    ends = [population("in", (6,), Relay()), population("out", (5,), lif())]
    array = network(ends, [projection("in", "out", Dense(weight=weight), delay_steps=delay)])
    apart = network(
        ends,
        [
            projection(
                "in",
                "out",
                Dense(weight=np.where(delay == d, weight, 0).astype(np.float32)),
                name=f"late {d}",
                delay_steps=d,
            )
            for d in range(4)
        ],
    )
    x = spikes(rng, 4, 12, (6,))
    a, b = EventEngine(array).run(x, "states"), EventEngine(apart).run(x, "states")
    np.testing.assert_array_equal(a.states["out"]["v"], b.states["out"]["v"])
    assert a.counts["out"].sum() > 10


def test_a_projection_back_brings_the_last_step():
    net = network(
        [population("in", (1,), Relay()), population("a", (1,), Threshold(threshold=0.5))],
        [
            projection("in", "a", Dense(weight=np.array([[1.0]]))),
            projection("a", "a", Dense(weight=np.array([[1.0]]))),
        ],
    )
    x = np.zeros((1, 5, 1), np.uint8)
    x[0, 1] = 1
    assert EventEngine(net).run(x).output[0, :, 0].tolist() == [0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("x", "message", "hint"),
    [
        (np.zeros((2, 3, 5)), "input has shape (2, 3, 5)", "samples, steps"),
        (np.zeros((2, 0, 6)), "input has no time steps", "at least one step"),
        (np.zeros((0, 3, 6)), "input has no samples", None),
    ],
)
def test_input_of_another_shape_is_refused(x, message, hint):
    engine = EventEngine(mlp(np.random.default_rng(0), 6, 4))
    with pytest.raises(InputError) as caught:
        engine.run(x)
    assert message in caught.value.message
    assert hint is None or hint in caught.value.hint


def test_several_outputs_stand_side_by_side():
    rng = np.random.default_rng(0)
    net = replace(KINDS["skip"](rng), outputs=("b", "out"))
    x = spikes(rng, 3, 12, (6,))
    trace = EventEngine(net).run(x, "spikes")
    assert trace.output.any()
    np.testing.assert_array_equal(trace.output[..., :5], trace.spikes["b"])
    np.testing.assert_array_equal(trace.output[..., 5:], trace.spikes["out"])


def two_inputs(rng):
    return network(
        [
            population("left", (4,), Relay()),
            population("right", (2, 3), Relay()),
            population("out", (5,), lif()),
        ],
        [
            projection("left", "out", Dense(weight=grid(rng, 5, 4))),
            projection("right", "out", Dense(weight=grid(rng, 5, 6)), delay_steps=1),
        ],
        inputs=("left", "right"),
    )


def test_several_inputs_are_given_by_name():
    rng = np.random.default_rng(1)
    net = two_inputs(rng)
    x = {"left": spikes(rng, 3, 12, (4,)), "right": spikes(rng, 3, 12, (2, 3))}
    trace = EventEngine(net).run(x, "states")
    for sample in range(3):
        ours = run_reference(net, {name: values[sample] for name, values in x.items()})
        assert ours["out"]["z"].any()
        np.testing.assert_array_equal(trace.spikes["out"][sample], ours["out"]["z"])
        np.testing.assert_array_equal(trace.states["out"]["v"][sample], ours["out"]["v"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"left": x["left"]}, "the arrays are not those of the network's inputs"),
        (lambda x: {**x, "left": x["left"][:1]}, "different numbers of samples or steps"),
        (lambda x: {**x, "left": x["left"][..., 1:]}, "the network takes"),
        (lambda x: x["left"], "2 inputs, one is needed here"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, message):
    rng = np.random.default_rng(2)
    x = {"left": spikes(rng, 2, 4, (4,)), "right": spikes(rng, 2, 4, (2, 3))}
    with pytest.raises(InputError, match=message) as caught:
        EventEngine(two_inputs(rng)).run(change(x))
    assert caught.value.hint


def delayed(rng, delay):
    return network(
        [population("in", (6,), Relay()), population("out", (4,), lif())],
        [
            projection(
                "in",
                "out",
                Dense(weight=grid(rng, 4, 6), bias=grid(rng, 4) / 8),
                delay_steps=delay,
            )
        ],
    )


@pytest.mark.parametrize(
    "delay",
    [np.arange(6)[None] % 4, np.arange(4)[:, None], np.arange(24).reshape(4, 6) % 5],
    ids=["per source", "per target", "per synapse"],
)
def test_delays_of_their_own(delay):
    rng = np.random.default_rng(6)
    net = delayed(rng, delay)
    x = spikes(rng, 2, 14, (6,), 0.7)
    trace = EventEngine(net).run(x, "states")
    assert trace.output.any()
    for sample in range(2):
        ours = run_reference(net, x[sample])
        np.testing.assert_array_equal(trace.states["out"]["v"][sample], ours["out"]["v"])


def test_delays_keep_their_smallest_form():
    rng = np.random.default_rng(4)
    assert delayed(rng, np.full((4, 6), 2)).projections[0].delay_steps == 2
    for per, shape in ((np.arange(6)[None], (1, 6)), (np.arange(4)[:, None], (4, 1))):
        made = delayed(rng, np.broadcast_to(per, (4, 6))).projections[0].delay_steps
        assert made.shape == shape
    with pytest.raises(InputError, match=r"delays of shape \(3, 1\) do not fit") as caught:
        delayed(rng, np.arange(3)[:, None])
    assert "one per presynaptic or postsynaptic neuron" in caught.value.hint


def test_membranes_start_where_they_are_told():
    rng = np.random.default_rng(5)
    net = mlp(rng, 6, 5, 4, neuron=lif(8, v_init=0.375))
    x = spikes(rng, 3, 10, (6,))
    trace = EventEngine(net).run(x, "states")
    ours = run_reference(net, x[0])
    np.testing.assert_array_equal(trace.states["n2"]["v"][0], ours["n2"]["v"])
    at_rest = EventEngine(mlp(np.random.default_rng(5), 6, 5, 4, neuron=lif(8)))
    assert np.any(at_rest.run(x, "states").states["n1"]["v"] != trace.states["n1"]["v"])


# norse: the same network through another framework's equations and torch's layers.

NORSE = [
    "mlp",
    "mlp slow",
    "subtract",
    "leak and reset",
    "if",
    "if physical",
    "cuba",
    "threshold",
    "per neuron",
    "per channel",
    "li",
    "cuba li",
    "sums",
    "conv",
    "conv dilated",
    "conv1d",
    "pools",
    "skip",
    "recurrent",
    "delays",
    "forced feedback",
]


def judged(net, x):
    target = CpuTarget()
    return verify(target, prepare(net, target, Options()), x, oracle=NorseOracle()).proof


@pytest.mark.parametrize("kind", NORSE)
def test_norse_agrees(kind):
    pytest.importorskip("norse")
    rng = np.random.default_rng(7)
    net = KINDS[kind](rng)
    proof = judged(net, spikes(rng, 6, 12, net.input_population.shape))
    assert proof.equal, proof.first
    assert proof.judge.startswith("norse ")
    assert proof.tolerance == 1e-9
    assert proof.values["v"] > 100


@pytest.mark.parametrize(
    ("neuron", "steps"),
    [(lif(), 20), (lif(8, threshold=0.0625), 14), (cuba(), 20), (integrate_and_fire(), 20)],
)
def test_norse_agrees_on_ten_thousand_spikes(neuron, steps):
    pytest.importorskip("norse")
    rng = np.random.default_rng(3)
    net = mlp(rng, 40, 60, 40, 10, neuron=neuron, fine=True)
    x = spikes(rng, 24, steps, (40,), 0.4)
    total = sum(c.sum() for n, c in EventEngine(net).run(x).counts.items() if n != "input")
    assert total >= 10_000
    proof = judged(net, x)
    assert proof.mismatches == {"spikes": 0, "v": 0}
    assert proof.values["spikes"] == 24 * steps * 110


def test_norse_agrees_on_a_convolutional_network():
    pytest.importorskip("norse")
    rng = np.random.default_rng(4)
    net = conv_net(rng)
    x = spikes(rng, 20, 14, (2, 8, 8), 0.5)
    total = sum(c.sum() for n, c in EventEngine(net).run(x).counts.items() if n != "input")
    assert total >= 10_000
    assert judged(net, x).mismatches == {"spikes": 0, "v": 0}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("amount", "norse subtracts the threshold on reset"),
        ("integrator", "norse has no equation for Integrator"),
    ],
)
def test_what_norse_cannot_judge_is_named(kind, message):
    pytest.importorskip("norse")
    rng = np.random.default_rng(0)
    net = KINDS[kind](rng)
    with pytest.raises(UnsupportedError, match=message) as caught:
        judged(net, spikes(rng, 1, 3, net.input_population.shape))
    assert caught.value.where == "n1"
    assert "so does the float engine" in caught.value.hint


def test_norse_judges_delays_per_synapse_of_a_matrix_only():
    pytest.importorskip("norse")
    rng = np.random.default_rng(0)
    delays = rng.integers(0, 4, (4, 6))

    def made(shape, synapse, out):
        return network(
            [population("in", shape, Relay()), population("out", out, lif())],
            [projection("in", "out", synapse, delay_steps=delays)],
        )

    net = made((6,), Dense(weight=grid(rng, 4, 6), bias=grid(rng, 4) / 4), (4,))
    assert judged(net, spikes(rng, 3, 12, (6,))).mismatches == {"spikes": 0, "v": 0}
    conv = made((1, 6), Conv1d(weight=grid(rng, 1, 1, 3)), (1, 4))
    with pytest.raises(UnsupportedError, match="no torch layer but a matrix") as caught:
        judged(conv, spikes(rng, 1, 3, (1, 6)))
    assert caught.value.where == "in-out"
    assert "one delay per source or target neuron" in caught.value.hint


# Matrices against torch's own operators.

RNG = np.random.default_rng(11)
CHAINS = {
    "dense": ((7,), (Dense(weight=grid(RNG, 4, 7), bias=grid(RNG, 4)),)),
    "csr": ((2, 3), (Csr.from_dense(grid(RNG, 4, 6, density=0.3), grid(RNG, 4)),)),
    "conv": ((3, 6, 5), (Conv2d(weight=grid(RNG, 4, 3, 3, 2), bias=grid(RNG, 4)),)),
    "conv stride": (
        (4, 7, 6),
        (Conv2d(weight=grid(RNG, 6, 2, 2, 3), stride=(3, 2), padding=(1, 2, 0, 1), groups=2),),
    ),
    "conv dilated": (
        (2, 9, 8),
        (Conv2d(weight=grid(RNG, 2, 1, 3, 3), dilation=(3, 2), padding=(2,) * 4, groups=2),),
    ),
    "conv1d": (
        (4, 10),
        (
            Conv1d(
                weight=grid(RNG, 6, 2, 3),
                bias=grid(RNG, 6),
                stride=2,
                padding=(2, 1),
                dilation=2,
                groups=2,
            ),
        ),
    ),
    "sum pool": ((2, 7, 5), (Pool2d(kind="sum", kernel=(3, 2), stride=(2, 1)),)),
    "avg pool": (
        (2, 7, 5),
        (Pool2d(kind="avg", kernel=(2, 2), stride=(2, 2), padding=(1, 0, 1, 2)),),
    ),
    "long": (
        (2, 8, 8),
        (
            Diagonal(scale=grid(RNG, 2, 1, 1)),
            Conv2d(weight=grid(RNG, 4, 2, 3, 3), bias=grid(RNG, 4)),
            Pool2d(kind="avg", kernel=(2, 2), stride=(2, 2)),
            Dense(weight=grid(RNG, 5, 36), bias=grid(RNG, 5)),
        ),
    ),
}


def by_torch(synapse, x):
    """Apply torch's operator to (batch, *shape), written apart from the norse oracle."""
    F = torch.nn.functional
    put = lambda a: None if a is None else torch.from_numpy(np.array(a, np.float64))
    if isinstance(synapse, Dense | Csr):
        weight = synapse.weight if isinstance(synapse, Dense) else synapse.to_dense()
        return F.linear(x.flatten(1), put(weight), put(synapse.bias))
    if isinstance(synapse, Diagonal):
        return x * put(synapse.scale)
    if isinstance(synapse, Conv1d):
        how = (synapse.stride, 0, synapse.dilation, synapse.groups)
        return F.conv1d(F.pad(x, synapse.padding), put(synapse.weight), put(synapse.bias), *how)
    top, bottom, left, right = synapse.padding
    x = F.pad(x, (left, right, top, bottom))
    if isinstance(synapse, Pool2d):
        area = synapse.kernel[0] * synapse.kernel[1] if synapse.kind == "sum" else 1
        return F.avg_pool2d(x, synapse.kernel, synapse.stride) * area
    how = (synapse.stride, 0, synapse.dilation, synapse.groups)
    return F.conv2d(x, put(synapse.weight), put(synapse.bias), *how)


@pytest.mark.parametrize("name", CHAINS)
def test_matrix_and_bias_of_a_chain_equal_torch(name):
    shape, chain = CHAINS[name]
    net = row(shape, *chain, leaky(), readout=replace(mlp(RNG, 2, 2).readout, kind="last"))
    (only,) = net.projections
    x = np.random.default_rng(5).normal(size=(6, *shape))
    value = torch.from_numpy(x)
    for synapse in chain:
        value = by_torch(synapse, value)
    expected = value.numpy().reshape(6, -1)
    bias = chain_bias(net, only)
    got = (chain_matrix(net, only) @ x.reshape(6, -1).T).T + (0 if bias is None else bias)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    reference = run_reference(net, x)["n1"]["u"].reshape(6, -1)
    np.testing.assert_allclose(reference, expected, rtol=0, atol=1e-12)


def test_matrix_keeps_what_is_sparse():
    weight = grid(np.random.default_rng(1), 4, 2, 3, 3, density=0.2)
    net = row((2, 6, 6), Conv2d(weight=weight, padding=(1, 1, 1, 1)), lif())
    assert chain_matrix(net, net.projections[0]).nnz < 36 * np.count_nonzero(weight) + 1
