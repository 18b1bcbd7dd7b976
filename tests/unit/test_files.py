"""Atomic writing, folders swapped in whole, safe names, and opening of odd files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snn_deploy.errors import InputError, OutputError
from snn_deploy.io import files
from snn_deploy.io.files import (
    atomic_write,
    new_folder,
    open_regular,
    read_limited,
    safe_name,
    sha256_file,
    unique_name,
    write_bytes,
    write_json,
    write_text,
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that holds nothing half-written after the test."""
    path = tmp_path / "out put"
    path.mkdir()
    yield path
    assert not [p.name for p in path.rglob(".*")]


def test_file_appears_whole(folder: Path) -> None:
    path = folder / "a.bin"
    with atomic_write(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_existing_file_is_kept_without_force(folder: Path) -> None:
    path = folder / "a.txt"
    write_text(path, "old")
    with pytest.raises(OutputError, match="exists already") as caught:
        write_text(path, "new")
    assert caught.value.exit_code == 10
    assert caught.value.hint == "add --force to replace it, or choose another name"
    assert path.read_text() == "old"
    write_text(path, "new", force=True)
    assert path.read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files without a name are Linux's")
@pytest.mark.parametrize("force", [False, True])
def test_an_unfinished_file_has_no_name(folder: Path, force: bool) -> None:
    with atomic_write(folder / "a", force) as file:
        file.write(b"half")
        file.flush()
        assert not list(folder.iterdir())
    assert (folder / "a").read_bytes() == b"half"
    (folder / "plain").touch()
    assert (folder / "a").stat().st_mode == (folder / "plain").stat().st_mode


def test_a_file_that_appears_meanwhile_is_kept(folder: Path) -> None:
    path = folder / "a.txt"
    with pytest.raises(OutputError, match="exists already"), atomic_write(path) as file:
        file.write(b"ours")
        path.write_text("theirs")
    assert path.read_text() == "theirs"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
@pytest.mark.parametrize("meanwhile", [False, True])
def test_file_systems_without_hard_links(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, meanwhile: bool
) -> None:
    path = folder / "a.txt"

    def no_links(source: object, target: object) -> None:
        if meanwhile:
            path.write_text("theirs")
        raise OSError(code, os.strerror(code), str(source), None, str(target))

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    if meanwhile:
        with pytest.raises(OutputError, match="exists already"):
            write_text(path, "ours")
        assert path.read_text() == "theirs"
    else:
        write_text(path, "ours")
        assert path.read_text() == "ours"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("x"), SystemExit])
def test_nothing_is_left_when_the_block_fails(folder: Path, error: Any) -> None:
    path = folder / "a.txt"
    write_text(path, "old")
    with pytest.raises(BaseException) as caught, atomic_write(path, force=True) as file:
        file.write(b"half")
        raise error
    assert not isinstance(caught.value, OutputError)
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "free some disk space, or write to another disk"),
        (errno.EDQUOT, "free some of your disk quota, or write to another disk"),
        (errno.EACCES, "choose a folder that you may write to"),
        (errno.EROFS, "this file system is read-only; choose another folder"),
        (errno.EIO, "choose another path"),
    ],
)
def test_system_errors_become_output_errors(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, hint: str
) -> None:
    path = folder / "a.txt"

    def fails(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OutputError) as caught:
        write_text(path, "text")
    assert caught.value.message == f"cannot write {path}: {os.strerror(code)}"
    assert caught.value.where == str(path) and caught.value.hint == hint
    assert not path.exists()


def test_bad_paths(folder: Path) -> None:
    (folder / "file").write_text("x")
    (folder / "loop").symlink_to("loop")
    for path, hint in [
        (folder / "no" / "a.txt", "create the folder first, or check its spelling"),
        (folder / "file" / "a.txt", "a part of this path is a file, not a folder"),
        (folder / ("a" * 300), "choose a shorter name"),
        (folder / "loop", "add --force"),
        ("", "name a file to write"),
        ("a\0b", "name a file to write"),
    ]:
        with pytest.raises(OutputError) as caught:
            write_bytes(path, b"x")
        assert hint in str(caught.value.hint), path
    with pytest.raises(OutputError) as caught:
        write_bytes(folder, b"x", force=True)
    assert caught.value.hint == "this path is a folder; add a file name"


