"""Pickles as Python 2 wrote them (protocol 2), which Python 3 cannot write any more."""

from __future__ import annotations

import struct

import numpy as np


def python2_text(text: str) -> bytes:
    """Return the opcodes of a str; its characters are bytes."""
    raw = text.encode("latin-1")
    if len(raw) < 256:
        return b"U" + bytes((len(raw),)) + raw
    return b"T" + struct.pack("<I", len(raw)) + raw


def python2_int(value: int) -> bytes:
    """Return the opcodes of an int below 65,536."""
    return b"K" + bytes((value,)) if value < 256 else b"M" + struct.pack("<H", value)


def python2_list(*values: int) -> bytes:
    """Return the opcodes of a list of ints."""
    return b"](" + b"".join(map(python2_int, values)) + b"e"


def python2_array(array: np.ndarray) -> bytes:
    """Return the opcodes of an array of bytes in rows."""
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    shape = b"(" + b"".join(map(python2_int, array.shape)) + b"t"
    dtype = (
        b"cnumpy\ndtype\n" + python2_text(kind) + b"K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01"
        + shape
        + dtype
        + b"\x89"
        + python2_text(array.tobytes().decode("latin-1"))
        + b"tb"
    )


def python2_dict(**values: bytes) -> bytes:
    """Return a whole pickle of a dict of such values."""
    items = b"".join(python2_text(name) + value for name, value in values.items())
    return b"\x80\x02}(" + items + b"u."
