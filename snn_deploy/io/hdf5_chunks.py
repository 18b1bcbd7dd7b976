"""Undoes the filters of one stored HDF5 chunk with every size checked.

libhdf5 trusts the chunk: it inflates as long as data comes, subtracts a checksum's length without
looking, and hands out a chunk that turned out shorter than its values. So each chunk passes here
before libhdf5 filters it; a chunk must come to exactly its size.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

DEFLATE, SHUFFLE, FLETCHER32, LZF = 1, 2, 3, 32000
NAMES = {DEFLATE: "deflate", SHUFFLE: "shuffle", FLETCHER32: "fletcher32", LZF: "lzf"}
CHECKSUM_BYTES = 4


class ChunkError(ValueError):
    """A chunk that does not come to its size; the text says why."""


def check_order(filters: Sequence[int]) -> bool:
    """Return whether filters stand in an order that writers use, at most one of each kind.

    Shuffle before the one compressor; the checksum first (h5py) or last (others).
    """
    packers = [f for f in filters if f in (DEFLATE, LZF)]
    others = [f for f in filters if f != FLETCHER32]
    return (
        len(packers) <= 1
        and len(set(filters)) == len(filters)
        and (SHUFFLE not in others or others[0] == SHUFFLE)
        and (FLETCHER32 not in filters or FLETCHER32 in (filters[0], filters[-1]))
    )


def undo(data: bytes, mask: int, filters: Sequence[int], chunk_bytes: int, itemsize: int) -> bytes:
    """Return a chunk's values from its stored bytes; ChunkError if they are not ``chunk_bytes``.

    mask: bit i set means that filter i was skipped for this chunk. Bytes behind lzf are zeros:
    only their number is computed.
    """
    for index in reversed(range(len(filters))):
        if mask & (1 << index):
            continue
        kind = filters[index]
        if kind == FLETCHER32:
            if len(data) < CHECKSUM_BYTES:
                raise ChunkError("a chunk is shorter than its checksum")
            data = data[:-CHECKSUM_BYTES]
        elif kind == DEFLATE:
            data = _inflate(data, chunk_bytes + CHECKSUM_BYTES)
        elif kind == LZF:
            data = bytes(_lzf_length(data, chunk_bytes + CHECKSUM_BYTES))
        elif kind == SHUFFLE and len(data) % itemsize == 0:
            # Stored: byte 0 of all elements, then byte 1, ...
            data = np.frombuffer(data, np.uint8).reshape(itemsize, -1).T.tobytes()
    if len(data) != chunk_bytes:
        raise ChunkError(f"a chunk comes to {len(data):,} bytes instead of {chunk_bytes:,}")
    return data


def _inflate(data: bytes, limit: int) -> bytes:
    inflate = zlib.decompressobj()
    try:
        values = inflate.decompress(data, limit + 1)
    except zlib.error as error:
        raise ChunkError("a compressed chunk is damaged") from error
    if len(values) > limit:
        raise ChunkError("a chunk inflates to more than its values")
    if not inflate.eof:
        raise ChunkError("a compressed chunk is cut off")
    return values


def _lzf_length(data: bytes, limit: int) -> int:
    """Return how many bytes lzf data expands to, by walking its codes."""
    at, length = 0, 0
    while at < len(data):
        code = data[at]
        if code < 32:  # a run of code + 1 bytes as they are
            at, step = at + 2 + code, code + 1
        else:  # a copy of earlier bytes: length in 3 bits, more in the next byte if they are full
            long = code >> 5 == 7
            if at + 1 + long >= len(data):
                raise ChunkError("a compressed chunk is cut off")
            offset = ((code & 31) << 8 | data[at + 1 + long]) + 1
            if offset > length:
                raise ChunkError("a compressed chunk is damaged")
            step = (code >> 5) + 2 + (data[at + 1] if long else 0)
            at += 2 + long
        length += step
        if at > len(data) or length > limit:
            raise ChunkError("a chunk inflates to more than its values, or is cut off")
    return length
