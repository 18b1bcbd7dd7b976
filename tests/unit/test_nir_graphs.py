"""Graphs of any wiring: nested ones, dead ends, parameters that stretch, delays of their own."""

from __future__ import annotations

import itertools
import warnings

import h5py
import nir
import numpy as np
import pytest

from snn_deploy.engine.event import EventEngine
from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.io.nir_read import NirOptions, read_nir
from snn_deploy.io.nir_write import nir_bytes
from snn_deploy.ir import Conv1d, Conv2d, Dense, Identity, Relay, check, schedule
from snn_deploy.passes.pipeline import fold
from tests.builders import grid, lif, network, population, projection, row, spikes

KNOWN = NirOptions(dt_s=1e-3, reset="value", if_r="per-step")


def lif_node(n, **changes):
    values = {"tau": 2e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.5} | changes
    return nir.LIF(**{k: np.broadcast_to(v, n).copy() for k, v in values.items()})


def ends(pre, post):
    return {"input": nir.Input(np.array([pre])), "output": nir.Output(np.array([post]))}


def write(path, graph):
    nir.write(path, graph)
    return path


def graph(nodes, edges):
    return nir.NIRGraph(nodes, edges, type_check=False)


def fails(path, message, hint, where, kind=InputError):
    with pytest.raises(kind) as caught:
        read_nir(path, KNOWN)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.where.startswith(f"{path} -> ")
    assert where in caught.value.where
    return caught.value


# Nested graphs.


def recurrent_cell(n, rng):
    """Return a neuron with its recurrent weights in a graph of their own, as exporters nest it."""
    nodes = {**ends(n, n), "lif": lif_node(n), "w_rec": nir.Linear(grid(rng, n, n))}
    edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
    return nir.NIRGraph(nodes, edges)


def test_a_nested_graph_computes_what_the_flat_one_does(tmp_path):
    rng = np.random.default_rng(0)
    cell, fc, last = recurrent_cell(5, rng), grid(rng, 5, 4), grid(rng, 3, 5)
    nested = {**ends(4, 3), "fc": nir.Linear(fc), "cell": cell, "last": nir.Linear(last)}
    nested["n"] = lif_node(3)
    edges = [("input", "fc"), ("fc", "cell"), ("cell", "last"), ("last", "n"), ("n", "output")]
    net = read_nir(write(tmp_path / "a.nir", nir.NIRGraph(nested, edges)), KNOWN)
    flat = {**ends(4, 3), "fc": nested["fc"], "cell.lif": cell.nodes["lif"]}
    flat |= {"cell.w_rec": cell.nodes["w_rec"], "last": nested["last"], "n": nested["n"]}
    edges = [("input", "fc"), ("fc", "cell.lif"), ("cell.lif", "cell.w_rec")]
    edges += [("cell.w_rec", "cell.lif"), ("cell.lif", "last"), ("last", "n"), ("n", "output")]
    same = read_nir(write(tmp_path / "b.nir", nir.NIRGraph(flat, edges)), KNOWN)
    assert [p.name for p in net.populations] == ["cell.lif", "input", "n"]
    assert schedule(net).feedback == {"fc": 0, "cell.w_rec": 1, "last": 0}
    x = spikes(rng, 3, 20, (4,))
    ours, theirs = (EventEngine(n).run(x, "states") for n in (net, same))
    assert ours.output.any()
    np.testing.assert_array_equal(ours.output, theirs.output)
    again = read_nir(rewrite(tmp_path / "c.nir", net))
    assert again == net


def rewrite(path, net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SnnDeployWarning)
        path.write_bytes(nir_bytes(net))
    return path


def two_by_two(rng):
    """Return a nested graph of two inputs and two outputs: a = W1 x, b = W2 x + W3 y."""
    nodes = {"x": nir.Input(np.array([3])), "y": nir.Input(np.array([2]))}
    nodes |= {"out_a": nir.Output(np.array([4])), "out_b": nir.Output(np.array([4]))}
    nodes |= {"a": lif_node(4), "b": lif_node(4)}
    weights = {"w1": grid(rng, 4, 3), "w2": grid(rng, 4, 3), "w3": grid(rng, 4, 2)}
    nodes |= {name: nir.Linear(weight) for name, weight in weights.items()}
    edges = [("x", "w1"), ("w1", "a"), ("a", "out_a"), ("x", "w2"), ("w2", "b")]
    edges += [("y", "w3"), ("w3", "b"), ("b", "out_b")]
    return graph(nodes, edges), weights


