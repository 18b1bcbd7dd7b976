"""The ONNX export: standard operators alone, any number of steps and samples, exact spikes."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import onnx
import onnxruntime
import pytest

import snn_deploy
from snn_deploy.bridges import onnx_scan
from snn_deploy.bridges.onnx_peer import OnnxPeer
from snn_deploy.engine.event import EventEngine
from snn_deploy.errors import MissingDependencyError, OutputError, UnsupportedError, UsageError
from snn_deploy.ir import Coding, Dense, Readout, Relay
from snn_deploy.passes.pipeline import fold
from tests.builders import KINDS, cuba, grid, lif, mlp, network, population, projection, spikes
from tests.cli.helpers import run_cli


def session(content):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("kind", ["mlp", "subtract", "cuba", "conv", "recurrent", "skip", "pools"])
def test_float32_spikes_are_exact_on_a_grid_at_any_length_and_batch(kind):
    rng = np.random.default_rng(1)
    net = fold(KINDS[kind](rng))
    ready = session(snn_deploy.to_onnx(net))
    (name,) = net.inputs
    for samples, steps in ((1, 20), (5, 9)):
        x = spikes(rng, samples, steps, net.input_population.shape, 0.6)
        (out,) = ready.run(None, {name: np.moveaxis(x, 0, 1).astype(np.float32)})
        expected = EventEngine(net).run(x).output
        assert out.dtype == np.float32
        ours = np.moveaxis(out, 0, 1).reshape(expected.shape)
        np.testing.assert_array_equal(ours, expected)


def test_a_model_of_784_512_10_gives_every_spike_in_float32():
    rng = np.random.default_rng(2)
    net = fold(mlp(rng, 784, 512, 10, density=0.1, bias=False))
    x = spikes(rng, 8, 40, (784,), 0.2)
    ready = session(snn_deploy.to_onnx(net, record=True))
    names = [o.name for o in ready.get_outputs()]
    found = dict(
        zip(names, ready.run(None, {"input": np.moveaxis(x, 0, 1).astype("f4")}), strict=True)
    )
    trace = EventEngine(net).run(x, "spikes")
    fired = 0
    for population_ in net.computing():
        ours = np.moveaxis(found[f"{population_.name}.z"], 0, 1)
        np.testing.assert_array_equal(ours, trace.spikes[population_.name])
        fired += int(ours.sum())
    assert fired > 10_000


def test_the_model_is_standard_and_says_what_it_is():
    rng = np.random.default_rng(3)
    net = mlp(
        rng,
        6,
        5,
        4,
        readout=Readout(kind="count", cutoff=(2.0, float("inf"))),
        coding=Coding(kind="rate", steps=9, seed=4),
    )
    content = snn_deploy.to_onnx(net)
    assert content == snn_deploy.to_onnx(net)
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node].count("Scan") == 1
    assert [f.name for f in model.functions] == ["LIF"]
    standard = {n.op_type for n in model.functions[0].node}
    assert standard == {"Mul", "Add", "Greater", "CastLike", "Where"}
    assert [i.name for i in model.graph.input] == ["input"]
    assert [o.name for o in model.graph.output] == ["n2.z"]
    facts = json.loads(model.metadata_props[0].value)
    assert facts["dt_s"] == 1e-3
    assert facts["coding"]["steps"] == 9
    assert facts["readout"]["cutoff"] == [2.0, None]


def test_several_inputs_and_outputs_go_by_name():
    rng = np.random.default_rng(4)
    net = network(
        [
            population("left", (4,), Relay()),
            population("right", (2, 3), Relay()),
            population("a", (5,), lif()),
            population("b", (3,), lif()),
        ],
        [
            projection("left", "a", Dense(weight=grid(rng, 5, 4))),
            projection("right", "a", Dense(weight=grid(rng, 5, 6)), delay_steps=2),
            projection("a", "b", Dense(weight=grid(rng, 3, 5))),
        ],
        inputs=("left", "right"),
        outputs=("a", "b"),
    )
    x = {"left": spikes(rng, 3, 12, (4,), 0.7), "right": spikes(rng, 3, 12, (2, 3), 0.7)}
    feed = {k: np.moveaxis(v, 0, 1).astype("f4") for k, v in x.items()}
    a, b = session(snn_deploy.to_onnx(net)).run(["a.z", "b.z"], feed)
    trace = EventEngine(fold(net)).run(x, "spikes")
    assert trace.spikes["a"].any()
    np.testing.assert_array_equal(np.moveaxis(a, 0, 1), trace.spikes["a"])
    np.testing.assert_array_equal(np.moveaxis(b, 0, 1), trace.spikes["b"])


@pytest.mark.parametrize("delay", [[[0, 1, 2]], [[1], [3]], [[0, 1, 2], [2, 0, 1]]])
def test_delays_by_source_target_and_synapse(delay):
    rng = np.random.default_rng(7)
    weights = Dense(weight=grid(rng, 2, 3), bias=grid(rng, 2))
    net = network(
        [population("in", (3,), Relay()), population("out", (2,), lif())],
        [projection("in", "out", weights, delay_steps=np.array(delay))],
    )
    x = spikes(rng, 4, 20, (3,))
    trace = EventEngine(fold(net)).run(x, "states")
    assert trace.spikes["out"].any()
    found = OnnxPeer().run(fold(net), x)
    np.testing.assert_array_equal(found.spikes["out"], trace.spikes["out"])
    np.testing.assert_allclose(found.states["out"]["v"], trace.states["out"]["v"], atol=1e-12)


def test_starts_and_populations_that_nothing_feeds():
    rng = np.random.default_rng(8)
    net = network(
        [
            population("in", (1, 2, 2), Relay()),
            population("alone", (3,), lif(8, v_init=0.75, v_leak=2.0)),
            population("out", (4,), cuba(v_init=[0.25, 0.0, 0.5, 1.0])),
        ],
        [projection("in", "out", Dense(weight=grid(rng, 4, 4)))],
    )
    x = spikes(rng, 3, 15, (1, 2, 2))
    ours, theirs = EventEngine(fold(net)).run(x, "states"), OnnxPeer().run(fold(net), x)
    assert ours.spikes["alone"].any()
    for name in ("alone", "out"):
        np.testing.assert_array_equal(theirs.spikes[name], ours.spikes[name])
        for variable, values in ours.states[name].items():
            np.testing.assert_allclose(theirs.states[name][variable], values, atol=1e-12)


def test_what_cannot_be_exported(monkeypatch):
    net = mlp(np.random.default_rng(9), 8, 5)
    with pytest.raises(UsageError, match="dtype 'float16' is not exported") as caught:
        snn_deploy.to_onnx(net, dtype="float16")
    assert caught.value.hint == "use float32 or float64"
    named = network(
        [population("a.z", (3,), Relay()), population("a", (2,), lif())],
        [projection("a.z", "a", Dense(weight=np.ones((2, 3), "f4")))],
    )
    with pytest.raises(UnsupportedError, match=r"would both be called 'a\.z'") as caught:
        snn_deploy.to_onnx(named)
    assert caught.value.hint == "give the input 'a.z' another name"
    monkeypatch.setattr(onnx_scan, "MOST_BYTES", 100)
    with pytest.raises(UnsupportedError, match="larger than one ONNX file may be") as caught:
        snn_deploy.to_onnx(net)
    assert "of 100 bytes of weights" in caught.value.used
    assert "use float32" in caught.value.hint
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "onnx" else real(name, *a)
    )
    with pytest.raises(MissingDependencyError, match="onnx is not installed") as caught:
        snn_deploy.to_onnx(net)
    assert caught.value.hint == "pip install 'snn-deploy[onnx]'"


def test_files_are_never_half_written_or_overwritten(tmp_path):
    rng = np.random.default_rng(5)
    path = tmp_path / "m.onnx"
    snn_deploy.to_onnx(mlp(rng, 3, 2), path)
    before = path.read_bytes()
    with pytest.raises(OutputError):
        snn_deploy.to_onnx(mlp(rng, 3, 2), path)
    assert path.read_bytes() == before


@pytest.fixture
def here(tmp_path, monkeypatch):
    from tests.tickets import mlp_content, save

    monkeypatch.chdir(tmp_path)
    save(tmp_path / "mlp.pt", mlp_content())
    return tmp_path


def test_export_writes_it_beside_the_nir_graph(here):
    ran = run_cli("export", "mlp.pt", "-t", "cpu", "-o", "out", "--onnx")
    assert ran.code == 0, ran.err
    assert "out/mlp.onnx" in ran.out
    assert "mlp.onnx" in json.loads((here / "out" / "manifest.json").read_text())["files"]
    net = snn_deploy.fold(snn_deploy.load_model("mlp.pt"))
    assert (here / "out" / "mlp.onnx").read_bytes() == snn_deploy.to_onnx(net)
    assert session(str(here / "out" / "mlp.onnx")).get_inputs()[0].shape == ["T", "B", 12]
