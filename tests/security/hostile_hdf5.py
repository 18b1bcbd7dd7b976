"""Makes hostile HDF5 files: links, storage and sizes that a model file has no business with."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from hostile import CASES, INPUT, Case, bytes_case

SECRET = b"secret bytes of another file, not a weight array"


def hdf5_case(fill: Callable[[h5py.File, Path], None], **options: object) -> None:
    """Register a case that fills an open HDF5 file; ``folder`` is where it may put others."""

    def make(folder: Path, canary: Path) -> Path:
        path = folder / "file.nir"
        with h5py.File(path, "w", **options) as file:
            fill(file, folder)
        return path

    CASES.append(Case(f"hdf5-{fill.__name__.strip('_')}", "hdf5", INPUT, make))


@hdf5_case
def external_link(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = np.frombuffer(SECRET, np.uint8)
    file["weight"] = h5py.ExternalLink("other.h5", "/secret")


@hdf5_case
def soft_link(file: h5py.File, folder: Path) -> None:
    file["a"] = np.ones(3)
    file["b"] = h5py.SoftLink("/a")


@hdf5_case
def soft_link_cycle(file: h5py.File, folder: Path) -> None:
    file.create_group("a")["up"] = h5py.SoftLink("/a")


@hdf5_case
def hard_link_cycle(file: h5py.File, folder: Path) -> None:
    inner = file.create_group("a/b")
    inner["up"] = file["a"]


@hdf5_case
def hard_link_to_root(file: h5py.File, folder: Path) -> None:
    file.create_group("a")["root"] = file["/"]


@hdf5_case
def external_storage(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(SECRET)
    name = str(folder / "secret")
    file.create_dataset("weight", (len(SECRET),), "u1", external=[(name, 0, len(SECRET))])


@hdf5_case
def virtual_dataset(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = np.frombuffer(SECRET, np.uint8)
    layout = h5py.VirtualLayout((len(SECRET),), "u1")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", (len(SECRET),))
    file.create_virtual_dataset("weight", layout)


@hdf5_case
def lazily_filled(file: h5py.File, folder: Path) -> None:
    file.create_dataset("weight", (10**6, 10**6), "f4", chunks=(1000, 1000))


@hdf5_case
def lazily_filled_contiguous(file: h5py.File, folder: Path) -> None:
    file.create_dataset("weight", (20_000, 20_000), "f4")


@hdf5_case
def many_lazily_filled(file: h5py.File, folder: Path) -> None:
    for i in range(20):
        file.create_dataset(f"weight{i}", (3000, 1000), "f4")


@hdf5_case
def compressed_zeros(file: h5py.File, folder: Path) -> None:
    weight = file.create_dataset(
        "weight", (200, 2**20), "u1", chunks=(1, 2**20), compression="gzip", compression_opts=9
    )
    weight[0] = 0
    chunk = zlib.compress(bytes(2**20), 9)
    for row in range(200):
        weight.id.write_direct_chunk((row, 0), chunk)


@hdf5_case
def chunk_bomb(file: h5py.File, folder: Path) -> None:
    weight = file.create_dataset("weight", (2**20,), "u1", chunks=(2**20,), compression="gzip")
    weight.id.write_direct_chunk((0,), zlib.compress(bytes(500 << 20), 9))


@hdf5_case
def chunk_stored_too_large(file: h5py.File, folder: Path) -> None:
    weight = file.create_dataset("weight", (100,), "u1", chunks=(100,), compression="gzip")
    weight.id.write_direct_chunk((0,), zlib.compress(bytes(100)) + bytes(100_000))


@hdf5_case
def chunk_not_deflated(file: h5py.File, folder: Path) -> None:
    weight = file.create_dataset("weight", (2**20,), "u1", chunks=(2**20,), compression="gzip")
    weight.id.write_direct_chunk((0,), b"\xff" * 100_000)


@hdf5_case
def chunk_too_short(file: h5py.File, folder: Path) -> None:
    weight = file.create_dataset("weight", (1000,), "u1", chunks=(1000,), compression="gzip")
    weight.id.write_direct_chunk((0,), zlib.compress(bytes(10)))


@hdf5_case
def chunk_shorter_than_checksum(file: h5py.File, folder: Path) -> None:
    weight = file.create_dataset("weight", (1000,), "u1", chunks=(1000,), fletcher32=True)
    weight.id.write_direct_chunk((0,), b"\1\2")


@hdf5_case
def chunk_checksum_inside(file: h5py.File, folder: Path) -> None:
    weight = file.create_dataset(
        "weight", (1000,), "u1", chunks=(1000,), fletcher32=True, compression="gzip"
    )
    weight.id.write_direct_chunk((0,), b"\1")


@hdf5_case
def lzf_bomb(file: h5py.File, folder: Path) -> None:
    weight = file.create_dataset("weight", (10_000,), "u1", chunks=(10_000,), compression="lzf")
    weight.id.write_direct_chunk((0,), b"\0a" + b"\xe0\xff\0" * 3000)


@hdf5_case
def lzf_before_the_start(file: h5py.File, folder: Path) -> None:
    weight = file.create_dataset("weight", (10_000,), "u1", chunks=(10_000,), compression="lzf")
    weight.id.write_direct_chunk((0,), b"\0a" + b"\xff\xff\xff" * 37)


@hdf5_case
def chunks_that_stand_out(file: h5py.File, folder: Path) -> None:
    for i in range(10):
        file.create_dataset(
            f"w{i}", data=[1], dtype="u1", chunks=(2**24,), maxshape=(None,), compression="gzip"
        )


@hdf5_case
def huge_chunk(file: h5py.File, folder: Path) -> None:
    file.create_dataset("weight", (10,), "u1", chunks=(128 << 20,), maxshape=(None,))


@hdf5_case
def huge_lzf_chunk(file: h5py.File, folder: Path) -> None:
    file.create_dataset(
        "weight", data=np.zeros(4 << 20, "u1"), chunks=(4 << 20,), compression=32000
    )


@hdf5_case
def unknown_filter(file: h5py.File, folder: Path) -> None:
    file.create_dataset("weight", data=np.arange(100), chunks=(10,), scaleoffset=0)


@hdf5_case
def plugin_filter(file: h5py.File, folder: Path) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((10,))
    plan.set_filter(32_015, h5py.h5z.FLAG_OPTIONAL, (1,))
    space, kind = h5py.h5s.create_simple((10,)), h5py.h5t.py_create(np.dtype("f4"))
    h5py.h5d.create(file.id, b"weight", kind, space, plan)


@hdf5_case
def deflated_twice(file: h5py.File, folder: Path) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((1000,))
    plan.set_deflate(9)
    plan.set_deflate(9)
    space, kind = h5py.h5s.create_simple((1000,)), h5py.h5t.py_create(np.dtype("f4"))
    dataset = h5py.Dataset(h5py.h5d.create(file.id, b"weight", kind, space, plan))
    dataset[:] = 0


@hdf5_case
def deep(file: h5py.File, folder: Path) -> None:
    file.create_group("/".join("a" * 40))


@hdf5_case
def many_objects(file: h5py.File, folder: Path) -> None:
    one = file.create_group("one")
    one["weight"] = 1.0
    for i in range(20_001):
        one.id.links.create_hard(f"w{i}".encode(), one.id, b"weight")


@hdf5_case
def many_attributes(file: h5py.File, folder: Path) -> None:
    for i in range(4_001):
        file.attrs.create(f"a{i}", 0, dtype="u1")


def _large_attribute(file: h5py.File, folder: Path) -> None:
    file.attrs["a"] = np.zeros(10**6)


hdf5_case(_large_attribute, libver="latest")


@hdf5_case
def named_type(file: h5py.File, folder: Path) -> None:
    file["kind"] = np.dtype("f4")


@hdf5_case
def named_type_in_use(file: h5py.File, folder: Path) -> None:
    file["kind"] = np.dtype("f4")
    file.create_dataset("weight", (3,), dtype=file["kind"])
    del file["kind"]


@hdf5_case
def compound(file: h5py.File, folder: Path) -> None:
    file["weight"] = np.zeros(3, dtype=[("a", "f4"), ("b", "i4")])


@hdf5_case
def references(file: h5py.File, folder: Path) -> None:
    file["a"] = 1.0
    file.create_dataset("weight", (1,), dtype=h5py.ref_dtype)[0] = file["a"].ref


@hdf5_case
def opaque(file: h5py.File, folder: Path) -> None:
    file["weight"] = np.zeros(3, dtype="V8")


@hdf5_case
def ragged(file: h5py.File, folder: Path) -> None:
    file.create_dataset("weight", (2,), dtype=h5py.vlen_dtype(np.float32))


@hdf5_case
def other_enumeration(file: h5py.File, folder: Path) -> None:
    file.create_dataset("weight", (2,), dtype=h5py.enum_dtype({"A": 0, "B": 1}, "i8"))


@hdf5_case
def long_fixed_text(file: h5py.File, folder: Path) -> None:
    file.create_dataset("type", (), dtype="S100000")


@hdf5_case
def many_texts(file: h5py.File, folder: Path) -> None:
    file.create_dataset("type", (20_001,), dtype=h5py.string_dtype())


def _texts_that_share(folder: Path, canary: Path) -> Path:
    """10,000 texts that all point at the same 2 MB: 20 GB when read at once."""
    path = folder / "file.nir"
    with h5py.File(path, "w") as file:
        texts = file.create_dataset("type", (10_000,), dtype=h5py.string_dtype())
        texts[0] = "x" * (2 << 20)
        offset = texts.id.get_offset()
    data = bytearray(path.read_bytes())
    data[offset : offset + 160_000] = data[offset : offset + 16] * 10_000
    path.write_bytes(data)
    return path


CASES.append(Case("hdf5-texts_that_share", "hdf5", INPUT, _texts_that_share))


def _chunk_shape_changed(folder: Path, canary: Path) -> Path:
    """A layout that says chunks of 2 x 1 where 2 x 2 are stored: libhdf5 writes past its room."""
    path = folder / "file.nir"
    with h5py.File(path, "w") as file:
        file.create_dataset("w", data=np.ones((6, 2), "f8"), chunks=(2, 2))
    data = bytearray(path.read_bytes())
    layout = data.index(b"\x03\x02\x03")  # version 3, chunked, 3 dimensions with the element's
    dims = layout + 3 + 8
    assert data[dims : dims + 12] == b"\2\0\0\0\2\0\0\0\x08\0\0\0"
    data[dims + 4] = 1
    path.write_bytes(data)
    return path


def _free_list_in_a_circle(folder: Path, canary: Path) -> Path:
    path = folder / "file.nir"
    path.write_bytes(_good(folder))
    data = bytearray(path.read_bytes())
    heap = data.index(b"HEAP")
    free = int.from_bytes(data[heap + 16 : heap + 24], "little")
    values = int.from_bytes(data[heap + 24 : heap + 32], "little")
    data[values + free : values + free + 8] = free.to_bytes(8, "little")
    path.write_bytes(data)
    return path


CASES.append(Case("hdf5-free_list_in_a_circle", "hdf5", INPUT, _free_list_in_a_circle))
CASES.append(Case("hdf5-chunk_shape_changed", "hdf5", INPUT, _chunk_shape_changed))


def _patched_text(patch: Callable[[bytearray, int, int], None], **options: object) -> Case:
    """Return a case with one text, changed in the raw file; patch(data, reference, heap)."""

    def make(folder: Path, canary: Path) -> Path:
        path = folder / "file.nir"
        with h5py.File(path, "w") as file:
            text = file.create_dataset("type", (1,), dtype=h5py.string_dtype(), **options)
            text[0] = "NIRGraph"
            chunked = text.chunks is not None
            at = text.id.get_chunk_info(0).byte_offset if chunked else text.id.get_offset()
        data = bytearray(path.read_bytes())
        patch(data, at, data.index(b"GCOL"))
        path.write_bytes(data)
        return path

    kind = "chunked_" if options else ""
    return Case(f"hdf5-{kind}{patch.__name__.strip('_')}", "hdf5", INPUT, make)


def _text_of_4_gib(data: bytearray, reference: int, heap: int) -> None:
    data[reference : reference + 4] = b"\xff" * 4


def _heap_that_never_ends(data: bytearray, reference: int, heap: int) -> None:
    free = heap + 16 + 24  # after the only text: 16 bytes of header, 8 of data
    data[free + 8 : free + 16] = bytes(8)


def _heap_object_too_long(data: bytearray, reference: int, heap: int) -> None:
    data[heap + 24 : heap + 32] = b"\xf9" + b"\xff" * 7  # rounds up to 0 in 64 bits


CASES.append(_patched_text(_text_of_4_gib))
CASES.append(_patched_text(_text_of_4_gib, chunks=(1,)))
CASES.append(_patched_text(_heap_that_never_ends))
CASES.append(_patched_text(_heap_object_too_long))


def _fill_text(file: h5py.File, folder: Path) -> None:
    file.create_dataset("type", (1,), dtype=h5py.string_dtype(), fillvalue="x")


hdf5_case(_fill_text)


def _good(folder: Path) -> bytes:
    path = folder / "good.nir"
    with h5py.File(path, "w") as file:
        file["node/type"] = "NIRGraph"
        file.create_dataset("node/weight", data=np.ones((50, 50)), compression="gzip")
    return path.read_bytes()


def _user_block(file: h5py.File, folder: Path) -> None:
    file["weight"] = np.ones(3)


hdf5_case(_user_block, userblock_size=512)
bytes_case(
    "hdf5",
    INPUT,
    truncated=lambda c: _good(c.parent)[:-500],
    cut_superblock=lambda c: _good(c.parent)[:20],
    signature_only=lambda c: b"\x89HDF\r\n\x1a\n" + bytes(2000),
    broken_superblock=lambda c: _good(c.parent)[:8] + b"\xff" * 40 + _good(c.parent)[48:],
    empty=lambda c: b"",
    garbage=lambda c: bytes(range(256)) * 20,
    torch_archive=lambda c: b"PK\3\4" + bytes(100),
)
