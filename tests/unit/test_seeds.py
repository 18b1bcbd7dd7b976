"""Several seeds: each ticket as a single run gives it, side by side, resumed, ended cleanly."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from snn_deploy.errors import (  # noqa: E402
    ExternalToolError,
    InputError,
    OutputError,
    UsageError,
)
from snn_deploy.io.ticket import read_ticket  # noqa: E402
from snn_deploy.tickets import loop, seeds  # noqa: E402
from snn_deploy.tickets.seeds import Spread, seed_path, train_seeds  # noqa: E402
from snn_deploy.tickets.trainer import TrainConfig, checkpoint_path, train  # noqa: E402

TINY = {"epochs": 2, "rounds": 1, "sparsity": 0.75, "limit": 64, "steps": 2, "hidden": (8,)}
LONG = {"epochs": 20}


def tiny(folder: Path, **changes) -> TrainConfig:
    return TrainConfig(out=folder / "m.pt", **(TINY | changes))


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """Return what reads the ticket of one seed's single run, trained when it is first asked for."""
    folder, paths = tmp_path_factory.mktemp("single"), {}

    def ticket(seed: int, **changes):
        key = (seed, *sorted(changes.items()))
        if key not in paths:
            out = folder / f"{len(paths)}.pt"
            paths[key] = train(replace(tiny(folder, **changes), out=out, seed=seed)).path
        return read_ticket(paths[key])

    return ticket


def same(path: Path, ticket) -> bool:
    found = read_ticket(path)
    assert found.meta["settings"] == ticket.meta["settings"]
    return all(np.array_equal(found.state[k], ticket.state[k]) for k in ticket.state)


def test_a_name_per_seed():
    assert seed_path("a/model.v2.pt", 3) == Path("a/model.v2-seed3.pt")


def test_one_after_the_other(tmp_path, single):
    seen = []
    made = train_seeds(tiny(tmp_path), [4, 2], progress=lambda seed, p: seen.append((seed, p.done)))
    assert [(r.seed, r.path.name) for r in made.results] == [(4, "m-seed4.pt"), (2, "m-seed2.pt")]
    assert all(same(r.path, single(r.seed)) for r in made.results)
    assert seen == [(seed, done) for seed in (4, 2) for done in (1, 2, 3, 4)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m-seed2.pt", "m-seed4.pt"]
    for result in made.results:
        meta = single(result.seed).meta
        assert result.ticket_accuracy == meta["ticket_accuracy"]
        assert result.dense_accuracy == meta["dense_accuracy"]
        assert (result.sparsity, result.cost) == (meta["sparsity"], pytest.approx(meta["cost"]))
        assert result.timestep_epochs == meta["timestep_epochs"] == 8
    a, b = (r.ticket_accuracy for r in made.results)
    assert made.accuracy == Spread(
        mean=pytest.approx((a + b) / 2), deviation=pytest.approx(abs(a - b) / 2**0.5)
    )
    assert made.sparsity == Spread(mean=pytest.approx(0.75, abs=0.01), deviation=0.0)


def test_one_seed_has_no_spread(tmp_path):
    made = train_seeds(tiny(tmp_path), [1])
    assert made.accuracy == Spread(mean=made.results[0].ticket_accuracy, deviation=None)


def test_side_by_side_an_interrupt_ends_all_and_resuming_gives_the_same(tmp_path, single):
    def interrupt(seed, progress):
        if checkpoint_path(seed_path(config.out, seed)).exists():
            raise KeyboardInterrupt

    config = tiny(tmp_path, **LONG)
    with pytest.raises(KeyboardInterrupt):
        train_seeds(config, [0, 1], jobs=2, progress=interrupt)
    assert not multiprocessing.active_children()
    assert list(tmp_path.iterdir())
    seen = set()
    made = train_seeds(
        replace(config, resume=True), [0, 1], jobs=2, progress=lambda seed, p: seen.add(seed)
    )
    assert not multiprocessing.active_children()
    assert seen <= {0, 1}
    assert all(same(r.path, single(r.seed, **LONG)) for r in made.results)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m-seed0.pt", "m-seed1.pt"]


def test_a_process_that_dies_keeps_its_checkpoint(tmp_path):
    def kill(seed, progress):
        if seed == 0:
            for process in multiprocessing.active_children():
                process.kill()

    config = tiny(tmp_path, epochs=1000)
    with pytest.raises(ExternalToolError, match="was killed by SIGKILL") as caught:
        train_seeds(config, [0], jobs=2, progress=kill)
    assert caught.value.where == "seed 0"
    assert "--resume, with fewer --jobs" in caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["m-seed0.pt.ckpt"]


def test_an_error_in_a_process_is_raised_here(tmp_path):
    with pytest.raises(UsageError, match="mnist is read from a folder") as caught:
        train_seeds(tiny(tmp_path, data="mnist"), [3], jobs=2)
    assert caught.value.where == "seed 3"
    assert "--data-dir FOLDER" in caught.value.hint


def test_a_seed_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, single):
    real = loop.Run.epoch
    calls = iter(range(100))

    def epoch(self):
        if next(calls) == 1:
            raise InputError("training diverged", hint="use a smaller learning rate")
        return real(self)

    monkeypatch.setattr(loop.Run, "epoch", epoch)
    with pytest.raises(InputError, match="training diverged") as caught:
        train_seeds(tiny(tmp_path), [0, 1])
    assert caught.value.where == f"seed 0 -> {tmp_path / 'm-seed0.pt.ckpt'}"
    assert same(tmp_path / "m-seed1.pt", single(1))


