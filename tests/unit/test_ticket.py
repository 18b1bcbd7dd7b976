"""Tickets: every malformed field is refused with its place; masks are applied; networks follow."""

from __future__ import annotations

import numpy as np
import pytest

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.io.ticket import is_ticket, network_of, parse_ticket, read_ticket
from snn_deploy.ir import (
    IF,
    LI,
    BatchNorm,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Dense,
    Diagonal,
    Identity,
    Integrator,
    Pool2d,
    Readout,
    Relay,
    Source,
    Threshold,
    check,
    schedule,
)
from snn_deploy.ir.synapses import learned_nonzeros
from tests.tickets import LIF, chain, conv_content, mlp_content, save

torch = pytest.importorskip("torch")


def arrays(content):
    """Return content with numpy arrays for tensors, as the reader hands it over."""
    turn = lambda d: {k: np.asarray(v) for k, v in d.items()}
    return {**content, "state": turn(content["state"]), "masks": turn(content["masks"])}


def network(content):
    return network_of(parse_ticket(content, Source(path="m.pt")))


def test_a_saved_ticket_becomes_its_network(tmp_path):
    content = mlp_content()
    ticket = read_ticket(save(tmp_path / "m.pt", content))
    net = check(network_of(ticket))
    assert [p.name for p in net.populations] == ["input", "lif1", "lif2"]
    assert [p.name for p in net.projections] == ["fc1", "fc2"]
    assert (net.inputs, net.outputs, net.dt_s) == (("input",), ("lif2",), 1e-3)
    assert (net.readout, net.coding.kind) == (Readout(kind="count"), "rate")
    assert (net.coding.steps, net.coding.seed, net.coding.gain) == (6, 3, 1.0)
    first = net.projections[0].synapses[0]
    np.testing.assert_array_equal(first.weight, content["state"]["fc1.weight"].numpy())
    np.testing.assert_array_equal(first.bias, content["state"]["fc1.bias"].numpy())
    assert first.weight.dtype == np.float32
    assert net.source.format == "ticket"
    assert (net.source.path, len(net.source.sha256)) == (str(tmp_path / "m.pt"), 64)


def test_a_saved_convolutional_ticket_becomes_its_network(tmp_path):
    net = check(network_of(read_ticket(save(tmp_path / "m.pt", conv_content()))))
    conv, norm = net.projections[0].synapses
    assert isinstance(conv, Conv2d)
    assert isinstance(norm, BatchNorm)
    assert conv.padding == (1, 1, 1, 1)
    assert norm.eps == 1e-5
    pool, dense = net.projections[1].synapses
    assert (pool.kind, pool.kernel, pool.stride) == ("avg", (2, 2), (2, 2))
    assert dense.weight.shape == (3, 36)
    assert net.population("lif1").shape == (4, 6, 6)


def test_masks_are_applied_to_weights_that_are_not_zero():
    content = arrays(mlp_content())
    weight = np.ones_like(content["state"]["fc1.weight"])
    content["state"]["fc1.weight"] = weight
    net = network(content)
    mask = content["masks"]["fc1.weight"]
    made = net.projections[0].synapses[0]
    np.testing.assert_array_equal(made.weight, mask.astype(np.float32))
    assert learned_nonzeros(made) == mask.sum() < weight.size
    for other in (np.uint8, np.float32):
        content["masks"]["fc1.weight"] = mask.astype(other)
        assert network(content).projections[0].synapses[0] == made


def test_a_mask_hides_values_that_are_not_numbers():
    content = arrays(mlp_content())
    weight = np.array(content["state"]["fc1.weight"])
    weight[~content["masks"]["fc1.weight"]] = np.nan
    content["state"]["fc1.weight"] = weight
    assert np.all(np.isfinite(network(content).projections[0].synapses[0].weight))


def one(node, shape=(2, 6, 6), state=None, graph=None):
    """Return content: input - node - (a Threshold, unless node is a neuron) - output."""
    nodes = [{"name": "in", "op": "Input", "shape": list(shape)}, {"name": "x", **node}]
    if node["op"] not in ("LIF", "IF", "LI", "CubaLIF", "CubaLI", "Integrator", "Threshold"):
        nodes.append({"name": "n", "op": "Threshold", "threshold": 0.5})
    nodes.append({"name": "out", "op": "Output"})
    made = chain(nodes) | (graph or {})
    return {
        "format": "snn-deploy/ticket",
        "version": 1,
        "graph": made,
        "state": state or {},
        "masks": {},
        "meta": {},
    }


