"""Synaptic operations against a loop over single spikes and single weights."""

from __future__ import annotations

from collections import Counter as Tally

import numpy as np
import pytest

from snn_deploy.backends.arithmetics import FPGA, LOIHI
from snn_deploy.engine.count import Counter
from snn_deploy.engine.event import EventEngine
from snn_deploy.ir import Coding, Conv1d, Conv2d, Csr, Dense, Pool2d, Readout
from snn_deploy.passes.pipeline import fold
from snn_deploy.passes.quantize import quantize
from tests.builders import KINDS, grid, leaky, lif, row, spikes


def connections(synapse, shape):
    """Yield (input index, output index, weight, learned) of an operator, zeros included."""
    size = int(np.prod(shape))
    if isinstance(synapse, Dense | Csr):
        weight = synapse.weight if isinstance(synapse, Dense) else synapse.to_dense()
        for o, line in enumerate(weight):
            for i in range(size):
                yield i, o, line[i], True
        return
    if isinstance(synapse, Conv1d):
        outputs, per_group, k = synapse.weight.shape
        _, length = synapse.out_shape(shape)
        for o in range(outputs):
            first = o // (outputs // synapse.groups) * per_group
            for y in range(length):
                for c in range(per_group):
                    for j in range(k):
                        at = y * synapse.stride + j * synapse.dilation - synapse.padding[0]
                        if 0 <= at < shape[1]:
                            yield (
                                (first + c) * shape[1] + at,
                                o * length + y,
                                synapse.weight[o, c, j],
                                True,
                            )
        return
    pool = isinstance(synapse, Pool2d)
    channels, height, width = synapse.out_shape(shape)
    kernel = synapse.kernel if pool else synapse.weight.shape[2:]
    groups = shape[0] if pool else synapse.groups
    dilation = (1, 1) if pool else synapse.dilation
    per_group = 1 if pool else synapse.weight.shape[1]
    top, _, left, _ = synapse.padding
    for o in range(channels):
        first = o // (channels // groups) * per_group
        for y in range(height):
            for x in range(width):
                for c in range(per_group):
                    for j in range(kernel[0]):
                        for k in range(kernel[1]):
                            row_at = y * synapse.stride[0] + j * dilation[0] - top
                            column = x * synapse.stride[1] + k * dilation[1] - left
                            if 0 <= row_at < shape[1] and 0 <= column < shape[2]:
                                yield (
                                    ((first + c) * shape[1] + row_at) * shape[2] + column,
                                    (o * height + y) * width + x,
                                    1 if pool else synapse.weight[o, c, j, k],
                                    not pool,
                                )


def by_hand(net, trace, quantized=None):
    """Return every synaptic operation of a trace, found one spike and one weight at a time."""
    found = Tally()
    for at, p in enumerate(net.projections):
        chain = p.synapses
        shapes = [net.population(p.pre).shape]
        for synapse in chain:
            shapes.append(synapse.out_shape(shapes[-1]))
        chains = {"synops_effective": chain}
        if quantized is not None:
            chains["synops_quantized"] = quantized.network.projections[at].synapses
        learned = any(w for s in chain for *_, w in connections(s, shapes[chain.index(s)]))
        fired = np.asarray(trace.spikes[p.pre]).reshape(trace.samples, trace.steps, -1)
        for sample in range(trace.samples):
            for step in range(trace.steps):
                here = Tally(np.nonzero(fired[sample, step])[0].tolist())
                everywhere = Tally(range(fired.shape[2]))
                for kind, start in (("event", here), ("dense", everywhere)):
                    reached = start
                    for synapse, shape in zip(chain, shapes, strict=False):
                        after = Tally()
                        for i, o, _, own in connections(synapse, shape):
                            if reached[i]:
                                after[o] += reached[i]
                                if own:
                                    found[p.name, f"synops_{kind}"] += reached[i]
                        reached = after
                for kind, operators in chains.items():
                    reached = here
                    for synapse, shape in zip(operators, shapes, strict=False):
                        after = Tally()
                        for i, o, weight, own in connections(synapse, shape):
                            if reached[i]:
                                after[o] += reached[i]
                                if own and weight:
                                    found[p.name, kind] += reached[i]
                                elif not own and not learned and kind == "synops_effective":
                                    found[p.name, "synops_helper"] += reached[i]
                        reached = after
    return found