@pytest.mark.parametrize("mark", [".", "/"])
def test_ports_of_a_nested_graph_are_named(tmp_path, mark):
    rng = np.random.default_rng(1)
    inner, weights = two_by_two(rng)
    nodes = {"left": nir.Input(np.array([3])), "right": nir.Input(np.array([2]))}
    nodes |= {"sub": inner, "join": nir.Linear(np.eye(4)), "n": lif_node(4)}
    nodes |= {"first": nir.Output(np.array([4])), "second": nir.Output(np.array([4]))}
    edges = [("left", f"sub{mark}x"), ("right", f"sub{mark}y"), (f"sub{mark}out_a", "join")]
    edges += [(f"sub{mark}out_b", "join"), ("join", "n"), ("n", "first")]
    edges += [(f"sub{mark}out_b", "second")]
    net = read_nir(write(tmp_path / "a.nir", graph(nodes, edges)), KNOWN)
    assert net.inputs == ("left", "right")
    assert net.outputs == ("n", "sub.b")
    by_ends = {(p.pre, p.post): p.synapses[0].weight for p in net.projections}
    np.testing.assert_array_equal(by_ends["left", "sub.a"], weights["w1"])
    np.testing.assert_array_equal(by_ends["right", "sub.b"], weights["w3"])
    assert {("sub.a", "n"), ("sub.b", "n"), ("left", "sub.b")} < set(by_ends)
    assert read_nir(rewrite(tmp_path / "b.nir", net)) == net


def test_graphs_nest_more_than_once_and_may_pass_values_through(tmp_path):
    inner = graph({**ends(2, 2), "n": lif_node(2)}, [("input", "n"), ("n", "output")])
    middle = graph(
        {**ends(2, 2), "deep": inner}, [("input", "deep"), ("deep", "output"), ("input", "output")]
    )
    nodes = {**ends(2, 2), "sub": middle, "w": nir.Linear(np.eye(2)), "n": lif_node(2)}
    edges = [("input", "sub"), ("sub", "w"), ("w", "n"), ("n", "output")]
    net = read_nir(write(tmp_path / "a.nir", graph(nodes, edges)), KNOWN)
    joined = {(p.pre, p.post): len(p.synapses) for p in net.projections}
    assert joined == {
        ("input", "sub.deep.n"): 1,
        ("sub.deep.n", "n"): 1,
        ("input", "n"): 1,
    }
    assert isinstance(net.into("sub.deep.n")[0].synapses[0], Identity)


def nested_in(inner, edges):
    return graph({**ends(2, 2), "sub": inner, "n": lif_node(2)}, edges)


def one_port():
    return graph({**ends(2, 2), "n": lif_node(2)}, [("input", "n"), ("n", "output")])


PORTS = {
    "several inputs": (
        lambda: two_by_two(np.random.default_rng(0))[0],
        [("input", "sub"), ("sub.out_a", "n"), ("n", "output")],
        "the nested graph 'sub' has 2 Input nodes",
        "name one: sub.x, sub.y",
        "edge input -> sub",
    ),
    "no output": (
        lambda: graph({"input": nir.Input(np.array([2])), "n": lif_node(2)}, [("input", "n")]),
        [("input", "sub"), ("sub", "n"), ("n", "output")],
        "the nested graph 'sub' has no Output nodes",
        "add an Output node to the nested graph",
        "edge sub -> n",
    ),
    "past the ports": (
        one_port,
        [("input", "sub"), ("sub.n", "n"), ("n", "output")],
        "the edge reaches into the nested graph 'sub' past its Output nodes",
        "connect 'n' to an Output node inside",
        "edge sub.n -> n",
    ),
    "unknown inside": (
        one_port,
        [("input", "sub.inputs"), ("sub", "n"), ("n", "output")],
        "an edge names 'sub.inputs', which is not a node",
        "did you mean 'input'?",
        "edge input -> sub.inputs",
    ),
    "inner edge": (
        lambda: graph({**ends(2, 2), "lif": lif_node(2)}, [("input", "sub.lif")]),
        [("input", "sub"), ("sub", "n"), ("n", "output")],
        "an edge names 'sub.lif', which is not a node",
        "did you mean 'lif'?",
        "edge sub.input -> sub.sub.lif",
    ),
}


