"""read_torch_zip against torch.load(weights_only=True), and its messages."""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snn_deploy.errors import InputError, SnnDeployError, UnsupportedError
from snn_deploy.io import pickle_data, torch_zip
from snn_deploy.io.torch_zip import read_torch_zip

torch = pytest.importorskip("torch", reason="the oracle of these tests")


def saved(tmp_path: Path, value: object, **options: Any) -> Path:
    path = tmp_path / "weights.pt"
    torch.save(value, path, **options)
    return path


def assert_same(ours: object, theirs: object) -> None:
    """Compare with torch's own result, bit by bit."""
    if isinstance(theirs, torch.Tensor):
        theirs = theirs.detach()
        expected = (theirs.float() if theirs.dtype == torch.bfloat16 else theirs).numpy()
        assert isinstance(ours, np.ndarray)
        assert ours.dtype == expected.dtype and ours.shape == expected.shape
        assert ours.tobytes() == expected.tobytes()
        assert not ours.flags.writeable and ours.flags.c_contiguous
    elif isinstance(theirs, dict):
        assert type(ours) is dict
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, list | tuple):
        assert type(ours) is (list if isinstance(theirs, list) else tuple)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    else:
        assert type(ours) is type(theirs) and ours == theirs


def tensors() -> dict[str, Any]:
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    few = torch.arange(6)
    sizes = "float16 float32 float64 bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64"
    return {
        **{name: few.to(getattr(torch, name)) for name in sizes.split()},
        "bool": few > 2,
        "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
        "transposed": base.permute(2, 0, 1),
        "sliced": base[1, :, 1::2],
        "bfloat16_transposed": base[0].bfloat16().T,
        "bfloat16_scalar": torch.tensor(1.5, dtype=torch.bfloat16),
        "shared": base,
        "expanded": torch.ones(1).expand(5, 7),
        "scalar": torch.tensor(3.25),
        "empty": torch.empty(0, 3),
        "empty_of_empty": base[:0, 2:],
        "offset_only": base[1, 2, 3],
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "buffer": torch.nn.Buffer(torch.ones(2)),
    }


@pytest.mark.parametrize("name", tensors())
def test_tensor_equals_torch(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, tensors()[name])
    assert_same(read_torch_zip(path), torch.load(path, weights_only=True))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_structures_equal_torch(tmp_path: Path, protocol: int) -> None:
    value = {
        "all": tensors(),
        "nested": [1, (2, 3.5, (None, True, False)), {"a": {"b": []}}, (), [()], "ünï\n"],
        7: "number key",
        -1.5: "float key",
        None: 0,
        "ints": [0, 255, 256, 65_535, 65_536, -1, 2**31, -(2**31), 2**40, -(2**100)],
        "floats": [0.1, float("inf"), 1e-300],
        "size": torch.Size([2, 3]),
        "ordered": OrderedDict(b=1, a=2),
        "long text": "x" * 1000,
    }
    path = saved(tmp_path, value, pickle_protocol=protocol)
    # torch's own restricted reader knows protocols 2 and 3 only.
    expected = torch.load(path, weights_only=True) if protocol < 4 else value
    assert_same(read_torch_zip(path), expected)


def test_state_dicts_of_modules_equal_torch(tmp_path: Path) -> None:
    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2),
        nn.BatchNorm2d(4),
        nn.Linear(4, 3, bias=False),
        nn.LSTM(3, 2),
        nn.MultiheadAttention(4, 2),
        nn.Embedding(5, 2),
    )
    nn.utils.parametrizations.weight_norm(net[2])
    net.double()
    optimizer = torch.optim.Adam(net.parameters())
    sum(p.sum() for p in net.parameters()).backward()
    optimizer.step()
    path = saved(tmp_path, {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "n": 3})
    assert_same(read_torch_zip(path), torch.load(path, weights_only=True))


def test_a_tensor_with_attributes_is_its_values(tmp_path: Path) -> None:
    marked, parameter = torch.ones(3), torch.nn.Parameter(torch.zeros(2))
    marked.note, parameter.note = "x", "y"
    content = read_torch_zip(saved(tmp_path, {"a": marked, "b": parameter}))
    assert_same(content, {"a": torch.ones(3), "b": torch.zeros(2)})


def test_files_without_checksums_are_read(tmp_path: Path) -> None:
    try:
        torch.serialization.set_crc32_options(False)
        path = saved(tmp_path, {"a": torch.arange(5)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(read_torch_zip(path), {"a": torch.arange(5)})


def test_shared_storage_is_read_once(tmp_path: Path) -> None:
    weight = torch.arange(1000.0)
    content: Any = read_torch_zip(saved(tmp_path, {"a": weight, "b": weight[10:20]}))
    assert np.shares_memory(content["a"], content["b"])


def test_expansion_just_fits_and_just_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, torch.zeros(1).expand(1000))
    monkeypatch.setattr(torch_zip, "MAX_SHARING", 0)
    monkeypatch.setattr(torch_zip, "FREE_SHARING_BYTES", 4000)
    assert np.shape(read_torch_zip(path)) == (1000,)
    monkeypatch.setattr(torch_zip, "FREE_SHARING_BYTES", 3999)
    with pytest.raises(InputError, match="far more tensor data than it holds") as caught:
        read_torch_zip(path)
    assert "4,000 bytes described, 3,999 allowed" in str(caught.value)
    assert caught.value.hint == "save expanded tensors once, or each as t.contiguous().clone()"


@pytest.mark.parametrize(("limit", "fits"), [("MAX_NODES", 11), ("MAX_DEPTH", 2)])
def test_structure_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, fits: int
) -> None:
    path = saved(tmp_path, {"a": {"b": [1, 2, 3], "c": [1, 2, 3]}, "d": 0})
    monkeypatch.setattr(pickle_data, limit, fits)
    read_torch_zip(path)
    monkeypatch.setattr(pickle_data, limit, fits - 1)
    with pytest.raises(
        InputError, match=r"the structure is (too large|nested too deeply)"
    ) as error:
        read_torch_zip(path)
    assert error.value.hint == "save a flat dictionary of tensors"
    assert f"{path} -> a." in str(error.value.where)