RNG = np.random.default_rng(0)
CASES = {
    "dense": lambda: row((7,), Dense(weight=grid(RNG, 5, 7, density=0.6)), lif()),
    "csr": lambda: fold(row((7,), Dense(weight=grid(RNG, 5, 7, density=0.2)), lif())),
    "conv": lambda: row((2, 5, 4), Conv2d(weight=grid(RNG, 3, 2, 3, 2, density=0.5)), lif()),
    "conv stride padding": lambda: row(
        (2, 5, 5),
        Conv2d(weight=grid(RNG, 3, 2, 3, 3, density=0.5), stride=(2, 1), padding=(1, 2, 0, 1)),
        lif(),
    ),
    "conv groups dilation": lambda: row(
        (4, 6, 5),
        Conv2d(
            weight=grid(RNG, 4, 2, 2, 2, density=0.5),
            groups=2,
            dilation=(2, 3),
            padding=(1, 1, 1, 1),
        ),
        lif(),
    ),
    "conv1d": lambda: row(
        (4, 7), Conv1d(weight=grid(RNG, 4, 2, 3), stride=2, padding=(1, 2), groups=2), lif()
    ),
    "pooled dense": lambda: row(
        (2, 4, 4),
        Pool2d(kind="sum", kernel=(2, 2), stride=(2, 2)),
        Dense(weight=grid(RNG, 3, 8, density=0.5)),
        lif(),
    ),
    "pooled conv": lambda: row(
        (2, 6, 6),
        Pool2d(kind="sum", kernel=(3, 2), stride=(1, 2), padding=(1, 0, 0, 0)),
        Conv2d(weight=grid(RNG, 2, 2, 2, 2, density=0.5)),
        lif(),
    ),
    "pool": lambda: row((2, 5, 5), Pool2d(kind="sum", kernel=(2, 2), stride=(2, 2)), lif()),
    "max pool": lambda: fold(
        row(
            (1, 5, 5),
            Pool2d(kind="max", kernel=(2, 2), stride=(1, 1)),
            Dense(weight=grid(RNG, 3, 16, density=0.5)),
            lif(),
        )
    ),
    "deep": lambda: KINDS["skip"](np.random.default_rng(1)),
    "recurrent": lambda: KINDS["recurrent"](np.random.default_rng(2)),
}
NAMES = ("synops_dense", "synops_event", "synops_effective", "synops_quantized", "synops_helper")


@pytest.mark.parametrize("case", CASES)
def test_synops_equal_a_loop_over_spikes_and_weights(case):
    net = CASES[case]()
    x = spikes(np.random.default_rng(3), 2, 4, net.input_population.shape, 0.5)
    trace = EventEngine(net).run(x, "spikes")
    quantized = quantize(net, FPGA, bits=2)
    events = Counter(net, quantized).count(trace)
    expected = by_hand(net, trace, quantized)
    found = {k: n for k, n in events.items() if k[1] in NAMES and n}
    assert found == {k: n for k, n in expected.items() if n and not _helper_detail(k, events)}
    assert events.total("synops_effective") + events.total("synops_helper") > 0


def _helper_detail(key, events):
    """A helper has accumulates only: none of the forms of learned operations."""
    return (key[0], "synops_helper") in events and key[1] != "synops_helper"


def test_each_form_counts_less_than_the_one_before():
    rng = np.random.default_rng(4)
    weight = rng.normal(0, 0.3, (9, 12)).astype(np.float32) * (rng.random((9, 12)) < 0.7)
    net = row((12,), Dense(weight=weight), lif())
    trace = EventEngine(net).run(spikes(rng, 3, 6, (12,)))
    events = Counter(net, quantize(net, LOIHI, bits=2)).count(trace)
    dense, event, effective, quantized = (events["w1", name] for name in NAMES[:4])
    assert dense == 9 * 12 * 18
    assert dense > event > effective > quantized > 0
    assert "synops_quantized" not in Counter(net).count(trace).names()


def test_spikes_and_updates():
    net = KINDS["li"](np.random.default_rng(5))
    x = spikes(np.random.default_rng(6), 3, 7, (6,))
    trace = EventEngine(net).run(x, "spikes")
    events = Counter(net).count(trace)
    assert events.at("input") == {"spikes": int(x.sum())}
    fired = int(trace.spikes["n1"].sum())
    assert events.at("n1") == {
        "neuron_updates": 5 * 21,
        "spikes": fired,
        "neuron_updates_active": fired,
    }
    assert events.at("n2") == {"neuron_updates": 3 * 21}
    assert fired > 0


def test_analogue_input_costs_macs_and_no_synops():
    rng = np.random.default_rng(7)
    weight = grid(rng, 4, 6, density=0.5)
    net = row(
        (6,),
        Dense(weight=weight),
        lif(),
        Dense(weight=grid(rng, 3, 4)),
        lif(),
        coding=Coding(kind="direct", steps=5),
    )
    trace = EventEngine(net).run(rng.random((2, 5, 6)))
    events = Counter(net).count(trace)
    assert events.at("w1") == {"macs": np.count_nonzero(weight) * 2 * 5}
    assert "macs" not in events.at("w2")
    assert events.at("input") == {}


def test_a_pool_adds_analogue_values_before_they_are_multiplied():
    rng = np.random.default_rng(8)
    weight = grid(rng, 3, 2, 2, 2)
    net = fold(
        row(
            (2, 6, 6),
            Pool2d(kind="avg", kernel=(2, 2), stride=(2, 2)),
            Conv2d(weight=weight),
            lif(),
            coding=Coding(kind="direct", steps=4),
        )
    )
    events = Counter(net).count(EventEngine(net).run(rng.random((2, 4, 2, 6, 6))))
    # Each kernel value meets one pooled value at each of 2 x 2 output pixels, per step and sample.
    assert events.at("w1") == {"macs": np.count_nonzero(weight) * 4 * 4 * 2}


def test_a_membrane_passed_on_costs_macs():
    rng = np.random.default_rng(8)
    net = row(
        (6,),
        Dense(weight=grid(rng, 4, 6)),
        leaky(),
        Dense(weight=np.ones((3, 4), np.float32)),
        lif(),
        readout=Readout(kind="count"),
    )
    events = Counter(net).count(EventEngine(net).run(spikes(rng, 2, 5, (6,))))
    assert events.at("w2") == {"macs": 3 * 4 * 10}
