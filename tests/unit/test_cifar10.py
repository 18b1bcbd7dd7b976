"""CIFAR-10 folders: both versions, and what is wrong with a file."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from snn_deploy.errors import SnnDeployError, UsageError
from snn_deploy.tickets.data.load import load
from tests.pickles import python2_array, python2_dict, python2_list, python2_text

NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def batches() -> dict[str, tuple[np.ndarray, list[int]]]:
    rng = np.random.default_rng(0)
    return {
        name: (rng.integers(0, 256, (4, 3072)).astype(np.uint8), rng.integers(0, 10, 4).tolist())
        for name in NAMES
    }


def pickled(pixels: np.ndarray, labels: list[int]) -> bytes:
    """Return a batch as the published archive holds it."""
    return python2_dict(
        batch_label=python2_text("training batch"), labels=python2_list(*labels),
        data=python2_array(pixels),
    )  # fmt: skip


def python_version(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, (pixels, labels) in batches().items():
        (folder / name).write_bytes(pickled(pixels, labels))
    return folder


def binary_version(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, (pixels, labels) in batches().items():
        records = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], 1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


@pytest.mark.parametrize(
    ("make", "name"),
    [(python_version, "cifar-10-batches-py"), (binary_version, "cifar-10-batches-bin")],
)
def test_both_versions_and_the_folder_around_them(tmp_path, make, name):
    folder = make(tmp_path / name)
    made = batches()
    for given in (folder, tmp_path):
        found = load("cifar10", given)
        assert found.x_train.shape == (20, 3, 32, 32)
        assert found.x_train.dtype == np.float32
        assert found.classes == 10
        assert found.y_train.tolist() == [label for n in NAMES[:5] for label in made[n][1]]
        assert found.y_test.tolist() == made["test_batch"][1]
        pixels = made["data_batch_2"][0][1]
        # Planes of red, green and blue, row by row.
        assert found.x_train[5, 1, 2, 3] == np.float32(pixels[1024 + 2 * 32 + 3]) / np.float32(255)
        assert np.array_equal(
            np.round(found.x_test.reshape(4, -1) * 255).astype(np.uint8), made["test_batch"][0]
        )


PIXELS = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("content", "what", "used"),
    [
        (pickled(PIXELS, [1]), "images and labels of the batch do not fit", "1 labels"),
        (pickled(PIXELS[:, :12], [1, 2]), "images and labels of the batch do not fit", "[2, 12]"),
        (pickled(PIXELS, [1, 10]), "a label is none of CIFAR-10's classes", "label 10"),
        (pickle.dumps({"data": PIXELS, "labels": [1, "a"]}), "a label is none", "label a"),
        (pickle.dumps({"data": PIXELS, "labels": [True, 1]}), "a label is none", "label True"),
        (pickle.dumps({"data": PIXELS, "fine_labels": [1, 2]}), "no batch", "data, fine_labels"),
        (pickle.dumps({"data": PIXELS.astype(float), "labels": [1, 2]}), "do not fit", "float64"),
        (pickle.dumps({"data": print}), "asks to run builtins.print", ""),
        (b"\x1f\x8b", "this is a gzip file", ""),
        (pickled(PIXELS, [1, 2])[:-9], "cut off", "byte"),
    ],
    ids=[
        "too few labels", "few pixels", "class", "text", "flag", "another set", "floats", "code",
        "packed", "cut off",
    ],
)  # fmt: skip
def test_broken_batches_are_located(tmp_path, content, what, used):
    path = python_version(tmp_path / "c") / "data_batch_3"
    path.write_bytes(content)
    with pytest.raises(SnnDeployError, match=what) as caught:
        load("cifar10", tmp_path / "c")
    assert caught.value.where.startswith(str(path))
    assert used in (caught.value.used or "")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "what", "used"),
    [
        (b"", "no batch of CIFAR-10's binary version", "0 bytes"),
        (bytes(3074), "no batch of CIFAR-10's binary version", "3,074 bytes"),
        (bytes(3073) + b"\x0b" + bytes(3072), "none of CIFAR-10's classes", "label 11"),
    ],
)
def test_broken_binary_batches_are_located(tmp_path, content, what, used):
    path = binary_version(tmp_path / "c") / "test_batch.bin"
    path.write_bytes(content)
    with pytest.raises(SnnDeployError, match=what) as caught:
        load("cifar10", tmp_path / "c")
    assert caught.value.where.startswith(str(path))
    assert used in caught.value.used
    assert caught.value.hint


def test_folders_without_batches(tmp_path):
    with pytest.raises(UsageError, match="read from a folder") as usage:
        load("cifar10")
    assert "--data-dir" in usage.value.hint
    assert "cifar-10-batches-py" in usage.value.hint
    assert "Krizhevsky" in usage.value.hint
    with pytest.raises(SnnDeployError, match="no folder of CIFAR-10") as caught:
        load("cifar10", tmp_path)
    assert "cifar-10-batches-bin" in caught.value.hint
    with pytest.raises(SnnDeployError, match="does not exist"):
        load("cifar10", tmp_path / "none")
    folder = python_version(tmp_path / "cifar-10-batches-py")
    (folder / "data_batch_4").unlink()
    with pytest.raises(SnnDeployError, match="files are missing") as caught:
        load("cifar10", tmp_path)
    assert caught.value.where == str(folder)
    assert caught.value.used == "missing: data_batch_4"
    assert "unpack" in caught.value.hint
