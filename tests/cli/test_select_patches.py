"""``select-patches``: from a user's samples to what a transformer's ticket takes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import snn_deploy  # noqa: E402
from snn_deploy.tickets.patches import patch_meta, tokens_kept  # noqa: E402
from tests.cli.helpers import run_cli  # noqa: E402
from tests.spikformers import SHAPE, STEPS, small  # noqa: E402


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = small()
    snn_deploy.save_ticket(
        model.deployed(),
        "m.pt",
        example_input=torch.zeros(1, *SHAPE),
        coding={"kind": "rate", "steps": STEPS, "seed": 1},
        meta={"patches": patch_meta(model)},
    )
    x = np.random.default_rng(0).random((6, SHAPE[0] - 1, *SHAPE[1:]))
    np.savez("x.npz", x=x.astype(np.float32), y=np.arange(6) % 4)
    return tmp_path


def test_kept_samples_run_and_cost_less(folder):
    work = {}
    for share in (1, 0.5):
        out = f"y{share}.npz"
        ran = run_cli(
            "select-patches", "m.pt", "-i", "x.npz", "--share", share, "-o", out, "--json", "-"
        )
        assert ran.code == 0, ran.err
        assert ran.json["kept"] == 16 * share
        assert ran.json["patches"] == 16
        with np.load(out) as found:
            assert tokens_kept(found["x"]) == 16 * share
            assert found["y"].tolist() == [0, 1, 2, 3, 0, 1]
        ran = run_cli("run", "m.pt", "-t", "cpu", "-i", out, "--json", "-")
        assert ran.code == 0, ran.err
        work[share] = sum(
            layer.get("synops_effective") or 0 for layer in ran.json["result"]["layers"]
        )
    assert work[0.5] < 0.7 * work[1]


def test_the_report(folder):
    ran = run_cli("select-patches", "m.pt", "-i", "x.npz", "-n", 2, "-o", "y.npz")
    assert ran.code == 0, ran.err
    assert "11 of 16 kept per sample (68.8 %)" in ran.out
    assert "y.npz" in ran.out


def test_samples_of_another_shape(folder):
    np.savez("z.npz", x=np.zeros((2, *SHAPE), np.float32))
    ran = run_cli("select-patches", "m.pt", "-i", "z.npz", "-o", "y.npz")
    assert ran.code == 3
    assert "x has shape (2, 3, 8, 8), but the model's input is (2, 8, 8)" in ran.err


def test_another_ticket(folder):
    from tests.tickets import mlp_content, save

    save(folder / "mlp.pt", mlp_content())
    ran = run_cli("select-patches", "mlp.pt", "-i", "x.npz", "-o", "y.npz")
    assert ran.code == 3
    assert "spikformer-tiny" in ran.err
    assert not (folder / "y.npz").exists()
