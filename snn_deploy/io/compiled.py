"""Functions compiled by numba, their machine code kept in the user's cache folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from snn_deploy.io.cache import cache_folder

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function``, compiled when it is first called with new types of arguments.

    NUMBA_CACHE_DIR is honoured. Where the folder cannot be written numba tries its own, and
    where there is none the code is compiled anew in each process.
    """
    import numba

    given = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = given or str(cache_folder() / "numba")
    try:  # the place is chosen here, not when the function first runs
        kernel = numba.njit(cache=True)(function)
    except RuntimeError:  # "no locator available": nowhere to write
        kernel = numba.njit(function)
    finally:
        numba.config.CACHE_DIR = given
    return cast(Callable[P, R], kernel)
