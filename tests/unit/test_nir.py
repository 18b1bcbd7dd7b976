"""NIR files: what we write reads back as it was, what others write reads as it means."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace

import h5py
import numpy as np
import pytest

from snn_deploy.engine.event import EventEngine
from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.io.nir_read import NirOptions, read_nir
from snn_deploy.io.nir_write import nir_bytes
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
    schedule,
)
from snn_deploy.passes.pipeline import fold
from tests.builders import (
    DATA,
    KINDS,
    conv_net,
    grid,
    lif,
    mlp,
    network,
    population,
    projection,
    row,
    spikes,
)

ASYMMETRIC = ("conv dilated", "conv1d", "pools")
SUBTRACT = ("subtract", "amount")


def written(path, net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SnnDeployWarning)
        path.write_bytes(nir_bytes(net))
    return path


def symmetric(rng):
    """Return what ASYMMETRIC leaves out: dilation, Conv1d, padded pools."""
    yield row(
        (2, 9, 8),
        Conv2d(weight=grid(rng, 4, 2, 3, 2), dilation=(2, 1), padding=(2, 2, 1, 1), stride=(1, 2)),
        lif(),
        Pool2d(kind="avg", kernel=(3, 2), stride=(2, 1), padding=(1, 1, 0, 0)),
        Dense(weight=grid(rng, 3, 4 * 5 * 4)),
        lif(),
    )
    yield row((4, 9), Conv1d(weight=grid(rng, 6, 2, 3), stride=2, padding=(1, 1), groups=2), lif())


# Round trips.


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ASYMMETRIC])
@pytest.mark.parametrize("form", ["as made", "folded"])
def test_what_is_written_reads_back_equal(tmp_path, kind, form):
    net = KINDS[kind](np.random.default_rng(1))
    net = fold(net) if form == "folded" else net
    back = read_nir(written(tmp_path / "a.nir", net))
    assert back == net
    assert [p.name for p in back.projections] == [p.name for p in net.projections]
    assert back.source.format == "nir"
    assert len(back.source.sha256) == 64


def test_operators_with_symmetric_padding_read_back_equal(tmp_path):
    for net in symmetric(np.random.default_rng(2)):
        assert read_nir(written(tmp_path / "a.nir", net)) == net


def test_sparse_weights_are_dense_in_the_file_and_sparse_again_after_folding(tmp_path):
    net = fold(mlp(np.random.default_rng(3), 8, 7, 5, density=0.2))
    back = read_nir(written(tmp_path / "a.nir", net))
    assert isinstance(net.projections[0].synapses[0], Csr)
    assert isinstance(back.projections[0].synapses[0], Dense)
    assert fold(back) == net


def test_names_readout_coding_and_feedback_survive(tmp_path):
    rng = np.random.default_rng(4)
    net = network(
        [
            population("in/put", (4,), Relay()),
            population("10", (3,), lif()),
            population("2", (3,), lif()),
            population("out put", (6,), lif()),
        ],
        [
            projection("in/put", "10", Dense(weight=grid(rng, 3, 4)), name="z/first"),
            projection("10", "2", Dense(weight=grid(rng, 3, 3)), name="a", helper=True),
            projection("2", "10", Dense(weight=grid(rng, 3, 3)), name="m", delay_steps=3),
            projection("2", "out put", Dense(weight=grid(rng, 6, 3)), name="b"),
            projection("10", "out put", Dense(weight=grid(rng, 6, 3)), name="c"),
        ],
        readout=Readout(kind="vote", groups=3, window=(1, 5), cutoff=(2.5, math.inf, 0.0)),
        coding=Coding(kind="rate", steps=7, seed=11, gain=0.5),
        feedback=(("10", "2"),),
        dt_s=5e-4,
    )
    back = read_nir(written(tmp_path / "a.nir", net))
    assert back == net
    assert [p.name for p in back.populations] == ["in/put", "10", "2", "out put"]
    assert schedule(back) == schedule(net)


def test_an_output_of_plain_values_stays_a_population(tmp_path):
    net = row((3,), Dense(weight=np.eye(3)), lif(), Relay(), readout=Readout(kind="mean"))
    assert read_nir(written(tmp_path / "a.nir", net)) == net


@pytest.mark.filterwarnings("ignore:.*the nir package infers")
def test_the_same_network_gives_the_same_bytes():
    made = [nir_bytes(conv_net(np.random.default_rng(5))) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0] != nir_bytes(conv_net(np.random.default_rng(6)))


@pytest.mark.parametrize("kind", ["mlp", "cuba", "recurrent", "skip", "li", "threshold", "conv"])
def test_the_graph_computes_the_same_after_the_round_trip(tmp_path, kind):
    rng = np.random.default_rng(7)
    net = KINDS[kind](rng)
    back = read_nir(written(tmp_path / "a.nir", net))
    x = spikes(rng, 3, 9, net.input_population.shape, 0.5)
    np.testing.assert_array_equal(EventEngine(back).run(x).output, EventEngine(net).run(x).output)


# The nir package.


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in (*ASYMMETRIC, "conv")])
def test_the_nir_package_reads_what_is_written(tmp_path, kind):
    nir = pytest.importorskip("nir")
    net = KINDS[kind](np.random.default_rng(1))
    graph = nir.read(written(tmp_path / "a.nir", net))
    for p in net.computing():
        if not isinstance(p.neuron, Relay):
            assert graph.nodes[p.name].output_type["output"].tolist() == list(p.shape)
    for p in net.projections:
        if isinstance(p.synapses[0], Dense):
            np.testing.assert_array_equal(graph.nodes[p.name].weight, p.synapses[0].weight)


def test_the_nir_package_reads_convolutions_and_pools(tmp_path):
    nir = pytest.importorskip("nir")
    rng = np.random.default_rng(1)
    conv = Conv2d(weight=grid(rng, 4, 2, 3, 3), padding=(1, 1, 1, 1), bias=grid(rng, 4))
    pool = Pool2d(kind="avg", kernel=(2, 2), stride=(2, 2))
    net = row((2, 6, 6), conv, lif(), pool, Dense(weight=grid(rng, 3, 36)), lif())
    graph = nir.read(written(tmp_path / "a.nir", net))
    np.testing.assert_array_equal(graph.nodes["w1"].weight, conv.weight)
    np.testing.assert_array_equal(graph.nodes["w2.pool"].kernel_size, (2, 2))
    # Groups: nir takes weight.shape[1] for the number of channels and refuses a valid graph, and
    # it takes the kernel's height for its width, so these are read without its inference.
    for made in (conv_net(rng), *symmetric(rng)):
        path = written(tmp_path / "b.nir", made)
        with pytest.raises(ValueError, match="mismatch"):
            nir.read(path)
        assert set(nir.read(path, type_check=False).nodes) > {p.name for p in made.populations}


# What NIR cannot say.


@pytest.mark.parametrize(
    ("weight", "groups"), [((4, 2, 3, 5), 1), ((4, 1, 3, 3), 2)], ids=["not square", "groups"]
)
def test_a_convolution_that_the_nir_package_misjudges_warns(tmp_path, weight, groups):
    nir = pytest.importorskip("nir")
    conv = Conv2d(weight=grid(np.random.default_rng(0), *weight), groups=groups)
    net = row((2, 8, 8), conv, lif())
    with pytest.warns(SnnDeployWarning, match=r"^w1: .*type_check=False$"):
        content = nir_bytes(net)
    path = tmp_path / "m.nir"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="Type inference error"):
        nir.read(path)
    assert "n1" in nir.read(path, type_check=False).nodes


def test_a_second_direct_connection_is_written_as_a_node(tmp_path):
    net = network(
        [population("in", (5,), Relay()), population("out", (5,), lif(threshold=0.75))],
        [projection("in", "out", Identity(), name=name) for name in ("one", "two")],
    )
    again = read_nir(written(tmp_path / "m.nir", net))
    assert [p.name for p in again.projections] == ["one", "two"]
    x = spikes(np.random.default_rng(0), 2, 8, (5,))
    traces = [EventEngine(n).run(x, "spikes").spikes["out"] for n in (net, again)]
    assert traces[0].any()
    assert np.array_equal(*traces)


def test_subtract_reset_warns_because_other_readers_ignore_it():
    net = KINDS["subtract"](np.random.default_rng(0))
    with pytest.warns(SnnDeployWarning, match="n1 resets by subtraction") as caught:
        nir_bytes(net)
    assert len(caught) == 1
    assert "other readers of this graph will reset to a value" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nir_bytes(KINDS["mlp"](np.random.default_rng(0)))


UNWRITABLE = {
    "conv": (
        lambda rng: row(
            (1, 5, 5), Conv2d(weight=grid(rng, 1, 1, 2, 2), padding=(1, 0, 0, 0)), lif()
        ),
        "NIR has no asymmetric padding",
        "use the same padding on both sides",
    ),
    "conv1d": (
        lambda rng: row((1, 5), Conv1d(weight=grid(rng, 1, 1, 2), padding=(1, 0)), lif()),
        "NIR has no asymmetric padding",
        "use the same padding on both sides",
    ),
    "pool": (
        lambda rng: row(
            (1, 5, 5),
            Pool2d(kind="sum", kernel=(2, 2), stride=(2, 2), padding=(0, 1, 0, 1)),
            lif(),
        ),
        "NIR has no asymmetric padding",
        "use the same padding on both sides",
    ),
    "delays": (
        lambda rng: network(
            [population("in", (3,), Relay()), population("out", (2,), lif())],
            [
                projection(
                    "in",
                    "out",
                    Dense(weight=grid(rng, 2, 3)),
                    name="w1",
                    delay_steps=np.eye(2, 3, dtype=int),
                )
            ],
        ),
        "NIR has no delay per synapse",
        "use one delay for the projection, or one per source or target neuron",
    ),
    "relay": (
        lambda rng: row((3,), Dense(weight=np.eye(3)), Relay(), Dense(weight=np.eye(3)), lif()),
        "NIR has no population that passes values on",
        "join its two sides into one projection",
    ),
}


@pytest.mark.parametrize("case", UNWRITABLE)
def test_what_nir_cannot_say_is_refused_with_its_place(case):
    make, message, hint = UNWRITABLE[case]
    with pytest.raises(UnsupportedError) as caught:
        nir_bytes(make(np.random.default_rng(0)))
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert caught.value.where == {"relay": "n1", "delays": "in-out"}.get(case, "w1")


def test_unfolded_batch_norm_is_our_bug():
    norm = BatchNorm(mean=np.zeros(3), variance=np.ones(3), weight=np.ones(3), bias=np.zeros(3))
    with pytest.raises(AssertionError, match="fold the network"):
        nir_bytes(row((3,), Dense(weight=np.eye(3)), norm, lif()))


# Files of others.


def foreign(path, nodes, edges, metadata=None):
    """Write a graph as other exporters do: no metadata of ours."""
    with h5py.File(path, "w") as file:
        file["version"] = "1.0.8"
        root = file.create_group("node")
        root["type"] = "NIRGraph"
        root.create_dataset("edges", data=np.array(edges, dtype=object), dtype=h5py.string_dtype())
        if metadata is not None:
            root.create_group("metadata")["snn_deploy"] = metadata
        for name, fields in nodes.items():
            group = root.require_group("nodes").create_group(name)
            for key, value in fields.items():
                group[key] = value
    return path


ENDS = {"in": {"type": "Input", "shape": [2]}, "out": {"type": "Output", "shape": [2]}}
LIF_NODE = {
    "type": "LIF",
    "tau": [2e-3, 4e-3],
    "r": [1.0, 1.0],
    "v_leak": [0.0, 0.0],
    "v_threshold": [0.5, 0.5],
}
IF_NODE = {"type": "IF", "r": [1.0, 1.0], "v_threshold": [0.5, 0.5]}
EYE = {"type": "Linear", "weight": np.eye(2)}
LINE = [("in", "w"), ("w", "n"), ("n", "out")]
KNOWN = NirOptions(dt_s=1e-3, reset="value", if_r="per-step")


def line(path, neuron=None, weight=None, edges=None, metadata=None):
    nodes = {**ENDS, "w": weight or EYE, "n": neuron or LIF_NODE}
    return foreign(path, nodes, edges or LINE, metadata)


@pytest.mark.parametrize(
    ("neuron", "options", "message", "hint"),
    [
        (
            LIF_NODE,
            NirOptions(reset="value"),
            "a NIR graph has no time step, and this one's metadata names none",
            "pass the dt that it was trained with: --dt SECONDS",
        ),
        (
            LIF_NODE,
            NirOptions(dt_s=1e-3),
            "NIR does not say how a neuron resets, and this graph's metadata does not either",
            "pass --reset value (v := v_reset) or --reset subtract (v -= threshold)",
        ),
        (
            IF_NODE,
            NirOptions(dt_s=1e-3, reset="value"),
            "the meaning of an IF neuron's r is ambiguous in NIR",
            "pass --if-r per-step (v += r I) or --if-r physical (v += dt r I)",
        ),
    ],
)
def test_what_a_file_leaves_open_is_asked_for(tmp_path, neuron, options, message, hint):
    path = line(tmp_path / "a.nir", neuron)
    with pytest.raises(InputError) as caught:
        read_nir(path, options)
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert caught.value.where.startswith(str(path))


def test_what_the_user_says_is_taken(tmp_path):
    path = line(tmp_path / "a.nir", IF_NODE)
    options = NirOptions(
        dt_s=2e-3,
        reset="subtract",
        if_r="physical",
        readout=Readout(kind="max"),
        coding=Coding(kind="rate", steps=4),
    )
    net = read_nir(path, options)
    neuron = net.population("n").neuron
    assert (net.dt_s, neuron.reset, neuron.r_unit) == (2e-3, "subtract", "physical")
    assert (net.readout, net.coding) == (options.readout, options.coding)
    assert neuron.v_reset.tolist() == 0  # absent in the file: NIR's default


def test_options_go_before_metadata(tmp_path):
    path = written(tmp_path / "a.nir", mlp(np.random.default_rng(0), 4, 3))
    assert read_nir(path, NirOptions(dt_s=5e-4)).dt_s == 5e-4
    assert read_nir(path, NirOptions(reset="subtract")).population("n1").neuron.reset == "subtract"


def test_edges_that_meet_are_added_and_a_bias_counts_once(tmp_path):
    affine = {"type": "Affine", "weight": 2 * np.eye(2), "bias": [0.25, 0.5]}
    nodes = {**ENDS, "a": EYE, "b": EYE, "join": affine, "n": LIF_NODE}
    edges = [("in", "a"), ("in", "b"), ("a", "join"), ("b", "join"), ("join", "n"), ("n", "out")]
    net = read_nir(foreign(tmp_path / "a.nir", nodes, edges), KNOWN)
    v = EventEngine(net).run(np.ones((1, 1, 2)), "states").states["n"]["v"][0, 0]
    # I = 2 (1 + 1) + bias; v = dt/tau I, then the reset where it exceeds 0.5.
    assert v.tolist() == [0, 0]
    silent = read_nir(
        foreign(tmp_path / "b.nir", {**nodes, "n": {**LIF_NODE, "v_threshold": [9, 9]}}, edges),
        KNOWN,
    )
    v = EventEngine(silent).run(np.ones((1, 1, 2)), "states").states["n"]["v"][0, 0]
    assert v.tolist() == [(4 + 0.25) / 2, (4 + 0.5) / 4]


def test_a_bias_that_takes_two_ways_counts_on_both(tmp_path):
    affine = {"type": "Affine", "weight": np.eye(2), "bias": [0.25, 0.5]}
    double, triple = ({"type": "Scale", "scale": [s, s]} for s in (2.0, 3.0))
    neuron = {**LIF_NODE, "tau": [1e-3, 1e-3], "v_threshold": [99.0, 99.0]}
    nodes = {**ENDS, "a": affine, "x2": double, "x3": triple, "n": neuron}
    edges = [("in", "a"), ("a", "x2"), ("a", "x3"), ("x2", "n"), ("x3", "n"), ("n", "out")]
    net = read_nir(foreign(tmp_path / "a.nir", nodes, edges), KNOWN)
    v = EventEngine(net).run(np.ones((1, 1, 2)), "states").states["n"]["v"][0, 0]
    assert v.tolist() == [5 * 1.25, 5 * 1.5]


def test_a_dead_end_and_a_wrong_output_shape_warn(tmp_path):
    nodes = {**ENDS, "w": EYE, "dead": EYE, "n": LIF_NODE}
    with pytest.warns(SnnDeployWarning, match="node dead leads nowhere and is left out"):
        read_nir(foreign(tmp_path / "a.nir", nodes, [*LINE, ("in", "dead")]), KNOWN)
    nodes = {**ENDS, "w": EYE, "n": LIF_NODE, "out": {"type": "Output", "shape": [3]}}
    with pytest.warns(SnnDeployWarning, match=r"declares shape \(3,\), but n has \(2,\)"):
        read_nir(foreign(tmp_path / "b.nir", nodes, LINE), KNOWN)


BAD = {
    "unknown type": (
        {"weight": {"type": "Sigma"}},
        UnsupportedError,
        "NIR node type 'Sigma' is not known",
        "w",
        "known: Affine",
    ),
    "nested and empty": (
        {"weight": {"type": "NIRGraph"}},
        InputError,
        "the graph has no nodes",
        "w",
        "export it again",
    ),
    "field missing": (
        {"weight": {"type": "Affine", "weight": np.eye(2)}},
        InputError,
        "Affine node has no bias",
        "w",
        "the file is malformed",
    ),
    "nan": (
        {"weight": {"type": "Linear", "weight": np.array([[np.nan, 0], [0, 1]])}},
        InputError,
        "Dense.weight is not finite",
        "w",
        "diverged",
    ),
    "tau": (
        {"neuron": {**LIF_NODE, "tau": [2e-3, 0.0]}},
        InputError,
        "LIF.tau_s must be positive",
        "n",
        "greater than 0",
    ),
    "unknown edge": (
        {"edges": [*LINE, ("w", "x")]},
        InputError,
        "an edge names 'x', which is not a node",
        "edge w -> x",
        "the graph has in, n, out, w",
    ),
    "edge twice": (
        {"edges": [*LINE, LINE[0]]},
        InputError,
        "an edge occurs twice",
        "edge in -> w",
        "keep one, or put a Scale of 2 into it",
    ),
    "edge from the output": (
        {"edges": [*LINE, ("out", "w")]},
        InputError,
        "an edge leaves an output node",
        "edge out -> w",
        "start the edge at the node that the output reads",
    ),
    "edge into the input": (
        {"edges": [*LINE, ("n", "in")]},
        InputError,
        "an edge ends in an input node",
        "edge n -> in",
        "end the edge at the node that the input feeds",
    ),
    "output without an edge": (
        {"edges": LINE[:2]},
        InputError,
        "nothing leads to the graph's output",
        "out",
        "connect the last layer to the Output node",
    ),
    "edges in threes": (
        {"edges": [("in", "w", "n")]},
        InputError,
        "the edges are not pairs of names",
        "node/edges",
        "an edge is (source node, target node)",
    ),
    "loop without a neuron": (
        {"edges": [*LINE, ("w", "w")]},
        UnsupportedError,
        "a loop of operators has no neuron in it",
        "w",
        "put a neuron population into the loop",
    ),
    "fraction of a step": (
        {"weight": {"type": "Delay", "delay": [1.5e-3, 1.5e-3]}},
        InputError,
        "a delay of 1.5 steps is not a whole number of steps",
        "w",
        "multiples of dt",
    ),
    "delay without end": (
        {"weight": {"type": "Delay", "delay": [1e-3, 1e9]}},
        InputError,
        "a delay of 1e+12 steps is not a whole number of steps",
        "w",
        "at most 100,000 steps",
    ),
    "delays that do not fit": (
        {"weight": {"type": "Delay", "delay": [1e-3, 2e-3, 3e-3]}},
        InputError,
        "3 delays do not fit (2,)",
        "w",
        "one for each value",
    ),
    "kernel axes": (
        {
            "weight": {
                "type": "Conv1d",
                "weight": np.eye(2),
                "stride": 1,
                "padding": 0,
                "dilation": 1,
                "groups": 1,
            }
        },
        InputError,
        "Conv1d weight has 2 axes, expected 3",
        "w",
        "weights are (out, in/groups, kernel axes)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_malformed_graph_is_refused_with_the_node_named(tmp_path, case):
    changes, kind, message, where, hint = BAD[case]
    path = line(tmp_path / "a.nir", **changes)
    with pytest.raises(kind) as caught:
        read_nir(path, KNOWN)
    assert message in caught.value.message
    assert where in caught.value.where.removeprefix(str(path))
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("metadata", "kind", "message"),
    [
        ("{", InputError, "snn_deploy metadata is not JSON"),
        ('{"schema": 99}', UnsupportedError, "metadata has another schema"),
        ('{"schema": 1, "dt_s": -1}', InputError, "the graph's dt is -1"),
        ('{"schema": 1, "dt_s": true}', InputError, "the graph's dt is True"),
        ('{"schema": 1, "dt_s": 0.001, "readout": {"kind": "x"}}', InputError, "unknown readout"),
        ('{"schema": 1, "dt_s": 0.001, "populations": [1]}', InputError, "metadata is malformed"),
        ('{"schema": 1, "dt_s": 0.001, "neurons": 3}', InputError, "metadata is malformed"),
    ],
)
def test_malformed_metadata_is_refused(tmp_path, metadata, kind, message):
    with pytest.raises(kind, match=message):
        read_nir(line(tmp_path / "a.nir", metadata=metadata), NirOptions(reset="value"))


@pytest.mark.parametrize("shape", [(), (2, 1, 1), (1, 2, 1), (2,), (2, 2, 2)])
def test_a_scale_keeps_the_shape_that_it_was_given(tmp_path, shape):
    scale = Diagonal(scale=np.arange(np.prod(shape)).reshape(shape))
    pops = (population("input", (2, 2, 2), Relay()), population("a", (2, 2, 2), lif()))
    net = network(pops, (projection("input", "a", scale),))
    path = written(tmp_path / "a.nir", net)
    assert read_nir(path) == net
    nir = pytest.importorskip("nir")
    assert nir.read(path).nodes["input-a.scale"].scale.shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("shape", "held"), [("[]", (10,)), ("[1, 1]", None), ("[3]", None), ('"x"', None), ("7", None)]
)
def test_a_scale_is_what_its_values_say_not_its_metadata(tmp_path, shape, held):
    metadata = f'{{"schema": 1, "dt_s": 0.001, "scales": {{"s": {shape}}}}}'
    nodes = {
        "in": {"type": "Input", "shape": np.array([10])},
        "s": {"type": "Scale", "scale": np.arange(10.0)},
        "n": {"type": "Threshold", "threshold": np.ones(10)},
        "out": {"type": "Output", "shape": np.array([10])},
    }
    path = foreign(tmp_path / "a.nir", nodes, [("in", "s"), ("s", "n"), ("n", "out")], metadata)
    if held is None:
        with pytest.raises(InputError, match="metadata is malformed"):
            read_nir(path)
    else:
        assert read_nir(path).projections[0].synapses[0].scale.shape == held


def test_metadata_is_plain_json(tmp_path):
    path = written(tmp_path / "a.nir", KINDS["recurrent"](np.random.default_rng(0)))
    with h5py.File(path) as file:
        content = json.loads(file["node/metadata/snn_deploy"][()])
    assert content["schema"] == 1
    assert content["dt_s"] == 1e-3
    assert content["neurons"]["a"]["reset"] == "value"


def test_an_infinite_threshold_is_null_in_metadata(tmp_path):
    net = KINDS["mlp"](np.random.default_rng(0))
    net = replace(net, readout=Readout(cutoff=(1.0, math.inf)))
    path = written(tmp_path / "a.nir", net)
    with h5py.File(path) as file:
        text = file["node/metadata/snn_deploy"][()].decode()
    assert "Infinity" not in text
    assert json.loads(text)["readout"]["cutoff"] == [1.0, None]
    assert read_nir(path).readout.cutoff == (1.0, math.inf)


# Real files.


def real_file(name):
    path = DATA / "nir" / name
    if not path.exists():
        pytest.skip("the shared test data is not here")
    return path


@pytest.mark.parametrize(
    ("trace", "states"), [("lif_norse", True), ("lif_exact", False), ("lif_snntorch", False)]
)
def test_a_published_neuron_gives_its_published_trace(trace, states):
    net = read_nir(real_file("lif_norse.nir"), NirOptions(dt_s=1e-4, reset="value"))
    rows = np.loadtxt(real_file(f"traces/{trace}.csv"), delimiter=",")
    ours = EventEngine(net).run(rows[None, :, :1], "states")
    assert np.nonzero(ours.output[0, :, 0])[0].tolist() == [460, 510, 710, 760]
    np.testing.assert_array_equal(ours.output[0, :, 0], rows[:, 2])
    if states:  # recorded in float32
        np.testing.assert_allclose(ours.states["1"]["v"][0, :, 0], rows[:, 1], atol=1e-7)


def test_lavas_published_trace_is_one_step_late():
    net = read_nir(real_file("lif_norse.nir"), NirOptions(dt_s=1e-4, reset="value"))
    rows = np.loadtxt(real_file("traces/lif_lava_cpu_fixed.csv"), delimiter=",")
    ours = EventEngine(net).run(rows[None, :, :1]).output[0, :, 0]
    np.testing.assert_array_equal(ours[:-1], rows[1:, 2])


def test_a_published_convolutional_network_reads():
    path = real_file("cnn_sinabs.nir")
    with pytest.raises(InputError, match="meaning of an IF neuron's r is ambiguous"):
        read_nir(path, NirOptions(dt_s=1e-4, reset="value"))
    net = read_nir(path, NirOptions(dt_s=1e-4, reset="value", if_r="per-step"))
    shapes = {p.name: p.shape for p in net.populations}
    assert (shapes["1"], shapes["6"], shapes["12"]) == ((16, 16, 16), (8, 8, 8), (10,))
    assert {p.name for p in net.projections} == {"0", "2", "5", "9", "11"}
    x = spikes(np.random.default_rng(0), 1, 6, (2, 34, 34), 0.1)
    assert EventEngine(net).run(x).counts["1"].sum() > 100


def test_a_published_recurrent_network_reads(tmp_path):
    path = real_file("braille_noDelay_bias_zero.nir")
    with pytest.raises(InputError, match="no time step"):
        read_nir(path)
    net = read_nir(path, NirOptions(dt_s=1e-4, reset="value"))
    plan = schedule(net)
    assert {n: late for n, late in plan.feedback.items() if late} == {"lif1.w_rec": 1}
    x = spikes(np.random.default_rng(0), 2, 30, (12,), 0.2)
    expected = EventEngine(net).run(x)
    assert expected.counts["lif1.lif"].sum() > 5
    back = read_nir(written(tmp_path / "a.nir", net))
    assert back == net


def test_a_graph_that_the_official_reader_refuses_reads_with_a_warning():
    path = real_file("lif_rockpool.nir")
    with pytest.warns(SnnDeployWarning, match=r"output output declares shape \(1, 1, 1\), but"):
        net = read_nir(path, NirOptions(dt_s=1e-4, reset="value"))
    assert [p.shape for p in net.computing()] == [(1,)]


def test_two_neurons_in_a_row():
    net = read_nir(real_file("two_lif_neurons.nir"), NirOptions(dt_s=1e-4, reset="value"))
    assert [p.name for p in net.populations] == ["in", "lif1", "lif2"]
    assert net.population("lif1").neuron.v_leak == pytest.approx(1.2)
