"""The accelerator under Verilator: built once per design, run on many samples."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snn_deploy.backends.fpga import tools
from snn_deploy.backends.fpga.artifacts import SOURCES, TOP, source, write_images
from snn_deploy.backends.fpga.program import FpgaProgram
from snn_deploy.backends.fpga.verilog import (
    accelerator,
    bits_for,
    u_bits,
    v_bits,
    value_bits,
)
from snn_deploy.errors import ExternalToolError, OutputError, UsageError
from snn_deploy.io.cache import CACHE_VARIABLE, cache_folder
from snn_deploy.io.programs import last_words, locked, run_program
from snn_deploy.ir.arrays import Array

BUILD_LIMIT_S = 1800.0
RUN_LIMIT_S = 3600.0
BENCH = "bench.cpp"
_HANGS = 3  # the bench's exit code for a sample that does not end
#: Rows of JOBS: kind, sample, engine, layer, step, cycle, and the counters.
COUNTERS = ("rows", "pushes", "reads", "adds", "stalls")
KINDS = ("begin", "ingested", "sweeping", "swept", "scanned", "done")
_JOB = 6 + len(COUNTERS)
#: Returns what Verilator compiles, by file name.
Files = Callable[[FpgaProgram], Mapping[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """What the bench wrote down, int32: jobs (n, 11), words (n, 7 + 2 banks); see bench.cpp."""

    jobs: Array
    words: Array


def versions() -> str:
    """Return which Verilator runs; MissingDependencyError without it, a compiler or make."""
    for name in ("c++", "make"):
        tools.require(name)
    return str(tools.require("verilator"))


def files(program: FpgaProgram) -> dict[str, bytes]:
    """Return the hardware, its top level and the bench, by file name."""
    return {
        **{name: source(name) for name in (*SOURCES, BENCH)},
        TOP: accelerator(program).encode(),
        "engines.h": _constants(program).encode(),
    }


def simulate(
    program: FpgaProgram,
    x: Array,
    most_cycles: int,
    *,
    early: bool = False,
    files: Files = files,
) -> Recording:
    """Run whole numbers x (samples, steps, ...), 0 where there is no event.

    most_cycles: after which a sample is taken to hang. early: let samples stop early. files: of the
    simulation. Raises MissingDependencyError without the tools, ExternalToolError where one fails
    or the design hangs.
    """
    binary = build(program, files)
    with tempfile.TemporaryDirectory(prefix="snn-deploy-rtl-") as temporary:
        folder = Path(temporary)
        write_images(program, folder)
        _events(program, x).tofile(folder / "events.bin")
        arguments = ("events.bin", "jobs.bin", "words.bin", str(most_cycles), str(int(early)))
        ended = run_program(
            (str(binary), *arguments), name="the simulation", cwd=folder, timeout_s=RUN_LIMIT_S
        )
        if ended.code == _HANGS:
            raise ExternalToolError(
                "the simulated hardware does not finish a sample",
                used=f"{most_cycles:,} cycles",
                hint="report this with the model and the input: the model foresees when it ends",
            )
        if ended.code:
            raise ExternalToolError(
                f"the simulation {ended.how}",
                where=str(binary),
                used=last_words("the simulation", ended.output),
                hint="remove that file, so that it is built again",
            )
        jobs = np.fromfile(folder / "jobs.bin", np.int32).reshape(-1, _JOB)
        words = np.fromfile(folder / "words.bin", np.int32).reshape(-1, 7 + 2 * program.banks)
    return Recording(jobs=jobs, words=words)


def build(program: FpgaProgram, files: Files = files) -> Path:
    """Return the simulation of a design, compiled by Verilator unless the cache has it.

    Memory images are not part of it: one design runs any weights of the same sizes.
    """
    verilator = tools.require("verilator")
    compiler = tools.require("c++")
    make = tools.require("make")
    wanted = files(program)
    content = b"".join(name.encode() + b"\0" + wanted[name] for name in sorted(wanted))
    digest = hashlib.sha256(content + str((verilator, compiler)).encode()).hexdigest()[:24]
    cache = cache_folder() / "rtl"
    binary = cache / digest
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / f"{digest}.lock", tools.no_report, ""):
            if not binary.is_file():
                with tempfile.TemporaryDirectory(dir=_without_spaces(cache)) as temporary:
                    folder = Path(temporary)
                    for name, data in wanted.items():
                        (folder / name).write_bytes(data)
                    runtime = _Runtime(cache, str((verilator, compiler)))
                    tools.run(verilator, _arguments(), cwd=folder, timeout_s=BUILD_LIMIT_S)
                    runtime.give(folder / "obj")
                    tools.run(make, _MAKE, cwd=folder, timeout_s=BUILD_LIMIT_S)
                    runtime.keep(folder / "obj")
                    made = binary.with_suffix(".new")
                    shutil.copy2(folder / "obj" / "Vaccelerator", made)
                    os.replace(made, binary)
    except OSError as error:
        raise OutputError(
            f"cannot keep the compiled simulation: {error.strerror or error}",
            where=str(cache),
            hint=f"free some space, or set {CACHE_VARIABLE} to a writable folder",
        ) from error
    return binary


class _Runtime:
    """Verilator's own compiled objects, the same in every simulation and most of a small one."""

    NAMES = ("verilated.o", "verilated_threads.o")

    def __init__(self, cache: Path, made_by: str) -> None:
        key = json.dumps([made_by, _arguments(), _MAKE])
        self._folder = cache / f"runtime-{hashlib.sha256(key.encode()).hexdigest()[:24]}"

    def give(self, objects: Path) -> None:
        """Put them where make finds them, newer than what they come from."""
        if all((self._folder / name).is_file() for name in self.NAMES):
            for name in self.NAMES:
                shutil.copyfile(self._folder / name, objects / name)

    def keep(self, objects: Path) -> None:
        """Keep them for the next simulation."""
        self._folder.mkdir(exist_ok=True)
        for name in self.NAMES:
            made = self._folder / f"{name}.{os.getpid()}"
            if (objects / name).is_file() and not (self._folder / name).is_file():
                shutil.copyfile(objects / name, made)
                os.replace(made, self._folder / name)


