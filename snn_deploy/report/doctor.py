"""The report of ``doctor``."""

from __future__ import annotations

import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from snn_deploy._version import __version__
from snn_deploy.errors import MissingDependencyError
from snn_deploy.report.model import Report, Section, Table, Text

if TYPE_CHECKING:
    from snn_deploy.backends.loihi.environment import LavaEnvironment

_CORE = ("numpy", "scipy", "h5py", "numba", "nir", "click", "rich", "jinja2")
_EXTRA = {
    "torch": ("training, own models", "pip install 'snn-deploy[train]'"),
    "norse": ("judge of the CPU reference", "pip install 'snn-deploy[train]'"),
    "scikit-learn": ("the digits data", "pip install 'snn-deploy[train]'"),
}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _lava() -> tuple[str, str]:
    """Return Lava's version and purpose, or what is wrong with it and what mends it."""
    from snn_deploy.backends.loihi.environment import SETUP_COMMAND, find

    try:
        found = find()
    except MissingDependencyError as error:
        return "broken", f"Loihi's simulator: {error.message}; {error.hint}"
    if found is None:
        return "missing", f"Loihi's simulator: {SETUP_COMMAND}"
    versions = found.versions
    text = f"{versions.get('lava-nc', '?')} on Python {versions.get('python', '?')}"
    return text, f"Loihi's simulator, {found.python}"


def _fpga(name: str) -> tuple[str, str]:
    """Return an FPGA tool's version and purpose, or what is wrong and what mends it."""
    from snn_deploy.backends.fpga import tools

    try:
        found = tools.require(name)
    except MissingDependencyError as error:
        missing = "broken" if error.where else "missing"
        return missing, f"{tools.purpose(name)}: {error.message}; {error.hint}"
    where = found.command[0] if found.origin in ("PATH", tools.variable(name)) else found.origin
    return found.version, f"{tools.purpose(name)}, {where}"


def doctor_report() -> Report:
    """Return what is installed, what is missing, and the command that adds it."""
    from snn_deploy.backends.fpga.tools import NAMES
    from snn_deploy.io.cache import cache_folder

    rows: list[tuple[str, str, str]] = []
    for package in _CORE:
        rows.append((package, _version(package) or "missing", "core"))
    for package, (purpose, fix) in _EXTRA.items():
        found = _version(package)
        rows.append((package, found or "missing", purpose if found else f"{purpose}: {fix}"))
    rows.append(("lava", *_lava()))
    rows.extend((name, *_fpga(name)) for name in NAMES)
    facts = (
        ("snn-deploy", __version__),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("system", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("cache", str(cache_folder())),
        ("free disk", f"{shutil.disk_usage(_existing(cache_folder())).free / 2**30:.1f} GiB"),
    )
    return Report(
        command="doctor",
        title="doctor",
        sections=(
            Section(title="", items=(Text(lines=facts),)),
            Section(
                title="",
                items=(
                    Table(
                        title="", columns=("part", "version", "for"), rows=tuple(rows), align="lll"
                    ),
                ),
            ),
        ),
        data={
            "facts": dict(facts),
            "parts": [{"part": a, "version": b, "for": c} for a, b, c in rows],
        },
        rows=tuple({"part": a, "version": b, "for": c} for a, b, c in rows),
    )


def setup_report(what: str, made: LavaEnvironment) -> Report:
    """Return the report of ``setup``."""
    versions = tuple(sorted(made.versions.items()))
    return Report(
        command="setup",
        title=f"{what} is ready",
        sections=(Section(title="", items=(Text(lines=(("at", str(made.python)), *versions)),)),),
        data={"what": what, "interpreter": str(made.python), "versions": dict(versions)},
        rows=tuple({"part": part, "version": found} for part, found in versions),
    )


def _existing(path: object) -> str:
    from pathlib import Path

    folder = Path(str(path))
    while not folder.exists():
        folder = folder.parent
    return str(folder)
