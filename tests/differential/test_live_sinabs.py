"""sinabs' layers in their single-spike mode, on weights that make ties at the threshold."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

import snn_deploy
from snn_deploy.engine.event import EventEngine
from tests.differential import frameworks as fw
from tests.differential.test_live_models import engine_spikes, mismatches, run_squeezed
from tests.requirements import require_tool

DT_S = 2e-3


@pytest.fixture(autouse=True)
def sinabs():
    found = importlib.util.find_spec("sinabs") is not None
    require_tool("sinabs", found, "run: pip install --no-deps sinabs pbr")


def neuron(name, reset):
    import sinabs.activation as activation
    import sinabs.layers as layers

    resets = {
        "value": activation.MembraneReset(),
        "subtract": activation.MembraneSubtract(),
        "another amount": activation.MembraneSubtract(0.5),
    }
    how = {"spike_fn": activation.SingleSpike, "reset_fn": resets[reset]}
    half = torch.tensor(-1 / np.log(0.5))  # alpha = 0.5
    back = nn.Linear(40, 40, bias=False)
    with torch.no_grad():
        back.weight.copy_(fw.grid_layer(40, 40, 1).weight / 4)
    return {
        "IAF": lambda: layers.IAF(**how),
        "IAFSqueeze": lambda: layers.IAFSqueeze(batch_size=10, **how),
        "LIF": lambda: layers.LIF(half, spike_threshold=torch.tensor(0.5), **how),
        "LIF whole input": lambda: layers.LIF(half, norm_input=False, **how),
        "LIF of alphas": lambda: layers.LIF(
            half, train_alphas=True, norm_input=False,
            spike_threshold=torch.linspace(1, 2, 5).repeat(8), **how,
        ),
        "LIF with a current": lambda: layers.LIF(half, half, norm_input=False, **how),
        "LIFSqueeze": lambda: layers.LIFSqueeze(
            tau_mem=half, batch_size=10, norm_input=False, **how
        ),
        "IAFRecurrent": lambda: layers.IAFRecurrent(back, **how),
        "LIFRecurrent": lambda: layers.LIFRecurrent(half, back, norm_input=False, **how),
    }[name]()  # fmt: skip


NAMES = (
    "IAF", "IAFSqueeze", "LIF", "LIF whole input", "LIF of alphas", "LIF with a current",
    "LIFSqueeze", "IAFRecurrent", "LIFRecurrent",
)  # fmt: skip


@pytest.mark.parametrize("reset", ["value", "subtract", "another amount"])
@pytest.mark.parametrize("name", NAMES)
def test_each_layer_with_ties_at_the_threshold(name, reset, tmp_path):
    module = nn.Sequential(fw.grid_layer(), neuron(name, reset)).eval()
    x = fw.spikes_of(torch.full((10, 8), 0.4), 12, 5)
    run = run_squeezed if "Squeeze" in name else fw.run_sinabs
    model = fw.Model(module, snn_deploy.from_sinabs, run, ("1",), DT_S)
    net = model.read(module, x[0], dt_s=DT_S)
    ours = engine_spikes(net, x, tmp_path)
    fired, wrong = mismatches(model, x, ours)
    assert fired > 1_000
    assert wrong == 0
    assert fw.changed_by_ties(net, "1", x, ours["1"]) > 5


@pytest.mark.parametrize(("tau", "norm_input"), [(3.0, False), (3.0, True), (float("inf"), False)])
def test_leaks_that_return_their_membrane(tau, norm_input):
    import sinabs.layers as layers

    last = layers.ExpLeak(tau, norm_input=norm_input)
    module = nn.Sequential(fw.grid_layer(), neuron("IAF", "value"), fw.grid_layer(40, 6, 1), last)
    x = fw.spikes_of(torch.full((10, 8), 0.4), 12, 6)
    with torch.no_grad():
        theirs = fw.run_sinabs(module, x).movedim(0, 1).numpy()
    net = snn_deploy.from_sinabs(module, x[0], dt_s=DT_S, readout="last")
    ours = EventEngine(snn_deploy.fold(net)).run(x.movedim(0, 1).numpy(), "states")
    np.testing.assert_allclose(ours.states["3"]["v"], theirs, rtol=1e-5, atol=1e-5)
    assert float(np.abs(theirs).max()) > 1


def test_layers_repeated_over_time(tmp_path):
    import sinabs.layers as layers

    torch.manual_seed(0)
    module = nn.Sequential(
        layers.Repeat(nn.Sequential(nn.Conv2d(2, 4, 3), nn.AvgPool2d(2))),
        neuron("IAF", "subtract"), nn.Flatten(2), nn.Linear(16, 5), neuron("LIF", "value"),
    ).eval().double()  # fmt: skip
    with torch.no_grad():
        for parameter in (module[0].module[0].weight, module[3].weight):
            parameter *= 4
    x = fw.spikes_of(torch.full((10, 2, 6, 6), 0.5), 12, 5)
    model = fw.Model(module, snn_deploy.from_sinabs, fw.run_sinabs, ("1", "4"), DT_S)
    fired, wrong = mismatches(
        model, x.double(), engine_spikes(model.read(module, x[0], dt_s=DT_S), x, tmp_path)
    )
    assert fired > 200
    assert wrong == 0


def test_a_converted_network(tmp_path):
    """What from_model makes of a dense network is read as the Network it is."""
    import sinabs.activation as activation
    from sinabs.from_torch import from_model

    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 6), nn.ReLU())
    with torch.no_grad():
        for part in (dense[0], dense[2]):
            part.weight *= 4
    module = from_model(
        dense, input_shape=(8,), batch_size=10, spike_fn=activation.SingleSpike, min_v_mem=None
    ).double()
    names = ("spiking_model.1", "spiking_model.3")
    x = fw.spikes_of(torch.full((10, 8), 0.5), 12, 5)
    model = fw.Model(module, snn_deploy.from_sinabs, run_squeezed, names, DT_S)
    net = model.read(module, x[0], dt_s=DT_S)
    fired, wrong = mismatches(model, x.double(), engine_spikes(net, x, tmp_path))
    assert fired > 500
    assert wrong == 0
