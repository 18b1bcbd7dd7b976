"""The patch ticket: the keep channel, the ranking, and that a ticket ranks as its network does."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import snn_deploy  # noqa: E402
from snn_deploy.errors import InputError, UsageError  # noqa: E402
from snn_deploy.io.ticket import read_ticket  # noqa: E402
from snn_deploy.ir.network import Coding  # noqa: E402
from snn_deploy.tickets.patches import (  # noqa: E402
    Patches,
    patch_meta,
    selector_of,
    selector_of_ticket,
    tokens_kept,
)
from tests.spikformers import SHAPE, STEPS, small  # noqa: E402

CODING = Coding(kind="rate", steps=STEPS, seed=3)


def images(n=6):
    """Return samples with ink in some patches alone."""
    rng = np.random.default_rng(0)
    ink = (rng.random((n, 1, 4, 4)) < 0.5).repeat(2, axis=2).repeat(2, axis=3)
    return (rng.random((n, SHAPE[0] - 1, *SHAPE[1:])) * ink).astype(np.float32)


def saved(model, tmp_path, **how):
    how = {"coding": {"kind": "rate", "steps": STEPS, "seed": 3}, **how}
    example = torch.zeros(1, *SHAPE)
    return snn_deploy.save_ticket(model.deployed(), tmp_path / "m.pt", example_input=example, **how)


def test_the_keep_channel_marks_the_first_pixel_of_each_kept_patch():
    x = np.ones((2, 3, 8, 8), np.float32)
    kept = np.zeros((2, 4, 4), bool)
    kept[0, 1, 2] = kept[1] = True
    found = Patches(patch=2).with_keep_channel(x, kept)
    assert found.shape == (2, 4, 8, 8)
    assert found.dtype == np.float32
    assert np.argwhere(found[0, 3]).tolist() == [[2, 4]]
    assert np.argwhere(found[0, 0]).tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]
    assert np.array_equal(found[1, :3], x[1])
    assert found[1, 3].sum() == 16
    assert tokens_kept(found) == (1 + 16) / 2
    assert np.array_equal(Patches(patch=2).with_keep_channel(x[1:])[0], found[1])


def test_padded_patches_and_frames():
    patches = Patches(patch=4, padding=(1, 1))
    x = np.ones((1, 2, 2, 34, 34), np.uint8)
    assert patches.grid(x.shape) == (9, 9)
    kept = np.zeros((1, 9, 9), bool)
    kept[0, 0, 0] = kept[0, 8, 8] = True
    found = patches.with_keep_channel(x, kept)
    for step in found[0]:
        assert np.argwhere(step[2]).tolist() == [[0, 0], [32, 32]]
        # Patches at the border show what of them lies inside.
        assert step[0, :3, :3].all()
        assert step[0, 31:, 31:].all()
        assert step[0].sum() == 9 + 9
    assert tokens_kept(found) == 2


def test_patches_are_ranked_by_how_far_they_are_from_an_empty_one():
    selector = selector_of(small(), CODING)
    x = images()
    scores = selector.scores(x)
    assert scores.shape == (len(x), 4, 4)
    ink = x.reshape(len(x), -1, 4, 2, 4, 2).sum((1, 3, 5)) > 0
    # Same bias, same spikes.
    assert not scores[~ink].any()
    assert (scores[ink] > 0).mean() > 0.9
    kept = selector.kept(x, 0.7)
    assert kept.sum((1, 2)).tolist() == [11] * len(x)
    for s, k in zip(scores, kept, strict=True):
        assert s[k].min() >= s[~k].max()
    first = selector.kept(np.zeros_like(x), 0.25)
    assert first[:, 0].all()  # all alike: reading order
    assert not first[:, 1:].any()
    assert selector.kept(x, 0.01).sum((1, 2)).tolist() == [1] * len(x)


def test_a_sample_is_ranked_alike_in_any_batch(monkeypatch):
    selector = selector_of(small(), CODING)
    whole = selector.scores(images())
    monkeypatch.setattr("snn_deploy.tickets.patches.BATCH", 4)
    assert np.array_equal(selector.scores(images()), whole)


def test_a_ticket_ranks_as_its_network_does(tmp_path):
    model = small().double()
    path = saved(model, tmp_path, meta={"patches": patch_meta(model)})
    selector = selector_of_ticket(read_ticket(path))
    ours = selector_of(model, CODING)
    assert selector.patches == ours.patches
    assert np.array_equal(selector.scores(images()), ours.scores(images()))
    assert np.array_equal(selector.keep_patches(images(), 0.5), ours.keep_patches(images(), 0.5))


def test_selecting_leaves_the_network_as_it_was():
    model = small().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    selector_of(model, CODING).kept(images(), 0.5)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("share", [0, 1.1, float("nan")])
def test_shares_that_make_no_sense(share):
    with pytest.raises(UsageError, match="above 0, and is 1 at most") as caught:
        selector_of(small(), CODING).kept(images(), share)
    assert "0.7 drops three in ten" in caught.value.hint


def test_a_gain_would_change_the_keep_channel():
    coding = Coding(kind="rate", steps=STEPS, seed=3, gain=0.5)
    with pytest.raises(UsageError, match="the gain must be 1") as caught:
        selector_of(small(), coding).kept(images(), 0.5)
    assert caught.value.used == "gain 0.5"
    assert "scale the samples" in caught.value.hint


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"patches": 3},
        {"patches": {"patch": 0, "padding": [0, 0], "tokens": "stem.lif2"}},
        {"patches": {"patch": 2, "padding": [0], "tokens": "stem.lif2"}},
        {"patches": {"patch": 2, "padding": [0, 2], "tokens": "stem.lif2"}},
        {"patches": {"patch": 2, "padding": [0, 0.0], "tokens": "stem.lif2"}},
        {"patches": {"patch": 2, "padding": [0, 0], "tokens": None}},
    ],
)
def test_tickets_that_do_not_say_what_their_patches_are(meta, tmp_path):
    path = saved(small(), tmp_path, meta=meta)
    with pytest.raises(InputError, match="does not say how its samples divide") as caught:
        selector_of_ticket(read_ticket(path))
    assert "patch_meta(model)" in caught.value.hint
    assert caught.value.where == str(path)


def test_a_ticket_without_the_population_of_its_tokens(tmp_path):
    meta = {"patches": {"patch": 2, "padding": [0, 0], "tokens": "stem.lif9"}}
    path = saved(small(), tmp_path, meta=meta)
    with pytest.raises(InputError, match="a population that it does not have") as caught:
        selector_of_ticket(read_ticket(path))
    assert caught.value.used == "stem.lif9"
    assert "train it again" in caught.value.hint
