"""Live torch modules to ticket graphs: what is read, and what is refused with which words."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from snn_deploy.engine.event import EventEngine  # noqa: E402
from snn_deploy.errors import InputError, UnsupportedError, UsageError  # noqa: E402
from snn_deploy.frontends.modules import graph_from_module, read_module  # noqa: E402
from snn_deploy.frontends.state import ticket_content  # noqa: E402
from snn_deploy.io.ticket import network_of, parse_ticket  # noqa: E402
from snn_deploy.ir.network import Source  # noqa: E402
from snn_deploy.passes.pipeline import fold  # noqa: E402
from snn_deploy.tickets.lif import LIF  # noqa: E402
from snn_deploy.tickets.models.build import build  # noqa: E402
from snn_deploy.tickets.models.layers import TimeSequential  # noqa: E402

CONV_INPUT = torch.zeros(1, 1, 8, 8)


def node(graph, name):
    return next(n for n in graph["nodes"] if n["name"] == name)


def network(module, example, **options):
    content = ticket_content(module, example_input=example, **options)
    for part in ("state", "masks"):
        content[part] = {k: v.numpy() for k, v in content[part].items()}
    return network_of(parse_ticket(content, Source()))


def test_the_conv_net_as_a_graph():
    graph, state = graph_from_module(
        build("conv", (1, 8, 8), 10, hidden=(4, 6)), CONV_INPUT, coding={"kind": "rate", "steps": 8}
    )
    assert [(n["name"], n["op"]) for n in graph["nodes"]] == [
        ("input", "Input"),
        ("conv1", "Conv2d"),
        ("bn1", "BatchNorm"),
        ("lif1", "LIF"),
        ("pool1", "Pool2d"),
        ("conv2", "Conv2d"),
        ("bn2", "BatchNorm"),
        ("lif2", "LIF"),
        ("pool2", "Pool2d"),
        ("flatten", "Flatten"),
        ("fc", "Linear"),
        ("lif3", "LIF"),
        ("output", "Output"),
    ]
    names = [n["name"] for n in graph["nodes"]]
    assert graph["edges"] == [list(pair) for pair in itertools.pairwise(names)]
    assert node(graph, "input")["shape"] == [1, 8, 8]
    assert node(graph, "lif2")["shape"] == [6, 4, 4]
    assert node(graph, "conv1")["padding"] == [1, 1, 1, 1]
    assert "bias" not in node(graph, "conv1")
    assert node(graph, "bn1")["variance"] == "bn1.running_var"
    assert node(graph, "pool1")["kernel"] == [2, 2]
    assert node(graph, "pool1")["kind"] == "avg"
    assert node(graph, "fc")["bias"] == "fc.bias"
    assert "fc.bias" in state
    assert graph["dt_s"] == 1e-3
    assert graph["readout"] == {"kind": "count", "groups": None, "window": None, "cutoff": None}
    assert graph["coding"] == {"kind": "rate", "steps": 8, "seed": 0, "gain": 1.0}


def stepwise(module, x):
    """Run our stateful net by its definition, one step and one layer at a time."""
    membranes = {}
    counts = 0
    for step in x:
        for name, layer in module.named_children():
            if isinstance(layer, LIF):
                step, membranes[name] = layer.step(step, membranes.get(name))
            else:
                step = layer(step)
        counts = counts + step
    return counts


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_time_batched_equals_step_by_step(arch):
    torch.manual_seed(3)
    shape = (1, 8, 8)
    net = build(arch, shape, 10, v_threshold=0.05).double().eval()
    x = (torch.rand(6, 4, *shape) < 0.5).double()
    with torch.no_grad():
        batched, single = net(x).sum(0), stepwise(net, x)
    assert torch.equal(batched, single)
    assert batched.sum() > 0


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_the_reference_engine_computes_what_torch_computes(arch):
    from snn_deploy.engine.reference import run_reference

    torch.manual_seed(5)
    shape = (1, 8, 8) if arch == "conv" else (64,)
    net = build(arch, shape, 10, hidden=(6, 4), v_threshold=0.05).double()
    x = (torch.rand(8, 6, *shape) < 0.4).double()
    net.train()
    net(x)  # gives the batch norms statistics of their own
    net.eval()
    with torch.no_grad():
        expected = net(x).numpy()
    built = network(net, x[0])
    assert expected[:, :2].sum() > 0
    for sample in range(2):
        traces = run_reference(built, x[:, sample].numpy())
        np.testing.assert_array_equal(traces["lif3"]["z"], expected[:, sample])


def test_a_sample_without_batch_axis_is_taken_too():
    net = build("conv", (1, 8, 8), 10, hidden=(2, 2))
    assert graph_from_module(net, CONV_INPUT[0])[0] == graph_from_module(net, CONV_INPUT)[0]
    mlp = build("mlp", (5,), 2, hidden=())
    assert graph_from_module(mlp, torch.zeros(5))[0] == graph_from_module(mlp, torch.zeros(1, 5))[0]


class Residual(nn.Module):
    """One step of a net with a residual current, dropouts and shared weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lif1 = nn.Linear(6, 6), LIF()
        self.second, self.lif2 = nn.Linear(6, 6), LIF()
        self.drop = nn.Dropout(0.5)
        self.head, self.lif3 = nn.Linear(6, 3), LIF()

    def forward(self, x):
        x = self.drop(self.lif1(self.first(x)))
        x = self.lif2(self.second(x) + x)
        x = functional.dropout(x, training=self.training)
        return self.lif3(self.head(x.view(x.size(0), -1)))


