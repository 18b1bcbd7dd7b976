"""What training computes with compiled loops, against torch and against sums written out."""

from __future__ import annotations

import platform

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from snn_deploy.tickets import fast_layers, fused, kernels, lif  # noqa: E402
from snn_deploy.tickets.allocator import keep_freed_memory  # noqa: E402
from snn_deploy.tickets.loop import Recipe, training_input  # noqa: E402
from snn_deploy.tickets.models.build import build  # noqa: E402


@pytest.fixture(autouse=True)
def small_enough(monkeypatch):
    """Compile whatever fits, however small."""
    monkeypatch.setattr(fast_layers, "SMALLEST_PRODUCT", 0)
    monkeypatch.setattr(fast_layers, "SMALLEST_POOL", 0)
    monkeypatch.setattr(lif, "SMALLEST_SCAN", 0)
    monkeypatch.setattr(fused, "SMALLEST", 0)


@pytest.fixture
def by_torch(monkeypatch):
    """Return a function after whose call torch computes everything."""

    def switch() -> None:
        monkeypatch.setattr(fast_layers, "apply", lambda layer, value: layer(value))
        monkeypatch.setattr(fused, "length", lambda layers, x: 0)
        monkeypatch.setattr(lif, "compiles", lambda current, constants: False)

    return switch


def spikes(*shape: int, rate: float = 0.15) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(3)) < rate).float()


def normal(*shape: int, seed: int = 4) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(function, x, *parameters):
    x = x.clone().requires_grad_()
    out = function(x)
    return out, *torch.autograd.grad(out, (x, *parameters), normal(*out.shape, seed=5))


def same(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tau_s": 3e-3, "v_reset": 0.3, "v_leak": 0.2, "r": 1.7, "alpha": 3.0},
        {"reset": "subtract"},
        {"reset": "subtract", "reset_amount": 0.8, "v_threshold": 1.1},
    ],
)
@pytest.mark.parametrize("neurons", [7, kernels.TILE + 5])
def test_the_compiled_scan_gives_the_bits_of_torch(by_torch, options, neurons):
    neuron, x = lif.LIF(**options), 2 * normal(6, 2, neurons)
    assert lif.compiles(x, neuron.numbers())
    fast = gradients(neuron, x)
    by_torch()
    assert same(fast, gradients(neuron, x))
    assert 0.02 < fast[0].mean() < 0.6


def test_a_watched_scan_gives_the_gradient_of_torch(by_torch):
    def both(x):
        seen = []
        neuron = lif.LIF()
        neuron.watch = lambda module, z, distance: seen.append(distance)
        return neuron(x) + 0.5 * seen[0].square()

    x = 2 * normal(6, 2, 50)
    fast = gradients(both, x)
    by_torch()
    assert same(fast, gradients(both, x))


def test_a_small_scan_is_compiled_once_another_was(monkeypatch):
    monkeypatch.setattr(lif, "SMALLEST_SCAN", 1 << 60)
    counted = []
    kernel = kernels.kernel
    monkeypatch.setattr(kernels, "kernel", lambda f: counted.append(f) or kernel(f))
    monkeypatch.setattr(kernels, "started", lambda: False)
    small = gradients(lif.LIF(), 2 * normal(6, 2, 7))
    assert counted == []
    monkeypatch.setattr(kernels, "started", lambda: True)
    assert same(small, gradients(lif.LIF(), 2 * normal(6, 2, 7)))
    assert counted == [kernels.scan, kernels.scan_back]


@pytest.mark.parametrize("constant", [torch.ones(50), torch.linspace(0.5, 1.5, 50)])
def test_constants_per_neuron_are_left_to_torch(constant):
    assert not lif.compiles(normal(6, 2, 50), (0.5, constant))
    assert lif.LIF(v_threshold=constant)(2 * normal(6, 2, 50)).sum() > 0


@pytest.mark.parametrize("rows", [5, 300, 500])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_of_spikes_sums_the_weights(rows, bias):
    layer = nn.Linear(400, 33, bias=bias)
    x = spikes(rows, 400)
    fast = gradients(lambda v: fast_layers.apply(layer, v), x, *layer.parameters())
    assert type(fast[0].grad_fn).__name__ == "_GatheredBackward"
    torch.testing.assert_close(fast, gradients(layer, x, *layer.parameters()))


@pytest.mark.parametrize("terms", [100, 193, 300, 384, 500])
def test_sums_are_made_one_term_after_the_other(terms):
    x, matrix = spikes(9, terms, rate=0.5), normal(terms, 16).numpy()
    first, where = kernels.kernel(kernels.events)(x.view(torch.int32).numpy(), x.numel())
    out = np.ones((9, 16), np.float32)
    kernels.kernel(kernels.gathered)(first, where, matrix, out)
    expected = np.ones((9, 16), np.float32)
    for row, line in enumerate(x.numpy()):
        for i in np.flatnonzero(line):
            expected[row] += matrix[i]
    assert np.array_equal(out, expected)


@pytest.mark.parametrize(
    "x", [spikes(20, 400) * 0.5, spikes(20, 400) * 2, -spikes(20, 400), spikes(20, 400, rate=0.4)]
)
def test_other_values_and_many_ones_are_left_to_torch(x):
    layer = nn.Linear(400, 33)
    out = fast_layers.apply(layer, x)
    assert type(out.grad_fn).__name__ == "AddmmBackward0"
    assert torch.equal(out, layer(x))


def test_evaluation_and_observed_layers_are_left_to_torch():
    layer, x, seen = nn.Linear(400, 33), spikes(20, 400), []
    layer.register_forward_hook(lambda *arguments: seen.append(arguments))
    fast_layers.apply(layer, x)
    assert len(seen) == 1
    layer = nn.Linear(400, 33).eval()
    assert type(fast_layers.apply(layer, x).grad_fn).__name__ == "AddmmBackward0"


@pytest.mark.parametrize("size", [(6, 8), (7, 9)])
def test_the_pool_gives_the_bits_of_torch(size):
    layer, x = nn.AvgPool2d(2), normal(4, 3, *size)
    fast = gradients(lambda v: fast_layers.apply(layer, v), x)
    assert type(fast[0].grad_fn).__name__ == "_PoolBackward"
    assert same(fast, gradients(layer, x))


@pytest.mark.parametrize("layer", [nn.AvgPool2d(3), nn.AvgPool2d(2, 1), nn.AvgPool2d(2, padding=1)])
def test_other_pools_are_left_to_torch(layer):
    x = normal(4, 3, 8, 8)
    assert torch.equal(fast_layers.apply(layer, x), layer(x))


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_a_network_trains_to_the_same_numbers(by_torch, arch):
    recipe = Recipe(steps=4, coding="rate", gain=1.0, lr=1e-2, batch_size=8, weight_decay=0.0)
    x = training_input(0.3 * normal(8, 1, 12, 12).abs(), recipe, torch.Generator().manual_seed(0))

    def trained():
        torch.manual_seed(0)
        net = build(arch, (1, 12, 12), 5, hidden=(24, 16))
        net(x).sum(0).square().sum().backward()
        return [p.grad for p in net.parameters()]

    fast = trained()
    by_torch()
    torch.testing.assert_close(fast, trained())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_glibc_keeps_freed_memory():
    assert keep_freed_memory()
