"""Sparsifiers in a plain training loop, against their equations written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from snn_deploy.errors import UsageError  # noqa: E402
from snn_deploy.io.seeded import uniform  # noqa: E402
from snn_deploy.tickets.sparsify import start  # noqa: E402
from snn_deploy.tickets.sparsify.base import Masked, Sparsifier  # noqa: E402
from snn_deploy.tickets.sparsify.connection import Connection  # noqa: E402
from snn_deploy.tickets.sparsify.drop_grow import DropGrow  # noqa: E402
from snn_deploy.tickets.sparsify.theta import GradR, Stds  # noqa: E402

LR, BETAS, EPS = 0.05, (0.9, 0.999), 1e-8


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 5, bias=False))


def train(model: nn.Module, sparsifier: Sparsifier, updates: int, seed: int = 1) -> list[list]:
    """Train like anyone would; returns the gradients of the first weights in every update."""
    optimizer = torch.optim.Adam(sparsifier.parameters(), lr=LR, betas=BETAS, eps=EPS)
    return list(steps(model, sparsifier, optimizer, updates, seed))


def steps(model, sparsifier, optimizer, updates, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        x = torch.randn(16, 12, generator=generator)
        y = torch.randint(5, (16,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        gradient = model[0].weight.grad.clone()
        sparsifier.step(optimizer)
        yield gradient


def adam(gradients):
    """Return Adam's normalised steps for a row of gradients, from its definition."""
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m, v = BETAS[0] * m + (1 - BETAS[0]) * g, BETAS[1] * v + (1 - BETAS[1]) * g * g
        yield (m / (1 - BETAS[0] ** t)) / ((v / (1 - BETAS[1] ** t)).sqrt() + EPS)