def test_resuming_goes_on_takes_what_is_finished_and_begins_the_rest(tmp_path, single):
    config = tiny(tmp_path)

    def stop(seed, progress):
        if (seed, progress.done) == (1, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_seeds(config, [0, 1, 2], progress=stop)
    names = {"m-seed0.pt", "m-seed1.pt.ckpt"}
    assert {p.name for p in tmp_path.iterdir()} == names
    finished = (tmp_path / "m-seed0.pt").read_bytes()
    seen = []
    made = train_seeds(
        replace(config, resume=True), range(3), progress=lambda s, p: seen.append((s, p.done))
    )
    assert seen == [(1, 4), (2, 1), (2, 2), (2, 3), (2, 4)]
    assert (tmp_path / "m-seed0.pt").read_bytes() == finished
    assert all(same(r.path, single(r.seed)) for r in made.results)


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(InputError, match="there is nothing to resume") as caught:
        train_seeds(tiny(tmp_path, resume=True), [0, 1])
    assert "train without --resume" in caught.value.hint


@pytest.fixture
def never(monkeypatch):
    def train(*_, **__):
        raise AssertionError("training began")

    monkeypatch.setattr(seeds, "train", train)


def test_a_finished_ticket_of_other_settings_is_not_taken(tmp_path, monkeypatch):
    train_seeds(tiny(tmp_path), [0])
    monkeypatch.setattr(seeds, "train", None)
    with pytest.raises(InputError, match="the ticket was made with other settings") as caught:
        train_seeds(tiny(tmp_path, steps=3, resume=True), [0, 1])
    assert caught.value.where == str(tmp_path / "m-seed0.pt")
    assert "steps: 2 then, 3 now" in caught.value.used
    assert "without --resume" in caught.value.hint


@pytest.mark.usefixtures("never")
def test_outputs_are_refused_before_any_training(tmp_path):
    (tmp_path / "m-seed1.pt").write_text("precious")
    for jobs in (1, 2):
        with pytest.raises(OutputError, match=r"m-seed1\.pt exists already") as caught:
            train_seeds(tiny(tmp_path), [0, 1], jobs=jobs)
        assert "--force" in caught.value.hint
    assert [p.read_text() for p in tmp_path.iterdir()] == ["precious"]


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize("numbers", [[], [1, 1], [0, -1]])
def test_seeds_that_make_no_sense(tmp_path, numbers):
    with pytest.raises(UsageError, match="different whole numbers, 0 or more") as caught:
        train_seeds(tiny(tmp_path), numbers)
    assert "range(5)" in caught.value.hint
    with pytest.raises(UsageError, match="at least one training runs at a time"):
        train_seeds(tiny(tmp_path), [0], jobs=0)
