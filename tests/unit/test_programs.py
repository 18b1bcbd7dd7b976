"""Other programs end with all that they started, and say what went wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from snn_deploy.errors import ExternalToolError
from snn_deploy.io.programs import last_lines, last_words, run_program

# Starts a child of its own, notes both, and never ends.
HANGS = """\
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
print("last thing said", flush=True)
with open("pids.part", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename("pids.part", "pids")
time.sleep(600)
"""
PATIENCE_S = 30.0


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def wait_for(condition) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def assert_gone(folder: Path) -> None:
    for pid in (folder / "pids").read_text().split():
        wait_for(lambda pid=pid: is_gone(int(pid)))


def test_output_and_errors_come_back_in_order(tmp_path):
    code = "import os; os.write(1, b'one '); os.write(2, b'two '); os.write(1, b'three')"
    ended = run_program(python(code), name="it", cwd=tmp_path, timeout_s=PATIENCE_S)
    assert (ended.code, ended.output) == (0, "one two three")


def test_the_folder_and_the_environment_are_the_given_ones(tmp_path):
    code = "import os; print(os.getcwd(), os.environ['WORD'], 'HOME' in os.environ)"
    ended = run_program(
        python(code), name="it", cwd=tmp_path, timeout_s=PATIENCE_S, environment={"WORD": "yes"}
    )
    assert ended.output.split() == [str(tmp_path.resolve()), "yes", "False"]


def test_how_a_program_ended(tmp_path):
    def how(code: str) -> str:
        return run_program(python(code), name="it", cwd=tmp_path, timeout_s=PATIENCE_S).how

    assert how("raise SystemExit(3)") == "ended with exit code 3"
    assert how("import os; os.kill(os.getpid(), 9)") == "was killed by SIGKILL"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_hanging_program_is_killed_with_its_group(tmp_path):
    def run() -> None:
        run_program(python(HANGS), name="it", cwd=tmp_path, timeout_s=2.0, late_hint="patience")

    with pytest.raises(ExternalToolError, match="it exceeded 2 s and was stopped") as caught:
        run()
    assert caught.value.used == "it's last words: last thing said"
    assert caught.value.hint == "patience"
    assert_gone(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_interrupt_kills_the_group(tmp_path):
    def interrupt() -> None:
        wait_for((tmp_path / "pids").exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_program(python(HANGS), name="it", cwd=tmp_path, timeout_s=PATIENCE_S)
    thread.join()
    assert_gone(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a child that its parent died")
def test_a_program_ends_when_its_parent_is_killed(tmp_path):
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from snn_deploy.io.programs import run_program\n"
            "run_program(sys.argv[2:], name='it', cwd=Path(sys.argv[1]), timeout_s=600)",
            str(tmp_path),
            *python(HANGS),
        ],
        cwd=Path(__file__).parents[2],
    )
    wait_for((tmp_path / "pids").exists)
    parent.kill()
    parent.wait()
    program, child = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    wait_for(lambda: is_gone(program))
    os.kill(child, signal.SIGKILL)


def test_a_program_that_cannot_be_started(tmp_path):
    with pytest.raises(ExternalToolError, match="cannot start it: No such file or directory"):
        run_program(python(""), name="it", cwd=tmp_path / "none", timeout_s=PATIENCE_S)


def test_last_lines_prefer_errors():
    text = "\n".join(["start", "  ", "ERROR: one", "~~~^", *(f"line {i}" for i in range(9))])
    assert last_lines(text, most=2) == "line 7 | line 8"
    assert last_lines(text, errors=("ERROR", "%Error")) == "ERROR: one"
    assert last_words("it", " \n") is None
