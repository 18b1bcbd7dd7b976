"""Reads a pickled list or dict of numpy arrays without numpy's own unpickling: nothing is called.

An array is the bytes that stand in the file, seen through a plain numeric type and a shape that
fits them. Object arrays, records and everything else that is no plain data are refused.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.io import tensors
from snn_deploy.io.files import PathLike, read_limited
from snn_deploy.io.pickle_data import Global, PickleData, check_tree, is_count, refuse_dangerous
from snn_deploy.io.signatures import describe
from snn_deploy.ir.arrays import Array, adopt

MAX_BYTES = 2**30
_REMEDY = "write the arrays again: pickle.dump(list_of_arrays, file)"
_BYTES = {0x43: 1, 0x42: 4, 0x8E: 8, 0x96: 8}  # SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
_PYTHON2 = {0x55: 1, 0x54: 4}  # SHORT_BINSTRING, BINSTRING: Python 2's text and its bytes
_TYPES = frozenset("b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8".split())  # noqa: SIM905
_CORES = ("numpy.core", "numpy._core")  # before and since numpy 2


class _Type:
    """A numpy type; its byte order comes with BUILD."""

    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        _version, order, *_ = state
        if order not in ("<", ">", "|", "="):
            raise ValueError(order)
        self.dtype = self.dtype.newbyteorder(order)


class _Slot:
    """An array; before BUILD gives it a value, it is None."""

    __slots__ = ("array", "reader")

    def __init__(self, reader: _Reader, array: Array | None = None) -> None:
        self.reader, self.array = reader, array

    def build(self, state: Any) -> None:
        _version, shape, kind, fortran, raw = state
        self.array = self.reader.array(raw, kind, shape, "F" if fortran else "C")


class _ArrayPickle(PickleData):
    """The machine for data, which also knows bytes, and the BUILD of arrays and their types."""

    def _step_object(self, code: int) -> None:
        if code in _BYTES:
            self._stack.append(self._take(self._number(_BYTES[code])))
        elif code in _PYTHON2:
            self._stack.append(self._take(self._number(_PYTHON2[code])).decode("latin-1"))
        elif code == 0x62 and isinstance(self._stack[-2], _Type | _Slot):
            state = self._pop()
            self._stack[-1].build(state)
        else:
            super()._step_object(code)


class _Reader:
    def __init__(self, data: bytes, where: str) -> None:
        self._where, self._free = where, len(data)
        self._machine = _ArrayPickle(
            data, where, find=self._find, load=self._persistent, remedy=_REMEDY
        )
        rules = {
            ("numpy", "ndarray"): self._not_called,
            ("numpy", "dtype"): self._dtype,
        }
        for core in _CORES:
            rules[f"{core}.multiarray", "_reconstruct"] = self._reconstruct
            rules[f"{core}.numeric", "_frombuffer"] = self._frombuffer
        self._globals = {key: Global(".".join(key), rule) for key, rule in rules.items()}

    def read_list(self) -> list[Array]:
        value = self._machine.run()
        if not isinstance(value, list | tuple):
            raise self._other(f"the file's content is {_kind(value)}, not a list of numpy arrays")
        arrays: list[Array] = []
        for i, item in enumerate(value):
            if not isinstance(item, _Slot):
                raise self._other(f"entry {i} of the list is {_kind(item)}, not a numpy array")
            arrays.append(self._filled(item))
        return arrays

    def read_dict(self) -> dict[str, Any]:
        value = self._machine.run()
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self._other("the file's content is no dict whose keys are text")
        slots = {key: item for key, item in value.items() if isinstance(item, _Slot)}
        plain = {key: item for key, item in value.items() if key not in slots}
        check_tree(plain, self._where, (bytes,))
        return {**plain, **{key: self._filled(slot) for key, slot in slots.items()}}

    def _filled(self, slot: _Slot) -> Array:
        if slot.array is None:
            raise self._machine.bad("an array without values")
        return slot.array

    def array(self, raw: Any, kind: Any, shape: Any, order: Any) -> Array:
        """Return ``raw`` as an array; each may take as many bytes as the file has left."""
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        if not isinstance(raw, bytes) or not isinstance(kind, _Type) or order not in ("C", "F"):
            raise self._machine.bad("an array that is not bytes of a numeric type")
        if not isinstance(shape, tuple) or not all(map(is_count, shape)):
            raise self._machine.bad("an array with a malformed shape")
        size = 0 if 0 in shape else tensors.nbytes(shape, kind.dtype.itemsize, self._where)
        self._free -= size
        if size != len(raw) or self._free < 0:
            raise self._machine.bad(f"an array of shape {list(shape)} does not fit its bytes")
        if kind.dtype.kind == "b":
            flat: Array = tensors.flags(np.frombuffer(raw, np.uint8), self._where)
        else:
            flat = tensors.native(np.frombuffer(raw, kind.dtype))
        return adopt(flat.reshape(shape, order=order))

    def _find(self, module: str, name: str) -> Global:
        known = self._globals.get((module, name))
        if known is not None:
            return known
        refuse_dangerous(module, name, self._where)
        raise self._other(f"the file holds {module}.{name}, which is no array")

    def _other(self, what: str) -> UnsupportedError:
        return UnsupportedError(
            what,
            where=self._where,
            hint="if you trust it, write plain arrays where it was made: "
            "pickle.dump([numpy.asarray(m) for m in masks], file)",
        )

    # Rules: what a global becomes when the pickle calls it with these arguments.

    def _reconstruct(self, arguments: tuple[Any, ...]) -> _Slot:
        kind, *_ = arguments
        if not isinstance(kind, Global) or kind.name != "numpy.ndarray":
            raise self._machine.bad("an array of a type that is no numpy array")
        return _Slot(self)

    def _frombuffer(self, arguments: tuple[Any, ...]) -> _Slot:
        raw, kind, shape, order = arguments
        return _Slot(self, self.array(raw, kind, shape, order))

    def _dtype(self, arguments: tuple[Any, ...]) -> _Type:
        code, *_ = arguments
        if not isinstance(code, str) or code not in _TYPES:
            raise self._other(f"the file holds an array of type {str(code)[:40]!r}")
        return _Type(code)

    def _not_called(self, _: tuple[Any, ...]) -> Any:
        raise self._machine.bad("it calls a type that pickle only names")

    def _persistent(self, _: Any) -> Any:
        raise self._machine.bad("it refers to something outside of the file")


def _kind(value: object) -> str:
    if isinstance(value, _Slot):
        return "one numpy array"
    return f"of type {value.name if isinstance(value, Global) else type(value).__name__}"


def read_array_list(path: PathLike, *, max_bytes: int = MAX_BYTES) -> list[Array]:
    """Return the numpy arrays of a pickled list, read-only, in their order.

    Arrays are of bool, integers or floating-point numbers, pickled by protocol 3 or later, by
    numpy 1 or 2. Nothing from the file is executed. max_bytes: largest file. Raises InputError
    for a damaged or hostile file, UnsupportedError for a pickle of something else.
    """
    return _open(path, max_bytes, "list").read_list()


def read_array_dict(path: PathLike, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return a pickled dict of numpy arrays and plain values, such as lists of numbers.

    As ``read_array_list``; Python 2's pickles are read too, and its str becomes text byte by byte
    (latin-1). The order of the keys is not kept. Raises InputError and UnsupportedError.
    """
    return _open(path, max_bytes, "dict").read_dict()


def _open(path: PathLike, max_bytes: int, what: str) -> _Reader:
    where = os.fspath(path)
    data = read_limited(path, max_bytes)
    kind = describe(data[:512])
    if kind.name != "plain Python pickle":
        raise InputError(
            f"this is {kind.article}, not a pickled {what} of numpy arrays",
            where=where,
            hint=f"expected what pickle.dump({what}_of_arrays, file) writes, protocol 3 or later",
        )
    return _Reader(data, where)
