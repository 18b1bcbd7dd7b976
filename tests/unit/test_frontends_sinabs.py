"""What sinabs computes that no node can: each is named, with the reason and a hint."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

import snn_deploy
from snn_deploy.errors import UnsupportedError
from tests.requirements import require_tool


@pytest.fixture
def layers():
    found = importlib.util.find_spec("sinabs") is not None
    require_tool("sinabs", found, "run: pip install --no-deps sinabs pbr")
    import sinabs.layers

    return sinabs.layers


def once():
    from sinabs.activation import SingleSpike

    return {"spike_fn": SingleSpike}


def refused(*parts, shape=(4,)):
    with pytest.raises(UnsupportedError) as caught:
        snn_deploy.from_sinabs(nn.Sequential(*parts), torch.zeros(1, *shape), dt_s=1e-3)
    return caught.value


def test_inputs_multiplied_by_0(layers):
    error = refused(nn.Linear(4, 4), layers.LIF(tau_mem=float("inf"), **once()))
    assert "norm_input multiplies its input by 0" in error.message
    assert error.where == "1"
    assert error.hint == "use IAF, norm_input=False or a shorter tau_mem"


def test_lower_bounds_of_the_membrane(layers):
    error = refused(nn.Linear(4, 4), layers.IAF(min_v_mem=-1.0, **once()))
    assert error.message == "IAF with min_v_mem cannot be deployed"
    assert error.used == "-1"
    assert error.hint == "build it with min_v_mem=None (from_model sets -1 unless told)"


def test_thresholds_that_adapt(layers):
    error = refused(nn.Linear(4, 4), layers.ALIF(tau_mem=2.0, tau_adapt=3.0))
    assert error.message == "ALIF cannot be deployed: it is a neuron whose threshold adapts"
    assert error.hint.startswith("read of sinabs: LIF, LIFSqueeze, ")


def test_axes_of_time_that_come_and_go(layers):
    error = refused(layers.FlattenTime(), nn.Linear(4, 4), layers.UnflattenTime(1))
    assert "FlattenTime cannot be deployed: it is a change of axes" in error.message
    assert error.hint == ("use Repeat around stateless layers, or the Squeeze forms of the neurons")
    error = refused(layers.Repeat(nn.Sequential(nn.Linear(4, 4), layers.IAF(**once()))))
    assert error.message == (
        "Repeat shows IAF every step as a sample of its own, so that it keeps no state"
    )
    assert error.where == "0.module.1"
    assert error.hint == "put stateless layers alone into it, and the neuron behind it"


def test_squeezed_neurons_find_the_steps_again(layers):
    inner = nn.Sequential(nn.Linear(4, 4), layers.IAFSqueeze(batch_size=1, **once()))
    net = snn_deploy.from_sinabs(layers.Repeat(inner), torch.zeros(1, 4), dt_s=1e-3)
    assert net.outputs == ("module.1",)
