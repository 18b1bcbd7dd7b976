"""``train``: a tiny run, resuming, interrupts, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from snn_deploy.io.ticket import read_ticket
from snn_deploy.tickets import loop
from tests.cli.helpers import listing, run_cli

pytest.importorskip("sklearn")
TINY = ("--rounds", 2, "--epochs", 1, "--limit", 64, "--steps", 2, "--sparsity", 0.8)


def train(*more):
    return run_cli("train", "-o", "t.pt", *TINY, *more)


def test_a_ticket_its_test_set_and_a_report(here):
    ran = train("--test-set", "t.npz", "--json", "t.json")
    assert ran.code == 0, ran.err
    assert "80.0 %" in ran.out
    assert "dense: loss" in ran.err
    ticket = read_ticket(here / "t.pt")
    masks = [m for m in ticket.masks.values() if m.ndim > 1]
    assert 1 - sum(m.sum() for m in masks) / sum(m.size for m in masks) == pytest.approx(
        0.8, abs=1e-4
    )
    assert ticket.meta["method"] == "imp"
    assert not list(here.glob("*.ckpt"))
    ran = run_cli("run", "t.pt", "-t", "cpu", "-i", "t.npz", "--json", "-")
    assert ran.code == 0, ran.err
    assert ran.json["result"]["accuracy"] == pytest.approx(ticket.meta["ticket_accuracy"])


def test_an_interrupt_keeps_the_last_epoch_and_resume_goes_on(here, monkeypatch):
    assert train("-q").code == 0
    (here / "t.pt").rename(here / "whole.pt")
    epochs = iter(range(10))
    real = loop.Run.epoch

    def epoch(self):
        if next(epochs) == 2:
            raise KeyboardInterrupt
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "epoch", epoch)
        ran = train()
    assert ran.code == 130
    assert "kept the last finished epoch in t.pt.ckpt; go on with --resume" in ran.err
    assert not (here / "t.pt").exists()
    kept = (here / "t.pt.ckpt").read_bytes()
    with monkeypatch.context() as patch:
        epochs = iter([2])
        patch.setattr(loop.Run, "epoch", epoch)
        ran = train()
    assert "warning: t.pt.ckpt of an earlier run is not used without --resume" in ran.err
    assert (here / "t.pt.ckpt").read_bytes() == kept
    ran = train("--resume", "-q")
    assert ran.code == 0
    assert "warning" not in ran.err
    a, b = read_ticket(here / "whole.pt"), read_ticket(here / "t.pt")
    assert all((a.state[k] == b.state[k]).all() for k in a.state)
    assert all((a.masks[k] == b.masks[k]).all() for k in a.masks)
    assert not (here / "t.pt.ckpt").exists()


def test_an_interrupt_in_the_first_epoch_leaves_nothing(here, monkeypatch):
    def epoch(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.Run, "epoch", epoch)
    before = listing(here)
    ran = train()
    assert ran.code == 130
    assert "resume" not in ran.err
    assert "nothing kept: the first epoch was not finished" in ran.err
    assert listing(here) == before


def test_nothing_to_resume(here):
    ran = train("--resume")
    assert ran.code == 3
    assert "there is nothing to resume" in ran.err
    assert "train without --resume" in ran.err


@pytest.mark.parametrize("existing", ["t.pt", "t.npz", "t.json"])
def test_outputs_that_exist_are_refused_before_training(here, monkeypatch, existing):
    def never(*_, **__):
        raise AssertionError("training began")

    monkeypatch.setattr(loop.Run, "epoch", never)
    (here / existing).write_text("precious")
    ran = train("--test-set", "t.npz", "--json", "t.json")
    assert ran.code == 10
    assert f"{existing} exists already" in ran.err
    assert (here / existing).read_text() == "precious"


def test_a_missing_folder_is_refused_before_training(here):
    ran = run_cli("train", "-o", "no/t.pt", *TINY)
    assert ran.code == 10
    assert "there is no folder no" in ran.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--sparsity", "1"], "0<=x<1"),
        (["--sparsity", "nan"], "sparsity"),
        (["--steps", "0"], "x>=1"),
        (["--data", "mnist"], "--data-dir FOLDER"),
        (["--method", "magic"], "magic"),
    ],
)
def test_unfit_settings(here, options, text):
    ran = run_cli("train", "-o", "t.pt", *options)
    assert ran.code == 2
    assert text in ran.err


def test_a_folder_without_the_data(here):
    ran = run_cli("train", "-o", "t.pt", "--data", "mnist", "--data-dir", here)
    assert ran.code == 3
    assert "MNIST files are missing" in ran.err
    assert "train-images-idx3-ubyte.gz" in ran.err


def test_without_torch_the_command_says_how_to_get_it(here, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "snn_deploy.tickets.trainer", None)
    ran = train()
    assert ran.code == 7
    assert "pip install 'snn-deploy[train]'" in ran.err


def test_the_same_seed_gives_the_same_ticket(here):
    assert train("-q", "--seed", 1).code == 0
    first = read_ticket(here / "t.pt").state
    assert train("-q", "--seed", 1, "--force").code == 0
    second = read_ticket(here / "t.pt").state
    assert all(np.array_equal(first[k], second[k]) for k in first)


def test_fine_tuning_for_a_target_is_reported_and_recorded(here):
    ran = train("--qat", "loihi", "--bits", 4, "--qat-epochs", 1, "--json", "t.json")
    assert ran.code == 0, ran.err
    assert "qat: loss" in ran.err
    assert "in loihi's 4-bit weights" in ran.out
    found = read_ticket(here / "t.pt").meta["qat"]
    assert (found["target"], found["bits"], found["epochs"]) == ("loihi", 4, 1)
    assert json.loads((here / "t.json").read_text())["qat"] == found


def test_bits_without_a_target_are_refused(here):
    ran = train("--bits", 4)
    assert ran.code == 2
    assert "weight bits and their epochs belong to quantization-aware fine-tuning" in ran.err
    assert "say for which target: --qat loihi or --qat fpga" in ran.err


def test_the_help_names_what_the_library_has():
    from snn_deploy.cli import train_command
    from snn_deploy.tickets.data.load import DATASETS
    from snn_deploy.tickets.methods.catalog import METHODS
    from snn_deploy.tickets.models.build import ARCHITECTURES

    assert set(train_command.METHODS) == set(METHODS)
    assert set(train_command.ARCHITECTURES) == set(ARCHITECTURES)
    assert set(train_command.DATASETS) == set(DATASETS)


def test_parameters_of_a_method(here):
    ran = train("--method", "rigl", "-p", "death=0.5", "-p", "every=1", "--json", "-")
    assert ran.code == 0, ran.err
    assert read_ticket(here / "t.pt").meta["settings"]["params"] == {
        "every": 1.0, "death": 0.5, "stop": 0.75,
    }  # fmt: skip
    (here / "t.pt").unlink()
    ran = train("-p", "death")
    assert ran.code == 2
    assert "given once, as NAME=VALUE" in ran.err
    assert "-p prior=0.2" in ran.err
    ran = train("--method", "snip", "-p", "death=0.5")
    assert ran.code == 2
    assert "method snip has no parameter 'death'" in ran.err
    assert "samples=1000" in ran.err


def test_what_a_search_found_is_shown(here):
    ran = train(
        "--method",
        "eb-et",
        "-p",
        "probe_epochs=1",
        "-p",
        "fifo=2",
        "-p",
        "distance=1",
        "--epochs",
        2,
        "--json",
        "t.json",
    )
    assert ran.code == 0, ran.err
    assert "masks settled in epoch 2" in ran.out
    assert "searched with 2 of 2 steps" in ran.out
    assert "timestep-epochs" in ran.out
    found = json.loads((here / "t.json").read_text())
    assert found["dense_accuracy"] is None
    assert found["timestep_epochs"] == 10
    assert found["found"]["stop_epoch"] == 2


def test_a_cutoff_is_trained_for_and_calibrated(here):
    ran = run_cli(
        "train", "-o", "c.pt", "--method", "cutoff", "--epochs", 4, "--steps", 8, "--sparsity", 0.5,
        "--rounds", 1, "--limit", 600, "--test-set", "t.npz", "--json", "t.json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "of 8 steps, epsilon 0.01" in ran.out
    found = json.loads((here / "t.json").read_text())["cutoff"]
    ticket = read_ticket(here / "c.pt")
    assert ticket.meta["settings"]["rate_penalty"] == 0.002
    assert ticket.meta["cutoff"]["accuracy_stopped"] == found["accuracy_stopped"]
    assert 1 <= found["mean_steps"] < 8
    ran = run_cli("run", "c.pt", "-t", "cpu", "-i", "t.npz", "--json", "-")
    assert ran.code == 0, ran.err
    assert ran.json["result"]["accuracy"] == pytest.approx(found["accuracy_stopped"])
    assert ran.json["result"]["steps_run"]["mean"] == pytest.approx(found["mean_steps"])


def test_balance_is_reported(here):
    ran = train("--method", "uticket", "-p", "elements=8", "--json", "t.json")
    assert ran.code == 0, ran.err
    found = json.loads((here / "t.json").read_text())["found"]["balance"]
    assert "on 8 elements" in ran.out
    before, after = found["utilisation"]
    assert f"utilisation {before:.3f} -> {after:.3f}" in ran.out
    assert after >= 0.97
    assert "of the same nonzeros balanced" in ran.out
    assert f"{found['cycles']['before']:,} -> " in ran.out
