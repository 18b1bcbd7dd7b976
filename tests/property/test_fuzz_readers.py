"""Damaged files: reading gives a value or a located error of ours, never anything else."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.io.hdf5 import open_audited, read_array, read_strings
from snn_deploy.io.inputs import read_inputs
from snn_deploy.io.safetensors import read_safetensors
from snn_deploy.io.torch_zip import read_torch_zip


def read_hdf5(path: Path) -> object:
    found = []
    with open_audited(path) as file:

        def visit(name: str, thing: Any) -> None:
            if isinstance(thing, h5py.Dataset):
                text = h5py.check_string_dtype(thing.dtype) is not None
                found.append((read_strings if text else read_array)(thing, name))

        file.visititems(visit)
    return found


def good_torch() -> bytes:
    torch = pytest.importorskip("torch")
    buffer = io.BytesIO()
    layer = torch.nn.Linear(5, 3)
    state = {
        "state": layer.state_dict(),
        "meta": {"a": [1, 2.5, None, True]},
        "half": layer.weight.T,
    }
    torch.save({**state, "flags": layer.weight > 0}, buffer)
    return buffer.getvalue()


def good_npz(save: Callable[..., None]) -> bytes:
    buffer = io.BytesIO()
    x = np.random.default_rng(0).random((4, 6, 5)).astype("f4")
    save(buffer, x=x, y=np.arange(4))
    return buffer.getvalue()


def without_checksums(data: bytes) -> bytes:
    """Return a zip archive with checksums 0, which readers take as absent: damage gets further."""
    changed, at = bytearray(data), data.index(b"PK\1\2")
    while at >= 0:
        changed[at + 16 : at + 20] = bytes(4)
        at = data.find(b"PK\1\2", at + 1)
    return bytes(changed)


def good_safetensors() -> bytes:
    save = pytest.importorskip("safetensors.numpy").save
    return bytes(save({"w": np.ones((3, 4), "f4"), "mask": np.ones(5, bool), "n": np.arange(3)}))


def good_hdf5(libver: str = "earliest") -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=libver) as file:
        file["node/type"] = "NIRGraph"
        text = h5py.string_dtype()
        file.create_dataset("node/edges", data=[["a", "b"]] * 3, dtype=text, chunks=(2, 2))
        weight = np.random.default_rng(0).random((30, 20))
        file.create_dataset("node/nodes/fc/weight", data=weight, compression="gzip", shuffle=True)
        file.create_dataset("node/nodes/fc/v", data=np.ones(5, "f4"), fletcher32=True, chunks=(5,))
        file.attrs["version"] = "1.0"
    return buffer.getvalue()


READERS: dict[str, tuple[Callable[[], bytes], Callable[[Path], object]]] = {
    "torch": (lambda: without_checksums(good_torch()), read_torch_zip),
    "npz": (lambda: without_checksums(good_npz(np.savez)), lambda p: read_inputs(p, (5,))),
    "npz_deflated": (lambda: good_npz(np.savez_compressed), lambda p: read_inputs(p, (5,))),
    "safetensors": (good_safetensors, read_safetensors),
    "hdf5": (good_hdf5, read_hdf5),
    "hdf5_latest": (lambda: good_hdf5("latest"), read_hdf5),
}


@pytest.mark.parametrize("kind", READERS)
def test_damaged_file(kind: str) -> None:
    make, read = READERS[kind]
    good = make()
    outcomes = set()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(good)
        read(path)  # or the property would hold for the wrong reason

        change = st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255))

        @settings(
            max_examples=300,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(change, max_size=6), st.integers(0, 4 * len(good)))
        def damaged(changes: list[tuple[int, int]], cut: int) -> None:
            data = bytearray(good)
            for place, value in changes:
                data[place] = value
            path.write_bytes(data[:cut] if cut < len(data) else data)
            try:
                read(path)
                outcomes.add("value")
            except (InputError, UnsupportedError) as error:
                assert error.hint and str(error.where).startswith(str(path))
                outcomes.add("error")

        damaged()
    assert outcomes == {"value", "error"}
