"""Folding keeps what a network computes, keeps masks, and refuses the rest with its place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.arithmetics import ARITHMETICS
from snn_deploy.engine.event import EventEngine
from snn_deploy.engine.reference import run_reference
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir import (
    BatchNorm,
    Coding,
    Conv1d,
    Conv2d,
    Csr,
    Dense,
    Diagonal,
    Identity,
    Pool2d,
    Readout,
    Relay,
    Source,
    Threshold,
    schedule,
)
from snn_deploy.ir.synapses import LEARNED, learned_nonzeros
from snn_deploy.passes.fold import fold_scales
from snn_deploy.passes.pipeline import PIPELINE, fold
from snn_deploy.passes.quantize import quantize
from tests.builders import (
    KINDS,
    grid,
    leaky,
    lif,
    mlp,
    network,
    population,
    projection,
    row,
    spikes,
)


def norm(rng, channels):
    """Return a BatchNorm whose scale and shift are exact: variance + eps is a power of four."""
    return BatchNorm(
        mean=grid(rng, channels),
        variance=np.full(channels, 0.25 - 2.0**-10),
        weight=rng.choice(np.array([-2, -1, 0.5, 1, 2], np.float32), channels),
        bias=grid(rng, channels) / 4,
        eps=2.0**-10,
    )


def same(net, folded, x):
    """Fail where the folded network's spikes or membranes differ from the reference's."""
    trace = EventEngine(folded).run(x, "states")
    for sample in range(len(x)):
        for name, values in run_reference(net, x[sample]).items():
            np.testing.assert_array_equal(trace.spikes[name][sample], values["z"], name)
            np.testing.assert_array_equal(trace.states[name]["v"][sample], values["v"], name)
            assert np.count_nonzero(values["v"]), name


def nonzeros(net):
    return sum(learned_nonzeros(s) for p in net.projections for s in p.synapses)


def test_the_pipeline_has_its_passes_in_order():
    assert [step.name for step in PIPELINE] == [
        "drop-identities",
        "lower-max-pool",
        "fold-batch-norm",
        "fold-scales",
        "sparsify",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_folding_keeps_every_kind_of_network(kind):
    rng = np.random.default_rng(2)
    net = KINDS[kind](rng)
    folded = fold(net)
    assert nonzeros(folded) <= nonzeros(net)
    x = spikes(rng, 2, 10, net.input_population.shape, 0.5)
    a, b = EventEngine(net).run(x, "states"), EventEngine(folded).run(x, "states")
    for name in a.states:
        np.testing.assert_array_equal(a.states[name]["v"], b.states[name]["v"])
    assert fold(folded) == folded


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layer", ["conv", "grouped", "conv1d", "dense", "csr"])
def test_batch_norm_goes_into_the_layer_before_it(layer, bias):
    rng = np.random.default_rng(4)
    b = grid(rng, 4) if bias else None
    shape, before = {
        "conv": ((2, 5, 5), Conv2d(weight=grid(rng, 4, 2, 3, 3, density=0.5), bias=b)),
        "grouped": ((2, 5, 5), Conv2d(weight=grid(rng, 4, 1, 3, 3), bias=b, groups=2)),
        "conv1d": ((2, 8), Conv1d(weight=grid(rng, 4, 2, 3, density=0.5), bias=b)),
        "dense": ((7,), Dense(weight=grid(rng, 4, 7), bias=b)),
        "csr": ((7,), Csr.from_dense(grid(rng, 4, 7, density=0.4), b)),
    }[layer]
    net = row(shape, before, norm(rng, 4), lif())
    folded = fold(net)
    assert not any(isinstance(s, BatchNorm) for p in folded.projections for s in p.synapses)
    assert nonzeros(folded) == nonzeros(net)
    same(net, folded, spikes(rng, 3, 12, shape, 0.5))


def test_two_batch_norms_fold_one_after_the_other():
    rng = np.random.default_rng(5)
    net = row((2, 5, 5), Conv2d(weight=grid(rng, 3, 2, 3, 3)), norm(rng, 3), norm(rng, 3), lif())
    same(net, fold(net), spikes(rng, 2, 10, (2, 5, 5)))


@pytest.mark.parametrize("place", ["first", "behind a pool"])
def test_batch_norm_elsewhere_is_refused(place):
    rng = np.random.default_rng(0)
    conv, pool = (
        Conv2d(weight=grid(rng, 2, 2, 3, 3)),
        Pool2d(kind="avg", kernel=(1, 1), stride=(1, 1)),
    )
    chain = (norm(rng, 2), conv) if place == "first" else (conv, pool, norm(rng, 2))
    net = replace(row((2, 5, 5), *chain, lif()), source=Source(path="m.pt"))
    with pytest.raises(UnsupportedError) as caught:
        fold(net)
    message = "batch normalisation does not follow a convolution or linear layer"
    assert caught.value.message == message
    assert caught.value.where == "m.pt -> w1"
    assert caught.value.hint == "place it directly behind the layer whose output it normalises"


# Max pools.

WINDOWS = [
    ((2, 2), (2, 2), (0, 0, 0, 0)),
    ((3, 3), (2, 2), (0, 0, 0, 0)),
    ((2, 3), (1, 2), (1, 0, 1, 2)),
    ((3, 3), (2, 2), (1, 1, 1, 1)),
]


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize("on", ["input", "neurons"])
def test_max_pool_on_spikes_is_a_sum_and_a_threshold(kernel, stride, padding, on):
    rng = np.random.default_rng(6)
    pool = Pool2d(kind="max", kernel=kernel, stride=stride, padding=padding)
    shape = pool.out_shape((2, 7, 5))
    layer = Dense(weight=grid(rng, 4, int(np.prod(shape))), bias=grid(rng, 4) / 4)
    first = [] if on == "input" else [Conv2d(weight=grid(rng, 2, 2, 3, 3), padding=(1,) * 4), lif()]
    net = row((2, 7, 5), *first, pool, layer, lif())
    folded = fold(net)
    (made,) = [p for p in folded.populations if isinstance(p.neuron, Threshold)]
    assert made.name == ("w1.max" if on == "input" else "w2.max")
    assert (made.shape, float(made.neuron.threshold)) == (shape, 0.5)
    helper = next(p for p in folded.projections if p.helper)
    assert (helper.name, helper.post) == (f"{made.name}.sum", made.name)
    x = spikes(rng, 4, 10, (2, 7, 5), 0.3)
    same(net, folded, x)
    # The new population fires exactly where a window holds a spike.
    pre = "input" if on == "input" else "n1"
    trace = EventEngine(folded).run(x, "spikes")
    only = row((2, 7, 5), pool, leaky(), readout=Readout(kind="last"))
    for sample in range(4):
        seen = run_reference(only, trace.spikes[pre][sample])["n1"]["u"]
        np.testing.assert_array_equal(trace.spikes[made.name][sample], seen)


def test_a_max_pool_alone_feeds_its_neuron_one_to_one():
    rng = np.random.default_rng(7)
    net = row((2, 6, 6), Pool2d(kind="max", kernel=(2, 2), stride=(2, 2)), lif(threshold=0.6))
    folded = fold(net)
    assert folded.projections[-1].synapses == (Identity(),)
    same(net, folded, spikes(rng, 2, 8, (2, 6, 6), 0.2))


def test_two_max_pools_in_one_chain():
    rng = np.random.default_rng(8)
    pool = Pool2d(kind="max", kernel=(2, 2), stride=(2, 2))
    net = row((1, 9, 9), pool, pool, Dense(weight=grid(rng, 3, 4)), lif())
    folded = fold(net)
    names = [p.name for p in folded.populations]
    assert names == ["input", "n1", "w1.max", "w1.max2"]
    assert [p.shape for p in folded.populations][2:] == [(1, 4, 4), (1, 2, 2)]
    same(net, folded, spikes(rng, 2, 8, (1, 9, 9), 0.1))


def test_a_delay_stays_before_the_pool_and_feedback_behind_it():
    rng = np.random.default_rng(9)
    pool = Pool2d(kind="max", kernel=(2, 2), stride=(2, 2))
    net = network(
        [population("in", (1, 4, 4), Relay()), population("out", (3,), lif())],
        [projection("in", "out", pool, Dense(weight=grid(rng, 3, 4)), delay_steps=2)],
        feedback=(("in", "out"),),
    )
    folded = fold(net)
    assert folded.feedback == (("in-out.max", "out"),)
    assert [p.delay_steps for p in folded.projections] == [2, 0]
    same(net, folded, spikes(rng, 2, 9, (1, 4, 4)))


@pytest.mark.parametrize("case", ["before the neuron", "analogue input", "behind a membrane"])
def test_max_pool_on_other_values_is_refused(case):
    rng = np.random.default_rng(0)
    pool = Pool2d(kind="max", kernel=(2, 2), stride=(2, 2))
    conv = Conv2d(weight=grid(rng, 2, 2, 3, 3))
    net = {
        "before the neuron": lambda: row((2, 6, 6), conv, pool, lif()),
        "analogue input": lambda: row(
            (2, 6, 6), pool, lif(), coding=Coding(kind="direct", steps=3)
        ),
        "behind a membrane": lambda: row((2, 6, 6), conv, leaky(), pool, lif()),
    }[case]()
    with pytest.raises(UnsupportedError) as caught:
        fold(net)
    assert caught.value.message == (
        "max pooling is exact on spikes only, and here it pools currents or analogue values"
    )
    assert caught.value.where == ("w2" if case == "behind a membrane" else "w1")
    assert caught.value.hint == ("move the pool behind the spiking neuron, or use average pooling")


# Scales and average pools.

G = np.random.default_rng(10)
AVG = Pool2d(kind="avg", kernel=(2, 2), stride=(2, 2))
CONV = Conv2d(weight=grid(G, 4, 2, 3, 3, density=0.6), bias=grid(G, 4), padding=(1, 1, 1, 1))
GROUPED = Conv2d(weight=grid(G, 4, 1, 3, 3), groups=2)
CHANNELS = Diagonal(scale=np.array([0.5, -2.0])[:, None, None])
FOUR = Diagonal(scale=np.array([0.5, -2.0, 0.25, 4.0])[:, None, None])
HALF = Diagonal(scale=np.array(0.5))


def full(*shape):
    return Diagonal(scale=np.random.default_rng(1).choice([-2.0, -0.5, 0.25, 1.0], shape))


def layer(size):
    return Dense(weight=grid(np.random.default_rng(2), 3, size, density=0.7), bias=grid(G, 3) / 4)


def sparse(size):
    dense = grid(np.random.default_rng(3), 3, size, density=0.3)
    return Csr.from_dense(dense, grid(G, 3) / 4)


POSITIONS = {
    "uniform before conv": (HALF, CONV),
    "uniform behind conv": (CONV, HALF),
    "channels before conv": (CHANNELS, CONV),
    "channels behind conv": (CONV, FOUR),
    "channels behind grouped": (GROUPED, FOUR),
    "uniform before grouped": (HALF, GROUPED),
    "before dense": (full(2, 6, 6), layer(72)),
    "channels before dense": (CHANNELS, layer(72)),
    "before csr": (full(2, 6, 6), sparse(72)),
    "behind dense": (layer(72), Diagonal(scale=np.array([0.5, -1.0, 2.0]))),
    "behind csr": (sparse(72), Diagonal(scale=np.array([0.5, -1.0, 2.0]))),
    "average before conv": (AVG, CONV),
    "average behind conv": (CONV, AVG),
    "average before dense": (AVG, layer(18)),
    "average between": (CONV, AVG, HALF),
    "channels, pool, dense": (CHANNELS, AVG, layer(18)),
    "channels, pool, csr": (CHANNELS, AVG, sparse(18)),
    "channels, pool, conv": (CHANNELS, AVG, CONV),
    "conv, pool, channels": (CONV, AVG, FOUR),
    "two scales": (HALF, CHANNELS, CONV, FOUR, HALF),
    "padded average": (
        Pool2d(kind="avg", kernel=(4, 2), stride=(2, 2), padding=(1, 1, 0, 0)),
        CONV,
    ),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_a_scale_goes_into_its_learned_neighbour(name):
    chain = POSITIONS[name]
    net = row((2, 6, 6), *chain, lif())
    folded = fold(net)
    (only,) = folded.projections
    assert not any(isinstance(s, Diagonal) for s in only.synapses)
    assert not any(isinstance(s, Pool2d) and s.kind == "avg" for s in only.synapses)
    assert nonzeros(folded) == nonzeros(net)
    same(net, folded, spikes(np.random.default_rng(11), 3, 8, (2, 6, 6), 0.5))


@pytest.mark.parametrize(
    "chain",
    [
        (full(2, 6, 6), CONV),
        (CONV, full(4, 6, 6)),
        (CHANNELS, GROUPED),
        # Neither may a scale per neuron pass a pool on its way to a layer.
        (full(2, 6, 6), AVG, layer(18)),
        # Nor any scale pass one layer on its way to another.
        (full(2, 6, 6), CONV, layer(144)),
    ],
)
def test_a_scale_that_no_kernel_can_hold_stays_and_has_no_integers(chain):
    net = replace(row((2, 6, 6), *chain, lif()), source=Source(path="m.nir"))
    folded = fold(net)
    assert any(isinstance(s, Diagonal) for s in folded.projections[0].synapses)
    same(net, folded, spikes(np.random.default_rng(0), 2, 6, (2, 6, 6), 0.5))
    if sum(isinstance(s, LEARNED) for s in folded.projections[0].synapses) > 1:
        return  # refused for that
    with pytest.raises(UnsupportedError) as caught:
        quantize(folded, ARITHMETICS["loihi"])
    assert caught.value.message == (
        "a per-neuron scale next to a convolution cannot be folded into its kernel"
    )
    assert caught.value.where == "m.nir -> w1"
    assert caught.value.hint == "use one scale for all neurons, or one per channel"


def test_without_a_learned_neighbour_an_average_stays_a_sum_and_a_scale():
    net = row((2, 6, 6), AVG, lif(threshold=0.2))
    (only,) = fold(net).projections
    assert only.synapses == (replace(AVG, kind="sum"), Diagonal(scale=np.array(0.25)))
    same(net, fold(net), spikes(np.random.default_rng(1), 3, 8, (2, 6, 6), 0.5))


def test_a_scale_of_zero_keeps_masks():
    rng = np.random.default_rng(0)
    net = row((2, 6, 6), Diagonal(scale=np.array([0.0, 1.0])[:, None, None]), CONV, lif())
    assert nonzeros(fold(net)) < nonzeros(net)
    same(net, fold(net), spikes(rng, 2, 8, (2, 6, 6), 0.5))


# Storage.


@pytest.mark.parametrize(("kept", "kind"), [(17, Csr), (18, Dense), (0, Csr)])
def test_dense_weights_are_stored_sparse_below_half(kept, kind):
    weight = np.zeros(36, np.float32)
    weight[:kept] = 0.5
    bias = np.full(6, 0.25, np.float32)
    net = row((6,), Dense(weight=weight.reshape(6, 6), bias=bias), lif())
    (synapse,) = fold(net).projections[0].synapses
    assert isinstance(synapse, kind)
    assert learned_nonzeros(synapse) == kept
    np.testing.assert_array_equal(synapse.bias, bias)


def test_identities_beside_others_go():
    rng = np.random.default_rng(0)
    made = mlp(rng, 4, 3)
    (only,) = made.projections
    with_identities = replace(
        made, projections=(replace(only, synapses=(Identity(), *only.synapses, Identity())),)
    )
    assert fold(with_identities) == fold(made)


def test_folding_scales_alone_changes_no_other_projection():
    rng = np.random.default_rng(0)
    net = KINDS["skip"](rng)
    assert fold_scales(net) == net


def loop_with_max_pool(*more):
    """Return in -> a, a -> (max pool) b -> a, and a -> c -> b, which waits for a step."""
    rng = np.random.default_rng(5)
    shape, small = (2, 4, 4), (2, 2, 2)
    neuron = lif(threshold=0.25)
    return network(
        [
            population("in", shape, Relay()),
            population("a", shape, neuron),
            population("c", small, neuron),
            population("b", small, neuron),
            *(population(name, small, neuron) for name in more),
        ],
        [
            projection("in", "a", Identity()),
            projection("a", "b", Pool2d(kind="max", kernel=(2, 2), stride=(2, 2))),
            projection("a", "c", Conv2d(weight=grid(rng, 2, 2, 2, 2), stride=(2, 2))),
            *([] if more else [projection("c", "b", Conv2d(weight=grid(rng, 2, 2, 1, 1)))]),
            *(projection(pre, "d", Identity()) for name in more for pre in ("b", "c")),
            projection(more[0] if more else "b", "a", Dense(weight=grid(rng, 32, 8))),
        ],
        outputs=("b",),
    )


def test_a_max_pool_in_a_loop_keeps_the_edges_that_wait():
    net = loop_with_max_pool()
    folded = fold(net)
    assert schedule(net).feedback["c-b"] == schedule(folded).feedback["c-b"] == 1
    same(net, folded, spikes(np.random.default_rng(1), 3, 20, (2, 4, 4)))


def test_a_max_pool_that_makes_another_edge_wait_is_refused():
    # Behind the pool, b lies as far from the input as d does by way of c.
    net = replace(loop_with_max_pool("d"), source=Source(path="m.pt"))
    with pytest.raises(UnsupportedError) as caught:
        fold(net)
    message = "max pooling in this loop would make another connection wait a step"
    assert caught.value.message == message
    assert caught.value.where == "m.pt -> b-d"
    assert caught.value.hint == "use average pooling, or take the pool out of the loop"
