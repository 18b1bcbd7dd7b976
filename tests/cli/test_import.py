"""``snn-deploy import``: a trained dense network becomes a graph that every command reads."""

from __future__ import annotations

import json

import numpy as np
import pytest

import snn_deploy
from snn_deploy.frontends.convert import Rates
from snn_deploy.frontends.onnx_import import convert_onnx
from tests.cli.helpers import listing, run_cli
from tests.onnx_models import digits, trained


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in ("relu", "quantised"):
        (tmp_path / f"{kind}.onnx").write_bytes(trained(kind))
    x, y = digits()[2:]
    np.savez(tmp_path / "x.npz", x=x[:100], y=y[:100])
    return tmp_path


def test_thresholds_from_data_and_both_networks_side_by_side(here):
    ran = run_cli("import", "relu.onnx", "-c", "x.npz", "-o", "m.nir", "--steps", 48)
    assert ran.code == 0, ran.err
    assert "warning: act1 resets by subtraction" in ran.err
    for text in ("act1", "act2", "percentile", "direct coding, 48 steps", "of 100 samples are"):
        assert text in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    x = np.load("x.npz")["x"]
    made = convert_onnx("relu.onnx", x, Rates(steps=48))
    assert snn_deploy.load_model("m.nir") == snn_deploy.fold(made.network)


def test_json_holds_what_was_measured(here):
    ran = run_cli(
        "import", "relu.onnx", "-c", "x.npz", "-o", "m.nir", "-n", 60, "--per-channel",
        "--percentile", 99, "--json", "-",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = ran.json
    assert found["command"] == "import"
    assert found["samples"] == 60
    x, y = (np.load("x.npz")[k][:60] for k in "xy")
    made = convert_onnx("relu.onnx", x, Rates(percentile=99, per_channel=True))
    agreement = made.agreement(x, y)
    assert found["same_decisions"] == agreement.same
    assert found["dense_accuracy"] == agreement.dense_correct / 60
    assert found["spiking_accuracy"] == agreement.spiking_correct / 60 > 0.9
    assert [layer["name"] for layer in found["layers"]] == ["act1", "act2"]
    assert len(found["layers"][0]["threshold"]) == 8
    assert 0 < found["layers"][0]["clipped"] < 0.05


def test_learned_thresholds_need_no_data_and_the_graph_runs(here):
    ran = run_cli("import", "quantised.onnx", "-o", "q.nir", "--steps", 8, "--dt", 0.002)
    assert ran.code == 0, ran.err
    assert "learned, 8 levels" in ran.out
    assert "Decisions" not in ran.out
    ran = run_cli("run", "q.nir", "-t", "cpu", "-i", "x.npz", "--json", "-")
    assert ran.code == 0, ran.err
    assert ran.json["model"]["dt_s"] == 0.002
    x, y = (np.load("x.npz")[k] for k in "xy")
    correct = convert_onnx("quantised.onnx", rates=Rates(steps=8)).agreement(x, y).spiking_correct
    assert correct > 90
    assert ran.json["result"]["accuracy"] == correct / 100
    ran = run_cli("crosscheck", "q.nir", "-i", "x.npz", "-n", 5, "--with", "onnx", "--json", "-")
    assert ran.code == 0, ran.err


def test_a_converted_network_reaches_integers(here):
    how = ("-c", "x.npz", "--start", 0, "--coding", "rate", "--steps", 64)
    ran = run_cli("import", "quantised.onnx", "-o", "r.nir", *how, "--json", "-")
    assert ran.code == 0, ran.err
    assert ran.json["model"]["coding"] == "rate"
    assert ran.json["spiking_accuracy"] > 0.9
    ran = run_cli("run", "r.nir", "-t", "fpga", "-i", "x.npz", "-n", 40, "--json", "-")
    assert ran.code == 0, ran.err
    assert ran.json["result"]["accuracy"] > 0.9


def test_other_commands_say_that_a_dense_network_must_be_converted(here):
    ran = run_cli("inspect", "relu.onnx")
    assert ran.code == 4
    assert "which must be converted first" in ran.err
    assert "snn-deploy import relu.onnx --calibrate X.npz -o relu.nir" in ran.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("relu.onnx", "-o", "m.nir"), 2, "has no threshold of its own"),
        (("relu.onnx", "-o", "m.pt"), 2, "m.pt does not end in .nir"),
        (("relu.pt", "-o", "m.nir"), 2, "relu.pt does not say where its zeros are"),
        (("relu.onnx", "-o", "m.nir", "--arch", "mlp"), 2, "--arch is not for format onnx"),
        (("relu.onnx", "-o", "m.nir", "--format", "lth"), 2, "relu.onnx is not of format lth"),
        (("relu.onnx", "-o", "m.nir", "-c", "x.npz", "--coding", "events"), 2, "direct or rate"),
        (("none.onnx", "-o", "m.nir"), 3, "did you mean"),
        (("relu.onnx", "-o", "m.nir", "-c", "x.npz", "--percentile", 101), 2, "out of range"),
        (("relu.onnx", "-o", "m.nir", "-c", "wide.npz"), 3, "the data have (1, 9, 9)"),
        (("relu.onnx", "-o", "m.nir", "-c", "labels.npz"), 3, "label"),
        (("relu.onnx", "-o", "x.npz", "-c", "x.npz"), 2, "is an input"),
        (("broken.onnx", "-o", "m.nir"), 3, "a field is longer than the file"),
        (("tanh.onnx", "-o", "m.nir", "-c", "x.npz"), 4, "the operator Tanh has no counterpart"),
        (("relu.onnx", "-o", "there.nir", "-c", "x.npz"), 10, "exists already"),
    ],
)
def test_what_goes_wrong_writes_nothing(here, arguments, code, message):
    content = trained("relu")
    (here / "broken.onnx").write_bytes(content[:500])
    (here / "tanh.onnx").write_bytes(content.replace(b"\x22\x04Relu", b"\x22\x04Tanh"))
    (here / "there.nir").write_bytes(b"mine")
    (here / "none2.onnx").touch()
    np.savez(here / "wide.npz", x=np.zeros((2, 1, 9, 9), "f4"))
    np.savez(here / "labels.npz", x=np.load("x.npz")["x"][:2], y=np.array([1, 10]))
    before = listing(here)
    ran = run_cli("import", *arguments, "--json", "-")
    assert ran.code == code, ran.err
    assert message in ran.err
    assert json.loads(ran.out)["error"]["exit_code"] == code
    assert listing(here) == before
