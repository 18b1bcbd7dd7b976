"""``load``: a data set by its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import UsageError
from snn_deploy.tickets.data import cifar10, digits, dvs128, mnist, nmnist
from snn_deploy.tickets.data.parts import Parts

# The digits come with scikit-learn, the others are read from a folder.
_FOLDERS: dict[str, Any] = {
    "mnist": mnist,
    "nmnist": nmnist,
    "cifar10": cifar10,
    "dvs128": dvs128,
}
DATASETS = ("digits", *_FOLDERS)
# Data sets of recordings, whose samples have steps already, and how many seconds of each are read.
EVENTS = {"nmnist": nmnist.WINDOW_S, "dvs128": dvs128.WINDOW_S}


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
    downscale: int = 1,
) -> Dataset:
    """Return a data set: "digits" (with scikit-learn), or another of ``DATASETS`` (``data_dir``).

    The digits' split is stratified and always the same (seed 0, a quarter for testing); the
    others have their own. steps, step_s: how many frames of how many seconds each a recording
    becomes (None: its ``EVENTS`` seconds in equal frames); images have none. downscale: of
    dvs128, so many pixels in a row and in a column become one. Raises UsageError, InputError,
    MissingDependencyError.
    """
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}", hint=f"one of {', '.join(DATASETS)}")
    if downscale != 1 and name != "dvs128":
        raise UsageError(
            f"samples of {name} are not made smaller",
            used=f"downscale = {downscale}",
            hint="downscale belongs to dvs128",
        )
    source = digits if name == "digits" else _FOLDERS[name]
    (x_train, y_train), (x_test, y_test) = _parts(name, data_dir, steps, step_s, downscale)
    return Dataset(
        name=name,
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        classes=source.CLASSES,
    )


def _parts(
    name: str, data_dir: str | Path | None, steps: int, step_s: float | None, downscale: int
) -> Parts:
    if name == "digits":
        return digits.read()
    if data_dir is None:
        raise UsageError(
            f"{name} is read from a folder of yours, and none was given",
            hint=f"--data-dir FOLDER with {_FOLDERS[name].CONTENT}; {_FOLDERS[name].SOURCE}",
        )
    folder = Path(data_dir)
    if name == "mnist":
        return mnist.read(folder)
    if name == "cifar10":
        return cifar10.read(folder)
    frame_s = EVENTS[name] / steps if step_s is None else step_s
    if name == "nmnist":
        return nmnist.read(folder, steps, frame_s)
    return dvs128.read(folder, steps, frame_s, downscale)
