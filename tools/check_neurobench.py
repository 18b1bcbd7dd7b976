"""Effective synaptic operations of a ticket, by us, by brute force, and by NeuroBench.

    python tools/check_neurobench.py MODEL.pt X.npz [--samples 100] [--write]

MODEL is a chain of fully connected layers with LIF neurons (the demo's MLP). NeuroBench counts in
a torch model made from the same weights and run on the same spikes. Exits with 1 if the three
counts are not equal; --write stores docs/measured/neurobench.md.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from snn_deploy import fold, load_model
from snn_deploy.engine.count import Counter
from snn_deploy.engine.event import EventEngine
from snn_deploy.io.inputs import encode, read_inputs
from snn_deploy.ir import Csr, Dense, Network
from snn_deploy.ir.network import per_neuron

ROOT = Path(__file__).resolve().parents[1]


class Layers(nn.Module):
    """The network in plain torch: one Linear call per layer and step, which NeuroBench hooks."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.steps = []
        for projection in network.projections:
            (synapse,) = projection.synapses
            weight = synapse.to_dense() if isinstance(synapse, Csr) else synapse.weight
            layer = nn.Linear(*weight.shape[::-1], dtype=torch.float64)
            layer.weight.data = torch.from_numpy(np.array(weight, np.float64))
            layer.bias.data = torch.from_numpy(np.array(synapse.bias, np.float64))
            self.layers.append(layer)
            population = network.population(projection.post)
            step = population.neuron.step(network.dt_s)
            self.steps.append(
                [
                    torch.from_numpy(np.array(per_neuron(value, population.shape)))
                    for value in (step.keep_v, step.gain_v, step.threshold, step.v_reset)
                ]
            )

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        states = [torch.zeros(len(batch), layer.out_features).double() for layer in self.layers]
        total = torch.zeros(())
        for t in range(batch.shape[1]):
            value = batch[:, t]
            for i, (layer, step) in enumerate(zip(self.layers, self.steps, strict=True)):
                keep, gain, threshold, reset = step
                v = keep * states[i] + gain * layer(value)
                fired = v > threshold
                states[i] = torch.where(fired, reset, v)
                value = fired.double()
            total = total + value
        return total


def by_neurobench(network: Network, x: np.ndarray) -> float:
    """Return NeuroBench's Effective_ACs per sample."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's deprecations
        from neurobench.metrics.workload import SynapticOperations
        from neurobench.models import TorchModel
    model, metric = TorchModel(Layers(network)), SynapticOperations()
    model.register_hooks()
    batch = torch.from_numpy(x.astype(np.float64))
    with torch.no_grad():
        result = metric(model, model(batch), (batch, None))
    model.cleanup_hooks()
    return float(result["Effective_ACs"])


def by_brute_force(network: Network, spikes: dict[str, np.ndarray]) -> int:
    """Count one spike and one nonzero weight at a time."""
    total = 0
    for projection in network.projections:
        (synapse,) = projection.synapses
        weight = synapse.to_dense() if isinstance(synapse, Csr) else synapse.weight
        for sample, step, neuron in np.argwhere(spikes[projection.pre]):
            assert spikes[projection.pre][sample, step, neuron] == 1
            total += sum(1 for w in weight[:, neuron] if w != 0)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    network = fold(load_model(options.model))
    if not all(isinstance(s, Csr | Dense) for p in network.projections for s in p.synapses):
        raise SystemExit("this check is for fully connected networks")
    data = read_inputs(options.data, network.input_population.shape).first(options.samples)
    x = encode(data, network.coding)
    trace = EventEngine(network).run(x, "spikes")
    ours = Counter(network).count(trace).total("synops_effective")
    brute = by_brute_force(network, dict(trace.spikes))
    theirs = by_neurobench(network, x) * len(x)
    equal = ours == brute == round(theirs) and abs(theirs - round(theirs)) < 1e-6
    lines = [
        "# Effective synaptic operations, three ways",
        "",
        f"`python tools/check_neurobench.py demo/mlp.pt demo/mlp-test.npz --samples {len(x)} "
        f"--write`, the demo's MLP, {len(x)} test images of {x.shape[1]} steps.",
        "",
        "| counted by | effective synaptic operations |",
        "|---|---:|",
        f"| snn-deploy | {ours:,} |",
        f"| one spike and one nonzero weight at a time | {brute:,} |",
        f"| NeuroBench {version('neurobench')}, Effective_ACs | {theirs:,.0f} |",
        "",
        "All three are equal." if equal else "They differ.",
        "",
    ]
    print("\n".join(lines))
    if options.write and equal:
        (ROOT / "docs" / "measured" / "neurobench.md").write_text("\n".join(lines))
    sys.exit(not equal)


if __name__ == "__main__":
    main()
