"""Whatever happens to the Lava child process: a clear error, and nothing left behind."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from snn_deploy.backends.loihi import environment, process
from snn_deploy.backends.loihi.job import DenseJob, JobInput, JobPopulation, LavaJob
from snn_deploy.backends.loihi.process import run_job, run_unchecked
from snn_deploy.errors import ExternalToolError, OutputError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and /dev/shm")
ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def small_job(steps: int = 5) -> LavaJob:
    return LavaJob(
        inputs=(JobInput(name="in", shape=(2,), spikes=np.ones((1, steps, 2), np.uint8)),),
        populations=(JobPopulation(name="a", shape=(2,), depth=1, du=4095, dv=9, vth=70),),
        projections=(DenseJob(pre="in", post="a", weight=np.full((2, 2), 4)),),
    )


def endless_job() -> LavaJob:
    return small_job(steps=2_000_000)


@dataclass
class Processes:
    """One running job, seen from outside."""

    job_folder: Path
    tag: str
    supervisor: int
    main: int

    def live(self) -> list[int]:
        return [pid for pid, _, session, state in _processes() if self._is_ours(session, state)]

    def _is_ours(self, session: int, state: str) -> bool:
        return session == self.supervisor and state not in "ZX"

    def actors(self) -> list[int]:
        return [pid for pid, parent, _, state in _processes() if parent == self.main]

    def assert_nothing_left(self) -> None:
        wait_for(lambda: not self.live(), f"processes {self.live()} to end")
        wait_for(lambda: not self.job_folder.exists(), "the job folder to vanish")
        assert not list(Path("/dev/shm").glob(f"{self.tag}*"))


def _processes():
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        fields = text[text.rindex(")") + 2 :].split()
        yield int(stat.parent.name), int(fields[1]), int(fields[3]), fields[0]


def wait_for(condition, what: str):
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if result := condition():
            return result
        time.sleep(0.02)
    pytest.fail(f"waited {PATIENCE_S:g} s for {what}")


def running(folder: Path) -> Processes:
    """Wait until Lava has simulated a step of the job under ``folder``."""
    recording = wait_for(lambda: next(folder.glob("*/spikes0.npy"), None), "the first step")
    job_folder = recording.parent
    main = int((job_folder / "lava.pid").read_text())
    supervisor = next(parent for pid, parent, _, _ in _processes() if pid == main)
    tag = json.loads((job_folder / "worker.json").read_text())["tag"]
    found = Processes(job_folder, tag, supervisor, main)
    assert list(Path("/dev/shm").glob(f"{tag}*")), "the test would prove nothing"
    assert len(found.live()) >= 5
    return found


def interfere(folder: Path, lava, action, timeout_s: float = PATIENCE_S) -> ExternalToolError:
    """Run an endless job, do ``action`` to it, return the error after checking the clean-up."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            run_job(endless_job(), timeout_s=timeout_s, environment=lava)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    processes = running(folder)
    action(processes)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    processes.assert_nothing_left()
    assert len(errors) == 1
    assert isinstance(errors[0], ExternalToolError)
    assert errors[0].exit_code == 9
    return errors[0]


def test_an_exception_in_a_synapse_process_is_shown(lava, folder):
    # Lava itself would wait for ever: the process raises before it sends.
    job = small_job()
    job = replace(job, projections=(replace(job.projections[0], delay=64),))
    with pytest.raises(ExternalToolError, match="expects values between 0 and 63"):
        run_unchecked(job, PATIENCE_S, lava)
    assert not list(folder.iterdir())


def test_a_recording_that_cannot_be_written_is_shown(lava, folder):
    n, steps, limit = 4096, 200, 1_000_000  # u and v need 3.3 MB each
    job = small_job(steps)
    job = replace(
        job,
        populations=(replace(job.populations[0], shape=(n,)),),
        projections=(replace(job.projections[0], weight=np.full((n, 2), 4)),),
    )
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(ExternalToolError, match=r"Lava failed: .*OSError.*File too large"):
            run_job(job, timeout_s=PATIENCE_S, environment=lava)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(folder.iterdir())


