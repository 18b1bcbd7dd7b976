"""Small networks for tests: weights on a grid of 1/64 and time constants of 2 or 8 steps.

On that grid every sum is exact in float64 whatever its order, so that spikes can be compared
exactly, and a membrane meets its threshold exactly now and then, which a strict comparison must
not take for a spike.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from snn_deploy.ir import (
    IF,
    LI,
    LIF,
    Coding,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Dense,
    Identity,
    Integrator,
    Network,
    Neuron,
    Pool2d,
    Population,
    Projection,
    Readout,
    Relay,
    Synapse,
    Threshold,
    check,
)
from snn_deploy.ir.arrays import Array

DT = 1e-3
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def lif(tau_steps: float = 2, threshold: Any = 0.5, **changes: Any) -> LIF:
    values: dict[str, Any] = {"r": 1.0, "v_leak": 0.0, "v_reset": 0.0} | changes
    return LIF(tau_s=np.asarray(tau_steps) * DT, v_threshold=threshold, **values)


def integrate_and_fire(threshold: Any = 1.0, **changes: Any) -> IF:
    values: dict[str, Any] = {"r": 1.0, "v_reset": 0.0} | changes
    return IF(v_threshold=threshold, **values)


def cuba(tau_syn: float = 2, tau_mem: float = 2, threshold: Any = 0.25, **changes: Any) -> CubaLIF:
    values: dict[str, Any] = {"r": 1.0, "v_leak": 0.0, "v_reset": 0.0, "w_in": 1.0} | changes
    return CubaLIF(tau_syn_s=tau_syn * DT, tau_mem_s=tau_mem * DT, v_threshold=threshold, **values)


def leaky(tau_steps: Any = 2, **changes: Any) -> LI:
    values: dict[str, Any] = {"r": 1.0, "v_leak": 0.0} | changes
    return LI(tau_s=tau_steps * DT, **values)


def cuba_leaky() -> CubaLI:
    return CubaLI(tau_syn_s=2 * DT, tau_mem_s=2 * DT, r=1.0, v_leak=0.0, w_in=1.0)


def grid(rng: np.random.Generator, *shape: int, density: float = 1.0, fine: bool = False) -> Array:
    """Return float32 multiples of 1/8, or of 1/64 if fine, in -1..1."""
    parts = 64 if fine else 8
    weights = rng.integers(-parts, parts + 1, shape) / parts
    return (weights * (rng.random(shape) < density)).astype(np.float32)


def spikes(
    rng: np.random.Generator, samples: int, steps: int, shape: tuple[int, ...], rate: float = 0.4
) -> Array:
    return (rng.random((samples, steps, *shape)) < rate).astype(np.uint8)


def population(name: str, shape: tuple[int, ...], neuron: Neuron) -> Population:
    return Population(name=name, shape=shape, neuron=neuron, origin=name)


def projection(pre: str, post: str, *synapses: Synapse, **changes: Any) -> Projection:
    values: dict[str, Any] = {"name": f"{pre}-{post}", "origin": f"{pre}-{post}"} | changes
    return Projection(pre=pre, post=post, synapses=synapses, **values)


def network(
    populations: list[Population], projections: list[Projection], **changes: Any
) -> Network:
    """Return a checked network from the first population to the last."""
    values: dict[str, Any] = {
        "inputs": (populations[0].name,),
        "outputs": (populations[-1].name,),
        "dt_s": DT,
        "readout": Readout(kind="count"),
        "coding": Coding(kind="events"),
    }
    return check(
        Network(
            populations=tuple(populations), projections=tuple(projections), **(values | changes)
        )
    )


def row(shape: tuple[int, ...], *parts: Synapse | Neuron, **changes: Any) -> Network:
    """Return a network whose operators and neurons stand in one row behind the input."""
    populations = [population("input", shape, Relay())]
    projections: list[Projection] = []
    chain: list[Synapse] = []
    here = shape
    for part in parts:
        if isinstance(part, Synapse):
            chain.append(part)
            here = part.out_shape(here)
            continue
        name = f"n{len(populations)}"
        populations.append(population(name, here, part))
        label = f"w{len(populations) - 1}"
        pre = populations[-2].name
        projections.append(projection(pre, name, *chain or [Identity()], name=label, origin=label))
        chain = []
    return network(populations, projections, **changes)


def mlp(rng: np.random.Generator, *sizes: int, neuron: Neuron | None = None, **how: Any) -> Network:
    """Return a fully connected network; how: bias, density, fine, and Network's fields."""
    bias, density, fine = how.pop("bias", True), how.pop("density", 0.7), how.pop("fine", False)
    parts: list[Synapse | Neuron] = []
    for pre, post in pairwise(sizes):
        weight = grid(rng, post, pre, density=density, fine=fine)
        parts.append(Dense(weight=weight, bias=grid(rng, post) / 4 if bias else None))
        parts.append(neuron or lif())
    return row((sizes[0],), *parts, **how)


