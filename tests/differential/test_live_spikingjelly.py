"""Every SpikingJelly neuron that has a node, on weights that make ties at the threshold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.model import parametric_lif_net
from torch import nn

import snn_deploy
from snn_deploy.engine.event import EventEngine
from tests.differential import frameworks as fw
from tests.differential.test_live_models import engine_spikes, mismatches

DT_S = 2e-3
CELLS = {
    "IFNode": lambda reset: neuron.IFNode(v_threshold=0.75, v_reset=reset),
    "LIFNode": lambda reset: neuron.LIFNode(v_threshold=0.75, v_reset=reset),
    "LIFNode whole input": lambda reset: neuron.LIFNode(
        tau=4 / 3, decay_input=False, v_reset=reset
    ),
    "ParametricLIFNode": lambda reset: neuron.ParametricLIFNode(init_tau=2.0, v_reset=reset),
    "ParametricLIFNode whole input": lambda reset: neuron.ParametricLIFNode(
        init_tau=2.0, decay_input=False, v_reset=reset
    ),
    "CUBALIFNode": lambda reset: neuron.CUBALIFNode(v_reset=reset),
    "SimpleIFNode": lambda reset: neuron.SimpleIFNode(v_reset=reset),
    "SLTTLIFNode": lambda reset: neuron.SLTTLIFNode(v_reset=reset),
    "OTTTLIFNode": lambda reset: neuron.OTTTLIFNode(v_reset=reset),
}
CASES = [(name, reset) for name in CELLS for reset in (None, 0.0, -0.25)]
CELLS["HalfThresholdIFNode"] = lambda reset: neuron.HalfThresholdIFNode(v_threshold=1.5)
CELLS["SimpleLIFNode"] = lambda reset: neuron.SimpleLIFNode(4 / 3, True, 0.75, reset)
CELLS["SimpleLIFNode whole input"] = lambda reset: neuron.SimpleLIFNode(2.0, False, v_reset=reset)
CASES += [("HalfThresholdIFNode", None), ("SimpleLIFNode", -0.25)]
CASES += [("SimpleLIFNode whole input", 0.0), ("SimpleLIFNode whole input", 0.25)]


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(("name", "reset"), CASES)
def test_each_neuron_with_ties_at_the_threshold(name, reset, double, tmp_path):
    cell = CELLS[name](reset)
    module = nn.Sequential(fw.grid_layer(kind=layer.Linear), cell).eval()
    module.double() if double else module.float()
    x = fw.spikes_of(torch.full((10, 8), 0.4), 12, 5)
    model = fw.Model(module, snn_deploy.from_spikingjelly, fw.run_spikingjelly, ("1",), DT_S)
    net = model.read(module, x[0], dt_s=DT_S)
    ours = engine_spikes(net, x, tmp_path)
    fired, wrong = mismatches(model, x.to(module[0].weight.dtype), ours)
    assert fired > 1_000
    assert wrong == 0
    assert fw.changed_by_ties(net, "1", x, ours["1"]) > 5


@pytest.mark.parametrize("double", [False, True])
def test_thresholds_are_the_numbers_that_the_module_computes_with(double):
    """0.7 in float32 is less than 0.7: an input that equals it fires in a float32 module."""
    dtype = torch.float64 if double else torch.float32
    module = nn.Sequential(layer.Linear(2, 2, bias=False), neuron.IFNode(v_threshold=0.7))
    module.to(dtype)
    at, below = torch.tensor(0.7, dtype=dtype), torch.tensor(np.nextafter(np.float32(0.7), 0.0))
    with torch.no_grad():
        module[0].weight.copy_(torch.diag(torch.stack([at, below.to(dtype)])))
    x = torch.ones(1, 2, dtype=dtype)
    net = snn_deploy.from_spikingjelly(module, x, dt_s=DT_S)
    ours = EventEngine(snn_deploy.fold(net)).run(np.ones((1, 1, 2)), "spikes").spikes["1"]
    with torch.no_grad():
        assert module(x).tolist() == ours[:, 0].tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("name", ["CUBALIFNode", "HalfThresholdIFNode", "SimpleLIFNode"])
def test_all_steps_at_once(name, tmp_path):
    module = nn.Sequential(
        fw.grid_layer(kind=layer.Linear),
        CELLS[name](-0.25),
        fw.grid_layer(40, 6, 1, layer.Linear),
        neuron.IFNode(),
    )
    functional.set_step_mode(module, "m")
    x = fw.spikes_of(torch.full((10, 8), 0.4), 12, 6)
    run = fw.run_spikingjelly_over_time
    model = fw.Model(module.eval(), snn_deploy.from_spikingjelly, run, ("1", "3"), DT_S)
    fired, wrong = mismatches(
        model, x, engine_spikes(model.read(module, x[0], dt_s=DT_S), x, tmp_path)
    )
    assert fired > 1_000
    assert wrong == 0


@pytest.mark.parametrize("last", [neuron.NonSpikingIFNode(), neuron.NonSpikingLIFNode(tau=4 / 3)])
def test_neurons_that_return_their_membrane(last):
    module = nn.Sequential(
        fw.grid_layer(kind=layer.Linear),
        neuron.IFNode(),
        fw.grid_layer(40, 6, 1, layer.Linear),
        last,
    )
    functional.set_step_mode(module, "m")
    x = fw.spikes_of(torch.full((10, 8), 0.4), 12, 6)
    with torch.no_grad():
        theirs = torch.stack(fw.run_spikingjelly_over_time(module, x))
    net = snn_deploy.from_spikingjelly(module, x[0], dt_s=DT_S, readout="last")
    ours = EventEngine(snn_deploy.fold(net)).run(x.movedim(0, 1).numpy(), "states")
    np.testing.assert_allclose(
        ours.states["3"]["v"], theirs.movedim(0, 1).numpy(), rtol=1e-6, atol=1e-6
    )
    assert float(theirs.abs().max()) > 1


def test_a_model_of_its_zoo(tmp_path):
    """SpikingJelly's own MNIST network is followed into; its voting layer is our readout."""
    torch.manual_seed(0)
    module = parametric_lif_net.MNISTNet(
        channels=2, spiking_neuron=neuron.ParametricLIFNode, v_threshold=0.25
    )
    module.conv_fc[-1] = nn.Identity()
    x = fw.spikes_of(torch.full((3, 1, 28, 28), 0.5), 6, 5)
    module.train()
    with torch.no_grad():  # statistics for the batch norms
        fw.run_spikingjelly(module, x)
    module.eval().double()
    names = tuple(n for n, m in module.named_modules() if isinstance(m, neuron.BaseNode))
    model = fw.Model(module, snn_deploy.from_spikingjelly, fw.run_spikingjelly, names, DT_S)
    net = model.read(module, x[0], dt_s=DT_S, readout={"kind": "vote", "groups": 10})
    fired, wrong = mismatches(model, x.double(), engine_spikes(net, x, tmp_path))
    assert len(names) == 4
    assert fired > 1_000
    assert wrong == 0
