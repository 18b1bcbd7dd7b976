"""Random networks of everything that Loihi's lowering takes, and many of them in one Lava run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from snn_deploy.backends.base import Options, Program
from snn_deploy.backends.loihi.decode import decode
from snn_deploy.backends.loihi.job import LavaJob
from snn_deploy.backends.loihi.oracle import job_of
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.device.load import load
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.ir import (
    IF,
    LI,
    LIF,
    Coding,
    Conv1d,
    Conv2d,
    Csr,
    CubaLI,
    CubaLIF,
    Dense,
    Diagonal,
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
from snn_deploy.ir.quantized import QPopulation
from snn_deploy.passes.pipeline import fold
from tests.builders import DT

SAMPLES, STEPS = 3, 9
SHAPES: tuple[tuple[int, ...], ...] = ((5,), (8,), (2, 6), (1, 5, 4), (2, 4, 4))
Rng = np.random.Generator


def draw(seed: int, *, waits: bool) -> tuple[Network, dict[str, Array]]:
    """Return a network and samples for each of its inputs; waits: with delays and loops."""
    rng = np.random.default_rng(seed)
    coding = "direct" if rng.random() < 0.25 else "events"
    populations = [
        Population(name=f"in{i}", shape=_choice(rng, SHAPES), neuron=Relay(), origin=f"in{i}")
        for i in range(rng.integers(1, 3))
    ]
    inputs = tuple(p.name for p in populations)
    projections: list[Projection] = []
    for i in range(int(rng.integers(2, 5))):
        sources = _sources(rng, populations, inputs, first=i == 0)
        chain, shape = _chain(rng, sources[0].shape, None)
        chains = [chain, *(_chain(rng, source.shape, shape)[0] for source in sources[1:])]
        population = Population(name=f"p{i}", shape=shape, neuron=_neuron(rng, shape), origin="")
        for source, synapses in zip(sources, chains, strict=True):
            projections.append(_edge(rng, source, population, synapses, late=waits))
        populations.append(population)
    last = populations[-1]
    if not _spikes(last):
        last = replace(last, neuron=_spiking(rng, last.shape))
        populations[-1] = last
    if waits:
        projections += _loops(rng, [p for p in populations if p.name not in inputs])
    used = {p.pre for p in projections}
    outputs = tuple(p.name for p in populations if p.name not in used and _spikes(p))
    network = check(
        Network(
            populations=tuple(populations),
            projections=tuple(projections),
            inputs=inputs,
            outputs=outputs or (last.name,),
            dt_s=DT,
            readout=Readout(kind="count"),
            coding=Coding(kind=coding, steps=STEPS),
        )
    )
    x = {
        p.name: rng.random((SAMPLES, STEPS, *p.shape)).astype(np.float32)
        if coding == "direct"
        else (rng.random((SAMPLES, STEPS, *p.shape)) < 0.4).astype(np.uint8)
        for p in populations
        if p.name in inputs
    }
    return network, x


def program_of(network: Network, seed: int) -> Program:
    """Return the Loihi 2 program in random bits; every other one with numbers from all over."""
    rng = np.random.default_rng((seed, 1))
    options = Options(
        device=load("loihi2"),
        bits=int(rng.integers(1, 9)),
        analogue=_choice(rng, ("bias", "graded")),
    )
    target = LoihiTarget()
    program = prepare(fold(network), target, options)
    if seed % 2:
        return program
    qnet = program.qnet
    assert qnet is not None
    wild = {n: _wild(rng, q, qnet.network.population(n).size) for n, q in qnet.populations.items()}
    program = target.lower(program.real, replace(qnet, populations=wild), options)
    synapses = tuple(
        # Sums of large values on graded spikes leave no room for exponents.
        replace(s, exponent=0 if s.payload_bits else int(rng.choice((0, 2, 7))))
        for s in program.payload.synapses
    )
    return replace(program, payload=replace(program.payload, synapses=synapses))


def engine_of(program: Program) -> FixedEngine:
    """Return the integer engine of what the program's own numbers say."""
    assert program.qnet is not None
    return FixedEngine(decode(program.payload, program.qnet))


