"""The spike-rate regulariser against plain autograd and its formula; lossy calibration runs."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from snn_deploy.errors import UsageError  # noqa: E402
from snn_deploy.ir import Readout  # noqa: E402
from snn_deploy.passes.cutoff import calibrate  # noqa: E402
from snn_deploy.tickets import loop  # noqa: E402
from snn_deploy.tickets.lif import LIF  # noqa: E402
from snn_deploy.tickets.models.build import build  # noqa: E402
from snn_deploy.tickets.recurrent import RecurrentLIF  # noqa: E402
from snn_deploy.tickets.regulariser import (  # noqa: E402
    ALPHA,
    RatePenalty,
    Rates,
    calibration_outputs,
    last_steps,
)


def seeded(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


OPTIONS = [
    {},
    {"tau_s": 4 / 3, "dt_s": 1.0, "v_reset": 0.25},
    {"reset": "subtract", "reset_amount": 0.8, "v_threshold": 0.7, "v_leak": 0.1, "r": 1.3},
    {"v_threshold": torch.linspace(0.5, 1.5, 6, dtype=torch.float64)},
]


def stepped(lif, current):
    """Return (spikes, membranes before the reset) by the equation and plain autograd."""
    keep, gain, offset = lif.coefficients()
    v, spikes, membranes = None, [], []
    for x in current:
        z, after = lif.step(x, v)
        membranes.append(keep * (0 if v is None else v) + (gain * x + offset))
        spikes.append(z)
        v = after
    return torch.stack(spikes), torch.stack(membranes)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("used", ["both", "membranes", "spikes"])
def test_membranes_have_the_gradient_of_single_steps(options, used):
    lif = LIF(**options)
    x = 1 + 2 * seeded(12, 3, 6)
    weights = seeded(2, *x.shape, seed=1) * torch.tensor(
        [used != "membranes", used != "spikes"], dtype=x.dtype
    ).reshape(2, 1, 1, 1)
    seen = []
    lif.watch = lambda module, spikes, distance: seen.append((module, spikes, distance))
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    returned = lif(a)
    ((module, spikes, distance),) = seen
    assert module is lif
    assert returned is spikes
    z, v = stepped(lif, b)
    assert torch.equal(spikes, z)
    assert 0.05 < z.mean() < 0.9
    torch.testing.assert_close(distance, v - lif.v_threshold, rtol=1e-12, atol=1e-12)
    losses = []
    for spiked, far in ((spikes, distance), (z, v - lif.v_threshold)):
        parts = [spiked * weights[0], far * weights[1]]
        chosen = {"both": parts, "spikes": parts[:1], "membranes": parts[1:]}[used]
        losses.append(sum(part.sum() for part in chosen))
        losses[-1].backward()
    torch.testing.assert_close(losses[0], losses[1])
    assert a.grad.abs().sum() > 0
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)


def test_a_recurrent_population_shows_its_membranes_too():
    lif = RecurrentLIF(4).double()
    seen = []
    lif.watch = lambda module, spikes, distance: seen.append((spikes, distance))
    x = (1 + 2 * seeded(6, 3, 4)).requires_grad_()
    spikes = lif(x)
    assert torch.equal((seen[0][1] > 0).double(), spikes)
    assert torch.equal(seen[0][0], spikes)
    seen[0][1].sum().backward()
    assert lif.recurrent.weight.grad.abs().sum() > 0


def formula(rates, last, right):
    """Return the penalty of populations' rates, sample by sample in plain numpy."""
    layers = []
    for r in rates:
        worst = 0.0
        for b in np.flatnonzero(right):
            final = r[-last:, b].mean(axis=0)
            cosines = [
                (step @ final) / np.sqrt((step @ step + 1e-5) * (final @ final + 1e-5))
                for step in r[:, b]
            ]
            worst = max(worst, 1 / (np.mean(cosines) + 1e-5))
        layers.append(worst)
    return float(np.mean(layers))


