"""Reads the polarity events of an AEDAT 3.1 recording.

Behind lines of text that begin with "#" stand packets: a header of 28 bytes (type, source, event
size, offset of the time stamp, overflows of the time stamp, capacity, number of events, number of
valid events; all little-endian) and the events. A polarity event is 32 bits (validity in bit 0,
polarity in bit 1, y in bits 2 to 16, x in bits 17 to 31) and a time stamp in microseconds.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import InputError
from snn_deploy.io.files import read_limited

VERSION = b"#!AER-DAT3.1"
# An hour and more of a small sensor.
_MAX_BYTES = 1 << 30
_HEADER = struct.Struct("<HHiiiiii")
_POLARITY = 1
_EVENT_BYTES = 8
_MAX_EVENT_BYTES = 1 << 24
_MAX_OVERFLOWS = 1 << 20


class Events(NamedTuple):
    """Columns (n,) of valid events in the file's order: uint16 x, y; polarity 0 or 1; time_us."""

    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    polarity: NDArray[np.uint8]
    time_us: NDArray[np.int64]


def read_polarity(path: Path) -> Events:
    """Return the polarity events; packets of other kinds are passed over. Raises InputError."""
    content = read_limited(path, _MAX_BYTES)
    at = _end_of_text(path, content)
    words: list[NDArray[np.uint32]] = [np.zeros((0, 2), np.uint32)]
    overflows: list[tuple[int, int]] = []
    while at < len(content):
        if at + _HEADER.size > len(content):
            raise _broken(path, at, "ends within a packet's header", f"{len(content) - at} bytes")
        kind, _, size, _, overflow, capacity, count, _ = _HEADER.unpack_from(content, at)
        begin, at = at + _HEADER.size, at + _HEADER.size + size * count
        known = size == _EVENT_BYTES if kind == _POLARITY else 0 < size <= _MAX_EVENT_BYTES
        # Writers trim a packet to its events, and readers differ on which of the two counts.
        if not known or count < 0 or count != capacity or not 0 <= overflow <= _MAX_OVERFLOWS:
            raise _broken(
                path,
                begin - _HEADER.size,
                "holds a packet that makes no sense",
                f"type {kind}, {count:,} of {capacity:,} events of {size:,} bytes, "
                f"{overflow:,} overflows",
            )
        if at > len(content):
            raise _broken(
                path, begin, "ends within a packet", f"{len(content) - begin:,} bytes are left"
            )
        if kind == _POLARITY and count:
            words.append(np.frombuffer(content, "<u4", 2 * count, begin).reshape(-1, 2))
            overflows.append((overflow, count))
    data, stamps = np.concatenate(words).T
    late = np.repeat(
        np.array([n for n, _ in overflows], np.int64),
        np.array([count for _, count in overflows], np.int64),
    )
    valid = (data & 1).astype(bool)
    data, stamps, late = data[valid], stamps[valid], late[valid]
    return Events(
        x=(data >> 17).astype(np.uint16),
        y=(data >> 2 & 0x7FFF).astype(np.uint16),
        polarity=(data >> 1 & 1).astype(np.uint8),
        time_us=stamps + (late << 31),
    )


def _end_of_text(path: Path, content: bytes) -> int:
    """Return where the packets begin."""
    if not content.startswith(VERSION):
        raise InputError(
            "this is no AEDAT 3.1 recording",
            where=str(path),
            used=f"begins with {content[:12]!r}, needed {VERSION!r}",
            hint="fetch the file again; AEDAT 2 and AEDAT 4 are not read",
        )
    at = 0
    while content[at : at + 1] == b"#":
        end = content.find(b"\n", at)
        line = content[at:end].rstrip()
        at = len(content) if end < 0 else end + 1
        if line == b"#!END-HEADER":  # a packet may begin with "#" too
            break
    return at


def _broken(path: Path, at: int, what: str, used: str) -> InputError:
    return InputError(
        f"the recording {what}",
        where=f"{path} -> byte {at:,}",
        used=used,
        hint="the file is damaged or was not copied to its end: fetch it again",
    )
