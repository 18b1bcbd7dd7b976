"""Good HDF5 files pass the audit unchanged; limits just fit and just fail; messages are located."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from snn_deploy.errors import InputError, OutputError
from snn_deploy.io import hdf5_audit, hdf5_heap
from snn_deploy.io.hdf5 import open_audited, read_array, read_string, read_strings

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "graph.nir"


def read_all(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def visit(name: str, thing: Any) -> None:
        if isinstance(thing, h5py.Dataset):
            text = h5py.check_string_dtype(thing.dtype) is not None
            found[name] = (read_strings if text else read_array)(thing, name)

    with open_audited(path) as file:
        file.visititems(visit)
    return found


def test_values_arrive_unchanged(path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(300, 200)) * (rng.random((300, 200)) < 0.02)
    arrays = {
        "gzip": (weight, {"compression": "gzip"}),
        "all_filters": (
            weight.astype("f4"),
            {"compression": 9, "shuffle": True, "fletcher32": True, "chunks": (100, 100)},
        ),
        "lzf": (weight, {"compression": "lzf", "shuffle": True}),
        "plain": (weight, {}),
        "chunked": (weight, {"chunks": (7, 9)}),
        "large_noisy_chunk": (rng.random(300_000), {"compression": 1, "chunks": (300_000,)}),
        "zeros": (np.zeros((1000, 1000), "f4"), {"compression": "gzip"}),
        "bool": (weight > 0, {}),
        "big_endian": (np.arange(5, dtype=">i4"), {}),
        "half": (np.arange(5, dtype="f2"), {}),
        "scalar": (np.float64(2.5), {}),
        "empty": (np.zeros((0, 3)), {}),
    }
    with h5py.File(path, "w") as file:
        for name, (array, options) in arrays.items():
            file.create_dataset(name, data=array, **options)
        file["text"] = "LIF µ"
        file["fixed"] = np.bytes_(b"Conv2d")
        file.create_dataset("edges", data=[["a", "b"], ["b", "c"]], dtype=h5py.string_dtype())
        file.attrs["version"] = "1.0"
    found = read_all(path)
    for name, (array, _) in arrays.items():
        value = found[name]
        assert value.dtype == np.asarray(array).dtype.newbyteorder("=") and value.dtype.isnative
        assert np.array_equal(value, array) and not value.flags.writeable
    assert found["text"].tolist() == "LIF µ" and found["fixed"].tolist() == "Conv2d"
    assert found["edges"].tolist() == [["a", "b"], ["b", "c"]]
    with open_audited(path) as file:
        assert read_string(file["text"], "text") == "LIF µ"


@pytest.mark.parametrize("name", ["nir/cnn_sinabs.nir", "nir/braille_noDelay_bias_zero.nir"])
def test_third_party_graphs_pass(name: str) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in the shared data folder")
    found = read_all(DATA / name)
    with h5py.File(DATA / name) as file:
        assert found
        for key, value in found.items():
            if value.dtype != object:
                assert np.array_equal(value, file[key][()])


def test_lava_networks_pass() -> None:
    paths = sorted((DATA / "lava").glob("*.net"))
    if not paths:
        pytest.skip("no lava-dl networks in the shared data folder")
    for each in paths:
        assert read_all(each)


def test_what_nir_writes_passes(path: Path) -> None:
    nir = pytest.importorskip("nir")
    graph = nir.NIRGraph.from_list(
        nir.Affine(np.ones((3, 4)), np.zeros(3)), nir.Threshold(np.ones(3))
    )
    nir.write(path, graph)
    assert np.array_equal(read_all(path)["node/nodes/affine/weight"], np.ones((3, 4)))


def failure(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_all(path)
    assert str(caught.value.where).startswith(str(path))
    assert caught.value.hint
    return caught.value


def test_every_refusal_has_the_same_hint_and_names_the_object(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["node/nodes/fc1/weight"] = h5py.SoftLink("/elsewhere")
    error = failure(path)
    assert error.where == f"{path} -> /node/nodes/fc1/weight"
    assert error.hint == (
        "write the file again with nir.write or h5py, and do not trust where it came from"
    )


@pytest.mark.parametrize(
    ("limit", "fits", "says"),
    [
        ("MAX_OBJECTS", 6, "too many objects"),
        ("MAX_DEPTH", 2, "groups nested too deeply"),
        ("MAX_ATTRIBUTES", 3, "too many attributes"),
        ("MAX_ATTRIBUTE_BYTES", 80, "an attribute is too large"),
        ("MAX_CHUNK_BYTES", 800, "a chunk is too large"),
        ("MAX_LZF_CHUNK_BYTES", 400, "a chunk is too large"),
        ("MAX_TEXTS", 4, "too many texts"),
        ("MAX_FIXED_TEXT_BYTES", 7, "a text of fixed length is too long"),
    ],
)
def test_limits(
    path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, fits: int, says: str
) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("a/b")
        group.create_dataset("w", data=np.ones(200), chunks=(100,), compression="gzip")
        group.create_dataset("v", data=np.ones(200), chunks=(50,), compression="lzf")
        group.create_dataset("t", data=["x", "y", "z", "u"], dtype=h5py.string_dtype())
        group.create_dataset("s", data=np.bytes_(b"1234567"))
        group.attrs["a"] = np.ones(10)
        file.attrs["b"] = "x"
        file.attrs["c"] = "y"
    monkeypatch.setattr(hdf5_audit, limit, fits)
    read_all(path)
    monkeypatch.setattr(hdf5_audit, limit, fits - 1)
    assert says in failure(path).message


def test_claimed_bytes_just_fit_and_just_fail(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("w", (1000,), "u1")  # claimed, never stored
    monkeypatch.setattr(hdf5_audit, "MAX_EXPANSION", 0)
    monkeypatch.setattr(hdf5_audit, "FREE_CLAIM_BYTES", 1000)
    read_all(path)
    monkeypatch.setattr(hdf5_audit, "FREE_CLAIM_BYTES", 999)
    error = failure(path)
    assert "far more data claimed than stored" in error.message
    assert error.used == "this dataset: 1,000 bytes claimed, 0 bytes stored"


def test_max_bytes(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["w"] = np.zeros(1000)
    size = path.stat().st_size
    with open_audited(path, max_bytes=size):
        pass
    with pytest.raises(InputError, match="is too large"), open_audited(path, max_bytes=size - 1):
        pass
    with h5py.File(path, "w") as file:
        file.create_dataset("w", data=np.zeros(100_000), compression="gzip")
    with (
        pytest.raises(InputError, match="the datasets claim too much memory"),
        open_audited(path, max_bytes=799_999),
    ):
        pass


def test_text_limit_counts_shared_texts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("t", data=["x" * 10] * 10, dtype=h5py.string_dtype())
    monkeypatch.setattr(hdf5_audit, "MAX_TEXT_BYTES", 100)
    read_all(path)
    monkeypatch.setattr(hdf5_audit, "MAX_TEXT_BYTES", 99)
    assert "its texts claim too much memory" in failure(path).message
    assert failure(path).used == "100 of 99 bytes"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (3,)},
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True, "chunks": (3,)},
        {"shuffle": True, "chunks": (4,)},
    ],
    ids=str,
)
def test_texts_are_measured_through_every_filter(
    path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    texts = ["x" * length for length in (3, 0, 20, 1, 7)]
    with h5py.File(path, "w") as file:
        file.create_dataset("t", data=texts, dtype=h5py.string_dtype(), **options)
        file.create_dataset("never_written", (3,), dtype=h5py.string_dtype())
    monkeypatch.setattr(hdf5_audit, "MAX_TEXT_BYTES", 31)
    assert read_all(path)["t"].tolist() == texts
    assert read_all(path)["never_written"].tolist() == [""] * 3
    monkeypatch.setattr(hdf5_audit, "MAX_TEXT_BYTES", 30)
    assert failure(path).used == "31 of 30 bytes"


def test_heap_objects_just_fit_and_just_fail(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("t", data=["a", "b", "c"], dtype=h5py.string_dtype())
    monkeypatch.setattr(hdf5_heap, "MAX_HEAP_OBJECTS", 4)  # three texts and the free rest
    read_all(path)
    monkeypatch.setattr(hdf5_heap, "MAX_HEAP_OBJECTS", 3)
    error = failure(path)
    assert "a heap of texts or names is malformed" in error.message
    assert error.used == "more than 3 objects"


def test_heaps_are_found_across_blocks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("t", data=["a" * 30_000] * 5, dtype=h5py.string_dtype())
    raw = bytearray(path.read_bytes())
    last = raw.rindex(b"GCOL\1")
    raw[last + 24 : last + 32] = b"\xff" * 8  # the first object's length
    path.write_bytes(raw)
    for block in (10, last + 1, last + 3, last + 5, 2**22):
        monkeypatch.setattr(hdf5_heap, "_BLOCK", block)
        assert failure(path).where == f"{path} -> byte {last + 16:,}"


def test_weights_that_look_like_a_heap_are_no_heap(path: Path) -> None:
    looks = np.frombuffer(b"GCOL\1" + b"\xff" * 27, np.uint8)
    with h5py.File(path, "w") as file:
        file["w"] = looks
    assert np.array_equal(read_all(path)["w"], looks)


def test_compressed_chunk_is_inflated_with_a_limit(path: Path) -> None:
    for extra, passes in ((0, True), (10_000, False)):
        with h5py.File(path, "w") as file:
            data = file.create_dataset("w", (1000,), "u1", chunks=(1000,), compression="gzip")
            data.id.write_direct_chunk((0,), zlib.compress(bytes(1000 + extra)))
        if passes:
            assert not read_all(path)["w"].any()
        else:
            assert "a chunk inflates to more than its values" in failure(path).message


def test_readers_say_what_they_expected(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["text"], file["number"], file["two"] = "abc", 1.0, ["a", "b"]
        file.create_group("group")
        file["latin"] = np.bytes_(b"\xff\xfe")
        file.create_dataset("null", data=h5py.Empty("f4"))
    expected = [
        (read_array, "text", "numbers are expected here, not text", "as an array of numbers"),
        (read_string, "number", "text is expected here, not numbers", "as one string"),
        (read_string, "two", "one text is expected here, not 2", "as one string"),
        (read_string, "latin", "a text is not UTF-8", "the file is damaged"),
        (read_array, "group", "a value is missing here", "write the file again"),
        (read_array, "null", "a value is missing here", "write the file again"),
    ]
    for reader, key, message, hint in expected:
        with pytest.raises(InputError) as caught, open_audited(path) as file:
            reader(file[key], f"node/{key}")
        assert caught.value.message == message and hint in str(caught.value.hint)
        assert caught.value.where == f"{path} -> node/{key}"


def test_only_failures_of_hdf5_become_input_errors(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["w"] = 1.0
    with pytest.raises(InputError, match="doesn't exist") as caught, open_audited(path) as file:
        file["missing"]
    assert "the file is damaged or incomplete" in str(caught.value.hint)
    with pytest.raises(KeyError), open_audited(path):
        {}["a bug of ours"]
    with pytest.raises(OutputError), open_audited(path):
        raise OutputError("disk full", hint="free space")


def test_a_damaged_value_is_an_input_error(path: Path) -> None:
    with h5py.File(path, "w") as file:
        data = file.create_dataset("w", data=np.arange(100.0), chunks=(100,), fletcher32=True)
        offset = data.id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[offset + 5] ^= 1
    path.write_bytes(raw)
    assert "HDF5 cannot read it" in failure(path).message


def test_other_kinds_of_file_are_named(path: Path) -> None:
    path.write_bytes(b"")
    assert failure(path).message == "this is an empty file, not an HDF5 file"
    path.write_bytes(b"<html>")
    error = failure(path)
    assert error.message == "this is a web page, not an HDF5 file"
    assert error.hint == "the download failed: fetch the file again"


def test_filter_plugins_are_switched_off_before_h5py_is_loaded(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["w"] = 1.0
    code = (
        "import sys, os; from snn_deploy.io import hdf5; assert 'h5py' not in sys.modules\n"
        f"with hdf5.open_audited({str(path)!r}): print(os.environ['HDF5_PLUGIN_PRELOAD'])"
    )
    env = {k: v for k, v in os.environ.items() if k != "HDF5_PLUGIN_PRELOAD"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=env
    )
    assert done.stdout.strip() == "::", done.stderr
