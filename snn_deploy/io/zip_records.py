"""A zip reader for hostile archives: every size is checked before a byte is inflated.

Python's zipfile believes the archive: it builds objects for any number of entries, lets records
overlap, and inflates as much as they claim. This one reads records that are stored or deflated,
unique, inside the file and apart from each other, with bounded names, counts and expansion.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from snn_deploy.errors import InputError
from snn_deploy.io.files import check_size

STORED, DEFLATED = 0, 8
MAX_DIRECTORY_BYTES = 16 * 2**20
MAX_RECORDS = 100_000
# Deflate can expand 1,032 times; data that expands more than 200 times is a bomb or all zeros.
MAX_EXPANSION = 200
FREE_EXPANSION_BYTES = 64 * 2**20

_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s2B4HL2L2H")
_BLOCK = 2**20


_Entry = tuple[int, str, int, int, int, int]  # header offset, name, packed, size, method, crc


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One archive member. start: file offset of its data; packed, size: bytes before and after."""

    name: str
    header: int
    start: int
    packed: int
    size: int
    method: int
    crc: int


class ZipRecords:
    """The records of an open zip archive, checked; raises InputError for anything odd.

    allow_deflate: whether compressed records are read or refused. where: the file's name.
    """

    def __init__(
        self, file: BinaryIO, where: str, *, max_bytes: int, allow_deflate: bool = False
    ) -> None:
        self._file, self.where = file, where
        self.file_bytes = check_size(file, where, max_bytes)
        start, end, count = self._directory()
        entries = self._entries(start, end, count)
        self.records: dict[str, Record] = {}
        free = 0
        for header, name, packed, size, method, crc in sorted(entries):
            if header < free:
                raise self._bad(f"record {name!r} overlaps another record")
            data = self._data_offset(header, name, method)
            free = data + packed
            if free > start:
                raise self._bad(f"record {name!r} runs past the end of the data")
            self._check_method(name, method, packed, size, allow_deflate)
            if name in self.records:
                raise self._bad(f"record {name!r} occurs twice")
            self.records[name] = Record(
                name=name,
                header=header,
                start=data,
                packed=packed,
                size=size,
                method=method,
                crc=crc,
            )
        total = sum(record.size for record in self.records.values())
        if total > max(FREE_EXPANSION_BYTES, MAX_EXPANSION * self.file_bytes):
            raise self._bomb(total)
        if total > max_bytes:
            raise InputError(
                "the archive expands to more than is allowed",
                where=where,
                used=f"{total:,} of {max_bytes:,} bytes",
                hint="split the file",
            )

    def _bad(self, what: str) -> InputError:
        return InputError(
            f"damaged or hostile zip archive: {what}",
            where=self.where,
            hint="write or download the file again, and do not trust where it came from",
        )

    def _bomb(self, total: int) -> InputError:
        return InputError(
            "zip bomb: the archive claims far more data than it holds",
            where=self.where,
            used=f"{total:,} bytes claimed by a file of {self.file_bytes:,} bytes",
            hint="if you trust it, write it again uncompressed (np.savez, not savez_compressed)",
        )

    def _at(self, offset: int, size: int, what: str) -> bytes:
        if offset < 0 or offset + size > self.file_bytes:
            raise self._bad(f"{what} lies outside the file")
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size:
            raise self._bad(f"{what} is cut off")
        return data

    def _directory(self) -> tuple[int, int, int]:
        """Return where the central directory starts and ends, and its number of entries."""
        size = min(self.file_bytes, _END.size + 0xFFFF)
        tail = self._at(self.file_bytes - size, size, "the end record")
        at = tail.rfind(b"PK\5\6")
        if at < 0 or len(tail) - at < _END.size:
            raise InputError(
                "truncated zip archive: its end record is missing",
                where=self.where,
                hint="write or download the file again",
            )
        _, disk, first, here, count, length, start, _ = _END.unpack_from(tail, at)
        end = self.file_bytes - size + at
        if at >= _END64_LOCATOR.size:
            locator = _END64_LOCATOR.unpack_from(tail, at - _END64_LOCATOR.size)
            if locator[0] == b"PK\6\7":
                end = locator[2]
                record = _END64.unpack(self._at(end, _END64.size, "the zip64 end record"))
                if record[0] != b"PK\6\6":
                    raise self._bad("the zip64 end record is missing")
                disk, first, here, count, length, start = record[4:]
        if disk or first or here != count or start + length > end:
            raise self._bad("the directory's size or place is wrong")
        if length > MAX_DIRECTORY_BYTES or count > MAX_RECORDS:
            raise InputError(
                "the archive has too many records",
                where=self.where,
                used=f"{count:,} of {MAX_RECORDS:,} records, "
                f"{length:,} of {MAX_DIRECTORY_BYTES:,} directory bytes",
                hint="this is not a model or data file, or it is hostile",
            )
        return start, start + length, count

    def _entries(
        self, start: int, end: int, count: int
    ) -> list[tuple[int, str, int, int, int, int]]:
        data = self._at(start, end - start, "the directory")
        entries, at = [], 0
        for _ in range(count):
            if at + _ENTRY.size > len(data):
                raise self._bad("the directory is cut off")
            head = _ENTRY.unpack_from(data, at)
            flags, method, crc, packed, size = head[5], head[6], head[9], head[10], head[11]
            n_name, n_extra, n_comment, header = head[12], head[13], head[14], head[18]
            at += _ENTRY.size
            raw, extra = data[at : at + n_name], data[at + n_name : at + n_name + n_extra]
            at += n_name + n_extra + n_comment
            if head[0] != b"PK\1\2" or at > len(data):
                raise self._bad("the directory is malformed")
            try:
                name = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise self._bad("a record's name is not UTF-8") from error
            if flags & 1:
                raise self._bad(f"record {name!r} is encrypted")
            size, packed, header = self._zip64(extra, name, size, packed, header)
            entries.append((header, name, packed, size, method, crc))
        if at != len(data):
            raise self._bad("the directory is longer than its entries")
        return entries

    def _zip64(self, extra: bytes, name: str, *values: int) -> tuple[int, int, int]:
        """Return size, packed size and header offset, with 64-bit values from the extra field."""
        result = list(values)
        if 0xFFFFFFFF in result:
            at = 0
            while at + 4 <= len(extra):
                tag, length = struct.unpack_from("<2H", extra, at)
                body, at = extra[at + 4 : at + 4 + length], at + 4 + length
                if tag != 1:
                    continue
                for i, value in enumerate(result):
                    if value == 0xFFFFFFFF:
                        if len(body) < 8:
                            raise self._bad(f"record {name!r} has no 64-bit size")
                        result[i], body = int.from_bytes(body[:8], "little"), body[8:]
                break
        return result[0], result[1], result[2]

    def _data_offset(self, header: int, name: str, method: int) -> int:
        local = _LOCAL.unpack(self._at(header, _LOCAL.size, f"record {name!r}"))
        n_name, n_extra = int(local[10]), int(local[11])
        raw = self._at(header + _LOCAL.size, n_name, f"record {name!r}")
        if local[0] != b"PK\3\4" or raw != name.encode() or local[4] != method or local[3] & 1:
            raise self._bad(f"record {name!r} disagrees with the directory")
        return header + _LOCAL.size + n_name + n_extra

    def _check_method(self, name: str, method: int, packed: int, size: int, deflate: bool) -> None:
        if method == STORED and packed == size:
            return
        if method == DEFLATED and deflate:
            if size > max(FREE_EXPANSION_BYTES, MAX_EXPANSION * packed):
                raise self._bomb(size)
            return
        what = "has two sizes" if method == STORED else "is compressed"
        raise self._bad(f"record {name!r} {what}")

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Return one record of at most ``limit_bytes``, checksum verified."""
        record = self.records[name]
        if record.size > limit_bytes:
            raise InputError(
                f"record {name!r} is too large",
                where=self.where,
                used=f"{record.size:,} of {limit_bytes:,} bytes",
                hint="this is not a model or data file, or it is hostile",
            )
        buffer = bytearray(record.size)
        stream = RecordStream(self, record)
        stream.readinto(memoryview(buffer))
        stream.finish()
        return bytes(buffer)

    def open(self, name: str) -> RecordStream:
        """Return a reader of one record; the caller calls ``finish`` to verify the checksum."""
        return RecordStream(self, self.records[name])


class RecordStream:
    """Reads one record front to back, at most as many bytes as it claims."""

    def __init__(self, archive: ZipRecords, record: Record) -> None:
        self._archive, self._record = archive, record
        self._at, self._left, self._done, self._crc = record.start, record.packed, 0, 0
        self._inflate = zlib.decompressobj(-15) if record.method == DEFLATED else None
        self._pending = b""

    def readinto(self, view: memoryview) -> None:
        """Fill ``view`` from the record; InputError if it ends too early or is damaged."""
        if self._done + len(view) > self._record.size:
            raise self._bad("ends too early")
        filled = 0
        while filled < len(view):
            part = self._next(view[filled : filled + _BLOCK])
            if not part:
                raise self._bad("ends too early")
            filled += part
        self._done += len(view)

    def finish(self) -> None:
        """Check that the record is read to its end and that its checksum agrees."""
        if self._done != self._record.size or (self._inflate and self._inflated(1)):
            raise self._bad("is longer than it claims")
        # torch.save writes 0 when its user has switched checksums off.
        if self._record.crc not in (self._crc, 0):
            raise self._bad("does not match its checksum")

    def _next(self, view: memoryview) -> int:
        """Put the next bytes into ``view`` and return how many."""
        if self._inflate is None:
            file = self._archive._file
            file.seek(self._at)
            count: int = file.readinto(view[: self._left])  # type: ignore[attr-defined]
            self._at += count
            self._left -= count
            self._crc = zlib.crc32(view[:count], self._crc)
            return count
        data = self._inflated(len(view))
        view[: len(data)] = data
        self._crc = zlib.crc32(data, self._crc)
        return len(data)

    def _inflated(self, limit: int) -> bytes:
        """Return up to ``limit`` more inflated bytes, none at the end."""
        assert self._inflate is not None
        data, more = b"", True
        while more and not data and not self._inflate.eof:
            if not self._pending and self._left:
                size = min(self._left, _BLOCK)
                self._pending = self._archive._at(self._at, size, f"record {self._record.name!r}")
                self._at += size
                self._left -= size
            more = bool(self._pending)  # without input zlib may still hold a little output
            try:
                data = self._inflate.decompress(self._pending, limit)
            except zlib.error as error:
                raise self._bad("cannot be inflated") from error
            self._pending = self._inflate.unconsumed_tail
        return data

    def _bad(self, what: str) -> InputError:
        return self._archive._bad(f"record {self._record.name!r} {what}")
