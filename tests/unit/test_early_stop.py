"""Early stop: where samples stop, and that what counts ends there, in flight included."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.base import Options
from snn_deploy.backends.cpu.target import CpuTarget
from snn_deploy.backends.fpga import target as fpga_module
from snn_deploy.backends.fpga.target import FpgaTarget
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.backends.verify import verify
from snn_deploy.engine.early import PLACE, in_step
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.errors import InputError
from snn_deploy.io.inputs import InputData
from snn_deploy.ir import Coding, Dense, Identity, Readout, Relay
from snn_deploy.ir.trace import Trace
from snn_deploy.passes.pipeline import fold
from snn_deploy.report import analyse
from snn_deploy.report.build import compare_report, run_report, verify_report
from snn_deploy.report.terminal import render
from tests.builders import lif, mlp, network, population, projection, row, spikes

# Where a sample stops. One sample of three neurons; gaps after steps 0..4: 1, 1, 0, 1, 2.
VALUES = np.array([[[1, 0, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]]], np.uint8)
INF = math.inf


@pytest.mark.parametrize(
    ("readout", "steps"),
    [
        (Readout(cutoff=(0, 0, 0, 0, 0)), 1),
        (Readout(cutoff=(1, 0.5, 0, 0, 0)), 2),  # strictly above: 1 > 1 is false
        (Readout(cutoff=(1, 1, 0, 0, 9)), 4),  # a tie has no gap: 0 > 0 is false
        (Readout(cutoff=(1, 1, 1, 1, 9)), 5),  # the last step stops whatever its threshold
        (Readout(cutoff=(INF,) * 5), 5),
        (Readout(cutoff=(INF, 0, INF, INF, INF)), 2),
        (Readout(cutoff=(0,) * 9), 1),  # a longer table: the run may be shorter
        (Readout(cutoff=(0,) * 5, window=(2, 5)), 3),  # -, -, 1, 0, 1
        (Readout(cutoff=(0, 0, 1, 0, 0), window=(2, 5)), 5),
        (Readout(cutoff=(1, 1, 1, 0, 0), window=(0, 2)), 4),  # the window's scores stay
        (Readout(cutoff=None), 5),
    ],
)
def test_where_a_sample_stops(readout, steps):
    assert readout.stop_steps(VALUES).tolist() == [steps]


def test_the_gap_of_votes_is_between_groups():
    # Groups of two neurons: scores (1, 1), then (3, 1): the neurons alone are 2, 1, 1, 0.
    values = np.array([[[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]])
    assert Readout(kind="vote", groups=2, cutoff=(1, 1, 1)).stop_steps(values).tolist() == [2]
    assert Readout(kind="count", cutoff=(1, 1, 1)).stop_steps(values).tolist() == [3]


def test_samples_stop_on_their_own_and_are_read_there():
    late = VALUES[:, ::-1]  # neuron 0 twice, then neuron 1, ...: gaps 1, 2, 1, 1, 2
    turned = np.array([[[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0]]], np.uint8)
    readout = Readout(cutoff=(1, 1, 1, 1, 1))
    values = np.concatenate([VALUES, late, turned])
    assert readout.stop_steps(values).tolist() == [5, 2, 4]
    assert readout.predict(values).tolist() == [0, 0, 1]
    assert readout.scores(values).tolist() == [[3, 1, 0], [2, 0, 0], [1, 3, 0]]
    # Stopped after the first step, the third sample is still the first class.
    early = replace(readout, cutoff=(0, 1, 1, 1, 1))
    assert early.predict(values).tolist() == [0, 0, 0]
    assert replace(readout, cutoff=None).predict(values).tolist() == [0, 0, 1]


@pytest.mark.parametrize("read", ["stop_steps", "predict"])
def test_a_table_shorter_than_the_run_is_refused(read):
    with pytest.raises(InputError) as caught:
        getattr(Readout(cutoff=(1, 1)), read)(VALUES)
    assert caught.value.message == "the readout's cutoff table is shorter than the run"
    assert caught.value.used == "2 thresholds for 5 steps"
    assert caught.value.hint == "run at most 2 steps, or give one threshold per step"


def test_the_window_must_lie_within_the_steps_here_too():
    with pytest.raises(InputError, match="window ends after the last step"):
        Readout(cutoff=(1,) * 5, window=(3, 6)).stop_steps(VALUES)


# What counts. Two layers that pass each spike on in the same step: every count can be said.

STEPS = 6
EYE = np.eye(2, dtype=np.float32)
#: Sample 0: neuron 0 in every step, stops after 2. Sample 1: in turns, never stops.
X = np.zeros((2, STEPS, 2), np.uint8)
X[0, :, 0] = 1
X[1, ::2, 0] = 1
X[1, 1::2, 1] = 1
TARGETS = {"cpu": CpuTarget(), "loihi": LoihiTarget(), "fpga": FpgaTarget()}


def passing(cutoff=(1.0,) * STEPS):
    spiking = lif(1, threshold=0.5)
    return row(
        (2,), Dense(weight=EYE), spiking, Dense(weight=EYE), spiking,
        readout=Readout(cutoff=cutoff), coding=Coding(kind="events"),
    )  # fmt: skip


def program(name, net=None, **settings):
    return prepare(fold(net or passing()), TARGETS[name], Options(settings=settings or None))


def ran(name, net=None, x=X, record="output", **settings):
    return TARGETS[name].run(program(name, net, **settings), x, record)


def test_on_the_cpu_all_populations_stop_together():
    trace = ran("cpu")
    assert trace.stop.steps.tolist() == [2, 6]
    assert {n: c.tolist() for n, c in trace.counts.items()} == {
        "input": [5, 3], "n1": [5, 3], "n2": [5, 3],
    }  # fmt: skip
    assert dict(trace.events) == {
        ("w1", "synops_dense"): 32, ("w1", "synops_event"): 16, ("w1", "synops_effective"): 8,
        ("w2", "synops_dense"): 32, ("w2", "synops_event"): 16, ("w2", "synops_effective"): 8,
        ("input", "spikes"): 8,
        ("n1", "neuron_updates"): 16, ("n1", "spikes"): 8, ("n1", "neuron_updates_active"): 8,
        ("n2", "neuron_updates"): 16, ("n2", "spikes"): 8, ("n2", "neuron_updates_active"): 8,
        # Two counts read, two classes: one comparison finds both, one with the threshold.
        (PLACE, "host_ops"): (2 + 2) * 8,
    }  # fmt: skip
    assert trace.stop.whole.counts["n2"].tolist() == [9, 3]
    assert trace.stop.whole.events["n1", "neuron_updates"] == 24
    assert not trace.stop.whole.events.has("host_ops")
    assert trace.spikes == {}
    assert TARGETS["cpu"].latency(program("cpu"), trace).steps == 4


def test_on_loihi_earlier_populations_have_run_on():
    """Depths 0, 1 and 2: when the host sees the output's step 1, the input has sent 4 steps."""
    trace = ran("loihi")
    assert trace.stop.steps.tolist() == [2, 6]
    assert {n: r.tolist() for n, r in trace.stop.ran.items()} == {
        "input": [4, 6], "n1": [3, 6], "n2": [2, 6],
    }  # fmt: skip
    events = trace.events
    assert [events[n, "spikes"] for n in ("input", "n1", "n2")] == [10, 9, 8]
    assert [events[n, "neuron_updates"] for n in ("n1", "n2")] == [18, 16]
    for kind, each in (("dense", 4), ("event", 2), ("effective", 1), ("quantized", 1)):
        sent = (10, 9)  # sample-steps of the input and of n1, a spike in each
        found = [events[w, f"synops_{kind}"] for w in ("w1", "w2")]
        assert found == [each * n for n in sent], kind
    assert [events[w, "packets"] for w in ("w1", "w2")] == [10, 9]
    assert events[PLACE, "host_ops"] == 4 * 8
    latency = TARGETS["loihi"].latency(program("loihi"), trace)
    assert (latency.steps, latency.hop_steps) == (4 + 2, 2)
    whole = TARGETS["loihi"].latency(program("loihi"), trace.stop.whole)
    assert whole.steps == 8
    assert trace.stop.whole.events["w1", "packets"] == 12


