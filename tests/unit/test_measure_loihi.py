"""The tool that measures tickets in Loihi's integers, on a ticket that trains in a second."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from snn_deploy.tickets.trainer import TrainConfig, train

TOOL = Path(__file__).resolve().parents[2] / "tools" / "measure_loihi.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("measure_loihi", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tickets(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tickets")
    for arch in ("mlp", "recurrent"):
        path = folder / f"digits-{arch}-90.pt"
        train(TrainConfig(out=path, arch=arch, rounds=1, epochs=4, steps=8, hidden=(64,)))
    return folder


def run(tool, monkeypatch, tickets, out, *more) -> list[dict]:
    words = ["measure_loihi", tickets, "--no-train", "--out", out, *more]
    monkeypatch.setattr(sys, "argv", [str(w) for w in words])
    tool.main()
    return json.loads((out / "loihi.json").read_text())["rows"]


def test_rows_are_measured_once_and_kept(tool, monkeypatch, tickets, tmp_path, capsys):
    rows = run(tool, monkeypatch, tickets, tmp_path, "--verify", 2, "--only", "digits-mlp")
    assert [(r["arch"], r["percent"], tool.way(r)) for r in rows] == [
        ("mlp", 90, way) for way in tool.WAYS
    ]
    first = rows[0]
    assert first["samples"] == 450
    assert first["nonzeros"] == round(0.1 * first["weights"])
    assert 30 < first["float_percent"] < 100
    assert abs(tool.points(first)) < 10
    assert [t["layer"] for t in first["tensors"]] == ["fc1", "fc2"]
    errors = [r["tensors"][0]["rms_error"] / r["tensors"][0]["rms"] for r in rows]
    assert 0 < errors[0] < errors[1] < errors[2]
    assert errors[3] == errors[0]  # an exponent leaves weights as they are
    text = (tmp_path / "loihi.md").read_text()
    assert f"| digits | mlp | 90 % | {first['nonzeros']:,} | 8 bits |" in text
    assert "At 8 bits" in text
    guide = tool.summary_table(rows)
    assert f"| digits | mlp | 90 % | {first['float_percent']:.2f} |" in guide
    assert guide.count("| digits |") == 1
    before, after = tool.GUIDE.read_text().split(tool.MARKS[0])
    assert before and tool.MARKS[1] in after
    # A check in Lava is a reason to keep a row; without Lava it is tried again.
    for row in rows:
        row["verify"] = {"values": 1, "mismatches": 0, "samples": 1, "steps": 1, "judge": "x"}
    tool.store(rows, tmp_path)
    capsys.readouterr()
    assert run(tool, monkeypatch, tickets, tmp_path, "--only", "digits-mlp") == rows
    assert "bits" not in capsys.readouterr().err
    ticket = tickets / "digits-mlp-90.pt"
    other = tmp_path / "other"
    other.mkdir()
    (other / ticket.name).write_bytes((tickets / "digits-recurrent-90.pt").read_bytes())
    again = run(tool, monkeypatch, other, tmp_path, "--only", "digits-mlp", "--verify", 1)
    assert [r["sha256"] for r in again] != [r["sha256"] for r in rows]
    assert len(again) == len(tool.WAYS)


def test_a_recurrent_ticket_has_its_accuracy(tool, monkeypatch, tickets, tmp_path):
    monkeypatch.setattr(tool, "WAYS", ((8, False),))
    rows = run(tool, monkeypatch, tickets, tmp_path, "--only", "digits-recurrent", "--verify", 1)
    assert [t["layer"] for t in rows[0]["tensors"]] == ["fc1", "lif1.recurrent", "fc2"]
    assert abs(tool.points(rows[0])) < 10


def test_what_misses_a_limit_is_named(tool):
    row = {
        "data": "mnist", "arch": "conv", "percent": 95, "bits": 6, "float_percent": 98.0,
        "integer_percent": 95.5, "overflows": {"saturated": 3, "wrapped": 0},
    }  # fmt: skip
    words = tool.verdict([row, {**row, "percent": 90, "integer_percent": 96.0}])
    assert "At 6 bits 1 of 2 tickets lose at most 2 points; not mnist conv 95 %." in words
    assert "end of their range in: mnist conv 95 % 6 bits, mnist conv 90 % 6 bits." in words
