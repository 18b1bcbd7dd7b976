"""What all tensor readers share: bounded shapes, flags that are 0 or 1, bfloat16, native order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from snn_deploy.errors import InputError
from snn_deploy.ir.arrays import Array

MAX_DIMS = 32
_MAX_BYTES = 2**62


def nbytes(shape: Sequence[int], itemsize: int, where: str) -> int:
    """Return the bytes of a tensor of untrusted shape; InputError if numpy cannot hold it."""
    if len(shape) > MAX_DIMS:
        raise InputError(
            f"a tensor of {len(shape)} dimensions",
            where=where,
            used=f"{len(shape)} of {MAX_DIMS} dimensions",
            hint="the file is damaged or hostile",
        )
    # numpy refuses (0, 2**40, 2**40) although it is empty, so zeros are left out here.
    if any(n < 0 for n in shape) or math.prod(n or 1 for n in shape) * itemsize > _MAX_BYTES:
        raise InputError(
            f"impossible tensor shape {list(shape)}",
            where=where,
            hint="the file is damaged or hostile",
        )
    return math.prod(shape) * itemsize


def flags(raw: Array, where: str) -> Array:
    """Return bytes as booleans; any byte other than 0 and 1 is an InputError."""
    if raw.size and int(raw.max()) > 1:
        raise InputError(
            f"a boolean tensor holds the byte {int(raw.max())}",
            where=where,
            hint="the file is damaged: write it again",
        )
    return raw.view(np.bool_)


def from_bfloat16(raw: Array) -> Array:
    """Return bfloat16 bit patterns (uint16) as float32 of the same values."""
    return np.asarray(raw.astype(np.uint32) << np.uint32(16)).view(np.float32)


def native(array: Array) -> Array:
    """Return ``array`` in the byte order of this machine."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def empty(shape: Sequence[int], dtype: Any, where: str) -> Array:
    """Return an uninitialised array; too little memory is an InputError that says how much."""
    size = nbytes(shape, np.dtype(dtype).itemsize, where)
    try:
        return np.empty(tuple(shape), dtype)
    except MemoryError as error:
        raise InputError(
            f"not enough memory for {size:,} bytes",
            where=where,
            hint="use a machine with more memory, or a smaller file",
        ) from error