def test_multiply_accumulates_end_at_the_stop_too():
    net = replace(passing(), coding=Coding(kind="direct"))
    trace = ran("cpu", net, X * 0.75)
    assert trace.stop.steps.tolist() == [2, 6]
    assert trace.events["w1", "macs"] == 2 * 8
    assert trace.stop.whole.events["w1", "macs"] == 2 * 12


def test_in_flight_steps_end_with_the_input_and_begin_with_none():
    net = network(
        [population(n, (2,), Relay() if n == "i" else lif(1)) for n in ("i", "a", "b")],
        [projection("i", "a", Identity()), projection("a", "b", Identity())],
        readout=Readout(cutoff=(1.0,) * STEPS), outputs=("a",),
    )  # fmt: skip
    trace = Trace(
        output=X, counts=dict.fromkeys("iab", np.zeros(2)), samples=2, steps=STEPS,
        spikes=dict.fromkeys("iab", X),
    )  # fmt: skip
    found = in_step(net, trace, {"i": 1, "b": -3})
    assert found.stop.ran["i"].tolist() == [3, 6]
    assert found.stop.ran["a"].tolist() == [2, 6]
    assert found.stop.ran["b"].tolist() == [0, 3]
    assert found.counts["b"].tolist() == [2, 1]


def eager(seed, *sizes, gap):
    """Return a network whose outputs fire often, and 7 samples of 9 steps for it."""
    rng = np.random.default_rng(seed)
    readout = Readout(cutoff=(gap,) * 9)
    net = mlp(rng, *sizes, readout=readout, bias=False, neuron=lif(threshold=0.125))
    return net, spikes(rng, 7, 9, (sizes[0],))


