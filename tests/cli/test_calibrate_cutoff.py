"""``calibrate-cutoff``: the table it writes, that every target stops by it, and its messages."""

from __future__ import annotations

import csv
import sys

import numpy as np
import pytest

from snn_deploy.io.ticket import read_ticket
from tests import tickets
from tests.cli.helpers import run_cli

OPTIONS = ("-i", "own.npz", "-e", "0")


@pytest.fixture
def labelled(here):
    """The small ticket, and data whose labels are what it says after 12 steps."""

    def put(content):
        content["graph"]["coding"]["steps"] = 12
        content["meta"] = {"note": "kept", "numbers": [1, 2.5, None]}

    tickets.save(here / "mlp.pt", tickets.mlp_content(), put)
    for name, seed in (("own", 1), ("other", 2)):
        x = np.random.default_rng(seed).random((40, 12)).astype(np.float32)
        np.savez(here / f"{name}.npz", x=x)
        ran = run_cli("run", "mlp.pt", "-t", "cpu", "-i", f"{name}.npz", "--json", "-")
        np.savez(here / f"{name}.npz", x=x, y=ran.json["result"]["predictions"])
    return here


def calibrated(*arguments):
    ran = run_cli("calibrate-cutoff", *arguments, "--json", "-")
    assert ran.code == 0, ran.err
    return ran.json


def result(*arguments):
    ran = run_cli("run", *arguments, "--json", "-")
    assert ran.code == 0, ran.err
    return ran.json["result"]


def test_a_ticket_keeps_all_but_its_table(labelled):
    document = calibrated("mlp.pt", *OPTIONS, "-o", "out.pt")
    (found,) = document["calibrations"]
    before, after = read_ticket("mlp.pt"), read_ticket("out.pt")
    assert after.graph["readout"]["cutoff"] == found["cutoff"]
    assert len(found["cutoff"]) == 12
    assert found["cutoff"][0] is None  # nothing is sure after one step
    assert found["cutoff"][-1] == 0
    for part in ("state", "masks"):
        ours, theirs = getattr(after, part), getattr(before, part)
        assert list(ours) == list(theirs)
        assert all(np.array_equal(ours[k], theirs[k]) for k in ours)
        assert all(ours[k].dtype == theirs[k].dtype for k in ours)
    assert after.meta == before.meta == {"note": "kept", "numbers": [1, 2.5, None]}
    assert {**after.graph, "readout": None} == {**before.graph, "readout": None}
    # What the report says about the calibration samples is what running them gives.
    ran = result("out.pt", "-t", "cpu", "-i", "own.npz")
    measured = found["calibration"]
    assert {k: ran["steps_run"][k] for k in ("mean", "median", "p95")} == measured["steps"]
    assert ran["accuracy"] == measured["accuracy_stopped"]
    assert measured["accuracy"] == 1.0
    assert 1 < measured["steps"]["mean"] < 12
    assert (measured["samples"], measured["total_steps"]) == (40, 12)


def test_options_that_change_the_network_are_written(labelled):
    calibrated("mlp.pt", *OPTIONS, "-o", "out.pt", "--steps", "8", "--seed", "9")
    ticket = read_ticket("out.pt")
    assert ticket.graph["coding"] == {"kind": "rate", "steps": 8, "seed": 9, "gain": 1.0}
    assert len(ticket.graph["readout"]["cutoff"]) == 8
    assert result("out.pt", "-t", "cpu", "-i", "own.npz")["early_stop"]["honoured"]


def test_what_is_no_ticket_becomes_a_graph(labelled):
    first = calibrated("mlp.pt", *OPTIONS, "-o", "out.nir")["calibrations"][0]
    ours = result("out.nir", "-t", "cpu", "-i", "own.npz")["steps_run"]
    assert ours["mean"] == first["calibration"]["steps"]["mean"]
    # Calibrated again, from the graph: its table is replaced, also by a shorter one.
    again = calibrated("out.nir", *OPTIONS, "-o", "again.nir")["calibrations"][0]
    assert again["cutoff"] == first["cutoff"]
    longer = calibrated("out.nir", *OPTIONS, "--steps", "15")["calibrations"][0]
    assert len(longer["cutoff"]) == 15


def test_a_state_dict_and_a_convolution_become_graphs_too(labelled):
    torch = pytest.importorskip("torch")
    content = tickets.mlp_content()
    torch.save(content["state"], "state.pt")
    arch = ("--arch", "mlp", "--coding", "rate", "--steps", "12", "--seed", "3")
    found = calibrated("state.pt", *arch, *OPTIONS, "-o", "state.nir")["calibrations"][0]
    ours = result("state.nir", "-t", "loihi", "-i", "own.npz")
    assert ours["early_stop"]["honoured"]
    assert len(found["cutoff"]) == 12
    found = calibrated("conv.pt", "-i", "conv.npz", "-e", "0.2", "-o", "conv.nir")["calibrations"]
    ours = result("conv.nir", "-t", "cpu", "-i", "conv.npz")
    assert ours["steps_run"]["mean"] == found[0]["calibration"]["steps"]["mean"]
    assert ours["accuracy"] == found[0]["calibration"]["accuracy_stopped"]


