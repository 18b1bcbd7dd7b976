"""Random networks of every NIR primitive, and their equations written out once more.

Weights are multiples of 1/8 and time constants 2 or 8 steps, so that sums are exact in float64 in
any order and membranes meet their thresholds exactly now and then. Nothing here uses the package's
engines or its schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, shortest_path

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
    Diagonal,
    Identity,
    Integrator,
    Network,
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
Draw = Callable[[Any], Any]
Shape = tuple[int, ...]


def _grid(rng: np.random.Generator, *shape: int) -> Array:
    weights = rng.integers(-8, 9, shape) / 8
    return (weights * (rng.random(shape) < 0.7)).astype(np.float32)


def _bias(draw: Draw, rng: np.random.Generator, n: int) -> Array | None:
    return _grid(rng, n) / 4 if draw(st.booleans()) else None


def _parameter(draw: Draw, rng: np.random.Generator, shape: Shape, values: list[float]) -> Array:
    """Return one value, or one per channel or neuron, drawn from ``values``."""
    form = draw(st.sampled_from(["scalar", "scalar", "channel", "neuron"]))
    if form == "scalar":
        return np.asarray(draw(st.sampled_from(values)))
    if form == "channel":
        return rng.choice(values, shape[0])
    return rng.choice(values, shape)


def _neuron(draw: Draw, rng: np.random.Generator, shape: Shape, *, spiking: bool) -> Any:
    forms = []

    def value(*values: float) -> Array:
        array = _parameter(draw, rng, shape, list(values))
        # All arrays of a neuron have one form: the first that is drawn decides.
        if array.ndim and forms and array.shape != forms[0]:
            array = np.asarray(values[0])
        if array.ndim and not forms:
            forms.append(array.shape)
        return array

    start: dict[str, Any] = {}
    if draw(st.integers(0, 3)) == 0:
        start["v_init"] = value(0.25, -0.5)
    kind = draw(st.sampled_from(["LIF", "IF", "CubaLIF", "Threshold"] if spiking else
                                ["LI", "CubaLI", "I"]))  # fmt: skip
    tau, tau_syn = value(2 * DT, 8 * DT), value(2 * DT)
    leak, r = value(0.0, 0.0, 0.25), value(1.0, 2.0)
    if kind == "LI":
        return LI(tau_s=tau, r=r, v_leak=leak, **start)
    if kind == "CubaLI":
        w_in = value(1.0, 2.0)
        return CubaLI(tau_syn_s=tau_syn, tau_mem_s=tau, r=r, v_leak=leak, w_in=w_in, **start)
    if kind == "I":
        return Integrator(r=value(500.0, 1000.0), **start)
    threshold = value(0.5, 0.25, 1.0)
    if kind == "Threshold":
        return Threshold(threshold=threshold)
    fire: dict[str, Any] = {"v_threshold": threshold, "v_reset": value(0.0, 0.0, -0.25), **start}
    if draw(st.booleans()):
        fire["reset"] = "subtract"
        if draw(st.booleans()):
            fire["reset_amount"] = value(0.5, 0.75)
    if kind == "LIF":
        return LIF(tau_s=tau, r=r, v_leak=leak, **fire)
    if kind == "IF":
        physical = draw(st.booleans())
        unit = {"r": value(500.0, 1000.0), "r_unit": "physical"} if physical else {"r": r}
        return IF(**unit, **fire)
    return CubaLIF(tau_syn_s=tau_syn, tau_mem_s=tau, r=r, v_leak=leak, w_in=value(1.0, 2.0), **fire)


def _conv2d(draw: Draw, rng: np.random.Generator, shape: Shape) -> Conv2d:
    channels, height, width = shape
    groups = draw(st.sampled_from([g for g in (1, 2) if channels % g == 0]))
    kernel = (draw(st.integers(1, min(3, height))), draw(st.integers(1, min(3, width))))
    out = groups * draw(st.integers(1, 2))
    weight = _grid(rng, out, channels // groups, *kernel)
    how: dict[str, Any] = {"groups": groups, "bias": _bias(draw, rng, out)}
    if draw(st.booleans()):  # torch's padding "same": the odd pixel at the end
        extra = [k - 1 for k in kernel]
        sides = tuple(side for e in extra for side in (e // 2, e - e // 2))
        return Conv2d(weight=weight, padding=sides, **how)
    top, left = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    dilation = tuple(
        draw(st.integers(1, 2)) if (k - 1) * 2 < n else 1
        for k, n in zip(kernel, shape[1:], strict=True)
    )
    stride = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    return Conv2d(
        weight=weight, padding=(top, top, left, left), dilation=dilation, stride=stride, **how
    )


def _operator(draw: Draw, rng: np.random.Generator, shape: Shape) -> Synapse:
    kinds = ["dense", "scale"]
    kinds += {1: [], 2: ["conv1d"] * 3, 3: ["conv2d"] * 3 + ["pool"]}[len(shape)]
    kind = draw(st.sampled_from(kinds))
    if kind == "dense":
        out = draw(st.integers(1, 6))
        return Dense(weight=_grid(rng, out, int(np.prod(shape))), bias=_bias(draw, rng, out))
    if kind == "scale":
        held = draw(st.sampled_from([shape, (), (shape[0], *(1 for _ in shape[1:])), shape[-1:]]))
        return Diagonal(scale=rng.choice([1.0, 0.5, 2.0, -1.0], held))
    if kind == "conv2d":
        return _conv2d(draw, rng, shape)
    if kind == "pool":
        kernel = (draw(st.integers(1, min(2, shape[1]))), draw(st.integers(1, min(2, shape[2]))))
        pad = draw(st.integers(0, 1)) if min(kernel) > 1 else 0
        return Pool2d(
            kind=draw(st.sampled_from(["sum", "avg"])),
            kernel=kernel,
            stride=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
            padding=(pad, pad, pad, pad),
        )
    groups = draw(st.sampled_from([g for g in (1, 2) if shape[0] % g == 0]))
    kernel1 = draw(st.integers(1, min(3, shape[1])))
    out = groups * draw(st.integers(1, 2))
    pad = draw(st.integers(0, 2))
    return Conv1d(
        weight=_grid(rng, out, shape[0] // groups, kernel1),
        bias=_bias(draw, rng, out),
        stride=draw(st.integers(1, 2)),
        padding=(pad, pad),
        groups=groups,
    )


def _delay(draw: Draw, rng: np.random.Generator, pre: int, post: int, mixes: bool) -> int | Array:
    form = draw(st.sampled_from(["none", "none", "none", "one", "source", "target"]))
    if form == "none":
        return 0
    if form == "one":
        return draw(st.integers(1, 3))
    if form == "source" or not mixes:
        return rng.integers(0, 4, (1, pre))
    return rng.integers(0, 4, (post, 1))


def _mixes(chain: tuple[Synapse, ...]) -> bool:
    return any(not isinstance(s, Diagonal | Identity) for s in chain)


@st.composite
def networks(draw: Draw, *, loops: bool = True, delays: bool = True) -> Network:
    """Draw a network of 1 or 2 inputs, 1 to 5 populations of any kind, loops and skips."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = st.sampled_from([(4,), (6,), (2, 6), (2, 5, 4), (1, 4, 4), (3, 3, 2)])
    populations = [
        Population(name=f"in{i}", shape=draw(shapes), neuron=Relay(), origin=f"in{i}")
        for i in range(draw(st.integers(1, 2)))
    ]
    inputs = tuple(p.name for p in populations)
    projections: list[Projection] = []

    def join(pre: Population, post: Population, chain: tuple[Synapse, ...]) -> None:
        name = f"w{len(projections)}"
        delay = _delay(draw, rng, pre.size, post.size, _mixes(chain)) if delays else 0
        projections.append(
            Projection(
                name=name, pre=pre.name, post=post.name, synapses=chain, delay_steps=delay,
                origin=name,
            )
        )  # fmt: skip

    for i in range(draw(st.integers(1, 5))):
        sources = [p for p in populations if p.neuron.step(DT).threshold is not None
                   or p.name in inputs]  # fmt: skip
        pre = sources[-1] if draw(st.booleans()) else draw(st.sampled_from(sources))
        chain: tuple[Synapse, ...] = ()
        shape = pre.shape
        for _ in range(draw(st.integers(1, 2))):
            chain += (_operator(draw, rng, shape),)
            shape = chain[-1].out_shape(shape)
        name = f"n{i}"
        spiking = draw(st.integers(0, 4)) > 0
        neuron = _neuron(draw, rng, shape, spiking=spiking)
        post = Population(name=name, shape=shape, neuron=neuron, origin=name)
        join(pre, post, chain)
        populations.append(post)
        for other in sources:
            if draw(st.integers(0, 4)) == 0:
                skip = Dense(weight=_grid(rng, post.size, other.size))
                join(other, post, (Identity(),) if other.shape == post.shape else (skip,))
        back = [p for p in populations if p.name not in inputs]
        if loops and spiking and draw(st.integers(0, 2)) == 0:
            target = draw(st.sampled_from(back))
            join(post, target, (Dense(weight=_grid(rng, target.size, post.size)),))
    last = populations[-1]
    outputs = (last.name,)
    if draw(st.integers(0, 3)) == 0 and len(populations) > len(inputs) + 1:
        outputs = (populations[-2].name, last.name)
    silent = any(p.neuron.step(DT).threshold is None for p in populations if p.name in outputs)
    return check(
        Network(
            populations=tuple(populations),
            projections=tuple(projections),
            inputs=inputs,
            outputs=outputs,
            dt_s=DT,
            readout=Readout(kind="mean" if silent else "count"),
            coding=Coding(kind="events"),
        )
    )


