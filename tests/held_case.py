"""A job whose processes are killed at a moment, and a look at what is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snn_deploy.backends.loihi.environment import PYTHON_VARIABLE
from tests import held

ROOT = Path(__file__).parents[1]
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    session: int
    state: str
    command: list[str]


def processes() -> Iterator[Process]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text()
            command = command_of(int(folder.name))
        except OSError:
            continue
        state, _, _, session = text[text.rindex(")") + 2 :].split()[:4]
        yield Process(int(folder.name), int(session), state, command)


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, task.read_text().split())
    return found


def command_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if result := condition():
            return result
        time.sleep(0.03)
    raise TimeoutError(f"waited {PATIENCE_S:g} s for {what}")


class Case:
    """A parent with a job of its own, held at a moment."""

    def __init__(
        self,
        folder: Path,
        lava,
        moment: str,
        command: Sequence[str] = (),
        limit_s: float = PATIENCE_S,
    ) -> None:
        self.control = folder / "control"
        self.temporary = folder / "a b"  # a space in the path, as well
        self.control.mkdir(parents=True)
        self.temporary.mkdir()
        (self.control / "moment").write_text(moment)
        (self.control / "limit_s").write_text(str(limit_s))
        script = Path(held.__file__)
        python = folder / "python"  # given: -I -B WORKER ..., or --version in the last's place
        python.write_text(
            f'#!/bin/sh\nshift 2\nexec "{lava.python}" -I -B "{script}" "{self.control}" "$@"\n'
        )
        python.chmod(0o700)
        self.parent = subprocess.Popen(
            [sys.executable, "-m", "tests.held_parent", self.control, python, *command],
            cwd=ROOT,
            env={
                **os.environ,
                "TMPDIR": str(self.temporary),
                "PYTHONPATH": str(ROOT),
                PYTHON_VARIABLE: str(python),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self, victim: str, number: int, job: bool = True) -> tuple[int, str, str]:
        """Kill at the moment; return what became of the parent. Nothing may be left.

        job: whether the moment is one of a Lava job's life.
        """
        try:
            wait_for(self._is_reached, "the moment")
            worker = wait_for(self._worker, "the worker") if job else -1
            tag = command_of(worker)[-1] if job else None
            os.kill(self._find(victim, worker), number)
            (self.control / "go").touch()
            out, err = self.parent.communicate(timeout=PATIENCE_S)
        finally:
            (self.control / "go").touch()
            self.parent.kill()
        wait_for(lambda: not self._live(worker), "the processes to end")
        wait_for(lambda: not list(self.temporary.iterdir()), "the files to vanish")
        assert tag is None or not list(Path("/dev/shm").glob(f"{tag}*"))
        return self.parent.returncode, out, err

    def _is_reached(self) -> bool:
        assert self.parent.poll() is None, self.parent.communicate()
        return (self.control / "reached").exists()

    def _worker(self) -> int | None:
        found = [p for p in children(self.parent.pid) if command_of(p)[-1].startswith("sd")]
        return found[0] if found else None

    def _find(self, victim: str, worker: int) -> int:
        if victim in ("parent", "worker"):
            return self.parent.pid if victim == "parent" else worker
        main = wait_for(lambda: children(worker), "Lava's main process")[0]
        return main if victim == "main" else max(children(main))  # others are Python's helpers

    def _live(self, worker: int) -> list[Process]:
        ours = str(self.control)  # an argument of the worker, and so of all its forks
        return [
            p
            for p in processes()
            if p.state not in "ZX" and (p.session == worker or ours in p.command)
        ]