def test_an_exception_while_building_is_shown(lava, folder):
    job = small_job()
    job = replace(job, projections=(replace(job.projections[0], weight=np.ones((2, 1), int)),))
    with pytest.raises(ExternalToolError, match=r"Lava failed: .*IndexError"):
        run_unchecked(job, PATIENCE_S, lava)
    assert not list(folder.iterdir())


def test_a_run_over_its_time_limit_is_stopped(lava, folder):
    with pytest.raises(ExternalToolError, match="Lava exceeded 3 s") as caught:
        run_job(endless_job(), timeout_s=3.0, environment=lava)
    assert caught.value.hint == "run fewer samples, or raise the time limit"
    assert not list(folder.iterdir())


def test_a_stopped_supervisor_is_killed_at_the_time_limit(lava, folder, monkeypatch):
    monkeypatch.setattr(process, "STOP_GRACE_S", 0.5)
    error = interfere(folder, lava, lambda p: os.kill(p.supervisor, signal.SIGSTOP), timeout_s=6.0)
    assert "Lava exceeded 6 s" in error.message


def test_a_killed_supervisor_is_reported(lava, folder):
    error = interfere(folder, lava, lambda p: os.kill(p.supervisor, signal.SIGKILL))
    assert error.message == "the Lava worker was killed by SIGKILL"


def test_a_killed_main_process_is_reported(lava, folder):
    error = interfere(folder, lava, lambda p: os.kill(p.main, signal.SIGKILL))
    assert "Lava's main process was killed by SIGKILL" in error.message


def test_a_killed_node_is_reported(lava, folder):
    # Lava would wait for it for ever. The last one forked is no helper of multiprocessing.
    error = interfere(folder, lava, lambda p: os.kill(max(p.actors()), signal.SIGKILL))
    assert "one of Lava's processes was killed by signal 9" in error.message


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_the_parent_is_killed(lava, tmp_path, number):
    script = (
        "from tests.differential.test_lava_failures import endless_job\n"
        "from snn_deploy.backends.loihi.process import run_job\n"
        "run_job(endless_job(), timeout_s=300)\n"
    )
    jobs = tmp_path / "a b"  # a space in the path, as well
    jobs.mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={
            **os.environ,
            "TMPDIR": str(jobs),
            "PYTHONPATH": str(ROOT),
            environment.PYTHON_VARIABLE: str(lava.python),
        },
        stderr=subprocess.PIPE,
    )
    try:
        processes = running(jobs)
        parent.send_signal(number)
        _, errors = parent.communicate(timeout=PATIENCE_S)
    finally:
        parent.kill()
    assert parent.returncode == -number, errors
    processes.assert_nothing_left()
    assert not list(jobs.iterdir())


def test_an_interpreter_that_is_not_one(folder):
    def at(path: str) -> environment.LavaEnvironment:
        return environment.LavaEnvironment(python=Path(path), versions={}, chosen_by="test")

    with pytest.raises(ExternalToolError, match="cannot start Lava's interpreter") as caught:
        run_job(small_job(), timeout_s=PATIENCE_S, environment=at(str(folder / "none")))
    assert caught.value.hint == "snn-deploy setup loihi --force"
    with pytest.raises(ExternalToolError, match="the Lava worker ended with exit code 1"):
        run_job(small_job(), timeout_s=PATIENCE_S, environment=at("/bin/false"))
    assert not list(folder.iterdir())


def test_an_interpreter_without_lava_shows_its_own_words(folder):
    plain = environment.LavaEnvironment(python=Path(sys.executable), versions={}, chosen_by="test")
    with pytest.raises(ExternalToolError, match="No module named 'lava'"):
        run_job(small_job(), timeout_s=PATIENCE_S, environment=plain)
    assert not list(folder.iterdir())


def test_a_temporary_folder_that_cannot_be_written(lava, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(OutputError, match="cannot write the Lava job") as caught:
        run_job(small_job(), timeout_s=PATIENCE_S, environment=lava)
    assert "TMPDIR" in str(caught.value.hint)