W = {"w": np.ones((3, 2, 3, 3), np.float32), "w1": np.ones((3, 2, 3)), "d": np.ones((4, 72))}
OPERATORS = [
    ({"op": "Linear", "weight": "d"}, Dense(weight=W["d"])),
    ({"op": "Conv2d", "weight": "w"}, Conv2d(weight=W["w"])),
    (
        {"op": "Conv2d", "weight": "w", "stride": 2, "padding": [1, 2], "dilation": [2, 1]},
        Conv2d(weight=W["w"], stride=(2, 2), padding=(1, 1, 2, 2), dilation=(2, 1)),
    ),
    (
        {"op": "Conv2d", "weight": "w", "padding": [1, 0, 2, 3]},
        Conv2d(weight=W["w"], padding=(1, 0, 2, 3)),
    ),
    ({"op": "Pool2d"}, Pool2d(kind="sum", kernel=(2, 2), stride=(2, 2))),
    (
        {"op": "Pool2d", "kind": "max", "kernel": [2, 3], "stride": 1, "padding": 1},
        Pool2d(kind="max", kernel=(2, 3), stride=(1, 1), padding=(1, 1, 1, 1)),
    ),
    ({"op": "Scale", "scale": 0.5}, Diagonal(scale=np.array(0.5))),
    ({"op": "Identity"}, Identity()),
    ({"op": "Flatten"}, Identity()),
]


@pytest.mark.parametrize(("node", "expected"), OPERATORS)
def test_operators(node, expected):
    (made,) = check(network(one(node, state=W))).projections[0].synapses
    assert made == expected


def test_a_one_dimensional_convolution():
    node = {"op": "Conv1d", "weight": "w1", "stride": 2, "padding": [1, 2], "groups": 1}
    (made,) = network(one(node, (2, 9), W)).projections[0].synapses
    assert made == Conv1d(weight=W["w1"], stride=2, padding=(1, 2))


def test_a_delay_is_steps_of_its_projection():
    net = network(one({"op": "Delay", "steps": 3}))
    assert net.projections[0].delay_steps == 3
    assert net.projections[0].synapses == (Identity(),)


CUBA = {"tau_syn_s": 2e-3, "tau_mem_s": 3e-3, "r": 1.0, "v_leak": 0.0, "w_in": 2.0}
NEURONS = [
    ({"op": "IF", "r": 2, "v_threshold": 1.0, "v_reset": 0.0, "r_unit": "physical"}, IF),
    ({"op": "LI", "tau_s": 2e-3, "r": 1.0, "v_leak": 0.5}, LI),
    ({"op": "CubaLIF", **CUBA, "v_threshold": 1.0, "v_reset": 0.0}, CubaLIF),
    ({"op": "CubaLI", **CUBA}, CubaLI),
    ({"op": "Integrator", "r": 3.0}, Integrator),
    ({"op": "Threshold", "threshold": [0.5] * 72}, Threshold),
]


@pytest.mark.parametrize(("node", "kind"), NEURONS)
def test_neurons(node, kind):
    made = network(one(node)).population("x")
    assert isinstance(made.neuron, kind)
    assert made.shape == (2, 6, 6)
    for key, value in node.items():
        if key not in ("op", "r_unit"):
            np.testing.assert_array_equal(getattr(made.neuron, key), value)


def test_reset_by_an_amount():
    node = {**LIF, "reset": "subtract", "reset_amount": 0.75}
    neuron = network(one(node)).population("x").neuron
    assert (neuron.reset, float(neuron.reset_amount)) == ("subtract", 0.75)


def test_the_readout_and_feedback_of_a_graph():
    graph = {
        "readout": {"kind": "vote", "groups": 6, "window": [2, 5], "cutoff": [3, None, 0.5]},
        "feedback": [["in", "n"]],
    }
    net = check(network(one({"op": "Identity"}, graph=graph)))
    cutoff = (3.0, float("inf"), 0.5)
    assert net.readout == Readout(kind="vote", groups=6, window=(2, 5), cutoff=cutoff)
    assert schedule(net).feedback == {"x": 1}


def test_an_output_behind_operators_is_a_population_of_sums():
    nodes = [
        {"name": "in", "op": "Input", "shape": [72]},
        {"name": "fc", "op": "Linear", "weight": "d"},
        {"name": "out", "op": "Output"},
    ]
    content = one({"op": "Identity"}, state=W)
    content["graph"] = chain(nodes)
    net = network(content)
    assert isinstance(net.population("out").neuron, Relay)
    assert net.population("out").shape == (4,)


