"""What cannot be read from other frameworks' modules is named, with the reason and a hint."""

from __future__ import annotations

import importlib.util

import norse.torch as norse
import pytest
import snntorch as snn
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

import snn_deploy
from snn_deploy.errors import InputError, UnsupportedError, UsageError
from tests.requirements import require_tool


def refused(read, cell, kind=UnsupportedError, whole=False, **how):
    module = cell if whole else nn.Sequential(nn.Linear(4, 4), cell)
    with pytest.raises(kind) as caught:
        read(module, torch.zeros(1, 4), **how)
    assert caught.value.hint
    return caught.value


def test_a_step_must_be_given_where_the_framework_knows_none():
    for read, cell in (
        (snn_deploy.from_snntorch, snn.Leaky(beta=0.5, init_hidden=True)),
        (snn_deploy.from_spikingjelly, neuron.IFNode()),
    ):
        error = refused(read, cell, UsageError, dt_s=None)
        assert "count in steps" in error.message
        assert error.hint == "pass dt_s=SECONDS (in the command line: --dt SECONDS)"
        assert error.where == "1"


def test_another_step_than_norses_is_an_error():
    error = refused(snn_deploy.from_norse, norse.LIFBoxCell(dt=1e-3), InputError, dt_s=2e-3)
    assert "differs from the step that the neurons were trained with" in error.message


def test_a_reader_takes_its_own_framework():
    error = refused(snn_deploy.from_norse, neuron.IFNode(), dt_s=1e-3)
    assert error.message == "the module holds neurons of spikingjelly"
    assert error.hint == "call snn_deploy.from_spikingjelly"


HIDDEN = {"init_hidden": True}
SNNTORCH = {
    "inhibition": (lambda: snn.Leaky(beta=0.5, inhibition=True, **HIDDEN), "with inhibition"),
    "state_quant": (lambda: snn.Leaky(beta=0.5, state_quant=lambda x: x, **HIDDEN), "state_quant"),
    "immediate subtract": (
        lambda: snn.Leaky(beta=0.5, reset_delay=False, **HIDDEN),
        "subtracts the threshold a second time",
    ),
    "zero in Synaptic": (
        lambda: snn.Synaptic(alpha=0.5, beta=0.5, reset_mechanism="zero", **HIDDEN),
        "Synaptic with reset_mechanism='zero' also drops the input",
    ),
    "zero in RLeaky": (
        lambda: snn.RLeaky(beta=0.5, linear_features=4, reset_mechanism="zero", **HIDDEN),
        "RLeaky with reset_mechanism='zero' also drops the input",
    ),
    "beta 0": (lambda: snn.Leaky(beta=0.0, **HIDDEN), "a spike inhibits the next step"),
    "some beta 1": (
        lambda: snn.Leaky(beta=torch.tensor([0.5, 1, 1, 1]), **HIDDEN),
        "beta is 1 for some neurons only",
    ),
    "alpha 1": (lambda: snn.Synaptic(alpha=1.0, beta=0.5, **HIDDEN), "alpha is 1 and its state"),
    "Alpha": (lambda: snn.Alpha(alpha=0.9, beta=0.8, **HIDDEN), "Alpha cannot be deployed"),
}


@pytest.mark.filterwarnings("ignore:Inhibition is an unstable")
@pytest.mark.parametrize("case", SNNTORCH)
def test_snntorch(case):
    make, message = SNNTORCH[case]
    error = refused(snn_deploy.from_snntorch, make(), dt_s=1e-3)
    assert message in error.message
    assert error.where == "1"


SPIKINGJELLY = {
    "tebn": (
        lambda: layer.TemporalEffectiveBatchNorm1d(4, 4),
        "it is a batch norm with a weight per time step",
    ),
    "bntt": (
        lambda: layer.BatchNormThroughTime1d(4, 4),
        "it is a batch norm with statistics per time step",
    ),
    "psn": (lambda: neuron.PSN(T=4), "it is a neuron that mixes time steps by a matrix"),
    "eif": (lambda: neuron.EIFNode(), "EIFNode cannot be deployed"),
    "other function": (
        lambda: layer.ElementWiseRecurrentContainer(neuron.IFNode(), lambda a, b: a * b),
        "another function than addition",
    ),
    "no neuron inside": (
        lambda: layer.ElementWiseRecurrentContainer(nn.Linear(4, 4), lambda a, b: a + b),
        "ElementWiseRecurrentContainer around Linear",
    ),
}


@pytest.mark.parametrize("case", SPIKINGJELLY)
def test_spikingjelly(case):
    make, message = SPIKINGJELLY[case]
    error = refused(snn_deploy.from_spikingjelly, make(), dt_s=1e-3)
    assert message in error.message
    assert error.where.startswith("1")