def conv_net(rng: np.random.Generator, **how: Any) -> Network:
    """Return conv - average pool - grouped strided conv - dense on (2, 8, 8)."""
    bias = how.pop("bias", True)
    return row(
        (2, 8, 8),
        Conv2d(weight=grid(rng, 4, 2, 3, 3), bias=grid(rng, 4) / 4 if bias else None),
        lif(),
        Pool2d(kind="sum", kernel=(2, 2), stride=(2, 2)),
        Conv2d(weight=grid(rng, 4, 2, 2, 2), stride=(2, 1), padding=(1, 1, 0, 0), groups=2),
        lif(8, threshold=0.25),
        Dense(weight=grid(rng, 3, 4 * 2 * 2), bias=grid(rng, 3) / 4 if bias else None),
        lif(),
        **how,
    )


def _skip(rng: np.random.Generator) -> Network:
    return network(
        [
            population("in", (6,), Relay()),
            population("a", (5,), lif()),
            population("b", (5,), lif(8, threshold=0.25)),
            population("out", (4,), lif()),
        ],
        [
            projection("in", "a", Dense(weight=grid(rng, 5, 6), bias=grid(rng, 5) / 4)),
            projection("a", "b", Dense(weight=grid(rng, 5, 5))),
            projection("b", "out", Dense(weight=grid(rng, 4, 5))),
            projection("a", "out", Dense(weight=grid(rng, 4, 5), bias=grid(rng, 4) / 8)),
            projection("in", "out", Dense(weight=grid(rng, 4, 6))),
        ],
    )


def _recurrent(rng: np.random.Generator) -> Network:
    return network(
        [
            population("in", (6,), Relay()),
            population("a", (5,), lif()),
            population("b", (5,), lif(8, threshold=0.25)),
            population("out", (4,), lif()),
        ],
        [
            projection("in", "a", Dense(weight=grid(rng, 5, 6))),
            projection("a", "a", Dense(weight=grid(rng, 5, 5))),
            projection("a", "b", Dense(weight=grid(rng, 5, 5))),
            projection("b", "a", Dense(weight=grid(rng, 5, 5))),
            projection("b", "out", Dense(weight=grid(rng, 4, 5), bias=grid(rng, 4) / 4)),
        ],
    )


def _delays(rng: np.random.Generator) -> Network:
    return network(
        [
            population("in", (6,), Relay()),
            population("a", (5,), lif()),
            population("out", (4,), lif()),
        ],
        [
            projection("in", "a", Dense(weight=grid(rng, 5, 6)), delay_steps=2),
            projection("a", "out", Dense(weight=grid(rng, 4, 5))),
            projection("a", "out", Dense(weight=grid(rng, 4, 5)), delay_steps=3, name="late"),
            projection("out", "a", Dense(weight=grid(rng, 5, 4)), delay_steps=1),
        ],
    )


