"""Networks, settings and inputs that the accelerator has to agree on, by family and seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from snn_deploy.backends.base import Options, Program
from snn_deploy.backends.fpga.oracle import RtlOracle
from snn_deploy.backends.fpga.simulate import Files, files
from snn_deploy.backends.fpga.target import FpgaTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.backends.verify import Verdict, verify
from snn_deploy.ir import (
    Coding,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Dense,
    Integrator,
    Network,
    Neuron,
    Pool2d,
    Readout,
    Relay,
    Synapse,
    Threshold,
)
from snn_deploy.ir.arrays import Array
from tests import builders as b

Rng = np.random.Generator
#: Share of the input that spikes.
ACTIVITY = {"silent": 0.0, "sparse": 0.08, "half": 0.5, "full": 1.0}
#: Settings that allow one format of rows more each; which one is taken is the lowering's choice.
FORMATS = {
    "csr": {"dense_rows": 0, "bitmap_rows": 0},
    "bitmap": {"dense_rows": 0, "bitmap_rows": 1},
    "dense": {"dense_rows": 1, "bitmap_rows": 0},
}
#: Steps of which a readout's window counts some, and for which a cutoff has thresholds.
WINDOW_STEPS = 6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """A network, the target's settings, and its input (samples, steps, *shape)."""

    network: Network
    settings: dict[str, int]
    x: Array

    def program(self) -> Program:
        """Return the FPGA target's program."""
        return prepare(self.network, FpgaTarget(), Options(settings=self.settings))

    def verdict(self, files: Files = files) -> Verdict:
        """Return what verify finds under Verilator."""
        return verify(FpgaTarget(), self.program(), self.x, oracle=RtlOracle(files))


def mismatch(verdict: Verdict) -> str:
    """Return what is not equal, "" where all is."""
    if verdict.equal:
        return ""
    found = {} if verdict.proof is None else dict(verdict.proof.mismatches)
    return f"{verdict.first}; {found}, lowering {dict(verdict.lowering.mismatches)}"


def case(
    family: str, seed: int, settings: dict[str, int], *, activity: str = "half", steps: int = 5
) -> Case:
    """Return the case of a family and a seed; steps: at least those that its readout counts."""
    rng = np.random.default_rng(seed)
    network = FAMILIES[family](rng)
    if network.readout.window is not None:
        steps = max(steps, network.readout.window[1])
    size = (3, steps, *network.input_population.shape)
    x = (rng.random(size) < ACTIVITY[activity]).astype(np.uint8)
    if network.coding.kind == "direct":
        return Case(network=network, settings=settings, x=x * rng.uniform(-1, 1, size))
    return Case(network=network, settings=settings, x=x)


def random_case(seed: int) -> tuple[str, Case]:
    """Return a case with random family, settings and input, and how it is called."""
    rng = np.random.default_rng(seed)
    family = list(FAMILIES)[rng.integers(len(FAMILIES))]
    form = list(FORMATS)[rng.integers(3)]
    settings = {
        "banks": 1 << int(rng.integers(5)),
        "fifo_depth": 2 << int(rng.integers(3)),
        "engines": int(rng.integers(3)),
        **FORMATS[form],
    }
    activity = str(rng.choice(list(ACTIVITY), p=[0.1, 0.3, 0.4, 0.2]))
    steps = int(rng.choice([1, 2, 4, 7]))
    steps = min(steps, WINDOW_STEPS) if family == "votes" else steps
    made = case(family, seed, settings, activity=activity, steps=steps)
    return f"{seed}: {family}, {settings}, {activity}, {steps} steps", made


def spiking(rng: Rng, shape: tuple[int, ...]) -> Neuron:
    """Return a spiking neuron of a random kind, some of its parameters different for each."""

    def each(low: float, high: float) -> Any:
        """Return one value, one per channel, or one per neuron."""
        size = ((), shape[:1] + (1,) * (len(shape) - 1), shape)[rng.integers(3)]
        return np.broadcast_to(np.round(rng.uniform(low, high, size) * 8) / 8, shape).copy()

    threshold = each(0.125, 1)
    how: dict[str, Any] = {}
    if rng.random() < 0.4:
        how["v_init"] = each(-0.5, 0.5)
    if rng.random() < 0.5:
        how["reset"] = "subtract"
    else:
        how["v_reset"] = each(-0.25, 0)
    kind = rng.integers(5)
    if kind == 0:
        return b.integrate_and_fire(threshold, **how)
    if kind == 1:
        return Threshold(threshold=threshold)
    how["v_leak"] = each(-0.25, 0.25)
    if kind == 2:
        return b.cuba(2, 4, threshold, **how)
    return b.lif(2.0 ** rng.integers(1, 4, shape), threshold, **how)


