"""Makes hostile files for the readers' tests; every maker writes one file and returns its path."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

INPUT, UNSUPPORTED = "InputError", "UnsupportedError"


@dataclass(frozen=True)
class Case:
    """A hostile file: which reader gets it, the error it must give, and how it is made.

    make(folder, canary): canary is a path that the file's payload would create.
    """

    name: str
    reader: str
    error: str
    make: Callable[[Path, Path], Path]


CASES: list[Case] = []


def case(reader: str, error: str = INPUT) -> Callable[[Callable[[Path, Path], Path]], None]:
    """Register a maker as a case for ``reader``."""

    def add(make: Callable[[Path, Path], Path]) -> None:
        CASES.append(Case(f"{reader}-{make.__name__.strip('_')}", reader, error, make))

    return add


def bytes_case(reader: str, error: str, **contents: Callable[[Path], bytes]) -> None:
    """Register cases that are a function from the canary's path to the file's bytes."""
    for name, content in contents.items():

        def make(folder: Path, canary: Path, content: Callable[[Path], bytes] = content) -> Path:
            path = folder / "file.bin"
            path.write_bytes(content(canary))
            return path

        CASES.append(Case(f"{reader}-{name}", reader, error, make))


# torch archives, assembled by hand


def torch_zip(data: bytes, storages: dict[str, bytes] | None = None, **options: object) -> bytes:
    """Return an archive as torch.save lays it out, around the given pickle and storages."""
    buffer = io.BytesIO()
    method = int(str(options.get("method", zipfile.ZIP_STORED)))
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("m/data.pkl", data)
        archive.writestr("m/byteorder", str(options.get("byteorder", "little")))
        for key, raw in (storages or {}).items():
            archive.writestr(f"m/data/{key}", raw)
        archive.writestr("m/version", "3\n")
    return buffer.getvalue()


def name(module: str, attribute: str) -> bytes:
    """Return the opcode that pushes a global."""
    return f"c{module}\n{attribute}\n".encode()


def number(value: int) -> bytes:
    """Return the opcode that pushes an int."""
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def text(value: str) -> bytes:
    """Return the opcode that pushes a string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def group(*parts: bytes) -> bytes:
    """Return the opcodes that push a tuple of the given parts."""
    return b"(" + b"".join(parts) + b"t"


def storage(kind: str = "FloatStorage", key: str = "0", count: int = 4) -> bytes:
    """Return the opcodes that push a storage."""
    what = name("torch", kind)
    return group(text("storage"), what, text(key), text("cpu"), number(count)) + b"Q"


def tensor(
    size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, source: bytes = b""
) -> bytes:
    """Return the opcodes that push a tensor."""
    sizes, strides = group(*map(number, size)), group(*map(number, stride))
    arguments = group(source or storage(), number(offset), sizes, strides, b"\x89", b"N")
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def whole(body: bytes) -> bytes:
    """Return a complete pickle around opcodes."""
    return b"\x80\x02" + body + b"."


TYPED = name("torch._tensor", "_rebuild_from_type_v2")
FOUR = {"0": np.arange(4, dtype="<f4").tobytes()}


class _Call:
    def __init__(self, function: object, *arguments: object) -> None:
        self._reduce = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self._reduce


def _calls(function: object, *arguments: object) -> bytes:
    return pickle.dumps({"weight": _Call(function, *arguments)}, 2)


def _laughs() -> bytes:
    body = b"](]q\x00"  # each list holds the previous one ten times
    for i in range(1, 12):
        body += b"]" + b"q" + bytes([i]) + b"(" + (b"h" + bytes([i - 1])) * 10 + b"e"
    return body + b"e"


def _colliding() -> bytes:
    keys = b"".join(number(k * (2**61 - 1)) + b"N" for k in range(1, 100_000))
    return b"}(" + keys + b"u"


