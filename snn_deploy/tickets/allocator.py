"""The C library's allocator, told to keep what training frees."""

from __future__ import annotations

import ctypes
import functools

# Of glibc's malloc.h, and the largest threshold that it takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGEST_MAPPED = (1 << 31) - 1, 1 << 25


@functools.cache
def keep_freed_memory() -> bool:
    """Have tensors of up to 32 MiB reuse this process's memory; return whether glibc took it.

    Else each large tensor's pages are given back and asked for, and zeroed, anew in every update,
    which takes a quarter of a small convolutional net's training.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS and musl have none
        return False
    settings = ((_MMAP_THRESHOLD, _LARGEST_MAPPED), (_TRIM_THRESHOLD, _KEPT_BYTES))
    return all(mallopt(name, value) == 1 for name, value in settings)
