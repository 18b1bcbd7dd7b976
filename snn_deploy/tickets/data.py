"""Data sets to train on: scikit-learn's 8x8 digits, and MNIST and N-MNIST from a user's folder."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import InputError, MissingDependencyError, UsageError
from snn_deploy.tickets import nmnist

DATASETS = ("digits", "mnist", "nmnist")
# Data sets of recordings: samples have steps already, 0 or 1.
EVENTS = ("nmnist",)
MNIST_FILES = {
    "x_train": "train-images-idx3-ubyte.gz",
    "y_train": "train-labels-idx1-ubyte.gz",
    "x_test": "t10k-images-idx3-ubyte.gz",
    "y_test": "t10k-labels-idx1-ubyte.gz",
}
SPLIT_SEED = 0
TEST_SHARE = 0.25
# 60,000 images of 28x28 are 47 MB; a file that unpacks to more than this is not MNIST-like.
_MAX_IDX_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Images (n, 1, H, W) float32 in 0..1, or frames of events (n, steps, 2, H, W) uint8, 0 or 1;
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
    steps: int = nmnist.STEPS,
    step_s: float = nmnist.WINDOW_S / nmnist.STEPS,
) -> Dataset:
    """Return a data set: "digits" (with scikit-learn), "mnist" or "nmnist" (from ``data_dir``).

    The digits' split is stratified and always the same (seed 0, a quarter for testing); the
    others have their own. steps, step_s: how many frames of how many seconds each a recording
    becomes; images have none. Raises UsageError, InputError, MissingDependencyError.
    """
    if name == "digits":
        return _digits()
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}", hint=f"one of {', '.join(DATASETS)}")
    if data_dir is None:
        holds = ", ".join(MNIST_FILES.values()) if name == "mnist" else nmnist.CONTENT
        raise UsageError(
            f"{name} is read from a folder of yours, and none was given",
            hint=f"--data-dir FOLDER with {holds}",
        )
    return _mnist(Path(data_dir)) if name == "mnist" else _nmnist(Path(data_dir), steps, step_s)


def stratified_split(
    labels: NDArray[np.int64], test_share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (train, test) indices, ascending, with ``test_share`` of every class in test."""
    rng = np.random.Generator(np.random.PCG64(seed))
    test: list[NDArray[np.int64]] = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        test.append(members[: round(test_share * len(members))])
    chosen = np.sort(np.concatenate(test))
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    return rest, chosen


def _digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as err:
        raise MissingDependencyError(
            "the digits come with scikit-learn, which is not installed",
            hint="pip install 'snn-deploy[train]'",
        ) from err
    bunch: Any = load_digits()
    images = (np.asarray(bunch.images, np.float32) / 16.0)[:, None]
    labels = np.asarray(bunch.target, np.int64)
    train, test = stratified_split(labels, TEST_SHARE, SPLIT_SEED)
    return Dataset(
        name="digits",
        x_train=images[train],
        y_train=labels[train],
        x_test=images[test],
        y_test=labels[test],
        classes=10,
    )


def _nmnist(folder: Path, steps: int, step_s: float) -> Dataset:
    (x_train, y_train), (x_test, y_test) = (
        nmnist.frames_of(part, steps, step_s) for part in nmnist.find(folder)
    )
    return Dataset(
        name="nmnist",
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        classes=nmnist.CLASSES,
    )


def _mnist(folder: Path) -> Dataset:
    missing = [name for name in MNIST_FILES.values() if not (folder / name).is_file()]
    if missing:
        raise InputError(
            "the MNIST folder does not exist" if not folder.is_dir() else "MNIST files are missing",
            where=str(folder),
            used=f"missing: {', '.join(missing)}",
            hint=f"put the four files {', '.join(MNIST_FILES.values())} into it",
        )
    arrays: dict[str, Any] = {}
    for part in ("train", "test"):
        image_file, label_file = (
            folder / MNIST_FILES[f"x_{part}"],
            folder / MNIST_FILES[f"y_{part}"],
        )
        images, labels = read_idx(image_file, axes=3), read_idx(label_file, axes=1)
        if len(images) != len(labels) or not len(images):
            raise InputError(
                "images and labels differ in number, or there are none",
                where=f"{image_file} and {label_file.name}",
                used=f"{len(images):,} images, {len(labels):,} labels",
                hint="both files must be of the same part of the same data set",
            )
        if int(labels.max()) > 9:
            raise InputError(
                "a label is not a digit",
                where=str(label_file),
                used=f"label {int(labels.max())}, allowed 0 to 9",
                hint="is this the label file of another data set (EMNIST, say)?",
            )
        arrays[f"x_{part}"] = (images.astype(np.float32) / 255.0)[:, None]
        arrays[f"y_{part}"] = labels.astype(np.int64)
    if arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise InputError(
            "training and test images differ in size",
            where=str(folder),
            used=f"{arrays['x_train'].shape[2:]} and {arrays['x_test'].shape[2:]} pixels",
            hint="the four files must come from one data set",
        )
    return Dataset(name="mnist", classes=10, **arrays)


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """Return the unsigned bytes of a gzip-compressed idx file with ``axes`` axes.

    The header's sizes must match the data exactly, and at most 256 MB are unpacked. Raises
    InputError that names the file.
    """
    header_bytes = 4 + 4 * axes
    try:
        with gzip.open(path, "rb") as stream:
            header = stream.read(header_bytes)
            if len(header) < header_bytes:
                raise _broken(path, "is too short for an idx header", f"{len(header)} bytes")
            expected = bytes((0, 0, 8, axes))
            if header[:4] != expected:
                raise _broken(
                    path,
                    f"is not an idx file of unsigned bytes with {axes} axes",
                    f"magic {header[:4].hex()}, expected {expected.hex()}",
                )
            shape = struct.unpack(f">{axes}I", header[4:])
            size = math.prod(shape)
            if size > _MAX_IDX_BYTES:
                raise _broken(
                    path, "declares too much data", f"{size:,} of {_MAX_IDX_BYTES:,} bytes"
                )
            # One byte more than declared tells a file that is too long.
            data = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as err:
        raise _broken(path, "cannot be unpacked", str(err)) from err
    if len(data) != size:
        found = "more" if len(data) > size else f"{len(data):,}"
        raise _broken(path, "does not hold what its header says", f"{found} of {size:,} bytes")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _broken(path: Path, what: str, used: str) -> InputError:
    return InputError(
        f"{path.name} {what}",
        where=str(path),
        used=used,
        hint="fetch the file again; its checksum is published with the data set",
    )
