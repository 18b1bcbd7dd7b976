"""Trained models of each framework, through ticket and NIR, against their own forward pass."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import snn_deploy
from snn_deploy.engine.event import EventEngine
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.io.nir_read import read_nir
from snn_deploy.io.nir_write import nir_bytes
from tests.differential import frameworks as fw
from tests.requirements import require_tool


def need(framework):
    if framework == "sinabs":
        found = importlib.util.find_spec("sinabs") is not None
        require_tool("sinabs", found, "run: pip install --no-deps sinabs pbr")


def engine_spikes(net, x, tmp_path):
    """Return population -> spikes (batch, steps, ...), after a trip through a NIR file."""
    path = tmp_path / "net.nir"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SnnDeployWarning)
        path.write_bytes(nir_bytes(snn_deploy.fold(net)))
    again = snn_deploy.fold(read_nir(path))
    return EventEngine(again).run(x.movedim(0, 1).numpy(), "spikes").spikes


def mismatches(model, x, ours):
    """Return (spikes that the framework fired, spikes that differ), all populations together."""
    fired = wrong = 0
    for name, theirs in fw.record(model, x).items():
        mine = ours[name].reshape(theirs.shape)
        fired += int(np.count_nonzero(theirs))
        wrong += int(np.count_nonzero((theirs != 0) != (mine != 0)))
    return fired, wrong


@pytest.mark.parametrize("reset", ["value", "subtract"])
@pytest.mark.parametrize("framework", fw.MLPS)
def test_a_trained_model_makes_the_round_trip(framework, reset, tmp_path):
    need(framework)
    torch.manual_seed(1)
    model = fw.MLPS[framework](reset)
    assert fw.train(model) > 0.6
    images, _ = fw.digits()
    x = fw.spikes_of(images[:150], 20, 99)
    ticket = tmp_path / "model.pt"
    snn_deploy.save_ticket(model.module, ticket, example_input=x[0], dt_s=model.dt_s)
    from_ticket = snn_deploy.load_model(ticket)
    live = model.read(model.module, x[0], dt_s=model.dt_s)
    assert live == from_ticket
    assert live.dt_s != 1e-3
    for double in (False, True):
        if double:
            model.module.double()
        values = x.to(torch.float64 if double else torch.float32)
        fired, wrong = mismatches(model, values, engine_spikes(from_ticket, x, tmp_path))
        assert fired > 5_000
        assert wrong == 0


# ------------------------------------------------------------------ other cells, untrained


def norse_cells():
    import norse.torch as norse

    p = norse.LIFParameters(
        tau_syn_inv=torch.tensor(1 / 4e-3),
        tau_mem_inv=torch.tensor(1 / 5e-3),
        v_th=torch.tensor(0.4),
        v_leak=torch.tensor(0.125),
        v_reset=torch.tensor(-0.25),
    )
    each = p._replace(tau_mem_inv=torch.linspace(80, 300, 12), v_th=torch.linspace(0.2, 0.6, 12))
    fire = norse.IAFParameters(v_th=torch.tensor(0.8), v_reset=torch.tensor(-0.25))
    yield "recurrent", norse.SequentialState(
        norse.LIFRecurrentCell(8, 12, p, dt=2e-3), nn.Linear(12, 12), norse.LIFCell(each, dt=2e-3),
        nn.Linear(12, 6), norse.IAFCell(fire, dt=2e-3),
    ), ("0", "2", "4"), (8,)  # fmt: skip
    box = norse.LIFBoxParameters(v_leak=torch.tensor(0.125), v_th=torch.tensor(0.2))
    yield "conv", norse.SequentialState(
        nn.Conv2d(2, 4, 3, padding=1), norse.LIFBoxCell(box, dt=2e-3), nn.AvgPool2d(2),
        nn.Conv2d(4, 4, 2, groups=2), nn.BatchNorm2d(4), norse.LIFCell(p, dt=2e-3), nn.Flatten(),
        nn.Linear(16, 5), norse.LIFBoxCell(box, dt=2e-3),
    ), ("1", "5", "8"), (2, 6, 6)  # fmt: skip


def snntorch_cells():
    import snntorch as snn

    hidden = {"init_hidden": True}
    yield "recurrent", nn.Sequential(
        nn.Linear(8, 12), snn.RLeaky(beta=0.7, linear_features=12, threshold=0.5, **hidden),
        nn.Linear(12, 12), snn.RSynaptic(alpha=0.5, beta=0.6, V=-0.5, all_to_all=False, **hidden),
        nn.Linear(12, 6), snn.Synaptic(alpha=torch.linspace(0.2, 0.8, 6), beta=0.5, **hidden),
    ), ("1", "3", "5"), (8,)  # fmt: skip
    yield "others", nn.Sequential(
        nn.Linear(8, 12), snn.Leaky(beta=1.0, graded_spikes_factor=0.75, **hidden),
        nn.Linear(12, 12), snn.Leaky(beta=0.0, threshold=0.1, reset_mechanism="zero", **hidden),
        nn.Linear(12, 12), snn.Lapicque(R=2.0, C=1.5, threshold=0.2, **hidden),
        nn.Linear(12, 6), snn.Leaky(beta=0.9, threshold=0.2, reset_mechanism="none", **hidden),
    ), ("1", "3", "5", "7"), (8,)  # fmt: skip
    yield "conv", nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), snn.Leaky(beta=0.8, threshold=0.3, **hidden),
        nn.MaxPool2d(2), nn.Conv2d(4, 4, 2),
        snn.RLeaky(beta=0.5, conv2d_channels=4, kernel_size=3, threshold=0.2, **hidden),
        nn.Flatten(), nn.Linear(16, 5),
        snn.Leaky(beta=0.6, threshold=0.2, reset_mechanism="zero", reset_delay=False, **hidden),
    ), ("1", "4", "7"), (2, 6, 6)  # fmt: skip


def spikingjelly_cells():
    from spikingjelly.activation_based import layer, neuron

    yield "recurrent", nn.Sequential(
        layer.LinearRecurrentContainer(neuron.IFNode(v_threshold=0.5), 8, 8), layer.Linear(8, 12),
        layer.ElementWiseRecurrentContainer(neuron.LIFNode(v_threshold=0.3), lambda a, b: a + b),
        layer.Linear(12, 6), neuron.LIFNode(tau=1.5, decay_input=False, v_reset=-0.25),
    ), ("0", "2", "4"), (8,)  # fmt: skip
    yield "conv", nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, bias=False), layer.BatchNorm2d(4),
        neuron.IFNode(v_threshold=0.3), layer.MaxPool2d(2),
        layer.Conv2d(4, 4, 2), neuron.LIFNode(v_threshold=0.05, v_reset=None), layer.Flatten(),
        layer.Dropout(0.5), layer.Linear(16, 5), neuron.LIFNode(v_threshold=0.05, v_reset=0.125),
    ), ("2", "5", "9"), (2, 6, 6)  # fmt: skip


def sinabs_cells():
    import sinabs.activation as activation
    import sinabs.layers as layers

    once = {"spike_fn": activation.SingleSpike}
    yield "recurrent", nn.Sequential(
        nn.Linear(8, 12), layers.LIF(tau_mem=3.0, tau_syn=2.0, norm_input=False, **once),
        nn.Linear(12, 12), layers.IAF(spike_threshold=torch.tensor(0.3), **once),
        layers.LIFRecurrent(
            tau_mem=4.0, rec_connect=nn.Linear(12, 12, bias=False), norm_input=False,
            reset_fn=activation.MembraneReset(), **once,
        ),
    ), ("1", "3", "4"), (8,)  # fmt: skip
    yield "squeezed conv", nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        layers.IAFSqueeze(batch_size=5, spike_threshold=torch.tensor(0.4), **once),
        layers.SumPool2d(2), nn.Conv2d(4, 4, 2),
        layers.LIFSqueeze(tau_mem=3.0, batch_size=5, **once),
        nn.Flatten(), nn.Linear(16, 5),
        layers.IAFSqueeze(batch_size=5, spike_threshold=torch.tensor(0.2), **once),
    ), ("1", "4", "7"), (2, 6, 6)  # fmt: skip


def run_squeezed(module, x):
    for part in module.modules():
        if hasattr(part, "reset_states"):
            part.reset_states()
    return (
        module(x.movedim(0, 1).flatten(0, 1)).unflatten(0, (x.shape[1], x.shape[0])).movedim(1, 0)
    )


OTHERS = {
    "norse": (norse_cells, snn_deploy.from_norse, fw.run_norse, None),
    "snntorch": (snntorch_cells, snn_deploy.from_snntorch, fw.run_snntorch, 2e-3),
    "spikingjelly": (spikingjelly_cells, snn_deploy.from_spikingjelly, fw.run_spikingjelly, 2e-3),
    "sinabs": (sinabs_cells, snn_deploy.from_sinabs, fw.run_sinabs, 2e-3),
}


@pytest.mark.parametrize("framework", OTHERS)
def test_other_cells_and_convolutions(framework, tmp_path):
    need(framework)
    cells, read, run, dt_s = OTHERS[framework]
    torch.manual_seed(3)
    for name, module, neurons, shape in cells():
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    parameter *= 2  # or little fires
        x = fw.spikes_of(torch.full((5, *shape), 0.5), 30, 5)
        own = run_squeezed if "squeezed" in name else run
        if "conv" in name:  # gives a batch norm statistics of its own
            module.train()
            with torch.no_grad():
                own(module, x)
        model = fw.Model(module.eval(), read, own, neurons, dt_s)
        net = read(module, x[0], dt_s=dt_s)
        double = fw.Model(module.double(), read, own, neurons, dt_s)
        fired, wrong = mismatches(double, x.double(), renamed(engine_spikes(net, x, tmp_path)))
        assert wrong == 0, (name, fired, wrong)
        assert fired > 100, (name, fired)
        assert model.dt_s == dt_s


def renamed(spikes):
    return {name.removesuffix(".sub_module"): values for name, values in spikes.items()}


@pytest.mark.parametrize("mode", ["norse", "spikingjelly", "containers"])
def test_modules_that_take_all_steps(mode, tmp_path):
    torch.manual_seed(4)
    x = fw.spikes_of(torch.full((5, 2, 6, 6), 0.5), 20, 5)
    if mode == "norse":
        import norse.torch as norse

        p = norse.LIFParameters(v_th=torch.tensor(0.2))
        net = norse.SequentialState(
            norse.Lift(nn.Conv2d(2, 3, 3)), norse.LIF(p, dt=2e-3), nn.Flatten(2),
            nn.Linear(48, 5), norse.LIF(p, dt=2e-3),
        )  # fmt: skip
        model = fw.Model(net, snn_deploy.from_norse, lambda m, x: m(x)[0], ("1", "4"))
    else:
        from spikingjelly.activation_based import functional, layer, neuron

        if mode == "spikingjelly":
            net = nn.Sequential(
                layer.Conv2d(2, 3, 3), neuron.LIFNode(v_threshold=0.1), layer.Flatten(),
                layer.Linear(48, 5), neuron.IFNode(v_threshold=0.5),
            )  # fmt: skip
            functional.set_step_mode(net, "m")
            names = ("1", "4")
        else:
            net = nn.Sequential(
                layer.SeqToANNContainer(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)),
                neuron.LIFNode(v_threshold=0.1, step_mode="m"),
                layer.SeqToANNContainer(nn.Flatten(), nn.Linear(48, 5)),
                layer.MultiStepContainer(neuron.IFNode(v_threshold=0.5)),
            )
            names = ("1", "3.0")
        run = fw.run_spikingjelly_over_time
        model = fw.Model(net, snn_deploy.from_spikingjelly, run, names, 2e-3)
    model.module.eval().double()
    ours = engine_spikes(model.read(model.module, x[0], dt_s=model.dt_s), x, tmp_path)
    fired, wrong = mismatches(model, x.double(), ours)
    assert fired > 200
    assert wrong == 0


def test_ties_at_the_threshold_are_what_the_frameworks_say(tmp_path):
    """On a grid membranes meet the threshold: SpikingJelly fires there, snnTorch does not."""
    import snntorch as snn
    from spikingjelly.activation_based import neuron

    fired = {}
    strict = snn.Leaky(beta=0.5, init_hidden=True, reset_mechanism="zero")
    for name, cell, read, run in (
        ("at", neuron.LIFNode(tau=2.0), snn_deploy.from_spikingjelly, fw.run_spikingjelly),
        ("above", strict, snn_deploy.from_snntorch, fw.run_snntorch),
    ):
        layer = nn.Linear(8, 12)
        weights = torch.randint(-16, 17, (12, 8), generator=torch.Generator().manual_seed(0)) / 4
        with torch.no_grad():
            layer.weight.copy_(weights if name == "at" else weights / 2)
            layer.bias.zero_()
        net = nn.Sequential(layer, cell)
        x = fw.spikes_of(torch.full((20, 8), 0.5), 30, 5)
        model = fw.Model(net, read, run, ("1",), 1e-3)
        ours = engine_spikes(read(net, x[0], dt_s=1e-3), x, tmp_path)
        fired[name], wrong = mismatches(model, x, ours)
        assert wrong == 0
    assert min(fired.values()) > 1_000
    assert fired["at"] != fired["above"]


@pytest.mark.parametrize("dt_s", [1e-4, 1e-3])
@pytest.mark.parametrize("kind", ["Leaky", "Synaptic", "LIFNode"])
def test_an_input_that_equals_the_threshold_is_no_spike_more(kind, dt_s, tmp_path):
    """Whatever the decay and the step, the first input reaches the membrane as it is."""
    import snntorch as snn
    from spikingjelly.activation_based import neuron

    hidden = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False}
    cells = {
        "Leaky": lambda: snn.Leaky(beta=0.9, **hidden),
        "Synaptic": lambda: snn.Synaptic(alpha=0.8, beta=0.95, **hidden),
        "LIFNode": lambda: neuron.LIFNode(tau=7.0, decay_input=False),
    }
    read, run = snn_deploy.from_snntorch, fw.run_snntorch
    if kind == "LIFNode":
        read, run = snn_deploy.from_spikingjelly, fw.run_spikingjelly
    layer = nn.Linear(8, 60)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-4, 5, (60, 8), generator=generator) / 4)
        layer.bias.zero_()
    net = nn.Sequential(layer, cells[kind]())
    # A step later the framework's own single precision decides.
    x = fw.spikes_of(torch.full((40, 8), 0.5), 1, 5)
    assert torch.count_nonzero(layer(x) == 1) > 50
    model = fw.Model(net, read, run, ("1",), dt_s)
    ours = engine_spikes(read(net, x[0], dt_s=dt_s), x, tmp_path)
    _, wrong = mismatches(model, x, ours)
    assert wrong == 0