def test_a_shift_behind_a_junction_counts_once():
    content = one({"op": "Identity"}, (2,), {"w": np.eye(2, dtype=np.float32)})
    ones = [1.0, 1.0]
    norm = {"mean": [0.5, 0.5], "variance": ones, "weight": [2.0, 2.0], "bias": ones, "eps": 0.0}
    content["graph"] = chain(
        [
            {"name": "in", "op": "Input", "shape": [2]},
            {"name": "a", "op": "Linear", "weight": "w"},
            {"name": "bn", "op": "BatchNorm", **norm},
            {"name": "n", **LIF, "tau_s": 1e-3, "v_threshold": 9.0},
            {"name": "out", "op": "Output"},
        ]
    )
    content["graph"]["nodes"].append({"name": "b", "op": "Linear", "weight": "w"})
    content["graph"]["edges"] += [["in", "b"], ["b", "bn"]]
    from snn_deploy.engine.event import EventEngine
    from snn_deploy.passes.pipeline import fold

    v = EventEngine(fold(network(content))).run(np.ones((1, 1, 2)), "states").states["n"]["v"]
    assert v[0, 0].tolist() == [2 * (1 + 1 - 0.5) + 1] * 2


# What is refused.


def edited(change):
    content = arrays(mlp_content())
    change(content)
    return content


def node_of(content, name):
    return next(n for n in content["graph"]["nodes"] if n["name"] == name)


def put(*path, value):
    """Return a change that sets content[path[0]][path[1]]... to value."""

    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


def field(name, key, value):
    return lambda content: node_of(content, name).__setitem__(key, value)


def without(name, key):
    return lambda content: node_of(content, name).pop(key)