@pytest.mark.parametrize("gap", [0.0, 1.0, 2.5])
def test_a_stopped_run_is_the_runs_of_shortened_samples(gap):
    """Where nothing runs ahead, every event is that of samples cut at their stops."""
    net, x = eager(4, 8, 12, 4, gap=gap)
    stopped = ran("cpu", net, x)
    plain = program("cpu", replace(net, readout=Readout()))
    one = [
        TARGETS["cpu"].run(plain, x[i : i + 1, :steps])
        for i, steps in enumerate(stopped.stop.steps.tolist())
    ]
    total = sum((t.events for t in one), start=type(stopped.events)())
    polled = {key: n for key, n in stopped.events.items() if key[0] == PLACE}
    assert dict(total) | polled == dict(stopped.events)
    assert list(polled) == [(PLACE, "host_ops")]
    assert len(set(stopped.stop.steps.tolist())) > 1


@pytest.mark.parametrize(("engines", "furthest"), [(0, (5, 2)), (1, (3, 1)), (2, (5, 2))])
def test_the_accelerator_counts_the_steps_that_layers_have_begun(engines, furthest):
    net, x = eager(5, 8, 24, 16, 4, gap=2.5)
    lowered = program("fpga", net, engines=engines)
    trace = TARGETS["fpga"].run(lowered, x, "spikes")
    cycles = TARGETS["fpga"].cycles(lowered, trace)
    assert cycles.scan > 4  # the readout unit looks at each of four neurons
    # The same machine, its readout unit at work after every step, that never stops early.
    never = program("fpga", replace(net, readout=Readout(cutoff=(INF,) * 9)), engines=engines)
    ahead = []
    for i, steps in enumerate(trace.stop.steps.tolist()):
        done = cycles.swept["n3"][i, steps - 1] + cycles.scan
        assert trace.timing["cycles"][i] == done
        layers = ("n1", "n2", "n3")
        begun = {n: int((cycles.begin[n][i] < done).sum()) for n in layers}
        assert {n: r[i] for n, r in trace.stop.ran.items()} == {"input": begun["n1"], **begun}
        assert begun["n1"] >= begun["n2"] >= begun["n3"] >= steps
        ahead.append((begun["n1"] - steps, begun["n2"] - steps))
        one = TARGETS["fpga"].run(never, x[i : i + 1, :steps])
        # An engine of several layers does no later steps between those of a shorter sample.
        assert one.timing["cycles"][0] == done if not engines else one.timing["cycles"][0] < done
    assert max(ahead) == furthest and len(set(trace.stop.steps.tolist())) > 1
    # What a layer reads and adds up is what runs of the steps that it has begun would.
    for layer, weights in (("n1", "w1"), ("n2", "w2"), ("n3", "w3")):
        parts = [
            TARGETS["fpga"].run(never, x[i : i + 1, :steps]).events
            for i, steps in enumerate(trace.stop.ran[layer].tolist())
        ]
        for place in (layer, weights):
            for event, n in trace.events.at(place).items():
                if event != "spikes" and event != "neuron_updates_active":
                    assert n == sum(p[place, event] for p in parts), (place, event)


