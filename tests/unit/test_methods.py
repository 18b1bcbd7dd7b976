"""Every method trains a ticket, resumes exactly, and keeps what it promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from snn_deploy.errors import InputError, UsageError  # noqa: E402
from snn_deploy.io.ticket import read_ticket  # noqa: E402
from snn_deploy.tickets.methods import early  # noqa: E402
from snn_deploy.tickets.methods.catalog import METHODS, ONE_RUN, parameters_of  # noqa: E402
from snn_deploy.tickets.samples import save_test_set  # noqa: E402
from snn_deploy.tickets.trainer import TrainConfig, checkpoint_path, train  # noqa: E402

TINY = {
    "epochs": 4, "round_epochs": 2, "rewind_epoch": 1, "rounds": 2, "sparsity": 0.75, "limit": 320,
    "steps": 6, "hidden": (32, 16), "batch_size": 16,
}  # fmt: skip
# Phases that differ from one run of all epochs: their names.
PHASES = {
    "imp": ["dense", "round 1/2", "round 2/2"],
    "eb": ["search", "ticket"],
    "et": ["probe", "dense", "round 1/2", "round 2/2"],
    "eb-et": ["probe", "search", "ticket"],
    "patch": ["projection", "patches"],
}
# What meets the sparsity by something else than a count of the weights together.
INEXACT = {
    "gradr": 1.0,
    "patch": 1.0,
    "connection": 0.01,
    "ndsnn": 0.02,
    "rigl": 0.02,
    "set": 0.04,
    "uticket": 0.02,
}


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Return a ticket whose masks others take."""
    return train(TrainConfig(out=tmp_path_factory.mktemp("other") / "o.pt", seed=5, **TINY)).path


def tiny(out: Path, method: str, other: Path, **changes) -> TrainConfig:
    masks = {"masks_from": other} if method in ("reinit", "random") else {}
    params = {"gradr": {"prior": 0.5}}.get(method, {})
    own = {"arch": "spikformer-tiny", "hidden": (12, 1)} if method == "patch" else {}
    return TrainConfig(out=out, method=method, params=params, **(TINY | own | masks | changes))


