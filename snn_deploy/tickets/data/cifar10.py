"""CIFAR-10 from its unpacked python or binary version.

Either version has five training batches and one test batch of 10,000 images: a byte of label,
then 1,024 bytes each of red, green and blue, row by row. The python version is a pickle, of which
nothing is run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import InputError
from snn_deploy.io.files import read_limited
from snn_deploy.io.pickle_arrays import read_array_dict
from snn_deploy.tickets.data.parts import Part, Parts

CLASSES = 10
SHAPE = (3, 32, 32)
SOURCE = "CIFAR-10 of A. Krizhevsky, www.cs.toronto.edu/~kriz/cifar.html"
_BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
_TEST = "test_batch"
_FOLDERS = ("cifar-10-batches-py", "cifar-10-batches-bin")
CONTENT = f"{_FOLDERS[0]} or {_FOLDERS[1]}, or one of these itself"
_PIXELS = 3 * 32 * 32
# A batch has 31 MB.
_MAX_BYTES = 1 << 26

Bytes = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def read(folder: Path) -> Parts:
    """Return the training and test parts, images (n, 3, 32, 32) in 0..1.

    folder: of the batches, or the one that holds their folder. Raises InputError.
    """
    read_batch, train, test = _find(folder)
    return _part([read_batch(path) for path in train]), _part([read_batch(test)])


def _find(folder: Path) -> tuple[Callable[[Path], Bytes], list[Path], Path]:
    """Return what reads a batch, the training batches and the test batch."""
    for place in (folder, *(folder / name for name in _FOLDERS)):
        for suffix, reader in (("", _read_pickled), (".bin", _read_binary)):
            train = [place / f"{name}{suffix}" for name in _BATCHES]
            test = place / f"{_TEST}{suffix}"
            missing = [path.name for path in (*train, test) if not path.is_file()]
            if not missing:
                return reader, train, test
            if len(missing) <= len(_BATCHES):
                raise InputError(
                    "CIFAR-10 files are missing",
                    where=str(place),
                    used=f"missing: {', '.join(missing)}",
                    hint=f"unpack the whole archive again; {SOURCE}",
                )
    raise InputError(
        "this is no folder of CIFAR-10"
        if folder.is_dir()
        else "the CIFAR-10 folder does not exist",
        where=str(folder),
        hint=f"a folder with {CONTENT}; {SOURCE}",
    )


def _part(batches: list[Bytes]) -> Part:
    images = np.concatenate([pixels for pixels, _ in batches]).astype(np.float32)
    images /= 255.0
    labels = np.concatenate([labels for _, labels in batches])
    return images.reshape(-1, *SHAPE), labels.astype(np.int64)


def _read_pickled(path: Path) -> Bytes:
    batch = read_array_dict(path, max_bytes=_MAX_BYTES)
    pixels, labels = batch.get("data"), batch.get("labels")
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, list):
        raise InputError(
            "this is no batch of CIFAR-10",
            where=str(path),
            used=f"keys {', '.join(sorted(batch)[:6]) or 'none'}, needed data and labels",
            hint="CIFAR-100 and other data sets are not read",
        )
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), _PIXELS) or not labels:
        raise InputError(
            "images and labels of the batch do not fit together",
            where=str(path),
            used=f"data {list(pixels.shape)} of {pixels.dtype}, {len(labels):,} labels",
            hint=f"uint8 data of (images, {_PIXELS}) and a label for each image",
        )
    for i, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < CLASSES:
            raise _bad_label(path, i, label)
    return pixels, np.array(labels, np.uint8)


def _read_binary(path: Path) -> Bytes:
    content = read_limited(path, _MAX_BYTES)
    if not content or len(content) % (1 + _PIXELS):
        raise InputError(
            "this is no batch of CIFAR-10's binary version",
            where=str(path),
            used=f"{len(content):,} bytes, allowed are multiples of {1 + _PIXELS:,}",
            hint=f"unpack the archive again; {SOURCE}",
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PIXELS)
    labels = records[:, 0]
    wrong = np.flatnonzero(labels >= CLASSES)
    if len(wrong):
        raise _bad_label(path, int(wrong[0]), int(labels[wrong[0]]))
    return records[:, 1:], labels


def _bad_label(path: Path, at: int, label: object) -> InputError:
    return InputError(
        "a label is none of CIFAR-10's classes",
        where=f"{path} -> image {at}",
        used=f"label {str(label)[:40]}, allowed 0 to {CLASSES - 1}",
        hint="is this a batch of another data set (CIFAR-100, say)?",
    )