def test_targets_with_equal_outputs_stop_and_predict_alike():
    rng = np.random.default_rng(11)
    x = spikes(rng, 12, STEPS, (2,))
    found = {name: ran(name, x=x) for name in TARGETS}
    steps = found["cpu"].stop.steps
    assert len(set(steps.tolist())) > 1
    for trace in found.values():
        assert (trace.output == found["cpu"].output).all()
        assert trace.output.shape == (12, STEPS, 2)  # all steps, for whoever compares
        assert (trace.stop.steps == steps).all()


@pytest.mark.parametrize("name", TARGETS)
def test_batches_add_up(name, monkeypatch):
    net, x = eager(4, 8, 12, 4, gap=2.5)
    data = InputData(x=x, y=None, kind="steps", source="")
    lowered = program(name, net)
    whole = analyse.run(TARGETS[name], lowered, data)
    monkeypatch.setattr(analyse, "batch_size", lambda *_: 3)
    monkeypatch.setattr(fpga_module, "_CHUNK_VALUES", 1)
    parts = analyse.run(TARGETS[name], lowered, data)
    assert whole.steps_run.tolist() == parts.steps_run.tolist()
    assert len(set(whole.steps_run.tolist())) > 1
    assert whole.events == parts.events
    assert whole.uncut.events == parts.uncut.events
    assert whole.latency == parts.latency
    assert whole.uncut.in_flight == parts.uncut.in_flight
    kept = analyse.run(TARGETS[name], lowered, data, keep_trace=True)
    assert kept.trace["n2"].shape == (7, 9, 4)


# Reports.


def outcome(target, net=None, cutoff=(1.0,) * STEPS):
    lowered = prepare(fold(net or passing(cutoff)), target)
    return analyse.run(target, lowered, InputData(x=X, y=None, kind="steps", source=""))


def printed(report):
    return " ".join(render(report, width=200).split())


def test_the_report_says_what_an_early_stop_saves_and_costs():
    found = outcome(TARGETS["loihi"])
    report = run_report(found)
    assert report.data["model"]["cutoff"] == [1.0] * STEPS
    result = report.data["result"]
    assert result["steps_run"] == {"mean": 4.0, "median": 4.0, "p95": 6.0, "per_sample": [2, 6]}
    early = result["early_stop"]
    assert (early["honoured"], early["stopped_early"], early["host_ops"]) == (True, 1, 32)
    assert early["in_flight_steps"] == {"input": 1.0, "n1": 0.5}
    savings = early["savings"]
    assert savings["neuron_updates"] == {"all_steps": 24, "stopped": 17, "saved": 1 - 17 / 24}
    assert savings["packets"] == {"all_steps": 12, "stopped": 9.5, "saved": 1 - 9.5 / 12}
    assert savings["latency_steps"] == {"all_steps": 8, "stopped": 6, "saved": 0.25}
    total = found.budget.total.nominal_pj
    assert savings["energy_pj"]["stopped"] == total < savings["energy_pj"]["all_steps"]
    text = printed(report)
    assert "stop 4 of 6 steps (median 4, 95 % within 6); 1 of 2 samples stop early" in text
    assert "in flight input +1, n1 +0.5 steps when the stop takes effect, counted" in text
    assert "host 16 reads and comparisons per sample (host_ops), not in the energy" in text
    assert "latency 6 steps (2 of them hops)" in text


