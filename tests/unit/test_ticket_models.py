"""The networks that train offers: recurrent populations, and convolutions of any size."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import snn_deploy  # noqa: E402
from snn_deploy.engine.event import EventEngine  # noqa: E402
from snn_deploy.errors import UnsupportedError, UsageError  # noqa: E402
from snn_deploy.tickets import pruning  # noqa: E402
from snn_deploy.tickets.lif import LIF  # noqa: E402
from snn_deploy.tickets.models.build import build  # noqa: E402
from snn_deploy.tickets.recurrent import RecurrentLIF  # noqa: E402
from snn_deploy.tickets.sparsify.base import Masked  # noqa: E402


def test_equals_the_equation_written_out():
    torch.manual_seed(0)
    module = RecurrentLIF(20, tau_s=4.0, dt_s=1.0, v_threshold=0.3).double()
    x = torch.rand(15, 3, 20, dtype=torch.float64)
    v, z, spikes = torch.zeros(3, 20), torch.zeros(3, 20, dtype=torch.float64), []
    for current in x:
        v = 0.75 * v + 0.25 * (current + z @ module.recurrent.weight.T)
        z = (v > 0.3).double()
        v = v * (1 - z)
        spikes.append(z)
    found = module(x)
    assert torch.equal(found, torch.stack(spikes))
    assert 0.02 < found.mean() < 0.6
    # The spikes that came back changed what fired.
    assert not torch.equal(found, LIF(tau_s=4.0, dt_s=1.0, v_threshold=0.3)(x))


def test_gradients_flow_back_in_time_through_the_recurrent_weights():
    torch.manual_seed(0)
    module = RecurrentLIF(6)
    x = torch.rand(5, 2, 6, requires_grad=True)
    module(3 * x)[-1].sum().backward()
    assert module.recurrent.weight.grad.abs().sum() > 0
    alone = RecurrentLIF(6)
    nn.init.zeros_(alone.recurrent.weight)
    assert torch.equal(alone(3 * x), LIF()(3 * x))


def test_becomes_a_population_that_feeds_itself_one_step_later():
    net = snn_deploy.from_torch(build("recurrent", (9,), 4, hidden=(7, 5)), torch.zeros(1, 9))
    loops = [p for p in net.projections if p.pre == p.post]
    assert [(p.pre, p.synapses[0].weight.shape) for p in loops] == [
        ("lif1", (7, 7)),
        ("lif2", (5, 5)),
    ]


def test_recurrent_weights_are_pruned_like_the_others():
    model = build("recurrent", (9,), 4, hidden=(7,))
    weights = pruning.prunable(model)
    assert set(weights) == {"fc1.weight", "lif1.recurrent.weight", "fc2.weight"}
    masks = pruning.global_magnitude(weights, 0.5)
    Masked(model, masks)
    kept = np.count_nonzero(model.lif1.recurrent.weight.detach().numpy())
    assert 0 < kept == int(masks["lif1.recurrent.weight"].sum()) < 49


class Own(LIF):
    """A neuron of a user's that leads its spikes back through some layer."""

    def __init__(self, layer):
        super().__init__()
        self.back = layer

    def ticket_node(self):
        return {**super().ticket_node(), "recurrent": "back"}


def test_a_neuron_of_ones_own_names_the_layer_that_leads_back():
    net = snn_deploy.from_torch(
        nn.Sequential(nn.Conv2d(1, 2, 3), Own(nn.Conv2d(2, 2, 3, padding=1))),
        torch.zeros(1, 1, 6, 6),
    )
    (loop,) = (p for p in net.projections if p.pre == p.post)
    assert loop.synapses[0].weight.shape == (2, 2, 3, 3)
    with pytest.raises(UnsupportedError, match="BatchNorm1d leads the spikes of Own back") as e:
        snn_deploy.from_torch(
            nn.Sequential(nn.Linear(3, 4), Own(nn.BatchNorm1d(4))), torch.zeros(1, 3)
        )
    assert e.value.where == "1.back"
    assert "nn.Linear" in e.value.hint


@pytest.mark.parametrize("shape", [(64,), (1, 3, 8), (1, 8, 2)])
def test_samples_that_no_conv_net_takes(shape):
    with pytest.raises(UsageError, match="H and W of 4 or more") as caught:
        build("conv", shape, 10)
    assert str(shape) in caught.value.used
    assert "--arch mlp" in caught.value.hint


def test_pools_leave_out_an_odd_row_and_column():
    torch.manual_seed(0)
    model = build("conv", (2, 34, 30), 10, hidden=(3, 5), v_threshold=0.1)
    assert model.fc.in_features == 5 * 8 * 7
    x = (torch.rand(6, 4, 2, 34, 30, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    with torch.no_grad():
        for _ in range(20):  # gives the batch norms statistics of their own
            model(x)
        net = snn_deploy.fold(snn_deploy.from_torch(model.eval(), torch.zeros(1, 2, 34, 30)))
        found = model.double()(x.double()).movedim(0, 1).numpy()
    assert 0.02 < found.mean() < 0.98
    spikes = EventEngine(net).run(x.movedim(0, 1).numpy(), "spikes").spikes["lif3"]
    assert np.array_equal(spikes, found)
