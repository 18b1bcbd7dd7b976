"""Input files and codings: what is accepted, what is said otherwise, which spikes are drawn."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snn_deploy.errors import InputError, OutputError, UsageError
from snn_deploy.io.files import sha256_file
from snn_deploy.io.inputs import encode, read_inputs, save_npz
from snn_deploy.ir.network import Coding

SHAPE = (2, 3, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.npz"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", ">f4", "u1", "i8", "?"])
@pytest.mark.parametrize("lead", [(5,), (5, 6)])
def test_good_files(path: Path, save: Any, dtype: str, lead: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 2, (*lead, *SHAPE)).astype(dtype)
    save(path, x=x, y=np.arange(5, dtype="u1"), other=np.zeros(3))
    data = read_inputs(path, SHAPE)
    assert data.kind == ("static" if len(lead) == 1 else "steps")
    assert np.array_equal(data.x, x) and data.x.dtype == x.dtype.newbyteorder("=")
    assert data.y is not None and data.y.dtype == np.int64 and data.y.tolist() == [0, 1, 2, 3, 4]
    assert not data.x.flags.writeable and not data.y.flags.writeable
    assert data.source == str(path) and data.sha256 == sha256_file(path) and data.samples == 5


def test_fortran_order_and_missing_labels(path: Path) -> None:
    x = np.asfortranarray(np.arange(24.0).reshape(6, 4))
    np.savez(path, x=x)
    data = read_inputs(path, (4,))
    assert np.array_equal(data.x, x) and data.x.flags.c_contiguous and data.y is None


def test_zeros_compress_well_and_are_read(path: Path) -> None:
    x = np.zeros((100, 20, 784), np.uint8)
    np.savez_compressed(path, x=x)
    assert path.stat().st_size < x.nbytes / 500
    assert np.array_equal(read_inputs(path, (784,)).x, x)


def test_first_samples(path: Path) -> None:
    np.savez(path, x=np.arange(8.0).reshape(4, 2), y=np.arange(4))
    data = read_inputs(path, (2,))
    part = data.first(2)
    assert part.samples == 2 and part.y is not None and part.y.tolist() == [0, 1]
    assert data.first(None).samples == data.first(9).samples == 4
    with pytest.raises(UsageError, match="--samples 0 leaves no samples") as caught:
        data.first(0)
    assert caught.value.hint == "use 1 or more"


def ones(*shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, np.float32)


def with_nan() -> np.ndarray[Any, Any]:
    x = ones(3, 2, 3, 4)
    x[1, 0, 2, 3] = np.nan
    return x


@pytest.mark.parametrize(
    ("arrays", "message", "hint"),
    [
        (
            {"x": ones(5, 7)},
            "x has shape (5, 7), but the model's input is (2, 3, 4)",
            "give the data that the model was trained on",
        ),
        ({"x": ones(5, 24)}, "x has shape (5, 24)", "save x.reshape(len(x), 2, 3, 4)"),
        (
            {"x": ones(5, 6, 24)},
            "x has shape (5, 6, 24)",
            "save x.reshape(len(x), x.shape[1], 2, 3, 4)",
        ),
        ({"x": ones(5, 3, 4, 2)}, "x has shape", "channels come first: save np.moveaxis(x, -1, 1)"),
        ({"x": ones(5, 6, 3, 4, 2)}, "x has shape", "save np.moveaxis(x, -1, 2)"),
        ({"x": ones(2, 3, 4)}, "x has shape", "the samples axis is missing: save x[None]"),
        ({"x": ones(0, 2, 3, 4)}, "x holds no samples", "save at least one sample"),
        ({"x": ones(3, 0, 2, 3, 4)}, "x has 0 steps", "save at least one step per sample"),
        ({"x": ones(3, 9, 2, 3, 4)}, "x has 9 steps, but the model runs 6", "save x[:, :6]"),
        (
            {"x": ones(3, 4, 2, 3, 4)},
            "x has 4 steps, but the model runs 6",
            "record more steps, or run the model with --steps 4",
        ),
        ({"x": with_nan()}, "x[1, 0, 2, 3] is nan", "np.nan_to_num(x)"),
        ({"x": ones(3, *SHAPE) * np.inf}, "x[0, 0, 0, 0] is inf", "np.nan_to_num(x)"),
        ({"x": ones(3, *SHAPE).astype("c8")}, "neither numbers nor booleans", "float32, uint8"),
        ({"x": np.full((3, *SHAPE), "a")}, "neither numbers nor booleans", "float32, uint8"),
        (
            {"x": ones(3, *SHAPE), "y": np.arange(2)},
            "y has shape (2,), but x has 3 samples",
            "one label per sample, in the same order",
        ),
        ({"x": ones(3, *SHAPE), "y": np.eye(3, dtype=int)}, "y has shape (3, 3)", "y.argmax(1)"),
        ({"x": ones(3, *SHAPE), "y": ones(3)}, "integers, not float32", "y.astype(np.int64)"),
        ({"x": ones(3, *SHAPE), "y": ones(3) > 0}, "integers, not bool", "y.astype(np.int64)"),
        ({"x": ones(3, *SHAPE), "y": np.array([0, -1, 2])}, "label y[1] is -1", "from 0"),
        (
            {"x": ones(3, *SHAPE), "y": np.array([0, 1, 2**63], "u8")},
            "label y[2] is 9223372036854775808",
            "from 0",
        ),
        ({"data": ones(3, *SHAPE)}, "the archive has no array named x", "np.savez(path, x=...)"),
    ],
)
def test_bad_input(path: Path, arrays: Any, message: str, hint: str) -> None:
    np.savez(path, **arrays)
    with pytest.raises(InputError) as caught:
        read_inputs(path, SHAPE, steps=6)
    assert message in caught.value.message and hint in str(caught.value.hint)
    assert str(caught.value.where).startswith(str(path))


def test_shape_error_shows_both_forms(path: Path) -> None:
    np.savez(path, x=ones(5, 3))
    with pytest.raises(InputError) as caught:
        read_inputs(path, (4,))
    assert caught.value.used == "x must be (samples, 4) or (samples, steps, 4)"


def test_size_limit_and_bomb(path: Path) -> None:
    np.savez_compressed(path, x=np.zeros((10, 80), np.uint8))
    size = 10 * 80 + 128
    read_inputs(path, (80,), max_bytes=size)
    with pytest.raises(InputError, match="expands to more than is allowed") as caught:
        read_inputs(path, (80,), max_bytes=size - 1)
    assert caught.value.used == f"{size:,} of {size - 1:,} bytes"
    assert caught.value.hint == "split the file"
    np.savez_compressed(path, x=np.zeros((100, 2**20), np.uint8))
    with pytest.raises(InputError, match="zip bomb") as caught:
        read_inputs(path, (2**20,))
    assert "np.savez, not savez_compressed" in str(caught.value.hint)


# Coding


def rate(steps: int | None = 6, seed: int = 3, gain: float = 1.0) -> Coding:
    return Coding(kind="rate", steps=steps, seed=seed, gain=gain)


def test_rate_spikes_are_the_documented_draws() -> None:
    x = np.random.default_rng(1).random((4, 5)).astype(np.float32)
    spikes = encode(x, rate(gain=0.5), first_index=10)
    assert spikes.dtype == np.uint8 and spikes.shape == (4, 6, 5)
    for i in range(4):
        stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 10 + i])))
        for t in range(6):
            for n in range(5):
                assert spikes[i, t, n] == (stream.random() < 0.5 * float(x[i, n]))


def test_rate_spikes_are_pinned() -> None:
    """These bits must never change: saved results depend on them."""
    spikes = encode(np.full((2, 8), 0.5), rate(steps=2, seed=7))
    assert np.packbits(spikes).tolist() == [26, 124, 121, 177]


def test_any_subset_sees_the_same_spikes() -> None:
    x = np.random.default_rng(1).random((6, 3))
    whole = encode(x, rate())
    assert np.array_equal(encode(x[2:4], rate(), first_index=2), whole[2:4])
    assert not np.array_equal(encode(x, rate(seed=4)), whole)


def test_rate_follows_probability() -> None:
    x = np.array([[0.0, 0.25, 1.0]])
    mean = encode(x, rate(steps=4000))[0].mean(0)
    assert mean[0] == 0 and mean[2] == 1 and abs(mean[1] - 0.25) < 0.03


def test_rate_of_steps() -> None:
    rng = np.random.default_rng(2)
    binary = rng.integers(0, 2, (3, 6, 4)).astype(np.float32)
    assert np.array_equal(encode(binary, rate(gain=0.5), kind="steps"), binary)
    graded = rng.random((3, 6, 4))
    graded[:, :, 0], graded[:, :, 1] = 0, 1
    spikes = encode(graded, rate(), kind="steps")
    assert not spikes[:, :, 0].any() and spikes[:, :, 1].all()
    stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 1])))
    assert np.array_equal(spikes[1], stream.random((6, 4)) < graded[1])


def test_rate_range_just_fits_and_just_fails() -> None:
    encode(np.array([[-1e-6, 1 + 1e-6]]), rate())
    for value in (-2e-6, 1 + 2e-6, np.nan):
        with pytest.raises(InputError, match=r"rate coding needs values in 0\.\.1"):
            encode(np.array([[0.5, value]]), rate())
    with pytest.raises(InputError) as caught:
        encode(np.array([[0.5, 1], [0, 255]]), rate(gain=0.5), first_index=4)
    assert caught.value.message == (
        "rate coding needs values in 0..1 after gain 0.5, but sample 5 spans 0..127.5"
    )
    assert caught.value.hint == "scale x to 0..1, e.g. x / x.max(), or choose a smaller gain"


@pytest.mark.parametrize("dtype", ["?", "u1", "f4"])
def test_events(dtype: str) -> None:
    x = np.random.default_rng(0).integers(0, 2, (2, 5, 3)).astype(dtype)
    for steps in (None, 5):
        spikes = encode(x, Coding(kind="events", steps=steps))
        assert spikes.dtype == np.uint8 and np.array_equal(spikes, x)


def test_events_that_are_no_events() -> None:
    x = np.zeros((2, 5, 3))
    x[1, 2, 0] = 3
    with pytest.raises(InputError, match=r"must be 0 or 1, but sample 1 holds 3\.0") as caught:
        encode(x, Coding(kind="events"))
    assert "save (x > 0)" in str(caught.value.hint)
    with pytest.raises(InputError, match="but x has no steps") as caught:
        encode(np.zeros((2, 3)), Coding(kind="events"), kind="static")
    assert "(samples, steps, ...)" in str(caught.value.hint)


def test_direct() -> None:
    x = np.array([[1, 2], [3, 4]], np.uint8)
    values = encode(x, Coding(kind="direct", steps=3, gain=0.5))
    assert values.dtype == np.float32 and values.shape == (2, 3, 2)
    assert np.array_equal(values, np.repeat(x[:, None] * 0.5, 3, axis=1))
    assert values.strides[1] == 0, "a repeated sample takes no memory"
    steps = np.random.default_rng(0).normal(size=(2, 3, 4))
    out = encode(steps, Coding(kind="direct", steps=3), kind="steps")
    assert out.dtype == np.float64 and np.array_equal(out, steps)


def test_input_data_brings_its_kind_and_name(path: Path) -> None:
    np.savez(path, x=np.full((2, 6, 3), 0.5))
    data = read_inputs(path, (3,))
    assert encode(data, rate()).shape == (2, 6, 3)
    with pytest.raises(InputError, match="x has 6 steps, but the coding asks for 5") as caught:
        encode(data, rate(steps=5))
    assert caught.value.where == str(path)
    assert caught.value.hint == "give x with 5 steps, or run with --steps 6"


def test_coding_that_says_too_little() -> None:
    for steps in (None, 0):
        with pytest.raises(UsageError, match="how many steps") as caught:
            encode(np.zeros((1, 2)), rate(steps=steps))
        assert caught.value.hint == "say it with --steps N, 1 or more"
    with pytest.raises(UsageError, match="seed -1 is negative") as caught:
        encode(np.zeros((1, 2)), rate(seed=-1))
    assert caught.value.hint == "use a seed of 0 or more"


# Writing


def test_save_npz_gives_the_same_bytes_and_is_read_by_numpy(tmp_path: Path) -> None:
    arrays = {"b/weird name": np.arange(6).reshape(2, 3), "a": np.float32(1.5), "t": ["x", "yz"]}
    save_npz(tmp_path / "1.npz", arrays)
    save_npz(tmp_path / "2.npz", dict(reversed(arrays.items())))
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()
    with np.load(tmp_path / "1.npz", allow_pickle=False) as found:
        assert sorted(found) == sorted(arrays)
        for name, array in arrays.items():
            assert np.array_equal(found[name], array)
    with zipfile.ZipFile(tmp_path / "1.npz") as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {1980}
    with pytest.raises(OutputError, match="exists already"):
        save_npz(tmp_path / "1.npz", arrays)
    save_npz(tmp_path / "1.npz", {"x": np.ones((3, 2)), "y": np.arange(3)}, force=True)
    assert read_inputs(tmp_path / "1.npz", (2,)).samples == 3


def test_save_npz_refuses_names_and_leaves_nothing(tmp_path: Path) -> None:
    for name in ("", "a\0b", "x" * 70_000):
        with pytest.raises(OutputError, match="an array's name is empty, too long") as caught:
            save_npz(tmp_path / "x.npz", {name: np.ones(2)})
        assert caught.value.hint == "rename the population"
    with pytest.raises(ValueError, match="Object arrays"):
        save_npz(tmp_path / "x.npz", {"x": np.array([{}])})
    assert list(tmp_path.iterdir()) == []
