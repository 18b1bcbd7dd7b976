"""Checks an HDF5 file's heaps (texts and names) on its raw bytes, before HDF5 reads them.

libhdf5 (2.0 and before) walks a global heap object by object and the free list of a local heap
block by block without checking that it advances: an object of size 0, or a free block that points
back, keeps it busy for ever, and a loop in C cannot be interrupted. Layouts: HDF5 File Format
Specification, III.D "Disk Format: Level 1D - Local Heaps" and III.E "Level 1E - Global Heap".
"""

from __future__ import annotations

from typing import BinaryIO

from snn_deploy.errors import InputError

MAX_HEAP_OBJECTS = 200_000

_BLOCK = 4 * 2**20
_GLOBAL, _LOCAL = b"GCOL\x01", b"HEAP\x00"  # signature and version
_LOCAL_HEADER, _NO_FREE = 32, 1
_HEADER, _OBJECT = 16, 16  # bytes before the objects, and before each object's data


def check_heaps(file: BinaryIO, size: int, where: str) -> None:
    """Check every heap in an open file of ``size`` bytes; raises InputError."""
    for start, walk in ((_GLOBAL, _walk_objects), (_LOCAL, _walk_free_list)):
        objects, at = 0, _next(file, start, 0)
        while at >= 0:
            objects += walk(file, at, size, where)
            if objects > MAX_HEAP_OBJECTS:
                raise _bad(where, at, f"more than {MAX_HEAP_OBJECTS:,} objects")
            at = _next(file, start, at + 1)


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


def _next(file: BinaryIO, mark: bytes, start: int) -> int:
    """Return the offset of the next ``mark`` at or after ``start``, -1 if there is none."""
    while True:
        file.seek(start)
        block = file.read(_BLOCK)
        found = block.find(mark)
        if found >= 0:
            return start + found
        if len(block) < _BLOCK:
            return -1
        start += len(block) - len(mark) + 1


def _walk_free_list(file: BinaryIO, start: int, size: int, where: str) -> int:
    """Walk the free blocks of one local heap as libhdf5 does and return their number."""
    file.seek(start)
    head = file.read(_LOCAL_HEADER)
    length, free, data = (int.from_bytes(head[i : i + 8], "little") for i in (8, 16, 24))
    if len(head) < _LOCAL_HEADER or data + length > size:
        return 0  # libhdf5 refuses it; or these bytes are not a heap but look like one
    blocks = 0
    while free != _NO_FREE and free + 16 <= length:
        file.seek(data + free)
        free = int.from_bytes(file.read(8), "little")
        blocks += 1
        if blocks > min(length // 16, MAX_HEAP_OBJECTS):
            raise _bad(where, start, f"more than {blocks - 1:,} free blocks")
    return blocks


def _walk_objects(file: BinaryIO, start: int, size: int, where: str) -> int:
    """Walk one global heap as libhdf5 does and return its number of objects."""
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
        "damaged or hostile HDF5 file: a heap of texts or names is malformed",
        where=f"{where} -> byte {at:,}",
        used=used,
        hint="write the file again with nir.write or h5py, and do not trust where it came from",
    )