@pytest.mark.parametrize("target", ["cpu", "loihi", "fpga"])
def test_every_target_stops_by_the_table(labelled, target):
    found = calibrated("mlp.pt", *OPTIONS, "-t", target, "-o", "out.pt")["calibrations"][0]
    ran = result("out.pt", "-t", target, "-i", "own.npz")
    assert {k: ran["steps_run"][k] for k in ("mean", "median", "p95")} == (
        found["calibration"]["steps"]
    )
    assert ran["accuracy"] == found["calibration"]["accuracy_stopped"]
    early = ran["early_stop"]
    assert early["honoured"]
    assert early["stopped_early"] == sum(n < 12 for n in ran["steps_run"]["per_sample"]) > 0
    for saved in ("synops_effective", "neuron_updates", "spikes", "latency_steps", "energy_pj"):
        assert 0 < early["savings"][saved]["saved"] < 1
    options = ("-t", target, "--on", "emulator", "-i", "own.npz")
    ran = run_cli("verify", "out.pt", *options, "--json", "-")
    assert ran.code == 0, ran.err
    assert ran.json["verdict"]["stops"]["different"] == 0
    assert ran.json["verdict"]["stops"]["early"] > 0


def test_targets_are_compared_with_the_table(labelled):
    calibrated("mlp.pt", *OPTIONS, "-o", "out.pt")
    ran = run_cli("compare", "out.pt", "-i", "own.npz", "--json", "-")
    assert ran.code == 0, ran.err
    assert [t["early_stop"]["stopped_early"] > 0 for t in ran.json["targets"]] == [True] * 3
    text = " ".join(run_cli("compare", "out.pt", "-i", "own.npz").out.split())
    assert text.count("of 40 samples stop early") == 3


def test_lava_stops_at_the_same_steps(labelled, lava):
    calibrated("mlp.pt", *OPTIONS, "-t", "loihi", "-o", "out.pt")
    options = ("-t", "loihi", "-i", "own.npz", "-n", "8")
    ran = run_cli("verify", "out.pt", *options, "--json", "-")
    assert ran.code == 0, ran.err
    stops = ran.json["verdict"]["stops"]
    assert stops["different"] == 0
    assert stops["early"] > 0
    ours, theirs = result("out.pt", *options), result("out.pt", *options, "--on", "lava")
    assert theirs["ran_on"].startswith("lava-nc")
    assert theirs["steps_run"] == ours["steps_run"]
    assert theirs["early_stop"] == ours["early_stop"]


def test_integers_have_a_table_of_their_own(labelled):
    floats = calibrated("mlp.pt", *OPTIONS)
    integers = calibrated("mlp.pt", *OPTIONS, "-t", "fpga", "--bits", "2")
    assert (floats["computed_by"], integers["computed_by"]) == (
        "the float engine",
        "the integers of fpga",
    )
    assert integers["calibrations"][0]["cutoff"] != floats["calibrations"][0]["cutoff"]


def test_several_epsilons_are_a_table_of_trade_offs(labelled):
    before = sorted(p.name for p in labelled.iterdir())
    arguments = ("mlp.pt", "-i", "own.npz", "-e", "0", "-e", "0.05", "-e", "0.2", "-e", "0.05")
    found = calibrated(*arguments, "--evaluate", "other.npz", "--csv", "t.csv")
    assert found["file"] is None
    assert sorted(p.name for p in labelled.iterdir()) == sorted([*before, "t.csv"])
    assert [c["epsilon"] for c in found["calibrations"]] == [0, 0.05, 0.2]
    steps = [c["calibration"]["steps"]["mean"] for c in found["calibrations"]]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > steps[-1]
    assert found["calibrations"][0]["calibration"]["accuracy_stopped"] == 1.0
    rows = list(csv.DictReader((labelled / "t.csv").open()))
    assert [(r["epsilon"], r["on"]) for r in rows] == [
        (e, on) for e in ("0.0", "0.05", "0.2") for on in ("calibration", "evaluation")
    ]
    elsewhere = found["calibrations"][1]["evaluation"]
    assert float(rows[3]["mean_steps"]) == elsewhere["steps"]["mean"]
    assert float(rows[3]["accuracy_stopped"]) == elsewhere["accuracy_stopped"]
    # Samples that the table was not taken from: as running them with it.
    calibrated("mlp.pt", "-i", "own.npz", "-e", "0.05", "-o", "out.pt")
    ran = result("out.pt", "-t", "cpu", "-i", "other.npz")
    assert ran["steps_run"]["mean"] == elsewhere["steps"]["mean"]
    assert ran["accuracy"] == elsewhere["accuracy_stopped"]


