"""check(): every rule, its message, place and hint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.errors import InputError, SnnDeployError
from snn_deploy.ir import (
    IF,
    BatchNorm,
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
    check,
)
from tests.builders import grid, leaky, lif, mlp, network, population, projection, row

RNG = np.random.default_rng(0)


def base(**changes):
    net = mlp(np.random.default_rng(0), 4, 3, 2)
    return replace(net, source=Source(path="m.pt"), **changes)


def populations(**by_name):
    return tuple(
        replace(p, **by_name[p.name]) if p.name in by_name else p for p in base().populations
    )


def projections(**changes):
    first, *rest = base().projections
    return (replace(first, **changes), *rest)


BROKEN = {
    "two populations": (
        {"populations": (*base().populations, base().populations[1])},
        "two populations are called 'n1'",
        "m.pt",
        "rename one of them",
    ),
    "two projections": (
        {"projections": (*base().projections, base().projections[0])},
        "two projections are called 'w1'",
        "m.pt",
        "rename one of them",
    ),
    "dt zero": ({"dt_s": 0.0}, "dt must be positive, got 0 s", "m.pt", "--dt SECONDS"),
    "dt nan": ({"dt_s": float("nan")}, "dt must be positive, got nan s", "m.pt", "--dt SECONDS"),
    "no input": (
        {"inputs": ()},
        "the network has no input",
        "m.pt",
        "mark where values enter and leave: add an input node",
    ),
    "no output": (
        {"outputs": ()},
        "the network has no output",
        "m.pt",
        "mark where values enter and leave: add an output node",
    ),
    "unknown output": (
        {"outputs": ("x",)},
        "output 'x' is not a population",
        "m.pt",
        "populations: input, n1, n2",
    ),
    "input neuron": (
        {"inputs": ("n1",)},
        "must be a Relay",
        "m.pt -> n1",
        "let a Relay take the input and feed the neurons",
    ),
    "empty shape": (
        {"populations": populations(n1={"shape": (0,)})},
        "population shape (0,) is empty",
        "m.pt -> n1",
        "give its parameters at least one value",
    ),
    "parameter shape": (
        {"populations": populations(n1={"neuron": lif(threshold=np.ones(2))})},
        "a neuron parameter of shape (2,) does not fit (3,)",
        "m.pt -> n1",
        "use one value, one per channel, or one per neuron",
    ),
    "dt too long": (
        {"populations": populations(n1={"neuron": lif(0.5)})},
        "dt is longer than tau: forward Euler would oscillate",
        "m.pt -> n1",
        "pass the dt that the network was trained with: --dt SECONDS",
    ),
    "end": (
        {"projections": projections(pre="x")},
        "projection ends in 'x', which does not exist",
        "m.pt -> w1",
        "pre and post are names of populations",
    ),
    "into the input": (
        {"projections": projections(post="input")},
        "a projection ends in an input population",
        "m.pt -> w1",
        "end it at the neurons that the input feeds",
    ),
    "no operator": (
        {"projections": projections(synapses=())},
        "a projection needs at least one synapse operator",
        "m.pt -> w1",
        "use Identity()",
    ),
    "in_features": (
        {"projections": projections(synapses=(Dense(weight=np.ones((3, 5))),))},
        "Dense expects 5 inputs and gets 4 (shape (4,))",
        "m.pt -> w1",
        "compare the layer's in_features with the shape of what feeds it",
    ),
    "out_features": (
        {"projections": projections(synapses=(Dense(weight=np.ones((7, 4))),))},
        "produces shape (7,) for a population of shape (3,)",
        "m.pt -> w1",
        "a layer's output size must equal the number of neurons that it feeds",
    ),
    "negative delay": (
        {"projections": projections(delay_steps=-1)},
        "delays are whole steps, 0 or more",
        "m.pt -> w1",
        "round them to multiples of dt",
    ),
    "fraction of a delay": (
        {"projections": projections(delay_steps=np.full((3, 4), 0.5))},
        "delays are whole steps, 0 or more",
        "m.pt -> w1",
        "round them to multiples of dt",
    ),
    "feedback": (
        {"feedback": (("n2", "n1"),)},
        "feedback names an edge that does not exist",
        "n2 -> n1",
        "name populations that a projection joins: --feedback PRE->POST",
    ),
    "vote": (
        {"readout": Readout(kind="vote", groups=3)},
        "2 output neurons do not split into 3 groups",
        "m.pt -> n2",
        "groups is the number of classes, and divides the number of output neurons",
    ),
    "vote without groups": (
        {"readout": Readout(kind="vote")},
        "2 output neurons do not split into None groups",
        "m.pt -> n2",
        "groups is the number of classes, and divides the number of output neurons",
    ),
    "window": (
        {"readout": Readout(window=(3, 3))},
        "readout window (3, 3) is empty",
        "m.pt",
        "a window is (first, last) steps, first before last, last not included",
    ),
    "cutoff of a membrane": (
        {"readout": Readout(kind="mean", cutoff=(1.0,))},
        "a mean readout has no early stop: a cutoff compares spike counts",
        "m.pt -> n2",
        "use --readout count or vote:CLASSES, or leave the cutoff out",
    ),
    "cutoff below 0": (
        {"readout": Readout(cutoff=(2.0, -0.5))},
        "a cutoff threshold is -0.5",
        "m.pt -> n2",
        "thresholds are spikes, 0 or more; infinity never stops",
    ),
    "cutoff nan": (
        {"readout": Readout(cutoff=(float("nan"),))},
        "a cutoff threshold is nan",
        "m.pt -> n2",
        "thresholds are spikes, 0 or more; infinity never stops",
    ),
    "cutoff of one class": (
        {"readout": Readout(kind="vote", groups=1, cutoff=(1.0,))},
        "a cutoff compares the two largest scores, and the readout has one class",
        "m.pt -> n2",
        "leave the cutoff out, or read two classes or more",
    ),
    "count without spikes": (
        {"populations": populations(n2={"neuron": leaky()})},
        "a count readout needs a spiking output population",
        "m.pt -> n2",
        "choose a membrane readout: --readout last or max or mean",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_malformed_network_is_refused_with_its_place(name):
    changes, message, where, hint = BROKEN[name]
    with pytest.raises(InputError) as caught:
        check(base(**changes))
    assert message in caught.value.message
    assert (caught.value.where, caught.value.hint) == (where, hint)
    assert caught.value.exit_code == 3


def test_a_cutoff_needs_two_outputs():
    check(base(readout=Readout(cutoff=(0.0, float("inf")))))
    with pytest.raises(InputError, match="the readout has one class"):
        row((3,), Dense(weight=np.ones((1, 3))), lif(), readout=Readout(cutoff=(1.0,)))


def test_the_keep_factor_is_told():
    with pytest.raises(InputError) as caught:
        check(base(populations=populations(n1={"neuron": lif(0.5)})))
    assert caught.value.used == "dt 0.001 s gives a keep factor of -1"


def test_dt_equal_to_tau_is_allowed():
    check(base(populations=populations(n1={"neuron": lif(1)})))


@pytest.mark.parametrize("survivor", ["batch norm", "max pool"])
def test_what_folding_must_remove_is_our_bug(survivor):
    norm = BatchNorm(mean=np.zeros(2), variance=np.ones(2), weight=np.ones(2), bias=np.zeros(2))
    pool = Pool2d(kind="max", kernel=(2, 2), stride=(2, 2))
    net = row((2, 4, 4), norm if survivor == "batch norm" else pool, lif())
    check(net)
    with pytest.raises(AssertionError, match="survived folding"):
        check(net, folded=True)


def test_parameters_per_channel_and_per_neuron_do_not_mix():
    mixed = lif(tau_steps=np.full(2, 2.0), threshold=np.full((2, 3, 3), 0.5))
    with pytest.raises(InputError) as caught:
        row((1, 5, 5), Conv2d(weight=grid(RNG, 2, 1, 3, 3)), mixed)
    assert caught.value.message == "a neuron has parameters of shape (2,) and of shape (2, 3, 3)"
    assert caught.value.hint == "give all of them per channel, or all per neuron"


# Neurons.


@pytest.mark.parametrize("value", [np.nan, np.inf, [1.0, np.nan]])
def test_parameters_are_finite(value):
    with pytest.raises(InputError, match=r"LIF\.v_threshold is not finite") as caught:
        lif(threshold=value)
    assert "training diverged" in caught.value.hint


@pytest.mark.parametrize("tau", [0.0, -2.0, [2.0, 0.0]])
def test_time_constants_are_positive(tau):
    with pytest.raises(InputError, match=r"LIF\.tau_s must be positive") as caught:
        lif(tau)
    assert caught.value.used.endswith(" s")
    assert caught.value.hint == "time constants are in seconds, greater than 0"


# Synapses.

FAULTS = {
    "nan": (
        lambda: Dense(weight=np.array([[1, np.nan]])),
        "Dense.weight is not finite",
        "diverged",
    ),
    "dense axes": (lambda: Dense(weight=np.ones(3)), "Dense weight has 1 axes", ""),
    "dense bias": (
        lambda: Dense(weight=np.ones((2, 3)), bias=np.ones(3)),
        "Dense bias has shape (3,), expected (2,)",
        "one bias per output neuron",
    ),
    "conv axes": (lambda: Conv2d(weight=np.ones((2, 3, 3))), "Conv2d weight has 3 axes", ""),
    "conv stride": (
        lambda: Conv2d(weight=np.ones((2, 1, 3, 3)), stride=(0, 1)),
        "stride, dilation and groups are at least 1",
        "",
    ),
    "conv bias": (
        lambda: Conv2d(weight=np.ones((2, 1, 3, 3)), bias=np.ones(1)),
        "Conv2d bias has shape (1,), expected (2,)",
        "channel",
    ),
    "conv1d axes": (lambda: Conv1d(weight=np.ones((2, 3))), "Conv1d weight has 2 axes", ""),
    "conv1d padding": (
        lambda: Conv1d(weight=np.ones((2, 1, 3)), padding=(-1, 0)),
        "padding at least 0",
        "",
    ),
    "pool": (
        lambda: Pool2d(kind="sum", kernel=(0, 2), stride=(1, 1)),
        "Pool2d kernel and stride are at least 1",
        "",
    ),
    "csr": (
        lambda: Csr(
            indptr=np.array([0, 2]), indices=np.array([0]), data=np.array([1.0]), shape=(1, 2)
        ),
        "malformed sparse matrix",
        "disagree",
    ),
    "csr column": (
        lambda: Csr(
            indptr=np.array([0, 1]), indices=np.array([2]), data=np.array([1.0]), shape=(1, 2)
        ),
        "malformed sparse matrix",
        "disagree",
    ),
    "norm lengths": (
        lambda: BatchNorm(mean=np.ones(2), variance=np.ones(2), weight=np.ones(3), bias=np.ones(2)),
        "BatchNorm arrays have different lengths",
        "",
    ),
    "norm variance": (
        lambda: BatchNorm(
            mean=np.ones(1), variance=-np.ones(1), weight=np.ones(1), bias=np.ones(1)
        ),
        "BatchNorm variance is negative",
        "",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_malformed_operator_is_refused(name):
    make, message, hint = FAULTS[name]
    with pytest.raises(InputError) as caught:
        make()
    assert message in caught.value.message
    assert caught.value.hint
    assert hint in caught.value.hint


MISFITS = {
    "conv on a vector": (Conv2d(weight=np.ones((2, 1, 3, 3))), (9,), "expects an input of shape"),
    "conv1d on an image": (Conv1d(weight=np.ones((2, 1, 3))), (1, 5, 5), "shape (C, L)"),
    "pool on a vector": (Pool2d(kind="sum", kernel=(2, 2), stride=(2, 2)), (9,), "(C, H, W)"),
    "channels": (Conv2d(weight=np.ones((2, 3, 3, 3))), (2, 5, 5), "does not fit 2 channels"),
    "groups": (Conv2d(weight=np.ones((3, 1, 1, 1)), groups=2), (2, 5, 5), "with 2 groups"),
    "kernel": (Conv2d(weight=np.ones((2, 1, 6, 3))), (1, 5, 5), "leaves nothing"),
    "window": (Pool2d(kind="avg", kernel=(6, 1), stride=(1, 1)), (1, 5, 5), "leaves nothing"),
    "scale": (Diagonal(scale=np.ones(3)), (4,), "scale of shape (3,) does not fit (4,)"),
    "bigger scale": (Diagonal(scale=np.ones((2, 4))), (4,), "does not fit"),
    "norm": (
        BatchNorm(mean=np.ones(3), variance=np.ones(3), weight=np.ones(3), bias=np.ones(3)),
        (2, 5, 5),
        "BatchNorm over 3 channels gets (2, 5, 5)",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_an_operator_refuses_a_shape_that_is_not_its_own(name):
    operator, shape, message = MISFITS[name]
    with pytest.raises(SnnDeployError) as caught:
        operator.out_shape(shape)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((1, 1, 5, 5), "leave out axes of batch and time"),
        ((5, 6), "the shape (1, 5, 6)"),
        ((9,), "flatten only after"),
    ],
)
def test_an_image_of_other_axes_gets_its_own_hint(shape, hint):
    with pytest.raises(InputError) as caught:
        Conv2d(weight=np.ones((2, 1, 3, 3))).out_shape(shape)
    assert hint in caught.value.hint


SHAPES = [
    (Dense(weight=np.ones((4, 12))), (3, 2, 2), (4,)),
    (Conv2d(weight=np.ones((4, 3, 3, 2))), (3, 7, 6), (4, 5, 5)),
    (Conv2d(weight=np.ones((4, 3, 3, 2)), stride=(2, 3)), (3, 7, 6), (4, 3, 2)),
    (Conv2d(weight=np.ones((4, 3, 3, 2)), padding=(1, 0, 2, 1)), (3, 7, 6), (4, 6, 8)),
    (Conv2d(weight=np.ones((4, 3, 3, 2)), dilation=(3, 2)), (3, 7, 6), (4, 1, 4)),
    (Conv2d(weight=np.ones((6, 1, 1, 1)), groups=3), (3, 7, 6), (6, 7, 6)),
    (Conv1d(weight=np.ones((4, 2, 3)), stride=2, padding=(1, 0), groups=2), (4, 8), (4, 4)),
    (Conv1d(weight=np.ones((4, 4, 3)), dilation=3), (4, 8), (4, 2)),
    (Pool2d(kind="sum", kernel=(2, 3), stride=(2, 3)), (3, 7, 6), (3, 3, 2)),
    (Pool2d(kind="max", kernel=(3, 3), stride=(2, 2), padding=(1, 1, 0, 2)), (3, 7, 6), (3, 4, 3)),
    (Diagonal(scale=np.ones((3, 1, 1))), (3, 2, 2), (3, 2, 2)),
    (Identity(), (3, 2, 2), (3, 2, 2)),
]


@pytest.mark.parametrize(("operator", "before", "after"), SHAPES)
def test_shapes_follow_the_usual_formula(operator, before, after):
    assert operator.out_shape(before) == after


def test_arrays_are_read_only_copies():
    weight = np.ones((2, 3), np.float32)
    dense = Dense(weight=weight)
    weight[0, 0] = 5
    assert dense.weight[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        dense.weight[0, 0] = 2
    with pytest.raises(ValueError, match="read-only"):
        lif(threshold=[0.5, 1.0]).v_threshold[0] = 1


def test_records_compare_by_value():
    assert Dense(weight=np.ones((2, 3))) == Dense(weight=np.ones((2, 3)))
    assert Dense(weight=np.ones((2, 3))) != Dense(weight=np.ones((2, 3), np.float32))
    assert lif() == lif()
    assert lif() != lif(reset="subtract")
    assert lif() != IF(r=1.0, v_threshold=0.5, v_reset=0.0)
    assert base() == replace(base(), source=Source(path="elsewhere"))
    assert base() != replace(base(), dt_s=2e-3)


def test_input_and_output_must_be_single_where_one_is_asked_for():
    net = network(
        [
            population("a", (2,), Relay()),
            population("b", (2,), Relay()),
            population("c", (2,), lif()),
        ],
        [projection("a", "c", Identity()), projection("b", "c", Identity())],
        inputs=("a", "b"),
    )
    with pytest.raises(InputError, match="2 inputs, one is needed") as caught:
        _ = net.input_population
    assert (caught.value.where, caught.value.hint) == ("a, b", "keep one input node")
