"""Lava's own Python environment: where it is, whether it is there, how it is made.

lava-nc 0.10.0 declares Python 3.10 and numpy 1 and runs on later ones with a small patch
(lava_worker/compat.py), so it never shares an environment with this package.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from snn_deploy.errors import ExternalToolError, MissingDependencyError, OutputError
from snn_deploy.io.cache import CACHE_VARIABLE, cache_folder
from snn_deploy.io.programs import last_lines, locked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PYTHON_VARIABLE = "SNN_DEPLOY_LAVA_PYTHON"
SETUP_COMMAND = "snn-deploy setup loihi"
LAVA = "lava-nc==0.10.0"
LAVA_DL = "lava-dl==0.6.0"
# Tested with Lava on Python 3.11 to 3.13; on 3.10 lava-nc's own requirements hold.
DEPENDENCIES = (
    "numpy==2.4.6",
    "scipy==1.17.1",
    "networkx==3.6.1",
    "asteval==1.0.10",
    "h5py==3.16.0",
)
DEPENDENCIES_310 = ("h5py>=3.7,<4",)
SUPPORTED = ((3, 10), (3, 11), (3, 12), (3, 13))
MARKER = "snn-deploy.json"
WORKER = Path(__file__).resolve().parent / "lava_worker" / "worker.py"
INSTALL_LIMIT_S = 1800
PROBE_LIMIT_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class LavaEnvironment:
    """An interpreter that can import Lava; ``versions`` names it and its packages."""

    python: Path
    versions: dict[str, str] = field(hash=False)
    chosen_by: str


def find() -> LavaEnvironment | None:
    """Return the environment to run Lava in, or None if there is none.

    SNN_DEPLOY_LAVA_PYTHON names any interpreter; else the environment that ``setup`` made
    or confirmed last is taken, from its marker file alone. Raises MissingDependencyError if
    the variable names an interpreter that cannot import Lava.
    """
    if chosen := os.environ.get(PYTHON_VARIABLE):
        return LavaEnvironment(
            python=Path(chosen), versions=dict(_probe_chosen(chosen)), chosen_by=PYTHON_VARIABLE
        )
    markers = sorted(cache_folder().glob(f"lava-*/{MARKER}"), key=_age_key, reverse=True)
    for marker in markers:
        if (found := _read_marker(marker.parent)) is not None:
            return found
    return None


def require() -> LavaEnvironment:
    """Return ``find()``'s environment or raise MissingDependencyError with the command."""
    if (found := find()) is None:
        raise MissingDependencyError(
            "Lava's environment is not set up",
            used=f"looked in {cache_folder()}",
            hint=f"run: {SETUP_COMMAND}",
        )
    return found


