"""Checks an HDF5 file's global heaps (where texts lie) on its raw bytes, before HDF5 reads them.

libhdf5 (2.0 and before) walks a heap object by object without checking that it advances: a
free-space object of size 0 keeps it busy for ever, and a C loop cannot be interrupted. Layout:
HDF5 File Format Specification, III.E, "Disk Format: Level 1E - Global Heap".
"""

from __future__ import annotations

from typing import BinaryIO

from ..errors import InputError

MAX_HEAP_OBJECTS = 200_000

_BLOCK = 4 * 2**20
_START = b"GCOL\x01"  # signature and version
_HEADER, _OBJECT = 16, 16  # bytes before the objects, and before each object's data


def check_heaps(file: BinaryIO, size: int, where: str) -> None:
    """Check every global heap in an open file of ``size`` bytes; raises InputError."""
    objects, at = 0, _next(file, 0)
    while at >= 0:
        objects += _walk(file, at, size, where)
        if objects > MAX_HEAP_OBJECTS:
            raise _bad(where, at, f"more than {MAX_HEAP_OBJECTS:,} texts")
        at = _next(file, at + 1)


def check_superblock(head: bytes, where: str) -> None:
    """Check that addresses and lengths take 8 bytes, as all writers choose; raises InputError."""
    version = head[8] if len(head) > 16 else 255
    sizes = head[13:15] if version < 2 else head[9:11]
    if version > 3 or sizes != b"\x08\x08":
        raise InputError(
            "damaged or hostile HDF5 file: the superblock is of an unknown kind",
            where=where,
            hint="the file is damaged or incomplete: write or download it again",
        )


def _next(file: BinaryIO, start: int) -> int:
    """Return the offset of the next heap at or after ``start``, -1 if there is none."""
    while True:
        file.seek(start)
        block = file.read(_BLOCK)
        found = block.find(_START)
        if found >= 0:
            return start + found
        if len(block) < _BLOCK:
            return -1
        start += len(block) - len(_START) + 1


def _walk(file: BinaryIO, start: int, size: int, where: str) -> int:
    """Walk one heap as libhdf5 does and return its number of objects."""
    file.seek(start)
    end = start + int.from_bytes(file.read(_HEADER)[8:], "little")
    if end > size:
        return 0  # libhdf5 refuses it; or these bytes are not a heap but look like one
    at, objects = start + _HEADER, 0
    while at + _OBJECT <= end and objects <= MAX_HEAP_OBJECTS:
        file.seek(at)
        head = file.read(_OBJECT)
        length = int.from_bytes(head[8:], "little")
        free = head[:2] == b"\0\0"  # a free part's length includes its header
        step = length if free else _OBJECT + -(-length // 8) * 8
        if step < _OBJECT or at + step > end:
            raise _bad(where, at, f"{length:,} bytes claimed, {end - at:,} left")
        at += step
        objects += 1
    return objects


def _bad(where: str, at: int, used: str) -> InputError:
    return InputError(
        "damaged or hostile HDF5 file: the heap that holds texts is malformed",
        where=f"{where} -> byte {at:,}",
        used=used,
        hint="write the file again with nir.write or h5py, and do not trust where it came from",
    )
