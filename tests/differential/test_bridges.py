"""Networks in other frameworks: equal spikes, and what cannot be expressed is known beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import snn_deploy
from snn_deploy.bridges.crosscheck import crosscheck
from snn_deploy.bridges.peers import NAMES, peer
from snn_deploy.engine.event import EventEngine
from snn_deploy.errors import MissingDependencyError, UnsupportedError, UsageError
from snn_deploy.ir import CubaLIF, Dense
from snn_deploy.passes.pipeline import fold
from tests.builders import KINDS, conv_net, grid, lif, mlp, row, spikes
from tests.property.graphs import networks

#: What each framework has no equation or no field for; everything else must run.
CANNOT = {
    "norse": {"amount", "integrator"},
    "snntorch": {"subtract", "amount", "leak and reset"},
    "spikingjelly": {"amount", "cuba li"},
    "onnx": set(),
    "nir-euler": {"subtract", "amount", "conv dilated", "conv1d", "pools"},
}  # fmt: skip


def test_every_framework_is_looked_at():
    assert set(CANNOT) == set(NAMES)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_each_framework_agrees_or_cannot(name, kind):
    rng = np.random.default_rng(1)
    net = fold(KINDS[kind](rng))
    (result,) = crosscheck(net, spikes(rng, 3, 15, net.input_population.shape), [name])
    if kind in CANNOT[name]:
        assert result.comparison is None
        assert result.reason
        assert result.where in [net.where(p.name) for p in (*net.populations, *net.projections)]
        assert result.hint
        return
    assert result.comparison is not None, result.reason
    assert not any(result.comparison.mismatches.values()), result.comparison.first


@pytest.mark.parametrize("name", NAMES)
def test_random_graphs_agree_over_ten_thousand_spikes(name):
    counts = {"fired": 0, "ran": 0}

    @settings(
        max_examples=150,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(networks(), st.integers(0, 2**32 - 1))
    def agrees(network, seed):
        rng = np.random.default_rng(seed)
        x = {
            n: (rng.random((6, 12, *network.shapes[n])) < 0.5).astype(np.uint8)
            for n in network.inputs
        }
        (result,) = crosscheck(fold(network), x, [name])
        if result.comparison is not None:
            assert not any(result.comparison.mismatches.values()), result.comparison.first
            counts["fired"] += result.spikes
            counts["ran"] += 1

    agrees()
    # The neurons are drawn from all types, so few graphs suit the narrow frameworks whole.
    rng = np.random.default_rng(0)
    for seed in range(4):
        net = fold(conv_net(np.random.default_rng(seed)))
        (result,) = crosscheck(net, spikes(rng, 10, 14, (2, 8, 8), 0.5), [name])
        assert not any(result.comparison.mismatches.values()), result.comparison.first
        counts["fired"] += result.spikes
    assert counts["fired"] > 10_000
    assert counts["ran"] > 10


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_weight_is_found_and_located(name, monkeypatch):
    rng = np.random.default_rng(2)
    net = fold(mlp(rng, 8, 7, 5))
    x = spikes(rng, 6, 20, (8,))
    (first, *rest) = net.projections
    weight = np.array(first.synapses[0].weight)
    weight[3] += 1
    broken = replace(first, synapses=(Dense(weight=weight, bias=first.synapses[0].bias),))
    other = replace(net, projections=(broken, *rest))
    judge = peer(name)
    run = judge.run
    monkeypatch.setattr(type(judge), "run", lambda self, network, x: run(other, x))
    (result,) = crosscheck(net, x, [name])
    found = result.comparison.first
    assert result.comparison.mismatches["spikes"] > 0
    assert (found.population, found.neuron) == ("n1", 3)


def test_what_is_not_installed_says_how_to_install_it(monkeypatch):
    import importlib.metadata

    real = importlib.metadata.version

    def version(name):
        if name in ("snntorch", "spikingjelly"):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    rng = np.random.default_rng(2)
    net = fold(mlp(rng, 8, 5))
    results = {r.name: r for r in crosscheck(net, spikes(rng, 1, 3, (8,)))}
    assert results["snntorch"].hint == "pip install 'snn-deploy[interop]'"
    assert not results["spikingjelly"].installed
    assert results["norse"].comparison is not None
    with pytest.raises(MissingDependencyError, match="snntorch is not installed"):
        peer("snntorch").version()
    with pytest.raises(UsageError, match="no framework is called 'brian'") as caught:
        peer("brian")
    assert "norse" in caught.value.hint


# Modules to train.


@pytest.mark.parametrize("make", [snn_deploy.to_torch, snn_deploy.to_norse])
@pytest.mark.parametrize("kind", ["mlp", "conv", "skip", "recurrent", "delays", "cuba", "if"])
def test_a_module_runs_the_network_and_gives_it_back(make, kind):
    rng = np.random.default_rng(1)
    net = fold(KINDS[kind](rng))
    module = make(net, dtype=torch.float64)
    assert module.to_network() == net
    assert snn_deploy.from_torch(module) == net
    x = spikes(rng, 6, 15, net.input_population.shape, 0.8)
    out = module(torch.from_numpy(x).double().movedim(0, 1))
    expected = EventEngine(net).run(x).output
    assert np.unique(expected).size > 1
    np.testing.assert_array_equal(out.detach().movedim(0, 1).numpy(), expected)


def test_membrane_readouts_and_starts():
    rng = np.random.default_rng(4)
    for kind in ("li", "cuba li", "integrator", "sums"):
        net = fold(KINDS[kind](rng))
        x = spikes(rng, 3, 12, net.input_population.shape)
        out = snn_deploy.to_torch(net, dtype=torch.float64)(torch.from_numpy(x).movedim(0, 1))
        expected = EventEngine(net).run(x).output
        np.testing.assert_allclose(out.detach().movedim(0, 1).numpy(), expected, atol=1e-12)
    net = fold(mlp(rng, 6, 5, neuron=lif(8, v_init=0.375)))
    x = spikes(rng, 3, 12, (6,))
    for make in (snn_deploy.to_torch, snn_deploy.to_norse):
        out = make(net, dtype=torch.float64)(torch.from_numpy(x).movedim(0, 1))
        np.testing.assert_array_equal(out.detach().movedim(0, 1), EventEngine(net).run(x).output)


@pytest.mark.parametrize("make", [snn_deploy.to_torch, snn_deploy.to_norse])
def test_a_module_trains_and_its_pruned_weights_stay_zero(make, tmp_path):
    torch.manual_seed(0)
    rng = np.random.default_rng(5)
    net = mlp(rng, 12, 20, 3, density=0.3)
    module = make(net)
    labels = torch.randint(0, 3, (60,))
    x = (torch.rand(10, 60, 12) < 0.2 + 0.6 * (torch.arange(12) % 3 == labels[:, None])).float()
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-2, weight_decay=1e-3)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(module(x).sum(0), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    trained = module.to_network()
    before, after = fold(net), fold(trained)
    for a, b in zip(before.projections, after.projections, strict=True):
        assert np.array_equal(a.synapses[0].indices, b.synapses[0].indices)
        assert not np.array_equal(a.synapses[0].data, b.synapses[0].data)
    spoken = EventEngine(after).run(x.movedim(0, 1).numpy()).output
    with torch.no_grad():
        np.testing.assert_array_equal(spoken, module.double()(x).movedim(0, 1).numpy())


def test_what_no_module_can_is_refused_with_its_place():
    rng = np.random.default_rng(6)
    with pytest.raises(UnsupportedError, match="subtracts the threshold on reset") as caught:
        snn_deploy.to_norse(KINDS["amount"](rng))
    assert caught.value.where == "n1"
    assert "snn_deploy.to_torch runs it" in caught.value.hint
    cuba = CubaLIF(
        tau_syn_s=2e-3, tau_mem_s=2e-3, r=1.0, v_leak=0.0, v_threshold=1.0, v_reset=0.0, w_in=1.0,
        reset="subtract",
    )  # fmt: skip
    with pytest.raises(UnsupportedError, match="norse's CubaLIF resets to a value only"):
        snn_deploy.to_norse(row((3,), Dense(weight=grid(rng, 2, 3)), cuba))