def test_spikingjelly_dropout_in_training_mode():
    module = nn.Sequential(layer.Linear(4, 4), layer.Dropout(0.5), neuron.IFNode())
    error = refused(snn_deploy.from_spikingjelly, module, whole=True, dt_s=1e-3)
    assert "its dropout is active" in error.message


def test_spike_addition_is_refused():
    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.one = layer.Linear(4, 4), neuron.IFNode()
            self.fc2, self.two = layer.Linear(4, 4), neuron.IFNode()
            self.fc3, self.out = layer.Linear(4, 4), neuron.IFNode()

        def forward(self, x):
            a = self.one(self.fc1(x))
            return self.out(self.fc3(a + self.two(self.fc2(a))))

    error = refused(snn_deploy.from_spikingjelly, Added(), whole=True, dt_s=1e-3)
    assert "reads a sum of spikes" in error.message
    assert "spike-element-wise addition" in error.hint


def test_two_step_modes_in_one_network():
    module = nn.Sequential(layer.Linear(4, 4), neuron.IFNode(), neuron.IFNode(step_mode="m"))
    error = refused(snn_deploy.from_spikingjelly, module, whole=True, dt_s=1e-3)
    assert error.message == "some neurons take one step and some all steps at once"
    assert error.where == "1 and 2"


def test_a_class_of_ones_own_that_derives_from_a_frameworks():
    class Mine(snn.Leaky):
        pass

    error = refused(snn_deploy.from_snntorch, Mine(beta=0.5, init_hidden=True), dt_s=1e-3)
    assert error.message == "Mine cannot be deployed"
    assert "it derives from Leaky and may compute something else" in error.hint


def test_norses_other_cells():
    error = refused(snn_deploy.from_norse, norse.LIFAdExCell())
    assert error.message == "LIFAdExCell cannot be deployed"
    assert "read of norse: LIFBoxCell, LIFCell" in error.hint
    p = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(-5.0))
    assert (
        "tau_mem_inv must be positive"
        in refused(snn_deploy.from_norse, norse.LIFBoxCell(p), InputError).message
    )


def test_sinabs():
    require_tool("sinabs", importlib.util.find_spec("sinabs") is not None, "pip install sinabs")
    import sinabs.activation as activation
    import sinabs.layers as layers

    once = {"spike_fn": activation.SingleSpike}
    with_bias = nn.Linear(4, 4)
    for make, message in (
        (lambda: layers.IAF(), "IAF may fire several spikes in a step"),
        (lambda: layers.IAF(min_v_mem=-1.0, **once), "with min_v_mem"),
        (lambda: layers.IAF(reset_fn=activation.MembraneReset(0.5), **once), "other than 0"),
        (lambda: layers.IAF(tau_syn=2.0, **once), "in front of a membrane without leak"),
        (
            lambda: layers.LIFRecurrent(tau_mem=2.0, rec_connect=with_bias, **once),
            "acts from the second step on",
        ),
        (
            lambda: layers.LIFRecurrent(tau_mem=2.0, rec_connect=nn.ReLU(), **once),
            "rec_connect is ReLU",
        ),
        (lambda: layers.ALIF(tau_mem=2.0, tau_adapt=3.0), "ALIF cannot be deployed"),
    ):
        error = refused(snn_deploy.from_sinabs, make(), dt_s=1e-3)
        assert message in error.message


def test_states_at_rest_are_taken_and_others_are_not():
    class Net(nn.Module):
        def __init__(self, start):
            super().__init__()
            self.fc, self.lif, self.start = nn.Linear(4, 4), snn.Leaky(beta=0.5), start

        def forward(self, x):
            mem = self.lif.init_leaky() if self.start is None else self.start
            spikes, mem = self.lif(self.fc(x), mem)
            return spikes, mem

    net = snn_deploy.from_snntorch(Net(None), torch.zeros(1, 4), dt_s=1e-3)
    assert net.outputs == ("lif",)
    error = refused(snn_deploy.from_snntorch, Net(torch.ones(4)), whole=True, dt_s=1e-3)
    assert "is given a state" in error.message


def test_pairs_that_nn_sequential_passes_on():
    module = nn.Sequential(nn.Linear(4, 4), snn.Leaky(beta=0.5), nn.Linear(4, 4))
    error = refused(snn_deploy.from_snntorch, module, whole=True, dt_s=1e-3)
    assert "gets a pair (spikes, state)" in error.message
    assert "snnTorch: init_hidden=True" in error.hint


def test_an_example_is_needed_for_a_module_of_ones_own():
    with pytest.raises(UsageError, match="shape of one input sample") as caught:
        snn_deploy.from_torch(nn.Linear(2, 2))
    assert "pass example_input" in caught.value.hint