def test_full_disk() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(OutputError, match="cannot write /dev/full"):
        write_bytes("/dev/full", b"x", force=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            write_bytes(tmp_path / "a", b"x")
    finally:
        tmp_path.chmod(0o700)


def test_errors_about_other_files_pass(folder: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(folder / "a"):
        (folder / "missing").read_text()


def test_symbolic_link_is_written_through(folder: Path) -> None:
    (folder / "real").write_text("old")
    (folder / "link").symlink_to("real")
    write_text(folder / "link", "new", force=True)
    assert (folder / "link").is_symlink() and (folder / "real").read_text() == "new"


def test_json(folder: Path) -> None:
    path = folder / "a.json"
    write_json(path, {"b": [1, 2.5, None], "a": "µ"})
    assert path.read_text() == (
        '{\n  "a": "\\u00b5",\n  "b": [\n    1,\n    2.5,\n    null\n  ]\n}\n'
    )
    assert json.loads(path.read_text())["a"] == "µ"
    with pytest.raises(OutputError) as caught:
        write_json(folder / "b.json", {"layers": [{"pj": 1.0}, {"pj": float("nan")}]})
    assert caught.value.message == "JSON has no NaN and no infinity: layers.1.pj is nan"
    assert "write null for it" in str(caught.value.hint)
    assert not (folder / "b.json").exists()


def test_folder_appears_whole(folder: Path) -> None:
    target = folder / "result"
    with new_folder(target) as inside:
        (inside / "a").write_text("x")
        assert not target.exists() and inside.parent == target.parent
    assert (target / "a").read_text() == "x"


def test_existing_folder_is_kept_without_force(folder: Path) -> None:
    target = folder / "result"
    target.mkdir()
    with pytest.raises(OutputError, match="exists already") as caught, new_folder(target):
        pytest.fail("the block must not run")
    assert caught.value.exit_code == 10 and "--force" in str(caught.value.hint)


def test_existing_folder_is_replaced_with_force(folder: Path) -> None:
    target = folder / "result"
    for text in ("one", "two"):
        with new_folder(target, force=True) as inside:
            (inside / text).write_text(text)
    assert [p.name for p in target.iterdir()] == ["two"]


def test_a_folder_that_appears_meanwhile_is_kept(folder: Path) -> None:
    target = folder / "result"
    with pytest.raises(OutputError, match="exists already"), new_folder(target) as inside:
        (inside / "a").write_text("ours")
        target.mkdir()
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("x")])
@pytest.mark.parametrize("force", [False, True])
def test_earlier_results_survive_a_failing_block(folder: Path, error: Any, force: bool) -> None:
    target = folder / "result"
    if force:
        target.mkdir()
        (target / "old").write_text("old")
    with pytest.raises(BaseException), new_folder(target, force) as inside:  # noqa: B017
        (inside / "new").write_text("new")
        raise error
    assert [p.name for p in folder.rglob("*")] == (["result", "old"] if force else [])


@pytest.mark.parametrize("failing_call", [1, 2])
def test_earlier_results_survive_a_failing_swap(
    folder: Path, monkeypatch: pytest.MonkeyPatch, failing_call: int
) -> None:
    target = folder / "result"
    target.mkdir()
    (target / "old").write_text("old")
    real, calls = os.rename, [0]

    def rename(source: Any, to: Any) -> None:
        calls[0] += 1
        if calls[0] == failing_call:
            raise OSError(errno.EACCES, "Permission denied", str(source), None, str(to))
        real(source, to)

    monkeypatch.setattr(os, "rename", rename)
    with (
        pytest.raises(OutputError, match=r"cannot write .*Permission denied") as caught,
        new_folder(target, force=True) as inside,
    ):
        (inside / "new").write_text("new")
    assert caught.value.hint == "choose a folder that you may write to"
    assert [p.name for p in target.iterdir()] == ["old"]


def test_failing_swap_leaves_no_empty_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(source: Any, to: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(to))

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OutputError, match="No space left"), new_folder(folder / "result"):
        pass
    assert list(folder.iterdir()) == []