def small(steps=10):
    """Return a model of two populations in float64, its input and the labels."""
    torch.manual_seed(0)
    model = nn.Sequential(LIF(), nn.Linear(6, 3, dtype=torch.float64), LIF(v_threshold=0.5))
    with torch.no_grad():
        model[1].weight.mul_(4)
    return model, 1 + 2 * seeded(steps, 8, 6), torch.arange(8) % 3


@pytest.mark.parametrize(("steps", "last"), [(10, 3), (3, 1), (1, 1), (7, 2), (20, 6)])
def test_the_penalty_is_the_formula(steps, last):
    assert last_steps(steps) == last
    model, x, labels = small(steps)
    with Rates(model) as rates:
        out = model(x.clone().requires_grad_())
        found = rates.penalty(out, labels)
    first, v1 = stepped(model[0], x)
    second, v2 = stepped(model[2], model[1](first))
    assert torch.equal(out, second)
    right = (out[-last:].sum(0).argmax(-1) == labels).numpy()
    assert 0 < right.sum() < 8
    each = [first + v1.relu(), second + v2.relu() / 0.5]
    wanted = formula([r.detach().numpy() for r in each], last, right)
    assert float(found.detach()) == pytest.approx(wanted, rel=1e-9)


def test_its_gradient_is_that_of_single_steps():
    model, x, labels = small()
    with Rates(model) as rates:
        out = model(x)
        (out.sum() + ALPHA * rates.penalty(out, labels)).backward()
    found = model[1].weight.grad.clone()
    model.zero_grad()
    first, v1 = stepped(model[0], x)
    second, v2 = stepped(model[2], model[1](first))
    right = second.detach()[-3:].sum(0).argmax(-1) == labels
    worst = []
    for r in (first + v1.relu(), second + v2.relu() / 0.5):
        final = r[-3:].mean(0, keepdim=True).detach()
        norms = ((r**2).sum(-1) + 1e-5).sqrt() * ((final**2).sum(-1) + 1e-5).sqrt()
        cosine = ((r * final).sum(-1) / norms).mean(0)
        worst.append((1 / (cosine + 1e-5))[right].max())
    (second.sum() + ALPHA * (worst[0] + worst[1]) / 2).backward()
    torch.testing.assert_close(found, model[1].weight.grad, rtol=1e-10, atol=1e-12)
    model.zero_grad()
    model(x).sum().backward()
    assert (found - model[1].weight.grad).abs().max() > 1e-5


def test_nobody_right_costs_nothing_and_silence_stays_finite():
    model, x, _ = small()
    with Rates(model) as rates:
        out = model(x)
        wrong = (out.detach()[-3:].sum(0).argmax(-1) + 1) % 3
        assert rates.penalty(out, wrong).item() == 0
        silent = (0 * x).requires_grad_()
        with torch.no_grad():
            model[1].bias.fill_(-1.0)
        out = model(silent)
        penalty = rates.penalty(out, torch.zeros(8, dtype=torch.long))
        penalty.backward()
    assert penalty.item() == 0  # no rate anywhere behind the silent population
    assert torch.isfinite(silent.grad).all()
    assert torch.isfinite(model[1].weight.grad).all()


def test_descending_it_turns_rates_towards_their_last_ones():
    model, x, _ = small()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    found = []
    with Rates(model) as rates:
        for _ in range(40):
            out = model(x)
            penalty = rates.penalty(out, out.detach()[-3:].sum(0).argmax(-1))
            found.append(penalty.item())
            optimizer.zero_grad()
            penalty.backward()
            optimizer.step()
    assert np.mean(found[-5:]) < np.mean(found[:5]) - 0.02


def test_what_is_collected_and_when():
    model, x, labels = small()
    with Rates(model) as rates:
        alone = rates.penalty(model(x), labels)
        with torch.no_grad():
            model(-x)  # an evaluation in between
        again = rates.penalty(model(x), labels)
    assert again.item() == alone.item() > 0
    with Rates(model) as rates:
        out = model(x)
    assert rates.penalty(out, labels).item() == alone.item()
    out = model(-x)  # outside
    with Rates(model) as rates, pytest.raises(UsageError):
        rates.penalty(out, labels)


