"""``load``: a data set by its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import UsageError
from snn_deploy.tickets.data import digits, mnist, nmnist

# What a folder of each data set holds; the digits come with scikit-learn.
_CONTENT = {"mnist": mnist.CONTENT, "nmnist": nmnist.CONTENT}
DATASETS = ("digits", *_CONTENT)
# Data sets of recordings, whose samples have steps already, and how many seconds of each are read.
EVENTS = {"nmnist": nmnist.WINDOW_S}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Images (n, C, H, W) float32 in 0..1, or frames of events (n, steps, 2, H, W) uint8, 0 or 1;
    labels (n,) int64 below ``classes``.
    """

    name: str
    x_train: NDArray[Any]
    y_train: NDArray[np.int64]
    x_test: NDArray[Any]
    y_test: NDArray[np.int64]
    classes: int


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    steps: int = 20,
    step_s: float | None = None,
) -> Dataset:
    """Return a data set: "digits" (with scikit-learn), "mnist" or "nmnist" (from ``data_dir``).

    The digits' split is stratified and always the same (seed 0, a quarter for testing); the
    others have their own. steps, step_s: how many frames of how many seconds each a recording
    becomes (None: its ``EVENTS`` seconds in equal frames); images have none. Raises UsageError,
    InputError, MissingDependencyError.
    """
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}", hint=f"one of {', '.join(DATASETS)}")
    if name == "digits":
        parts, classes = digits.read(), digits.CLASSES
    elif data_dir is None:
        raise UsageError(
            f"{name} is read from a folder of yours, and none was given",
            hint=f"--data-dir FOLDER with {_CONTENT[name]}",
        )
    elif name == "mnist":
        parts, classes = mnist.read(Path(data_dir)), mnist.CLASSES
    else:
        frame_s = EVENTS[name] / steps if step_s is None else step_s
        parts, classes = nmnist.read(Path(data_dir), steps, frame_s), nmnist.CLASSES
    (x_train, y_train), (x_test, y_test) = parts
    return Dataset(
        name=name, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, classes=classes
    )
