"""Whatever happens to the Lava child process: a clear error, and nothing left behind."""

from __future__ import annotations

import resource
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snn_deploy.backends.loihi import environment
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