@pytest.mark.parametrize("case", PORTS)
def test_edges_of_nested_graphs_that_mean_nothing_are_refused(tmp_path, case):
    inner, edges, message, hint, where = PORTS[case]
    path = write(tmp_path / "a.nir", nested_in(inner(), edges))
    fails(path, message, hint, where)


def test_a_nested_input_of_another_shape_is_a_finding(tmp_path):
    inner = graph(
        {"input": nir.Input(np.array([7])), "output": nir.Output(np.array([2])), "n": lif_node(2)},
        [("input", "n"), ("n", "output")],
    )
    nodes = {**ends(2, 2), "w": nir.Linear(np.eye(2)), "sub": inner}
    edges = [("input", "w"), ("w", "sub"), ("sub", "output")]
    path = write(tmp_path / "a.nir", graph(nodes, edges))
    with pytest.warns(SnnDeployWarning, match=r"^sub.input declares shape \(7,\), but gets \(2,\)"):
        net = read_nir(path, KNOWN)
    assert check(net).outputs == ("sub.n",)


def test_names_that_meet_after_flattening_are_refused(tmp_path):
    inner = one_port()
    nodes = {**ends(2, 2), "sub": inner, "sub.n": lif_node(2)}
    edges = [("input", "sub"), ("sub", "output"), ("input", "sub.n"), ("sub.n", "output")]
    path = write(tmp_path / "a.nir", graph(nodes, edges))
    fails(path, "two nodes are called 'sub.n'", "rename one of them", "sub.n")


# Dead and isolated nodes.


def warned(path):
    with pytest.warns(SnnDeployWarning) as caught:
        net = read_nir(path, KNOWN)
    return net, [str(w.message) for w in caught]


def test_dead_and_isolated_nodes_are_findings(tmp_path):
    nodes = {**ends(2, 2), "w": nir.Linear(np.eye(2)), "n": lif_node(2)}
    nodes |= {
        "alone": lif_node(3),
        "loose": nir.Linear(np.eye(3)),
        "spare": nir.Output(np.array([2])),
    }
    nodes |= {"deaf": lif_node(2), "w2": nir.Linear(np.eye(2)), "mute": lif_node(2)}
    nodes |= {"unused": nir.Input(np.array([5]))}
    edges = [
        ("input", "w"),
        ("w", "n"),
        ("n", "output"),
        ("deaf", "n"),
        ("n", "w2"),
        ("w2", "mute"),
    ]
    net, findings = warned(write(tmp_path / "a.nir", graph(nodes, edges)))
    assert sorted(findings) == [
        "input unused feeds nothing",
        "node alone is connected to nothing and is left out",
        "node deaf is fed by nothing",
        "node loose leads nowhere and is left out",
        "node mute leads to no output",
        "output spare reads nothing and is left out",
    ]
    assert {p.name for p in net.populations} == {"input", "unused", "n", "deaf", "mute"}
    fold(net)


# Shapes.


def without_axes(path, *names):
    """Make parameters of one value 0-d, as other writers do; the nir package cannot."""
    with h5py.File(path, "r+") as file:
        for name in names:
            node = file[f"node/nodes/{name}"]
            for key, data in list(node.items()):
                if data.shape == (1,):
                    value = data[0]
                    del node[key]
                    node[key] = value
    return path


@pytest.mark.parametrize("axes", [0, 1])
def test_parameters_of_one_value_serve_a_whole_layer(tmp_path, axes):
    nodes = {**ends(3, 5), "w": nir.Linear(np.ones((5, 3))), "n": lif_node(1)}
    path = write(tmp_path / "a.nir", graph(nodes, [("input", "w"), ("w", "n"), ("n", "output")]))
    if axes == 0:
        without_axes(path, "n")
    with h5py.File(path) as file:
        assert file["node/nodes/n/tau"].ndim == axes
    net = read_nir(path, KNOWN)
    assert net.population("n").shape == (5,)
    assert EventEngine(net).run(np.ones((1, 4, 3))).counts["n"].tolist() == [4] * 5


