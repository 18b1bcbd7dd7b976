"""Training updates per second: ours, and norse's and snnTorch's stepwise loops; prints JSON.

    python tools/bench_training.py [--repeat 9]

Started by bench.py. All three train the same network from the same weights on the same spikes,
drawn from a seed as MNIST's pixels are bright. An update is: spikes drawn, forward pass, loss,
gradients, AdamW. The three take turns within one process, on one thread; times are the
processor's, and each ratio is the median over those of the turns, so that a neighbour's load on
the machine meets all of them. "trainer" is ``loop.Run``, which also counts spikes and accuracy.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from snn_deploy.tickets.allocator import keep_freed_memory  # noqa: E402
from snn_deploy.tickets.lif import LIF  # noqa: E402
from snn_deploy.tickets.loop import Recipe, Run, training_input  # noqa: E402
from snn_deploy.tickets.models.build import build  # noqa: E402

CLASSES, DT_S, TAU_S = 10, 1e-3, 2e-3
OURS, TRAINER, PEERS = "ours", "trainer", ("norse", "snntorch")
#: An update's seconds are those of so many in a row.
UPDATES = 3

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One network and its training: ``train``'s own defaults for MNIST, and longer ones."""

    arch: str
    hidden: tuple[int, ...]
    steps: int
    batch: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Return one sample's shape."""
        return (784,) if self.arch == "mlp" else (1, 28, 28)

    @property
    def recipe(self) -> Recipe:
        """Return how it is trained."""
        return Recipe(
            steps=self.steps, coding="rate", gain=1.0, lr=1e-3, batch_size=self.batch,
            weight_decay=0.0,
        )  # fmt: skip


CASES = (
    Case(arch="mlp", hidden=(256, 128), steps=8, batch=128),
    Case(arch="mlp", hidden=(256, 128), steps=20, batch=128),
    Case(arch="conv", hidden=(8, 64), steps=5, batch=32),
    Case(arch="conv", hidden=(8, 64), steps=20, batch=32),
)


def copied(model: nn.Module, gain: float = 1.0) -> list[nn.Module]:
    """Return copies of the layers, a LIF's place taken by itself; ``gain`` goes into currents."""
    layers: list[nn.Module] = []
    for layer in model:
        if isinstance(layer, LIF):
            layers.append(layer)
            continue
        layers.append(copy.deepcopy(layer))
        scaled = layers[-1] if isinstance(layer, nn.Linear | nn.BatchNorm2d) else None
        if scaled is not None:
            with torch.no_grad():
                scaled.weight.mul_(gain)
                scaled.bias.mul_(gain)
    return layers


def norse_loop(model: nn.Module) -> tuple[nn.Module, Forward]:
    """Return norse's SequentialState with LIFBoxCell (SuperSpike), and its loop over the steps."""
    from norse.torch import LIFBoxCell, LIFBoxParameters, SequentialState

    p = LIFBoxParameters(tau_mem_inv=torch.as_tensor(1 / TAU_S))
    layers = (LIFBoxCell(p, dt=DT_S) if isinstance(m, LIF) else m for m in copied(model))
    net = SequentialState(*layers)

    def forward(x: Tensor) -> Tensor:
        state, out = None, []
        for step in x:
            z, state = net(step, state)
            out.append(z)
        return torch.stack(out)

    return net, forward


def snntorch_loop(model: nn.Module) -> tuple[nn.Module, Forward]:
    """Return the layers with snnTorch's Leaky (ATan), and its loop over the steps."""
    import snntorch
    from snntorch import surrogate

    beta = 1 - DT_S / TAU_S
    layers = (
        snntorch.Leaky(beta=beta, reset_mechanism="zero", spike_grad=surrogate.atan())
        if isinstance(m, LIF)
        else m
        for m in copied(model, gain=1 - beta)  # Leaky adds the whole current
    )
    net = nn.ModuleList(layers)

    def forward(x: Tensor) -> Tensor:
        membranes = {m: m.reset_mem() for m in net if isinstance(m, snntorch.Leaky)}
        out = []
        for z in x:
            for layer in net:
                if isinstance(layer, snntorch.Leaky):
                    z, membranes[layer] = layer(z, membranes[layer])
                else:
                    z = layer(z)
            out.append(z)
        return torch.stack(out)

    return net, forward


def populations(net: nn.Module, forward: Forward, spikes: Tensor) -> Tensor:
    """Return the spikes of all populations and steps, one after the other."""
    found: dict[nn.Module, list[Tensor]] = {}

    def watch(module: nn.Module, inputs: object, output: Any) -> None:
        z = output[0] if isinstance(output, tuple) else output
        found.setdefault(module, []).append(z.detach().flatten())

    neurons = [m for m in net.modules() if type(m).__name__ in ("LIF", "LIFBoxCell", "Leaky")]
    hooks = [m.register_forward_hook(watch) for m in neurons]
    net.eval()  # so that batch norms compute the same
    with torch.no_grad():
        forward(spikes)
    for hook in hooks:
        hook.remove()
    return torch.cat([torch.cat(found[m]) for m in neurons])


