"""Early stop from the command line: a ticket's table, ``--cutoff``, and what the reports say."""

from __future__ import annotations

import numpy as np
import pytest

from tests import tickets
from tests.cli.helpers import run_cli

TARGETS = ["cpu", "loihi", "fpga"]
MLP = ("mlp.pt", "-i", "mlp.npz")


def result(*arguments):
    ran = run_cli("run", *arguments, "--json", "-")
    assert ran.code == 0, ran.err
    return ran.json["result"]


@pytest.fixture
def table(here):
    """The small ticket with a table: nothing before its third step, then a lead of 1."""

    def put(content):
        content["graph"]["readout"]["cutoff"] = [None, None, 0.5, 0.5, 0.5, None]

    tickets.save(here / "table.pt", tickets.mlp_content(), put)
    return here / "table.pt"


def expected(trace, cutoff):
    """Return (steps, prediction) of each sample by its definition, one spike count at a time."""
    found = []
    for sample in trace:
        scores = [0] * sample.shape[1]
        for t, step in enumerate(sample):
            scores = [score + int(spike) for score, spike in zip(scores, step, strict=True)]
            first, second = sorted(scores)[:-3:-1]
            if first - second > cutoff[t] or t == len(sample) - 1:
                found.append((t + 1, scores.index(first)))
                break
    return found


@pytest.mark.parametrize("target", TARGETS)
def test_a_tickets_table_stops_its_samples(here, table, target):
    options = ("-t", target, "-i", "mlp.npz")
    found = result("table.pt", *options, "--trace", "t.npz")
    spikes = np.load(here / "t.npz")["lif2"]
    assert spikes.shape == (12, 6, 3)  # a trace goes on to the last step
    wanted = expected(spikes, [np.inf, np.inf, 0.5, 0.5, 0.5, np.inf])
    steps = found["steps_run"]["per_sample"]
    assert list(zip(steps, found["predictions"], strict=True)) == wanted
    assert len(set(steps)) > 1
    assert found["early_stop"]["honoured"] is True
    assert found["early_stop"]["stopped_early"] == sum(n < 6 for n in steps)
    whole = result("mlp.pt", *options)
    before = found["early_stop"]["savings"]["neuron_updates"]["all_steps"]
    assert before == sum(layer["neuron_updates"] or 0 for layer in whole["layers"])
    assert found["energy"]["total"]["nominal_pj"] < whole["energy"]["total"]["nominal_pj"]
    assert whole["early_stop"] is None


def test_all_targets_stop_alike_where_they_fire_alike(table):
    found = [result("table.pt", "-t", target, "-i", "mlp.npz") for target in TARGETS]
    assert found[0]["steps_run"] == found[1]["steps_run"] == found[2]["steps_run"]
    assert found[0]["predictions"] == found[1]["predictions"] == found[2]["predictions"]
    flying = [r["early_stop"]["in_flight_steps"] for r in found]
    assert flying[0] == {}
    assert flying[1]["input"] > flying[1]["lif1"] > 0


def test_an_option_tries_one_threshold(here):
    found = result(*MLP, "-t", "cpu", "--cutoff", "0.5", "--trace", "t.npz")
    wanted = expected(np.load(here / "t.npz")["lif2"], [0.5] * 6)
    assert found["steps_run"]["per_sample"] == [steps for steps, _ in wanted]
    never = result(*MLP, "-t", "cpu", "--cutoff", "inf")
    assert set(never["steps_run"]["per_sample"]) == {6}
    assert never["early_stop"]["stopped_early"] == 0
    short = result(*MLP, "-t", "cpu", "--cutoff", "0", "--steps", "3")
    assert max(short["steps_run"]["per_sample"]) <= 3


def test_the_report_is_for_people_too(table):
    ran = run_cli("run", "table.pt", "-t", "loihi", "-i", "mlp.npz")
    assert ran.code == 0
    assert all(len(line) <= 80 for line in ran.out.splitlines())
    text = " ".join(ran.out.split())
    assert "count readout, early stop" in text
    assert "samples stop early" in text
    assert "in flight input +" in text
    assert "reads and comparisons per sample (host_ops), not in the energy" in text
    assert "until the stop saved" in text
    ran = run_cli("compare", *MLP, "--cutoff", "0")
    assert ran.code == 0
    assert " ".join(ran.out.split()).count("of 12 samples stop early") == 3
    assert (
        "early_stop" in run_cli("compare", *MLP, "--cutoff", "0", "--json", "-").json["targets"][0]
    )


def test_verify_compares_all_steps_and_the_stops(table):
    options = ("-t", "loihi", "--on", "emulator", "-i", "mlp.npz")
    ran = run_cli("verify", "table.pt", *options, "--json", "-")
    assert ran.code == 0, ran.err
    stops = result("table.pt", "-t", "loihi", "-i", "mlp.npz")["early_stop"]["stopped_early"]
    assert ran.json["verdict"]["stops"] == {"early": stops, "different": 0}
    assert ran.json["verdict"]["lowering"]["values"]["spikes"] == 12 * 6 * (8 + 3)
    text = " ".join(run_cli("verify", "table.pt", *options).out.split())
    assert f"{stops} of 12 samples stop before the last step, the same everywhere" in text
    assert run_cli("verify", *MLP, *options[:-2], "--cutoff", "0").code == 0


@pytest.mark.parametrize("command", ["run", "verify"])
def test_a_table_that_is_too_short_is_refused_before_anything_runs(table, command):
    ran = run_cli(command, "table.pt", "-t", "cpu", "-i", "mlp.npz", "--steps", "7")
    assert ran.code == 3
    text = " ".join(ran.err.split())
    assert "the readout's cutoff table is shorter than the run" in text
    assert "where table.pt -> lif2" in text
    assert "used 6 thresholds for 7 steps" in text
    assert "hint run at most 6 steps, or give one threshold per step" in text
    # One threshold for all steps takes the table's place.
    given = (command, "table.pt", "-t", "cpu", "-i", "mlp.npz", "--steps", "7", "--cutoff", "1")
    assert run_cli(*given).code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cutoff", "nan"), "a cutoff threshold is nan"),
        (("--cutoff", "-1"), "a cutoff threshold is -1"),
        (("--cutoff", "1", "--readout", "mean"), "a mean readout has no early stop"),
        (("--cutoff", "1", "--readout", "vote:1"), "classes 0..0"),
    ],
)
def test_a_cutoff_that_means_nothing_is_refused(here, options, message):
    ran = run_cli("run", *MLP, "-t", "cpu", *options)
    assert ran.code == 3
    assert message in ran.err


def test_another_readout_leaves_the_table_behind(table):
    found = result("table.pt", "-t", "cpu", "-i", "mlp.npz", "--readout", "count")
    assert found["early_stop"] is None