def silent(rng: Rng, shape: tuple[int, ...]) -> Neuron:
    """Return a neuron that never spikes."""
    kind = rng.integers(3)
    if kind == 0:
        return b.leaky(2.0 ** rng.integers(1, 4, shape), v_init=rng.integers(-4, 5, shape) / 8)
    if kind == 1:
        return b.cuba_leaky()
    return Integrator(r=np.array(1 / b.DT))


def weights(rng: Rng, *shape: int, density: float) -> Array:
    """Return weights of which three quarters excite, so that deep layers spike too."""
    weight = b.grid(rng, *shape, density=density)
    return np.where(rng.random(shape) < 0.5, np.abs(weight), weight)


def dense(rng: Rng, post: int, pre: int, neuron: Neuron | None = None) -> Dense:
    """Return weights of random density, some rows empty, and a bias if ``neuron`` takes one.

    A bias into a synaptic current becomes a population that nothing feeds, which is refused.
    """
    weight = weights(rng, post, pre, density=float(rng.choice([0.1, 0.5, 1.0])))
    weight[:, rng.random(pre) < 0.1] = 0
    return Dense(weight=weight, bias=_bias(rng, post) if takes_bias(neuron) else None)


def takes_bias(neuron: Neuron | None) -> bool:
    """Return whether a neuron takes a bias; none is asked for without a neuron."""
    return neuron is not None and not isinstance(neuron, CubaLIF | CubaLI)


def _bias(rng: Rng, size: int) -> Array | None:
    return b.grid(rng, size) / 4 if rng.random() < 0.5 else None


def without_bias(synapse: Conv1d | Conv2d, neuron: Neuron) -> Conv1d | Conv2d:
    """Return a convolution without its bias where ``neuron`` takes none."""
    return synapse if takes_bias(neuron) else replace(synapse, bias=None)


