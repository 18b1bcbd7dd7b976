"""``run``: predictions, accuracy, confusion, traces, places and arithmetics."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.cli.helpers import run_cli

TARGETS = ["cpu", "loihi", "fpga"]


def result(*arguments):
    ran = run_cli("run", *arguments, "--json", "-")
    assert ran.code == 0, ran.err
    return ran.json["result"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_accuracy_and_confusion_follow_from_the_predictions(here, model, target):
    found = result(f"{model}.pt", "-t", target, "-i", f"{model}.npz")
    labels = np.load(here / f"{model}.npz")["y"]
    predictions = np.array(found["predictions"])
    assert found["labels"] == labels.tolist()
    assert found["accuracy"] == np.mean(predictions == labels)
    table = np.zeros((3, 3), int)
    np.add.at(table, (labels, predictions), 1)
    assert found["confusion"] == table.tolist()
    assert found["samples"] == len(labels)
    assert found["steps"] == 6


def test_without_labels_there_is_no_accuracy(here):
    np.savez(here / "x.npz", x=np.load("mlp.npz")["x"])
    ran = run_cli("run", "mlp.pt", "-t", "cpu", "-i", "x.npz")
    assert ran.code == 0
    assert "accuracy" not in ran.out
    assert result("mlp.pt", "-t", "cpu", "-i", "x.npz")["accuracy"] is None


def test_a_part_of_the_samples_sees_the_same_spikes(here):
    whole = result("mlp.pt", "-t", "cpu", "-i", "mlp.npz")
    part = result("mlp.pt", "-t", "cpu", "-i", "mlp.npz", "-n", "5")
    assert part["samples"] == 5
    assert part["predictions"] == whole["predictions"][:5]


@pytest.mark.parametrize("target", TARGETS)
def test_traces_hold_every_population(here, target):
    ran = run_cli("run", "conv.pt", "-t", target, "-i", "conv.npz", "--trace", "t.npz")
    assert ran.code == 0, ran.err
    assert "wrote t.npz" in ran.err
    with np.load(here / "t.npz") as trace:
        shapes = {name: trace[name].shape for name in trace.files}
        assert shapes == {
            "input": (6, 6, 1, 6, 6),
            "lif1": (6, 6, 4, 6, 6),
            "lif2": (6, 6, 3),
        }
        assert all(set(np.unique(trace[name])) <= {0, 1} for name in trace.files)
        found = trace["lif2"].sum(axis=1).argmax(axis=1).tolist()
        assert found == result("conv.pt", "-t", target, "-i", "conv.npz")["predictions"]


def test_all_targets_see_the_same_input_spikes(here):
    seen = []
    for target in TARGETS:
        run_cli("run", "mlp.pt", "-t", target, "-i", "mlp.npz", "--trace", f"{target}.npz", "-q")
        seen.append(np.load(here / f"{target}.npz")["input"])
    assert (seen[0] == seen[1]).all()
    assert (seen[0] == seen[2]).all()


def test_the_seed_changes_the_spikes_and_nothing_else_does(here):
    for name, seed in (("a", 3), ("b", 4)):
        arguments = ("-t", "cpu", "-i", "mlp.npz", "--seed", seed, "--trace", f"{name}.npz")
        assert run_cli("run", "mlp.pt", *arguments).code == 0
    assert run_cli("run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz", "--trace", "c.npz").code == 0
    a, b, c = (np.load(here / f"{n}.npz")["input"] for n in "abc")
    assert (a == c).all()
    assert (a != b).any()


@pytest.mark.parametrize("arithmetic", ["loihi", "fpga"])
def test_the_cpu_computes_in_any_targets_integers(here, arithmetic):
    own = result("mlp.pt", "-t", arithmetic, "-i", "mlp.npz")
    cpu = result("mlp.pt", "-t", "cpu", "-i", "mlp.npz", "--arithmetic", arithmetic)
    assert cpu["predictions"] == own["predictions"]
    assert cpu["quantization"] == own["quantization"]
    total = lambda r: sum(x["total"] for x in r["events"] if x["event"] == "spikes")
    assert total(cpu) == total(own)
    assert cpu["arithmetic"] == own["arithmetic"] == arithmetic
    assert cpu["ran_on"] == f"our engine, in {arithmetic}'s integers"
    ran = run_cli("run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz", "--arithmetic", arithmetic)
    assert "energy and memory are those of the float program" in ran.out


def test_norse_has_no_integers(here):
    run = ("run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz", "--on", "norse")
    ran = run_cli(*run, "--arithmetic", "loihi")
    assert ran.code == 2
    assert "norse computes in float, not in loihi's integers" in ran.err
    assert "leave out --on or --arithmetic" in ran.err


def test_float_is_an_arithmetic(here):
    run = ("mlp.pt", "-t", "cpu", "-i", "mlp.npz")
    assert result(*run, "--arithmetic", "float") == result(*run)


def test_arithmetic_is_for_float_targets(here):
    ran = run_cli("run", "mlp.pt", "-t", "loihi", "-i", "mlp.npz", "--arithmetic", "fpga")
    assert ran.code == 2
    assert "use --target cpu --arithmetic fpga" in ran.err


@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_lava_predicts_what_our_model_of_it_does(here, lava, model):
    emulator = result(f"{model}.pt", "-t", "loihi", "-i", f"{model}.npz", "-n", "4")
    judge = result(f"{model}.pt", "-t", "loihi", "-i", f"{model}.npz", "-n", "4", "--on", "lava")
    assert judge["ran_on"].startswith("lava-nc ")
    assert judge["predictions"] == emulator["predictions"]
    assert judge["events"] == emulator["events"]
    assert judge["energy"] == emulator["energy"]


def test_norse_predicts_what_our_engine_does(here):
    emulator = result("mlp.pt", "-t", "cpu", "-i", "mlp.npz")
    judge = result("mlp.pt", "-t", "cpu", "-i", "mlp.npz", "--on", "norse")
    assert judge["ran_on"].startswith("norse ")
    assert judge["predictions"] == emulator["predictions"]
    assert judge["events"] == emulator["events"]


def test_the_rtl_predicts_and_costs_what_our_model_does(here, verilator):
    emulator = result("mlp.pt", "-t", "fpga", "-i", "mlp.npz")
    judge = result("mlp.pt", "-t", "fpga", "-i", "mlp.npz", "--on", "rtl")
    assert judge["ran_on"].startswith("RTL under verilator ")
    for part in ("predictions", "events", "latency", "energy"):
        assert judge[part] == emulator[part], part


@pytest.mark.parametrize(
    ("target", "place", "code", "text"),
    [
        ("loihi", "rtl", 2, "--on emulator or --on lava"),
        ("fpga", "netx", 2, "--on emulator or --on rtl"),
        ("fpga", "lava", 2, "--on emulator or --on rtl"),
        ("cpu", "moon", 2, "--on emulator or --on norse"),
    ],
)
def test_places_that_a_target_does_not_have(here, target, place, code, text):
    ran = run_cli("run", "mlp.pt", "-t", target, "-i", "mlp.npz", "--on", place)
    assert ran.code == code
    assert text in ran.err


def test_the_records_add_up(here):
    for target in TARGETS:
        found = result("mlp.pt", "-t", target, "-i", "mlp.npz")
        layers = sum(layer["energy_pj"] for layer in found["layers"])
        assert layers == pytest.approx(found["energy"]["total"]["nominal_pj"])
        bits = sum(layer["memory_bits"] for layer in found["layers"])
        assert bits == sum(item["bits"] for item in found["memory"])


def test_a_near_target_is_suggested(here):
    ran = run_cli("run", "mlp.pt", "-t", "loihii", "-i", "mlp.npz")
    assert ran.code == 2
    assert "did you mean --target loihi?" in ran.err


@pytest.mark.parametrize(
    ("setting", "text", "hint"),
    [
        ("fifo_depth=3", "fifo_depth is out of range", "--set fifo_depth=4"),
        ("banks=65", "banks is out of range", "--set banks=8"),
        ("banks=few", "'banks=few' is not NAME=N", "banks=4"),
        ("bank=4", "no setting is called 'bank'", "settings: banks, fifo_depth"),
    ],
)
def test_settings_out_of_range_name_the_option(here, setting, text, hint):
    ran = run_cli("run", "mlp.pt", "-t", "fpga", "-i", "mlp.npz", "--set", setting)
    assert ran.code == 2
    assert text in ran.err
    assert hint in ran.err


def test_settings_reach_the_target(here):
    cycles = [
        result("conv.pt", "-t", "fpga", "-i", "conv.npz", "--set", f"banks={n}")["latency"]
        for n in (1, 8)
    ]
    assert cycles[0]["cycles"] > cycles[1]["cycles"]


def test_a_target_without_settings_says_so(here):
    ran = run_cli("run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz", "--set", "banks=4")
    assert ran.code == 2
    assert "no setting is called 'banks'" in ran.err


# ---------------------------------------------------------------- models of other kinds


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_plain_state_dict_with_its_architecture(here, suffix):
    import torch

    from snn_deploy.tickets.models.build import build

    torch.manual_seed(0)
    module = build("mlp", (12,), 3, hidden=(8,))
    if suffix == ".pt":
        torch.save(module.state_dict(), here / "weights.pt")
    else:
        save_file = pytest.importorskip("safetensors.torch").save_file
        save_file(module.state_dict(), here / "weights.safetensors")
    (here / "net.py").write_text(
        "import torch\nfrom snn_deploy.tickets.models.build import build\n"
        "def net():\n    return build('mlp', (12,), 3, hidden=(8,)), torch.zeros(1, 12)\n"
    )
    run = ("-t", "cpu", "-i", "mlp.npz", "--coding", "rate", "--steps", 4)
    named = result(f"weights{suffix}", *run, "--arch", "mlp")
    assert result(f"weights{suffix}", *run, "--arch", "net.py:net") == named
    assert named["steps"] == 4


def test_a_foreign_nir_graph_is_asked_for_what_it_leaves_open(here):
    import nir

    weight = np.random.default_rng(0).normal(0.3, 1, (3, 12))
    one = np.ones(3)
    nodes = {
        "input": nir.Input(np.array([12])),
        "fc": nir.Linear(weight),
        "lif": nir.LIF(tau=2e-3 * one, r=one, v_leak=0 * one, v_threshold=one),
        "output": nir.Output(np.array([3])),
    }
    edges = [("input", "fc"), ("fc", "lif"), ("lif", "output")]
    nir.write(here / "foreign.nir", nir.NIRGraph(nodes, edges))
    options: list[str] = ["-t", "fpga", "-i", "mlp.npz", "--coding", "rate", "--steps", "5"]
    for hint, answer in (("--dt SECONDS", ["--dt", "1e-3"]), ("--reset", ["--reset", "value"])):
        ran = run_cli("run", "foreign.nir", *options)
        assert ran.code == 3
        assert hint in ran.err
        options += answer
    assert result("foreign.nir", *options)["steps"] == 5


@pytest.mark.parametrize("target", TARGETS)
def test_a_graph_that_ends_in_integrators_takes_a_membrane_readout(here, target):
    import nir

    one = np.ones(3)
    leaky = {"tau": 2e-3 * one, "r": one, "v_leak": 0 * one}
    nodes = {
        "input": nir.Input(np.array([12])),
        "fc": nir.Linear(np.random.default_rng(0).normal(1, 2, (3, 12))),
        "lif": nir.LIF(**leaky, v_threshold=one),
        "out": nir.Linear(np.eye(3)[[1, 2, 0]]),
        "li": nir.LI(**leaky),
        "output": nir.Output(np.array([3])),
    }
    nir.write(here / "li.nir", nir.NIRGraph(nodes, list(itertools.pairwise(nodes))))
    options = ("-t", target, "-i", "mlp.npz", "--coding", "rate", "--steps", "5", "--dt", "1e-3")
    ran = run_cli("run", "li.nir", *options, "--reset", "value")
    assert ran.code == 3
    assert "--readout last or max or mean" in ran.err
    found = result("li.nir", *options, "--reset", "value", "--readout", "mean", "--trace", "t.npz")
    spikes = np.load(here / "t.npz")["lif"]  # the integrators see them turned by one neuron
    mean = np.zeros((len(spikes), 3))
    v = np.zeros_like(mean)
    for step in range(5):
        v = 0.5 * v + 0.5 * spikes[:, step][:, [1, 2, 0]]
        mean += v / 5
    assert found["predictions"] == mean.argmax(1).tolist()


def test_the_readout_replaces_the_files(here):
    run = ("mlp.pt", "-t", "cpu", "-i", "mlp.npz")
    assert result(*run, "--readout", "count") == result(*run)
    votes = result(*run, "--readout", "vote:3")
    assert votes["predictions"] == result(*run)["predictions"]
    ran = run_cli("run", *run, "--readout", "last", "--json", "-")
    assert ran.json["model"]["readout"] == "last"
    ran = run_cli("run", *run, "--readout", "vote:1")
    assert ran.code == 3  # all neurons vote for one class
    assert "classes 0..0" in ran.err


@pytest.mark.parametrize("text", ["vote", "vote:0", "vote:x", "count:2", "median", ""])
def test_unknown_readouts(here, text):
    ran = run_cli("run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz", "--readout", text)
    assert ran.code == 2
    assert "count, vote:CLASSES, last, max, mean" in ran.err


def test_votes_that_do_not_divide_the_outputs(here):
    ran = run_cli("run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz", "--readout", "vote:2")
    assert ran.code == 3
    assert "3 output neurons do not split into 2 groups" in ran.err


@pytest.mark.parametrize(
    ("agreeing", "option", "other", "used"),
    [
        ("1e-3", "--dt", "1e-4", "--dt 0.0001, the model says 0.001"),
        ("value", "--reset", "subtract", "--reset subtract, the model says value"),
    ],
)
def test_what_a_ticket_says_is_not_overruled(here, agreeing, option, other, used):
    run = ("mlp.pt", "-t", "cpu", "-i", "mlp.npz")
    assert result(*run, option, agreeing) == result(*run)
    ran = run_cli("run", *run, option, other)
    assert ran.code == 2
    assert used in ran.err
    assert f"leave {option} out" in ran.err


def test_overflows_of_integer_states_are_said(here):
    assert result("mlp.pt", "-t", "cpu", "-i", "mlp.npz")["overflows"] is None
    counted = result("mlp.pt", "-t", "fpga", "-i", "mlp.npz")["overflows"]
    assert set(counted) == {"saturated", "wrapped"}
    shown = run_cli("run", "mlp.pt", "-t", "fpga", "-i", "mlp.npz").out
    assert f"{counted['saturated']:,} saturated, {counted['wrapped']:,} wrapped" in shown


FRAMEWORK_ARCH = """
import torch
from torch import nn


