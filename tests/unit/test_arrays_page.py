"""The page about the papers' arrays says what was measured, and what it says of it is so."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from tests.tickets import conv_content, mlp_content, save, save_data

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rows():
    return json.loads((ROOT / "docs" / "measured" / "arrays.json").read_text())["rows"]


@pytest.mark.parametrize(
    ("content", "shape"), [(mlp_content, (12,)), (conv_content, (1, 6, 6))], ids=["mlp", "conv"]
)
def test_a_ticket_of_ones_own_on_all_arrays(content, shape, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("arrays")
    ticket, data = save(tmp_path / "own.pt", content()), save_data(tmp_path / "x.npz", shape)
    row = tool.measure(ticket, data, 5)
    assert (row["samples"], row["steps"]) == (5, 6)
    assert row["ours"]["cycles"] > row["ours"]["pipelined_cycles"] > 0
    assert row["accumulates"] > 0
    words = ["arrays.py", "--ticket", str(ticket), "--input", str(data), "--samples", "5"]
    monkeypatch.setattr(sys, "argv", words)
    tool.main()
    shown = capsys.readouterr().out
    assert f"| own, T = 6 | {100 * row['accuracy']:.1f} | {row['accumulates']:,.0f} |" in shown
    assert f"{row['loas']['plain']['cycles']:,.0f}" in shown
    monkeypatch.setattr(sys, "argv", [*words, "--write"])
    with pytest.raises(SystemExit):
        tool.main()
    assert "--ticket goes with --input, and is not written" in capsys.readouterr().err


def digits(rows, **settings):
    wanted = {"data": "digits", "arch": "mlp", "method": "imp"} | settings
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def test_the_page_is_made_from_the_measurements(rows, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    text = importlib.import_module("arrays_text")
    assert text.page(rows) == (ROOT / "docs" / "arrays.md").read_text(encoding="utf-8")


def test_utilisation_falls_with_sparsity_and_balance_restores_it(rows):
    falling = digits(rows, steps=4)
    assert [row["sparsity"] for row in falling] == [0.8, 0.9, 0.95, 0.98]
    for figures in (
        [row["mean_utilisation"] for row in falling],
        [row["lockstep"]["gates wave"]["utilisation"] for row in falling],
        [row["lockstep"]["gates layer"]["utilisation"] for row in falling],
    ):
        assert figures == sorted(figures, reverse=True)
    for row in digits(rows, method="uticket"):
        assert row["lockstep"]["gates layer"]["utilisation"] > 0.97


def test_packing_makes_silence_rarer_and_the_join_shorter(rows):
    for row in rows:
        plain, dropped = row["loas"]["plain"], row["loas"]["dropped"]
        assert plain["silent"] < dropped["silent"]
        assert plain["silent"] < plain["spike_sparsity"]
        assert plain["cycles"] < plain["stepwise_cycles"]
        exact = row["steps"] * plain["matches"] - plain["corrections"]
        assert exact == pytest.approx(row["accumulates"])
    longer = sorted(digits(rows, sparsity=0.95), key=lambda row: row["steps"])
    assert [row["steps"] for row in longer] == [4, 8, 16]
    silent = [row["loas"]["plain"]["silent"] for row in longer]
    assert silent == sorted(silent, reverse=True)