def test_a_residual_current_becomes_two_edges_into_the_neuron():
    net = Residual().eval()
    reading = read_module(net, torch.zeros(1, 6))
    assert ["second", "lif2"] in reading.graph["edges"]
    assert ["lif1", "lif2"] in reading.graph["edges"]
    assert len(reading.graph["nodes"]) == 8
    assert any("drop: Dropout" in note for note in reading.notes)
    assert not net.training
    assert not net.drop.training
    built = network(net, torch.zeros(1, 6))
    assert {p.pre for p in built.into("lif2")} == {"lif1"}
    assert len(built.into("lif2")) == 2


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4, bias=False)
        self.lif1, self.lif2 = LIF(), LIF()

    def forward(self, x):
        return self.lif2(self.fc(self.lif1(self.fc(x))))


def test_shared_weights_are_two_nodes_with_one_tensor():
    graph, _ = graph_from_module(Shared(), torch.zeros(1, 4))
    assert node(graph, "fc")["weight"] == node(graph, "fc_use2")["weight"] == "fc.weight"
    assert ["lif1", "fc_use2"] in graph["edges"]


class Stepping(nn.Module):
    """One step as users write it: explicit membranes that default to None."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 2), LIF(tau_s=3e-3, v_threshold=torch.tensor([0.5, 0.75]))
        self.v = None

    def forward(self, x, state=None):
        z, self.v = self.lif.step(self.fc(x), state)
        return z, self.v


def test_explicit_state_and_per_neuron_thresholds():
    net = Stepping()
    graph, state = graph_from_module(net, torch.zeros(1, 4))
    lif = node(graph, "lif")
    assert lif["tau_s"] == 3e-3
    assert lif["v_threshold"] == "lif.v_threshold"
    assert state["lif.v_threshold"].tolist() == [0.5, 0.75]
    assert net.v is None
    assert "step" not in net.lif.__dict__
    z, v = net(torch.ones(2, 4))
    assert z.shape == v.shape == (2, 2)


def test_norse_cells_alone_and_in_a_sequential_state():
    norse = pytest.importorskip("norse.torch")
    p = norse.LIFBoxParameters(
        tau_mem_inv=torch.tensor(250.0), v_th=torch.tensor(0.5), v_reset=torch.tensor(-0.125)
    )
    net = norse.SequentialState(
        nn.Linear(4, 3), norse.LIFBoxCell(p, dt=5e-4), nn.Linear(3, 2), norse.LIFBoxCell(dt=5e-4)
    )
    graph, state = graph_from_module(net, torch.zeros(1, 4))
    lif = node(graph, "1")
    assert {k: lif[k] for k in ("tau_s", "r", "v_leak", "v_threshold", "v_reset", "reset")} == {
        "tau_s": 4e-3,
        "r": 1.0,
        "v_leak": 0.0,
        "v_threshold": 0.5,
        "v_reset": -0.125,
        "reset": "value",
    }
    assert graph["dt_s"] == 5e-4
    assert node(graph, "3")["tau_s"] == 0.01
    assert {"0.weight", "2.bias"} <= set(state)

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.cell = nn.Linear(4, 2), norse.LIFBoxCell()

        def forward(self, x, state=None):
            z, state = self.cell(self.fc(x), state)
            return z, state

    assert [n["op"] for n in graph_from_module(Step(), torch.zeros(1, 4))[0]["nodes"]] == [
        "Input",
        "Linear",
        "LIF",
        "Output",
    ]


@pytest.mark.parametrize("method", ["reset_value", "reset_subtract"])
def test_the_reference_engine_computes_what_norse_computes(method):
    norse = pytest.importorskip("norse.torch")
    resets = pytest.importorskip("norse.torch.functional.reset")
    from snn_deploy.engine.reference import run_reference

    torch.manual_seed(0)
    p = norse.LIFBoxParameters(
        tau_mem_inv=torch.tensor(500.0, dtype=torch.float64),
        v_th=torch.tensor(0.25, dtype=torch.float64),
        reset_method=getattr(resets, method),
    )
    net = norse.SequentialState(
        nn.Conv2d(1, 4, 3, padding=1),
        norse.LIFBoxCell(p),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
        norse.LIFBoxCell(p),
    ).double()
    x = (torch.rand(20, 1, 1, 8, 8) < 0.5).double()
    expected, state = [], None
    with torch.no_grad():
        for step in x:
            z, state = net(step, state)
            expected.append(z[0].numpy())
    built = network(net, x[0])
    traces = run_reference(built, x[:, 0].numpy())
    assert np.sum(expected) > 5
    np.testing.assert_array_equal(traces["5"]["z"], np.array(expected))


def test_norse_cells_in_a_plain_sequential():
    norse = pytest.importorskip("norse.torch")
    net = nn.Sequential(nn.Linear(4, 3), norse.LIFBoxCell(), nn.Linear(3, 2), norse.LIFBoxCell())
    with pytest.raises(UnsupportedError, match="gets a pair") as caught:
        graph_from_module(net, torch.zeros(1, 4))
    assert caught.value.where == "2"
    assert "norse.torch.SequentialState" in str(caught.value.hint)


def test_dropout_in_training_mode_is_refused():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), LIF())
    with pytest.raises(UnsupportedError, match="its dropout is active") as caught:
        graph_from_module(module, torch.zeros(1, 2))
    assert caught.value.where == "1"
    assert "model.eval()" in caught.value.hint
    assert graph_from_module(module.eval(), torch.zeros(1, 2))[0]["nodes"]


@pytest.mark.parametrize(
    ("layer", "after"),
    [
        (nn.Conv2d(1, 2, (3, 2), padding="same"), [1, 1, 0, 1]),
        (nn.Conv2d(1, 2, 3, padding="valid"), [0, 0, 0, 0]),
        (nn.Conv2d(1, 2, 3, padding=(2, 1), stride=(2, 1)), [2, 2, 1, 1]),
        (nn.Conv2d(1, 2, 3, padding="same", dilation=2), [2, 2, 2, 2]),
    ],
    ids=["same", "valid", "pair", "dilated"],
)
def test_padding_of_convolutions(layer, after):
    torch.manual_seed(0)
    net = nn.Sequential(layer, LIF())
    graph, _ = graph_from_module(net, CONV_INPUT)
    assert node(graph, "0")["padding"] == after
    shape = tuple(layer(CONV_INPUT).shape[1:])
    assert network(net, CONV_INPUT).population("1").shape == shape


def test_conv1d_adaptive_pool_and_plain_batch_norm():
    net = nn.Sequential(nn.Conv1d(2, 3, 4, padding="same"), nn.BatchNorm1d(3, affine=False), LIF())
    graph, _ = graph_from_module(net, torch.zeros(1, 2, 9))
    assert node(graph, "0")["padding"] == [1, 2]
    assert node(graph, "1")["weight"] == [1.0] * 3
    assert node(graph, "1")["bias"] == [0.0] * 3
    assert network(net, torch.zeros(1, 2, 9)).population("2").shape == (3, 9)
    pooled = nn.Sequential(nn.Conv2d(1, 2, 3), LIF(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    graph, _ = graph_from_module(nn.Sequential(pooled, nn.Linear(2, 2), LIF()), CONV_INPUT)
    assert node(graph, "0.2")["kernel"] == [6, 6]


def sequential(*layers):
    return nn.Sequential(*layers)


class Loop(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.fc, self.lif, self.kind = nn.Linear(4, 4), LIF(), kind

    def forward(self, x):
        if self.kind == "iterate":
            return [self.lif(self.fc(t)) for t in x]
        if self.kind == "index":
            return self.lif(self.fc(x[0]))
        v = None
        for _ in range(2):
            z, v = self.lif.step(self.fc(x), v)
        return z


class Call(nn.Module):
    """Applies a function between two layers."""

    def __init__(self, function) -> None:
        super().__init__()
        self.fc, self.lif, self.function = nn.Linear(4, 4), LIF(), function
        self.table = nn.Parameter(torch.ones(4, 4))

    def forward(self, x):
        return self.lif(self.function(self, self.fc(x)))


class SpikeSum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.la, self.lb, self.lc = LIF(), LIF(), LIF()

    def forward(self, x):
        return self.lc(self.c(self.la(self.a(x)) + self.lb(self.b(x))))


@pytest.mark.parametrize(
    ("module", "where", "words"),
    [
        (sequential(nn.Linear(4, 4), nn.ReLU(), LIF()), "1", "ReLU cannot.*spiking neuron"),
        (sequential(nn.LSTM(4, 4), LIF()), "0", "LSTM cannot.*supported: Linear"),
        (sequential(nn.Linear(4, 4)), "Sequential", "no spiking neuron.*put a spiking neuron"),
        (sequential(nn.Linear(4, 4), LIF(), nn.Linear(4, 2)), "2", 'count.*readout="mean"'),
        (
            sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), LIF()),
            "1",
            "keeps no statistics.*track_running_stats",
        ),
        (Loop("iterate"), "Loop", "cannot be followed.*module of one step"),
        (Loop("index"), "getitem", "module of one step"),
        (Loop("steps"), "lif", "more than once.*module of one step"),
        (Call(lambda m, x: torch.relu(x)), "relu", "spiking neuron"),
        (Call(lambda m, x: x * 2), "mul", "mul in forward.*torch.nn layers"),
        (Call(lambda m, x: x + 1), "add", "constants into a layer's bias"),
        (Call(lambda m, x: x + x), "add", "added to itself"),
        (
            Call(lambda m, x: functional.linear(x, x)),
            "linear",
            "weight computed in forward.*a parameter or buffer",
        ),
        (Call(lambda m, x: functional.dropout(x)), "dropout", "stays active"),
        (Call(lambda m, x: x.reshape(-1)), "reshape", "flattening whole samples"),
        (Call(lambda m, x: x if x.sum() > 0 else -x), "Call", "cannot be followed.*branch"),
        (SpikeSum(), "c <- la, lb", "sum of spikes.*right before a neuron"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 12 else None,
)
def test_what_cannot_be_deployed_is_named_with_a_hint(module, where, words):
    with pytest.raises(UnsupportedError, match=f"(?s){words}") as caught:
        graph_from_module(module, torch.zeros(1, 4))
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.AvgPool2d(3, ceil_mode=True), "ceil_mode"),
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), "count_include_pad"),
        (nn.AvgPool2d(2, divisor_override=3), "divisor_override"),
        (nn.MaxPool2d(2, dilation=2), "dilation"),
        (nn.AdaptiveAvgPool2d(3), "different sizes"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), "padding_mode='zeros'"),
        (nn.Flatten(2), "flattening whole samples"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_pools_and_convolutions_beyond_the_format(layer, words):
    with pytest.raises(UnsupportedError, match=words) as caught:
        graph_from_module(nn.Sequential(LIF(), layer, LIF()), CONV_INPUT)
    assert caught.value.where == "1"


@pytest.mark.parametrize(
    ("layers", "example", "where"),
    [
        ((nn.Linear(5, 4), LIF()), torch.zeros(1, 4), "0"),
        ((nn.Conv2d(1, 2, 3), nn.Linear(6, 2), LIF()), CONV_INPUT, "1"),
        ((nn.Conv2d(1, 2, 9), LIF()), CONV_INPUT, "0"),
    ],
    ids=["features", "no-flatten", "kernel"],
)
def test_shapes_that_disagree_name_the_layer(layers, example, where):
    with pytest.raises(InputError, match="hint") as caught:
        graph_from_module(nn.Sequential(*layers), example)
    assert caught.value.where == where


def test_steps_readouts_and_codings_that_disagree():
    net = nn.Sequential(nn.Linear(4, 4), LIF(dt_s=1e-3), nn.Linear(4, 4), LIF(dt_s=2e-3))
    with pytest.raises(InputError, match="same dt") as caught:
        graph_from_module(net, torch.zeros(1, 4))
    assert caught.value.where == "1 and 3"
    one = nn.Sequential(nn.Linear(4, 4), LIF())
    with pytest.raises(InputError, match="leave dt_s out"):
        graph_from_module(one, torch.zeros(1, 4), dt_s=2e-3)
    assert graph_from_module(one, torch.zeros(1, 4), dt_s=1e-3)[0]["dt_s"] == 1e-3
    for options in ({"readout": "sum"}, {"readout": "vote"}, {"coding": "phase"}):
        with pytest.raises(UsageError, match="hint"):
            graph_from_module(one, torch.zeros(1, 4), **options)


def test_a_membrane_readout_may_end_in_a_linear_layer():
    net = nn.Sequential(nn.Linear(4, 4), LIF(), nn.Linear(4, 2))
    built = network(net, torch.zeros(1, 4), readout="mean")
    assert built.output_population.shape == (2,)
    assert built.readout.kind == "mean"


def test_unused_branches_are_left_out():
    class Auxiliary(Residual):
        def forward(self, x):
            x = self.lif1(self.first(x))
            self.lif2(self.second(x))
            return self.lif3(self.head(x))

    names = [
        n["name"] for n in graph_from_module(Auxiliary().eval(), torch.zeros(1, 6))[0]["nodes"]
    ]
    assert names == ["input", "first", "lif1", "head", "lif3", "output"]


def test_a_time_batched_part_inside_a_module():
    net = TimeSequential(TimeSequential(nn.Linear(4, 4), LIF()), nn.Linear(4, 2), LIF())
    names = [n["name"] for n in graph_from_module(net, torch.zeros(1, 4))[0]["nodes"]]
    assert names == ["input", "0.0", "0.1", "1", "2", "output"]


class Functional(nn.Module):
    """Layers as function calls, with parameters of the module."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(3, 1, 3, 3))
        self.offset = nn.Parameter(torch.randn(3))
        self.norm = nn.BatchNorm2d(3)
        self.fc = nn.Linear(12, 4)
        self.lif1, self.lif2 = LIF(v_threshold=0.1), LIF(v_threshold=0.1)

    def forward(self, x):
        x = functional.conv2d(x, self.kernel, self.offset, padding=1)
        n = self.norm
        x = functional.batch_norm(
            x, n.running_mean, n.running_var, n.weight, n.bias, training=self.training
        )
        x = functional.max_pool2d(self.lif1(x), 2)
        x = functional.avg_pool2d(x, 2, stride=1, padding=0)
        x = torch.flatten(x, 1)
        return self.lif2(functional.linear(x, self.fc.weight, self.fc.bias))


