"""read_safetensors against the safetensors package, and its messages."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.io import safetensors as ours
from snn_deploy.io.safetensors import read_safetensors


def write(path: Path, header: object, data: bytes) -> Path:
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def test_equals_the_package(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    numbers = np.arange(-6, 6).reshape(3, 4)
    names = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1"]
    state = {name: np.abs(numbers).astype(name) for name in names}
    state |= {"bool": numbers > 0, "scalar": np.array(2.5, np.float32), "empty": np.ones((0, 3))}
    path = tmp_path / "weights.safetensors"
    package.save_file(state, path, metadata={"format": "np"})
    expected, found = package.load_file(path), read_safetensors(path)
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
        assert not found[name].flags.writeable


def test_bfloat16_equals_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("safetensors.torch")
    value = torch.tensor([[1.0, -2.5, 3e38], [float("inf"), 1e-40, 0.1]]).bfloat16()
    path = tmp_path / "weights.safetensors"
    package.save_file({"a": value}, path)
    found = read_safetensors(path)["a"]
    assert found.dtype == np.float32
    assert found.tobytes() == value.float().numpy().tobytes()


def entry(begin: int, end: int, shape: list[int]) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "says", "where"),
    [
        ({"w": entry(0, 8, [3])}, "F32 [3] takes 12 bytes, not 8", "-> w"),
        ({"w": entry(0, 8, [2])}, "8 bytes follow the last tensor", ""),
        ({"w": entry(8, 16, [2])}, "overlaps or leaves a gap", "-> w"),
        ({"w": entry(0, 64, [16])}, "runs past the end of the file", "-> w"),
        ({"w": {"dtype": "F32"}}, "needs dtype, shape and data_offsets", "-> w"),
        ({"w": entry(0, 8, [-2])}, "lists of non-negative integers", "-> w"),
    ],
)
def test_lies_are_located(tmp_path: Path, header: object, says: str, where: str) -> None:
    path = write(tmp_path / "w.safetensors", header, bytes(16))
    with pytest.raises(InputError) as caught:
        read_safetensors(path)
    assert says in caught.value.message
    assert caught.value.where == f"{path} {where}".strip()
    assert "write or download the file again" in str(caught.value.hint)


def test_element_types_that_numpy_lacks(tmp_path: Path) -> None:
    header = {"w": {"dtype": "F8_E5M2", "shape": [4], "data_offsets": [0, 4]}}
    with pytest.raises(UnsupportedError, match="tensors of type F8_E5M2") as caught:
        read_safetensors(write(tmp_path / "w.safetensors", header, bytes(4)))
    assert caught.value.hint == "convert to float32 before saving: t.float()"


def test_header_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "w.safetensors", {"w": entry(0, 8, [2])}, bytes(8))
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    monkeypatch.setattr(ours, "MAX_HEADER_BYTES", length)
    read_safetensors(path)
    monkeypatch.setattr(ours, "MAX_HEADER_BYTES", length - 1)
    with pytest.raises(InputError, match="the header is too long or cut off") as caught:
        read_safetensors(path)
    assert f"{length} of {length - 1} header bytes" in str(caught.value)


def test_another_kind_of_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(InputError, match="this is an HDF5 file, not a safetensors file") as caught:
        read_safetensors(path)
    assert caught.value.hint == "name it .nir (a NIR graph) or .net (lava-dl)"