class Interrupt:
    """A progress callback that presses Ctrl-C after so many epochs."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, progress) -> None:
        if progress.done == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", METHODS)
def test_a_ticket_and_the_same_one_after_an_interrupt(tmp_path, other, method):
    whole = train(tiny(tmp_path / "whole.pt", method, other))
    ticket = read_ticket(whole.path)
    kept = sum(int(m.sum()) for m in ticket.masks.values())
    size = sum(m.size for m in ticket.masks.values())
    for name, mask in ticket.masks.items():
        assert np.array_equal(ticket.state[name] != 0, mask)
    assert abs(1 - kept / size - 0.75) <= INEXACT.get(method, 1 / size)
    assert 0 < kept < size
    names = [r.name for r in whole.rounds]
    assert names == PHASES.get(method, ["training"] if method in ONE_RUN else PHASES["imp"])
    assert ticket.meta["method"] == method
    assert ticket.meta["timestep_epochs"] == sum(r.timestep_epochs for r in whole.rounds)
    assert all(0 < r.cost <= r.epochs and 0 < r.spike_rate < 1 for r in whole.rounds)
    last = whole.rounds[-1].epochs + sum(r.epochs for r in whole.rounds[:-1])
    for stop in sorted({1, last - 2}):
        config = tiny(tmp_path / f"part{stop}.pt", method, other)
        with pytest.raises(KeyboardInterrupt):
            train(config, progress=Interrupt(stop))
        assert checkpoint_path(config.out).is_file()
        part = train(replace(config, resume=True))
        again = read_ticket(part.path)
        assert all(np.array_equal(ticket.state[k], again.state[k]) for k in ticket.state)
        assert part.rounds == whole.rounds
        assert part.found == whole.found


def test_the_reference_table_of_one_run_methods():
    assert set(METHODS) - set(ONE_RUN) >= {"imp", "eb", "et", "eb-et"}
    assert parameters_of("rigl", {"death": "0.4"})["death"] == 0.4
    assert parameters_of("connection", {"binary": "true"})["binary"] is True


def test_masks_are_taken_from_another_ticket(tmp_path, other):
    result = train(tiny(tmp_path / "m.pt", "reinit", other))
    mine, theirs = read_ticket(result.path), read_ticket(other)
    for name, mask in theirs.masks.items():
        assert np.array_equal(mine.masks[name], mask)
        assert not np.array_equal(mine.state[name], theirs.state[name])
    random = read_ticket(train(tiny(tmp_path / "r.pt", "random", other)).path)
    for name, mask in theirs.masks.items():
        assert int(random.masks[name].sum()) == int(mask.sum())
        assert not np.array_equal(random.masks[name], mask)
    # The ticket's own seed gives other weights than the ticket began with.
    same_seed = train(tiny(tmp_path / "s.pt", "reinit", other, seed=5, epochs=1, lr=1e-9))
    began = train(tiny(tmp_path / "b.pt", "static", other, seed=5, epochs=1, lr=1e-9))
    biases = [read_ticket(r.path).state["fc1.bias"] for r in (same_seed, began)]
    assert not np.allclose(*biases, atol=1e-6)
    with pytest.raises(InputError, match=r"(?s)not those of this network.*same --arch"):
        train(tiny(tmp_path / "x.pt", "reinit", other, hidden=(12,)))


def test_early_bird_stops_when_its_masks_have_settled(tmp_path, other):
    params = {"fifo": 2, "distance": 1.0}
    result = train(replace(tiny(tmp_path / "m.pt", "eb", other), params=params))
    assert result.found == {"stop_epoch": 2}
    assert [r.epochs for r in result.rounds] == [2, 4]
    never = train(replace(tiny(tmp_path / "n.pt", "eb", other), params={"distance": 0.0}))
    assert never.found == {"stop_epoch": None}
    assert [r.epochs for r in never.rounds] == [4, 4]


def test_the_distance_of_masks_is_the_share_of_entries_that_differ():
    a = {"x": torch.tensor([True, True, False, False]), "y": torch.tensor([True])}
    b = {"x": torch.tensor([True, False, True, False]), "y": torch.tensor([True])}
    assert early.mask_distance(a, b) == pytest.approx(0.4)
    assert early.mask_distance(a, a) == 0


def test_early_time_searches_with_fewer_steps_and_trains_with_all(tmp_path, other):
    result = train(tiny(tmp_path / "m.pt", "et", other))
    t_early = result.found["t_early"]
    assert 2 < t_early < 6
    assert [r.timestep_epochs for r in result.rounds] == [12, 4 * t_early, 2 * t_early, 24]
    assert result.found["divergence"][0] == 1
    assert result.rounds[0].accuracy is None


def test_the_divergence_follows_its_equation():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, 3, generator=generator)
    p = [torch.softmax(logits[:t].mean(0).double(), -1) for t in range(1, 6)]
    kl = [float((q * (q / p[-1]).log()).sum(-1).mean()) for q in p[1:-1]]
    assert early.divergence(logits) == pytest.approx([k / kl[0] for k in kl])
    assert early.early_step([1.0, 0.7, 0.59, 0.1], 0.6) == 4
    assert early.early_step([1.0, 0.7], 0.6) == 4  # nowhere below: all of T = 4
    assert early.divergence(torch.zeros(4, 2, 3)) == [1.0, 1.0]


def test_a_patch_ticket_drops_patches_and_keeps_its_stem(tmp_path, other):
    config = tiny(tmp_path / "m.pt", "patch", other)
    result = train(config)
    assert result.found == {"tokens": 16, "tokens_kept": 11.0}
    ticket = read_ticket(result.path)
    assert ticket.meta["patches"]["patch"] == 2
    save_test_set(config, tmp_path / "x.npz")
    x = np.load(tmp_path / "x.npz")["x"]
    assert x.shape == (450, 2, 8, 8)
    assert x[:, 1].sum() == 450 * 11
    dropped = x[:, 1, ::2, ::2] == 0
    pixels = dropped.repeat(2, axis=1).repeat(2, axis=2)
    assert not x[:, 0][pixels].any()
    all_of_them = train(replace(config, out=tmp_path / "all.pt", params={"patches": 1.0}))
    assert all_of_them.found["tokens_kept"] == 16
    # The stem is a choice among random weights, the same with and without dropped patches.
    names = [name for name in ticket.state if name.startswith("stem.") and "weight" in name]
    other_state = read_ticket(all_of_them.path).state
    assert names
    assert all(np.array_equal(ticket.state[n], other_state[n]) for n in names)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arch": "mlp", "hidden": (8, 8)}, "only a transformer.*--arch spikformer-tiny"),
        ({"params": {"patches": 1.5}}, "patches = 1.5.*0.7 drops three in ten"),
        ({"shift": 1}, "neither moved nor scaled.*shift=0"),
        ({"gain": 0.5}, "neither moved nor scaled.*gain=1"),
    ],
)
def test_patch_settings_that_make_no_sense(tmp_path, other, changes, words):
    with pytest.raises(UsageError, match=f"(?s){words}"):
        train(replace(tiny(tmp_path / "m.pt", "patch", other), **changes))