# ------------------------------------------------------------------- the equations, once more


def waits_in(network: Network) -> dict[str, int]:
    """Return 1 for each projection that carries the previous step's values: in a loop, where it
    does not lead further from the inputs."""
    index = {p.name: i for i, p in enumerate(network.populations)}
    n = len(index)
    table = np.zeros((n + 1, n + 1))
    for p in network.projections:
        table[index[p.pre], index[p.post]] = 1
    loops = connected_components(csr_array(table[:n, :n]), connection="strong")[1]
    for name in network.inputs:
        table[n, index[name]] = 1
    far = shortest_path(csr_array(table), unweighted=True, indices=n)
    far = np.where(np.isinf(far), 1, far)  # what no input reaches counts as an input
    return {
        p.name: int(
            loops[index[p.pre]] == loops[index[p.post]] and far[index[p.post]] <= far[index[p.pre]]
        )
        for p in network.projections
    }


def _window(x: Array, kernel: Shape, stride: Shape, dilation: Shape, pad: Shape) -> Array:
    """Return (C, H', W', kH, kW) views of a zero-padded image."""
    top, bottom, left, right = pad
    x = np.pad(x, ((0, 0), (top, bottom), (left, right)))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(1, 2))
    return view[:, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def _through(synapse: Synapse, x: Array) -> Array:
    if isinstance(synapse, Dense):
        y = synapse.weight.astype(np.float64) @ x.ravel()
        return y if synapse.bias is None else y + synapse.bias
    if isinstance(synapse, Identity):
        return x
    if isinstance(synapse, Diagonal):
        return x * synapse.scale
    if isinstance(synapse, Pool2d):
        view = _window(x, synapse.kernel, synapse.stride, (1, 1), synapse.padding)
        return view.sum((3, 4)) if synapse.kind == "sum" else view.mean((3, 4))
    if isinstance(synapse, Conv1d):
        flat = Conv2d(
            weight=synapse.weight[:, :, None], bias=synapse.bias, stride=(1, synapse.stride),
            padding=(0, 0, *synapse.padding), dilation=(1, synapse.dilation), groups=synapse.groups,
        )  # fmt: skip
        return _through(flat, x[:, None])[:, 0]
    assert isinstance(synapse, Conv2d)
    kernel = synapse.weight.shape[2:]
    view = _window(x, kernel, synapse.stride, synapse.dilation, synapse.padding)
    view = view.reshape(synapse.groups, -1, *view.shape[1:])
    weight = synapse.weight.astype(np.float64)
    weight = weight.reshape(synapse.groups, -1, *synapse.weight.shape[1:])
    y = np.einsum("goikl,giyxkl->goyx", weight, view)
    y = y.reshape(-1, *y.shape[2:])
    return y if synapse.bias is None else y + synapse.bias[:, None, None]


def _spread(value: Any, shape: Shape) -> Array:
    array = np.asarray(value, np.float64)
    if array.ndim == 1 and len(shape) > 1:
        array = array.reshape(-1, *[1] * (len(shape) - 1))
    return np.broadcast_to(array, shape)


def euler(network: Network, x: dict[str, Array]) -> dict[str, dict[str, Array]]:
    """Return population -> {"z", "v"} over steps, for one sample's inputs (steps, *shape).

    Each neuron type's differential equation, one forward-Euler step at a time.
    """
    waits = waits_in(network)
    steps = len(next(iter(x.values())))
    past: dict[str, list[Array]] = {name: list(map(np.asarray, x[name])) for name in x}
    cells = {p.name: p for p in network.populations if p.name not in x}
    state: dict[str, dict[str, Array]] = {}
    seen: dict[str, dict[str, list[Array]]] = {name: {"z": [], "v": []} for name in cells}
    for name, p in cells.items():
        start = getattr(p.neuron, "v_init", None)
        v = _spread(0.0 if start is None else start, p.shape)
        state[name] = {"i": np.zeros(p.shape), "v": v}
        past[name] = []

    def arriving(projection: Projection, t: int) -> Array:
        pre, post = (network.population(n) for n in (projection.pre, projection.post))
        delay = np.asarray(projection.delay_steps) + waits[projection.name]

        def sent(steps_ago: Array) -> Array:
            flat = np.zeros(pre.size)
            for j, ago in enumerate(np.broadcast_to(steps_ago, pre.size)):
                if ago <= t:
                    flat[j] = past[pre.name][t - int(ago)].ravel()[j]
            return flat.reshape(pre.shape)

        if delay.ndim == 0 or delay.shape[0] == 1:
            value = sent(delay.reshape(-1))
            for synapse in projection.synapses:
                value = _through(synapse, value)
            return value.reshape(post.shape)
        rows = np.zeros(post.size)
        for ago in np.unique(delay):
            value = sent(np.array([ago]))
            for synapse in projection.synapses:
                value = _through(synapse, value)
            here = delay[:, 0] == ago
            rows[here] = value.reshape(-1)[here]
        return rows.reshape(post.shape)

    for t in range(steps):
        todo = list(cells)
        while todo:
            for name in todo:
                into = [p for p in network.projections if p.post == name]
                ready = all(waits[p.name] or p.pre in x or len(past[p.pre]) > t for p in into)
                if ready:
                    break
            else:
                raise AssertionError("a loop within a step")
            todo.remove(name)
            current = sum((arriving(p, t) for p in into), np.zeros(cells[name].shape))
            z, v = _cell(cells[name], state[name], current)
            past[name].append(z)
            seen[name]["z"].append(z)
            seen[name]["v"].append(v)
    return {n: {k: np.array(v) for k, v in s.items()} for n, s in seen.items()}


def _cell(population: Population, state: dict[str, Array], current: Array) -> tuple[Array, Array]:
    n, shape = population.neuron, population.shape
    get = lambda name: _spread(getattr(n, name), shape)
    if isinstance(n, Threshold):
        return (current > get("threshold")).astype(float), current
    v = state["v"]
    if isinstance(n, CubaLIF | CubaLI):
        state["i"] = state["i"] + DT / get("tau_syn_s") * (get("w_in") * current - state["i"])
        current = state["i"]
    if isinstance(n, IF):
        v = v + get("r") * current * (DT if n.r_unit == "physical" else 1.0)
    elif isinstance(n, Integrator):
        v = v + DT * get("r") * current
    else:
        tau = get("tau_mem_s") if isinstance(n, CubaLIF | CubaLI) else get("tau_s")
        v = v + DT / tau * (get("v_leak") - v + get("r") * current)
    z = v
    if isinstance(n, LIF | IF | CubaLIF):
        fired = v > get("v_threshold")
        z = fired.astype(float)
        if n.reset == "value":
            v = np.where(fired, get("v_reset"), v)
        else:
            v = v - z * (get("v_threshold") if n.reset_amount is None else get("reset_amount"))
    state["v"] = v
    return z, v