def _forced(rng: np.random.Generator) -> Network:
    made = mlp(rng, 6, 5, 4)
    return network(list(made.populations), list(made.projections), feedback=(("n1", "n2"),))


#: Networks of every kind that the engines run, by name.
KINDS: dict[str, Callable[[np.random.Generator], Network]] = {
    "mlp": lambda rng: mlp(rng, 8, 7, 5),
    "mlp slow": lambda rng: mlp(rng, 8, 7, 5, neuron=lif(8, threshold=0.25)),
    "subtract": lambda rng: mlp(rng, 8, 7, 5, neuron=lif(reset="subtract")),
    "amount": lambda rng: mlp(rng, 8, 7, 5, neuron=lif(reset="subtract", reset_amount=0.375)),
    "leak and reset": lambda rng: mlp(rng, 8, 7, 5, neuron=lif(v_leak=0.125, v_reset=-0.25, r=2.0)),
    "if": lambda rng: mlp(rng, 8, 7, 5, neuron=integrate_and_fire()),
    "if physical": lambda rng: mlp(
        rng, 8, 7, 5, neuron=integrate_and_fire(r=1024.0, r_unit="physical"), dt_s=2.0**-10
    ),
    "cuba": lambda rng: mlp(rng, 8, 7, 5, neuron=cuba()),
    "threshold": lambda rng: mlp(rng, 8, 7, 5, neuron=Threshold(threshold=np.array(0.5))),
    "per neuron": lambda rng: row(
        (6,),
        Dense(weight=grid(rng, 4, 6)),
        lif([2.0, 4.0, 8.0, 2.0], threshold=[0.5, 0.25, 0.125, 1.0], r=[1.0, 2.0, 1.0, 0.5]),
    ),
    "per channel": lambda rng: row(
        (1, 5, 5), Conv2d(weight=grid(rng, 2, 1, 3, 3)), lif(threshold=[0.25, 0.5])
    ),
    "li": lambda rng: row(
        (6,),
        Dense(weight=grid(rng, 5, 6)),
        lif(),
        Dense(weight=grid(rng, 3, 5), bias=grid(rng, 3)),
        leaky(),
        readout=Readout(kind="max"),
    ),
    "cuba li": lambda rng: row(
        (6,), Dense(weight=grid(rng, 3, 6)), cuba_leaky(), readout=Readout(kind="last")
    ),
    "integrator": lambda rng: row(
        (6,),
        Dense(weight=grid(rng, 3, 6)),
        Integrator(r=np.array(1024.0)),
        dt_s=2.0**-10,
        readout=Readout(kind="mean"),
    ),
    "sums": lambda rng: row(
        (6,), Dense(weight=grid(rng, 3, 6)), Relay(), readout=Readout(kind="mean")
    ),
    "conv": conv_net,
    "conv dilated": lambda rng: row(
        (2, 7, 6),
        Conv2d(weight=grid(rng, 3, 2, 3, 2), dilation=(2, 1), padding=(1, 2, 0, 1), stride=(1, 2)),
        lif(),
    ),
    "conv1d": lambda rng: row(
        (4, 9),
        Conv1d(weight=grid(rng, 6, 2, 3), bias=grid(rng, 6), stride=2, padding=(1, 2), groups=2),
        lif(),
        Dense(weight=grid(rng, 3, 30)),
        lif(),
    ),
    "pools": lambda rng: row(
        (2, 7, 7),
        Pool2d(kind="sum", kernel=(2, 3), stride=(2, 1), padding=(1, 0, 0, 1)),
        Threshold(threshold=np.array(1.5)),
        Pool2d(kind="avg", kernel=(2, 2), stride=(2, 2)),
        Dense(weight=grid(rng, 3, 2 * 2 * 3)),
        lif(),
    ),
    "skip": _skip,
    "recurrent": _recurrent,
    "delays": _delays,
    "forced feedback": _forced,
}