def _without_spaces(cache: Path) -> Path:
    """Return a folder to build in: make cannot, where a path has a space."""
    for folder in (cache, Path(tempfile.gettempdir()).absolute()):
        if not any(c.isspace() for c in str(folder)):
            return folder
    raise UsageError(
        "the simulation cannot be built in a folder whose path has a space",
        where=str(folder),
        hint="set TMPDIR to a folder without one",
    )


_MAKE = (
    "-C", "obj", "-f", "Vaccelerator.mk", "-j", "2",
    # Verilator that was configured for another compiler leaves this empty.
    "CFG_CXXFLAGS_PCH_I=-include",
)  # fmt: skip


def _arguments() -> list[str]:
    return [
        "--cc", "--exe", "-O3", "-CFLAGS", "-O2 -std=c++17 -DVL_TIME_CONTEXT",
        "--top-module", "accelerator", "-DMONITOR", "-Wno-fatal", "-Wno-lint", "--Mdir", "obj",
        TOP, *SOURCES, BENCH,
    ]  # fmt: skip


def _constants(program: FpgaProgram) -> str:
    engines = " ".join(f"X({e.index}, {u_bits(e, program)})" for e in program.engines)
    return (
        f"#pragma once\n#define BANKS {program.banks}\n#define V_BITS {v_bits(program)}\n"
        f"#define ENGINES(X) {engines}\n"
    )


def _events(program: FpgaProgram, x: Array) -> Array:
    """Return the bench's input, int32."""
    flat = x.reshape(*x.shape[:2], -1)
    number, value = bits_for(program.input[1]), value_bits(program)
    parts = [np.array(flat.shape[:2], np.int64)]
    for step in flat.reshape(-1, flat.shape[2]):
        ids = np.flatnonzero(step)
        values = step[ids].astype(np.int64) & ((1 << value) - 1)
        parts += [np.array([ids.size]), ids | (values << number if value else 0)]
    return np.concatenate(parts).astype(np.int32)
