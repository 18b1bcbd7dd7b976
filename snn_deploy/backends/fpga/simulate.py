"""The accelerator under Verilator: built once per design, run on many samples."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snn_deploy.backends.fpga.images import hex_image, images
from snn_deploy.backends.fpga.program import FpgaProgram
from snn_deploy.backends.fpga.verilog import (
    accelerator,
    bits_for,
    prefix,
    u_bits,
    v_bits,
    value_bits,
)
from snn_deploy.ir.arrays import Array

from snn_deploy.backends.fpga.artifacts import SOURCES, source, write_images


def write_sources(program: FpgaProgram, folder: Path) -> None:
    for name in (*SOURCES, "bench.cpp"):
        (folder / name).write_bytes((RTL / name).read_bytes())
    (folder / "accelerator.sv").write_text(accelerator(program))
    engines = " ".join(f"X({e.index}, {u_bits(e, program)})" for e in program.engines)
    (folder / "engines.h").write_text(
        f"#pragma once\n#define BANKS {program.banks}\n#define V_BITS {v_bits(program)}\n"
        f"#define ENGINES(X) {engines}\n"
    )


def write_images(program: FpgaProgram, folder: Path) -> None:
    for engine in program.engines:
        for name, width, words in images(program, engine):
            (folder / f"{prefix(engine)}{name}.hex").write_bytes(hex_image(words, width))


def build(program: FpgaProgram, cache: Path) -> Path:
    import sys

    work = cache / "new"
    work.mkdir(parents=True, exist_ok=True)
    write_sources(program, work)
    digest = hashlib.sha256(
        b"".join(
            (work / n).read_bytes() for n in (*SOURCES, "bench.cpp", "accelerator.sv", "engines.h")
        )
    ).hexdigest()[:16]
    binary = cache / digest
    if binary.is_file():
        return binary
    verilator = Path(sys.executable).parent / "verilator-cli"
    done = subprocess.run(
        [
            verilator,
            "--cc",
            "--exe",
            "--build",
            "-j",
            "2",
            "-O3",
            "-CFLAGS",
            "-O2 -std=c++17",
            "--top-module",
            "accelerator",
            "-DMONITOR",
            "-Wall",
            "-Wno-UNUSEDSIGNAL",
            "-Wno-UNUSEDPARAM",
            "-Wno-PINCONNECTEMPTY",
            "--Mdir",
            "obj",
            "accelerator.sv",
            *SOURCES,
            "bench.cpp",
        ],
        cwd=work,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stdout[-3000:] + done.stderr[-6000:])
    (work / "obj" / "Vaccelerator").rename(binary)
    return binary


@dataclass
class Simulation:
    jobs: Array
    words: Array
    banks: int


def simulate(program: FpgaProgram, x: Array, cache: Path, limit: int = 10_000_000) -> Simulation:
    binary = build(program, cache)
    run = cache / "run"
    run.mkdir(exist_ok=True)
    write_images(program, run)
    flat = x.reshape(*x.shape[:2], -1)
    parts = [np.array(flat.shape[:2], np.int32)]
    id_bits, value = bits_for(program.input[1]), value_bits(program)
    for sample in flat:
        for step in sample:
            ids = np.flatnonzero(step)
            events = ids.astype(np.int64)
            if value:
                events = events | ((step[ids].astype(np.int64) & ((1 << value) - 1)) << id_bits)
            parts.append(np.array([ids.size], np.int32))
            parts.append(events.astype(np.int32))
    np.concatenate(parts).tofile(run / "events.bin")
    done = subprocess.run(
        [binary, "events.bin", "jobs.bin", "words.bin", str(limit)],
        cwd=run,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{done.returncode} {done.stderr}")
    jobs = np.fromfile(run / "jobs.bin", np.int32).reshape(-1, 11)
    words = np.fromfile(run / "words.bin", np.int32).reshape(-1, 7 + 2 * program.banks)
    return Simulation(jobs=jobs, words=words, banks=program.banks)