def images(case: Case, batches: int) -> tuple[Tensor, Tensor]:
    """Return samples with a fifth of their pixels bright, as MNIST's, and labels."""
    generator = torch.Generator().manual_seed(0)
    size = (batches * case.batch, *case.shape)
    bright = torch.rand(size, generator=generator) < 0.19
    x = bright * (0.4 + 0.6 * torch.rand(size, generator=generator))
    return x, torch.randint(CLASSES, (len(x),), generator=generator)


def updates(net: nn.Module, forward: Forward, case: Case) -> Callable[[], None]:
    """Return UPDATES updates of a network: what a hand-written loop does."""
    x, y = images(case, UPDATES)
    generator, recipe = torch.Generator().manual_seed(1), case.recipe
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=0.0)
    net.train()

    def work() -> None:
        for samples, labels in zip(x.split(case.batch), y.split(case.batch), strict=True):
            spikes = training_input(samples, recipe, generator)
            counts = forward(spikes).sum(0)
            loss = functional.cross_entropy(counts * (10.0 / case.steps), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return work


def measure_case(case: Case, repeat: int) -> dict[str, Any]:
    """Return updates per second, ratios, and how far the three compute the same."""
    torch.manual_seed(0)
    model = build(case.arch, case.shape, CLASSES, hidden=case.hidden, dt_s=DT_S, tau_s=TAU_S)
    nets = {
        "norse": norse_loop(model),
        "snntorch": snntorch_loop(model),
        OURS: (model, model),
    }
    x, y = images(case, UPDATES)
    spikes = training_input(x[: case.batch], case.recipe, torch.Generator().manual_seed(2))
    seen = {name: populations(net, forward, spikes) for name, (net, forward) in nets.items()}
    equal = {n: float((seen[n] == seen[OURS]).float().mean()) for n in PEERS}
    works = {name: updates(net, forward, case) for name, (net, forward) in nets.items()}
    trained = build(case.arch, case.shape, CLASSES, hidden=case.hidden, dt_s=DT_S, tau_s=TAU_S)
    run = Run(trained, x, y, case.recipe, epochs=repeat + 1, seed=0)
    works[TRAINER] = lambda: run.epoch()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeat + 1):
        for name in list(works)[:: 1 if turn % 2 else -1]:
            began = time.process_time()
            works[name]()
            seconds[name].append((time.process_time() - began) / UPDATES)
    seconds = {name: took[1:] for name, took in seconds.items()}  # the first warms up
    return {
        "arch": case.arch,
        "hidden": list(case.hidden),
        "steps": case.steps,
        "batch": case.batch,
        "updates_per_s": {name: 1 / statistics.median(took) for name, took in seconds.items()},
        "ratio": {
            name: {peer: ratio(seconds[peer], seconds[name]) for peer in PEERS}
            for name in (OURS, TRAINER)
        },
        "equal_spikes": equal,
        "spike_rate": float(seen[OURS].mean()),
    }


def ratio(theirs: list[float], ours: list[float]) -> float:
    """Return how many of our updates one of theirs takes: the median over the turns."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def text(found: dict[str, Any]) -> list[str]:
    """Return the lines of the report."""
    versions = found["versions"]
    # Silent populations are equal without saying anything.
    active = [case for case in found["cases"] if case["spike_rate"] > 1e-3]
    equal = min(min(case["equal_spikes"].values()) for case in active)
    compared = " and ".join(f"{case['arch']} (T = {case['steps']})" for case in active)
    lines = [
        "## Training, and the stepwise loops of norse and snnTorch",
        "",
        "`python tools/bench.py --only training --write`",
        "",
        "Whole updates (spikes drawn, forward pass, loss, gradients, AdamW) of the same network "
        "from the same weights on the same spikes, a fifth of the pixels bright; one thread, the "
        f"three in turns, medians of {found['repeat']} turns of processor time; torch "
        f"{versions['torch']}, norse {versions['norse']}, snnTorch {versions['snntorch']}. "
        f"Before the first update {equal:.3%} of all spikes are equal in {compared}; the others "
        "are silent then, and were not compared. What differs: norse's LIFBoxCell has the "
        "SuperSpike surrogate and a reset that carries a gradient, snnTorch's "
        "Leaky and ours have ATan and a detached reset; Leaky resets at the beginning of the next "
        "step; the loops keep torch's default layout of images, ours has the channels last. The "
        "trainer is the loop behind `train`, which also counts spikes, density and "
        "accuracy.",
        "",
        "| network | T | batch | norse | snnTorch | ours | trainer | ours to norse | "
        "ours to snnTorch | trainer to norse | trainer to snnTorch |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for case in found["cases"]:
        rates = [f"{case['updates_per_s'][name]:.1f}/s" for name in (*PEERS, OURS, TRAINER)]
        ratios = [f"{case['ratio'][n][peer]:.2f}" for n in (OURS, TRAINER) for peer in PEERS]
        name = f"{case['arch']} {'-'.join(map(str, case['hidden']))}"
        cells = [name, str(case["steps"]), str(case["batch"]), *rates, *ratios]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def measure(repeat: int) -> dict[str, Any]:
    """Return the figures of all cases."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as training does; it holds for all three
    return {
        "versions": {name: version(name) for name in ("torch", *PEERS)},
        "repeat": repeat,
        "cases": [measure_case(case, repeat) for case in CASES],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=9)
    print(json.dumps(measure(parser.parse_args().repeat)))


if __name__ == "__main__":
    main()
