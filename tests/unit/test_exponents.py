"""Weight exponents: layers of unlike size meet in one population and keep their bits."""

from __future__ import annotations

import numpy as np
import pytest

from snn_deploy.backends.arithmetics import FPGA, LOIHI
from snn_deploy.backends.base import Options
from snn_deploy.backends.loihi.decode import decode
from snn_deploy.backends.loihi.netx_job import net_file
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir import Dense, Relay
from snn_deploy.passes.quantize import quantize
from tests.builders import lif, network, population, projection, spikes


def unlike(ratio: float):
    """in and b both feed out; b's weights are ``ratio`` times as large."""
    rng = np.random.default_rng(11)
    small, middle, large = (rng.normal(0, 1, (4, 4)).astype(np.float32) for _ in range(3))
    return network(
        [
            population("in", (4,), Relay()),
            population("b", (4,), lif(threshold=0.7)),
            population("out", (4,), lif(threshold=0.9)),
        ],
        [
            projection("in", "b", Dense(weight=middle)),
            projection("in", "out", Dense(weight=small)),
            projection("b", "out", Dense(weight=large * np.float32(ratio))),
        ],
    )


@pytest.mark.parametrize(("ratio", "expected"), [(1.0, 0), (3.0, 2), (15.0, 4)])
def test_small_weights_keep_their_bits_beside_large_ones(ratio, expected):
    net = unlike(ratio)
    tensors = {t.projection: t for t in quantize(net, LOIHI).tensors}
    assert abs(tensors["b-out"].exponent - expected) <= 1
    assert tensors["in-out"].exponent <= 1
    for tensor in tensors.values():
        # Half a step of a grid that the layer's own largest weight nearly fills.
        assert tensor.max_error <= tensor.max_abs / 127
    alike = {t.projection: t for t in quantize(net, FPGA).tensors}
    assert not any(t.exponent for t in alike.values())
    if ratio > 1:
        assert alike["in-out"].max_error > 1.5 * tensors["in-out"].max_error


def test_the_lowering_stores_what_the_exponent_leaves():
    net = unlike(15.0)
    target = LoihiTarget()
    program = prepare(net, target)
    assert program.qnet is not None
    found = {s.name: s for s in program.payload.synapses}
    weights = {p.name: p.synapses[0].weight for p in program.qnet.network.projections}
    for name, synapses in found.items():
        assert abs(synapses.weights).max() <= 256
        stored = synapses.operator.to_dense() << synapses.exponent
        np.testing.assert_array_equal(stored, weights[name])
    assert program.qnet.exponents == {n: s.exponent for n, s in found.items() if s.exponent}
    x = spikes(np.random.default_rng(0), 2, 12, (4,))
    ours = FixedEngine(program.qnet).run(x, "states")
    theirs = FixedEngine(decode(program.payload, program.qnet)).run(x, "states")
    np.testing.assert_array_equal(ours.states["out"]["v"], theirs.states["out"]["v"])
    assert ours.counts["out"].sum() > 0


def test_one_layer_alone_has_no_exponent_and_stays_a_file_for_netx():
    rng = np.random.default_rng(1)
    net = network(
        [population("in", (4,), Relay()), population("out", (3,), lif())],
        [projection("in", "out", Dense(weight=rng.normal(0, 5, (3, 4)).astype(np.float32)))],
    )
    assert quantize(net, LOIHI).exponents == {}


def test_exponents_everywhere_make_thresholds_finer_and_leave_weights_alone():
    rng = np.random.default_rng(1)
    weight = rng.normal(0, 5, (3, 4)).astype(np.float32)
    net = network(
        [population("in", (4,), Relay()), population("out", (3,), lif(threshold=0.7))],
        [projection("in", "out", Dense(weight=weight))],
    )
    coarse, fine = quantize(net, LOIHI), quantize(net, LOIHI, exponents=True)
    (plain,), (shifted,) = coarse.tensors, fine.tensors
    assert shifted.exponent >= 4
    assert shifted.scale == plain.scale
    assert shifted.max_error == plain.max_error
    gain = 0.5  # dt / tau, which thresholds are divided by
    for qnet, most in ((coarse, 0.1), (fine, 0.01)):
        q = qnet.populations["out"]
        assert 0 <= 0.7 / gain - float(q.threshold) / q.scale < most
    target = LoihiTarget()
    program = prepare(net, target, Options(settings={"exponents": 1}))
    (synapses,) = program.payload.synapses
    assert synapses.exponent == shifted.exponent
    with pytest.raises(UnsupportedError, match="no weight exponents"):
        net_file(program.payload)