def test_parameters_per_channel_stretch_over_the_image(tmp_path):
    conv = nir.Conv2d((6, 5), np.ones((4, 1, 3, 3)), 1, 0, 1, 1, np.zeros(4))
    nodes = {"input": nir.Input(np.array([1, 6, 5])), "output": nir.Output(np.array([4, 4, 3]))}
    nodes |= {"c": conv, "n": lif_node((4, 1, 1), v_threshold=np.arange(4.0).reshape(4, 1, 1))}
    edges = [("input", "c"), ("c", "n"), ("n", "output")]
    net = check(read_nir(write(tmp_path / "a.nir", graph(nodes, edges)), KNOWN))
    assert net.population("n").shape == (4, 4, 3)


def test_the_largest_parameter_gives_the_shape(tmp_path):
    nodes = {**ends(3, 3), "n": lif_node(1)}
    path = write(tmp_path / "a.nir", graph(nodes, [("input", "n"), ("n", "output")]))
    with h5py.File(path, "r+") as file:
        del file["node/nodes/n/r"]
        file["node/nodes/n/r"] = np.ones(3)
    assert check(read_nir(path, KNOWN)).population("n").shape == (3,)


def test_a_loop_of_scalars_without_an_input_has_no_shape(tmp_path):
    nodes = {**ends(2, 2), "m": lif_node(2), "a": lif_node(1), "b": lif_node(1)}
    edges = [("input", "m"), ("m", "output"), ("a", "b"), ("b", "a")]
    path = without_axes(write(tmp_path / "a.nir", graph(nodes, edges)), "a", "b")
    fails(path, "does not follow from anything", "connect it to the input", "a")


@pytest.mark.parametrize("first", [0, 1])
def test_flatten_counts_axes_with_or_without_a_batch(tmp_path, first):
    flat = nir.Flatten(np.array([6]), start_dim=first, end_dim=-1)
    nodes = {"input": nir.Input(np.array([6])), "output": nir.Output(np.array([2]))}
    nodes |= {"f": flat, "w": nir.Linear(np.ones((2, 6))), "n": lif_node(2)}
    path = tmp_path / "a.nir"
    nir.write(path, graph(nodes, [("input", "f"), ("f", "w"), ("w", "n"), ("n", "output")]))
    assert check(read_nir(path, KNOWN)).population("n").shape == (2,)


def test_a_convolution_without_a_bias_reads(tmp_path):
    conv = nir.Conv1d(5, np.ones((2, 1, 3)), 1, "same", 1, 1, np.ones(2))
    nodes = {"input": nir.Input(np.array([1, 5])), "output": nir.Output(np.array([2, 5]))}
    nodes |= {"c": conv, "n": lif_node((2, 5))}
    path = write(tmp_path / "a.nir", graph(nodes, [("input", "c"), ("c", "n"), ("n", "output")]))
    with h5py.File(path, "r+") as file:
        del file["node/nodes/c/bias"]
    synapse = check(read_nir(path, KNOWN)).projections[0].synapses[0]
    assert (synapse.bias, synapse.padding) == (None, (1, 1))


# Delays.


def delayed(shape, delay, *before, after=()):
    names = [f"b{i}" for i in range(len(before))] + ["d"] + [f"a{i}" for i in range(len(after))]
    nodes = dict(zip(names, (*before, nir.Delay(np.array(delay)), *after), strict=True))
    nodes = {**ends(shape[0], shape[1]), **nodes, "n": lif_node(shape[1])}
    line = ["input", *names, "n", "output"]
    return graph(nodes, list(itertools.pairwise(line)))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (delayed((2, 2), [2e-3, 2e-3]), 2),
        (delayed((2, 3), [1e-3, 3e-3], after=[nir.Linear(np.ones((3, 2)))]), [[1, 3]]),
        (
            delayed((2, 3), [0, 1e-3, 2e-3], nir.Linear(np.ones((3, 2)))),
            [[0], [1], [2]],
        ),
        (
            delayed(
                (2, 2), [1e-3, 0], nir.Scale(np.array([1.0, 2.0])), nir.Delay(np.array([0, 4e-3]))
            ),
            [[1, 4]],
        ),
    ],
    ids=["one", "per source", "per target", "added"],
)
def test_delays_per_value_read_and_write(tmp_path, made, expected):
    net = check(read_nir(write(tmp_path / "a.nir", made), KNOWN))
    assert np.array_equal(net.projections[0].delay_steps, expected)
    assert read_nir(rewrite(tmp_path / "b.nir", net)) == net


