"""tools/reproduce.py: its jobs make sense, one of them runs, and the report has every section."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import reproduce
import reproduce_deploy
import reproduce_jobs
import reproduce_text

from snn_deploy.tickets.config import resolved

JOBS = reproduce_jobs.jobs((0, 1))


def test_every_job_has_a_name_of_its_own_and_settings_that_resolve(tmp_path):
    names = [job.name for job in JOBS]
    assert len(set(names)) == len(names)
    assert {job.section for job in JOBS} == set(reproduce_jobs.SECTIONS)
    assert all(job.needs is None or job.needs in names for job in JOBS)
    assert set(reproduce_deploy.TICKETS.values()) <= set(names)
    for job in JOBS:
        for quick in (True, False):
            config = resolved(reproduce.config_of(job, tmp_path, {}, quick))
            assert (config.method, config.seed) == (job.settings["method"], job.seed)


def test_a_job_is_trained_once_and_reported(tmp_path, monkeypatch, capsys):
    tiny = {"data": "digits", "arch": "mlp", "hidden": (16,), "steps": 4, "epochs": 2, "limit": 96}
    monkeypatch.setattr(reproduce_jobs, "PROTOCOLS", {"small": {**tiny, "round_epochs": 1}})
    monkeypatch.setattr(reproduce_jobs, "QUICK", {})
    ticket = reproduce_jobs.Job(
        section="imp", label="imp 0.9", protocol="small", seed=0, settings={"sparsity": 0.9}
    )
    control = reproduce_jobs.Job(
        section="imp", label="reinit 0.9", protocol="small", seed=0,
        settings={"method": "reinit", "sparsity": 0.9}, needs=ticket.name,
    )  # fmt: skip
    options = argparse.Namespace(workers=1, quick=False, mnist=None, nmnist=None)
    store = reproduce.Store(tmp_path / "results.json")
    reproduce.run([control, ticket], store, tmp_path, options)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [ticket.name, control.name]
    again = reproduce.Store(tmp_path / "results.json")
    assert again.results == json.loads((tmp_path / "results.json").read_text())
    reproduce.run([control, ticket], again, tmp_path, options)
    assert capsys.readouterr().out == ""
    found = again.results[ticket.name]
    assert found["accuracy"] == found["rounds"][-1]["accuracy"]
    (tmp_path / "docs" / "measured").mkdir(parents=True)
    reproduce_text.write(again.results, tmp_path / "docs")
    text = (tmp_path / "docs" / "reproduction.md").read_text()
    assert all(f"## {title}\n" in text for title in reproduce_text.SECTIONS)
    assert f"{100 * found['accuracy']:.2f} (1)" in text
    assert "not run" in text


def test_figures_are_shown_with_their_spread():
    assert reproduce_text.spread([]) == "not run"
    assert reproduce_text.spread([1.0]) == "1.00 (1)"
    assert reproduce_text.spread([1.0, 3.0]) == "2.00 ± 1.41 (2)"
    assert reproduce_text.difference([3.0, 5.0], [1.0, 1.0]) == "3.00 ± 1.41 (2)"