bytes_case(
    "torch",
    INPUT,
    os_system=lambda c: torch_zip(_calls(os.system, f"touch {c}")),
    builtins_eval=lambda c: torch_zip(_calls(eval, f"open({str(c)!r}, 'w')")),
    builtins_getattr=lambda c: torch_zip(_calls(getattr, "x", "upper")),
    stack_global=lambda c: torch_zip(
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + text(f"touch {c}") + b"\x85R."
    ),
    inst_opcode=lambda c: torch_zip(b"(" + text(f"touch {c}") + b"ios\nsystem\n."),
    newobj_opcode=lambda c: torch_zip(whole(name("torch", "Size") + b")\x81")),
    nested_pickle=lambda c: torch_zip(_calls(pickle.loads, _calls(os.system, f"touch {c}"))),
    newline_in_name=lambda c: torch_zip(b"\x80\x04" + text("torch\nos") + text("x") + b"\x93."),
    build_on_function=lambda c: torch_zip(
        whole(name("torch._utils", "_rebuild_tensor_v2") + b"}" + text("rule") + b"Nsb")
    ),
    call_a_storage=lambda c: torch_zip(whole(name("torch", "FloatStorage") + b")R")),
    call_a_string=lambda c: torch_zip(whole(text("os.system") + b")R")),
    function_as_result=lambda c: torch_zip(whole(name("torch._utils", "_rebuild_tensor_v2"))),
    storage_as_result=lambda c: torch_zip(whole(storage()), FOUR),
    type_wraps_type=lambda c: torch_zip(
        whole(TYPED + group(TYPED, name("torch", "Tensor"), group(TYPED), b"N") + b"R")
    ),
    persistent_id_number=lambda c: torch_zip(whole(number(7) + b"Q")),
    persistent_id_path=lambda c: torch_zip(
        whole(tensor((4,), (1,), source=storage(key="../version"))), FOUR
    ),
    memo_bomb=lambda c: torch_zip(whole(b"]r\xff\xff\xff\x7f" + b"h\x00a")),
    self_in_list=lambda c: torch_zip(whole(b"]q\x00h\x00a")),
    billion_laughs=lambda c: torch_zip(whole(_laughs())),
    deep_lists=lambda c: torch_zip(whole(b"]" * 100_000 + b"a" * 99_999)),
    deep_tuples=lambda c: torch_zip(whole(b")" + b"\x85" * 100_000)),
    many_dicts=lambda c: torch_zip(whole(b"(" + b"}" * 7_000_000 + b"t")),
    many_strings=lambda c: torch_zip(whole(b"(" + b"\x8c\x02ab\x94" * 1_500_000 + b"t")),
    colliding_keys=lambda c: torch_zip(whole(_colliding())),
    tensor_as_key=lambda c: torch_zip(whole(b"}" + tensor((4,), (1,)) + b"Ns"), FOUR),
    huge_string=lambda c: torch_zip(b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x."),
    huge_frame=lambda c: torch_zip(b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N."),
    huge_int=lambda c: torch_zip(whole(b"\x8b" + struct.pack("<I", 2**20) + b"\1" * 2**20)),
    long_pickle=lambda c: torch_zip(whole(text("x" * (9 << 20)))),
    no_stop=lambda c: torch_zip(b"\x80\x02}"),
    stack_underflow=lambda c: torch_zip(b"\x80\x02as."),
    negative_size=lambda c: torch_zip(whole(tensor((-4,), (1,))), FOUR),
    negative_stride=lambda c: torch_zip(whole(tensor((4,), (-1,), 3)), FOUR),
    negative_offset=lambda c: torch_zip(whole(tensor((4,), (1,), -1)), FOUR),
    stride_out_of_bounds=lambda c: torch_zip(whole(tensor((2, 2), (3, 1))), FOUR),
    offset_out_of_bounds=lambda c: torch_zip(whole(tensor((1,), (1,), 4)), FOUR),
    stride_overflow=lambda c: torch_zip(whole(tensor((2, 2), (2**62, 2**62))), FOUR),
    shape_and_stride_differ=lambda c: torch_zip(whole(tensor((2, 2), (1,))), FOUR),
    many_dimensions=lambda c: torch_zip(whole(tensor((1,) * 100, (1,) * 100)), FOUR),
    expanded_tensor=lambda c: torch_zip(whole(tensor((2**40,), (0,))), FOUR),
    expanded_empty=lambda c: torch_zip(whole(tensor((2**62, 2**62, 0), (0, 0, 0))), FOUR),
    many_views=lambda c: torch_zip(
        whole(b"](" + b"".join(tensor((100_000,), (0,)) for _ in range(2000)) + b"e"), FOUR
    ),
    storage_too_long=lambda c: torch_zip(
        whole(tensor((4,), (1,), source=storage(count=2**40))), FOUR
    ),
    storage_missing=lambda c: torch_zip(whole(tensor((4,), (1,), source=storage(key="9")))),
    storage_of_two_types=lambda c: torch_zip(
        whole(tensor((4,), (1,)) + tensor((4,), (1,), source=storage("IntStorage")) + b"\x86"),
        FOUR,
    ),
    bool_of_seven=lambda c: torch_zip(
        whole(tensor((4,), (1,), source=storage("BoolStorage"))), {"0": b"\0\1\7\0"}
    ),
    compressed_record=lambda c: torch_zip(
        whole(tensor((4,), (1,))), FOUR, method=zipfile.ZIP_DEFLATED
    ),
    compressed_bomb=lambda c: torch_zip(
        whole(b"N"), {"0": bytes(400 << 20)}, method=zipfile.ZIP_DEFLATED
    ),
)


# zip archives that lie


def _good() -> bytes:
    return torch_zip(whole(tensor((4,), (1,))), FOUR)


def _patched(field: int, value: bytes, *, entry: bytes = b"m/data/0") -> bytes:
    """Return a good archive with a field of one directory entry replaced."""
    data = bytearray(_good())
    at = data.rindex(entry) - 46 + field
    data[at : at + len(value)] = value
    return bytes(data)


def _end(count: int, length: int, start: int) -> bytes:
    return struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, length, start, 0)


def _duplicate() -> bytes:
    data = _good()
    start = data.index(b"PK\1\2")
    entries = data[start : data.index(b"PK\5\6")]
    first = entries[: entries.index(b"PK\1\2", 4)]
    return data[:start] + first + entries + _end(5, len(first + entries), start)


def _overlapping() -> bytes:
    inner = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 4, 4, 1, 0) + b"bDATA"
    outer = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 36, 36, 1, 0) + b"a"
    body = outer + inner
    entries = b""
    for label, size, at in ((b"a", len(inner), 0), (b"b", 4, len(outer))):
        head = (b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, size, size, 1, 0, 0, 0, 0, 0, at)
        entries += struct.pack("<4s6H3L5H2L", *head) + label
    return body + entries + _end(2, len(entries), len(body))


