"""MNIST from its four gzip-compressed idx files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import InputError
from snn_deploy.tickets.data.parts import Part, Parts

CLASSES = 10
MNIST_FILES = {
    "x_train": "train-images-idx3-ubyte.gz",
    "y_train": "train-labels-idx1-ubyte.gz",
    "x_test": "t10k-images-idx3-ubyte.gz",
    "y_test": "t10k-labels-idx1-ubyte.gz",
}
CONTENT = ", ".join(MNIST_FILES.values())
SOURCE = "MNIST of LeCun, Cortes and Burges"
# 60,000 images of 28x28 are 47 MB; a file that unpacks to more than this is not MNIST-like.
_MAX_IDX_BYTES = 1 << 28


def read(folder: Path) -> Parts:
    """Return the training and test parts, images (n, 1, H, W) in 0..1; raises InputError."""
    missing = [name for name in MNIST_FILES.values() if not (folder / name).is_file()]
    if missing:
        raise InputError(
            "the MNIST folder does not exist" if not folder.is_dir() else "MNIST files are missing",
            where=str(folder),
            used=f"missing: {', '.join(missing)}",
            hint=f"put the four files {CONTENT} into it; {SOURCE}",
        )
    train, test = (_read_part(folder, part) for part in ("train", "test"))
    if train[0].shape[1:] != test[0].shape[1:]:
        raise InputError(
            "training and test images differ in size",
            where=str(folder),
            used=f"{train[0].shape[2:]} and {test[0].shape[2:]} pixels",
            hint="the four files must come from one data set",
        )
    return train, test


def _read_part(folder: Path, part: str) -> Part:
    image_file, label_file = (folder / MNIST_FILES[f"{axis}_{part}"] for axis in "xy")
    images, labels = read_idx(image_file, axes=3), read_idx(label_file, axes=1)
    if len(images) != len(labels) or not len(images):
        raise InputError(
            "images and labels differ in number, or there are none",
            where=f"{image_file} and {label_file.name}",
            used=f"{len(images):,} images, {len(labels):,} labels",
            hint="both files must be of the same part of the same data set",
        )
    if int(labels.max()) >= CLASSES:
        raise InputError(
            "a label is not a digit",
            where=str(label_file),
            used=f"label {int(labels.max())}, allowed 0 to 9",
            hint="is this the label file of another data set (EMNIST, say)?",
        )
    return (images.astype(np.float32) / 255.0)[:, None], labels.astype(np.int64)


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
