"""A program with one wrong number must not pass verify, and the place must be named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.cpu.norse_oracle import NorseOracle
from snn_deploy.backends.cpu.target import CpuTarget
from snn_deploy.backends.loihi.oracle import LavaOracle
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.backends.verify import verify
from snn_deploy.engine.compare import compare
from snn_deploy.engine.event import EventEngine
from snn_deploy.errors import MismatchError
from snn_deploy.ir import Dense, Network, Relay
from snn_deploy.ir.synapses import bias_of, weights_of, with_weights
from tests.builders import grid, lif, network, population, projection, row, spikes


def net_and_input() -> tuple[Network, np.ndarray]:
    """Return in -> a -> b -> out with a shortcut a -> out, everything dense and biased."""
    rng = np.random.default_rng(5)
    weights = lambda *shape: (grid(rng, *shape) + np.float32(0.125)).astype(np.float32)
    layer = lambda *shape: Dense(weight=weights(*shape), bias=grid(rng, shape[0]) / 4)
    made = network(
        [population("in", (8,), Relay())]
        + [population(n, (6,), lif()) for n in ("a", "b")]
        + [population("out", (4,), lif())],
        [
            projection("in", "a", layer(6, 8)),
            projection("a", "b", layer(6, 6)),
            projection("b", "out", layer(4, 6)),
            projection("a", "out", Dense(weight=weights(4, 6))),
        ],
    )
    return made, spikes(rng, 6, 12, (8,), 0.6)


# cpu: the payload is a network, norse judges.


def with_neuron(net: Network, name: str, **changes) -> Network:
    return replace(
        net,
        populations=tuple(
            replace(p, neuron=replace(p.neuron, **changes)) if p.name == name else p
            for p in net.populations
        ),
    )


def with_projection(net: Network, name: str, change) -> Network:
    return replace(
        net, projections=tuple(change(p) if p.name == name else p for p in net.projections)
    )


def weight_changed(p):
    weights = np.array(weights_of(p.synapses[0]))
    weights[2, 3] += 0.25
    return replace(p, synapses=(with_weights(p.synapses[0], weights, bias_of(p.synapses[0])),))


def bias_changed(p):
    bias = np.array(bias_of(p.synapses[0]))
    bias[2] += 0.125
    weights = weights_of(p.synapses[0])
    return replace(p, synapses=(with_weights(p.synapses[0], weights, bias),))


CPU = {
    "weight": lambda net: with_projection(net, "a-b", weight_changed),
    "bias": lambda net: with_projection(net, "a-b", bias_changed),
    "threshold": lambda net: with_neuron(net, "b", v_threshold=np.full(6, 0.75)),
    "decay": lambda net: with_neuron(net, "b", tau_s=np.float64(3e-3)),
    "reset": lambda net: with_neuron(net, "b", v_reset=np.float64(0.25)),
    "delay": lambda net: with_projection(net, "a-b", lambda p: replace(p, delay_steps=1)),
}


def test_cpu_program_without_a_fault_passes():
    pytest.importorskip("norse")
    net, x = net_and_input()
    verdict = verify(CpuTarget(), prepare(net, CpuTarget()), x, oracle=NorseOracle())
    assert verdict.equal
    assert verdict.first is None
    assert verdict.fidelity is None  # no integers: there is nothing to measure against


@pytest.mark.parametrize("fault", CPU)
def test_norse_catches_a_fault_in_a_cpu_program(fault):
    pytest.importorskip("norse")
    net, x = net_and_input()
    target = CpuTarget()
    program = prepare(net, target)
    broken = replace(program, payload=CPU[fault](net))
    verdict = verify(target, broken, x, oracle=NorseOracle())
    assert not verdict.equal
    for comparison in (verdict.proof, verdict.lowering):
        assert not comparison.equal
        assert comparison.first.population == "b"
    assert str(verdict.first).startswith("b, ")
    assert f"at step {verdict.first.step} of sample {verdict.first.sample}" in str(verdict.first)
    if fault in ("weight", "bias"):
        assert verdict.first.neuron == 2


# loihi: the payload holds Lava's own numbers.


def loihi_population(program, name, **changes):
    payload = program.payload
    populations = tuple(
        replace(p, **{k: v(p) for k, v in changes.items()}) if p.name == name else p
        for p in payload.populations
    )
    return replace(program, payload=replace(payload, populations=populations))


def loihi_synapses(program, name, change):
    payload = program.payload
    synapses = tuple(change(s) if s.name == name else s for s in payload.synapses)
    return replace(program, payload=replace(payload, synapses=synapses))


def lava_weight(s):
    data = np.array(s.operator.data)
    row_of = np.repeat(np.arange(s.operator.shape[0]), np.diff(s.operator.indptr))
    at = int(np.nonzero((row_of == 2) & (s.operator.indices == 3))[0][0])
    data[at] += -64 if data[at] > 0 else 64
    return replace(s, operator=replace(s.operator, data=data))


def bumped(p):
    bias = np.array(np.broadcast_to(p.bias, (6,)))
    bias[2] += 16
    return bias


LOIHI = {
    "weight": lambda p: loihi_synapses(p, "a-b", lava_weight),
    "bias": lambda p: loihi_population(p, "b", bias=bumped),
    "bias missing": lambda p: loihi_population(p, "b", bias=lambda _: None),
    "threshold": lambda p: loihi_population(p, "b", vth=lambda q: q.vth + 40),
    "decay of v": lambda p: loihi_population(p, "b", dv=lambda q: q.dv - 100),
    "decay of u": lambda p: loihi_population(p, "b", du=lambda q: q.du - 100),
}


@pytest.mark.parametrize("fault", LOIHI)
def test_the_lowering_comparison_catches_a_fault_without_lava(fault):
    net, x = net_and_input()
    program = prepare(net, LoihiTarget())
    assert verify(LoihiTarget(), program, x).equal
    verdict = verify(LoihiTarget(), LOIHI[fault](program), x)
    assert verdict.proof is None
    assert not verdict.equal
    assert verdict.first.population == "b"
    assert verdict.lowering.judge == "loihi program"
    assert verdict.lowering.ours == "integer engine"


@pytest.mark.parametrize("fault", LOIHI)
def test_lava_catches_a_fault_in_a_loihi_program(lava, fault):
    net, x = net_and_input()
    broken = LOIHI[fault](prepare(net, LoihiTarget()))
    proof = verify(LoihiTarget(), broken, x[:2], oracle=LavaOracle(timeout_s=120)).proof
    assert not proof.equal
    assert proof.first.population == "b"
    assert proof.mismatches["v"] > 0
    if fault in ("weight", "bias"):
        assert proof.first.neuron == 2


def shifted(program, by):
    return loihi_synapses(program, "a-out", lambda s: replace(s, delay_steps=s.delay_steps + by))


def test_a_late_path_is_caught_in_the_lowering_and_by_lava(lava):
    net, x = net_and_input()
    program = prepare(net, LoihiTarget())
    late = shifted(program, 1)
    verdict = verify(LoihiTarget(), late, x, oracle=LavaOracle(timeout_s=120))
    for comparison in (verdict.lowering, verdict.proof):
        assert not comparison.equal
        assert comparison.first.population == "out"


def test_an_early_path_is_a_mismatch_even_without_lava():
    net, x = net_and_input()
    early = shifted(prepare(net, LoihiTarget()), -1)
    with pytest.raises(MismatchError, match="before the step that they belong to") as caught:
        verify(LoihiTarget(), early, x)
    assert caught.value.where == "a-out"
    assert caught.value.used == "1 steps too early"
    assert caught.value.exit_code == 6


def test_a_wrong_depth_is_caught_as_a_delay():
    net, x = net_and_input()
    program = prepare(net, LoihiTarget())
    wrong = loihi_population(program, "a", depth=lambda p: p.depth + 1)
    with pytest.raises(MismatchError) as caught:
        verify(LoihiTarget(), wrong, x)
    assert caught.value.where == "in-a"


# compare() itself.


def traces():
    net, x = net_and_input()
    return net, EventEngine(net).run(x, "states")


def broken_state(trace, population, variable, at, value):
    states = {n: dict(s) for n, s in trace.states.items()}
    changed = np.array(states[population][variable], np.float64)
    changed[at] = value
    states[population][variable] = changed
    return replace(trace, states=states)


def test_the_first_mismatch_is_the_earliest_then_the_most_upstream():
    net, trace = traces()
    # Populations in another order than they are evaluated in.
    turned = replace(net, populations=(net.populations[0], *net.populations[:0:-1]))
    judge = broken_state(trace, "out", "v", (1, 4, 2), 9.0)
    judge = broken_state(judge, "a", "v", (1, 4, 3), 8.0)
    judge = broken_state(judge, "a", "v", (1, 9, 0), 7.0)
    found = compare(turned, judge, trace, names=("judge", "ours"), tolerance=0.0)
    assert found.mismatches == {"spikes": 0, "v": 3}
    assert (found.first.population, found.first.neuron, found.first.judge) == ("a", 3, 8.0)
    ours = float(trace.states["a"]["v"][1, 4, 3])
    assert str(found.first) == (f"a, v of neuron 3 at step 4 of sample 1: 8 there, {ours:g} here")


@pytest.mark.parametrize(("slack", "equal"), [(0.0, False), (1e-3, True)])
def test_states_within_the_tolerance_are_equal(slack, equal):
    net, trace = traces()
    value = float(trace.states["b"]["v"][0, 0, 0]) + 5e-4
    judge = broken_state(trace, "b", "v", (0, 0, 0), value)
    assert compare(net, judge, trace, names=("", ""), tolerance=slack).equal is equal


def test_nan_is_never_equal():
    net, trace = traces()
    judge = broken_state(trace, "b", "v", (0, 0, 0), np.nan)
    found = compare(net, judge, trace, names=("", ""), tolerance=1.0)
    assert found.mismatches["v"] == 1
    assert found.first.population == "b"


def test_a_wrong_spike_is_never_within_the_tolerance():
    net, trace = traces()
    flipped = np.array(trace.spikes["b"])
    flipped[2, 3, 1] ^= 1
    judge = replace(trace, spikes={**trace.spikes, "b": flipped})
    found = compare(net, judge, trace, names=("", ""), tolerance=10.0)
    assert found.mismatches == {"spikes": 1, "v": 0}
    assert (found.first.variable, found.first.sample, found.first.step) == ("spikes", 2, 3)


def test_a_population_that_never_spiked_is_named():
    net, x = net_and_input()
    trace = EventEngine(net).run(x, "states")
    assert compare(net, trace, trace, names=("judge", "ours"), tolerance=0.0).note == ""
    quiet = replace(trace, spikes={**trace.spikes, "b": np.zeros_like(trace.spikes["b"])})
    found = compare(net, quiet, quiet, names=("judge", "ours"), tolerance=0.0)
    assert found.equal
    assert found.note == "b never spiked in these samples: equal silence proves little"
    # One side's spikes are no silence.
    assert compare(net, quiet, trace, names=("judge", "ours"), tolerance=0.0).note == ""


def test_what_the_judge_did_not_record_is_named():
    net, trace = traces()
    spikes_only = {n: s for n, s in trace.spikes.items() if n != "out"}
    judge = replace(trace, spikes=spikes_only, states={n: trace.states[n] for n in ("a", "out")})
    found = compare(net, judge, trace, names=("judge", "ours"), tolerance=0.0)
    assert found.note == "judge did not record v of b, spikes of out"


@pytest.mark.parametrize("missing", ["samples", "steps"])
def test_traces_of_another_length_are_a_mismatch(missing):
    net, trace = traces()
    cut = (slice(0, 1),) if missing == "samples" else (slice(None), slice(0, 1))
    judge = replace(trace, spikes={n: s[cut] for n, s in trace.spikes.items()}, states={})
    with pytest.raises(MismatchError) as caught:
        compare(net, judge, trace, names=("judge", "ours"), tolerance=0.0)
    assert caught.value.where == "a"
    assert caught.value.message == "judge and ours recorded different amounts of spikes"


# The second answer.


def test_fidelity_counts_spikes_and_predictions_by_hand():
    net, x = net_and_input()
    program = prepare(net, LoihiTarget())
    labels = np.zeros(len(x), np.int64)
    verdict = verify(LoihiTarget(), program, x, labels)
    real, ints = EventEngine(net).run(x, "spikes"), LoihiTarget().run(program, x, "spikes")
    both = either = 0
    for name in ("a", "b", "out"):
        pairs = zip(real.spikes[name].ravel(), ints.spikes[name].ravel(), strict=True)
        for one, other in pairs:
            both += bool(one and other)
            either += bool(one or other)
    a, b = (net.readout.predict(t.output) for t in (real, ints))
    assert verdict.fidelity.equal_spikes == both / either
    assert verdict.fidelity.equal_predictions == sum(a == b) / len(x)
    assert verdict.fidelity.accuracy_float == sum(a == 0) / len(x)
    assert verdict.fidelity.accuracy_integer == sum(b == 0) / len(x)


def test_silence_is_no_disagreement():
    net = row((3,), Dense(weight=np.eye(3, dtype=np.float32)), lif(threshold=4.0))
    verdict = verify(LoihiTarget(), prepare(net, LoihiTarget()), np.zeros((2, 4, 3), np.uint8))
    assert verdict.fidelity.equal_spikes == 1.0
    assert verdict.fidelity.accuracy_float is None
    assert verdict.lowering.note == "n1 never spiked in these samples: equal silence proves little"