def test_gradient_rewiring_follows_its_equation():
    model = net()
    w0 = model[0].weight.detach().clone()
    sign, theta = torch.where(w0 < 0, -1.0, 1.0), w0.abs()
    alpha, sparsity = 0.1, 0.9
    sparsifier = GradR(model, sparsity=sparsity, alpha=alpha)
    gradients = train(model, sparsifier, 30)
    mu = math.log(2 * (1 - sparsity)) / alpha
    revived = 0
    for t, step in enumerate(adam([sign * g for g in gradients]), 1):
        prior = LR / (1 - BETAS[0] ** t) * alpha * torch.sign(theta - mu)
        before, theta = theta, theta - LR * step - prior
        revived += int(((before < 0) & (theta > 0)).sum())
    expected = sign * theta.clamp_min(0)
    torch.testing.assert_close(model[0].weight, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(sparsifier.masks()["0.weight"], model[0].weight != 0)
    assert 0 < int((expected == 0).sum()) < expected.numel()
    assert revived  # the gradient reaches what is pruned
    assert bool((torch.sign(model[0].weight) * sign >= 0).all())


def test_a_stronger_prior_leaves_fewer_connections():
    density = []
    for alpha in (0.0, 0.1, 0.5):
        model = net()
        sparsifier = GradR(model, sparsity=0.9, alpha=alpha)
        train(model, sparsifier, 40)
        density.append(sparsifier.density())
    assert density[0] > density[1] > density[2]


def test_soft_thresholds_follow_their_equation():
    model = net()
    theta = model[0].weight.detach().clone()
    sparsifier = Stds(model, updates=20, threshold=0.3, schedule="linear")
    gradients = train(model, sparsifier, 20)
    for step in adam(gradients):
        theta = theta - LR * step
    assert sparsifier.threshold == pytest.approx(0.3)
    expected = torch.sign(theta) * (theta.abs() - 0.3).clamp_min(0)
    torch.testing.assert_close(model[0].weight, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("schedule", ["sine", "linear"])
def test_soft_thresholds_meet_a_sparsity_exactly(schedule):
    model = net()
    sparsifier = Stds(model, updates=20, sparsity=0.8, schedule=schedule, stop=0.5)
    train(model, sparsifier, 5)
    half = {"sine": math.sin(math.pi / 4), "linear": 0.5}[schedule]
    assert sparsifier.density() == pytest.approx(1 - 0.8 * half, abs=0.01)
    train(model, sparsifier, 15)
    weights = 12 * 20 + 20 * 5
    assert round(sparsifier.density() * weights) == round(0.2 * weights)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("rigl", {}),
        ("set", {"growth": "random", "constant": True, "stop": 1.0}),
        ("ndsnn", {"start_sparsity": 0.5, "death": 0.5, "least_death": 0.05}),
    ],
)
def test_drop_and_grow_keeps_its_schedule(kind, settings):
    model = net()
    sparsifier = DropGrow(model, sparsity=0.9, updates=40, every=5, seed=3, **settings)
    total, last = 340, sparsifier.masks()
    optimizer = torch.optim.Adam(sparsifier.parameters(), lr=LR)
    changed = []
    stop = settings.get("stop", 0.75)
    rewirings = min(math.floor(stop * 40 / 5), 39 // 5)
    first = settings.get("start_sparsity", 0.9)
    for update, _ in enumerate(steps(model, sparsifier, optimizer, 40, 1), 1):
        masks = sparsifier.masks()
        for name, mask in masks.items():
            weight = dict(model.named_parameters())[name]
            assert bool((weight[~mask] == 0).all())
        grown = sum(int((masks[n] & ~last[n]).sum()) for n in masks)
        dropped = sum(int((last[n] & ~masks[n]).sum()) for n in masks)
        if update % 5 or update > 5 * rewirings:
            assert grown == dropped == 0
        else:
            changed.append((dropped, grown))
            share = update / 5 / rewirings
            wanted = 1 - (0.9 + (first - 0.9) * (1 - share) ** 3)
            assert sparsifier.density() == pytest.approx(wanted, abs=3 / total)
        last = masks
    assert len(changed) == rewirings
    assert changed[0][1] > 0
    if kind == "set":
        assert len({dropped for dropped, _ in changed}) == 1
    elif kind == "rigl":
        assert [d for d, _ in changed] == sorted((d for d, _ in changed), reverse=True)
        assert changed[-1] == (0, 0)
    else:
        assert all(dropped > grown for dropped, grown in changed[:-1])
    assert sparsifier.density() == pytest.approx(0.1, abs=2 / total)


def test_growth_follows_the_gradient_and_starts_from_zero():
    model = net()
    sparsifier = DropGrow(model, sparsity=0.8, updates=10, every=1, seed=0, death=0.2)
    before, weight = sparsifier.masks()["0.weight"], model[0].weight.detach().clone()
    optimizer = torch.optim.SGD(sparsifier.parameters(), lr=0.0)
    (gradient,) = steps(model, sparsifier, optimizer, 1, 2)
    after = sparsifier.masks()["0.weight"]
    grown, dropped = after & ~before, before & ~after
    assert int(grown.sum()) == int(dropped.sum()) > 0
    candidates = gradient.abs()[~before]
    assert gradient.abs()[grown].min() >= candidates.sort(descending=True)[0][grown.sum() - 1]
    assert weight.abs()[dropped].max() <= weight.abs()[after & before].min()
    assert bool((model[0].weight[grown] == 0).all())


def test_erk_densities_fall_with_size_and_sum_up():
    shapes = {"small": (10, 20), "large": (400, 800), "conv": (64, 32, 3, 3)}
    for sparsity in (0.5, 0.9, 0.98):
        density = start.erdos_renyi_kernel(shapes, sparsity)
        size = {name: math.prod(shape) for name, shape in shapes.items()}
        kept = sum(density[n] * size[n] for n in shapes)
        assert kept == pytest.approx((1 - sparsity) * sum(size.values()))
        assert 0 < density["large"] < density["conv"] <= 1
    loose = start.erdos_renyi_kernel(shapes, 0.98)
    ratio = loose["conv"] / loose["large"]
    assert ratio == pytest.approx((64 + 32 + 6) / (64 * 32 * 9) / (1200 / 320000))
    assert start.erdos_renyi_kernel(shapes, 0.0) == dict.fromkeys(shapes, 1.0)
    with pytest.raises(UsageError, match="below 1"):
        start.erdos_renyi_kernel(shapes, 1.0)


def test_random_masks_and_what_makes_up_for_them():
    model = net()
    weights = Sparsifier(model).weights
    before = {name: p.detach().clone() for name, p in weights.items()}
    generator = torch.Generator().manual_seed(0)
    layers = start.random_masks(weights, {"0.weight": 0.25, "2.weight": 0.5}, generator)
    assert [int(m.sum()) for m in layers.values()] == [60, 50]
    whole = start.random_masks(weights, 0.25, generator)
    assert sum(int(m.sum()) for m in whole.values()) == 85
    start.rescale(model, layers)
    for (name, p), scale in zip(weights.items(), (2.0, math.sqrt(2.0)), strict=True):
        torch.testing.assert_close(p.detach(), scale * before[name])


def test_snip_keeps_what_the_loss_feels():
    model = net()
    x, y = torch.randn(32, 12), torch.arange(32) % 5
    masks = start.snip(model, lambda m: nn.functional.cross_entropy(m(x), y), 0.7)
    nn.functional.cross_entropy(model(x), y).backward()
    score = torch.cat([(p * p.grad).abs().flatten() for p in Sparsifier(model).weights.values()])
    kept = torch.cat([masks[n].flatten() for n in Sparsifier(model).weights])
    assert int(kept.sum()) == round(0.3 * 340)
    assert score[kept].min() >= score[~kept].max()


@pytest.mark.parametrize("binary", [False, True])
def test_the_connection_ticket_never_trains_a_weight(binary):
    model = net()
    bias = model[0].bias.detach().clone()
    sparsifier = Connection(model, sparsity=0.5, seed=7, binary=binary)
    first = sparsifier.masks()["0.weight"]
    train(model, sparsifier, 30)
    mask, weight = sparsifier.masks()["0.weight"], model[0].weight.detach()
    assert int(mask.sum()) == 120
    assert not torch.equal(mask, first)
    assert torch.equal(model[0].bias, bias)
    drawn = torch.from_numpy(uniform([7, 0], (20, 12))) * math.sqrt(3 * 1.7 / math.sqrt(6))
    if binary:
        assert weight.abs()[mask].unique().numel() == 1
        gain, used = float(drawn[mask].abs().mean()), torch.sign(drawn)
    else:
        gain, used = float(drawn[mask].norm() / math.sqrt(120)), drawn
    torch.testing.assert_close(weight, gain * used * mask)
    seeded = sparsifier.seeded()["0.weight"]
    made = torch.where(mask, torch.from_numpy(seeded.weights()), 0.0)
    assert torch.equal(weight.view(torch.int32), made.view(torch.int32))


def test_the_scores_gradient_goes_straight_through():
    model = net()
    sparsifier = Connection(model, sparsity=0.5, seed=7)
    before = sparsifier.theta["0.weight"].clone()
    scale, drawn = sparsifier.scale["0.weight"], torch.from_numpy(uniform([7, 0], (20, 12)))
    optimizer = torch.optim.SGD(sparsifier.parameters(), lr=1.0)
    (gradient,) = steps(model, sparsifier, optimizer, 1, 2)
    moved = before - sparsifier.theta["0.weight"]
    torch.testing.assert_close(moved, gradient * scale * drawn, atol=1e-6, rtol=1e-3)


def test_seeded_weights_are_the_same_everywhere():
    numbers = uniform([1, 2], (2, 3))
    assert numbers.dtype == np.float32
    assert np.array_equal(numbers, uniform([1, 2], (6,)).reshape(2, 3))
    assert not np.array_equal(numbers, uniform([1, 3], (2, 3)))
    many = uniform([5], (40_000,))
    assert abs(many.mean()) < 0.01
    assert many.std() == pytest.approx(1 / math.sqrt(3), abs=0.01)
    assert -1 <= many.min() < many.max() < 1
    # Written down once: a file that holds only the seed depends on these bits.
    assert (uniform([0], (3,)) * (1 << 22)).tolist() == [1148917, -1931170, -3850594]


MAKERS = {
    "gradr": lambda m: GradR(m, sparsity=0.9, alpha=0.2),
    "stds": lambda m: Stds(m, updates=20, sparsity=0.8),
    "rewired": lambda m: DropGrow(
        m, sparsity=0.8, updates=20, every=2, growth="random", start_sparsity=0.5
    ),
    "connection": lambda m: Connection(m, sparsity=0.5, seed=1),
    "masked": lambda m: Masked(m, {"0.weight": torch.arange(240).reshape(20, 12) % 3 == 0}),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_sparsifier_goes_on_where_it_was(kind):
    """Twelve updates at once, and six, a file's worth of state, and six more: the same weights."""
    make = MAKERS[kind]
    whole = net()
    sparsifier = make(whole)
    optimizer = torch.optim.Adam(sparsifier.parameters(), lr=LR)
    for seed in (1, 2):
        list(steps(whole, sparsifier, optimizer, 6, seed))
    part = net()
    sparsifier = make(part)
    optimizer = torch.optim.Adam(sparsifier.parameters(), lr=LR)
    list(steps(part, sparsifier, optimizer, 6, 1))
    state = sparsifier.state_dict(), optimizer.state_dict(), part.state_dict()
    other = net()
    resumed = make(other)
    again = torch.optim.Adam(resumed.parameters(), lr=LR)
    other.load_state_dict(state[2])
    again.load_state_dict(state[1])
    resumed.load_state_dict(state[0])
    list(steps(other, resumed, again, 6, 2))
    for a, b in zip(whole.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda m: GradR(m, sparsity=0.4), "at least one half.*sparsity = 0.4"),
        (lambda m: Stds(m, updates=5), "to a sparsity or to a threshold.*one of the two"),
        (lambda m: Stds(m, updates=5, sparsity=0.5, stop=0), "0 < stop <= 1"),
        (lambda m: DropGrow(m, sparsity=0.5, updates=5, start_sparsity=0.6), "start_sparsity"),
        (lambda m: DropGrow(m, sparsity=0.5, updates=5, every=0), "every >= 1"),
        (lambda m: Connection(m, sparsity=1.0, seed=0), "below 1"),
    ],
)
def test_settings_that_make_no_sense(make, words):
    with pytest.raises(UsageError, match=f"(?s){words}"):
        make(net())
