"""Read-only arrays for the frozen records of the IR."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


def frozen(value: ArrayLike, dtype: Any = None) -> Array:
    """Return ``value`` as a contiguous read-only array; a writable one is copied, never locked."""
    array = np.asarray(value, dtype=dtype)
    if not array.flags.writeable and array.flags.c_contiguous:
        return array
    array = np.array(array, copy=True, order="C")
    array.flags.writeable = False
    return array


def adopt(array: Array) -> Array:
    """Lock an array that the caller made and hands over (no copy when it is contiguous)."""
    array = np.ascontiguousarray(array) if array.ndim else array
    array.flags.writeable = False
    return array


def same(a: object, b: object) -> bool:
    """Return whether two IR values are equal (records, tuples, scalars; arrays bit by bit)."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        x, y = np.asarray(a), np.asarray(b)
        return x.shape == y.shape and x.dtype == y.dtype and bool(np.array_equal(x, y))
    if type(a) is not type(b):
        return False
    if hasattr(a, "__dataclass_fields__"):
        return all(
            same(getattr(a, name), getattr(b, name))
            for name, field in a.__dataclass_fields__.items()
            if field.compare
        )
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b
