"""Reads what ``torch.save`` writes, without torch and without running anything from the file.

The archive's records must be stored, unique and apart from each other (``zip_records``), its
pickle may only describe data (``pickle_data``), and every tensor must lie inside its storage.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.io import tensors
from snn_deploy.io.files import PathLike, open_regular
from snn_deploy.io.pickle_data import (
    Global,
    PickleData,
    check_tree,
    is_count,
    refuse_dangerous,
)
from snn_deploy.io.signatures import describe
from snn_deploy.io.zip_records import STORED, ZipRecords
from snn_deploy.ir.arrays import Array, adopt

MAX_PICKLE_BYTES = 8 * 2**20
# Views may repeat values (tied weights, expand); more than this is a bomb.
MAX_SHARING = 4
FREE_SHARING_BYTES = 64 * 2**20

_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "bool",
}
# _rebuild_tensor_v3 (types that have no storage class) names its element type so.
_DTYPES = {"uint16": "u2", "uint32": "u4", "uint64": "u8"}
_OTHER_TYPES = ("Complex", "QInt", "QUInt", "complex", "float8", "qint", "quint", "bits", "float4")
# Python values that torch.save pickles by these names, and what to save instead.
_INSTEAD = {
    ("numpy", ""): "save torch tensors and plain Python numbers: torch.from_numpy(a), value.item()",
    ("_codecs", "encode"): "save text or a uint8 tensor instead of bytes",
    ("builtins", "set"): "save a list instead of a set",
    ("__builtin__", "set"): "save a list instead of a set",
    ("__builtin__", "complex"): "save the real and imaginary parts as two numbers",
    ("builtins", "complex"): "save the real and imaginary parts as two numbers",
    ("collections", "defaultdict"): "save dict(d) instead of a defaultdict",
    ("torch._utils", "_rebuild_sparse_tensor"): "save t.to_dense() and a bool mask",
    ("torch._utils", "_rebuild_qtensor"): "save t.dequantize()",
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): "give the module real weights, then save",
    ("torch", "device"): "save the device's name as text, or leave it out",
    ("torch.serialization", "_get_layout"): "save t.to_dense() and a bool mask",
}


class _Storage:
    """A run of elements of one type; ``kind`` is a numpy code, "bool" or "bfloat16"."""

    __slots__ = ("array", "kind")

    def __init__(self, array: Array, kind: str) -> None:
        self.array, self.kind = array, kind


def read_torch_zip(path: PathLike, *, max_bytes: int = 4 * 2**30) -> object:
    """Return the object that ``torch.save`` wrote to ``path``, with numpy arrays for tensors.

    The result holds dicts, lists, tuples, str, int, float, bool, None and read-only arrays:
    float16/32/64, (u)int8..64 and bool; bfloat16 becomes float32 of the same values. Nothing from
    the file is executed. max_bytes: largest file. Raises InputError for a damaged, hostile or
    foreign file, UnsupportedError for a kind of torch file that is not a plain state.
    """
    where = os.fspath(path)
    with open_regular(path) as file:
        head = file.read(512)
        if head[:4] not in (b"PK\3\4", b"PK\5\6"):
            _refuse_other(head, where)
        return _Reader(ZipRecords(file, where, max_bytes=max_bytes, allow_deflate=True)).read()


def _refuse_other(head: bytes, where: str) -> NoReturn:
    kind = describe(head)
    if kind.name == "legacy torch file":
        raise UnsupportedError(
            "torch's old file format (before torch 1.6, or _use_new_zipfile_serialization=False)",
            where=where,
            hint="write it again: import torch; "
            f"torch.save(torch.load({where!r}, weights_only=True), 'weights.pt')  "
            "# of a whole module, only if you trust it: "
            f"m = torch.load({where!r}, weights_only=False); "
            "torch.save(m.state_dict(), 'weights.pt')",
        )
    what = f"this is {kind.article}, not a torch.save archive" if kind.name else "not a torch file"
    raise InputError(what, where=where, hint=kind.hint or "write it with torch.save(state, path)")


class _Reader:
    def __init__(self, archive: ZipRecords) -> None:
        self._archive, self._where = archive, archive.where
        self._prefix = self._find_prefix()
        self._storages: dict[str, _Storage] = {}
        self._tensor_bytes = 0
        self._allowed = MAX_SHARING * archive.file_bytes + FREE_SHARING_BYTES
        self._globals = self._rules()

    def read(self) -> object:
        packed = [r.name for r in self._archive.records.values() if r.method != STORED]
        if packed:
            raise self._bad(f"record {packed[0]!r} is compressed, which torch.save never does")
        self._check_byte_order()
        pickle = self._archive.read(f"{self._prefix}data.pkl", MAX_PICKLE_BYTES)
        value = PickleData(
            pickle, f"{self._where} -> data.pkl", find=self._find, load=self._load
        ).run()
        check_tree(value, self._where, (np.ndarray,))
        return value

    def _find_prefix(self) -> str:
        names = self._archive.records
        stems = [n.rpartition("/") for n in names]
        pickles = [n for n, stem in zip(names, stems, strict=True) if stem[2] == "data.pkl"]
        if any(n.endswith("/constants.pkl") or "/code/" in n for n in names):
            raise self._unsupported(
                "a TorchScript archive (torch.jit.save) holds code",
                f"if you trust it: import torch; m = torch.jit.load({self._where!r}); "
                "torch.save(m.state_dict(), 'weights.pt')",
            )
        program = ("serialized_exported_program.json", "archive_format", "model.json")
        if any(stem[2] in program for stem in stems):
            raise self._unsupported(
                "an exported program (.pt2): torch may run code from it when it loads",
                "in the program that exported it: torch.save(module.state_dict(), 'weights.pt')",
            )
        if len(pickles) != 1:
            arrays = any(n.endswith(".npy") for n in names)
            raise InputError(
                f"not a torch.save archive: a zip file with {len(pickles)} data.pkl records",
                where=self._where,
                hint="this looks like an .npz of arrays; use it as --input"
                if arrays
                else "write it with torch.save(state, path)",
            )
        return pickles[0].removesuffix("data.pkl")

    def _check_byte_order(self) -> None:
        name = f"{self._prefix}byteorder"  # absent before torch 2.1, which knew little-endian only
        if name in self._archive.records and self._archive.read(name, 64) != b"little":
            raise self._unsupported(
                "the tensors are big-endian",
                "load and save it with torch on a little-endian machine",
            )

    def _rules(self) -> dict[tuple[str, str], Global]:
        rules: dict[tuple[str, str], Callable[[tuple[Any, ...]], Any]] = {
            ("collections", "OrderedDict"): self._ordered_dict,
            ("torch", "Size"): self._size,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor_v2,
            ("torch._utils", "_rebuild_tensor_v3"): self._tensor_v3,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            ("torch._utils", "_rebuild_parameter_with_state"): self._parameter,
            ("torch._tensor", "_rebuild_from_type_v2"): self._typed,
        }
        names = [("torch", name) for name in (*_STORAGES, *_DTYPES)]
        names += [("torch.storage", "UntypedStorage"), ("torch", "Tensor")]
        names += [("torch.nn.parameter", "Parameter"), ("torch.nn.parameter", "Buffer")]
        table = {key: Global(".".join(key), self._not_called) for key in names}
        return table | {key: Global(".".join(key), rule) for key, rule in rules.items()}

    def _find(self, module: str, name: str) -> Global:
        known = self._globals.get((module, name))
        if known is not None:
            return known
        package = module.partition(".")[0]
        instead = _INSTEAD.get((module, name))
        if instead is None and package == "numpy":
            instead = _INSTEAD["numpy", ""]
        full = f"{module}.{name}"
        if instead is not None:
            raise self._unsupported(f"the file holds a {full}", instead)
        refuse_dangerous(module, name, f"{self._where} -> data.pkl")
        if package == "torch" and name.startswith(_OTHER_TYPES):
            raise self._unsupported(
                f"tensors of type {name.removesuffix('Storage')}",
                "convert to float32 before saving: t.float(), t.dequantize() or t.real",
            )
        if module == "torch" and name.islower():
            raise self._unsupported(f"the file holds {full}", "save its name as text instead")
        raise self._unsupported(
            f"a pickled module or object: {full} is code, not data",
            "only if you trust it, save its weights alone: import torch; "
            f"m = torch.load({self._where!r}, weights_only=False); "
            "torch.save(m.state_dict(), 'weights.pt')",
        )

    def _unsupported(self, message: str, hint: str) -> UnsupportedError:
        return UnsupportedError(message, where=self._where, hint=hint)

    def _bad(self, what: str) -> InputError:
        return InputError(
            f"damaged or hostile torch file: {what}",
            where=self._where,
            hint="write the file again with torch.save, and do not trust where it came from",
        )

    def _load(self, pid: Any) -> _Storage:
        """Return the storage that a persistent id names: (tag, type, key, location, elements)."""
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise self._bad("a storage is not described as torch does it")
        _, kind_of, key, _, count = pid
        if not isinstance(kind_of, Global) or not isinstance(key, str) or not is_count(count):
            raise self._bad("a storage is not described as torch does it")
        name = kind_of.name.rpartition(".")[2]
        if name not in _STORAGES and name != "UntypedStorage":
            raise self._bad(f"{kind_of.name} is no kind of storage")
        kind = _STORAGES.get(name, "u1")
        storage = self._storages.get(key)
        if storage is None:
            storage = _Storage(self._elements(key[:100], kind, count), kind)
            self._storages[key] = storage
        if storage.kind != kind or len(storage.array) != count:
            raise self._bad(f"storage {key[:100]!r} is described in two ways")
        return storage

    def _elements(self, key: str, kind: str, count: int) -> Array:
        record = self._archive.records.get(f"{self._prefix}data/{key}")
        if record is None:
            raise self._bad(f"the record of storage {key!r} is missing")
        dtype = np.dtype({"bool": "u1", "bfloat16": "<u2"}.get(kind, f"<{kind}"))
        if record.size != count * dtype.itemsize:
            raise self._bad(
                f"storage {key!r} claims {count:,} elements of {dtype.itemsize} bytes "
                f"and holds {record.size:,} bytes"
            )
        array = tensors.empty((count,), dtype, self._where)
        stream = self._archive.open(record.name)
        stream.readinto(array.view(np.uint8).data)
        stream.finish()
        if kind == "bool":
            array = tensors.flags(array, f"{self._where} -> storage {key}")
        return adopt(tensors.native(array))

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, kind: str) -> Array:
        if not isinstance(storage, _Storage) or not is_count(offset):
            raise self._bad("a tensor without a storage")
        if not _counts(size) or not _counts(stride) or len(size) != len(stride):
            raise self._bad("a tensor with a negative or malformed shape, stride or offset")
        array = storage.array
        if kind != storage.kind:
            if storage.kind != "u1" or array.nbytes % np.dtype(kind).itemsize:
                raise self._bad(f"a tensor of type {kind} in a storage of type {storage.kind}")
            array = tensors.native(array.view(f"<{kind}"))
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= len(array):
            raise self._bad(f"a tensor reads element {last:,} of a storage of {len(array):,}")
        item = 4 if kind == "bfloat16" else array.itemsize
        self._count(tensors.nbytes(size, item, self._where), size)
        if 0 in size:
            view = np.zeros(size, array.dtype)
        else:
            # A stride along a single element says nothing and may be too large for numpy.
            pairs = zip(size, stride, strict=True)
            steps = [step * array.itemsize if n > 1 else 0 for n, step in pairs]
            view = np.lib.stride_tricks.as_strided(array[offset:], size, steps, writeable=False)
        return adopt(tensors.from_bfloat16(view) if kind == "bfloat16" else view)

    def _count(self, size: int, shape: Sequence[int]) -> None:
        self._tensor_bytes += size
        if self._tensor_bytes > self._allowed:
            raise InputError(
                "the file describes far more tensor data than it holds",
                where=f"{self._where} -> tensor of shape {list(shape)}",
                used=f"{self._tensor_bytes:,} bytes described, {self._allowed:,} allowed for a "
                f"file of {self._archive.file_bytes:,} bytes",
                hint="save expanded tensors once, or each as t.contiguous().clone()",
            )

    # Rules: what a global becomes when the pickle calls it with these arguments.

    def _tensor_v2(self, arguments: tuple[Any, ...]) -> Array:
        storage, offset, size, stride, *_ = arguments
        return self._tensor(storage, offset, size, stride, getattr(storage, "kind", ""))

    def _tensor_v3(self, arguments: tuple[Any, ...]) -> Array:
        storage, offset, size, stride, _grad, _hooks, dtype, *_ = arguments
        name = dtype.name.rpartition(".")[2] if isinstance(dtype, Global) else ""
        if name not in _DTYPES:
            raise self._bad("a tensor without an element type")
        return self._tensor(storage, offset, size, stride, _DTYPES[name])

    def _parameter(self, arguments: tuple[Any, ...]) -> Array:
        if not arguments or not isinstance(arguments[0], np.ndarray):
            raise self._bad("a parameter without a tensor")
        return arguments[0]

    def _typed(self, arguments: tuple[Any, ...]) -> Array:
        """A tensor with Python attributes, which are dropped: (rebuild, type, arguments, state)."""
        rebuild, _kind, inner, *_ = arguments
        rules = (self._tensor_v2, self._tensor_v3, self._parameter)  # not itself: no recursion
        if not isinstance(rebuild, Global) or rebuild.rule not in rules:
            raise self._bad("a tensor with attributes is malformed")
        value: Array = rebuild.rule(inner)
        return value

    def _ordered_dict(self, arguments: tuple[Any, ...]) -> dict[Any, Any]:
        if arguments:
            raise self._bad("an OrderedDict with arguments")
        return {}

    def _size(self, arguments: tuple[Any, ...]) -> tuple[int, ...]:
        if len(arguments) != 1 or not _counts(arguments[0]):
            raise self._bad("a malformed torch.Size")
        return tuple(arguments[0])

    def _not_called(self, arguments: tuple[Any, ...]) -> NoReturn:
        raise self._bad("it calls a type that torch.save only names")


def _counts(values: object) -> bool:
    return isinstance(values, tuple) and all(is_count(value) for value in values)
