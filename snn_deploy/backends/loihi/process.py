"""Runs a job in the Lava child process and brings back recordings or a located error."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from snn_deploy.backends.loihi import environment as lava_environment
from snn_deploy.backends.loihi.batch import one_by_one, side_by_side
from snn_deploy.backends.loihi.environment import WORKER, LavaEnvironment
from snn_deploy.backends.loihi.job import ConvJob, JobInput, JobPopulation, LavaJob, SparseJob
from snn_deploy.backends.loihi.job_check import check_job
from snn_deploy.backends.loihi.netx_job import NetxJob
from snn_deploy.errors import ExternalToolError, OutputError
from snn_deploy.io.programs import how_ended, last_lines, last_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

FOLDER_PREFIX = "snn-deploy-lava-"
STOP_GRACE_S = 5.0
LOG_BYTES = 4000
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
    """What Lava computed, by population name, and what computed it in how long.

    cpu_s: processor time of all processes that ``run_s`` waited for.
    """

    recordings: dict[str, Recording]
    versions: dict[str, str]
    build_s: float
    run_s: float
    cpu_s: float
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
    with _worker(environment) as worker:
        try:
            worker.folder.mkdir(mode=0o700)
            _write_job(job, worker.folder)
        except OSError as error:
            raise _cannot_write(error, worker.folder) from error
        _await_outcome(worker, timeout_s)
        return _read_result(job, worker)


def _cannot_write(error: OSError, folder: Path | None = None) -> OutputError:
    return OutputError(
        f"cannot write the Lava job: {error.strerror or error}",
        where=None if folder is None else str(folder),
        hint="free some space, or set TMPDIR to a folder with more",
    )


def _write_job(job: LavaJob | NetxJob, folder: Path) -> None:
    description = {
        "samples": job.samples,
        "steps": job.steps,
        "run_steps": job.run_steps,
        "gap": 0 if isinstance(job, NetxJob) else job.gap,
        **(_write_net(job, folder) if isinstance(job, NetxJob) else _write_network(job, folder)),
    }
    (folder / "job.json").write_text(json.dumps(description))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worker:
    """The running supervisor, its job folder, and what it and Lava print.

    tag: how the names of Lava's shared-memory segments start.
    """

    process: subprocess.Popen[bytes]
    folder: Path
    tag: str
    log: BinaryIO

    def last_words(self) -> str | None:
        """Return the end of what Lava printed, or None if it said nothing."""
        size = os.fstat(self.log.fileno()).st_size
        text = os.pread(self.log.fileno(), LOG_BYTES, max(0, size - LOG_BYTES))
        return last_words("Lava", text.decode(errors="replace"))


@contextlib.contextmanager
def _worker(environment: LavaEnvironment) -> Iterator[_Worker]:
    """Start the supervisor, and leave nothing of it when the block ends.

    It starts before its folder is made: if this process is killed, however early, the supervisor
    sees its standard input end and removes the folder. So the log is a file without a name.
    """
    tag = f"sd{secrets.token_hex(3)}_"
    try:
        folder = Path(tempfile.gettempdir()) / (FOLDER_PREFIX + secrets.token_hex(6))
        log = tempfile.TemporaryFile()  # noqa: SIM115 (closed below)
    except OSError as error:
        raise _cannot_write(error) from error
    with log:
        command = [environment.python, "-I", "-B", WORKER, folder, os.getpid(), tag]
        try:
            process = subprocess.Popen(
                [str(part) for part in command],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            raise ExternalToolError(
                f"cannot start Lava's interpreter: {error.strerror or error}",
                where=str(environment.python),
                hint=f"{lava_environment.SETUP_COMMAND} --force",
            ) from error
        worker = _Worker(process=process, folder=folder, tag=tag, log=log)
        try:
            yield worker
        finally:
            # Also on Ctrl-C: the worker has a session of its own and does not see it.
            _end_worker(worker)


def _say(process: subprocess.Popen[bytes], word: bytes) -> None:
    """Tell the worker; that it is gone already shows elsewhere."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(word)


def _await_outcome(worker: _Worker, timeout_s: float) -> None:
    """Let the worker run the job; return when it succeeded."""
    process = worker.process
    assert process.stdout is not None
    _say(process, b"run\n")
    until = time.monotonic() + timeout_s
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not said.endswith(b"\n"):
            if not selector.select(max(0.0, until - time.monotonic())):
                raise ExternalToolError(
                    f"Lava exceeded {timeout_s:g} s and was stopped",
                    hint="run fewer samples, or raise the time limit",
                )
            if not (part := os.read(process.stdout.fileno(), 1 << 16)):
                break
            said += part
    try:
        outcome = json.loads(said)
    except ValueError:
        code = process.wait()
        raise ExternalToolError(
            f"the Lava worker {how_ended(code)}", used=worker.last_words()
        ) from None
    if not outcome["ok"]:
        message = last_lines(outcome["message"]) or "no message"
        raise ExternalToolError(f"Lava failed: {message}", used=worker.last_words())


def _end_worker(worker: _Worker) -> None:
    """Ask the worker to leave, then make sure that nothing of it is left."""
    process = worker.process
    _say(process, b"end\n")  # a fork of ours may hold the pipe: its end alone would not do
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(OSError, ValueError):
        group = int((worker.folder / "lava.pid").read_text())  # left by a killed worker
        until = time.monotonic() + STOP_GRACE_S
        while time.monotonic() < until:
            os.killpg(group, signal.SIGKILL)  # raises once the group is gone
            time.sleep(0.02)
    for segment in Path("/dev/shm").glob(f"{worker.tag}*"):
        segment.unlink(missing_ok=True)
    shutil.rmtree(worker.folder, ignore_errors=True)


def _read_result(job: LavaJob | NetxJob, worker: _Worker) -> JobResult:
    done = _read_json(worker.folder / "done.json")
    if done is None:
        raise ExternalToolError("Lava ended without a result", used=worker.last_words())
    recordings = {}
    for i, name in enumerate(job.names):
        arrays: dict[str, Any] = {"u": None, "v": None}
        for kind, file in _record_files(i, job.record).items():
            rows = np.load(worker.folder / file, allow_pickle=False)
            arrays[kind] = rows.reshape(job.samples, job.steps, -1)
            arrays[kind].setflags(write=False)
        recordings[name] = Recording(**arrays)
    return JobResult(
        recordings=recordings,
        versions=done["versions"],
        build_s=done["build_s"],
        run_s=done["run_s"],
        cpu_s=done["cpu_s"],
        run_steps=done["run_steps"],
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
