"""ONNX files that cannot be imported: each says why, where, and what helps. None of them runs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import snn_deploy
from snn_deploy.errors import InputError, UnsupportedError, UsageError
from snn_deploy.frontends import convert, onnx_ann, onnx_wire
from snn_deploy.frontends.onnx_import import convert_onnx
from snn_deploy.frontends.onnx_wire import read_onnx
from tests.onnx_models import digits, model, node, trained

EYE = np.eye(4, dtype="f4")
DATA = np.ones((3, 4), "f4")
LAST = node("MatMul", "r w", "y")
IMAGE = ("N", 2, 6, 6)


def bounded(*before, shape=("N", 4), **constants):
    """Return a model that ends in a clip to 0..6 and a layer behind ``before``, which makes h."""
    constants = {"zero": np.float32(0), "six": np.float32(6), "w": EYE} | constants
    return model([*before, node("Clip", "h zero six", "r"), LAST], shape, constants)


def load(tmp_path, content, **how):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    return snn_deploy.from_onnx(path, **how)


def test_the_reader_reads_what_onnx_reads(tmp_path):
    content = trained("quantised")
    (tmp_path / "m.onnx").write_bytes(content)
    theirs, ours = onnx.load_model_from_string(content), read_onnx(tmp_path / "m.onnx")
    assert ours.opset == theirs.opset_import[0].version
    assert ours.inputs == {"x": (None, 1, 8, 8)}
    assert ours.outputs == [o.name for o in theirs.graph.output]
    for a, b in zip(theirs.graph.node, ours.nodes, strict=True):
        assert (a.op_type, tuple(a.input), tuple(a.output)) == (b.op, b.inputs, b.outputs)
        for attribute in a.attribute:
            value = helper.get_attribute_value(attribute)
            if isinstance(value, TensorProto):
                np.testing.assert_array_equal(numpy_helper.to_array(value), b.attributes["value"])
            else:
                assert b.attributes[attribute.name] == value
    assert set(ours.constants) == {t.name for t in theirs.graph.initializer}
    for tensor in theirs.graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), ours.constants[tensor.name])


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i4", "i8", "u1", "?"])
def test_tensors_of_all_types_raw_and_listed(dtype, tmp_path):
    value = np.array([[0, 1, 2], [3, 1, 0]]).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    raw = numpy_helper.from_array(value, "raw")
    graph = helper.make_graph([], "g", [], [], [raw])
    if dtype != "f2":  # float16 is listed as integers of its bits, which nobody writes
        listed = helper.make_tensor("listed", kind, value.shape, value.ravel().tolist())
        graph.initializer.append(listed)
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    for found in read_onnx(tmp_path / "m.onnx").constants.values():
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(found, value)


GOOD = bounded(node("Identity", "x", "h"))
TENSOR = numpy_helper.from_array(EYE, "w")


def with_tensor(**changes):
    """Return a model whose only initializer is changed."""
    tensor = TensorProto()
    tensor.CopyFrom(TENSOR)
    for name, value in changes.items():
        if name == "external":
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=value)
        elif name == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)
        else:
            setattr(tensor, name, value)
    made = onnx.load_model_from_string(GOOD)
    del made.graph.initializer[2:]
    made.graph.initializer.append(tensor)
    return made.SerializeToString()


def with_sparse():
    made = onnx.load_model_from_string(GOOD)
    made.graph.sparse_initializer.add(dims=[4])
    return made.SerializeToString()


BYTES = {
    "empty": (b"", InputError, "not an ONNX model", "onnx.checker"),
    "text": (b"hello, this is no model", InputError, "wire type 4", "onnx.checker"),
    "cut": (GOOD[:-40], InputError, "a field is longer than the file", "onnx.checker"),
    "no end": (b"\x08\xff", InputError, "the file ends within a number", "onnx.checker"),
    "wire type": (b"\x0b", InputError, "wire type 3 is not one of ONNX's", "onnx.checker"),
    "number": (b"\x38\x01\x42\x02\x10\x11", InputError, "a number stands where a message", "chec"),
    "name": (
        GOOD.replace(b"Identity", b"Identi\xff\xff"), InputError, "a name is not UTF-8", "checker",
    ),
    "size": (with_tensor(dims=[4, 5]), InputError, "a tensor has another size", "onnx.checker"),
    "negative": (with_tensor(dims=[-4, -4]), InputError, "a tensor has another size", "checker"),
    "type": (with_tensor(data_type=8), UnsupportedError, "element type 8 is not read", "float32"),
    "external": (
        with_tensor(external="../../secret"), UnsupportedError, "stored in another file",
        "external_data=False",
    ),
    "sparse": (with_sparse(), UnsupportedError, "sparse initializers are not read", "dense"),
}  # fmt: skip


@pytest.mark.parametrize("case", BYTES)
def test_files_that_are_malformed_are_refused(case, tmp_path):
    content, error, message, hint = BYTES[case]
    with pytest.raises(error, match=message) as caught:
        load(tmp_path, content)
    assert hint in caught.value.hint
    assert str(caught.value.where).startswith(str(tmp_path / "m.onnx"))
    assert str(caught.value.where).count("m.onnx") == 1


def test_a_small_file_cannot_become_a_large_structure(tmp_path, monkeypatch):
    assert load(tmp_path, GOOD) is not None
    monkeypatch.setattr(onnx_wire, "MOST_FIELDS", 30)
    with pytest.raises(InputError, match="more values than any network needs") as caught:
        load(tmp_path, GOOD)
    assert "30 fields" in caught.value.used
    assert "right file" in caught.value.hint
    monkeypatch.setattr(onnx_wire, "MOST_BYTES", 100)
    with pytest.raises(InputError, match="too large"):
        load(tmp_path, GOOD)


def test_a_layer_of_any_size_costs_nothing_to_refuse(tmp_path, monkeypatch):
    huge = node("MaxPool", "x", "h", kernel_shape=[3, 3], pads=[2**40] * 4)
    with pytest.raises(UnsupportedError, match="a layer is too large") as caught:
        load(tmp_path, bounded(huge, shape=IMAGE))
    assert "check the padding" in caught.value.hint
    monkeypatch.setattr(onnx_ann, "MOST_VALUES", 4)
    assert load(tmp_path, GOOD) is not None
    monkeypatch.setattr(onnx_ann, "MOST_VALUES", 3)
    with pytest.raises(UnsupportedError, match="a layer is too large"):
        load(tmp_path, GOOD)


def affine(op, constant):
    return bounded(node(op, "x c", "h"), c=np.asarray(constant, "f4"))


def pooled(op, **attributes):
    return bounded(node(op, "x", "h", **attributes), shape=IMAGE)


def floored(*nodes):
    return model(
        [*nodes, node("Floor", "h", "f"), node("Identity", "f", "r"), LAST],
        constants={"w": EYE, "two": np.float32(2)},
    )


CONV = np.ones((3, 2, 3, 3), "f4")
ONE = np.ones(4, "f4")
OPERATORS = {
    "unknown": (bounded(node("Sin", "x", "h")), UnsupportedError, "the operator Sin", "onnx.md"),
    "domain": (
        bounded(node("Relu", "x", "h", domain="my.own")), UnsupportedError, "my.own.Relu", "layers",
    ),
    "order": (
        model([LAST, node("Relu", "x", "r")], constants={"w": EYE}), InputError,
        "MatMul reads 'r', which nothing before it makes", "in order",
    ),
    "twice": (
        model([node("Relu", "x", "x"), node("Relu", "x", "y")]), InputError,
        "a value that exists already", "export",
    ),
    "computed weight": (
        bounded(node("MatMul", "x x", "h")), UnsupportedError, "'x', which is not a constant",
        "stored in the file",
    ),
    "constant only": (
        bounded(node("Relu", "w", "h")), UnsupportedError, "Relu reads a constant", "simplify",
    ),
    "weight axes": (
        bounded(node("MatMul", "x v", "h"), v=ONE), InputError, "MatMul needs weights of 2 axes",
        "export",
    ),
    "weight type": (
        bounded(node("MatMul", "x v", "h"), v=np.eye(4, dtype=int)), InputError, "needs weights",
        "export",
    ),
    "biases": (
        bounded(node("Gemm", "x w b", "h"), b=np.ones(3, "f4")), InputError,
        "Gemm has 3 biases for 4 outputs", "export",
    ),
    "transA": (
        bounded(node("Gemm", "x w", "h", transA=1)), UnsupportedError, "transA turns the batch",
        "multiply",
    ),
    "alpha": (bounded(node("Gemm", "x w", "h", alpha=2)), InputError, "Gemm.alpha", "export"),
    "features": (
        bounded(node("MatMul", "x v", "h"), v=np.ones((5, 4), "f4")), InputError,
        "expects 5 inputs and gets 4", "in_features",
    ),
    "image times matrix": (
        bounded(node("MatMul", "x v", "h"), shape=IMAGE, v=np.ones((6, 6), "f4")),
        UnsupportedError, "along the last axis of an image", "flatten",
    ),
    "conv over rows": (
        bounded(node("Conv", "x w", "h")), UnsupportedError, "Conv over 0 axes", "one or two",
    ),
    "strides": (
        bounded(node("Conv", "x k", "h", strides=[1]), shape=IMAGE, k=CONV), InputError,
        "Conv.strides is not 2 whole numbers", "export",
    ),
    "stride 0": (
        bounded(node("Conv", "x k", "h", strides=[0, 1]), shape=IMAGE, k=CONV), UnsupportedError,
        "stride and dilation start at 1", "1 or more",
    ),
    "auto_pad": (
        bounded(node("Conv", "x k", "h", auto_pad="BEST"), shape=IMAGE, k=CONV), UnsupportedError,
        "auto_pad is none of ONNX's", "pads",
    ),
    "training": (
        bounded(node("BatchNormalization", "x o o o o", "h", training_mode=1), o=ONE),
        UnsupportedError, "batch normalisation in training mode", "eval",
    ),
    "spatial": (
        bounded(node("BatchNormalization", "x o o o o", "h", spatial=0), o=ONE),
        UnsupportedError, "batch normalisation of single values", "channels",
    ),
    "max of currents": (
        bounded(
            node("MaxPool", "x", "p", kernel_shape=[2, 2]), node("Flatten", "p", "f"),
            node("MatMul", "f v", "h"), shape=(1, 1, 2, 2), v=np.ones((1, 4), "f4"),
        ),
        UnsupportedError, "max pooling is exact on spikes only", "average pooling",
    ),
    "dropout": (
        bounded(node("Dropout", "x zero t", "h"), t=np.array(True)), UnsupportedError,
        "dropout in training mode", "eval",
    ),
    "pool of rows": (
        bounded(node("MaxPool", "x", "h", kernel_shape=[2, 2])), UnsupportedError,
        "MaxPool over other than two axes", "images",
    ),
    "no kernel": (pooled("MaxPool"), UnsupportedError, "a pool's kernel is empty", "1 or more"),
    "pool dilation": (
        pooled("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]), UnsupportedError,
        "MaxPool with dilation", "dilation 1",
    ),
    "ceil": (
        pooled("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), UnsupportedError,
        "ceil_mode reads beyond the image", "ceil_mode=False",
    ),
    "average without padding": (
        pooled("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 1, 1]), UnsupportedError,
        "leaves its padding out of the count", "count_include_pad=True",
    ),
    "mean of rows": (
        pooled("ReduceMean", axes=[1, 2]), UnsupportedError, "mean over an image only", "both",
    ),
    "flatten": (
        bounded(node("Flatten", "x", "h", axis=0)), UnsupportedError, "joins the batch", "axis 1",
    ),
    "reshape": (
        bounded(node("Reshape", "x s", "h"), s=np.array([0, 2, 2])), UnsupportedError,
        "Reshape other than to flat samples", "flatten",
    ),
    "reshape computed": (
        bounded(node("Reshape", "x x", "h")), UnsupportedError, "Reshape to a computed shape",
        "flatten",
    ),
    "squeeze": (pooled("Squeeze"), UnsupportedError, "Squeeze other than", "flatten"),
    "concat": (
        bounded(node("Concat", "x x", "h", axis=1)), UnsupportedError,
        "Concat is read in the computation of a shape only", "do not join",
    ),
    "gather": (
        bounded(node("Shape", "x", "s"), node("Gather", "s i", "h"), i=np.array(7)), InputError,
        "Gather reads beyond a shape", "export",
    ),
    "softmax inside": (
        bounded(node("Softmax", "x", "h")), UnsupportedError, "Clip reads a softmax", "the last",
    ),
    "softmax of images": (pooled("Softmax"), UnsupportedError, "Softmax of an image", "flatten"),
    "constant node": (
        bounded(node("Constant", "", "c"), node("Add", "x c", "h")), InputError,
        "a Constant holds no tensor", "export",
    ),
    "inverse": (
        bounded(node("Div", "six x", "h")), UnsupportedError, "Div of a constant by", "constants",
    ),
    "zero divisor": (affine("Div", 0), InputError, "gives no finite number", "diverged"),
    "offset": (affine("Add", 1), UnsupportedError, "no layer stands before", "scale and shift"),
    "constants do not fit": (
        bounded(node("Add", "p q", "c"), node("Mul", "x c", "h"), p=ONE, q=np.ones(3, "f4")),
        InputError, "Add of constants of shapes", "export",
    ),
    "constants grow": (
        bounded(node("Add", "p q", "c"), node("Mul", "x c", "h"), p=ONE[None], q=ONE[:, None]),
        UnsupportedError, "constants grow", "simplify",
    ),
    "scale shape": (affine("Mul", np.ones(3)), UnsupportedError, "does not fit", "one per channel"),
    "scale within a channel": (
        bounded(node("Mul", "x c", "h"), shape=IMAGE, c=np.arange(6, dtype="f4")),
        UnsupportedError, "differs within a channel", "one per channel",
    ),
    "difference": (
        bounded(node("Relu", "x", "a"), node("Sub", "a x", "h")), UnsupportedError,
        "Sub of two branches", "may be added",
    ),
    "branch shapes": (
        bounded(node("MatMul", "x v", "a"), node("Add", "a x", "h"), v=np.ones((4, 3), "f4")),
        UnsupportedError, "branches of different shapes", "match",
    ),
    "itself": (bounded(node("Add", "x x", "h")), UnsupportedError, "to itself", "scale by 2"),
    "signed clip": (
        model(
            [node("Clip", "x low six", "r"), LAST],
            constants={"w": EYE, "low": np.float32(-1), "six": np.float32(6)},
        ),
        UnsupportedError, "a clip that does not start at 0 is no rate", "Relu",
    ),
    "no interval": (
        bounded(node("Clip", "x six zero", "h")), InputError, "Clip has no interval", "minimum",
    ),
    "floor": (
        floored(node("Mul", "x two", "h")), UnsupportedError, "Floor is read as part of a quantis",
        "A clip",
    ),
    "nothing spikes": (
        model([node("MatMul", "x w", "y")], constants={"w": EYE}), UnsupportedError,
        "no activation leads to the output", "rectifiers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OPERATORS)
def test_what_has_no_counterpart_is_refused_by_name(case, tmp_path):
    content, error, message, hint = OPERATORS[case]
    with pytest.raises(error, match=message) as caught:
        load(tmp_path, content)
    assert hint in caught.value.hint, caught.value
    assert str(caught.value.where).startswith(f"{tmp_path / 'm.onnx'} -> ")


def test_inputs_and_outputs(tmp_path):
    made = onnx.load_model_from_string(GOOD)
    made.graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, None))
    with pytest.raises(UnsupportedError, match="the model has 2 outputs") as caught:
        load(tmp_path, made.SerializeToString())
    assert caught.value.hint == "export a model of one output"
    with pytest.raises(UnsupportedError, match="operators of opset 6 mean other") as caught:
        load(tmp_path, model([node("Relu", "x", "y")], opset=6))
    assert "convert_version" in caught.value.hint
    open_ = model([node("Relu", "x", "r"), LAST], ("N", "D"), {"w": EYE})
    with pytest.raises(InputError, match="leaves the shape of its input open") as caught:
        load(tmp_path, open_)
    assert "give calibration data" in caught.value.hint
    assert load(tmp_path, open_, calibration=DATA).input_population.shape == (4,)
    with pytest.raises(InputError, match="takes samples of shape") as caught:
        load(tmp_path, GOOD, calibration=np.ones((3, 5)))
    assert "trained on" in caught.value.hint


def test_calibration_is_asked_for_and_checked(tmp_path):
    relu = model([node("Relu", "x", "r"), LAST], constants={"w": EYE})
    with pytest.raises(UsageError, match="no threshold of its own") as caught:
        load(tmp_path, relu)
    assert "--calibrate" in caught.value.hint
    assert caught.value.where == f"{tmp_path / 'm.onnx'} -> r"
    with pytest.raises(InputError, match="never active on the calibration data") as caught:
        load(tmp_path, relu, calibration=-DATA)
    assert "trained on" in caught.value.hint
    with pytest.raises(InputError, match="finite samples") as caught:
        load(tmp_path, relu, calibration=np.full((3, 4), np.nan))
    assert "at least one" in caught.value.hint
    for name, value in (("percentile", 0), ("steps", 0), ("dt_s", 0.0), ("start", 1.0)):
        with pytest.raises(UsageError, match=f"{name} {value:g} is out of range") as caught:
            load(tmp_path, relu, calibration=DATA, **{name: value})
        assert caught.value.hint.startswith(f"{name} is")

    with pytest.raises(UsageError, match="coding 'events' is none") as caught:
        load(tmp_path, relu, calibration=DATA, coding="events")
    assert caught.value.hint == "coding is direct or rate"


def test_much_data_is_taken_in_parts_and_sampled(tmp_path, monkeypatch):
    content, x = trained("relu"), digits()[0][:200]

    def thresholds():
        path = tmp_path / "m.onnx"
        path.write_bytes(content)
        return [float(layer.threshold) for layer in convert_onnx(path, x).layers]

    exact = thresholds()
    monkeypatch.setattr(convert, "_AT_A_TIME", 1)  # a sample at a time
    np.testing.assert_allclose(thresholds(), exact, rtol=1e-5)
    monkeypatch.setattr(convert, "MOST_KEPT", 20_000)
    sampled = thresholds()
    assert sampled == thresholds()
    assert sampled != exact
    np.testing.assert_allclose(sampled, exact, rtol=0.2)


def test_unused_operators_do_not_matter(tmp_path):
    made = onnx.load_model_from_string(GOOD)
    made.graph.node.append(node("Sin", "x", "unused"))
    assert load(tmp_path, made.SerializeToString()) == load(tmp_path, GOOD)


def test_bytes_turned_over_give_a_network_or_a_reason(tmp_path):
    rng = np.random.default_rng(0)
    data = digits()[0][:4]
    content = trained("quantised")
    ended = {"ok": 0, "refused": 0}
    for _ in range(300):
        broken = bytearray(content)
        near = rng.random() < 0.8  # most of a file is weights, which may be anything
        at = int(rng.integers(1200 if near else len(broken)))
        broken[-at if rng.random() < 0.5 else at] ^= 1 << int(rng.integers(8))
        try:
            load(tmp_path, bytes(broken), calibration=data, steps=2)
            ended["ok"] += 1
        except (InputError, UnsupportedError) as error:
            assert error.hint
            assert str(error.where).startswith(str(tmp_path / "m.onnx"))
            ended["refused"] += 1
    assert min(ended.values()) > 30, ended