def trained(penalty):
    """Return (records, weights) of a short run with this term of the loss."""
    rng = np.random.default_rng(0)
    y = torch.from_numpy(rng.integers(0, 3, 96))
    x = torch.from_numpy(rng.random((96, 12), np.float32)) * 0.5
    x[torch.arange(96), y] = 1.0
    recipe = loop.Recipe(steps=6, coding="rate", gain=1.0, lr=1e-2, batch_size=32, weight_decay=0.0)
    with loop.deterministic(1):
        model = build("mlp", (12,), 3, hidden=(16,))
        run = loop.Run(model, x, y, recipe, epochs=12, seed=2, penalty=penalty)
        records = [run.epoch() for _ in range(12)]
    return records, {k: v.clone() for k, v in model.state_dict().items()}


def test_a_training_run_takes_it():
    plain, without = trained(None)
    none, zero = trained(RatePenalty(0.0))
    some, regularised = trained(RatePenalty())
    assert RatePenalty().alpha == ALPHA == 0.002
    assert [r.loss for r in none] == [r.loss for r in plain]
    assert all(torch.equal(zero[k], without[k]) for k in without)
    assert some[0].loss > plain[0].loss
    assert some[-1].loss < some[0].loss
    assert any(not torch.equal(regularised[k], without[k]) for k in without)


def test_messages():
    model, x, labels = small()
    with Rates(model) as rates:
        rates.penalty(model(x), labels)
        with pytest.raises(UsageError) as caught:
            rates.penalty(x, labels)
        assert caught.value.message == "no forward pass was collected"
        assert "with Rates(model)" in caught.value.hint
        with pytest.raises(UsageError) as caught, Rates(model):
            pass
        assert caught.value.message == "the rates of this model are being collected already"
        assert caught.value.hint == "use one `with Rates(model)` at a time"
    with Rates(model):  # given back
        pass
    with pytest.raises(UsageError) as caught:
        Rates(nn.Linear(2, 2))
    assert caught.value.message == "the model has no LIF of snn_deploy.tickets.lif"
    assert caught.value.where == "Linear"
    assert "only their membranes and spikes can be reached" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        Rates(LIF(v_threshold=0.0))
    assert caught.value.used == "v_threshold = 0"
    assert caught.value.hint == "train with thresholds above 0"
    with pytest.raises(UsageError) as caught:
        calibration_outputs(model, np.zeros((1, 2, 6)), dropout=1.0, seed=0)
    assert caught.value.message == "dropout 1 is not a chance of losing spikes"
    assert caught.value.hint == "0 for none, 0.3 as published, less than 1"


def test_spikes_are_lost_between_populations():
    torch.manual_seed(0)
    model = build("mlp", (6,), 3, hidden=(200,))
    seen = []
    model.fc2.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    x = (np.random.default_rng(0).random((30, 8, 6)) < 0.7).astype(np.uint8)
    model.train()
    whole = calibration_outputs(model, x, dropout=0.0, seed=1)
    spikes = seen[-1]
    with torch.no_grad():
        assert torch.equal(
            torch.from_numpy(whole),
            model(torch.from_numpy(x).float().transpose(0, 1)).transpose(0, 1),
        )
    lossy = calibration_outputs(model, x, dropout=0.3, seed=1)
    left = seen[-1]
    assert lossy.shape == (30, 8, 3)
    assert lossy.dtype == np.float32
    assert set(np.unique(lossy)) == {0.0, 1.0}  # the output's own spikes are whole
    assert (lossy != whole).any()
    assert torch.all((left == 0) | torch.isclose(left, spikes / 0.7))
    share = float((left != 0).sum() / spikes.sum())
    assert share == pytest.approx(0.7, abs=0.03)
    assert not torch.equal((left != 0)[0], (left != 0)[1])
    assert np.array_equal(lossy, calibration_outputs(model, x, dropout=0.3, seed=1))
    assert (lossy != calibration_outputs(model, x, dropout=0.3, seed=2)).any()
    assert model.training
    assert not model.lif1._forward_hooks
    # A cutoff comes of it as of any outputs.
    labels = whole.sum(1).argmax(1)
    assert len(calibrate(lossy, labels, Readout(), 0.1).table) == 8