def setup(
    python: Path | None = None,
    force: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> LavaEnvironment:
    """Make Lava's environment in the user's cache, or return it if it is there.

    python: the interpreter to build it from (default: the running one); 3.10 to 3.13.
    force: build it anew. report: told each step in one line. Parallel calls wait for each
    other. MissingDependencyError: unfit interpreter or no venv module. ExternalToolError: pip
    or Lava's first import failed. OutputError: the cache cannot be written.
    """
    base = Path(sys.executable) if python is None else Path(python)
    version = _interpreter_version(base)
    folder = cache_folder() / f"lava-{version[0]}.{version[1]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(folder.name + ".lock")
        with locked(lock, report, "waiting for another set-up to finish"):
            found = None if force else _read_marker(folder)
            if found is not None:
                _mark_as_last(folder / MARKER)
                return found
            # Environments cannot be moved: built in place, the marker makes it valid.
            (folder / MARKER).unlink(missing_ok=True)
            if folder.exists():
                shutil.rmtree(folder)
            return _build(base, version, folder, report)
    except OSError as error:
        raise OutputError(
            f"cannot make Lava's environment: {error.strerror or error}",
            where=str(folder),
            hint=f"free some space, or set {CACHE_VARIABLE} to a writable folder",
        ) from error


def _build(
    base: Path, version: tuple[int, int], folder: Path, report: Callable[[str], None]
) -> LavaEnvironment:
    report(f"making a virtual environment with Python {version[0]}.{version[1]} in {folder}")
    made = _run([str(base), "-I", "-m", "venv", str(folder)], INSTALL_LIMIT_S)
    if made.returncode:
        raise MissingDependencyError(
            f"{base} cannot make virtual environments: {_tail(made)}",
            hint="install its venv module; on Debian and Ubuntu: "
            f"sudo apt install python{version[0]}.{version[1]}-venv",
        )
    python = folder / "bin" / "python"
    loose = ["--no-deps", "--ignore-requires-python"]
    if version == (3, 10):
        plan = [[LAVA, *DEPENDENCIES_310], ["--no-deps", LAVA_DL]]
    else:
        plan = [list(DEPENDENCIES), [*loose, LAVA, LAVA_DL]]
    for arguments in plan:
        report("installing " + " ".join(a for a in arguments if not a.startswith("-")))
        pip = [str(python), "-I", "-m", "pip", "install", "--no-input", *arguments]
        installed = _run(pip, INSTALL_LIMIT_S)
        if installed.returncode:
            raise ExternalToolError(
                f"pip could not install {' '.join(arguments)}: {_tail(installed)}",
                where=str(folder),
                hint="check the network and pip's settings, then run the set-up again",
            )
    report("importing Lava for the first time")
    versions = _probe(python)
    part = folder / (MARKER + ".part")
    part.write_text(json.dumps({"schema": 1, "versions": versions}, indent=1))
    _mark_as_last(part)
    os.replace(part, folder / MARKER)
    return LavaEnvironment(python=python, versions=versions, chosen_by="cache")


def _mark_as_last(marker: Path) -> None:
    """Make ``marker`` the newest: find() takes the environment that was set up last."""
    now = time.time_ns()  # finer than the file system's own clock
    os.utime(marker, ns=(now, now))


def _age_key(marker: Path) -> int:
    try:
        return marker.stat().st_mtime_ns
    except FileNotFoundError:  # a set-up in another process has just withdrawn it
        return 0


def _read_marker(folder: Path) -> LavaEnvironment | None:
    python = folder / "bin" / "python"
    try:
        marker = json.loads((folder / MARKER).read_text())
        versions = {str(k): str(v) for k, v in marker["versions"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if marker.get("schema") != 1 or not python.exists():
        return None
    return LavaEnvironment(python=python, versions=versions, chosen_by="cache")


def _interpreter_version(python: Path) -> tuple[int, int]:
    code = "import sys; print(*sys.version_info[:2])"
    answer = _run([str(python), "-I", "-c", code], PROBE_LIMIT_S)
    words = answer.stdout.split()
    if answer.returncode or len(words) != 2 or not all(w.isdigit() for w in words):
        raise MissingDependencyError(
            f"{python} is not a Python interpreter: {_tail(answer)}",
            hint="give the path of a Python 3.10 to 3.13",
        )
    version = (int(words[0]), int(words[1]))
    if version not in SUPPORTED:
        raise MissingDependencyError(
            f"Lava does not run on Python {version[0]}.{version[1]}",
            where=str(python),
            hint=f"{SETUP_COMMAND} --python PATH, with a Python 3.10 to 3.13",
        )
    return version


@functools.lru_cache(maxsize=8)
def _probe_chosen(python: str) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(_probe(Path(python)).items())
    except ExternalToolError as error:
        raise MissingDependencyError(
            f"{PYTHON_VARIABLE} names an interpreter that cannot import Lava: {error.message}",
            where=python,
            hint=f"unset {PYTHON_VARIABLE} and run: {SETUP_COMMAND}",
        ) from error


def _probe(python: Path) -> dict[str, str]:
    """Import Lava as the worker does and return the versions found."""
    answer = _run([str(python), "-I", "-B", str(WORKER), "--version"], PROBE_LIMIT_S)
    try:
        if answer.returncode:
            raise ValueError
        return {str(k): str(v) for k, v in json.loads(answer.stdout).items()}
    except ValueError:
        raise ExternalToolError(
            f"Lava's import failed: {_tail(answer)}",
            where=str(python),
            hint=f"{SETUP_COMMAND} --force",
        ) from None


def _run(command: Sequence[str], limit_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        text = f"no answer within {limit_s:g} s"
        return subprocess.CompletedProcess(command, 124, "", text)
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", error.strerror or str(error))


def _tail(answer: subprocess.CompletedProcess[str]) -> str:
    """Return the last words of a program: of its errors, else of its output."""
    text = answer.stderr.strip() or answer.stdout.strip()
    return last_lines(text, most=3, errors=("ERROR:",)) or f"exit code {answer.returncode}"
