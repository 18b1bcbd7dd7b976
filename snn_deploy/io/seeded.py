"""Weights that are stored as a seed: the same numbers on every machine, without torch.

The bits are PCG64's (O'Neill 2014), whose stream numpy keeps for good; a number is
(bits >> 41) / 2^22 - 1, exact in float32: uniform in [-1, 1), in steps of 2^-22.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def uniform(seed: Sequence[int], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return float32 numbers of ``shape`` in [-1, 1) from a seed of non-negative integers."""
    bits = np.random.PCG64(list(seed)).random_raw(math.prod(shape))
    numbers = (bits >> np.uint64(41)).astype(np.float64) / (1 << 22) - 1
    return numbers.astype(np.float32).reshape(shape)
