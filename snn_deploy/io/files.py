"""Opening files that may be hostile, and writing files and folders that appear only when whole."""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import itertools
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from snn_deploy.errors import InputError, OutputError

PathLike = str | os.PathLike[str]

_HINTS = {
    errno.ENOSPC: "free some disk space, or write to another disk",
    errno.EDQUOT: "free some of your disk quota, or write to another disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "this file system is read-only; choose another folder",
    errno.ENOENT: "create the folder first, or check its spelling",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another path",
    errno.EISDIR: "this path is a folder; add a file name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "this path runs in a circle of symbolic links; choose another path",
}
# What file systems without hard links answer to link().
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


def cannot_write(error: OSError, path: PathLike) -> OutputError:
    """Return the OutputError that says why ``path`` cannot be written and what to do."""
    reason = error.strerror or str(error)
    return OutputError(
        f"cannot write {os.fspath(path)}: {reason}",
        where=os.fspath(path),
        hint=_HINTS.get(error.errno or 0, "choose another path"),
    )


def _exists(path: PathLike) -> OutputError:
    return OutputError(
        f"{os.fspath(path)} exists already",
        where=os.fspath(path),
        hint="add --force to replace it, or choose another name",
    )


def _temporary(target: Path) -> Path:
    # Same folder, so that the last step is a rename; hidden, and short enough for any name.
    return target.parent / f".{target.name[:40]}.{secrets.token_hex(6)}.part"


