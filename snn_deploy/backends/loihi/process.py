"""Runs a job in the Lava child process and brings back recordings or a located error."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snn_deploy.backends.loihi import environment as lava_environment
from snn_deploy.backends.loihi.batch import one_by_one, side_by_side
from snn_deploy.backends.loihi.environment import WORKER, LavaEnvironment
from snn_deploy.backends.loihi.job import ConvJob, JobInput, JobPopulation, LavaJob, SparseJob
from snn_deploy.backends.loihi.job_check import check_job
from snn_deploy.backends.loihi.netx_job import NetxJob
from snn_deploy.errors import ExternalToolError, OutputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER_PREFIX = "snn-deploy-lava-"
STOP_GRACE_S = 5.0
MESSAGE_LINES = 6
INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One population's run: each (samples, steps, n), aligned to the input's steps.

    ``spikes`` is uint8. ``u`` and ``v`` are int32 after the step (v after its reset), or None
    if only spikes were recorded. n is in C order of the population's shape.
    """

    spikes: NDArray[np.uint8]
    u: NDArray[np.int32] | None
    v: NDArray[np.int32] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What Lava computed, by population name, and what computed it in how long."""

    recordings: dict[str, Recording]
    versions: dict[str, str]
    build_s: float
    run_s: float
    run_steps: int


def run_job(
    job: LavaJob | NetxJob, *, timeout_s: float, environment: LavaEnvironment | None = None
) -> JobResult:
    """Check ``job``, run it in Lava and return every population's recordings.

    A NetxJob was checked when its file was made. timeout_s: wall-clock limit of the child
    process. environment: where Lava is (default: ``environment.require()``). Raises what
    ``check_job`` raises; MissingDependencyError without Lava; ExternalToolError, with Lava's
    last words, if it fails, hangs or is killed; OutputError if the temporary folder cannot be
    written. Leaves no process, shared memory or file behind.
    """
    environment = environment or lava_environment.require()
    if not isinstance(job, LavaJob):
        return run_unchecked(job, timeout_s, environment)
    check_job(job)
    result = run_unchecked(side_by_side(job), timeout_s, environment)
    return replace(result, recordings={n: _apart(r, job) for n, r in result.recordings.items()})


def _apart(recording: Recording, job: LavaJob) -> Recording:
    """Return a recording of samples side by side as one of samples."""
    return Recording(
        spikes=one_by_one(recording.spikes, job),
        u=None if recording.u is None else one_by_one(recording.u, job),
        v=None if recording.v is None else one_by_one(recording.v, job),
    )


def run_unchecked(
    job: LavaJob | NetxJob, timeout_s: float, environment: LavaEnvironment
) -> JobResult:
    """Do what ``run_job`` does without checking the job first."""
    tag = f"sd{secrets.token_hex(3)}_"
    try:
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
    except OSError as error:
        raise _cannot_write(error) from error
    try:
        try:
            _write_job(job, folder, tag)
        except OSError as error:
            raise _cannot_write(error, folder) from error
        _run_worker(folder, tag, timeout_s, environment)
        return _read_result(job, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cannot_write(error: OSError, folder: Path | None = None) -> OutputError:
    return OutputError(
        f"cannot write the Lava job: {error.strerror or error}",
        where=str(folder or tempfile.gettempdir()),
        hint="free some space, or set TMPDIR to a folder with more",
    )


def _write_job(job: LavaJob | NetxJob, folder: Path, tag: str) -> None:
    description = {
        "samples": job.samples,
        "steps": job.steps,
        "run_steps": job.run_steps,
        "gap": 0 if isinstance(job, NetxJob) else job.gap,
        **(_write_net(job, folder) if isinstance(job, NetxJob) else _write_network(job, folder)),
    }
    (folder / "job.json").write_text(json.dumps(description))
    (folder / "worker.json").write_text(json.dumps({"parent": os.getpid(), "tag": tag}))


def _write_spikes(source: JobInput, path: Path) -> None:
    np.save(path, source.spikes.reshape(-1, source.spikes.shape[2]))


def _write_net(job: NetxJob, folder: Path) -> dict[str, Any]:
    (folder / "network.net").write_bytes(job.net)
    _write_spikes(job.source, folder / "in0.npy")
    files = [_record_files(i, job.record) for i in range(len(job.names))]
    return {"kind": "netx", "net": "network.net", "input": "in0.npy", "files": files}


def _write_network(job: LavaJob, folder: Path) -> dict[str, Any]:
    arrays: dict[str, Any] = {}

    def keep(value: Any) -> Any:
        """Return an integer as it is, an array as its key in job.npz."""
        if value is None or np.ndim(value) == 0:
            return 0 if value is None else int(value)
        array = np.asarray(value)
        small = array.size and INT16.min <= array.min() and array.max() <= INT16.max
        key = f"a{len(arrays)}"
        arrays[key] = array.astype(np.int16 if small else np.int64)
        return key

    description: dict[str, Any] = {
        "kind": "network",
        "inputs": [],
        "populations": [],
        "projections": [],
    }
    for i, source in enumerate(job.inputs):
        entry: dict[str, Any] = {"name": source.name, "shape": source.shape, "file": f"in{i}.npy"}
        _write_spikes(source, folder / entry["file"])
        description["inputs"].append(entry)
    files = {name: _record_files(i, job.record) for i, name in enumerate(job.names)}
    for i, population in enumerate(job.populations):
        entry = {
            "name": population.name,
            "shape": population.shape,
            "depth": population.depth,
            "bias_exp": population.bias_exp,
            "files": files.get(population.name, {}),
            "currents": _write_currents(population, folder / f"currents{i}.npy"),
            "program": None,
        }
        for parameter in ("du", "dv", "vth", "bias"):
            entry[parameter] = keep(getattr(population, parameter))
        if population.programmed:
            names = ("v_reset", "reset_amount", "v_init")
            values = {name: keep(getattr(population, name)) for name in names}
            entry["program"] = {"reset": population.reset, **values}
        description["populations"].append(entry)
    for projection in job.projections:
        entry = {"pre": projection.pre, "post": projection.post, "graded": projection.graded}
        if isinstance(projection, SparseJob):
            entry |= {
                "kind": "sparse",
                "weight": keep(projection.weight.data),
                "indices": keep(projection.weight.indices),
                "indptr": keep(projection.weight.indptr),
                "free": projection.free,
            }
        else:
            entry["weight"] = keep(projection.weight)
        entry["weight_exp"] = projection.weight_exp
        if isinstance(projection, ConvJob):
            entry |= {
                "kind": "conv",
                "stride": projection.stride,
                "padding": projection.padding,
                "dilation": projection.dilation,
                "groups": projection.groups,
            }
        else:
            entry["delay"] = keep(projection.delay)
            entry.setdefault("kind", "dense")
        description["projections"].append(entry)
    np.savez(folder / "job.npz", **arrays)
    return description


def _write_currents(population: JobPopulation, path: Path) -> str | None:
    """Write the currents of a population, if it has any, and return the file's name."""
    if population.currents is None:
        return None
    np.save(path, population.currents.reshape(-1, population.currents.shape[2]))
    return path.name


