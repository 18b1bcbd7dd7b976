"""Random networks, folded, quantized and lowered for Loihi: Lava against our integer engine."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from snn_deploy.backends.base import Options
from snn_deploy.backends.loihi.oracle import LavaOracle
from snn_deploy.backends.loihi.program import LoihiProgram
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.backends.verify import verify
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.io.inputs import InputData
from snn_deploy.ir import Conv2d, Csr, Dense, Diagonal, Pool2d, Readout, Relay
from snn_deploy.passes.pipeline import fold
from snn_deploy.report.analyse import run
from tests.builders import (
    KINDS,
    conv_net,
    cuba,
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


def real(rng, *shape, density=0.8):
    """Return weights as training makes them, on no grid."""
    return (rng.normal(0.05, 0.5, shape) * (rng.random(shape) < density)).astype(np.float32)


def dense(rng):
    sizes = [int(n) for n in rng.integers(4, 20, 4)]
    parts = []
    for pre, post in pairwise(sizes):
        parts += [
            Dense(weight=real(rng, post, pre, density=0.4), bias=real(rng, post) / 4),
            lif(rng.choice([1.5, 2.0, 4.0]), threshold=0.15),
        ]
    return row((sizes[0],), *parts)


def one_sign(rng):
    return row(
        (12,),
        Dense(weight=abs(real(rng, 9, 12)) + np.float32(0.01)),
        lif(threshold=1.5),
        Dense(weight=-abs(real(rng, 6, 9)), bias=np.full(6, 0.6, np.float32)),
        lif(threshold=0.2),
    )


def per_neuron(rng):
    return row(
        (10,),
        Dense(weight=real(rng, 7, 10), bias=real(rng, 7) / 4),
        lif(
            rng.uniform(1.2, 9, 7),
            threshold=rng.uniform(0.1, 0.6, 7),
            r=rng.uniform(0.5, 2, 7),
            v_leak=rng.uniform(-0.1, 0.1, 7),
        ),
    )


def convolution(rng):
    return row(
        (2, 7, 6),
        Conv2d(weight=real(rng, 4, 2, 3, 2), bias=real(rng, 4) / 4, stride=(1, 2)),
        lif([2.0, 3.0, 4.0, 2.0], threshold=[0.2, 0.3, 0.4, 0.5]),
        Conv2d(weight=real(rng, 4, 2, 3, 3), padding=(2, 2, 1, 1), dilation=(2, 1), groups=2),
        lif(threshold=0.3),
        Dense(weight=real(rng, 5, 4 * 5 * 3), bias=real(rng, 5) / 4),
        lif(threshold=0.3),
    )


def fused_pool(kind, first=None):
    def make(rng):
        conv = Conv2d(weight=real(rng, 3, 2, 3, 3), bias=real(rng, 3) / 4, padding=(1, 1, 1, 1))
        return row(
            (2, 8, 8),
            *([] if first is None else [first]),
            Pool2d(kind=kind, kernel=(2, 2), stride=(2, 2)),
            conv,
            lif(threshold=0.3),
            Pool2d(kind=kind, kernel=(2, 2), stride=(2, 2)),
            Dense(weight=real(rng, 4, 12)),
            lif(threshold=0.3),
        )

    return make


def odd_pool(rng):
    return row(
        (2, 7, 9),
        Pool2d(kind="sum", kernel=(2, 3), stride=(2, 3)),
        Conv2d(weight=real(rng, 3, 2, 2, 2), stride=(1, 2)),
        lif(threshold=0.5),
    )


def pool_alone(rng):
    return row(
        (2, 6, 6),
        Pool2d(kind="avg", kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1)),
        lif(3, threshold=0.2),
        Pool2d(kind="sum", kernel=(2, 2), stride=(2, 2)),
        Diagonal(scale=np.array([0.5, -0.25])[:, None, None]),
        integrate_and_fire(threshold=0.7),
    )


def max_pool(rng):
    return row(
        (2, 8, 8),
        Conv2d(weight=real(rng, 3, 2, 3, 3), bias=real(rng, 3) / 4),
        lif(threshold=0.5),
        Pool2d(kind="max", kernel=(2, 2), stride=(2, 2)),
        Conv2d(weight=real(rng, 4, 3, 2, 2), bias=real(rng, 4) / 4),
        lif(threshold=0.4),
        Pool2d(kind="max", kernel=(2, 2), stride=(1, 1)),
        Dense(weight=real(rng, 4, 4)),
        lif(threshold=0.2),
    )


def skip_dense(rng):
    return network(
        [population("in", (8,), Relay())]
        + [population(n, (7,), lif(threshold=0.3)) for n in ("a", "b", "c")]
        + [population("out", (5,), lif(threshold=0.4))],
        [
            projection("in", "a", Dense(weight=real(rng, 7, 8), bias=real(rng, 7) / 4)),
            projection("a", "b", Dense(weight=real(rng, 7, 7), bias=real(rng, 7) / 4)),
            projection("b", "c", Dense(weight=real(rng, 7, 7))),
            projection("c", "out", Dense(weight=real(rng, 5, 7), bias=real(rng, 5) / 4)),
            projection("a", "out", Dense(weight=real(rng, 5, 7))),
            projection("in", "out", Dense(weight=real(rng, 5, 8))),
            projection("in", "c", Dense(weight=real(rng, 7, 8))),
        ],
    )


def skip_conv(rng):
    return network(
        [
            population("in", (2, 6, 6), Relay()),
            population("a", (3, 6, 6), lif(threshold=0.4)),
            population("b", (3, 6, 6), lif(threshold=0.4)),
            population("out", (4,), lif(threshold=0.5)),
        ],
        [
            projection("in", "a", Conv2d(weight=real(rng, 3, 2, 3, 3), padding=(1,) * 4)),
            projection("a", "b", Conv2d(weight=real(rng, 3, 3, 3, 3), padding=(1,) * 4)),
            projection("in", "b", Conv2d(weight=real(rng, 3, 2, 1, 1), bias=real(rng, 3) / 4)),
            projection("b", "out", Dense(weight=real(rng, 4, 108))),
        ],
    )


def silent_output(rng):
    return row(
        (9,),
        Dense(weight=real(rng, 8, 9), bias=real(rng, 8) / 4),
        lif(threshold=0.3),
        Dense(weight=real(rng, 4, 8), bias=real(rng, 4) / 4),
        leaky(4),
        readout=Readout(kind="max"),
    )


CASES = {
    "dense 1": (dense, 8),
    "dense 2": (dense, 8),
    "dense 4 bits": (dense, 4),
    "dense 2 bits": (dense, 2),
    "one sign": (one_sign, 8),
    "one sign 5 bits": (one_sign, 5),
    "per neuron": (per_neuron, 8),
    "convolution": (convolution, 8),
    "convolution 6 bits": (convolution, 6),
    "sum pool": (fused_pool("sum"), 8),
    "average pool": (fused_pool("avg"), 8),
    "scale, pool": (fused_pool("avg", Diagonal(scale=np.array(0.75))), 8),
    "odd pool": (odd_pool, 8),
    "pool alone": (pool_alone, 8),
    "max pool": (max_pool, 8),
    "skip dense": (skip_dense, 8),
    "skip conv": (skip_conv, 8),
    "silent output": (silent_output, 8),
    "conv1d": (KINDS["conv1d"], 8),
    "grid": (conv_net, 8),
    "if": (KINDS["if"], 8),
    "cuba": (lambda rng: mlp(rng, 8, 7, 5, neuron=cuba(3, 5, threshold=0.05), bias=False), 8),
    "cuba li": (KINDS["cuba li"], 8),
}


@pytest.mark.parametrize("name", CASES)
def test_lava_agrees_bit_for_bit(lava, name):
    make, bits = CASES[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    net = fold(make(rng))
    target = LoihiTarget()
    program = prepare(net, target, Options(bits=bits))
    x = spikes(rng, 3, 10, net.input_population.shape, 0.4)
    verdict = verify(target, program, x, oracle=LavaOracle(timeout_s=120))
    assert verdict.proof is not None
    assert verdict.proof.equal, verdict.proof.first
    assert verdict.lowering.equal, verdict.lowering.first
    neurons = sum(p.size for p in net.computing())
    assert verdict.proof.values["u"] == verdict.proof.values["v"] == 30 * neurons
    assert verdict.proof.judge.startswith("lava-nc 0.10.0 on Python 3.")
    ours = FixedEngine(program.qnet).run(x, "states")
    for p in net.computing():
        assert np.count_nonzero(ours.states[p.name]["u"]), p.name
    spiking = [p.name for p in net.computing() if net.step_of(p.name).threshold is not None]
    assert not spiking or sum(ours.counts[n].sum() for n in spiking) >= 20


def test_lava_reads_the_membrane_where_the_readout_does(lava):
    rng = np.random.default_rng(3)
    net = fold(silent_output(rng))
    program = prepare(net, LoihiTarget())
    x = spikes(rng, 2, 8, (9,))
    theirs = LavaOracle(timeout_s=120).run(program, x)
    ours = FixedEngine(program.qnet).run(x)
    np.testing.assert_array_equal(theirs.output, ours.output)
    assert len(np.unique(theirs.output)) > 10
    np.testing.assert_array_equal(theirs.counts["n1"], ours.counts["n1"])


# What the lowering makes of chains, without Lava.


def lowered(net) -> LoihiProgram:
    return prepare(fold(net), LoihiTarget()).payload


def test_pools_become_part_of_the_convolution():
    program = lowered(fused_pool("sum")(np.random.default_rng(1)))
    first, second = (s.operator for s in program.synapses)
    assert isinstance(first, Conv2d)
    assert (first.weight.shape, first.stride) == ((3, 2, 6, 6), (2, 2))
    assert first.padding == (2, 2, 2, 2)
    assert isinstance(second, Csr)
    assert second.shape == (4, 3 * 4 * 4)
    # Each weight of the dense layer stands at the four places of its pool's window.
    windows = second.to_dense().reshape(4, 3, 2, 2, 2, 2)
    assert np.all(windows == windows[:, :, :, :1, :, :1])


def test_shorter_paths_are_padded():
    program = lowered(skip_dense(np.random.default_rng(2)))
    assert {p.name: p.depth for p in program.populations} == {"a": 1, "b": 2, "c": 3, "out": 4}
    pads = {s.name: s.delay_steps for s in program.synapses}
    assert pads == {
        "in-a": 0,
        "a-b": 0,
        "b-c": 0,
        "c-out": 0,
        "a-out": 2,
        "in-out": 3,
        "in-c": 2,
    }
    assert program.depth == 4


@pytest.mark.parametrize("kind", ["last", "max"])
def test_membranes_of_unlike_gains_predict_the_same_classes(lava, kind):
    rng = np.random.default_rng(3)
    net = row(
        (8,),
        Dense(weight=real(rng, 4, 8), bias=real(rng, 4) / 8),
        leaky(np.array([2.0, 4.0, 8.0, 16.0])),
        readout=Readout(kind=kind),
    )
    program = prepare(net, LoihiTarget())
    x = spikes(rng, 12, 10, (8,))
    judged, ours = LavaOracle().run(program, x), LoihiTarget().run(program, x)
    assert np.array_equal(judged.output, ours.output)
    assert judged.output.dtype == np.float64  # not the integers, whose units differ
    assert len(set(net.readout.predict(judged.output).tolist())) > 1


def test_an_early_stop_counts_the_same_from_lavas_spikes(lava):
    rng = np.random.default_rng(6)
    net = fold(mlp(rng, 8, 12, 4, readout=Readout(cutoff=(1.0,) * 9), neuron=lif(threshold=0.125)))
    target = LoihiTarget()
    program = prepare(net, target)
    data = InputData(x=spikes(rng, 5, 9, (8,)), y=None, kind="steps", source="")
    ours = run(target, program, data)
    theirs = run(target, program, data, simulator=LavaOracle())
    assert theirs.place.startswith("lava-nc")
    assert len(set(ours.steps_run.tolist())) > 1
    assert theirs.steps_run.tolist() == ours.steps_run.tolist()
    assert theirs.predictions.tolist() == ours.predictions.tolist()
    assert theirs.events == ours.events
    assert theirs.uncut.events == ours.uncut.events
    assert theirs.uncut.in_flight == ours.uncut.in_flight != {}
    assert theirs.latency == ours.latency
    assert theirs.budget.total == ours.budget.total
