"""Small models in each framework, how each runs itself, and what it shows of its spikes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import snn_deploy
from snn_deploy.engine.event import EventEngine
from snn_deploy.ir import Network
from snn_deploy.tickets.lif import LIF
from snn_deploy.tickets.recurrent import RecurrentLIF


@dataclass(frozen=True)
class Model:
    """module: of one step or of all; read: our reader; run: the framework's own forward pass over
    (steps, batch, ...), from rest; neurons: the modules whose spikes are compared, by path."""

    module: nn.Module
    read: Callable[..., Any]
    run: Callable[[nn.Module, Tensor], Tensor]
    neurons: tuple[str, ...]
    dt_s: float | None = None


def record(model: Model, x: Tensor) -> dict[str, np.ndarray]:
    """Return path -> spikes (batch, steps, ...) of the framework's own run."""
    seen: dict[str, list[Tensor]] = {name: [] for name in model.neurons}
    handles = []
    parts = dict(model.module.named_modules())
    for name in model.neurons:

        def keep(module: nn.Module, args: Any, out: Any, name: str = name) -> None:
            seen[name].append(out[0] if isinstance(out, tuple) else out)

        handles.append(parts[name].register_forward_hook(keep))
    for part in parts.values():
        if isinstance(part, nn.Linear | nn.Conv2d):
            # Some frameworks' spikes are float32 whatever the module is.
            handles.append(part.register_forward_pre_hook(_as_its_weights))
    with torch.no_grad():
        model.run(model.module, x)
    for handle in handles:
        handle.remove()
    return {name: _time_second(found, x) for name, found in seen.items()}


def _as_its_weights(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0].to(module.weight.dtype),)


def _time_second(found: list[Tensor], x: Tensor) -> np.ndarray:
    """Return (batch, steps, ...) from one tensor per step, or from one of all steps."""
    if len(found) == x.shape[0]:
        return torch.stack(found, 1).numpy()
    (whole,) = found
    if whole.shape[0] == x.shape[0]:  # time first
        return whole.movedim(0, 1).numpy()
    if whole.shape[0] == x.shape[1]:  # batch first
        return whole.numpy()
    return whole.unflatten(0, (x.shape[1], x.shape[0])).numpy()


def stepwise(module: nn.Module, x: Tensor) -> Tensor:
    return torch.stack([_first(module(step)) for step in x])


def _first(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def run_norse(module: nn.Module, x: Tensor) -> Tensor:
    state, outputs = None, []
    for step in x:
        out, state = module(step, state)
        outputs.append(out)
    return torch.stack(outputs)


def run_snntorch(module: nn.Module, x: Tensor) -> Tensor:
    for part in module.modules():
        if hasattr(part, "reset_mem"):
            part.reset_mem()
    return stepwise(module, x)


def run_spikingjelly(module: nn.Module, x: Tensor) -> Tensor:
    from spikingjelly.activation_based import functional

    functional.reset_net(module)
    return stepwise(module, x)


def run_spikingjelly_over_time(module: nn.Module, x: Tensor) -> Tensor:
    from spikingjelly.activation_based import functional

    functional.reset_net(module)
    return module(x)


def run_sinabs(module: nn.Module, x: Tensor) -> Tensor:
    for part in module.modules():
        if hasattr(part, "reset_states"):
            part.reset_states()
    return module(x.movedim(0, 1)).movedim(1, 0)


def run_ours(module: nn.Module, x: Tensor) -> Tensor:
    return module(x)


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Return 300 of scikit-learn's digits (samples, 64) in 0..1, and their labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.tensor(data.data[:300] / 16, dtype=torch.float32), torch.tensor(data.target[:300])


def spikes_of(images: Tensor, steps: int, seed: int) -> Tensor:
    """Return Bernoulli spikes (steps, samples, ...)."""
    dice = torch.Generator().manual_seed(seed)
    return (torch.rand((steps, *images.shape), generator=dice) < images).float()


def train(model: Model, epochs: int = 6) -> float:
    """Train on the digits for a few seconds; return the accuracy on the images seen."""
    images, labels = digits()
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.module.parameters(), lr=5e-3)
    model.module.train()
    for epoch in range(epochs):
        for at in range(0, len(images), 50):
            x = spikes_of(images[at : at + 50], 8, epoch * 1000 + at)
            counts = model.run(model.module, x).sum(0)
            loss = nn.functional.cross_entropy(counts, labels[at : at + 50])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.module.eval()
    with torch.no_grad():
        counts = model.run(model.module, spikes_of(images, 8, 7)).sum(0)
    return float((counts.argmax(1) == labels).float().mean())


def norse_mlp(reset: str) -> Model:
    import norse.torch as norse
    from norse.torch.functional import reset as resets

    p = norse.LIFBoxParameters(
        tau_mem_inv=torch.tensor(1 / 5e-4),
        v_th=torch.tensor(0.5),
        reset_method=getattr(resets, f"reset_{reset}"),
        alpha=torch.tensor(10.0),
    )
    net = norse.SequentialState(
        nn.Linear(64, 40), norse.LIFBoxCell(p, dt=2.5e-4),
        nn.Linear(40, 10), norse.LIFBoxCell(p, dt=2.5e-4),
    )  # fmt: skip
    return Model(net, snn_deploy.from_norse, run_norse, ("1", "3"))


