"""The examples run as their guides say, and what they write goes through the command line."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from tests.cli.helpers import run_cli

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_bring_your_own_model(tmp_path, monkeypatch, capsys):
    for package in ("torch", "norse", "sklearn"):
        pytest.importorskip(package)
    script = EXAMPLES / "bring_your_own_model.py"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), "--epochs", "1"])
    runpy.run_path(str(script), run_name="__main__")
    assert "wrote own.pt, weights.pt and own.npz" in capsys.readouterr().out
    assert run_cli("verify", "own.pt", "-t", "cpu", "-i", "own.npz", "-n", 2).code == 0
    own = run_cli("run", "own.pt", "-t", "cpu", "-i", "own.npz", "--json", "-").json
    assert own["model"]["sparsity"] > 0.7
    options = ("--arch", f"{script}:make", "--coding", "rate", "--steps", 16, "--json", "-")
    plain = run_cli("run", "weights.pt", "-t", "cpu", "-i", "own.npz", *options).json
    assert plain["result"] == own["result"]
