"""Which engine runs which layers, and by how many steps a layer lags."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from snn_deploy.backends.arithmetics import FPGA
from snn_deploy.backends.base import Options
from snn_deploy.backends.fpga.layout import Settings, build
from snn_deploy.backends.fpga.schedule import engines_of
from snn_deploy.backends.fpga.target import FpgaTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.ir import Dense, Relay
from snn_deploy.passes.pipeline import fold
from snn_deploy.passes.quantize import quantize
from tests.builders import grid, lif, mlp, network, population, projection, spikes


def _largest(groups, work):
    return max(sum(work[name] for name in group) for group in groups)


@pytest.mark.parametrize("engines", [0, 5, 9])
def test_an_engine_per_layer(engines):
    names = tuple("abcde")
    assert engines_of(names, dict.fromkeys(names, 1.0), engines) == tuple((n,) for n in names)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("engines", [1, 2, 3, 4])
def test_successive_layers_share_engines_so_that_the_most_work_is_least(seed, engines):
    rng = np.random.default_rng(seed)
    names = tuple("abcdefg")
    work = dict(zip(names, rng.integers(0, 50, 7).astype(float).tolist(), strict=True))
    groups = engines_of(names, work, engines)
    assert len(groups) == engines and all(groups)
    assert tuple(itertools.chain(*groups)) == names
    cuts = itertools.combinations(range(1, 7), engines - 1)
    every = [
        [names[a:b] for a, b in itertools.pairwise((0, *cut, 7))] for cut in cuts
    ]  # fmt: skip
    assert _largest(groups, work) == min(_largest(found, work) for found in every)


def test_one_heavy_layer_stands_alone():
    work = {"a": 1.0, "b": 9.0, "c": 1.0, "d": 1.0}
    assert engines_of(tuple("abcd"), work, 3) == (("a",), ("b",), ("c", "d"))


def _engines(net, engines):
    qnet = quantize(fold(net), FPGA)
    return build(qnet, Settings(banks=2, engines=engines)).engines


def _skews(net, engines):
    return [{x.population: x.skew for x in e.layers} for e in _engines(net, engines)]


def _row():
    rng = np.random.default_rng(0)
    return mlp(rng, 6, 8, 8, 8, 4, bias=False)


def test_a_layer_lags_a_step_behind_what_it_reads_on_its_engine():
    assert _skews(_row(), 1) == [{"n1": 0, "n2": 1, "n3": 2, "n4": 3}]
    assert _skews(_row(), 2) == [{"n1": 0, "n2": 1}, {"n3": 0, "n4": 1}]
    assert _skews(_row(), 0) == [{"n1": 0}, {"n2": 0}, {"n3": 0}, {"n4": 0}]


def _branches(*more):
    rng = np.random.default_rng(0)
    pops = [population("in", (4,), Relay())]
    pops += [population(n, (4,), lif()) for n in ("a", "b", "c")]
    edges = [("in", "a"), ("in", "b"), ("a", "c"), ("b", "c"), *more]
    return network(
        pops, [projection(x, y, Dense(weight=grid(rng, 4, 4) + 0.125)) for x, y in edges]
    )


def test_layers_that_do_not_read_each_other_run_in_the_same_step():
    (found,) = _skews(_branches(), 1)
    assert found == {"a": 0, "b": 0, "c": 1}
    (found,) = _skews(_branches(("in", "c")), 1)
    assert found["c"] == 1


@pytest.mark.parametrize("loop", [("c", "a"), ("b", "b")])
def test_nothing_lags_in_a_network_with_a_loop(loop):
    (found,) = _skews(_branches(loop), 1)
    assert set(found.values()) == {0}
    assert all(set(s.values()) == {0} for s in _skews(_branches(loop), 2))


@pytest.mark.parametrize("engines", [0, 1, 2, 3])
def test_lags_decide_about_time_alone(engines):
    rng = np.random.default_rng(1)
    net = fold(_row())
    target = FpgaTarget()
    program = prepare(net, target, Options(settings={"engines": engines}))
    x = spikes(rng, 3, 7, (6,))
    trace = target.run(program, x, "states")
    expected = FixedEngine(program.qnet).run(x, "states")
    for name, states in expected.states.items():
        assert np.array_equal(trace.states[name]["v"], states["v"])
    cycles = target.cycles(program, trace)
    for engine in program.payload.engines:
        names = [layer.population for layer in engine.layers]
        # An engine takes in a job after another, each at its own time.
        begun = sorted(t for n in names for t in cycles.begin[n][0].tolist())
        assert len(set(begun)) == 7 * len(names)
        for layer in engine.layers[1:]:
            lag = layer.skew
            begin, first = cycles.begin[layer.population], cycles.begin[names[0]]
            assert (begin[:, : 7 - lag] > first[:, lag:]).all()
