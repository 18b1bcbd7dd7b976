"""Other programs: run under a time limit, ended with all that they started, last words kept."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from snn_deploy.errors import ExternalToolError

LAST_LINES = 6
# The program ends when this process does, however that ends: nobody would wait for it.
_DIES_WITH_PARENT = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A program that ended by itself: its exit code (below 0: minus a signal) and all it said.

    wall_s: how long it ran.
    """

    code: int
    output: str
    wall_s: float

    @property
    def how(self) -> str:
        """Return ``ended with exit code 1`` or ``was killed by SIGKILL``."""
        return how_ended(self.code)


def run_program(
    command: Sequence[str],
    *,
    name: str,
    cwd: Path,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    late_hint: str = "raise the time limit",
) -> Ended:
    """Run a program in a session of its own and return its end, output and errors together.

    command: its first word an absolute path. name: what messages call it. environment: in place
    of this process's. Raises ExternalToolError, with the program's last words, if it cannot be
    started or exceeds ``timeout_s``; then, and on an interrupt, its whole group is killed.
    """
    if sys.platform == "linux":
        launcher = [sys.executable, "-I", "-S", "-c", _DIES_WITH_PARENT, str(os.getpid())]
        command = [*launcher, *command]
    started = time.monotonic()
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            raise ExternalToolError(f"cannot start {name}: {error.strerror or error}") from error
        try:
            code = process.wait(timeout_s)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # not reaped yet: the group is still its own
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise ExternalToolError(
                f"{name} exceeded {timeout_s:g} s and was stopped",
                used=last_words(name, _text(log.fileno())),
                hint=late_hint,
            ) from None
        wall_s = time.monotonic() - started
        return Ended(code=code, output=_text(log.fileno()), wall_s=wall_s)


def how_ended(code: int) -> str:
    """Return ``Ended.how`` of an exit code."""
    return f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"


def _text(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).decode(errors="replace")


def last_words(name: str, output: str, errors: tuple[str, ...] = ()) -> str | None:
    """Return how an error message quotes the end of a program's output; None if it said nothing.

    errors: what its error lines contain; where there are such lines, only they are quoted.
    """
    said = last_lines(output, errors=errors)
    return f"{name}'s last words: {said}" if said else None


def last_lines(text: str, most: int = LAST_LINES, errors: tuple[str, ...] = ()) -> str:
    """Return the last lines that say something, joined by bars; see ``last_words``."""
    lines = [line.strip() for line in text.splitlines() if line.strip("~^ \t")]
    wrong = [line for line in lines if any(error in line for error in errors)]
    return " | ".join((wrong or lines)[-most:])


def signal_name(number: int) -> str:
    """Return SIGKILL for 9, and so on."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextlib.contextmanager
def locked(path: Path, report: Callable[[str], None], waiting: str) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; it ends with the process, however that ends.

    waiting: what ``report`` is told if another process holds it.
    """
    import fcntl

    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(waiting)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