def test_the_hosts_polling_costs_no_chip_energy_and_makes_no_total_unknown():
    for name, target in TARGETS.items():
        found = outcome(target)
        assert found.events[PLACE, "host_ops"] > 0
        assert found.budget.total is not None, name
        assert "host_ops" not in {line.event for line in found.budget.lines}


def test_infinity_in_a_table_is_null_in_json_and_saves_nothing():
    found = outcome(TARGETS["cpu"], cutoff=(INF,) * STEPS)
    data = run_report(found).data
    assert data["model"]["cutoff"] == [None] * STEPS
    assert data["result"]["steps_run"]["per_sample"] == [6, 6]
    assert {s["saved"] for s in data["result"]["early_stop"]["savings"].values()} == {0.0}
    assert "in flight none" in printed(run_report(found))


def test_without_a_cutoff_nothing_is_said():
    data = run_report(outcome(TARGETS["cpu"], cutoff=None)).data
    assert data["result"]["early_stop"] is None
    assert data["result"]["steps_run"]["mean"] == STEPS
    assert "Early stop" not in printed(run_report(outcome(TARGETS["cpu"], cutoff=None)))


class Running(CpuTarget):
    """A target that knows of no early stop, as a plugin may not."""

    extra_steps = None


def test_a_target_that_does_not_stop_says_so_and_counts_all_steps():
    found, stopping = outcome(Running()), outcome(TARGETS["cpu"])
    assert found.uncut is None
    assert found.events == stopping.uncut.events
    assert found.predictions.tolist() == stopping.predictions.tolist()
    report = run_report(found)
    assert report.data["result"]["early_stop"] == {"honoured": False}
    line = "not on this target: all steps run and count, predictions are read at the stop"
    assert line in printed(report)
    both = printed(compare_report(passing(), [stopping, found], []))
    assert "Early stop cpu 4 of 6 steps" in both
    assert line in both


class Late:
    """A judge whose output is the engine's, with the first sample's spikes one step late."""

    name = "late"
    tolerance = 0.0

    def version(self):
        return "late 1"

    def run(self, lowered, x):
        trace = TARGETS["cpu"].run(lowered, x, "states")
        output = trace.output.copy()
        output[0, 1:] = output[0, :-1]
        output[0, 0] = 0
        return replace(trace, output=output)


def test_verify_compares_where_samples_stop():
    lowered = program("cpu")
    verdict = verify(TARGETS["cpu"], lowered, X, oracle=None)
    assert verdict.equal
    assert (verdict.stops.early, verdict.stops.different) == (1, 0)
    text = printed(verify_report(lowered, verdict, "cpu"))
    assert "stops 1 of 2 samples stop before the last step, the same everywhere" in text
    judged = verify(TARGETS["cpu"], lowered, X, oracle=Late())
    assert judged.proof.equal
    assert not judged.equal
    report = verify_report(lowered, judged, "cpu")
    assert report.data["verdict"]["stops"] == {"early": 1, "different": 1}
    assert "1 of 2 samples stop before the last step; 1 stop elsewhere" in printed(report)
    assert verify(TARGETS["cpu"], program("cpu", passing(None)), X).stops is None


@pytest.mark.parametrize("name", ["loihi", "fpga"])
def test_the_compiled_path_counts_the_same(name, monkeypatch):
    net, x = eager(4, 8, 12, 4, gap=2.5)
    looped = ran(name, net, x)
    monkeypatch.setitem(FixedEngine.__init__.__kwdefaults__, "compile_from", 0.0)
    compiled = ran(name, net, x)
    assert compiled.events == looped.events
    assert compiled.stop.steps.tolist() == looped.stop.steps.tolist()
    assert compiled.stop.whole.events == looped.stop.whole.events
