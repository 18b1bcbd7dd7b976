"""Reads the part of an ONNX file that dense networks use, without the onnx package.

An ONNX file is a protocol buffer: (field number, wire type, value), nested. We decode those fields
that mean something here and skip the others, so nothing in a file is run or followed, and memory
stays near the file's size. Weights are views of the file's bytes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.io.files import PathLike, read_limited
from snn_deploy.ir.arrays import Array, frozen

MOST_BYTES = 2**31
#: Values that are kept one by one; weights are not.
MOST_FIELDS = 1_000_000

# ONNX's number of an element type -> numpy's, as raw_data holds it.
_DTYPES = {
    1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2",
    11: "<f8", 12: "<u4", 13: "<u8",
}  # fmt: skip
_HINT = "export the model again; onnx.checker.check_model says more"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxNode:
    """An operator. attributes: numbers, bytes, arrays, or lists of numbers."""

    op: str
    name: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class OnnxModel:
    """A model. inputs: name -> dims, None where one is not fixed; without initializers."""

    opset: int = 0
    nodes: list[OnnxNode] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    inputs: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)


Value = int | memoryview
Fields = Iterator[tuple[int, int, Value]]


class _Reader:
    """Counts what it yields, so that a small file cannot become a large structure."""

    def __init__(self) -> None:
        self._left = MOST_FIELDS

    def spend(self, count: int = 1) -> None:
        """Take ``count`` from what may be read; InputError where nothing is left."""
        self._left -= count
        if self._left < 0:
            raise InputError(
                "the file holds more values than any network needs",
                used=f"more than {MOST_FIELDS:,} fields",
                hint="check that this is the right file",
            )

    def varint(self, data: memoryview, at: int) -> tuple[int, int]:
        """Return an integer and where it ends."""
        value = shift = 0
        while True:
            if at >= len(data) or shift > 63:
                raise InputError("the file ends within a number", hint=_HINT)
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (2**64 - 1), at
            shift += 7

    def fields(self, data: Value) -> Fields:
        """Yield (number, wire type, value) of a message."""
        if not isinstance(data, memoryview):
            raise InputError("a number stands where a message should", hint=_HINT)
        at = 0
        while at < len(data):
            self.spend()
            key, at = self.varint(data, at)
            number, kind = key >> 3, key & 7
            if kind == 0:
                value, at = self.varint(data, at)
                yield number, kind, value
                continue
            if kind == 2:
                size, at = self.varint(data, at)
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
            else:
                raise InputError(f"wire type {kind} is not one of ONNX's", hint=_HINT)
            if size > len(data) - at:
                raise InputError(
                    "a field is longer than the file",
                    used=f"{size:,} of {len(data) - at:,} bytes left",
                    hint=_HINT,
                )
            yield number, kind, data[at : at + size]
            at += size

    def text(self, value: Value) -> str:
        """Return a string."""
        if not isinstance(value, memoryview):
            raise InputError("a number stands where a name should", hint=_HINT)
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            raise InputError("a name is not UTF-8", hint=_HINT) from None

    def integers(self, value: Value) -> list[int]:
        """Return one integer, or packed ones, as signed."""
        if not isinstance(value, memoryview):
            return [_signed(value)]
        found, at = [], 0
        while at < len(value):
            self.spend()
            one, at = self.varint(value, at)
            found.append(_signed(one))
        return found


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _number(value: Value) -> int:
    if not isinstance(value, int):
        raise InputError("a message stands where a number should", hint=_HINT)
    return _signed(value)


def _floats(value: Value, dtype: str) -> Array:
    """Return packed or single floats."""
    if not isinstance(value, memoryview) or len(value) % np.dtype(dtype).itemsize:
        raise InputError("a list of real numbers has another length", hint=_HINT)
    return np.frombuffer(value, dtype)


def read_onnx(path: PathLike) -> OnnxModel:
    """Return what a file holds; InputError (exit 3) for a file that is malformed or not ONNX.

    Reads no other file: weights that are stored beside the model are refused (UnsupportedError).
    """
    where = os.fspath(path)
    try:
        return _model(memoryview(read_limited(path, MOST_BYTES)))
    except (InputError, UnsupportedError) as error:
        if error.where != where:
            error.located(where)
        raise


def _model(data: memoryview) -> OnnxModel:
    reader, graph, opset = _Reader(), None, 0
    for number, _, value in reader.fields(data):
        if number == 7:
            graph = value
        elif number == 8:
            domain, version = "", 0
            for inner, _, part in reader.fields(value):
                if inner == 1:
                    domain = reader.text(part)
                elif inner == 2:
                    version = _number(part)
            opset = version if domain in ("", "ai.onnx") else opset
    if graph is None or opset < 1:
        raise InputError("this is not an ONNX model", used="no graph or no opset in it", hint=_HINT)
    model = OnnxModel(opset=opset)
    for number, _, value in reader.fields(graph):
        if number == 1:
            model.nodes.append(_node(reader, value))
        elif number == 5:
            name, tensor = _tensor(reader, value)
            model.constants[name] = tensor
        elif number == 11:
            name, dims = _value_info(reader, value)
            model.inputs[name] = dims
        elif number == 12:
            model.outputs.append(_value_info(reader, value)[0])
        elif number == 15:
            raise UnsupportedError(
                "sparse initializers are not read",
                hint="save the weights as dense tensors; zeros are found again",
            )
    # Old files list initializers among the inputs.
    model.inputs = {k: v for k, v in model.inputs.items() if k not in model.constants}
    return model


def _node(reader: _Reader, data: Value) -> OnnxNode:
    inputs: list[str] = []
    outputs: list[str] = []
    texts = {3: "", 4: "", 7: ""}
    attributes: dict[str, Any] = {}
    raw: list[Value] = []
    for number, _, value in reader.fields(data):
        if number == 1:
            inputs.append(reader.text(value))
        elif number == 2:
            outputs.append(reader.text(value))
        elif number in texts:
            texts[number] = reader.text(value)
        elif number == 5:
            raw.append(value)
    label = texts[3] or (outputs[0] if outputs else "") or texts[4]
    for value in raw:
        try:
            name, found = _attribute(reader, value)
        except (InputError, UnsupportedError) as error:
            raise error.located(label) from None
        attributes[name] = found
    return OnnxNode(
        op=texts[4],
        name=label,
        domain=texts[7],
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        attributes=attributes,
    )


def _attribute(reader: _Reader, data: Value) -> tuple[str, Any]:
    name = ""
    found: Any = None
    many: list[Any] = []
    for number, _, value in reader.fields(data):
        if number == 1:
            name = reader.text(value)
        elif number == 2:
            found = float(_floats(value, "<f4")[0])
        elif number == 3:
            found = _number(value)
        elif number == 4:
            found = reader.text(value)
        elif number == 5:
            found = _tensor(reader, value)[1]
        elif number == 7:
            floats = _floats(value, "<f4")
            reader.spend(len(floats))
            many.extend(floats.tolist())
        elif number == 8:
            many.extend(reader.integers(value))
    return name, many if found is None else found


def _tensor(reader: _Reader, data: Value) -> tuple[str, Array]:
    name, kind = "", 0
    dims: list[int] = []
    parts: list[Array] = []
    raw: memoryview | None = None
    elsewhere = False
    for number, _, value in reader.fields(data):
        if number == 1:
            dims.extend(reader.integers(value))
        elif number == 2:
            kind = _number(value)
        elif number == 8:
            name = reader.text(value)
        elif number == 9:
            if not isinstance(value, memoryview):
                raise InputError("a number stands where weights should", hint=_HINT)
            raw = value
        elif number == 4:
            parts.append(_floats(value, "<f4"))
        elif number == 10:
            parts.append(_floats(value, "<f8"))
        elif number in (5, 7, 11):
            parts.append(np.array(reader.integers(value), np.int64))
        elif number == 13 or (number == 14 and value == 1):
            elsewhere = True
    where = name or "a tensor"
    if elsewhere:
        raise UnsupportedError(
            "the weights are stored in another file, which is not followed",
            where=where,
            hint="save one file: onnx.save(onnx.load(path), new_path), or "
            "torch.onnx.export(..., external_data=False)",
        )
    if kind not in _DTYPES:
        raise UnsupportedError(
            f"element type {kind} is not read", where=where, hint="save the model in float32"
        )
    return name, _array(dims, np.dtype(_DTYPES[kind]), raw, parts, where)


def _array(
    dims: list[int], dtype: np.dtype[Any], raw: memoryview | None, parts: list[Array], where: str
) -> Array:
    size = math.prod(dims) if min(dims, default=1) >= 0 and len(dims) <= 16 else -1
    if raw is None:
        flat = np.concatenate(parts) if parts else np.zeros(0)
        flat = flat.astype(dtype) if flat.size == size else flat
        count = flat.size
    else:
        count = len(raw) // dtype.itemsize if len(raw) % dtype.itemsize == 0 else -1
        flat = np.frombuffer(raw, dtype) if count == size else np.zeros(0, dtype)
    if count != size:
        raise InputError(
            "a tensor has another size than it says",
            where=where,
            used=f"{max(count, 0):,} values for the shape {tuple(dims)}",
            hint=_HINT,
        )
    return frozen(flat.reshape(dims))


def _value_info(reader: _Reader, data: Value) -> tuple[str, tuple[int | None, ...]]:
    name = ""
    dims: list[int | None] = []
    for number, _, value in reader.fields(data):
        if number == 1:
            name = reader.text(value)
        elif number == 2:
            for kind, _, tensor in reader.fields(value):
                for part, _, shape in reader.fields(tensor) if kind == 1 else ():
                    for one, _, dim in reader.fields(shape) if part == 2 else ():
                        if one == 1:
                            dims.append(_dim(reader, dim))
    return name, tuple(dims)


def _dim(reader: _Reader, data: Value) -> int | None:
    found = [_number(value) for number, _, value in reader.fields(data) if number == 1]
    return found[0] if found and found[0] > 0 else None
