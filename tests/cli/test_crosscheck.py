"""``crosscheck``: the same network in every framework that can express it."""

from __future__ import annotations

import csv
import importlib.metadata

import numpy as np
import pytest

from snn_deploy.bridges.peers import NAMES, TorchPeer
from tests.cli.helpers import run_cli


@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_all_frameworks_agree(here, model):
    ran = run_cli("crosscheck", f"{model}.pt", "-i", f"{model}.npz", "--json", "-")
    assert ran.code == 0, ran.err
    assert ran.json["mismatches"] == 0
    rows = {row["framework"]: row for row in ran.json["frameworks"]}
    assert set(rows) == set(NAMES)
    for row in rows.values():
        assert row["status"] == "equal", row
        assert row["mismatched_spikes"] == 0
        assert row["spikes"] > 0
        assert row["latency_steps"] == 0
        assert row["version"]


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
    assert [row["framework"] for row in rows] == ["norse", "nir-euler"]
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
    (row,) = ran.json["frameworks"]
    assert row["status"] == "mismatch"
    assert row["mismatched_spikes"] == 1
    first = row["first"]
    assert (first["sample"], first["step"], first["neuron"]) == (1, 2, 0)
    assert "norse and our engine disagree" in ran.err


def test_what_no_framework_can_run_is_exit_4(here):
    import snn_deploy
    from snn_deploy.io.nir_write import nir_bytes
    from tests.builders import KINDS

    net = KINDS["amount"](np.random.default_rng(0))
    with pytest.warns(UserWarning, match="resets by subtraction"):
        (here / "m.nir").write_bytes(nir_bytes(net))
    np.savez(here / "m.npz", x=np.ones((2, 5, 8), np.uint8))
    ran = run_cli(
        "crosscheck", "m.nir", "-i", "m.npz", "--with", "norse,spikingjelly", "--json", "-"
    )
    assert ran.code == 4, ran.err
    assert {row["status"] for row in ran.json["frameworks"]} == {"cannot"}
    assert "no framework ran this network" in ran.err
    assert snn_deploy.load_model(here / "m.nir") == net