def test_delays_of_source_and_target_are_written_as_two_nodes(tmp_path):
    rng = np.random.default_rng(0)
    delay = np.array([[3, 1, 4]]) + np.array([[0], [2]])
    net = network(
        [population("in", (3,), Relay()), population("out", (2,), lif())],
        [projection("in", "out", Dense(weight=grid(rng, 2, 3)), delay_steps=delay)],
    )
    assert read_nir(rewrite(tmp_path / "a.nir", net)) == net


def test_several_delays_between_two_layers_are_refused(tmp_path):
    eye = nir.Linear(np.eye(2))
    path = write(tmp_path / "a.nir", delayed((2, 2), [0, 1e-3], eye, after=[eye]))
    fails(
        path,
        "a Delay with several values stands between two layers",
        "right behind or right before a neuron",
        "a0",
        UnsupportedError,
    )


def test_a_bias_before_a_delay_warns(tmp_path):
    made = delayed((2, 2), [1e-3, 1e-3], nir.Affine(np.eye(2), np.ones(2)))
    with pytest.warns(SnnDeployWarning, match="the bias of b0 stands before the delay d"):
        read_nir(write(tmp_path / "a.nir", made), KNOWN)


# Padding "same" and sizes that only a hostile file has.


def test_uneven_same_padding_is_written_by_its_name(tmp_path):
    rng = np.random.default_rng(0)
    for net in (
        row((2, 6, 5), Conv2d(weight=grid(rng, 3, 2, 2, 4), padding=(0, 1, 1, 2)), lif()),
        row((2, 6), Conv1d(weight=grid(rng, 3, 2, 4), dilation=3, padding=(4, 5)), lif()),
    ):
        path = rewrite(tmp_path / "a.nir", net)
        with h5py.File(path) as file:
            assert file["node/nodes/w1/padding"][()] == b"same"
        assert read_nir(path) == net
        assert nir.read(path).nodes["w1"].padding == "same"


def test_operators_that_branch_without_end_are_refused(tmp_path):
    nodes = {**ends(2, 2), "n": lif_node(2)}
    edges, last = [], "input"
    for i in range(20):  # 2^20 paths
        nodes |= {f"{k}{i}": nir.Scale(np.ones(2)) for k in "abj"}
        edges += [(last, f"a{i}"), (last, f"b{i}"), (f"a{i}", f"j{i}"), (f"b{i}", f"j{i}")]
        last = f"j{i}"
    path = write(tmp_path / "a.nir", graph(nodes, [*edges, (last, "n"), ("n", "output")]))
    fails(path, "branch or chain without end", "put neurons between", "n", UnsupportedError)
    nodes = {**ends(2, 2), "n": lif_node(2)} | {f"s{i}": nir.Scale(np.ones(2)) for i in range(300)}
    line = ["input", *(f"s{i}" for i in range(300)), "n", "output"]
    path = write(tmp_path / "b.nir", graph(nodes, list(itertools.pairwise(line))))
    fails(path, "branch or chain without end", "multiply linear layers", "n", UnsupportedError)


def test_a_line_that_feeds_an_image_warns_and_reads_back(tmp_path):
    net = network(
        [population("in", (3,), Relay()), population("out", (1, 2, 2), lif())],
        [projection("in", "out", Dense(weight=grid(np.random.default_rng(0), 4, 3)))],
    )
    with pytest.warns(SnnDeployWarning, match="in-out: a line of values feeds neurons"):
        content = nir_bytes(net)
    path = tmp_path / "a.nir"
    path.write_bytes(content)
    assert read_nir(path) == net
    with pytest.raises(ValueError, match="type mismatch"):
        nir.read(path)
    assert "out" in nir.read(path, type_check=False).nodes


def test_edges_in_numbers_name_nodes_in_numbers(tmp_path):
    nodes = {"0": nir.Input(np.array([2])), "1": lif_node(2), "2": nir.Output(np.array([2]))}
    path = write(tmp_path / "a.nir", graph(nodes, [("0", "1"), ("1", "2")]))
    with h5py.File(path, "r+") as file:
        del file["node/edges"]
        file["node/edges"] = np.array([[0, 1], [1, 2]])
    assert check(read_nir(path, KNOWN)).outputs == ("1",)
