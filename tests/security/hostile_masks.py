"""Hostile files for the reader of pickled lists of numpy arrays."""

from __future__ import annotations

import os
import pickle
import struct

import numpy as np
from hostile import INPUT, UNSUPPORTED, _Call, bytes_case, group, name, number, text, whole

RECONSTRUCT = name("numpy.core.multiarray", "_reconstruct")
NDARRAY = name("numpy", "ndarray")
EMPTY = RECONSTRUCT + group(NDARRAY, group(number(0)), b"C\1b") + b"R"


def dtype(code: str = "f4", order: str = "<") -> bytes:
    """Return the opcodes that push a numpy type."""
    state = group(number(3), text(order), b"N", b"N", b"N", number(-1), number(-1), number(0))
    return name("numpy", "dtype") + group(text(code), b"\x89", b"\x88") + b"R" + state + b"b"


def blob(raw: bytes) -> bytes:
    """Return the opcodes that push bytes."""
    return b"B" + struct.pack("<I", len(raw)) + raw


def array(shape: tuple[int, ...], raw: bytes, kind: bytes = b"") -> bytes:
    """Return the opcodes that push an array."""
    sizes = group(*map(number, shape))
    return EMPTY + group(number(1), sizes, kind or dtype(), b"\x89", raw) + b"b"


def listed(*items: bytes) -> bytes:
    """Return a pickled list of the given items."""
    return whole(b"](" + b"".join(items) + b"e")


def shared() -> bytes:
    """Return a list of many arrays over the same bytes."""
    first = blob(bytes(4 << 20)) + b"q\x05"
    more = b"".join(array((1 << 20,), b"h\x05") for _ in range(1000))
    return whole(b"](" + array((1 << 20,), first) + more + b"e")


ONES = np.ones((2, 2), np.float32)
bytes_case(
    "masks",
    INPUT,
    os_system=lambda c: pickle.dumps([ONES, _Call(os.system, f"touch {c}")]),
    builtins_eval=lambda c: pickle.dumps([_Call(eval, f"open({str(c)!r}, 'w')")], 3),
    build_runs_setstate=lambda c: pickle.dumps([_Call(getattr, ONES, "tofile")]),
    array_in_dtype=lambda c: listed(
        name("numpy", "dtype") + group(name("os", "system"), b"\x89", b"\x88") + b"R"
    ),
    shape_lies=lambda c: listed(array((2**40,), blob(bytes(16)))),
    shape_overflows=lambda c: listed(array((2**62, 2**62), blob(bytes(16)))),
    shape_negative=lambda c: listed(array((-2, -2), blob(bytes(16)))),
    shape_text=lambda c: listed(
        EMPTY + group(number(1), group(text("4")), dtype(), b"\x89", blob(bytes(16))) + b"b"
    ),
    many_dimensions=lambda c: listed(array((1,) * 100, blob(bytes(4)))),
    shared_bytes=lambda c: shared(),
    no_bytes=lambda c: listed(array((4,), text("four"))),
    type_is_no_type=lambda c: listed(array((4,), blob(bytes(16)), text("<f4"))),
    byte_order=lambda c: listed(array((4,), blob(bytes(16)), dtype(order="?"))),
    odd_flags=lambda c: listed(array((4,), blob(b"\0\1\2\3"), dtype("b1", "|"))),
    unfinished_array=lambda c: listed(EMPTY),
    state_too_short=lambda c: listed(EMPTY + group(number(1)) + b"b"),
    build_on_number=lambda c: listed(number(1) + group() + b"b"),
    subclass=lambda c: listed(RECONSTRUCT + group(name("numpy", "dtype"), group(), b"C\1b") + b"R"),
    call_the_type=lambda c: listed(NDARRAY + group(number(2**40)) + b"R"),
    persistent_id=lambda c: listed(number(7) + b"Q"),
    self_in_list=lambda c: whole(b"]q\x00h\x00a0"),
    cut_bytes=lambda c: b"\x80\x04](B" + struct.pack("<I", 2**31) + b"x",
    huge_bytes=lambda c: b"\x80\x04](\x8e" + struct.pack("<Q", 2**62) + b"x",
    huge_bytearray=lambda c: b"\x80\x05](\x96" + struct.pack("<Q", 2**62) + b"x",
    truncated=lambda c: pickle.dumps([ONES])[:-8],
    text_protocol=lambda c: pickle.dumps([ONES], 0),
    npy=lambda c: b"\x93NUMPY\1\0" + bytes(64),
    empty=lambda c: b"",
)
bytes_case(
    "masks",
    UNSUPPORTED,
    dictionary=lambda c: pickle.dumps({"conv1.weight": ONES}),
    one_array=lambda c: pickle.dumps(ONES),
    the_function=lambda c: listed(RECONSTRUCT),
    objects=lambda c: pickle.dumps([np.array([_Call(os.system, f"touch {c}")])]),
    records=lambda c: pickle.dumps([np.zeros(2, "i4,f4")]),
    a_module=lambda c: whole(b"](ctorch.nn.modules.linear\nLinear\n)\x81e"),
)
