"""Opens HDF5 files (.nir, .net) that may be hostile: audited first, every failure an InputError."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from snn_deploy.errors import InputError, SnnDeployError
from snn_deploy.io import tensors
from snn_deploy.io.files import PathLike, check_size, open_regular
from snn_deploy.io.hdf5_audit import Audit
from snn_deploy.io.hdf5_heap import check_heaps, check_superblock
from snn_deploy.io.signatures import describe
from snn_deploy.ir.arrays import Array, adopt

if TYPE_CHECKING:
    import h5py

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def _load_h5py() -> Any:
    # A file may name a filter that HDF5 would load as a shared library from a folder. "::" is
    # HDF5's documented way to switch that off; it is read when the library starts.
    if "h5py" not in sys.modules:
        os.environ["HDF5_PLUGIN_PRELOAD"] = "::"
    import h5py

    return h5py


@contextlib.contextmanager
def open_audited(path: PathLike, *, max_bytes: int = 2**31) -> Iterator[h5py.File]:
    """Yield a read-only ``h5py.File`` whose whole structure has been checked before any value.

    Accepted: groups and datasets by hard links, numbers, booleans and text, stored inside the
    file, filtered by deflate, shuffle, fletcher32 or lzf. max_bytes: limit of the file's size and
    of what its datasets claim together. Failures of HDF5 inside the block (a damaged file, a
    missing key) leave as InputError too; errors of ours get the file's name.
    """
    where = os.fspath(path)
    h5py = _load_h5py()
    try:
        with open_regular(path) as raw:
            size = _check_bytes(raw, where, max_bytes)
            with h5py.File(where, "r", locking="best-effort") as opened:
                Audit(raw, where, size, max_bytes).run(opened.id)
                yield opened
    except SnnDeployError as error:
        if error.where is None or not error.where.startswith(where):
            error.located(where)
        raise
    except Exception as error:
        if not _from_h5py(error.__traceback__):
            raise
        raise _damaged(error, where) from error


def _check_bytes(file: BinaryIO, where: str, max_bytes: int) -> int:
    """Check what can be checked before HDF5 sees the file; return its size in bytes."""
    size = check_size(file, where, max_bytes)
    head = file.read(64)
    if not head.startswith(_SIGNATURE):
        kind = describe(head)
        raise InputError(
            f"this is {kind.article}, not an HDF5 file",
            where=where,
            hint=kind.hint or "write it with nir.write(path, graph)",
        )
    check_superblock(head, where)
    check_heaps(file, size, where)
    return size


def _from_h5py(trace: TracebackType | None) -> bool:
    """Return whether an exception passed through h5py: only then is the file to blame."""
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == "h5py":
            return True
        trace = trace.tb_next
    return False


def _damaged(error: Exception, where: str) -> InputError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return InputError(
        f"HDF5 cannot read it: {reason}",
        where=where,
        hint="the file is damaged or incomplete: write or download it again",
    )


def _read(dataset: Any, where: str) -> Any:
    h5py = _load_h5py()
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise InputError("a value is missing here", where=where, hint="write the file again")
    try:
        return dataset[()]
    except Exception as error:
        raise _damaged(error, where) from error


def read_array(dataset: Any, where: str) -> Array:
    """Return a dataset of numbers or booleans, read-only, in native byte order; InputError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN payloads while converting formats
        array = np.asarray(_read(dataset, where))
    if array.dtype.kind not in "biuf":
        raise InputError(
            "numbers are expected here, not text",
            where=where,
            hint="write this value as an array of numbers",
        )
    array = tensors.native(array)
    if array.dtype.kind == "b":
        array = tensors.flags(array.view(np.uint8), where)
    return adopt(array)


def _text(value: object, where: str) -> str:
    raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    if not isinstance(raw, bytes):
        raise InputError(
            "text is expected here, not numbers",
            where=where,
            hint="write this value as one string",
        )
    try:
        return raw.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            "a text is not UTF-8", where=where, hint="the file is damaged: write it again"
        ) from error


def read_string(dataset: Any, where: str) -> str:
    """Return the one text in a dataset (fixed or variable length, UTF-8); raises InputError."""
    value = _read(dataset, where)
    if isinstance(value, np.ndarray):
        if value.size != 1:
            raise InputError(
                f"one text is expected here, not {value.size}",
                where=where,
                hint="write this value as one string",
            )
        value = value.reshape(-1)[0]
    return _text(value, where)


def read_strings(dataset: Any, where: str) -> Array:
    """Return the texts in a dataset as an object array of str of the same shape; InputError."""
    values = np.asarray(_read(dataset, where), dtype=object)
    texts = np.empty(values.shape, dtype=object)
    for index in np.ndindex(*values.shape):
        texts[index] = _text(values[index], where)
    texts.flags.writeable = False
    return texts