def _record_files(index: int, record: str) -> dict[str, str]:
    """Return the recording files of the population at ``index``, by kind."""
    kinds = ("spikes",) if record == "spikes" else ("spikes", "u", "v")
    return {kind: f"{kind}{index}.npy" for kind in kinds}


def _run_worker(folder: Path, tag: str, timeout_s: float, environment: LavaEnvironment) -> None:
    command = [str(environment.python), "-I", "-B", str(WORKER), str(folder)]
    with (folder / "log.txt").open("wb") as log:
        try:
            worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            raise ExternalToolError(
                f"cannot start Lava's interpreter: {error.strerror or error}",
                where=str(environment.python),
                hint=f"{lava_environment.SETUP_COMMAND} --force",
            ) from error
    try:
        worker.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise ExternalToolError(
            f"Lava exceeded {timeout_s:g} s and was stopped",
            hint="run fewer samples, or raise the time limit",
        ) from None
    finally:
        # Also on Ctrl-C: the worker has a session of its own and does not see it.
        _end_worker(worker, folder, tag)
    outcome = _read_json(folder / "outcome.json")
    if outcome is not None and outcome["ok"]:
        return
    if outcome is not None:
        raise ExternalToolError(
            f"Lava failed: {_last_lines(outcome['message'])}", used=_log_lines(folder)
        )
    code = worker.returncode
    how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
    raise ExternalToolError(f"the Lava worker {how}", used=_log_lines(folder))


def _end_worker(worker: subprocess.Popen[bytes], folder: Path, tag: str) -> None:
    """Stop the worker if it runs, then make sure that nothing of it is left."""
    if worker.poll() is None:
        worker.terminate()
        try:
            worker.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
    if worker.stdin is not None:
        worker.stdin.close()
    if (folder / "outcome.json").exists():
        return  # the supervisor came to its end and cleaned up
    with contextlib.suppress(OSError, ValueError):
        group = int((folder / "lava.pid").read_text())
        until = time.monotonic() + STOP_GRACE_S
        while time.monotonic() < until:
            os.killpg(group, signal.SIGKILL)  # raises once the group is gone
            time.sleep(0.02)
    for segment in Path("/dev/shm").glob(f"{tag}*"):
        segment.unlink(missing_ok=True)


def _read_result(job: LavaJob | NetxJob, folder: Path) -> JobResult:
    done = _read_json(folder / "done.json")
    if done is None:
        raise ExternalToolError("Lava ended without a result", used=_log_lines(folder))
    recordings = {}
    for i, name in enumerate(job.names):
        arrays: dict[str, Any] = {"u": None, "v": None}
        for kind, file in _record_files(i, job.record).items():
            rows = np.load(folder / file, allow_pickle=False)
            arrays[kind] = rows.reshape(job.samples, job.steps, -1)
            arrays[kind].setflags(write=False)
        recordings[name] = Recording(**arrays)
    return JobResult(
        recordings=recordings,
        versions=done["versions"],
        build_s=done["build_s"],
        run_s=done["run_s"],
        run_steps=done["run_steps"],
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _last_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip("~^ \t")]
    return " | ".join(lines[-MESSAGE_LINES:]) or "no message"


def _log_lines(folder: Path) -> str | None:
    """Return the end of what Lava printed, or None if it said nothing."""
    try:
        with (folder / "log.txt").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4000))
            text = log.read().decode(errors="replace")
    except OSError:
        return None
    return f"Lava's last words: {_last_lines(text)}" if text.strip() else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
