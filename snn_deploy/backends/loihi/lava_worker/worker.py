"""The Lava child process: ``python -I -B worker.py JOB_FOLDER PARENT TAG``, or ``--version``.

The process that starts is a small supervisor that owns the job folder. "run" on standard input
says that the job stands there. It then forks the process that runs Lava, and ends it,
everything that it forked, and its shared memory, when Lava ends, fails, or is no longer wanted.
The outcome is a line of JSON on standard output. When the parent says "end", or is gone, the
supervisor removes the folder: whatever the parent dies of and whenever, nothing stays. Lava
itself never gets that chance: it forks one process per node, hangs on errors and leaks shared
memory when killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import json
import multiprocessing.shared_memory
import os
import select
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
MESSAGE_BYTES = 4000  # below PIPE_BUF: written in one piece
GRACE_S = 0.5
RUN = b"run\n"
STOPPED = {"ok": False, "message": "stopped"}


def main(arguments: list[str]) -> int:
    """Run the job folder named on the command line; return the exit code."""
    if arguments == ["--version"]:
        _allow_few_threads()
        print(json.dumps(_load_package().versions()))
        return 0
    folder, parent, tag = arguments
    return Supervisor(Path(folder), int(parent), tag).supervise()


class Supervisor:
    """Owns one job folder and the Lava run in it.

    parent: pid of the process that waits for us. tag: how shared-memory names start.
    """

    def __init__(self, folder: Path, parent: int, tag: str) -> None:
        self.folder, self.parent, self.tag = folder, parent, tag
        self.wake_read, self.wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(self.wake_write, False)
        self.asked_to_stop = False

    def supervise(self) -> int:
        """Wait for the job, run it, tell the outcome, and leave when the parent has read it."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        _prctl(PR_SET_CHILD_SUBREAPER, 1)  # what Lava forked becomes ours when Lava dies
        try:
            if self._hear() == RUN:
                outcome = STOPPED if self.asked_to_stop else self._run_lava()
                with contextlib.suppress(BrokenPipeError):
                    os.write(sys.stdout.fileno(), json.dumps(outcome).encode() + b"\n")
                self._hear()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        return 0

    def _hear(self) -> bytes:
        """Wait for the parent's next word; nothing if it is gone."""
        while os.getppid() == self.parent:
            readable, _, _ = select.select([sys.stdin.fileno(), self.wake_read], [], [])
            if sys.stdin.fileno() in readable:
                return os.read(sys.stdin.fileno(), len(RUN))
            os.read(self.wake_read, 512)
        return b""

    def _run_lava(self) -> dict[str, Any]:
        errors_read, errors_write = os.pipe()
        supervisor = os.getpid()
        child = os.fork()
        if child == 0:
            os.close(errors_read)
            _become_lava(self.folder, self.tag, supervisor, errors_write)
        os.close(errors_write)
        try:
            (self.folder / "lava.pid").write_text(str(child))
            return self._wait(child, errors_read)
        finally:
            self._end_group(child)
            remove_shared_memory(self.tag)

    def _wait(self, child: int, errors: int) -> dict[str, Any]:
        while True:
            readable, _, _ = select.select([sys.stdin.fileno(), errors, self.wake_read], [], [])
            if errors in readable:
                message = os.read(errors, MESSAGE_BYTES)
                if message:
                    return {"ok": False, "message": message.decode(errors="replace")}
            if self.wake_read in readable:
                os.read(self.wake_read, 512)
            unwanted = sys.stdin.fileno() in readable or os.getppid() != self.parent
            if unwanted or self.asked_to_stop:
                return STOPPED
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return self._explain(os.waitstatus_to_exitcode(status), errors)

    def _explain(self, code: int, errors: int) -> dict[str, Any]:
        ready, _, _ = select.select([errors], [], [], 0)
        message = os.read(errors, MESSAGE_BYTES).decode(errors="replace") if ready else ""
        if message:
            return {"ok": False, "message": message}
        if code == 0 and (self.folder / "done.json").exists():
            return {"ok": True, "message": ""}
        how = f"killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        return {"ok": False, "message": f"Lava's main process was {how}"}

    def _on_stop(self, *_: object) -> None:
        self.asked_to_stop = True

    def _end_group(self, group: int) -> None:
        """End every process of Lava's group and wait until none is left."""
        for number, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError, PermissionError):  # all gone, or zombies
                os.killpg(group, number)
            until = None if patience is None else time.monotonic() + patience
            while _reap() and (until is None or time.monotonic() < until):
                time.sleep(0.005)


def _reap() -> bool:
    """Collect ended children; return whether any child is left."""
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if not ended:
            return True


def _become_lava(folder: Path, tag: str, supervisor: int, errors: int) -> NoReturn:
    """In the forked child: run the job and exit, whatever happens."""
    code = 1
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _die_with_parent(supervisor)
        os.register_at_fork(before=_note_parent, after_in_child=_die_with_noted_parent)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, sys.stdin.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the outcome goes there, not prints
        _allow_few_threads()
        # Sockets of Lava's managers go to the job folder, under a name short enough for them.
        os.chdir(folder)
        os.environ["TMPDIR"] = "/proc/self/cwd" if sys.platform == "linux" else str(folder)
        # Names of our own, so that a clean-up finds ours and nobody else's.
        setattr(multiprocessing.shared_memory, "_SHM_NAME_PREFIX", f"/{tag}")  # noqa: B010

        def fail(text: str) -> NoReturn:
            # The end says most; 1 byte of a cut character may be lost.
            os.write(errors, text.encode(errors="replace")[-MESSAGE_BYTES:])
            os._exit(1)

        try:
            _load_package().run(folder, fail)
        except BaseException:
            fail(traceback.format_exc())
        code = 0
    finally:
        os._exit(code)


_noted_parent = [0]


def _note_parent() -> None:
    _noted_parent[0] = os.getpid()


def _die_with_noted_parent() -> None:
    _die_with_parent(_noted_parent[0])


def _die_with_parent(parent: int) -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the supervisor's watch over standard input has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, int(value), 0, 0, 0)


def _allow_few_threads() -> None:
    """Every node is a process of its own: threaded libraries would only fight."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"


def _load_package() -> Any:
    """Import this folder as the package ``lava_worker`` and return its ``network`` module."""
    here = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        "lava_worker", here / "__init__.py", submodule_search_locations=[str(here)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["lava_worker"] = package
    spec.loader.exec_module(package)
    return importlib.import_module("lava_worker.network")


def remove_shared_memory(tag: str) -> None:
    """Unlink the shared-memory segments whose names start with ``tag``."""
    for path in Path("/dev/shm").glob(f"{tag}*"):
        path.unlink(missing_ok=True)


def signal_name(number: int) -> str:
    """Return SIGKILL for 9, and so on."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
