"""A decoded ONNX model's dense network, node by node, with located errors."""

from __future__ import annotations

from snn_deploy.errors import InputError, SnnDeployError, UnsupportedError
from snn_deploy.frontends.ann import AnnGraph
from snn_deploy.frontends.onnx_ann import OUTPUT, Builder
from snn_deploy.frontends.onnx_operators import OPERATORS
from snn_deploy.frontends.onnx_wire import OnnxModel, OnnxNode
from snn_deploy.ir.synapses import Shape

#: Before it, Add and its like did not stretch as numpy does.
OLDEST_OPSET = 7


def read_graph(model: OnnxModel, input_shape: Shape | None) -> tuple[AnnGraph, list[str]]:
    """Return a model's dense network, and notes on what was left out.

    input_shape: of one sample, for a model that leaves it open. Raises InputError and
    UnsupportedError, located by node.
    """
    if model.opset < OLDEST_OPSET:
        raise UnsupportedError(
            f"operators of opset {model.opset} mean other things",
            used=f"opset {model.opset}, {OLDEST_OPSET} or later is read",
            hint="onnx.version_converter.convert_version(model, 17)",
        )
    name = _only(list(model.inputs), "input")
    output = _only(model.outputs, "output")
    builder = Builder(model.constants)
    shape = _input_shape(model.inputs[name], input_shape, name)
    builder.values[name] = builder.add(name, None, (), shape)
    for node in _needed(model, output):
        try:
            if node.domain not in ("", "ai.onnx") or node.op not in OPERATORS:
                label = f"{node.domain}.{node.op}" if node.domain else node.op
                raise UnsupportedError(
                    f"the operator {label} has no counterpart in a rate-coded network",
                    hint="dense layers, convolutions, pools and rectifiers convert; "
                    "docs/onnx.md lists them",
                )
            made = OPERATORS[node.op](builder, node)
        except SnnDeployError as error:
            raise error if error.where == node.name else error.located(node.name) from None
        if not node.outputs or node.outputs[0] in builder.values:
            raise InputError(
                "an operator makes nothing, or a value that exists already",
                where=node.name,
                hint="export the model again",
            )
        builder.values[node.outputs[0]] = made
    last = OnnxNode(op=OUTPUT, name=output, domain="", inputs=(output,), outputs=(), attributes={})
    try:
        builder.graph.output = builder.source(last)
    except SnnDeployError as error:
        raise error if error.where == output else error.located(output) from None
    return builder.finished(), builder.notes


def _only(names: list[str], kind: str) -> str:
    if len(names) != 1:
        raise UnsupportedError(
            f"the model has {len(names)} {kind}s, a conversion needs one",
            used=", ".join(names[:6]) or None,
            hint=f"export a model of one {kind}",
        )
    return names[0]


def _input_shape(dims: tuple[int | None, ...], given: Shape | None, name: str) -> Shape:
    """Return the input's shape without batch."""
    known = dims[1:]
    if given is not None:
        fits = len(known) == len(given) and all(
            a in (None, b) for a, b in zip(known, given, strict=True)
        )
        if dims and not fits:
            raise InputError(
                f"the model takes samples of shape {_shown(known)}, the data have {given}",
                where=name,
                hint="calibrate with the data that the model was trained on",
            )
        return given
    if not known or None in known:
        raise InputError(
            f"the model leaves the shape of its input open: {_shown(dims)}",
            where=name,
            hint="give calibration data, or export with sizes fixed but for the batch",
        )
    return tuple(d for d in known if d is not None)


def _shown(dims: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("?" if d is None else str(d) for d in dims) + ")"


def _needed(model: OnnxModel, output: str) -> list[OnnxNode]:
    """Return the operators that the output depends on, in the file's order."""
    maker: dict[str, int] = {}
    for index, node in enumerate(model.nodes):
        for name in node.outputs:
            maker.setdefault(name, index)
    needed: set[int] = set()
    todo = [output]
    while todo:
        index = maker.get(todo.pop(), -1)
        if index >= 0 and index not in needed:
            needed.add(index)
            todo.extend(model.nodes[index].inputs)
    return [model.nodes[index] for index in sorted(needed)]