def snntorch():
    import snntorch as snn

    cells = [snn.Leaky(beta=0.7, threshold=0.5, init_hidden=True) for _ in range(2)]
    net = nn.Sequential(nn.Linear(12, 8), cells[0], nn.Linear(8, 3), cells[1])
    return net.eval(), torch.zeros(1, 12)


def spikingjelly():
    from spikingjelly.activation_based import layer, neuron

    cells = [neuron.LIFNode(v_threshold=0.3, v_reset=None) for _ in range(2)]
    net = nn.Sequential(layer.Linear(12, 8), cells[0], layer.Linear(8, 3), cells[1])
    return net.eval(), torch.zeros(1, 12)


def norse():
    import norse.torch as norse

    p = norse.LIFParameters(v_th=torch.tensor(0.3))
    return norse.SequentialState(
        nn.Linear(12, 8), norse.LIFCell(p, dt=2e-3), nn.Linear(8, 3), norse.LIFCell(p, dt=2e-3)
    ), torch.zeros(1, 12)
"""


@pytest.mark.parametrize("framework", ["snntorch", "spikingjelly", "norse"])
def test_a_state_dict_of_another_framework(here, framework):
    torch = pytest.importorskip("torch")
    (here / "nets.py").write_text(FRAMEWORK_ARCH)
    space: dict = {}
    exec(FRAMEWORK_ARCH, space)
    torch.manual_seed(0)
    module, _ = space[framework]()
    torch.save(module.state_dict(), here / "weights.pt")
    how = ("weights.pt", "-t", "cpu", "-i", "mlp.npz", "--arch", f"nets.py:{framework}")
    coded = ("--coding", "rate", "--steps", "8")
    ran = run_cli("run", *how, *coded, "--dt", "2e-3", "--json", "-")
    assert ran.code == 0, ran.err
    assert ran.json["model"]["dt_s"] == 2e-3
    ran = run_cli("run", *how, *coded)
    if framework == "norse":  # its cells know their step
        assert ran.code == 0, ran.err
    else:
        assert ran.code == 2
        assert "--dt SECONDS" in ran.err


def test_feedback_makes_an_edge_take_a_step(here):
    ran = run_cli("inspect", "mlp.pt", "--feedback", "lif1->lif2")
    assert ran.code == 0, ran.err
    ran = run_cli("inspect", "mlp.pt", "--feedback", "lif1->nowhere")
    assert ran.code == 3
    assert "feedback names an edge that does not exist" in ran.err
    ran = run_cli("inspect", "mlp.pt", "--feedback", "lif1")
    assert ran.code == 2
    assert "is not PRE->POST" in ran.err
    plain = run_cli("run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz", "--json", "-").json
    late = run_cli(
        "run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz", "--json", "-", "--feedback", "lif1->lif2"
    ).json
    assert plain != late


def test_energy_on_loihi2_is_lent_and_says_so(here):
    arguments = ("run", "mlp.pt", "-i", "mlp.npz", "-t", "loihi", "-d", "loihi2")
    ran = run_cli(*arguments)
    assert "energy     n/a" in ran.out
    ran = run_cli(*arguments, "--proxy-prices", "loihi1")
    assert ran.code == 0
    assert "(proxy; chip prices of loihi1)" in " ".join(ran.out.split())


# Calibration.


@pytest.mark.parametrize("target", ["loihi", "fpga"])
def test_samples_size_the_integer_states(here, target):
    arguments = ("run", "mlp.pt", "-t", target, "-i", "mlp.npz", "-v")
    plain, ran = run_cli(*arguments), run_cli(*arguments, "--calibrate", "mlp.npz")
    assert ran.code == 0, ran.err
    shown = [" ".join(r.out.split()) for r in (plain, ran)]
    assert "states have room for an estimate from the weights" in shown[0]
    assert "states have room for the calibration samples" in shown[1]
    assert "0 saturated, 0 wrapped integer states" in shown[1]
    assert max(map(len, ran.out.splitlines())) <= 80
    found = result("mlp.pt", "-t", target, "-i", "mlp.npz", "--calibrate", "mlp.npz")
    assert [n["population"] for n in found["neurons"]] == ["lif1", "lif2"]
    assert all(n["tau_integer_s"] == pytest.approx(n["tau_s"]) for n in found["neurons"])
    assert all(0 <= n["threshold_error"] < 0.05 for n in found["neurons"])


def test_calibration_of_floats_is_refused(here):
    ran = run_cli("run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz", "--calibrate", "mlp.npz")
    assert ran.code == 2
    assert "--calibrate sets the range of integer states, and here all are floats" in ran.err
    assert "leave --calibrate out, or use --target loihi or fpga" in ran.err
    arguments = ("-t", "cpu", "-i", "mlp.npz", "--arithmetic", "fpga", "--calibrate", "mlp.npz")
    assert run_cli("run", "mlp.pt", *arguments).code == 0
    for command in (("export", "-t", "cpu"), ("verify", "-t", "cpu", "-i", "mlp.npz")):
        ran = run_cli(command[0], "mlp.pt", *command[1:], "--calibrate", "mlp.npz")
        assert (ran.code, "all are floats" in ran.err) == (2, True)
    ran = run_cli("export", "mlp.pt", "-t", "cpu", "-t", "loihi", "--calibrate", "mlp.npz")
    assert ran.code == 0, ran.err


def test_calibration_samples_must_fit_the_model(here):
    ran = run_cli("run", "mlp.pt", "-t", "fpga", "-i", "mlp.npz", "--calibrate", "conv.npz")
    assert ran.code == 3
    assert "conv.npz" in ran.err
