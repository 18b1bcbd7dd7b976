"""``demo``, with a training that takes a second."""

from __future__ import annotations

import json

import pytest

from snn_deploy.cli import training
from tests.cli.helpers import run_cli


@pytest.fixture
def short_training(monkeypatch):
    whole = training.trainer

    def trainer(options):
        return whole({**options, "limit": 200, "epochs": 4, "rounds": 1, "steps": 6})

    monkeypatch.setattr(training, "trainer", trainer)


def test_it_takes_a_ticket_to_every_target(tmp_path, monkeypatch, short_training, lava):
    monkeypatch.chdir(tmp_path)
    ran = run_cli("demo", "--arch", "mlp", "--no-progress")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("0 mismatches in" in line for line in lines) == 3
    assert "report  demo/mlp.html" in lines
    assert "model    demo/mlp.pt (ticket)" in ran.out
    report = json.loads((tmp_path / "demo" / "demo.json").read_text())["mlp"]
    assert [t["target"] for t in report["targets"]] == ["cpu", "loihi", "fpga"]
    assert all(verdict["equal"] for verdict in report["verdicts"].values())
    assert report["verdicts"]["loihi"]["proof"]["samples"] == 20
    assert report["model"]["sparsity"] == pytest.approx(0.9, abs=1e-3)
    for name in ("mlp.pt", "mlp-test.npz", "mlp.html", "mlp-export/mlp.nir"):
        assert (tmp_path / "demo" / name).is_file(), name
    for target in ("cpu", "loihi", "fpga"):
        assert any((tmp_path / "demo" / "mlp-export" / target).iterdir())

    again = run_cli("demo", "--arch", "mlp", "--no-progress")
    assert again.code == 0, again.err
    assert "report  demo-2/mlp.html" in again.out.splitlines()
    ticket = "mlp-export/mlp.nir"
    first, second = (tmp_path / folder / ticket for folder in ("demo", "demo-2"))
    assert first.read_bytes() == second.read_bytes()


def test_a_folder_that_was_named_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    ran = run_cli("demo", "-o", str(tmp_path / "mine"))
    assert ran.code == 10
    assert "--force" in ran.err


def test_without_lava_nothing_is_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SNN_DEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SNN_DEPLOY_LAVA_PYTHON", raising=False)
    ran = run_cli("demo")
    assert ran.code == 7
    assert "snn-deploy setup loihi" in ran.err
    assert not (tmp_path / "demo").exists()
