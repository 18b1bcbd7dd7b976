"""Pickled dicts of arrays, as Python 2 and 3 write them; what is none of these is refused."""

from __future__ import annotations

import pickle
import struct

import numpy as np
import pytest

from snn_deploy.errors import InputError, SnnDeployError
from snn_deploy.io.pickle_arrays import read_array_dict
from tests.pickles import python2_array, python2_dict, python2_list, python2_text


def read(tmp_path, content: bytes):
    (tmp_path / "a.pkl").write_bytes(content)
    return read_array_dict(tmp_path / "a.pkl")


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_of_python_3(tmp_path, protocol):
    value = {
        "x": np.arange(6, dtype=">i4").reshape(2, 3),
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "n": [1, 2, None],
        "raw": b"\xff",
    }
    found = read(tmp_path, pickle.dumps(value, protocol))
    assert found.keys() == value.keys()
    assert (found["n"], found["raw"]) == (value["n"], value["raw"])
    for name in ("x", "f"):
        assert np.array_equal(found[name], value[name])
        assert found[name].dtype == value[name].dtype.newbyteorder("=")


def test_what_python_2_wrote_is_what_pythons_own_reader_finds(tmp_path):
    pixels = np.arange(512, dtype=np.uint16).astype(np.uint8).reshape(2, 256)
    content = python2_dict(
        labels=python2_list(7, 300), name=python2_text("a\xe9"), data=python2_array(pixels)
    )
    found = read(tmp_path, content)
    expected = pickle.loads(content, encoding="latin1")
    assert found.keys() == expected.keys()
    assert found["labels"] == expected["labels"] == [7, 300]
    assert found["name"] == expected["name"] == "a\xe9"
    assert np.array_equal(found["data"], expected["data"])
    assert np.array_equal(found["data"], pixels)


class Evil:
    def __reduce__(self):
        return (print, ("ran",))


def changed(old: bytes, new: bytes) -> bytes:
    content = python2_dict(data=python2_array(np.zeros((2, 3), np.uint8)))
    assert content.count(old) == 1
    return content.replace(old, new)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (pickle.dumps({"a": Evil()}, 2), "asks to run __builtin__.print"),
        (pickle.dumps({"a": np.array([None, 1])}, 3), "an array of type 'O8'"),
        (pickle.dumps([np.zeros(2)]), "no dict whose keys are text"),
        (pickle.dumps({1: np.zeros(2)}), "no dict whose keys are text"),
        (pickle.dumps({"a": [np.zeros(2)]}), "not data"),
        (b"", "this is an empty file, not a pickled dict"),
        (b"\x1f\x8bzip", "this is a gzip file, not a pickled dict"),
        (changed(b"K\x02K\x03", b"K\x02K\x04"), "does not fit its bytes"),
        (changed(b"U\x01|", b"U\x01?"), "opcodes do not fit together"),
        (python2_dict()[:-1] + b"U\x01aT" + struct.pack("<I", 2**31) + b"a.", "cut off"),
    ],
    ids=[
        "calls", "objects", "list", "numbers", "nested", "empty", "packed", "shape", "order",
        "long text",
    ],
)  # fmt: skip
def test_hostile_and_broken_pickles(tmp_path, capsys, content, what):
    with pytest.raises(SnnDeployError, match=what) as caught:
        read(tmp_path, content)
    assert caught.value.where.startswith(str(tmp_path / "a.pkl"))
    assert caught.value.hint
    assert capsys.readouterr().out == ""


def test_a_file_that_is_too_large(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"x": np.zeros(100)}))
    with pytest.raises(InputError, match="large") as caught:
        read_array_dict(tmp_path / "a.pkl", max_bytes=100)
    assert caught.value.hint
