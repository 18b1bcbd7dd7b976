"""What SpikingJelly computes that no node can: each is named, with the reason and a hint."""

from __future__ import annotations

import pytest
import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import nn

import snn_deploy
from snn_deploy.errors import UnsupportedError

ANOTHER_NEURON = "read of spikingjelly: IFNode, LIFNode, "
STATELESS = "put stateless layers alone into it, and the neuron behind it"


def refused(*parts, **how):
    module = nn.Sequential(layer.Linear(4, 4), *parts)
    with pytest.raises(UnsupportedError) as caught:
        snn_deploy.from_spikingjelly(module, torch.zeros(1, 4), dt_s=1e-3, **how)
    return caught.value


CLASSES = {
    "KLIFNode": "a neuron that rectifies its membrane",
    "ILIFNode": "a neuron with several spikes in a step",
    "ComplementaryLIFNode": "a neuron with a second membrane",
    "QIFNode": "a neuron with a membrane that is not linear",
    "EIFNode": "a neuron with a membrane that is not linear",
    "IzhikevichNode": "a neuron with a membrane that is not linear",
    "TernaryIFNode": "a neuron with negative spikes",
    "TernaryLIFNode": "a neuron with negative spikes",
}


@pytest.mark.parametrize("name", CLASSES)
def test_neurons_without_a_node(name):
    error = refused(getattr(neuron, name)())
    assert error.message == f"{name} cannot be deployed: it is {CLASSES[name]}"
    assert error.where == "1"
    assert error.hint.startswith(ANOTHER_NEURON)


def test_a_neuron_with_parameters_per_step():
    error = refused(neuron.GatedLIFNode(T=4))
    assert "a neuron with a parameter per time step" in error.message


def test_layers_that_are_no_layers():
    error = refused(neuron.IFNode(), layer.VotingLayer(2))
    assert error.message == "VotingLayer cannot be deployed: it is a readout"
    assert error.hint == 'leave it out, and pass readout={"kind": "vote", "groups": CLASSES}'
    error = refused(layer.SynapseFilter(), neuron.IFNode())
    assert error.message == "SynapseFilter cannot be deployed: it is a current with a state"
    assert error.hint == "use CUBALIFNode for the neuron behind it"


@pytest.mark.parametrize(
    "container",
    [
        lambda *parts: layer.SeqToANNContainer(*parts),
        lambda *parts: layer.StepModeContainer(False, "m", *parts),
    ],
)
def test_neurons_that_see_every_step_as_a_sample(container):
    made = container(nn.Linear(4, 4), neuron.IFNode())
    error = refused(made)
    assert error.message == (
        f"{type(made).__name__} shows IFNode every step as a sample of its own, so that it keeps "
        "no state"
    )
    assert error.where == "1.1"
    assert error.hint == STATELESS


def test_a_container_that_keeps_state_is_read():
    module = layer.StepModeContainer(True, "m", nn.Linear(4, 4), neuron.IFNode())
    net = snn_deploy.from_spikingjelly(module, torch.zeros(1, 4), dt_s=1e-3)
    assert net.outputs == ("1",)


def test_outputs_that_are_no_spikes():
    error = refused(neuron.IFNode(surrogate_function=surrogate.Sigmoid(spiking=False)))
    assert error.message == "IFNode's surrogate_function gives other values than spikes"
    assert error.used == "Sigmoid"
    assert error.hint == "call surrogate_function.set_spiking_mode(True), and train it so"
    late = neuron.LIFNode(surrogate_function=lambda x: (x > 0).to(x))
    assert "other values than spikes" in refused(late).message
    by_chance = neuron.IFNode(surrogate_function=surrogate.PoissonPass())
    assert refused(by_chance).used == "PoissonPass"


def test_sums_with_bounds_are_not_sums():
    def bounded(a, b):
        return (a + b).clamp(0, 2)

    error = refused(layer.ElementWiseRecurrentContainer(neuron.IFNode(), bounded))
    assert error.message == "ElementWiseRecurrentContainer with another function than addition"
    assert error.hint == "use element_wise_function=lambda x, y: x + y"


def test_decays_of_1_and_resets_that_fail():
    error = refused(neuron.CUBALIFNode(v_decay=1.0))
    assert error.message == "c_decay and v_decay must lie in [0, 1)"
    assert (error.used, error.hint) == ("0.5 and 1", "give decays below 1")
    error = refused(neuron.SimpleLIFNode(2.0, True, v_reset=None))
    assert error.message == "SimpleLIFNode computes with v_reset and cannot do without"
    assert error.hint == "use LIFNode"


@pytest.mark.parametrize("kind", [neuron.NonSpikingIFNode, neuron.NonSpikingLIFNode])
def test_membranes_decoded_inside(kind):
    spikes = neuron.IFNode(step_mode="m")
    error = refused(spikes, kind(decode="max-mem"), readout="max")
    assert error.message == f"{kind.__name__} with decode='max-mem' returns no value per step"
    assert error.hint == 'use decode=None, and pass readout="last", "max" or "mean"'
