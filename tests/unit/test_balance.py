"""Masks that balance processing elements, and the training that finds a ticket with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from snn_deploy.engine.load import utilisation, weight_load  # noqa: E402
from snn_deploy.errors import UsageError  # noqa: E402
from snn_deploy.io.ticket import network_of, read_ticket  # noqa: E402
from snn_deploy.tickets.balance import balanced, mask_load  # noqa: E402
from snn_deploy.tickets.trainer import TrainConfig, train  # noqa: E402

SHAPES = {"fc": (64, 30), "conv": (32, 8, 3, 3), "out": (10, 64)}
TINY = {
    "method": "uticket",
    "epochs": 3,
    "round_epochs": 2,
    "rewind_epoch": 1,
    "rounds": 2,
    "sparsity": 0.8,
    "limit": 96,
    "steps": 4,
    "hidden": (48, 32),
}


def uneven(seed=0):
    """Return masks and weights: some channels hold far more than others."""
    rng = np.random.default_rng(seed)
    masks, weights = {}, {}
    for name, shape in SHAPES.items():
        chance = rng.random((shape[0], shape[1], *[1] * (len(shape) - 2))) ** 4
        masks[name] = torch.from_numpy(rng.random(shape) < chance)
        weights[name] = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
    return masks, weights


def counts(mask, elements, axis):
    """Return the nonzeros of each element, found one at a time."""
    found = [0] * elements
    for at in np.ndindex(tuple(mask.shape)):
        found[at[axis] % elements] += bool(mask[at])
    return found


@pytest.mark.parametrize("choice", ["random", "magnitude"])
@pytest.mark.parametrize(("mapping", "axis"), [("sata", 0), ("systolic", 1)])
def test_every_element_holds_the_mean_rounded_up(mapping, axis, choice):
    masks, weights = uneven()
    elements = 8
    after = balanced(masks, weights, elements, 3, mapping=mapping, choice=choice)
    for name, mask in masks.items():
        level = -(-int(mask.sum()) // elements)
        assert len(set(counts(mask, elements, axis))) > 1
        assert counts(after[name], elements, axis) == [level] * elements
        assert after[name].shape == mask.shape
    before, now = mask_load(masks, elements, mapping), mask_load(after, elements, mapping)
    assert before.utilisation < 0.97
    assert now.utilisation == 1
    assert now.idle == 0
    assert now.cycles == before.balanced_cycles


def test_an_element_only_loses_or_only_recovers():
    masks, weights = uneven()
    after = balanced(masks, weights, 8, 3)
    for name, mask in masks.items():
        for k in range(8):
            lost = int((mask[k::8] & ~after[name][k::8]).sum())
            won = int((~mask[k::8] & after[name][k::8]).sum())
            assert min(lost, won) == 0


def test_magnitude_loses_the_smallest_and_recovers_the_largest():
    masks, weights = uneven()
    after = balanced(masks, weights, 8, 3, choice="magnitude")
    checked = 0
    for name, mask in masks.items():
        for k in range(8):
            size, was, now = weights[name].abs()[k::8], mask[k::8], after[name][k::8]
            for lost, kept in ((was & ~now, was & now), (~was & ~now, ~was & now)):
                if lost.any() and kept.any():
                    assert size[lost].max() <= size[kept].min()
                    checked += 1
    assert checked > 8


def test_fewer_channels_than_elements_are_balanced_over_as_many_as_there_are():
    masks, weights = uneven()
    after = balanced(masks, weights, 16, 0)
    level = -(-int(masks["out"].sum()) // 10)
    assert counts(after["out"], 16, 0) == [level] * 10 + [0] * 6
    load = mask_load(after, 16)
    out = load.layers[-1]
    assert utilisation(out.work) == pytest.approx(out.ceiling) == pytest.approx(0.6)
    assert load.utilisation == 1
    assert load.idle == 6 * level
    assert load.cycles == load.balanced_cycles == mask_load(masks, 16).balanced_cycles


def test_an_element_without_room_keeps_all_and_others_make_up_for_it():
    mask = torch.zeros(6, 5, dtype=torch.bool)
    mask[:, :4] = True  # 24 of 30; elements 0 and 1 have 10 weights, 2 and 3 have 5
    after = balanced({"fc": mask}, {"fc": torch.ones(6, 5)}, 4, 0)["fc"]
    assert counts(after, 4, 0) == [7, 7, 5, 5]
    full = torch.ones(6, 5, dtype=torch.bool)
    assert torch.equal(balanced({"fc": full}, {}, 4, 0)["fc"], full)


def test_the_seed_decides():
    masks, weights = uneven()
    a, b, c = (balanced(masks, weights, 8, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a[n], b[n]) for n in masks)
    assert any(not torch.equal(a[n], c[n]) for n in masks)
    noise = torch.get_rng_state()
    balanced(masks, weights, 8, 1)
    assert torch.equal(torch.get_rng_state(), noise)


def test_the_given_masks_stay_as_they_are():
    masks, weights = uneven()
    copies = {name: mask.clone() for name, mask in masks.items()}
    balanced(masks, weights, 8, 1)
    assert all(torch.equal(masks[n], copies[n]) for n in masks)


@pytest.mark.parametrize(
    ("params", "message", "hint"),
    [
        ({"choice": "best"}, "unknown choice 'best'", "random or magnitude"),
        ({"mapping": "round"}, "unknown mapping 'round'", "sata or systolic"),
        ({"elements": 0}, "at least one processing element", "16"),
    ],
)
def test_unfit_parameters_are_refused_before_training(tmp_path, params, message, hint):
    def never(_):
        raise AssertionError("training began")

    with pytest.raises(UsageError, match=message) as caught:
        train(TrainConfig(out=tmp_path / "m.pt", **TINY, params=params), progress=never)
    assert hint in caught.value.hint


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_a_ticket_of_the_method_is_balanced(tmp_path, arch):
    result = train(TrainConfig(out=tmp_path / "m.pt", arch=arch, **TINY))
    ticket = read_ticket(result.path)
    load = weight_load(network_of(ticket), 16)
    found = result.found["balance"]
    assert load.utilisation >= 0.97 > found["utilisation"][0]
    assert found["utilisation"][1] == pytest.approx(load.utilisation)
    assert found["idle"][1] == load.idle < found["idle"][0]
    assert found["nonzeros"][1] == load.work == result.nonzeros
    assert 0 <= found["nonzeros"][1] - found["nonzeros"][0] < 16 * len(load.layers)
    cycles = found["cycles"]
    assert cycles["before"] > cycles["balanced"] == cycles["after"] == load.cycles
    assert [one["ceiling"] for one in found["layers"]] == [1, 1, pytest.approx(0.6)]
    for key, mask in ticket.masks.items():
        assert np.array_equal(ticket.state[key] != 0, mask)  # what was recovered is trained
    assert ticket.meta["found"] == result.found


def test_a_dense_network_has_nothing_to_balance(tmp_path):
    changes = {"sparsity": 0.0, "rounds": None}
    result = train(TrainConfig(out=tmp_path / "m.pt", **(TINY | changes)))
    assert result.found == {}


@pytest.mark.parametrize("stop_at", [2, 3, 4, 6])
def test_resume_goes_on_exactly(tmp_path, stop_at):
    def interrupt(progress):
        if progress.done == stop_at:
            raise KeyboardInterrupt

    plain = train(TrainConfig(out=tmp_path / "plain.pt", **TINY))
    config = TrainConfig(out=tmp_path / "m.pt", **TINY)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=interrupt)
    resumed = train(replace(config, resume=True))
    a, b = read_ticket(plain.path), read_ticket(resumed.path)
    assert all(np.array_equal(a.state[k], b.state[k]) for k in a.state)
    assert all(np.array_equal(a.masks[k], b.masks[k]) for k in a.masks)
    assert plain.found == resumed.found