def conv(rng: Rng, shape: tuple[int, ...]) -> Conv2d:
    """Return a convolution with random kernel, stride, padding, dilation and groups."""
    groups = 2 if shape[0] % 2 == 0 and rng.random() < 0.4 else 1
    out = groups * int(rng.integers(1, 4))
    kernel = rng.integers(1, 4, 2)
    weight = weights(rng, out, shape[0] // groups, *kernel, density=0.8)
    return Conv2d(
        weight=weight,
        bias=_bias(rng, out),
        stride=tuple(int(s) for s in rng.integers(1, 3, 2)),
        padding=tuple(int(p) for p in rng.integers(0, 3, 4)),
        dilation=tuple(int(d) for d in rng.integers(1, 3, 2)),
        groups=groups,
    )


def pool(rng: Rng, tiling: bool) -> Pool2d:
    """Return a sum pool whose windows tile the input, or overlap."""
    if tiling:
        return Pool2d(kind="sum", kernel=(2, 2), stride=(2, 2))
    return Pool2d(kind="sum", kernel=(2, 3), stride=(1, 2), padding=(1, 0, 0, 1))


def _kinds(rng: Rng) -> Network:
    return list(b.KINDS.values())[rng.integers(len(b.KINDS))](rng)


def _layers(rng: Rng) -> Network:
    sizes = rng.integers(1, 40, int(rng.integers(2, 5)))
    parts: list[Synapse | Neuron] = []
    for pre, post in zip(sizes[:-1].tolist(), sizes[1:].tolist(), strict=True):
        neuron = spiking(rng, (post,))
        parts += [dense(rng, post, pre, neuron), neuron]
    return b.row((int(sizes[0]),), *parts)


def _shaped(rng: Rng) -> Network:
    shape = (int(rng.integers(1, 4)), int(rng.integers(6, 9)), int(rng.integers(6, 9)))
    start = shape
    parts: list[Synapse | Neuron] = []
    for _ in range(int(rng.integers(1, 4))):
        if min(shape[1:]) >= 4 and rng.random() < 0.5:
            parts.append(pool(rng, tiling=bool(rng.random() < 0.6)))
            shape = parts[-1].out_shape(shape)
        if min(shape[1:]) < 5:  # the largest kernel
            break
        made = conv(rng, shape)
        shape = made.out_shape(shape)
        neuron = spiking(rng, shape)
        parts += [without_bias(made, neuron), neuron]
    if rng.random() < 0.4 and min(shape[1:]) >= 2:
        parts.append(pool(rng, tiling=True))
        shape = parts[-1].out_shape(shape)
    parts += [dense(rng, 5, int(np.prod(shape)), b.lif()), b.lif()]
    return b.row(start, *parts)


def _conv1d(rng: Rng) -> Network:
    groups = int(rng.integers(1, 3))
    first = Conv1d(
        weight=b.grid(rng, 6, 4 // groups, 3),
        bias=b.grid(rng, 6) / 4,
        stride=int(rng.integers(1, 3)),
        padding=tuple(int(p) for p in rng.integers(0, 3, 2)),
        dilation=int(rng.integers(1, 3)),
        groups=groups,
    )
    shape = first.out_shape((4, 11))
    neuron = spiking(rng, shape)
    last = dense(rng, 3, int(np.prod(shape)), b.lif())
    return b.row((4, 11), without_bias(first, neuron), neuron, last, b.lif())


def joined(rng: Rng) -> Network:
    """Return kernels and full rows into one population, recurrence, and delays of all kinds."""
    same = {"padding": (1, 1, 1, 1)}
    delays = rng.integers(0, 4, (5, 24))
    return b.network(
        [
            b.population("in", (2, 6, 6), Relay()),
            b.population("a", (3, 6, 6), spiking(rng, (3, 6, 6))),
            b.population("b", (24,), spiking(rng, (24,))),
            b.population("out", (5,), b.lif()),
        ],
        [
            b.projection("in", "a", Conv2d(weight=b.grid(rng, 3, 2, 3, 3), **same)),
            b.projection("in", "a", Conv2d(weight=b.grid(rng, 3, 2, 1, 1)), name="late",
                         delay_steps=2),
            b.projection("a", "a", Conv2d(weight=b.grid(rng, 3, 3, 3, 3), **same)),
            b.projection("a", "b", pool(rng, tiling=True), dense(rng, 24, 27)),
            b.projection("b", "a", dense(rng, 108, 24)),
            b.projection("b", "b", dense(rng, 24, 24), delay_steps=int(rng.integers(3))),
            b.projection("b", "out", dense(rng, 5, 24), delay_steps=delays),
            b.projection("in", "out", dense(rng, 5, 72)),
        ],
    )  # fmt: skip


def _votes(rng: Rng) -> Network:
    windows = (None, (0, 2), (1, 5), (2, WINDOW_STEPS))
    cutoff = rng.choice([0.0, 1.0, 1.5, 2.0, np.inf], WINDOW_STEPS)
    groups = 3 if rng.random() < 0.5 else None
    readout = Readout(
        kind="vote" if groups else "count",
        groups=groups,
        window=windows[rng.integers(4)],
        cutoff=tuple(cutoff.tolist()) if rng.random() < 0.7 else None,
    )
    hidden = spiking(rng, (20,))
    return b.row(
        (9,),
        dense(rng, 20, 9, hidden),
        hidden,
        Dense(weight=b.grid(rng, 12, 20)),
        spiking(rng, (12,)),
        readout=readout,
    )


def _membranes(rng: Rng) -> Network:
    hidden = spiking(rng, (20,))
    neuron = silent(rng, (5,)) if rng.random() < 0.8 else b.lif(4)
    window = (1, 4) if rng.random() < 0.3 else None
    return b.row(
        (9,),
        dense(rng, 20, 9, hidden),
        hidden,
        dense(rng, 5, 20, neuron),
        neuron,
        readout=Readout(kind=str(rng.choice(["last", "max", "mean"])), window=window),
    )


def _graded(rng: Rng) -> Network:
    if rng.random() < 0.5:
        start: tuple[int, ...] = (2, 6, 7)
        made = conv(rng, start)
        shape = made.out_shape(start)
        neuron = spiking(rng, shape)
        first: Synapse = without_bias(made, neuron)
    else:
        start, shape = (12,), (17,)
        neuron = spiking(rng, shape)
        first = dense(rng, 17, 12, neuron)
    return b.row(
        start,
        first,
        neuron,
        dense(rng, 5, int(np.prod(shape)), b.lif()),
        b.lif(),
        coding=Coding(kind="direct"),
    )


def saturating(rng: Rng) -> Network:
    """Return neurons whose membranes leave 16 bits on either side."""
    strong = np.sign(b.grid(rng, 14, 30)).astype(np.float32)
    strong[0], strong[1] = 1, -1
    back = b.integrate_and_fire(0.125, reset="subtract")
    return b.row(
        (30,), Dense(weight=strong), back, Dense(weight=b.grid(rng, 6, 14)), b.lif(8, 0.125)
    )


#: Every kind of network that the accelerator runs.
FAMILIES: dict[str, Callable[[Rng], Network]] = {
    "kinds": _kinds,
    "layers": _layers,
    "shaped": _shaped,
    "conv1d": _conv1d,
    "joined": joined,
    "votes": _votes,
    "membranes": _membranes,
    "graded": _graded,
    "saturating": saturating,
}
