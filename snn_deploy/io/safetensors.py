"""Reads .safetensors files: a JSON header and raw tensors, nothing that could run."""

from __future__ import annotations

import json
import os
from typing import Any, BinaryIO

import numpy as np

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.io import tensors
from snn_deploy.io.files import PathLike, check_size, open_regular
from snn_deploy.io.pickle_data import is_count
from snn_deploy.io.signatures import describe
from snn_deploy.ir.arrays import Array, adopt

# Tens of thousands of tensors; parsed JSON can take 30 times its size in memory.
MAX_HEADER_BYTES = 4 * 2**20

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "u1",
}


def read_safetensors(path: PathLike, *, max_bytes: int = 4 * 2**30) -> dict[str, Array]:
    """Return the tensors of a .safetensors file by name, read-only; BF16 becomes float32.

    The header's free-text metadata is ignored. Raises InputError for a damaged or hostile file,
    UnsupportedError for element types that numpy does not have.
    """
    where = os.fspath(path)
    with open_regular(path) as file:
        size = check_size(file, where, max_bytes)
        header, start = _header(file, size, where)
        return _read(file, header, start, size, where)


def _bad(where: str, what: str) -> InputError:
    return InputError(
        f"damaged or hostile safetensors file: {what}",
        where=where,
        hint="write or download the file again: safetensors.torch.save_file(state, path)",
    )


def _header(file: BinaryIO, size: int, where: str) -> tuple[dict[str, Any], int]:
    head = file.read(64)
    length = int.from_bytes(head[:8], "little")
    if len(head) < 10 or head[8:9] != b"{":
        kind = describe(head)
        raise InputError(
            f"this is {kind.article}, not a safetensors file",
            where=where,
            hint=kind.hint or "write it with safetensors.torch.save_file(state, path)",
        )
    if length > min(size - 8, MAX_HEADER_BYTES):
        raise InputError(
            "damaged or hostile safetensors file: the header is too long or cut off",
            where=where,
            used=f"{length:,} of {min(size - 8, MAX_HEADER_BYTES):,} header bytes",
            hint="write or download the file again",
        )
    file.seek(8)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise _bad(where, "a name occurs twice in the header")
        return found

    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _bad(where, "the header is not JSON") from error
    if not isinstance(header, dict):
        raise _bad(where, "the header is not a JSON object")
    header.pop("__metadata__", None)
    return header, 8 + length


def _read(
    file: BinaryIO, header: dict[str, Any], start: int, size: int, where: str
) -> dict[str, Array]:
    places = []
    for name, entry in header.items():
        here = f"{where} -> {name[:100]}"
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise _bad(here, "a tensor needs dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not (_counts(shape) and _counts(offsets) and len(offsets) == 2):
            raise _bad(here, "shape and data_offsets must be lists of non-negative integers")
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise UnsupportedError(
                f"tensors of type {str(dtype)[:40]}",
                where=here,
                hint="convert to float32 before saving: t.float()",
            )
        begin, end = offsets
        nbytes = tensors.nbytes(shape, np.dtype(_DTYPES[dtype]).itemsize, here)
        if end - begin != nbytes:
            raise _bad(here, f"{dtype} {shape} takes {nbytes:,} bytes, not {end - begin:,}")
        places.append((begin, end, name, dtype, shape))
    found: dict[str, Array] = {}
    free = 0
    for begin, end, name, dtype, shape in sorted(places):
        here = f"{where} -> {name[:100]}"
        if begin != free or start + end > size:
            what = "overlaps or leaves a gap" if begin != free else "runs past the end of the file"
            raise _bad(here, f"the tensor {what}")
        free = end
        found[name] = _tensor(file, dtype, shape, start + begin, here)
    if start + free != size:
        raise _bad(where, f"{size - start - free:,} bytes follow the last tensor")
    return {name: found[name] for name in header}


def _tensor(file: BinaryIO, dtype: str, shape: list[int], at: int, where: str) -> Array:
    array = tensors.empty(shape, _DTYPES[dtype], where)
    file.seek(at)
    if file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:  # type: ignore[attr-defined]
        raise _bad(where, "the tensor is cut off")
    array = tensors.native(array)
    if dtype == "BOOL":
        array = tensors.flags(array, where)
    return adopt(tensors.from_bfloat16(array) if dtype == "BF16" else array)


def _counts(values: object) -> bool:
    return isinstance(values, list) and all(is_count(value) for value in values)