def _zip64(offset: int) -> bytes:
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, offset, 1)
    return b"PK\3\4" + bytes(100) + locator + _end(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)


def _zip64_count(count: int) -> bytes:
    end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, 8, 4)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, 104, 1)
    return b"PK\3\4" + bytes(100) + end + locator + _end(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)


bytes_case(
    "torch",
    INPUT,
    zip_size_lies=lambda c: _patched(20, struct.pack("<2I", 2**30, 2**30)),
    zip_two_sizes=lambda c: _patched(24, struct.pack("<I", 2**30)),
    zip_checksum=lambda c: _patched(16, b"\1\2\3\4"),
    zip_offset_outside=lambda c: _patched(42, struct.pack("<I", 2**31)),
    zip_encrypted=lambda c: _patched(8, b"\1\0"),
    zip_name_not_text=lambda c: _patched(46, b"\xff\xfe"),
    zip_name_differs=lambda c: _patched(46, b"n"),
    zip_duplicate=lambda c: _duplicate(),
    zip_overlapping=lambda c: _overlapping(),
    zip_directory_too_long=lambda c: b"PK\3\4" + bytes(17 << 20) + _end(9, 17 << 20, 4),
    zip_too_many=lambda c: _zip64_count(10**9),
    zip64_outside=lambda c: _zip64(2**60),
    zip64_inside=lambda c: _zip64(4),
    truncated=lambda c: _good()[:-30],
    half=lambda c: _good()[: len(_good()) // 2],
    empty=lambda c: b"",
    garbage=lambda c: bytes(range(256)) * 20,
    zip_garbage=lambda c: b"PK\3\4" + bytes(range(256)) * 20,
    plain_pickle=lambda c: _calls(os.system, f"touch {c}"),
    web_page=lambda c: b"<!DOCTYPE html><html>not found",
    lfs_pointer=lambda c: b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
)


def _torch_saved(value: object, **options: bool) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _module(canary: Path) -> bytes:
    import torch

    return _torch_saved(torch.nn.Linear(3, 2))


def _archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for record in names:
            archive.writestr(record, b"x")
    return buffer.getvalue()


bytes_case(
    "torch",
    UNSUPPORTED,
    whole_module=_module,
    own_class=lambda c: torch_zip(whole(name("__main__", "Net") + b")R")),
    torch_load_trick=lambda c: torch_zip(whole(name("torch.hub", "load") + text("x") + b"\x85R")),
    legacy=lambda c: _torch_saved({"a": 1}, _use_new_zipfile_serialization=False),
    torchscript=lambda c: _archive("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"),
    exported_program=lambda c: _archive("p/archive_format", "p/models/model.json"),
    old_exported_program=lambda c: _archive("serialized_exported_program.json", "version"),
    big_endian=lambda c: torch_zip(whole(b"}"), byteorder="big"),
    complex_tensor=lambda c: torch_zip(
        whole(tensor((1,), (1,), source=storage("ComplexFloatStorage")))
    ),
    numpy_value=lambda c: torch_zip(whole(name("numpy.core.multiarray", "scalar") + b")R")),
)


def _many_seeds(canary: Path) -> bytes:
    """Return a ticket whose one byte stands for half of all masks that a file may describe."""
    import torch

    size = 1 << 22  # bytes of each mask
    entry = {"seed": [0], "shape": [8 * size], "scale": 1.0, "sign": False}
    one = torch.full((1,), 255, dtype=torch.uint8)
    names = [f"fc{i}.weight" for i in range(8)]
    return _torch_saved(
        {
            "format": "snn-deploy/ticket",
            "version": 2,
            "graph": {},
            "state": {},
            "masks": dict.fromkeys(names, one.expand(size)),
            "seeded": dict.fromkeys(names, entry),
        }
    )


bytes_case("ticket", INPUT, many_seeds=_many_seeds)


@case("torch")
def folder(folder: Path, canary: Path) -> Path:
    (folder / "m.pt").mkdir()
    return folder / "m.pt"


@case("torch")
def fifo(folder: Path, canary: Path) -> Path:
    os.mkfifo(folder / "m.pt")
    return folder / "m.pt"


@case("torch")
def device(folder: Path, canary: Path) -> Path:
    (folder / "m.pt").symlink_to("/dev/zero")
    return folder / "m.pt"


@case("torch")
def missing(folder: Path, canary: Path) -> Path:
    return folder / "m.pt"


# safetensors


def safetensors(header: object, data: bytes = bytes(16), length: int | None = None) -> bytes:
    """Return a safetensors file with any header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def _entry(shape: list[object], begin: object, end: object, dtype: str = "F32") -> object:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


_TWICE = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":1}'
bytes_case(
    "safetensors",
    INPUT,
    header_too_long=lambda c: safetensors({}, length=2**62),
    header_bomb=lambda c: safetensors(b"{" + b" " * (5 << 20) + b"}"),
    header_many_lists=lambda c: safetensors(b'{"a":[' + b"[]," * 1_000_000 + b"[]]}"),
    header_deep=lambda c: safetensors(b'{"a":' + b"[" * 1_000_000),
    header_huge_int=lambda c: safetensors(b'{"a":' + b"1" * 1_000_000 + b"}"),
    header_not_json=lambda c: safetensors(b"{]"),
    header_not_text=lambda c: safetensors(b'{"\xff"}'),
    name_twice=lambda c: safetensors(_TWICE),
    no_offsets=lambda c: safetensors({"a": {"dtype": "F32", "shape": [4]}}),
    not_an_entry=lambda c: safetensors({"a": 7}),
    past_the_end=lambda c: safetensors({"a": _entry([2**40], 0, 2**42)}),
    negative_shape=lambda c: safetensors({"a": _entry([-4], 0, 16)}),
    float_offsets=lambda c: safetensors({"a": _entry([4], 0.0, 16.0)}),
    shape_overflow=lambda c: safetensors({"a": _entry([2**62, 2**62, 0], 0, 0)}),
    wrong_size=lambda c: safetensors({"a": _entry([3], 0, 16)}),
    overlap=lambda c: safetensors({"a": _entry([4], 0, 16), "b": _entry([2], 8, 16)}),
    gap=lambda c: safetensors({"a": _entry([2], 8, 16)}),
    trailing=lambda c: safetensors({"a": _entry([2], 0, 8)}),
    bool_of_seven=lambda c: safetensors({"a": _entry([16], 0, 16, "BOOL")}, b"\7" * 16),
    empty=lambda c: b"",
    pickle=lambda c: _calls(os.system, f"touch {c}"),
)
bytes_case(
    "safetensors",
    UNSUPPORTED,
    float8=lambda c: safetensors({"a": _entry([16], 0, 16, "F8_E4M3")}),
)


# npz


def npz(**members: bytes) -> bytes:
    """Return an .npz with raw members, deflated."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, raw in members.items():
            archive.writestr(f"{member}.npy", raw)
    return buffer.getvalue()


def npy(header: str, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a .npy with any header."""
    raw = header.encode()
    size = len(raw) if length is None else length
    return b"\x93NUMPY\2\0" + struct.pack("<I", size) + raw + data


def _header(descr: str = "'<f4'", shape: str = "(2, 4)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


def _object_array(canary: Path) -> bytes:
    buffer = io.BytesIO()
    payload = np.array([_Call(os.system, f"touch {canary}")], dtype=object)
    np.savez(buffer, x=payload)
    return buffer.getvalue()


def _lying_deflate() -> bytes:
    """Return an .npz whose member inflates to more than its directory entry says."""
    raw = npy(_header(), bytes(32))
    packed = zlib.compress(raw + bytes(300 << 20), 9)[2:-4]
    local = struct.pack(
        "<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, zlib.crc32(raw), len(packed), len(raw), 5, 0
    )
    head = (b"PK\1\2", 20, 20, 0, 8, 0, 0, zlib.crc32(raw), len(packed), len(raw), 5)
    entry = struct.pack("<4s6H3L5H2L", *head, 0, 0, 0, 0, 0, 0) + b"x.npy"
    body = local + b"x.npy" + packed
    return body + entry + _end(1, len(entry), len(body))


bytes_case(
    "npz",
    INPUT,
    object_array=_object_array,
    bomb=lambda c: npz(x=npy(_header(shape="(100000000, 4)"), bytes(400 << 20))),
    lying_deflate=lambda c: _lying_deflate(),
    header_length=lambda c: npz(x=npy(_header(), length=2**32 - 1)),
    header_long=lambda c: npz(x=npy(" " * 50_000)),
    header_nested=lambda c: npz(x=npy("(" * 9_000)),
    header_code=lambda c: npz(x=npy(_header(shape="(__import__('os').system('true'),)"))),
    header_digits=lambda c: npz(x=npy(_header(shape=f"({'9' * 9000},)"))),
    shape_lies=lambda c: npz(x=npy(_header(shape="(1000000000, 4)"), bytes(32))),
    shape_negative=lambda c: npz(x=npy(_header(shape="(-2, -4)"), bytes(32))),
    structured=lambda c: npz(x=npy(_header(descr="[('a', '<f4')]"), bytes(128))),
    text_array=lambda c: npz(x=npy(_header(descr="'<U4'"), bytes(128))),
    half_precision_lies=lambda c: npz(x=npy(_header(descr="'<f2'"), bytes(32))),
    no_magic=lambda c: npz(x=b"x" * 100),
    cut_header=lambda c: npz(x=b"\x93NUMPY\1\0"),
    no_x=lambda c: npz(y=npy(_header(), bytes(32))),
    no_members=lambda c: npz(),
    plain_npy=lambda c: npy(_header(), bytes(32)),
    empty=lambda c: b"",
    truncated=lambda c: npz(x=npy(_header(), bytes(32)))[:60],
)