def test_the_report_is_for_people_too(labelled):
    ran = run_cli("calibrate-cutoff", "mlp.pt", *OPTIONS, "--evaluate", "other.npz")
    assert ran.code == 0, ran.err
    assert all(len(line) <= 80 for line in ran.out.splitlines())
    text = " ".join(ran.out.split())
    assert "samples 40 of 12 steps, with the float engine" in text
    assert "without 100.0 % right after all steps" in text
    assert "evaluated 40 other samples, 100.0 % right" in text
    assert "epsilon samples mean median 95 % fewer accuracy lost" in text
    assert "1 never stops 0.0 %" in text
    assert "12 0 100.0 %" in text
    assert "a sample stops where its gap, in spikes, is above the threshold" in text
    assert "file nothing: a file is written for one --epsilon and -o" in text
    ran = run_cli("calibrate-cutoff", "mlp.pt", *OPTIONS, "-o", "a.nir", "--html", "a.html")
    assert "measured on the samples that the thresholds were taken from" in " ".join(
        ran.out.split()
    )
    assert "file a.nir" in " ".join(ran.out.split())
    assert "never stops" in (labelled / "a.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "messages"),
    [
        (
            ("mlp.pt", "-i", "x.npz", "-e", "0"),
            3,
            (
                "the samples have no labels, and a cutoff is calibrated on what is right",
                "where x.npz",
                "hint save them beside x: np.savez(path, x=x, y=labels)",
            ),
        ),
        (
            ("mlp.pt", "-i", "own.npz", "--evaluate", "x.npz", "-e", "0"),
            3,
            ("the samples have no labels", "where x.npz"),
        ),
        (
            ("mlp.pt", *OPTIONS, "--readout", "mean"),
            3,
            (
                "a mean readout has no early stop: a cutoff compares spike counts",
                "where mlp.pt -> lif2",
                "hint use --readout count or vote:CLASSES",
            ),
        ),
        (
            ("mlp.pt", *OPTIONS, "--steps", "1"),
            3,
            (
                "a run of one step cannot stop early",
                "used 1 step",
                "hint calibrate with 2 steps or more: --steps T, or samples with more steps",
            ),
        ),
        (
            ("mlp.pt", "-i", "own.npz", "-e", "1"),
            2,
            (
                "epsilon 1 is not a share of wrong stops",
                "hint 0 for none on the calibration samples, 0.01 for 1 %, less than 1",
            ),
        ),
        (
            ("mlp.pt", "-i", "own.npz", "-e", "0", "-e", "0.1", "-o", "out.pt"),
            2,
            (
                "out.pt holds one table, and there are 2 values of --epsilon",
                "hint compare them without -o, then choose one",
            ),
        ),
        (
            ("mlp.pt", *OPTIONS, "-o", "out.onnx"),
            2,
            (
                "out.onnx ends in neither .nir nor .pt",
                "hint write a NIR graph, or a ticket where MODEL is one",
            ),
        ),
        (
            ("graph.nir", *OPTIONS, "-o", "out.pt"),
            2,
            (
                "out.pt would be a ticket, and the model is none",
                "where graph.nir",
                "hint write a NIR graph: -o out.nir",
            ),
        ),
        (
            ("mlp.pt", *OPTIONS, "-o", "graph.nir"),
            10,
            ("graph.nir exists already", "hint add --force to replace it"),
        ),
        (
            ("mlp.pt", *OPTIONS, "--evaluate", "own.npz", "--csv", "own.npz"),
            2,
            ("own.npz is an input, it will not be overwritten",),
        ),
        (
            ("mlp.pt", *OPTIONS, "--evaluate", "long.npz"),
            3,
            ("the readout's cutoff table is shorter than the run", "12 thresholds for 14 steps"),
        ),
        (("mlp.pt", "-i", "own.npz"), 2, ("Missing option '-e' / '--epsilon'",)),
        (
            ("mlp.pt", *OPTIONS, "--calibrate", "own.npz"),
            2,
            ("--calibrate sets the range of integer states, and here all are floats",),
        ),
    ],
)
def test_messages(labelled, arguments, code, messages):
    with np.load(labelled / "own.npz") as own:
        np.savez(labelled / "x.npz", x=own["x"])
    np.savez(labelled / "long.npz", x=np.zeros((2, 14, 12)), y=[0, 1])
    calibrated("mlp.pt", *OPTIONS, "-o", "graph.nir")
    ran = run_cli("calibrate-cutoff", *arguments)
    assert ran.code == code
    text = " ".join(ran.err.split())
    for message in messages:
        assert message in text
    assert not (labelled / "out.pt").exists()


def test_writing_a_ticket_needs_torch(labelled, monkeypatch):
    monkeypatch.delitem(sys.modules, "snn_deploy.frontends.rewrite", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    ran = run_cli("calibrate-cutoff", "mlp.pt", *OPTIONS, "-o", "out.pt")
    assert ran.code == 7
    text = " ".join(ran.err.split())
    assert "torch writes tickets, and torch is not installed" in text
    assert "hint pip install 'snn-deploy[train]', or -o out.nir" in text
    assert run_cli("calibrate-cutoff", "mlp.pt", *OPTIONS, "-o", "out.nir").code == 0