def snntorch_mlp(reset: str) -> Model:
    import snntorch as snn

    kind = {"value": "zero", "subtract": "subtract"}[reset]
    beta = torch.linspace(0.4, 0.9, 40)
    net = nn.Sequential(
        nn.Linear(64, 40),
        snn.Leaky(
            beta=beta, threshold=0.8, init_hidden=True, reset_mechanism=kind, learn_beta=True
        ),
        nn.Linear(40, 10),
        snn.Leaky(beta=0.7, init_hidden=True, reset_mechanism=kind, learn_threshold=True),
    )
    return Model(net, snn_deploy.from_snntorch, run_snntorch, ("1", "3"), dt_s=2e-3)


def spikingjelly_mlp(reset: str) -> Model:
    from spikingjelly.activation_based import layer, neuron

    how = {"v_reset": 0.0 if reset == "value" else None, "detach_reset": True}
    net = nn.Sequential(
        layer.Linear(64, 40), neuron.ParametricLIFNode(init_tau=1.8, v_threshold=0.5, **how),
        layer.Linear(40, 10), neuron.LIFNode(tau=1.6, v_threshold=0.5, **how),
    )  # fmt: skip
    return Model(net, snn_deploy.from_spikingjelly, run_spikingjelly, ("1", "3"), dt_s=2e-3)


def sinabs_mlp(reset: str) -> Model:
    import sinabs.activation as activation
    import sinabs.layers as layers

    resets = {"value": activation.MembraneReset(), "subtract": activation.MembraneSubtract()}
    how: dict[str, Any] = {"spike_fn": activation.SingleSpike, "reset_fn": resets[reset]}
    net = nn.Sequential(
        nn.Linear(64, 40), layers.LIF(tau_mem=3.0, spike_threshold=torch.tensor(0.4), **how),
        nn.Linear(40, 10), layers.LIF(tau_mem=2.0, norm_input=False, **how),
    )  # fmt: skip
    return Model(net, snn_deploy.from_sinabs, run_sinabs, ("1", "3"), dt_s=2e-3)


class Ours(nn.Module):
    """torch layers and our neurons, over all steps: layers see time as a second batch axis."""

    time_batched = True

    def __init__(self, reset: Any, recurrent: bool = False) -> None:
        super().__init__()
        hidden: dict[str, Any] = {
            "tau_s": 4e-3, "dt_s": 2e-3, "v_threshold": 0.5, "reset": reset,
        }  # fmt: skip
        self.fc1 = nn.Linear(64, 40)
        self.lif1 = RecurrentLIF(40, **hidden) if recurrent else LIF(**hidden)
        self.fc2 = nn.Linear(40, 10)
        self.lif2 = LIF(tau_s=3e-3, dt_s=2e-3, v_threshold=0.5, reset=reset)

    def forward(self, x: Tensor) -> Tensor:
        return self.lif2(self.fc2(self.lif1(self.fc1(x))))


def torch_mlp(reset: str) -> Model:
    return Model(Ours(reset), snn_deploy.from_torch, run_ours, ("lif1", "lif2"))


def torch_recurrent(reset: str) -> Model:
    module = Ours(reset, recurrent=True)
    return Model(module, snn_deploy.from_torch, run_ours, ("lif1", "lif2"))


MLPS: dict[str, Callable[[str], Model]] = {
    "norse": norse_mlp,
    "snntorch": snntorch_mlp,
    "spikingjelly": spikingjelly_mlp,
    "sinabs": sinabs_mlp,
    "torch": torch_mlp,
    "torch recurrent": torch_recurrent,
}


def grid_layer(inputs: int = 8, outputs: int = 40, seed: int = 0, kind: Any = nn.Linear) -> Any:
    """Return a Linear, or another class of its arguments, of quarters: sums meet thresholds."""
    made = kind(inputs, outputs)
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        made.weight.copy_(torch.randint(-4, 9, (outputs, inputs), generator=dice) / 4)
        made.bias.copy_(torch.randint(-1, 2, (outputs,), generator=dice) / 4)
    return made


def changed_by_ties(net: Network, name: str, x: Tensor, ours: np.ndarray) -> int:
    """Return how many spikes change where a population is silent at what it fires at."""
    parts = list(net.populations)
    at = [p.name for p in parts].index(name)
    cell: Any = parts[at].neuron
    above = replace(cell, v_threshold=np.nextafter(cell.v_threshold, np.inf))
    parts[at] = replace(parts[at], neuron=above)
    strict = snn_deploy.fold(replace(net, populations=tuple(parts)))
    other = EventEngine(strict).run(x.movedim(0, 1).numpy(), "spikes").spikes[name]
    return int(np.count_nonzero(other != ours))
