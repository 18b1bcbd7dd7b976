"""``train --seeds``: its report, refusals before training, interrupts and resuming."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from snn_deploy.errors import EXIT_INTERRUPT
from snn_deploy.io.ticket import read_ticket
from snn_deploy.tickets import loop
from tests.cli.helpers import listing, run_cli

pytest.importorskip("sklearn")
TINY = ("--rounds", 1, "--epochs", 1, "--limit", 64, "--steps", 2, "--sparsity", 0.8)
ROOT = Path(__file__).parents[2]
# A shell's background job ignores Ctrl-C, and what it starts does too.
COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from snn_deploy.cli.main import main
main()
"""


def train(*more):
    return run_cli("train", "-o", "t.pt", *TINY, "--seeds", 2, *more)


def test_each_seed_and_how_they_spread(here):
    ran = train("--seed", 3, "--json", "t.json", "--csv", "t.csv", "--test-set", "t.npz")
    assert ran.code == 0, ran.err
    assert not (here / "t.pt").exists()
    metas = {n: read_ticket(here / f"t-seed{n}.pt").meta for n in (3, 4)}
    assert {n: meta["seed"] for n, meta in metas.items()} == {3: 3, 4: 4}
    found = [meta["ticket_accuracy"] for meta in metas.values()]
    mean, deviation = statistics.fmean(found), statistics.stdev(found)
    words = " ".join(ran.out.split())
    assert "train mlp on digits with imp, 2 seeds" in words
    assert f"{100 * mean:.1f} % +- {100 * deviation:.1f} % on the test data at 80.0 % +- 0" in words
    assert "3 t-seed3.pt 80.0 %" in words
    assert "standard deviation over the seeds, n - 1 in its denominator" in words
    assert "seed 3 dense: loss" in ran.err
    assert "seed 4 round 1/1: loss" in ran.err
    document = run_cli("train", "-o", "u.pt", "--seeds", 2, "--json", "-", "-q", *TINY).json
    assert [row["seed"] for row in document["seeds"]] == [0, 1]
    assert (
        document["ticket_accuracy"].keys() == {"mean", "deviation"} == document["sparsity"].keys()
    )
    rows = list(csv.DictReader((here / "t.csv").read_text().splitlines()))
    assert [row["seed"] for row in rows] == ["3", "4", "mean", "standard deviation"]
    values = [float(row["ticket_accuracy"]) for row in rows]
    assert values == pytest.approx([*found, mean, deviation])
    assert rows[0]["ticket"] == "t-seed3.pt"
    # One file of test samples for all: each ticket codes them from its own seed.
    for n, meta in metas.items():
        ran = run_cli("run", f"t-seed{n}.pt", "-t", "cpu", "-i", "t.npz", "--json", "-")
        assert ran.json["result"]["accuracy"] == pytest.approx(meta["ticket_accuracy"])


def test_the_weights_are_those_of_single_runs(here):
    assert train("-q").code == 0
    for seed in (0, 1):
        assert run_cli("train", "-o", "one.pt", "--force", "-q", "--seed", seed, *TINY).code == 0
        one, of_two = read_ticket(here / "one.pt"), read_ticket(here / f"t-seed{seed}.pt")
        assert all(np.array_equal(one.state[k], of_two.state[k]) for k in one.state)


def test_patch_tickets_have_a_test_set_each(here):
    settings = ("--method", "patch", "--arch", "spikformer-tiny", "-p", "patches=0.5")
    (here / "x-seed1.npz").write_text("precious")
    ran = train(*settings, "--test-set", "x.npz")
    assert ran.code == 10
    assert "x-seed1.npz exists already" in ran.err
    ran = train(*settings, "--test-set", "x.npz", "--force", "-q")
    assert ran.code == 0, ran.err
    a, b = (np.load(here / f"x-seed{seed}.npz")["x"] for seed in (0, 1))
    assert a.shape == b.shape
    assert not np.array_equal(a, b)
    assert not (here / "x.npz").exists()


@pytest.mark.parametrize("existing", ["t-seed1.pt", "t.npz", "t.json"])
def test_outputs_that_exist_are_refused_before_training(here, monkeypatch, existing):
    def never(*_, **__):
        raise AssertionError("training began")

    monkeypatch.setattr(loop.Run, "epoch", never)
    (here / existing).write_text("precious")
    ran = train("--test-set", "t.npz", "--json", "t.json")
    assert ran.code == 10
    assert f"{existing} exists already" in ran.err
    assert "--force" in ran.err
    assert (here / existing).read_text() == "precious"
    ran = train("--json", "t-seed0.pt", "--force")
    assert ran.code == 2
    assert "t-seed0.pt is named for two outputs" in ran.err


def test_jobs_belong_to_seeds(here):
    ran = run_cli("train", "-o", "t.pt", "--jobs", 2)
    assert ran.code == 2
    assert "one training is one job" in ran.err
    assert "--seeds N" in ran.err


def test_an_interrupt_and_resume(here, monkeypatch):
    real, epochs = loop.Run.epoch, iter(range(100))
    stops = [0, 3, 4]

    def epoch(self):
        if next(epochs) in stops:
            raise KeyboardInterrupt
        return real(self)

    before = listing(here)
    monkeypatch.setattr(loop.Run, "epoch", epoch)
    ran = train()
    assert ran.code == EXIT_INTERRUPT
    assert "nothing kept: no first epoch was finished" in ran.err
    assert listing(here) == before
    ran = train()
    assert ran.code == EXIT_INTERRUPT
    assert "kept the finished tickets; go on with --resume" in ran.err
    assert (here / "t-seed0.pt").exists()
    epochs = iter([99, 4])
    ran = train("--resume")
    assert ran.code == EXIT_INTERRUPT
    assert "kept the last finished epochs in t-seed1.pt.ckpt; go on with --resume" in ran.err
    epochs = iter(range(10, 20))
    ran = train("--resume", "--json", "-")
    assert ran.code == 0, ran.err
    assert "seed 0" not in ran.err
    assert [row["ticket"] for row in ran.json["seeds"]] == ["t-seed0.pt", "t-seed1.pt"]
    (here / "t-seed1.pt.ckpt").write_bytes(b"earlier")
    ran = train("--force", "-q")
    assert ran.code == 0
    assert "t-seed1.pt.ckpt of an earlier run is not used without --resume" in ran.err


@pytest.mark.skipif(sys.platform == "win32", reason="process groups")
def test_ctrl_c_in_a_terminal_ends_all_processes_quietly(here):
    """A terminal's Ctrl-C goes to every process of the group, the trainings too."""
    settings = map(str, (*TINY, "--epochs", 2000, "--seeds", 2, "--jobs", 2))
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "train", "-o", "t.pt", "-q", *settings],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    kept = [here / f"t-seed{n}.pt.ckpt" for n in (0, 1)]
    try:
        while process.poll() is None and not all(path.exists() for path in kept):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=120)
        assert process.returncode == EXIT_INTERRUPT, err
        assert "Traceback" not in err
        assert err.splitlines()[-1] == "interrupted"
        assert "kept the last finished epochs in t-seed0.pt.ckpt, t-seed1.pt.ckpt" in err
        assert not out
        assert all(path.exists() for path in kept)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