def _located(error: OSError, temporary: Path, target: Path, path: PathLike) -> Exception:
    """Return ``error`` as an OutputError, or itself when it is about a file of the caller's."""
    name = "" if error.filename is None else os.fsdecode(error.filename)
    if name and name != str(target) and not name.startswith(str(temporary)):
        return error
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
        return _exists(path)
    return cannot_write(error, path)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can; the rename itself has happened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _resolved(path: PathLike) -> Path:
    if not os.fspath(path) or "\0" in os.fspath(path):
        raise OutputError("the output path is empty or holds a NUL", hint="name a file to write")
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def atomic_write(path: PathLike, force: bool = False) -> Iterator[BinaryIO]:
    """Yield a binary file that appears at ``path`` complete and on disk, or not at all.

    path: its folder must exist. force: replace an existing regular file; without it an existing
    one is kept, even if it appears while we write. Raises OutputError (exit 10). On Linux not
    even SIGKILL leaves a part of it: the file has no name before it is complete.
    """
    target = _resolved(path)
    temporary = _temporary(target)
    try:
        if os.path.lexists(target):
            if not force:
                raise _exists(path)
            if not target.is_file():
                raise OSError(errno.EISDIR if target.is_dir() else errno.EPERM, "not a file")
        unnamed = _open_unnamed(target.parent)
        with unnamed or open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if unnamed:
                # With a folder's descriptor, which goes unused, link() follows the symbolic link.
                source = f"/proc/self/fd/{file.fileno()}"
                os.link(source, temporary, src_dir_fd=file.fileno(), follow_symlinks=True)
        if force:
            os.replace(temporary, target)
        else:
            _rename_to_new(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise _located(error, temporary, target, path) from error.__cause__
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _open_unnamed(folder: Path) -> BinaryIO | None:
    """Return a new file in ``folder`` without a name; None where the system has no such files."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        return os.fdopen(os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o666), "wb")
    except OSError:  # the file system has none, or cannot be written: open() says which
        return None


def _rename_to_new(temporary: Path, target: Path) -> None:
    """Give ``temporary`` the name ``target``; FileExistsError if somebody has taken it."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # reserves the name
        try:
            os.replace(temporary, target)
        except BaseException:
            os.unlink(target)
            raise


def write_bytes(path: PathLike, data: bytes, force: bool = False) -> None:
    """Write ``data`` to ``path`` whole or not at all; raises OutputError."""
    with atomic_write(path, force) as file:
        file.write(data)


def write_text(path: PathLike, text: str, force: bool = False) -> None:
    """Write ``text`` as UTF-8 to ``path`` whole or not at all; raises OutputError."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"), force)


def write_json(path: PathLike, obj: object, force: bool = False) -> None:
    """Write ``obj`` as ASCII JSON: sorted keys, indent 2, no NaN, no infinity; OutputError."""
    try:
        text = json.dumps(obj, sort_keys=True, indent=2, allow_nan=False)
    except ValueError as error:
        place = _not_finite(obj, "")
        if place is None:
            raise
        raise OutputError(
            f"JSON has no NaN and no infinity: {place}",
            where=os.fspath(path),
            hint="look for a division by zero in what is written, or write null for it",
        ) from error
    write_text(path, text + "\n", force)


def _not_finite(obj: object, place: str) -> str | None:
    if isinstance(obj, float):
        return None if math.isfinite(obj) else f"{place or 'value'} is {obj}"
    items: Iterator[tuple[object, object]] = iter(())
    if isinstance(obj, dict):
        items = iter(obj.items())
    elif isinstance(obj, list | tuple):
        items = iter(enumerate(obj))
    found = (_not_finite(value, f"{place}.{key}".lstrip(".")) for key, value in items)
    return next((place for place in found if place is not None), None)


@contextlib.contextmanager
def new_folder(path: PathLike, force: bool = False, *, marker: str | None = None) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` as a whole when the block ends well.

    force: an existing folder gives way in the last moment and comes back if that fails.
    marker: with force, only an empty folder or one that holds a file of this name is replaced.
    Raises OutputError (exit 10); whatever fails, an earlier ``path`` stays as it was.
    """
    target = _resolved(path)
    temporary = _temporary(target)
    try:
        if os.path.lexists(target):
            if not force:
                raise _exists(path)
            _check_replaceable(target, path, marker)
        os.mkdir(temporary)
        try:
            yield temporary
        except OutputError as error:
            if error.where is not None:  # the user knows the final name, not the temporary one
                error.where = error.where.replace(str(temporary), str(target))
            error.message = error.message.replace(str(temporary), str(target))
            raise
        _swap_in(temporary, target, path, force)
    except OSError as error:
        raise _located(error, temporary, target, path) from error.__cause__
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_replaceable(target: Path, path: PathLike, marker: str | None) -> None:
    if not target.is_dir():
        raise OutputError(
            f"{os.fspath(path)} is a file, not a folder",
            where=os.fspath(path),
            hint="choose another name for the output folder",
        )
    here, home = Path.cwd().resolve(), Path.home().resolve()
    if target in (here, home, *here.parents, *home.parents):
        raise OutputError(
            f"refusing to replace {os.fspath(path)}: it holds the current or your home folder",
            where=os.fspath(path),
            hint="name a new folder inside it",
        )
    if marker is not None and not (target / marker).is_file() and any(target.iterdir()):
        raise OutputError(
            f"refusing to replace {os.fspath(path)}: it holds no {marker}, so it is not ours",
            where=os.fspath(path),
            hint="choose another folder, or remove this one yourself",
        )


def _swap_in(temporary: Path, target: Path, path: PathLike, force: bool) -> None:
    old = temporary.with_suffix(".old")
    had_old = force and os.path.lexists(target)
    claimed = False
    try:
        if had_old:
            os.rename(target, old)
        else:
            os.mkdir(target)  # claims the name: rename() alone would take over an empty folder
            claimed = True
        os.rename(temporary, target)
    except BaseException:
        if had_old and not target.exists():
            os.rename(old, target)
        elif had_old:  # interrupted just after the swap: the new folder is in place
            shutil.rmtree(old, ignore_errors=True)
        elif claimed and temporary.exists():
            with contextlib.suppress(OSError):
                os.rmdir(target)
        raise
    _sync_folder(target.parent)
    if had_old:
        try:
            shutil.rmtree(old)
        except OSError as error:
            raise OutputError(
                f"{os.fspath(path)} is written, but the earlier results cannot be removed",
                where=str(old),
                hint="remove that folder yourself",
            ) from error


def safe_name(text: str, limit: int = 80) -> str:
    """Return a file name made from an untrusted name: ASCII letters, digits, ``._-``, never empty.

    A name longer than ``limit`` is cut and gets a digest of the whole, so that it stays distinct.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".-") or "unnamed"
    if len(name) > limit:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = f"{name[: limit - 9]}-{digest}"
    return name


def unique_name(text: str, used: set[str]) -> str:
    """Return ``safe_name(text)``, numbered if taken, and add it to ``used`` (case is ignored)."""
    base = safe_name(text)
    names = itertools.chain([base], (f"{base}-{i}" for i in itertools.count(2)))
    name = next(n for n in names if n.casefold() not in used)
    used.add(name.casefold())
    return name


def open_regular(path: PathLike) -> BinaryIO:
    """Open a regular file for reading; a folder, device, FIFO or missing file is an InputError."""
    where = os.fspath(path)
    try:
        # Without O_NONBLOCK opening a FIFO would wait for a writer for ever.
        descriptor = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _cannot_read(error, where) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        what = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
        raise InputError(f"{where} is {what}, not a file", where=where, hint="name a regular file")
    return os.fdopen(descriptor, "rb")


def _cannot_read(error: Exception, where: str) -> InputError:
    if isinstance(error, FileNotFoundError):
        near: list[str] = []
        with contextlib.suppress(OSError), os.scandir(os.path.dirname(where) or ".") as entries:
            names = [entry.name for entry in itertools.islice(entries, 2000)]
            near = difflib.get_close_matches(os.path.basename(where), names, 1)
        hint = f"did you mean {near[0]}?" if near else "check the path"
        return InputError(f"there is no file {where}", where=where, hint=hint)
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    denied = isinstance(error, PermissionError)
    hint = "ask its owner for the right to read it" if denied else "check the path"
    return InputError(f"cannot read {where}: {reason}", where=where, hint=hint)


def check_size(file: BinaryIO, where: str, limit_bytes: int) -> int:
    """Return the size of an open file in bytes; InputError when it is larger than allowed."""
    size = os.fstat(file.fileno()).st_size
    if size > limit_bytes:
        raise InputError(
            f"{where} is too large",
            where=where,
            used=f"{size:,} of {limit_bytes:,} bytes",
            hint="check that this is the right file",
        )
    return size


def read_limited(path: PathLike, limit_bytes: int) -> bytes:
    """Return the content of a regular file of at most ``limit_bytes``; raises InputError."""
    where = os.fspath(path)
    with open_regular(path) as file:
        check_size(file, where, limit_bytes)
        try:
            data = file.read(limit_bytes + 1)  # some files (/proc) say 0 and hold more
        except OSError as error:
            raise _cannot_read(error, where) from error
    if len(data) > limit_bytes:
        raise InputError(
            f"{where} is too large",
            where=where,
            used=f"more than {limit_bytes:,} bytes",
            hint="check that this is the right file",
        )
    return data


def sha256_file(path: PathLike) -> str:
    """Return the SHA-256 of a regular file as 64 hexadecimal digits; raises InputError."""
    with open_regular(path) as file:
        try:
            return hash_open_file(file)
        except OSError as error:
            raise _cannot_read(error, os.fspath(path)) from error


def hash_open_file(file: Any) -> str:
    """Return the SHA-256 of an open file from its start."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()