def test_old_results_that_cannot_be_removed_are_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = folder / "result"
    target.mkdir()
    real = files.shutil.rmtree

    def rmtree(path: Any, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(errno.EACCES, "Permission denied", str(path))
        real(path, ignore_errors=True)

    monkeypatch.setattr(files.shutil, "rmtree", rmtree)
    with (
        pytest.raises(OutputError, match="is written, but the earlier results") as caught,
        new_folder(target, force=True) as inside,
    ):
        (inside / "new").write_text("new")
    assert caught.value.hint == "remove that folder yourself"
    assert (target / "new").exists()
    Path(str(caught.value.where)).rmdir()


def test_dangerous_folders_are_not_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "home" / "me").mkdir(parents=True)
    (folder / "work" / "here").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder / "home" / "me"))
    monkeypatch.chdir(folder / "work" / "here")
    for path in (".", "..", folder / "home", folder / "home" / "me", "/"):
        with (
            pytest.raises(OutputError, match="refusing to replace") as caught,
            new_folder(path, force=True),
        ):
            pytest.fail("the block must not run")
        assert caught.value.hint == "name a new folder inside it"
    (folder / "file").write_text("x")
    with (
        pytest.raises(OutputError, match="is a file, not a folder") as caught,
        new_folder(folder / "file", force=True),
    ):
        pass
    assert caught.value.hint == "choose another name for the output folder"
    assert (folder / "work" / "here").is_dir()


def test_marker_protects_other_peoples_folders(folder: Path) -> None:
    target = folder / "photos"
    target.mkdir()
    with new_folder(target, force=True, marker="report.json") as inside:  # empty: nothing to lose
        (inside / "report.json").write_text("{}")
    with new_folder(target, force=True, marker="report.json") as inside:
        (inside / "photo").write_text("x")
    with (
        pytest.raises(OutputError, match=r"holds no report\.json, so it is not ours") as caught,
        new_folder(target, force=True, marker="report.json"),
    ):
        pass
    assert caught.value.hint == "choose another folder, or remove this one yourself"
    assert (target / "photo").exists()


def test_errors_inside_a_folder_name_the_final_place(folder: Path) -> None:
    with pytest.raises(OutputError) as caught, new_folder(folder / "result") as inside:
        write_text(inside / "no" / "a.txt", "x")
    assert caught.value.where == str(folder / "result" / "no" / "a.txt")
    assert ".part" not in str(caught.value)


def test_safe_names() -> None:
    assert safe_name("conv1") == "conv1"
    assert safe_name("../../etc/passwd") == "_.._etc_passwd"
    assert safe_name("a/b\\c:d\0e\x1b[31m") == "a_b_c_d_e_31m"
    assert safe_name(".hidden") == "hidden" and safe_name("--force") == "force"
    assert safe_name("") == safe_name("...") == "unnamed"
    assert safe_name("é\ud800") == "_"
    long, other = safe_name("x" * 500), safe_name("x" * 501)
    assert len(long) == 80 and long != other
    assert len(safe_name("x" * 80)) == 80 and "-" not in safe_name("x" * 80)


def test_unique_names_ignore_case() -> None:
    used: set[str] = set()
    names = [unique_name(text, used) for text in ("a/b", "a:b", "A_B", "a_b-2", "c")]
    assert names == ["a_b", "a_b-2", "A_B-3", "a_b-2-2", "c"]
    assert len({name.casefold() for name in names}) == len(names)


def test_reading(folder: Path) -> None:
    path = folder / "data.bin"
    path.write_bytes(b"12345")
    assert read_limited(path, 5) == b"12345"
    with pytest.raises(InputError, match="is too large") as caught:
        read_limited(path, 4)
    assert caught.value.used == "5 of 4 bytes"
    assert caught.value.hint == "check that this is the right file"
    assert sha256_file(path) == hashlib.sha256(b"12345").hexdigest()


def test_files_that_lie_about_their_size() -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc on this system")
    with pytest.raises(InputError, match="is too large"):
        read_limited("/proc/self/status", 10)


def test_only_regular_files_are_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "model.pt").write_text("x")
    for path, message, hint in [
        (folder, "is a folder, not a file", "name a regular file"),
        (folder / "pipe", "is a device, pipe or socket, not a file", "name a regular file"),
        ("/dev/null", "is a device, pipe or socket, not a file", "name a regular file"),
        (folder / "modle.pt", "there is no file", "did you mean model.pt?"),
        (folder / "zzz", "there is no file", "check the path"),
        (folder / "model.pt" / "x", "Not a directory", "check the path"),
        ("a\0b", "cannot read", "check the path"),
    ]:
        with pytest.raises(InputError) as caught:
            open_regular(path)
        assert message in caught.value.message and caught.value.hint == hint
        assert caught.value.exit_code == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(folder: Path) -> None:
    path = folder / "secret"
    path.write_text("x")
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied") as caught:
        sha256_file(path)
    assert caught.value.hint == "ask its owner for the right to read it"
