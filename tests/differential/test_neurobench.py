"""Effective synaptic operations against NeuroBench's Effective_ACs on the same network.

NeuroBench hooks every Linear, binarises weights and inputs, leaves the bias out and sums over all
calls; a layer called once per step is therefore counted once per step. It divides by samples.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from snn_deploy.engine.count import Counter
from snn_deploy.engine.event import EventEngine
from snn_deploy.ir import Coding
from snn_deploy.passes.pipeline import fold
from tests.builders import lif, mlp, spikes

torch = pytest.importorskip("torch")
pytest.importorskip("neurobench")

SAMPLES, STEPS, SIZES = 7, 9, (24, 30, 18, 6)


def neurobench_counts(net, x):
    """Return NeuroBench's SynapticOperations for the same weights in plain torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's deprecations
        from neurobench.metrics.workload import SynapticOperations
        from neurobench.models import TorchModel

    class Lif(torch.nn.Module):
        def start(self, samples, size):
            self.v = torch.zeros(samples, size, dtype=torch.float64)

        def forward(self, current):
            self.v = 0.5 * self.v + 0.5 * current
            fired = self.v > 0.5
            self.v[fired] = 0.0
            return fired.to(torch.float64)

    class Mlp(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList()
            self.neurons = [Lif() for _ in net.projections]
            self.spikes = 0
            for p in net.projections:
                (dense,) = p.synapses
                layer = torch.nn.Linear(*dense.weight.shape[::-1], dtype=torch.float64)
                layer.weight.data = torch.from_numpy(np.array(dense.weight, np.float64))
                layer.bias.data = torch.from_numpy(np.array(dense.bias, np.float64))
                self.layers.append(layer)

        def forward(self, batch):
            for neuron, layer in zip(self.neurons, self.layers, strict=True):
                neuron.start(len(batch), layer.out_features)
            total = 0
            for t in range(batch.shape[1]):
                value = batch[:, t]
                for neuron, layer in zip(self.neurons, self.layers, strict=True):
                    value = neuron(layer(value))
                    self.spikes += int(value.sum())
                total = total + value
            return total

    model = TorchModel(Mlp())
    metric = SynapticOperations()
    model.register_hooks()
    for start in range(0, len(x), 3):  # in batches, as the benchmark runs them
        batch = torch.from_numpy(x[start : start + 3].astype(np.float64))
        model.reset_hooks()
        with torch.no_grad():
            predictions = model(batch)
        result = metric(model, predictions, (batch, None))
    model.cleanup_hooks()
    return result, model.net.spikes


@pytest.mark.parametrize("density", [0.1, 0.6])
def test_effective_synops_equal_neurobench(density):
    rng = np.random.default_rng(12)
    net = mlp(rng, *SIZES, neuron=lif(), density=density, coding=Coding(kind="rate", steps=STEPS))
    x = spikes(rng, SAMPLES, STEPS, (SIZES[0],), 0.5)
    theirs, fired = neurobench_counts(net, x)
    for ours in (net, fold(net)):
        trace = EventEngine(ours).run(x)
        assert sum(c.sum() for n, c in trace.counts.items() if n != "input") == fired > 50
        events = Counter(ours).count(trace)
        assert events.total("synops_effective") / SAMPLES == pytest.approx(
            theirs["Effective_ACs"], rel=1e-12
        )
        assert events.total("synops_dense") / SAMPLES == pytest.approx(theirs["Dense"], rel=1e-12)
    assert theirs["Effective_MACs"] == 0
    assert theirs["Effective_ACs"] > 100
