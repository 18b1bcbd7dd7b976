"""What every reader of a data set returns: its training and its test part."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# Samples (n, ...) and their labels (n,).
Part: TypeAlias = tuple[NDArray[Any], NDArray[np.int64]]
Parts: TypeAlias = tuple[Part, Part]
