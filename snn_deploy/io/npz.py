"""Reads and writes .npz archives of plain arrays; nothing is unpickled or evaluated."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from snn_deploy.errors import InputError, OutputError
from snn_deploy.io import tensors
from snn_deploy.io.files import PathLike, atomic_write
from snn_deploy.io.signatures import describe
from snn_deploy.io.zip_records import ZipRecords
from snn_deploy.ir.arrays import Array, adopt

MAX_HEADER_BYTES = 10_000
_FIELD = r"'(?:descr|fortran_order|shape)'\s*:\s*(?:'[^']*'|True|False|\([\d\s,L]*\))"
_HEADER = re.compile(rf"\s*\{{\s*{_FIELD}\s*,\s*{_FIELD}\s*,\s*{_FIELD}\s*,?\s*\}}\s*")
_DESCR = re.compile(r"'descr'\s*:\s*'([<>|=]?[biuf][1248])'")
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


def open_npz(file: BinaryIO, where: str, max_bytes: int) -> ZipRecords:
    """Return the checked records of an open .npz file; raises InputError for anything else."""
    head = file.read(64)
    if head[:4] not in (b"PK\3\4", b"PK\5\6"):
        kind = describe(head)
        raise InputError(
            f"this is {kind.article}, not an .npz archive",
            where=where,
            hint=kind.hint or "write it with np.savez(path, x=x, y=y)",
        )
    return ZipRecords(file, where, max_bytes=max_bytes, allow_deflate=True)


def array_names(archive: ZipRecords) -> list[str]:
    """Return the names of the arrays in an archive, in file order."""
    return [name.removesuffix(".npy") for name in archive.records if name.endswith(".npy")]


def read_array(archive: ZipRecords, name: str) -> Array:
    """Return one array of numbers or booleans, read-only, in C order and native byte order.

    Raises InputError: missing, object or structured arrays, a header that disagrees with the
    size of its record, a damaged record.
    """
    where = f"{archive.where} -> {name}"
    record = archive.records.get(f"{name}.npy")
    if record is None:
        there = ", ".join(array_names(archive)[:8]) or "nothing"
        raise InputError(
            f"the archive has no array named {name}",
            where=archive.where,
            used=f"it holds {there}",
            hint=f"write it with np.savez(path, {name}=...)",
        )
    stream = archive.open(record.name)

    def take(count: int) -> bytes:
        buffer = bytearray(min(count, MAX_HEADER_BYTES + 1))
        stream.readinto(memoryview(buffer))
        return bytes(buffer)

    magic = take(8)
    if magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3):
        raise _bad(where, "it does not start as a .npy array")
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(take(width), "little")
    if length > MAX_HEADER_BYTES:
        raise _bad(where, f"its header claims {length:,} bytes")
    dtype, fortran, shape = _parse(take(length).decode("latin-1"), where)
    size = tensors.nbytes(shape, dtype.itemsize, where)
    if 8 + width + length + size != record.size:
        raise _bad(where, f"shape {list(shape)} takes {size:,} bytes, the record differs")
    store = dtype if dtype.kind != "b" else np.dtype("u1")
    array = tensors.empty(shape[::-1] if fortran else shape, store, where)
    stream.readinto(array.reshape(-1).view(np.uint8).data)
    stream.finish()
    array = tensors.native(array)
    if dtype.kind == "b":
        array = tensors.flags(array, where)
    return adopt(array.T if fortran else array)


def _bad(where: str, what: str) -> InputError:
    return InputError(
        f"damaged or hostile array: {what}",
        where=where,
        hint="write it again with np.savez(path, x=x, y=y)",
    )


def _parse(header: str, where: str) -> tuple[np.dtype[np.generic], bool, tuple[int, ...]]:
    if "'|O'" in header or "'O'" in header:
        raise InputError(
            "an array of Python objects: reading it could run code",
            where=where,
            hint="save numbers: x.astype(float), or pad samples to one shape",
        )
    if not _HEADER.fullmatch(header):
        raise _bad(where, "its header is malformed, or it is an array of records")
    descr = _DESCR.search(header)
    order = re.search(r"'fortran_order'\s*:\s*(True|False)", header)
    shape = re.search(r"'shape'\s*:\s*\(([^)]*)\)", header)
    if descr is None:
        raise InputError(
            "an array that is neither numbers nor booleans",
            where=where,
            used=header.strip()[:80],
            hint="save x as float32, uint8 or bool, and y as int64",
        )
    if order is None or shape is None:
        raise _bad(where, "its header is malformed")
    try:
        dtype = np.dtype(descr[1])
        counts = tuple(int(n.strip().rstrip("L")) for n in shape[1].split(",") if n.strip())
    except (TypeError, ValueError) as error:
        raise _bad(where, "its header is malformed") from error
    return dtype, order[1] == "True", counts


def save_npz(path: PathLike, arrays: Mapping[str, ArrayLike], force: bool = False) -> None:
    """Write arrays (numbers, booleans or text) as an .npz whole or not at all.

    The same arrays give the same bytes: stored, sorted by name, without times. Raises OutputError.
    """
    with (
        atomic_write(path, force) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name in sorted(arrays):
            if not name or "\0" in name or len(name.encode()) > 60_000:
                raise OutputError(
                    "an array's name is empty, too long or holds a NUL",
                    where=os.fspath(path),
                    hint="rename the population",
                )
            info = zipfile.ZipInfo(f"{name}.npy", _TIMESTAMP)
            info.create_system, info.external_attr = 3, 0o644 << 16
            array = np.asarray(arrays[name])
            with archive.open(info, "w", force_zip64=array.nbytes >= 2**31) as record:
                np.lib.format.write_array(record, array, allow_pickle=False)
