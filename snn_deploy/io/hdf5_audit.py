"""Walks an open HDF5 file and refuses what could reach outside it or blow up when it is read.

After the audit, reading any one dataset or string takes memory in proportion to the file: the
sizes that the file claims are compared with the bytes that it stores, compressed chunks are
inflated once with a limit, and shared texts are counted every time they are used. Attributes are
bounded, but nobody should read them: a text among them may claim any length.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..errors import InputError

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

_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF = 1, 2, 3, 32000
_FILTERS = {_DEFLATE: "deflate", _SHUFFLE: "shuffle", _FLETCHER32: "fletcher32", _LZF: "lzf"}
_INFLATE_LIMIT = 1032  # deflate cannot expand more
_REFERENCE = 16  # bytes of a stored text: length, address of its heap, index in it


@dataclass(kw_only=True)
class _Totals:
    objects: int = 0
    attributes: int = 0
    claimed: int = 0
    stored: int = 0
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
            count = group.get_num_objs()
            self._totals.objects += count
            if self._totals.objects > MAX_OBJECTS:
                self._refuse("too many objects", path, f"more than {MAX_OBJECTS:,} objects")
            if depth > MAX_DEPTH:
                self._refuse("groups nested too deeply", path, f"more than {MAX_DEPTH} levels")
            for raw in group:
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
        stored = dataset.get_storage_size()
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
        if layout == h5py.h5d.CHUNKED:
            self._chunks(dataset, properties, itemsize, name)
        if variable:
            self._texts(dataset, properties, elements, name)

    def _chunks(self, dataset: Any, properties: Any, itemsize: int, name: str) -> None:
        count = properties.get_nfilters()
        filters = [properties.get_filter(i)[0] for i in range(min(count, 5))]
        unknown = [f for f in filters if f not in _FILTERS]
        if unknown:
            self._refuse(f"compressed by filter {unknown[0]}, which is not built in", name)
        packers = [i for i, f in enumerate(filters) if f in (_DEFLATE, _LZF)]
        # h5py: checksum, shuffle, compressor; others put the checksum last. At most one of each.
        others = [f for f in filters if f != _FLETCHER32]
        if (
            len(packers) > 1
            or len(set(filters)) != count
            or (_SHUFFLE in others and others[0] != _SHUFFLE)
        ):
            self._refuse("filters in an order that no writer uses", name)
        chunk = math.prod(properties.get_chunk()) * itemsize
        lzf = _LZF in filters
        limit = MAX_LZF_CHUNK_BYTES if lzf else MAX_CHUNK_BYTES
        if chunk > limit:
            self._refuse("a chunk is too large", name, f"{chunk:,} of {limit:,} bytes")
        large: list[Any] = []

        def visit(info: Any) -> None:
            # A compressor that gains nothing is skipped or adds a little, never doubles.
            if info.size > chunk + chunk // 8 + 4096:
                self._refuse("a stored chunk is larger than its values", name)
            inflates = bool(packers) and not lzf and not info.filter_mask & (1 << packers[0])
            if inflates and info.size * _INFLATE_LIMIT > MAX_CHUNK_BYTES:
                large.append(info.chunk_offset)

        dataset.chunk_iter(visit)
        for offset in large:
            self._inflates_to(dataset, offset, chunk, name)

    def _inflates_to(self, dataset: Any, offset: Any, chunk: int, name: str) -> None:
        """Inflate a chunk with a limit: HDF5 itself grows its buffer as long as data comes."""
        data = self._inflate(dataset.read_direct_chunk(offset)[1], chunk + 4096, name)
        if len(data) > chunk + 4:  # 4: a checksum inside
            self._refuse("a chunk inflates to more than its values", name, f"over {chunk:,} bytes")

    def _inflate(self, data: bytes, limit: int, name: str) -> bytes:
        try:
            return zlib.decompressobj().decompress(data, limit)
        except zlib.error:
            self._refuse("a compressed chunk is damaged", name)
        return b""

    def _texts(self, dataset: Any, properties: Any, elements: int, name: str) -> None:
        """Bound what texts of variable length claim: libhdf5 fills that much memory for each.

        Several may point at the same stored text, so the claims are added up.
        """
        import h5py

        self._totals.texts += elements
        if self._totals.texts > MAX_TEXTS:
            self._refuse("too many texts", name, f"more than {MAX_TEXTS:,} texts")
        if properties.fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED:
            self._refuse("a text that stands for missing ones", name)
        layout, offset = properties.get_layout(), dataset.get_offset()
        if layout == h5py.h5d.CHUNKED:
            raw = b"".join(self._chunk_bytes(dataset, properties, name))
        elif layout == h5py.h5d.COMPACT:
            self._refuse("texts in compact storage, which no writer uses", name)
        elif offset is not None:  # None: nothing was ever written, all texts are empty
            self._file.seek(offset)
            raw = self._file.read(elements * _REFERENCE)
        else:
            raw = b""
        lengths = [int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), _REFERENCE)]
        self._totals.text_bytes += sum(lengths)
        if self._totals.text_bytes > MAX_TEXT_BYTES:
            limit = f"{self._totals.text_bytes:,} of {MAX_TEXT_BYTES:,} bytes"
            self._refuse("its texts claim too much memory", name, limit)

    def _chunk_bytes(self, dataset: Any, properties: Any, name: str) -> Iterator[bytes]:
        """Yield the chunks of a dataset of texts as they are before compression."""
        filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        size = math.prod(properties.get_chunk()) * _REFERENCE
        chunks: list[Any] = []
        dataset.chunk_iter(lambda info: chunks.append(info.chunk_offset))
        for offset in chunks:
            mask, data = dataset.read_direct_chunk(offset)
            for index in reversed(range(len(filters))):
                if mask & (1 << index):
                    continue
                if filters[index] == _DEFLATE:
                    data = self._inflate(data, size + 4, name)
                elif filters[index] == _FLETCHER32:
                    data = data[:-4]
                elif filters[index] == _SHUFFLE:
                    rows = len(data) // _REFERENCE  # byte k of all elements, then byte k + 1
                    data = b"".join(data[row::rows] for row in range(rows))
                else:
                    self._refuse("texts compressed by lzf, which no writer uses", name)
            yield data[:size]

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
