"""What others published of Lava's fixed-point neurons, in our integer engine and in Lava."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.base import Options
from snn_deploy.backends.loihi.oracle import LavaOracle
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.backends.verify import verify
from snn_deploy.device.load import load
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.io.netx_read import NetxOptions, read_netx
from snn_deploy.io.nir_read import NirOptions, read_nir
from snn_deploy.ir.synapses import Csr, Diagonal, with_weights
from snn_deploy.passes.pipeline import fold
from tests.builders import DATA

TARGET = LoihiTarget()


def real(name: str):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


def published_neuron():
    """Return the program that the trace was made with: 8 fraction bits, cut off, not rounded."""
    net = fold(read_nir(real("nir/lif_norse.nir"), NirOptions(dt_s=1e-4, reset="value")))
    program = prepare(net, TARGET)
    qnet = program.qnet
    (projection,) = qnet.network.projections
    (synapse,) = projection.synapses
    values = np.full_like(synapse.data if isinstance(synapse, Csr) else synapse.weight, 10)
    weights = with_weights(synapse, values, None)
    integers = replace(
        qnet.populations["1"],
        threshold=np.asarray(25),  # 0.1
        decay_v=np.asarray(163),  # 0.04
        scale=256.0,
    )
    qnet = replace(
        qnet,
        network=replace(qnet.network, projections=(replace(projection, synapses=(weights,)),)),
        populations={"1": integers},
    )
    return TARGET.lower(program.real, qnet, Options(device=load("loihi1")))


def test_the_published_fixed_point_trace_of_a_neuron(lava):
    """Its rows are a step late: Lava declares one step per synapse layer."""
    rows = np.loadtxt(real("nir/traces/lif_lava_cpu_fixed.csv"), delimiter=",")
    x = rows[None, :, :1].astype(np.uint8)
    program = published_neuron()
    ours = FixedEngine(program.qnet).run(x, "states")
    np.testing.assert_array_equal(ours.states["1"]["v"][0, :-1, 0], rows[1:, 1])
    np.testing.assert_array_equal(ours.spikes["1"][0, :-1, 0], rows[1:, 2])
    assert rows[:, 2].sum() == 4
    proof = verify(TARGET, program, x, oracle=LavaOracle(timeout_s=120)).proof
    assert proof.equal
    assert proof.values == {"spikes": 1000, "u": 1000, "v": 1000}


def test_the_published_spikes_of_tiny_net_come_out_exactly(lava):
    """lava-dl's own test sets the input neurons' biases, and compares from its second step on."""
    net = read_netx(real("lava/tiny.net"), NetxOptions(dt_s=1e-3))
    truth = {
        name: np.load(real(f"lava/tinynet_gts/{name}.npy"))
        for name in ("input", "input_bias", "current", "layer1", "output")
    }
    (first, *rest) = net.projections
    (source, neurons, *others) = net.populations
    assert first.synapses == (Diagonal(scale=np.asarray(36.0)),)
    assert float(neurons.neuron.v_leak) * 1024 / 4096 == 34
    given = replace(
        net,
        projections=(replace(first, synapses=(Diagonal(scale=np.asarray(1.0)),)), *rest),
        populations=(
            source,
            replace(neurons, neuron=replace(neurons.neuron, v_leak=np.zeros(()))),
            *others,
        ),
    )
    program = prepare(fold(given), TARGET)
    steps = truth["output"].shape[-1] - 1
    biases = truth["input_bias"].transpose(2, 1, 0)
    x = np.broadcast_to(biases, (1, steps, *biases.shape))
    trace = FixedEngine(program.qnet).run(x, "states")
    fired = 0
    for population, name in (("layer0", "input"), ("layer1", "layer1"), ("layer2", "output")):
        expected = np.moveaxis(truth[name][0], -1, 0)[1:]
        np.testing.assert_array_equal(trace.spikes[population][0], expected)
        fired += int(expected.sum())
    assert fired == 6783 + 1633 + 92
    currents = np.moveaxis(truth["current"][0], -1, 0)[1:] * 64
    np.testing.assert_array_equal(trace.states["layer1"]["u"][0], currents)
    # The host injects the biases, and Lava runs the rest.
    assert verify(TARGET, program, x, oracle=LavaOracle(timeout_s=120)).proof.equal