REFUSED = {
    "version": (put("version", value=3), "ticket version 3 is not known", None, "upgrade"),
    "no graph": (put("graph", value=None), "the ticket has no graph", None, "save_ticket"),
    "graph a list": (put("graph", value=[]), "the ticket has no graph", None, "save_ticket"),
    "meta": (put("meta", value=[]), "the ticket has no graph", None, "save_ticket"),
    "state": (put("state", value=[]), "the ticket's state is not a dict of tensors", None, ""),
    "state entry": (put("state", "fc1.weight", value=3.0), "is not a tensor", "state", ""),
    "state key": (lambda c: c["state"].update({3: np.ones(1)}), "is not a tensor", "state", ""),
    "masks": (put("masks", value=3), "the ticket's masks is not a dict of tensors", None, ""),
    "mask entry": (put("masks", "fc1.weight", value=[1]), "is not a tensor", "masks", ""),
    "mask name": (
        put("masks", "fc9.weight", value=np.ones((2, 2), bool)),
        "a mask names a tensor that the ticket does not hold",
        "masks -> fc9.weight",
        "masks go by the state key, such as 'fc1.weight'",
    ),
    "mask shape": (
        put("masks", "fc1.weight", value=np.ones((12, 8), bool)),
        "a mask and its weights have different shapes",
        "masks -> fc1.weight",
        "layout of the weight tensor",
    ),
    "mask values": (
        put("masks", "fc1.weight", value=np.full((8, 12), 2)),
        "a mask holds values other than 0 and 1",
        "masks -> fc1.weight",
        "",
    ),
    "mask nan": (
        put("masks", "fc1.weight", value=np.full((8, 12), np.nan)),
        "a mask holds values other than 0 and 1",
        "masks -> fc1.weight",
        "",
    ),
    "no nodes": (lambda c: c["graph"].pop("nodes"), "has no list of nodes", None, ""),
    "nodes a dict": (put("graph", "nodes", value={}), "has no list of nodes", None, ""),
    "no edges": (lambda c: c["graph"].pop("edges"), "has no list of edges", None, ""),
    "node a string": (put("graph", "nodes", 0, value="x"), "a graph node has no name", None, ""),
    "node name": (field("fc1", "name", 3), "a graph node has no name", None, ""),
    "node name empty": (field("fc1", "name", ""), "is empty or used twice", None, ""),
    "node twice": (field("fc2", "name", "fc1"), "'fc1' is empty or used twice", "fc1", ""),
    "edge of three": (
        put("graph", "edges", 0, value=["a", "b", "c"]),
        "an edge is not a pair of names: ['a', 'b', 'c']",
        "edges",
        "",
    ),
    "edge of numbers": (put("graph", "edges", 0, value=[1, 2]), "not a pair of names", "edges", ""),
    "edge to nowhere": (
        put("graph", "edges", 0, value=["input", "x"]),
        "an edge names 'x', which is not a node",
        "edge input -> x",
        "export it again",
    ),
    "feedback": (put("graph", "feedback", value=[3]), "not a pair of names: 3", "feedback", ""),
    "feedback a name": (put("graph", "feedback", value="ab"), "not a pair", "feedback", ""),
    "dt missing": (lambda c: c["graph"].pop("dt_s"), "dt_s must be a finite number", None, ""),
    "dt text": (put("graph", "dt_s", value="1"), "dt_s must be a finite number, got '1'", None, ""),
    "dt nan": (put("graph", "dt_s", value=float("nan")), "finite number, got nan", None, ""),
    "dt true": (put("graph", "dt_s", value=True), "finite number, got True", None, ""),
    "readout": (put("graph", "readout", value=[1]), "readout must be a table", None, ""),
    "readout kind": (
        put("graph", "readout", "kind", value="sum"),
        "unknown readout 'sum'",
        None,
        "count, vote, last, max or mean",
    ),
    "readout groups": (
        put("graph", "readout", "groups", value="3"),
        "readout groups must be a whole number, got '3'",
        None,
        "",
    ),
    "readout window": (
        put("graph", "readout", "window", value=[1, 2, 3]),
        "readout window must be one or two whole numbers",
        None,
        "",
    ),
    "readout cutoff": (
        put("graph", "readout", "cutoff", value=[1, "2"]),
        "a cutoff must be a list of thresholds, got [1, '2']",
        None,
        "one number per step, such as [4, 3.5, 2], null where no sample stops",
    ),
    "readout cutoff of one number": (
        put("graph", "readout", "cutoff", value=3),
        "a cutoff must be a list of thresholds, got 3",
        None,
        "",
    ),
    "readout cutoff true": (
        put("graph", "readout", "cutoff", value=[True]),
        "a cutoff must be a list of thresholds, got [True]",
        None,
        "",
    ),
    "coding": (put("graph", "coding", value="rate"), "coding must be a table", None, ""),
    "coding kind": (
        put("graph", "coding", "kind", value="x"),
        "unknown coding 'x'",
        None,
        "rate, direct or events",
    ),
    "no steps": (
        put("graph", "coding", "steps", value=0),
        "the coding has no time steps",
        None,
        "at least 1",
    ),
    "steps": (put("graph", "coding", "steps", value=2.5), "coding steps must be a", None, ""),
    "seed": (put("graph", "coding", "seed", value="a"), "coding seed must be a whole", None, ""),
    "gain": (put("graph", "coding", "gain", value=None), "coding gain must be a", None, ""),
    "op": (field("fc1", "op", "Relu"), "operator 'Relu' is not known", "fc1", "docs/tickets.md"),
    "op a list": (field("fc1", "op", []), "malformed node", "fc1", ""),
    "op missing": (without("fc1", "op"), "operator None is not known", "fc1", ""),
    "relay": (field("lif1", "op", "Relay"), "operator 'Relay' is not known", "lif1", ""),
    "input shape": (without("input", "shape"), "an input has no shape", "input", ""),
    "shape zero": (field("input", "shape", [0]), "list of positive whole numbers", "input", ""),
    "shape text": (field("input", "shape", "12"), "list of positive whole numbers", "input", ""),
    "shape ragged": (field("input", "shape", [1, [2]]), "malformed node", "input", ""),
    "tensor": (
        field("fc1", "weight", "fc7.weight"),
        "parameter weight refers to tensor 'fc7.weight', which the ticket does not hold",
        "fc1",
        "save the ticket again",
    ),
    "weight missing": (without("fc1", "weight"), "parameter weight is missing", "fc1", ""),
    "weight axes": (field("fc1", "weight", [1.0]), "Dense weight has 1 axes", "fc1", ""),
    "weight nan": (
        put("state", "fc2.weight", value=np.full((3, 8), np.nan)),
        "weight holds NaN or infinite values",
        "fc2",
        "training diverged",
    ),
    "weight text": (
        put("state", "fc2.bias", value=np.array(["a"] * 3)),
        "bias holds <U1 values, expected numbers",
        "fc2",
        "",
    ),
    "weight shape": (
        put("state", "fc2.weight", value=np.ones((3, 9), np.float32)),
        "mask and its weights",
        "masks -> fc2.weight",
        "",
    ),
    "bias shape": (
        put("state", "fc1.bias", value=np.ones(3, np.float32)),
        "Dense bias has shape (3,), expected (8,)",
        "fc1",
        "one bias per output neuron",
    ),
    "tau missing": (without("lif1", "tau_s"), "parameter tau_s is missing", "lif1", ""),
    "tau zero": (field("lif1", "tau_s", 0.0), "LIF.tau_s must be positive", "lif1", "seconds"),
    "tau text": (field("lif1", "tau_s", [[1], [2, 3]]), "malformed node", "lif1", ""),
    "threshold inf": (
        field("lif1", "v_threshold", float("inf")),
        "LIF.v_threshold is not finite",
        "lif1",
        "diverged",
    ),
    "reset": (field("lif1", "reset", "zero"), "reset is 'zero'", "lif1", "value or subtract"),
    "two inputs to one edge": (
        lambda c: c["graph"]["edges"].append(["input", "fc1"]),
        "an edge occurs twice",
        "edge input -> fc1",
        "",
    ),
}
CHAINED = {
    "stride": ({"op": "Conv2d", "weight": "w", "stride": [1, 2, 3]}, "stride must be one or two"),
    "stride zero": ({"op": "Conv2d", "weight": "w", "stride": 0}, "at least 1"),
    "padding": ({"op": "Conv2d", "weight": "w", "padding": "same"}, "padding must be one or two"),
    "padding negative": ({"op": "Conv2d", "weight": "w", "padding": -1}, "padding at least 0"),
    "groups": ({"op": "Conv2d", "weight": "w", "groups": "x"}, "malformed node"),
    "too many groups": ({"op": "Conv2d", "weight": "w", "groups": 2}, "does not fit 2 channels"),
    "kernel": ({"op": "Pool2d", "kernel": 2.5}, "kernel must be one or two whole numbers"),
    "pool": ({"op": "Pool2d", "kind": "lp"}, "unknown pool 'lp'"),
    "pool zero": ({"op": "Pool2d", "kernel": 0}, "at least 1"),
    "conv1d": ({"op": "Conv1d", "weight": "w"}, "Conv1d weight has 4 axes"),
    "scale": ({"op": "Scale"}, "parameter scale is missing"),
    "scale nan": ({"op": "Scale", "scale": float("nan")}, "scale holds NaN"),
    "norm": ({"op": "BatchNorm", "mean": [0.0, 0.0]}, "parameter variance is missing"),
    "flatten": ({"op": "Flatten", "first": 2, "last": 1}, "flatten of axes 2..1 does not fit"),
    "flatten text": ({"op": "Flatten", "first": "x"}, "malformed node"),
    "delay": ({"op": "Delay", "steps": -2}, "delays are whole steps, 0 or more"),
    "r_unit": (
        {"op": "IF", "r": 1, "v_threshold": 1.0, "v_reset": 0.0, "r_unit": "x"},
        "r_unit is 'x'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_malformed_field_is_refused_with_its_place(case):
    change, message, where, hint = REFUSED[case]
    content = edited(change)
    with pytest.raises((InputError, UnsupportedError)) as caught:
        network(content)
    error = caught.value
    assert message in error.message
    assert error.exit_code in (3, 4)
    assert hint in (error.hint or "")
    if where is not None:
        assert (error.where or "").removeprefix("m.pt -> ") == where


@pytest.mark.parametrize("case", CHAINED)
def test_a_malformed_operator_is_refused_with_its_node(case):
    node, message = CHAINED[case]
    with pytest.raises((InputError, UnsupportedError)) as caught:
        check(network(one(node, state=W)))
    assert message in caught.value.message
    assert "x" in caught.value.where.split(" -> ")


def test_the_file_is_named_first(tmp_path):
    path = save(tmp_path / "m.pt", mlp_content(), field("lif2", "tau_s", -1.0))
    with pytest.raises(InputError) as caught:
        network_of(read_ticket(path))
    assert caught.value.where == f"{path} -> lif2"
    path = save(tmp_path / "v.pt", mlp_content(), put("version", value=9))
    with pytest.raises(UnsupportedError) as caught:
        read_ticket(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("content", "used"),
    [
        ({"fc1.weight": np.ones(2), "b": 1}, "its first keys are ['fc1.weight', 'b']"),
        ([1], "it holds a list"),
        ({}, "it holds a dict"),
    ],
)
def test_what_is_no_ticket_is_told_what_to_do(content, used):
    assert not is_ticket(content)
    with pytest.raises(InputError, match="not a ticket") as caught:
        parse_ticket(content, Source())
    assert caught.value.used == used
    assert "--arch FILE.py:FACTORY" in caught.value.hint
