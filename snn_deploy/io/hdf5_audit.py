"""Walks an open HDF5 file and refuses what could reach outside it or blow up when it is read.

After the audit, reading any one dataset or string takes memory in proportion to the file: the
sizes that the file claims are compared with the bytes that it stores, compressed chunks are
inflated once with a limit, and shared texts are counted every time they are used. Attributes are
bounded, but nobody should read them: a text among them may claim any length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from snn_deploy.errors import InputError
from snn_deploy.io import hdf5_chunks

MAX_OBJECTS = 20_000
MAX_DEPTH = 16
MAX_ATTRIBUTES = 4_000
MAX_ATTRIBUTE_BYTES = 64 * 2**10
MAX_CHUNK_BYTES = 64 * 2**20
MAX_LZF_CHUNK_BYTES = 2**20
MAX_TEXTS = 20_000
MAX_TEXT_BYTES = 16 * 2**20
MAX_FIXED_TEXT_BYTES = 64 * 2**10
# Stored zeros shrink up to 1,032 times; beyond the free part, more than 256 times is a bomb.
FREE_CLAIM_BYTES = 64 * 2**20
MAX_EXPANSION = 256
# Chunks at the edges stand out of their dataset, by less than this many times in 4 dimensions.
MAX_OVERHANG = 16

_REFERENCE = 16  # bytes of a stored text: length, address of its heap, index in it


@dataclass(kw_only=True)
class _Totals:
    objects: int = 0
    attributes: int = 0
    claimed: int = 0
    stored: int = 0
    unpacked: int = 0
    texts: int = 0
    text_bytes: int = 0


class Audit:
    """Audits one file. file: its raw bytes; path: for messages; file_bytes: size; InputError."""

    def __init__(self, file: BinaryIO, path: str, file_bytes: int, max_bytes: int) -> None:
        self._file, self._path = file, path
        self._file_bytes, self._max_bytes = file_bytes, max_bytes
        self._totals = _Totals()
        self._groups: set[int] = set()
        self._datasets: set[int] = set()

    def run(self, root: Any) -> None:
        """Check everything that can be reached from the root group's identifier."""
        import h5py

        todo = [(root, "", 0)]
        self._enter_group(h5py.h5o.get_info(root).addr, "")
        while todo:
            group, path, depth = todo.pop()
            self._attributes(group, path)
            if depth > MAX_DEPTH:
                self._refuse("groups nested too deeply", path, f"more than {MAX_DEPTH} levels")
            for raw in self._names(group, path):
                name = f"{path}/{raw.decode('utf-8', 'backslashreplace')}"
                if group.links.get_info(raw).type != h5py.h5l.TYPE_HARD:
                    self._refuse("a soft or external link, which could lead anywhere", name)
                info = h5py.h5o.get_info(group, raw)
                if info.type == h5py.h5o.TYPE_GROUP:
                    self._enter_group(info.addr, name)
                    todo.append((h5py.h5g.open(group, raw), name, depth + 1))
                elif info.type == h5py.h5o.TYPE_DATASET:
                    self._dataset(h5py.h5d.open(group, raw), info.addr, name)
                else:
                    self._refuse("a named type, which model files do not need", name)
        if self._totals.stored > self._file_bytes:
            self._refuse(
                "the datasets overlap: they store more than the file holds",
                "",
                f"{self._totals.stored:,} of {self._file_bytes:,} bytes",
            )

    def _refuse(self, what: str, name: str, used: str | None = None) -> None:
        raise InputError(
            f"damaged or hostile HDF5 file: {what}",
            where=f"{self._path} -> {name or '/'}",
            used=used,
            hint="write the file again with nir.write or h5py, and do not trust where it came from",
        )

    def _names(self, group: Any, path: str) -> list[bytes]:
        """Return the names in a group; one by one, because a damaged index may never end."""
        names: list[bytes] = []

        def visit(name: bytes) -> bool | None:  # True stops; h5py mishandles exceptions here
            names.append(name)
            return True if self._totals.objects + len(names) > MAX_OBJECTS else None

        group.links.iterate(visit)
        self._totals.objects += len(names)
        if self._totals.objects > MAX_OBJECTS:
            self._refuse("too many objects", path, f"more than {MAX_OBJECTS:,} objects")
        return names

    def _enter_group(self, address: int, name: str) -> None:
        if address in self._groups:
            self._refuse("a group is linked twice, perhaps in a circle", name)
        self._groups.add(address)

    def _type(self, kind: Any, name: str) -> bool:
        """Check an element type; return whether it is text of variable length."""
        import h5py

        if kind.committed():
            self._refuse("a named type, which model files do not need", name)
        code, size = kind.get_class(), kind.get_size()
        if code == h5py.h5t.STRING:
            if kind.is_variable_str():
                return True
            if size > MAX_FIXED_TEXT_BYTES:
                limit = f"{size:,} of {MAX_FIXED_TEXT_BYTES:,} bytes"
                self._refuse("a text of fixed length is too long", name, limit)
            return False
        if code == h5py.h5t.ENUM:
            names = {kind.get_member_name(i) for i in range(min(kind.get_nmembers(), 3))}
            if names == {b"FALSE", b"TRUE"} and size == 1:
                return False
        elif (code == h5py.h5t.INTEGER and size in (1, 2, 4, 8)) or (
            code == h5py.h5t.FLOAT and size in (2, 4, 8)
        ):
            return False
        self._refuse("elements that are neither numbers, booleans nor text", name)
        return False

    def _dataset(self, dataset: Any, address: int, name: str) -> None:
        import h5py

        self._attributes(dataset, name)
        shape = dataset.shape if dataset.get_space().get_simple_extent_ndims() else ()
        kind = dataset.get_type()
        variable = self._type(kind, name)
        itemsize = _REFERENCE if variable else kind.get_size()
        properties = dataset.get_create_plist()
        layout = properties.get_layout()
        if properties.get_external_count():
            self._refuse("its values lie in another file (external storage)", name)
        if layout not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
            self._refuse("its values lie in other datasets (virtual storage)", name)
        elements = math.prod(shape)
        claimed = elements * itemsize
        if layout == h5py.h5d.CHUNKED:
            places, stored = self._places(dataset, properties, itemsize, name)
        else:
            places, stored = [], dataset.get_storage_size()
        first = address not in self._datasets  # a second hard link: same bytes, read again
        self._datasets.add(address)
        self._totals.claimed += claimed
        self._totals.stored += stored if first and layout != h5py.h5d.COMPACT else 0
        if self._totals.claimed > self._max_bytes:
            limit = f"more than {self._max_bytes:,} bytes"
            self._refuse("the datasets claim too much memory", name, limit)
        for what, claim, held in (
            ("this dataset", claimed, stored),
            ("the datasets up to here", self._totals.claimed, self._file_bytes),
        ):
            if claim > FREE_CLAIM_BYTES + MAX_EXPANSION * held:
                used = f"{what}: {claim:,} bytes claimed, {held:,} bytes stored"
                self._refuse("far more data claimed than stored", name, used)
        raw = bytearray()
        for values in self._chunks(dataset, places, properties, itemsize, name):
            raw += values if variable else b""
        if variable:
            self._texts(dataset, properties, elements, raw, name)

    def _places(
        self, dataset: Any, properties: Any, itemsize: int, name: str
    ) -> tuple[list[Any], int]:
        """Check how a dataset is cut into chunks; return their places and bytes stored."""
        filters = _filters(properties)
        unknown = [f for f in filters if f not in hdf5_chunks.NAMES]
        if unknown:
            self._refuse(f"compressed by filter {unknown[0]}, which is not built in", name)
        if not hdf5_chunks.check_order(filters):
            self._refuse("filters in an order that no writer uses", name)
        sides, shape = properties.get_chunk(), dataset.shape
        if len(sides) != len(shape):
            self._refuse("chunks of other dimensions than their dataset", name)
        chunk = math.prod(sides) * itemsize
        limit = MAX_LZF_CHUNK_BYTES if hdf5_chunks.LZF in filters else MAX_CHUNK_BYTES
        if chunk > limit:
            self._refuse("a chunk is too large", name, f"{chunk:,} of {limit:,} bytes")
        most = math.prod(-(-n // side) for n, side in zip(shape, sides, strict=True))
        infos: list[Any] = []

        def visit(info: Any) -> bool | None:  # True stops
            infos.append(info)
            return True if len(infos) > most else None

        dataset.chunk_iter(visit)
        if len(infos) > most:
            self._refuse("more chunks than the dataset has room for", name, f"over {most:,}")
        sizes = [info.size for info in infos]
        # A compressor that gains nothing is skipped or adds a little, never doubles.
        if max(sizes, default=0) > chunk + chunk // 8 + 4096:
            self._refuse("a stored chunk is larger than its values", name)
        # Without filters libhdf5 makes room for the chunk and then reads what is stored.
        if not filters and any(size != chunk for size in sizes):
            self._refuse("a stored chunk is not as large as its values", name)
        self._totals.unpacked += chunk * len(infos)
        allowed = FREE_CLAIM_BYTES + MAX_OVERHANG * math.prod(shape) * itemsize
        if self._totals.unpacked > allowed + MAX_OVERHANG * self._totals.claimed:
            self._refuse("chunks far larger than the dataset", name)
        return [info.chunk_offset for info in infos], sum(sizes)

    def _chunks(
        self, dataset: Any, places: list[Any], properties: Any, itemsize: int, name: str
    ) -> Iterator[bytes]:
        """Undo the filters of each chunk with its size checked; yield the values."""
        for place in places:
            chunk = math.prod(properties.get_chunk()) * itemsize
            mask, data = dataset.read_direct_chunk(place)
            try:
                yield hdf5_chunks.undo(data, mask, _filters(properties), chunk, itemsize)
            except hdf5_chunks.ChunkError as error:
                self._refuse(str(error), name)

    def _texts(
        self, dataset: Any, properties: Any, elements: int, raw: bytes | bytearray, name: str
    ) -> None:
        """Bound what texts of variable length claim: libhdf5 fills that much memory for each.

        Several may point at the same stored text, so the claims are added up.
        """
        import h5py

        self._totals.texts += elements
        if self._totals.texts > MAX_TEXTS:
            self._refuse("too many texts", name, f"more than {MAX_TEXTS:,} texts")
        if properties.fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED:
            self._refuse("a text that stands for missing ones", name)
        offset = dataset.get_offset()
        if properties.get_layout() == h5py.h5d.COMPACT:
            self._refuse("texts in compact storage, which no writer uses", name)
        if properties.get_layout() == h5py.h5d.CONTIGUOUS and offset is not None:
            self._file.seek(offset)  # None: nothing was ever written, all texts are empty
            raw = self._file.read(elements * _REFERENCE)
        lengths = [int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), _REFERENCE)]
        self._totals.text_bytes += sum(lengths)
        if self._totals.text_bytes > MAX_TEXT_BYTES:
            limit = f"{self._totals.text_bytes:,} of {MAX_TEXT_BYTES:,} bytes"
            self._refuse("its texts claim too much memory", name, limit)

    def _attributes(self, thing: Any, name: str) -> None:
        import h5py

        count = h5py.h5a.get_num_attrs(thing)
        self._totals.attributes += count
        if self._totals.attributes > MAX_ATTRIBUTES:
            self._refuse("too many attributes", name, f"more than {MAX_ATTRIBUTES:,}")
        for index in range(count):
            attribute = h5py.h5a.open(thing, index=index)
            kind, elements = attribute.get_type(), math.prod(attribute.shape)
            place = f"{name}@{attribute.name.decode('utf-8', 'backslashreplace')}"
            self._type(kind, place)
            if elements * kind.get_size() > MAX_ATTRIBUTE_BYTES:
                limit = f"more than {MAX_ATTRIBUTE_BYTES:,} bytes"
                self._refuse("an attribute is too large", place, limit)


def _filters(properties: Any) -> list[int]:
    return [properties.get_filter(i)[0] for i in range(min(properties.get_nfilters(), 8))]