@pytest.mark.parametrize("limit", ["MAX_OPCODES", "MAX_OBJECTS"])
def test_pickle_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    path = saved(tmp_path, [[1], [2], [3]])
    monkeypatch.setattr(pickle_data, limit, 3)
    with pytest.raises(InputError, match="the pickle holds too many") as caught:
        read_torch_zip(path)
    assert "long Python lists" in str(caught.value.hint)


def test_file_size_limit(tmp_path: Path) -> None:
    path = saved(tmp_path, torch.zeros(4))
    size = path.stat().st_size
    read_torch_zip(path, max_bytes=size)
    with pytest.raises(InputError, match="is too large") as caught:
        read_torch_zip(path, max_bytes=size - 1)
    assert f"{size:,} of {size - 1:,} bytes" in str(caught.value)
    assert caught.value.hint == "check that this is the right file"


class Net(torch.nn.Linear):
    """A user's module."""


def refused(path: Path) -> SnnDeployError:
    with pytest.raises(SnnDeployError) as caught:
        read_torch_zip(path)
    assert str(path) in str(caught.value.where)
    return caught.value


@pytest.mark.parametrize("module", [torch.nn.Linear(2, 2), Net(2, 2)])
def test_whole_module_hint_is_a_program_that_saves_it(tmp_path: Path, module: Any) -> None:
    path = saved(tmp_path, module)
    error = refused(path)
    assert type(error) is UnsupportedError and error.exit_code == 4
    assert "a pickled module or object" in error.message and "is code, not data" in error.message
    warning, _, program = str(error.hint).partition(": ")
    assert warning == "only if you trust it, save its weights alone"
    assert program == (
        f"import torch; m = torch.load('{path}', weights_only=False); "
        "torch.save(m.state_dict(), 'weights.pt')"
    )
    target = tmp_path / "saved.pt"
    exec(program.replace("'weights.pt'", repr(str(target))))  # the hint must work as it stands
    assert_same(read_torch_zip(target), dict(module.state_dict()))


def test_legacy_hint_is_a_program_that_saves_it(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.ones(2)}, _use_new_zipfile_serialization=False)
    error = refused(path)
    assert type(error) is UnsupportedError and "torch's old file format" in error.message
    target = tmp_path / "saved.pt"
    program = str(error.hint).partition(": ")[2].replace("'weights.pt'", repr(str(target)))
    exec(program)
    assert_same(read_torch_zip(target), {"a": torch.ones(2)})


@pytest.mark.filterwarnings("ignore")
def test_torchscript_and_exported_programs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(2)), str(path))
    error = refused(path)
    assert "TorchScript" in error.message and "torch.jit.load" in str(error.hint)
    path = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(2),)), path)
    error = refused(path)
    assert type(error) is UnsupportedError and "exported program (.pt2)" in error.message
    assert str(error.hint).endswith("torch.save(module.state_dict(), 'weights.pt')")


def _quantized() -> Any:
    return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (torch.ones(2, dtype=torch.complex64), "t.real"),
        (torch.ones(2).to(torch.float8_e4m3fn), "t.float()"),
        (torch.eye(2).to_sparse(), "t.to_dense()"),
        (_quantized, "t.dequantize()"),
        (torch.empty(2, device="meta"), "give the module real weights"),
        (torch.float32, "save its name as text"),
        (torch.device("cpu"), "save the device's name as text"),
        (np.ones(2), "torch.from_numpy(a)"),
        (np.float64(1), "value.item()"),
        ({1, 2}, "save a list instead of a set"),
        (b"bytes", "instead of bytes"),
        (1j, "the real and imaginary parts"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_plain_state_gets_its_own_hint(tmp_path: Path, value: Any, hint: str) -> None:
    error = refused(saved(tmp_path, {"value": value() if callable(value) else value}))
    assert type(error) is UnsupportedError
    assert hint in str(error.hint), error


def test_a_damaged_weight_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.full((100,), 1.5)})
    data = bytearray(path.read_bytes())
    at = data.index(np.full(100, 1.5, np.float32).tobytes())
    data[at + 50] ^= 1
    path.write_bytes(data)
    error = refused(path)
    assert "does not match its checksum" in error.message
    assert "write or download the file again" in str(error.hint)


def test_torch_is_not_imported(tmp_path: Path) -> None:
    import subprocess

    path = saved(tmp_path, {"a": torch.ones(2)})
    code = (
        "import sys; from snn_deploy.io.torch_zip import read_torch_zip; "
        f"print(read_torch_zip({str(path)!r})['a'], 'torch' in sys.modules, 'h5py' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.split() == ["[1.", "1.]", "False", "False"], done.stderr