def joined(programs: Sequence[tuple[Program, Mapping[str, Array]]]) -> LavaJob:
    """Return one job of all programs; names of program i start with ``i/``."""
    jobs = [job_of(program, x) for program, x in programs]
    parts: dict[str, list[Any]] = {"inputs": [], "populations": [], "projections": []}
    for i, job in enumerate(jobs):
        for node in job.inputs:
            parts["inputs"].append(replace(node, name=f"{i}/{node.name}"))
        for node in job.populations:
            parts["populations"].append(replace(node, name=f"{i}/{node.name}"))
        for edge in job.projections:
            ends = {"pre": f"{i}/{edge.pre}", "post": f"{i}/{edge.post}"}
            parts["projections"].append(replace(edge, **ends))
    return LavaJob(
        inputs=tuple(parts["inputs"]),
        populations=tuple(parts["populations"]),
        projections=tuple(parts["projections"]),
        gap=max(job.gap for job in jobs),
    )


def _choice(rng: Rng, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def _spikes(population: Population) -> bool:
    return population.neuron.step(DT).threshold is not None


def _sources(
    rng: Rng, populations: list[Population], inputs: tuple[str, ...], *, first: bool
) -> list[Population]:
    """Return one to three populations to be fed by; the first feeds on every input."""
    if first:
        return [p for p in populations if p.name in inputs]
    open_ = [p for p in populations if p.name in inputs or _spikes(p)]
    count = min(len(open_), int(rng.integers(1, 4)))
    return [open_[i] for i in rng.permutation(len(open_))[:count]]


def _weights(rng: Rng, *shape: int) -> Array:
    weights = rng.normal(0, 1.0, shape) * (rng.random(shape) < rng.uniform(0.3, 1))
    sign = rng.integers(4)
    if sign == 0:
        weights = abs(weights)
    elif sign == 1 and rng.random() < 0.5:
        weights = -abs(weights)
    weights.flat[0] = 1.0 if sign != 1 else -1.0  # never all zero
    return weights.astype(np.float32)


def _bias(rng: Rng, size: int) -> Array | None:
    return None if rng.random() < 0.5 else rng.normal(0.1, 0.3, size).astype(np.float32)


def _chain(
    rng: Rng, shape: tuple[int, ...], post: tuple[int, ...] | None
) -> tuple[tuple[Synapse, ...], tuple[int, ...]]:
    """Return operators from ``shape`` to ``post``, or to a shape of their own."""
    if post is not None or len(shape) == 1 or min(shape[1:]) < 4 or rng.random() < 0.2:
        post = post or _choice(rng, SHAPES)
        if post == shape and rng.random() < 0.4:
            return (Identity() if rng.random() < 0.5 else Diagonal(scale=np.array(1.5)),), post
        weight = _weights(rng, int(np.prod(post)), int(np.prod(shape)))
        bias = _bias(rng, weight.shape[0])
        if rng.random() < 0.5:
            return (Csr.from_dense(weight, bias),), post
        return (Dense(weight=weight, bias=bias),), post
    chain: list[Synapse] = []
    here = shape
    if len(shape) == 3 and rng.random() < 0.4:
        alone = rng.random() < 0.4
        # Windows that overlap, behind them a convolution: sums that 8 bits do not hold.
        stride = (1, 1) if alone and rng.random() < 0.5 else (2, 2)
        chain.append(Pool2d(kind=_choice(rng, ("sum", "avg")), kernel=(2, 2), stride=stride))
        here = chain[-1].out_shape(here)
        if alone:
            return tuple(chain), here
    conv = _conv(rng, here)
    chain.append(conv)
    return tuple(chain), conv.out_shape(here)


def _conv(rng: Rng, shape: tuple[int, ...]) -> Conv1d | Conv2d:
    groups = 2 if shape[0] == 2 and rng.random() < 0.3 else 1
    out = 2 * int(rng.integers(1, 3))
    stride, dilation = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    if len(shape) == 2:
        return Conv1d(
            weight=_weights(rng, out, shape[0] // groups, 2),
            bias=_bias(rng, out),
            stride=stride,
            padding=tuple(rng.integers(0, 2, 2).tolist()),  # type: ignore[arg-type]
            dilation=dilation,
            groups=groups,
        )
    tall, wide = rng.integers(0, 2, 2).tolist()
    padding = (tall, tall, wide, wide) if rng.random() < 0.7 else (1, 0, 0, 1)
    return Conv2d(
        weight=_weights(rng, out, shape[0] // groups, 2, 1),
        bias=_bias(rng, out),
        stride=(stride, 1),
        padding=padding,
        dilation=(1, dilation),
        groups=groups,
    )


def _neuron(rng: Rng, shape: tuple[int, ...]) -> Neuron:
    if rng.random() < 0.15:
        r = np.array(1.0)
        tau = np.array(rng.uniform(1, 9) * DT)
        leak = np.array(rng.normal(0, 0.2))
        return _choice(
            rng,
            (
                LI(tau_s=tau, r=r, v_leak=leak),
                CubaLI(tau_syn_s=2 * tau, tau_mem_s=tau, r=r, v_leak=leak, w_in=r),
                Integrator(r=np.array(1 / DT)),
            ),
        )
    return _spiking(rng, shape)


def _spiking(rng: Rng, shape: tuple[int, ...]) -> Neuron:
    each = shape if rng.random() < 0.3 else ()
    threshold = rng.uniform(0.1, 1.5, each)
    if rng.random() < 0.15:
        return Threshold(threshold=threshold)
    reset: dict[str, Any] = {"v_reset": np.zeros(each), "v_threshold": threshold}
    kind = rng.random()
    if kind < 0.2:
        reset |= {"reset": "subtract"}
        if rng.random() < 0.5:
            reset |= {"reset_amount": rng.uniform(0.1, 2, each)}
    elif kind < 0.4:
        reset |= {"v_reset": rng.uniform(-0.5, 0.05, each)}
    if rng.random() < 0.2:
        reset |= {"v_init": rng.uniform(-0.5, 0.5, each)}
    r = rng.uniform(0.5, 2, each)
    if rng.random() < 0.25:
        return IF(r=r, **reset)
    tau = rng.uniform(1, 9, each) * DT
    leak = rng.normal(0, 0.1, each)
    if rng.random() < 0.6:
        return LIF(tau_s=tau, r=r, v_leak=leak, **reset)
    slow = rng.uniform(1, 9, each) * DT
    return CubaLIF(tau_syn_s=slow, tau_mem_s=tau, r=r, v_leak=leak, w_in=r + 0.5, **reset)


def _edge(
    rng: Rng, pre: Population, post: Population, chain: tuple[Synapse, ...], *, late: bool
) -> Projection:
    delay: Any = 0
    if late and rng.random() < 0.3:
        delay = int(rng.integers(0, 4))
        if rng.random() < 0.5:
            delay = rng.integers(0, 4, _choice(rng, ((post.size, pre.size), (post.size, 1))))
    name = f"{pre.name}-{post.name}"
    return Projection(name=name, pre=pre.name, post=post.name, synapses=chain, delay_steps=delay)


def _loops(rng: Rng, computing: list[Population]) -> list[Projection]:
    """Return connections back, each with the delay that its longest way round needs."""
    loops = []
    for i, late in enumerate(computing):
        early = computing[int(rng.integers(0, i + 1))]
        if rng.random() < 0.25 and _spikes(late):
            chain, _ = _chain(rng, late.shape, early.shape)
            loops.append(
                Projection(
                    name=f"{late.name}-{early.name}-back",
                    pre=late.name,
                    post=early.name,
                    synapses=chain,
                    delay_steps=len(computing) + int(rng.integers(0, 2)) if early != late else 0,
                )
            )
    return loops


def _wild(rng: Rng, q: QPopulation, size: int) -> QPopulation:
    """Return integers from the whole range of their registers."""
    each = (size,) if rng.random() < 0.5 else ()
    top = 1 << 17 if rng.random() < 0.2 else 1 << int(rng.integers(1, 12))
    state = 1 << int(rng.integers(4, 23))
    changes: dict[str, Any] = {
        "decay_u": rng.integers(0, 4097, each),
        "decay_v": rng.integers(0, 4097, each) if rng.random() < 0.7 else np.array(0),
    }
    if q.threshold is not None:
        changes["threshold"] = rng.integers(0, top, each)
    if q.bias is not None:
        changes["bias"] = rng.integers(-4096, 4096, each)
    if q.reset == "value" and rng.random() < 0.5:
        changes["v_reset"] = rng.integers(-state, state, each)
    if q.reset == "subtract":
        changes["reset_amount"] = rng.integers(0, state, each)
    if rng.random() < 0.3:
        changes["v_init"] = rng.integers(-state, state, each)
    return replace(q, **{name: np.asarray(value, np.int64) for name, value in changes.items()})
