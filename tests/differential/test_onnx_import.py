"""ONNX import: the dense network against onnxruntime, the spiking one against the dense one."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import snn_deploy
from snn_deploy.bridges.crosscheck import crosscheck
from snn_deploy.engine.event import EventEngine
from snn_deploy.frontends.convert import Rates
from snn_deploy.frontends.onnx_import import convert_onnx
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.io.nir_read import read_nir
from snn_deploy.io.nir_write import nir_bytes
from snn_deploy.ir import IF, Integrator
from snn_deploy.passes.pipeline import fold
from tests.onnx_models import Quantised, digits, exported, model, node, trained

CALIBRATION = digits()[0][:300]


def runtime(content, x):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def converted(tmp_path, content, x=None, **rates):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    return convert_onnx(path, x, Rates(**rates))


def spiking_scores(network, x, steps):
    """Return the mean scores over ``steps``."""
    x = np.broadcast_to(x[:, None], (len(x), steps, *x.shape[1:]))
    return EventEngine(fold(network)).run(x).output[:, -1] / steps


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 4, 3, padding=1, groups=2)
        self.b = nn.Conv2d(4, 4, (3, 1), stride=(1, 1), padding=(1, 0), dilation=(1, 1), bias=False)
        self.norm, self.fc = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        a = torch.relu(self.a(x) * 0.5 + 0.25)
        b = nn.functional.relu6(self.norm(self.b(a)) + a)
        return torch.softmax(self.fc(b.mean((2, 3))), 1)


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv1d(2, 3, 3, stride=2, padding=1), nn.Linear(12, 5)
        self.weight = nn.Parameter(torch.randn(5, 4))

    def forward(self, x):
        x = torch.relu(self.fc(torch.relu(self.conv(x)).flatten(1)))
        return (x / 2.0) @ self.weight - 0.5


class Pools(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 3, 3), nn.Linear(3 * 9, 4)

    def forward(self, x):
        x = torch.relu(nn.functional.max_pool2d(self.conv(x), 3, 2, 1))
        x = nn.functional.avg_pool2d(nn.functional.max_pool2d(x, 2, 1), 2, 1, 1)
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 3).flatten(1))


NETS = {
    "branches": (Branches, (2, 6, 6)),
    "line": (Line, (2, 8)),
    "pools": (Pools, (1, 8, 8)),
}


@pytest.mark.filterwarnings("ignore::snn_deploy.io.graph.SnnDeployWarning")
@pytest.mark.parametrize("name", NETS)
def test_what_is_read_computes_what_onnxruntime_computes(name, tmp_path):
    torch.manual_seed(1)
    make, shape = NETS[name]
    net = make()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, *shape)).astype(np.float32)
    try:
        content = exported(net, shape)
    except torch.onnx.errors.SymbolicValueError:
        pytest.fail("torch does not export the test's network")
    theirs = runtime(content, x)
    made = converted(tmp_path, content, x, percentile=100.0)
    ours = made.scores(x)
    if name == "branches":
        assert "Softmax" in made.notes[0]
        ours = np.exp(ours - ours.max(1, keepdims=True))
        ours /= ours.sum(1, keepdims=True)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    if name != "pools":  # the maximum of spikes is another function
        scores, dense = spiking_scores(made.network, x, 1000), made.scores(x)
        assert np.abs(scores - dense).max() < 0.02 * np.ptp(dense)


@pytest.mark.parametrize("kind", ["relu", "quantised"])
def test_trained_networks_are_read_as_onnxruntime_runs_them(kind, tmp_path):
    content, (*_, x, y) = trained(kind), digits()
    made = converted(tmp_path, content, CALIBRATION)
    theirs = runtime(content, x)
    assert (theirs.argmax(1) == y).mean() > 0.95
    # A value next to a quantisation step may round to another one in float32.
    close = np.abs(made.scores(x) - theirs).max(1) < 1e-4
    assert close.mean() > (0.99 if kind == "quantised" else 0.9999)
    assert [layer.name for layer in made.layers] == ["act1", "act2"]


def test_accuracy_approaches_the_dense_network_with_time(tmp_path):
    x, y = digits()[2:]
    made = converted(tmp_path, trained("relu"), CALIBRATION)
    dense = (made.scores(x).argmax(1) == y).mean()
    errors = [
        np.abs(spiking_scores(made.network, x, steps) - made.scores(x)).mean()
        for steps in (4, 16, 64, 256)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.1 * errors[0]
    accuracy = (spiking_scores(made.network, x, 64).argmax(1) == y).mean()
    assert abs(accuracy - dense) < 0.01
    found = made.agreement(x, y)
    assert found.samples == len(x)
    assert found.dense_correct == round(dense * len(x))
    assert found.same > 0.97 * len(x)


def test_quantised_networks_need_few_steps_and_no_data(tmp_path):
    x, y = digits()[2:]
    made = converted(tmp_path, trained("quantised"), steps=8)
    assert [(layer.rule, layer.levels) for layer in made.layers] == [("learned", 8)] * 2
    dense = (made.scores(x).argmax(1) == y).mean()
    for steps, slack in ((4, 0.03), (8, 0.015)):
        accuracy = (spiking_scores(made.network, x, steps).argmax(1) == y).mean()
        assert accuracy > dense - slack
    one = made.network.population("act1")
    threshold = made.layers[0].threshold
    assert isinstance(one.neuron, IF)
    assert one.neuron.v_init == threshold / 2
    assert one.neuron.reset_amount == threshold
    assert (one.neuron.reset, one.neuron.r_unit) == ("subtract", "per-step")
    assert one.neuron.v_threshold < threshold <= np.nextafter(one.neuron.v_threshold, 9)


def test_one_layer_is_exact_in_as_many_steps_as_levels(tmp_path):
    """In T = L steps a quantised neuron under a constant current fires exactly its level."""
    content = model(
        [
            node("Gemm", "x w b", "h", transB=1),
            node("Div", "h t", "d"),
            node("Clip", "d zero one", "c"),
            node("Mul", "c levels", "m"),
            node("Add", "m half", "a"),
            node("Floor", "a", "f"),
            node("Div", "f levels", "q"),
            node("Mul", "q t", "s"),
            node("MatMul", "s eye", "y"),
        ],
        constants={
            "w": np.eye(4, dtype="f4"), "b": np.full(4, 0.25, "f4"), "t": np.float32(2),
            "zero": np.float32(0), "one": np.float32(1), "levels": np.float32(8),
            "half": np.float32(0.5), "eye": np.eye(4, dtype="f4"),
        },
    )  # fmt: skip
    made = converted(tmp_path, content, steps=8)
    # Steps of 1/64, so that currents meet the half steps exactly.
    x = (np.arange(-64, 192).reshape(-1, 4) / 64).astype(np.float32)
    theirs = runtime(content, x)
    np.testing.assert_array_equal(made.scores(x), theirs)
    np.testing.assert_array_equal(spiking_scores(made.network, x, 8), theirs)
    assert len(np.unique(theirs)) == 9


@pytest.mark.parametrize("form", ["clip first", "clip last"])
def test_both_forms_of_the_quantised_activation_are_one(form, tmp_path):
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(5, 6), Quantised(4, form), nn.Linear(6, 3))
    with torch.no_grad():
        net[1].threshold.fill_(0.7)
    content = exported(net, (5,))
    made = converted(tmp_path, content)
    (layer,) = made.layers
    assert layer.levels == 4
    np.testing.assert_allclose(layer.threshold, 0.7, rtol=1e-6)
    x = np.random.default_rng(3).normal(size=(100, 5)).astype(np.float32)
    np.testing.assert_allclose(made.scores(x), runtime(content, x), atol=1e-6)


def test_max_pools_stand_behind_activations_and_are_told(tmp_path):
    x, y = digits()[2:]
    content = trained("relu max")
    with pytest.warns(SnnDeployWarning, match="max pooling pool becomes the maximum of spikes"):
        made = converted(tmp_path, content, CALIBRATION, steps=64)
    np.testing.assert_allclose(made.scores(x), runtime(content, x), atol=1e-3)
    accuracy = (spiking_scores(made.network, x, 64).argmax(1) == y).mean()
    assert accuracy > 0.9
    net = fold(made.network)
    assert {p.name for p in net.populations} == {"x", "act1", "act2", "scores", "conv2.max"}


def test_thresholds_per_channel_and_what_is_clipped(tmp_path):
    content = trained("relu")
    whole = converted(tmp_path, content, CALIBRATION, percentile=99.0)
    parts = converted(tmp_path, content, CALIBRATION, percentile=99.0, per_channel=True)
    for one, many in zip(whole.layers, parts.layers, strict=True):
        assert one.threshold.shape == ()
        assert many.threshold.shape == ({"act1": 8, "act2": 16}[many.name],)
        assert many.threshold.min() < one.threshold < many.threshold.max()
        assert one.clipped == pytest.approx(0.01, abs=1e-3)
    x = digits()[2]
    errors = [
        np.abs(spiking_scores(made.network, x, 128) - made.scores(x)).mean()
        for made in (whole, parts)
    ]
    assert max(errors) < 0.5
    start = converted(tmp_path, content, CALIBRATION, start=0.0).network.population("act1")
    assert not np.any(start.neuron.v_init)


def test_the_network_travels_as_nir_and_runs_alike_in_onnxruntime(tmp_path):
    x = digits()[2][:20]
    made = converted(tmp_path, trained("relu"), CALIBRATION, steps=16)
    net = fold(made.network)
    with pytest.warns(SnnDeployWarning, match="resets by subtraction"):
        (tmp_path / "m.nir").write_bytes(nir_bytes(net))
    again = read_nir(tmp_path / "m.nir")
    assert again == net
    assert (again.coding.steps, again.readout.kind) == (16, "last")
    assert isinstance(again.output_population.neuron, Integrator)
    inputs = np.broadcast_to(x[:, None], (20, 16, *x.shape[1:]))
    (result,) = crosscheck(net, inputs, ["onnx"])
    assert result.spikes > 10_000
    assert not any(result.comparison.mismatches.values()), result.comparison.first
    named = snn_deploy.from_onnx(tmp_path / "m.onnx", calibration=CALIBRATION, steps=16)
    assert named == made.network


ROWS = np.random.default_rng(4).normal(size=(5, 4)).astype("f4")
IMAGES = np.random.default_rng(5).normal(size=(4, 3, 7, 8)).astype("f4")
C3 = np.array([0.5, 2.0, -1.0], "f4")
K = np.random.default_rng(6).normal(size=(4, 3, 3, 3)).astype("f4")
ZOO = {
    "gemm": (
        [node("Gemm", "x a c", "h", alpha=0.5, beta=2.0)], ROWS, {"a": ROWS[:4], "c": ROWS[4]},
    ),
    "gemm of one bias": (
        [node("Gemm", "x a c", "h", transB=1)], ROWS, {"a": ROWS, "c": ROWS[0, :1]},
    ),
    "scales": (
        [node("Gemm", "x a", "g"), node("Sub", "g c", "s"), node("Div", "s d", "h")],
        ROWS, {"a": ROWS[:4], "c": ROWS[4], "d": np.float32(-3)},
    ),
    "constants": (
        [node("Mul", "c d", "e"), node("Mul", "e x", "h")], ROWS,
        {"c": ROWS[0], "d": np.float32(2)},
    ),
    "batch norm": (
        [node("BatchNormalization", "n k k k v", "h", epsilon=0.1)],
        IMAGES, {"k": C3, "v": C3**2},
    ),
    "same upper": (
        [node("Conv", "n k", "h", auto_pad="SAME_UPPER", strides=[2, 3])], IMAGES, {"k": K},
    ),
    "same lower": (
        [node("Conv", "n k", "h", auto_pad="SAME_LOWER", strides=[2, 2])], IMAGES, {"k": K},
    ),
    "valid": ([node("Conv", "n k", "h", auto_pad="VALID", dilations=[1, 2])], IMAGES, {"k": K}),
    "padded on one side": ([node("Conv", "n k", "h", pads=[1, 0, 2, 3])], IMAGES, {"k": K}),
    "global maximum": (
        [node("Clip", "n zero six", "a"), node("GlobalMaxPool", "a", "h")], IMAGES, {},
    ),
    "global average": ([node("GlobalAveragePool", "n", "h")], IMAGES, {}),
    "mean": ([node("ReduceMean", "n", "h", axes=[-1, 2], keepdims=0)], IMAGES, {}),
    "average": (
        [node("AveragePool", "n", "h", kernel_shape=[2, 3], strides=[1, 2], pads=[1, 0, 0, 2],
              count_include_pad=1)],
        IMAGES, {},
    ),
    "maximum": (
        [node("MaxPool", "n", "h", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 1, 1, 1],
              ceil_mode=1)],
        IMAGES, {},
    ),
    "squeezed": ([node("GlobalAveragePool", "n", "g"), node("Squeeze", "g ax", "h")], IMAGES,
                 {"ax": np.array([2, 3])}),
    "dropped": ([node("Dropout", "x", "d"), node("Identity", "d", "h")], ROWS, {}),
    "reshaped": (
        [node("Shape", "n", "s"), node("Gather", "s i", "b"), node("Concat", "b m", "t", axis=0),
         node("Reshape", "n t", "h")],
        IMAGES, {"i": np.array([0]), "m": np.array([-1])},
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::snn_deploy.io.graph.SnnDeployWarning")
@pytest.mark.parametrize("case", ZOO)
def test_each_operator_means_what_onnxruntime_means(case, tmp_path):
    operators, x, constants = ZOO[case]
    # A scale in front that a layer of ours does not see, and rectifiers behind.
    first = [node("Mul", "x one", "n")] if x.ndim == 4 else []
    content = model(
        [*first, *operators, node("Clip", "h zero six", "r"), node("Flatten", "r", "y")],
        ("N", *x.shape[1:]),
        {"one": np.float32(1.5), "zero": np.float32(0), "six": np.float32(6), **constants},
    )
    made = converted(tmp_path, content)
    theirs = runtime(content, x)
    assert len(np.unique(theirs)) > 2
    np.testing.assert_allclose(made.scores(x), theirs.reshape(len(x), -1), atol=1e-5)
