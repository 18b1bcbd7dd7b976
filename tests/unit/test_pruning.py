"""Global magnitude pruning: exact counts, ties, floors per layer, schedules."""

from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from snn_deploy.errors import UsageError  # noqa: E402
from snn_deploy.tickets import pruning  # noqa: E402
from snn_deploy.tickets.models.build import build  # noqa: E402
from snn_deploy.tickets.sparsify.base import Masked  # noqa: E402


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(10, 8, generator=generator),
        "b.weight": torch.randn(6, 2, 3, 3, generator=generator) * 3,
        "c.weight": torch.randn(4, 5, generator=generator) * 1e-4,
    }


def survivors(masks) -> int:
    return sum(int(m.sum()) for m in masks.values())


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 0.98), st.integers(0, 5))
def test_exactly_as_many_weights_stay_as_asked(sparsity, seed):
    tensors = weights(seed)
    total = sum(w.numel() for w in tensors.values())
    masks = pruning.global_magnitude(tensors, sparsity)
    assert survivors(masks) == round((1 - sparsity) * total)
    assert all(int(m.sum()) >= 1 and m.shape == tensors[k].shape for k, m in masks.items())


def test_the_largest_of_all_layers_stay_and_each_layer_keeps_its_largest():
    tensors = weights()
    masks = pruning.global_magnitude(tensors, 0.8)
    kept = torch.cat([tensors[k].abs()[m] for k, m in masks.items() if k != "c.weight"])
    gone = torch.cat([tensors[k].abs()[~m] for k, m in masks.items()])
    assert kept.min() >= gone.max()
    assert masks["c.weight"].sum() == 1
    assert masks["c.weight"].flatten()[tensors["c.weight"].abs().argmax()]


def test_removed_weights_never_return():
    tensors = weights()
    first = pruning.global_magnitude(tensors, 0.5)
    grown = {k: torch.where(first[k], w, torch.full_like(w, 100.0)) for k, w in tensors.items()}
    second = pruning.global_magnitude(grown, 0.7, first)
    assert all(bool((first[k] | ~m).all()) for k, m in second.items())
    total = sum(w.numel() for w in tensors.values())
    assert survivors(second) == round(0.3 * total)
    with pytest.raises(UsageError, match="cannot be reached"):
        pruning.global_magnitude(tensors, 0.4, first)


def test_layer_adaptive_scores_are_those_of_the_definition():
    tensors = weights()
    score = {}
    for name, w in tensors.items():
        squares = w.double().square().flatten()
        score[name] = torch.stack([s / squares[squares >= s].sum() for s in squares])
    least = torch.cat(list(score.values())).sort(descending=True).values[61]
    masks = pruning.global_magnitude(tensors, 0.7, layer_adaptive=True)
    total = sum(w.numel() for w in tensors.values())
    assert survivors(masks) == round(0.3 * total) == 62
    for name, mask in masks.items():
        assert torch.equal(mask.flatten(), score[name] >= least)


def test_layer_adaptive_pruning_does_not_ask_for_a_layers_scale():
    tensors = weights()
    scaled = {k: w * (1000.0 if k == "c.weight" else 1.0) for k, w in tensors.items()}
    masks = pruning.global_magnitude(tensors, 0.8, layer_adaptive=True)
    assert masks["c.weight"].sum() > 1
    again = pruning.global_magnitude(scaled, 0.8, layer_adaptive=True)
    assert all(torch.equal(masks[k], again[k]) for k in masks)
    # Removed weights count no more, whatever their values: what is left decides.
    noise = {k: torch.where(masks[k], w, torch.full_like(w, 100.0)) for k, w in tensors.items()}
    fewer = pruning.global_magnitude(tensors, 0.9, masks, layer_adaptive=True)
    found = pruning.global_magnitude(noise, 0.9, masks, layer_adaptive=True)
    assert all(torch.equal(fewer[k], found[k]) for k in masks)
    assert all(bool((masks[k] | ~m).all()) for k, m in fewer.items())
    zero = pruning.global_magnitude(
        {"a": torch.zeros(2, 2), "b": torch.ones(2, 2)}, 0.5, layer_adaptive=True
    )
    assert int(zero["a"].sum()) == 1


def test_ties_go_to_the_earlier_weight():
    masks = pruning.global_magnitude({"w": torch.ones(2, 5)}, 0.7)
    assert masks["w"].flatten().tolist() == [True] * 3 + [False] * 7


def test_too_few_weights_for_the_layers():
    with pytest.raises(UsageError, match="at least one weight per layer") as caught:
        pruning.global_magnitude(weights(), 0.99)
    assert "2 weights to keep, 3 layers" in str(caught.value)


@pytest.mark.parametrize(("sparsity", "rounds"), [(0.9, 8), (0.25, 1), (0.9813, 14), (0.05, 1)])
def test_a_quarter_of_the_survivors_per_round_by_default(sparsity, rounds):
    steps = pruning.schedule(sparsity)
    assert len(steps) == rounds
    assert steps[-1] == sparsity
    density = [1.0, *(1 - s for s in steps)]
    shares = [1 - b / a for a, b in itertools.pairwise(density)]
    assert max(shares) - min(shares) < 1e-12


def test_schedule_by_rounds_and_its_limits():
    assert pruning.schedule(0.75, 2) == (0.5, 0.75)
    assert pruning.schedule(0.0) == ()
    for sparsity, rounds in ((1.0, None), (-0.1, None), (float("nan"), None), (0.5, 0)):
        with pytest.raises(UsageError):
            pruning.schedule(sparsity, rounds)


def test_batch_norm_and_biases_are_never_pruned():
    net = build("conv", (1, 8, 8), 10)
    assert list(pruning.prunable(net)) == ["conv1.weight", "conv2.weight", "fc.weight"]


def test_masks_set_exact_zeros_and_touch_nothing_else():
    net = nn.Linear(4, 3)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    masks = pruning.global_magnitude(pruning.prunable(net), 0.5)
    held = Masked(net, masks)
    assert torch.equal(net.weight, before["weight"] * masks["weight"])
    assert torch.equal(net.bias, before["bias"])
    assert pruning.sparsity_of(masks) == 0.5
    assert held.density() == 0.5
    assert pruning.sparsity_of({}) == 0.0
