"""``crosscheck``: the same network in every framework that can express it."""

from __future__ import annotations

import csv
import importlib.metadata

import numpy as np
import pytest

import snn_deploy
from snn_deploy.bridges.peers import NAMES, TorchPeer
from snn_deploy.ir import Dense
from tests.builders import KINDS, lif, row, spikes
from tests.cli.helpers import run_cli


@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_all_frameworks_agree(here, model):
    ran = run_cli("crosscheck", f"{model}.pt", "-i", f"{model}.npz", "--json", "-")
    assert ran.code == 0, ran.err
    assert ran.json["mismatches"] == 0
    rows = {one["framework"]: one for one in ran.json["frameworks"]}
    assert set(rows) == set(NAMES)
    for found in rows.values():
        assert found["status"] == "equal", found
        assert found["mismatched_spikes"] == 0
        assert found["spikes"] > 0
        assert found["latency_steps"] == 0
        assert found["version"]


def test_the_table_fits_a_terminal(here):
    ran = run_cli("crosscheck", "mlp.pt", "-i", "mlp.npz", "-n", "3")
    assert ran.code == 0
    assert ran.out.startswith(f"crosscheck: 0 mismatches in {len(NAMES)} of {len(NAMES)} framew")
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "samples  3 of " in ran.out


def test_named_frameworks_and_files(here):
    ran = run_cli(
        "crosscheck", "mlp.pt", "-i", "mlp.npz", "--with", "norse,nir-euler", "--csv", "x.csv",
        "--html", "x.html",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    rows = list(csv.DictReader((here / "x.csv").open()))
    assert [one["framework"] for one in rows] == ["norse", "nir-euler"]
    assert "Spike for spike" in (here / "x.html").read_text()


def test_an_unknown_framework_is_a_usage_error(here):
    ran = run_cli("crosscheck", "mlp.pt", "-i", "mlp.npz", "--with", "brian")
    assert ran.code == 2
    assert "no framework is called 'brian'" in ran.err
    assert "choose from norse" in ran.err
    ran = run_cli("crosscheck", "mlp.pt", "-i", "mlp.npz", "--with", ",")
    assert (ran.code, "--with names no framework" in ran.err) == (2, True)


def test_a_named_framework_that_is_absent_is_exit_7(here, monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "snntorch":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    ran = run_cli("crosscheck", "mlp.pt", "-i", "mlp.npz", "--with", "snntorch")
    assert ran.code == 7
    assert "pip install 'snn-deploy[interop]'" in ran.err
    ran = run_cli("crosscheck", "mlp.pt", "-i", "mlp.npz", "-n", "2")
    assert ran.code == 0
    assert "Not installed" in ran.out
    assert "pip install 'snn-deploy[interop]'" in ran.out


def test_with_no_framework_at_all_the_command_that_installs_one_is_named(here, monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    ran = run_cli("crosscheck", "mlp.pt", "-i", "mlp.npz", "-n", "2", "--json", "-")
    assert ran.code == 7
    assert {one["status"] for one in ran.json["frameworks"]} == {"not installed"}
    assert "none of the frameworks is installed" in ran.err
    assert "pip install 'snn-deploy[train]'" in ran.err


def test_a_mismatch_is_exit_6_and_located(here, monkeypatch):
    run = TorchPeer.run

    def broken(self, network, x):
        trace = run(self, network, x)
        name = network.outputs[0]
        trace.spikes[name][1, 2, 0] = 1 - trace.spikes[name][1, 2, 0]
        return trace

    monkeypatch.setattr(TorchPeer, "run", broken)
    ran = run_cli("crosscheck", "mlp.pt", "-i", "mlp.npz", "--with", "norse", "--json", "-")
    assert ran.code == 6
    assert ran.json["ok"] is False
    (found,) = ran.json["frameworks"]
    assert found["status"] == "mismatch"
    assert found["mismatched_spikes"] == 1
    first = found["first"]
    assert (first["sample"], first["step"], first["neuron"]) == (1, 2, 0)
    assert first["margin"] > 1e-9
    assert "norse and our engine disagree" in ran.err
    assert "equal spikes are the promise" in ran.err
    ran = run_cli("crosscheck", "mlp.pt", "-i", "mlp.npz", "--with", "norse,nir-euler")
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "from the threshold" in ran.out


def test_a_tie_that_rounding_decides_says_so(here):
    rng = np.random.default_rng(9)
    net = row((6,), Dense(weight=rng.integers(-5, 6, (8, 6)) / 10), lif(10, threshold=0.1))
    snn_deploy.save_nir(net, here / "tie.nir")
    x = spikes(np.random.default_rng(1), 60, 40, (6,))
    np.savez(here / "tie.npz", x=x)
    ran = run_cli("crosscheck", "tie.nir", "-i", "tie.npz", "-n", "60", "--with", "norse")
    assert ran.code == 6
    assert "from the threshold: rounding decides there" in ran.out
    assert "rounding decides there: the membrane is at its threshold" in ran.err


def test_what_no_framework_can_run_is_exit_4(here):
    net = KINDS["amount"](np.random.default_rng(0))
    with pytest.warns(UserWarning, match="resets by subtraction"):
        snn_deploy.save_nir(net, here / "m.nir")
    np.savez(here / "m.npz", x=np.ones((2, 5, 8), np.uint8))
    ran = run_cli(
        "crosscheck", "m.nir", "-i", "m.npz", "--with", "norse,spikingjelly", "--json", "-"
    )
    assert ran.code == 4, ran.err
    assert {one["status"] for one in ran.json["frameworks"]} == {"cannot"}
    assert "no framework ran this network" in ran.err
    assert snn_deploy.load_model(here / "m.nir") == net
