"""A convolution, batch norm, LIF and pool in one, against the modules in double precision."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from snn_deploy.tickets import fused, kernels  # noqa: E402
from snn_deploy.tickets.lif import LIF  # noqa: E402
from snn_deploy.tickets.models.layers import TimeSequential  # noqa: E402
from snn_deploy.tickets.rate import SpikeRate  # noqa: E402


@pytest.fixture(autouse=True)
def small_enough(monkeypatch):
    """Take whatever fits, however small, a few rows at once."""
    monkeypatch.setattr(fused, "SMALLEST", 0)
    monkeypatch.setattr(kernels, "TILE", 300)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def stack(channels: int = 3, pool: bool = True, bias: bool = False, **neuron) -> TimeSequential:
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(6, momentum=0.2)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 3)
        norm.bias.normal_()
    layers = (nn.Conv2d(channels, 6, 3, padding=1, bias=bias), norm, LIF(**neuron))
    return TimeSequential(*layers, *([nn.AvgPool2d(2)] if pool else []))


def trained(net: TimeSequential, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the output, all gradients, and the running statistics of one forward pass."""
    net, x = copy.deepcopy(net).to(x.dtype), x.clone().requires_grad_()
    out = net(x)
    into = (x, *net.parameters())
    grads = torch.autograd.grad(out, into, normal(*out.shape, seed=5).to(x.dtype))
    return out.detach(), *grads, *net[1].buffers()


def agree(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    """Compare with what was computed in double precision: spikes exactly, the others nearly."""
    assert torch.equal(found[0].double(), expected[0])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-4, check_dtype=False)


def inputs(*shape: int) -> torch.Tensor:
    return normal(*shape, seed=4)


@pytest.mark.parametrize(
    "neuron",
    [
        {},
        {"tau_s": 3e-3, "v_reset": 0.3, "v_leak": 0.2, "r": 1.7, "alpha": 3.0},
        {"reset": "subtract"},
        {"reset": "subtract", "reset_amount": 0.8, "v_threshold": 1.1},
    ],
)
@pytest.mark.parametrize("pool", [True, False])
def test_it_gives_what_the_modules_give(neuron, pool):
    net, x = stack(pool=pool, **neuron), inputs(5, 4, 3, 12, 10)
    assert fused.length(list(net), x) == len(net)
    assert fused.length(list(net), x.double()) == 0
    found, expected = trained(net, x), trained(net, x.double())
    agree(found, expected)
    assert 0.02 < found[0].mean() < 0.6


@pytest.mark.parametrize("size", [(7, 9), (8, 5), (2, 2), (40, 30)])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("last", [True, False])
def test_images_of_all_sizes_and_layouts(size, channels, last):
    net, x = stack(channels, bias=True), inputs(3, 2, channels, *size)
    expected = trained(net, x.double())
    if last:
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (3, 2))
    agree(trained(net, x), expected)


def test_a_large_mean_takes_nothing_from_the_variance():
    net, x = stack(bias=True), inputs(5, 4, 3, 12, 10)
    with torch.no_grad():
        net[0].bias += 1000
    variance, expected = (trained(net, v)[-2] for v in (x, x.double()))
    torch.testing.assert_close(variance.double(), expected, rtol=1e-3, atol=0)


def test_every_run_gives_the_same_bits():
    net, x = stack(), inputs(5, 4, 3, 12, 10)
    assert all(torch.equal(a, b) for a, b in zip(trained(net, x), trained(net, x), strict=True))


@pytest.mark.parametrize("pool", [True, False])
def test_spikes_are_counted_as_the_modules_spikes_are(pool):
    net, x = stack(pool=pool), inputs(5, 4, 3, 11, 9)
    rates = []
    for values in (x, x.double()):
        with SpikeRate(net.to(values.dtype)) as rate:
            net(values)
        rates.append(rate.mean())
    assert rates[0] == rates[1] > 0


def changed(change) -> int:
    net, x = stack(), inputs(5, 4, 3, 12, 10)
    change(net)
    return fused.length(list(net), x)


def see(*arguments: object) -> None:
    """Be a hook."""


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        (lambda net: None, 4),
        (lambda net: net[0].register_forward_hook(see), 4),
        (lambda net: net[3].register_forward_hook(see), 3),
        (lambda net: setattr(net[3], "kernel_size", 3), 3),
        (lambda net: net[1].register_forward_hook(see), 0),
        (lambda net: net[2].register_forward_hook(see), 0),
        (lambda net: net[2].register_full_backward_hook(see), 0),
        (lambda net: setattr(net[2], "watch", see), 0),
        (lambda net: setattr(net[2], "v_threshold", torch.ones(6, 1, 1)), 0),
        (lambda net: net[1].eval(), 0),
        (lambda net: net[1].double(), 0),
        (lambda net: setattr(net[1], "momentum", None), 0),
        (lambda net: net.__setitem__(1, nn.BatchNorm2d(6, affine=False)), 0),
        (lambda net: net.__setitem__(1, nn.BatchNorm2d(6, track_running_stats=False)), 0),
        (lambda net: net.__setitem__(1, nn.BatchNorm2d(5)), 0),
        (lambda net: net.__setitem__(1, nn.Identity()), 0),
    ],
)
def test_all_else_is_left_to_the_modules(change, taken):
    assert changed(change) == taken


def test_inference_autocast_and_small_inputs_are_left_to_the_modules(monkeypatch):
    net, x = list(stack()), inputs(5, 4, 3, 12, 10)
    with torch.no_grad():
        assert fused.length(net, x) == 0
    with torch.autocast("cpu", torch.bfloat16):
        assert fused.length(net, x) == 0
    monkeypatch.setattr(fused, "SMALLEST", x.numel() + 1)
    assert fused.length(net, x) == 0