def test_functional_layers_equal_their_modules():
    torch.manual_seed(0)
    net = Functional().eval()
    net.norm.running_mean.uniform_(-1, 1)
    graph, _ = graph_from_module(net, torch.zeros(1, 1, 6, 6))
    assert node(graph, "conv2d")["weight"] == "kernel"
    assert node(graph, "conv2d")["bias"] == "offset"
    assert node(graph, "batch_norm")["mean"] == "norm.running_mean"
    assert node(graph, "max_pool2d")["kind"] == "max"
    assert node(graph, "avg_pool2d")["stride"] == [1, 1]
    assert node(graph, "linear")["weight"] == "fc.weight"
    modules = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), net.norm, net.lif1, nn.MaxPool2d(2), nn.AvgPool2d(2, 1),
        nn.Flatten(), net.fc, net.lif2,
    ).eval()  # fmt: skip
    modules[0].weight, modules[0].bias = net.kernel, net.offset
    x = (torch.rand(3, 10, 1, 6, 6) < 0.5).numpy()
    outputs = [
        EventEngine(fold(network(m, torch.zeros(1, 1, 6, 6)))).run(x).output for m in (net, modules)
    ]
    assert outputs[0].any()
    np.testing.assert_array_equal(*outputs)


def test_a_functional_batch_norm_in_training_is_refused():
    class Net(Call):
        def __init__(self):
            super().__init__(
                lambda m, x: functional.batch_norm(
                    x, m.norm.running_mean, m.norm.running_var, training=True
                )
            )
            self.norm = nn.BatchNorm1d(4)

    with pytest.raises(UnsupportedError, match="uses the statistics of the batch") as caught:
        graph_from_module(Net().eval(), torch.zeros(1, 4))
    assert caught.value.where == "batch_norm"
    assert "model.eval()" in caught.value.hint
