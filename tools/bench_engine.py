"""The integer engine against Lava, per sample, in one run; prints JSON. Started by bench.py.

    python tools/bench_engine.py NETWORK.net MNIST_FOLDER [--repeat 5]

NETWORK.net and MNIST_FOLDER: as in measure_netx.py. One thread each: the engine's own process;
Lava forks a process per node, so its wall time may use more cores than one, and the processor
time of all its processes stands beside it. Lava's times are those of its run alone, without
starting and building. Every mode's output spikes are compared with the engine's.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"  # before numpy is imported

import argparse  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

STEPS = 32
NUMPY_IMAGES = 500
#: Samples side by side in Lava, and how many run: 1 is one after the other on Dense synapses.
LAVA = ((1, 16), (8, 64), (16, 64), (32, 128), (64, 128), (128, 256), (256, 256))


def timed(work: Callable[[], Any], repeat: int, samples: int) -> dict[str, Any]:
    """Return the median wall and processor seconds per sample."""
    wall, cpu = [], []
    for _ in range(repeat):
        began, used = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    return {
        "samples": samples,
        "wall_s": statistics.median(wall) / samples,
        "cpu_s": statistics.median(cpu) / samples,
    }


def lava(job: Any, copies: int, samples: int, output: Any) -> dict[str, Any]:
    """Return what a Lava run of the first samples took; its spikes must be ``output``'s."""
    from snn_deploy.backends.loihi.process import run_job

    spikes = job.inputs[0].spikes[:samples]
    job = replace(
        job, side_by_side=copies, inputs=(replace(job.inputs[0], spikes=spikes),), record="spikes"
    )
    result = run_job(job, timeout_s=600.0)
    (recording,) = result.recordings.values()
    if not np.array_equal(recording.spikes, output[:samples]):
        raise SystemExit("Lava and the engine differ in the output's spikes")
    return {
        "copies": copies,
        "samples": samples,
        "wall_s": result.run_s / samples,
        "cpu_s": result.cpu_s / samples,
        "version": f"lava-nc {result.versions['lava-nc']} on Python {result.versions['python']}",
    }


def measure(net: Path, folder: Path, repeat: int) -> dict[str, Any]:
    """Return the times of both paths of the engine and of Lava's modes."""
    from measure_netx import encoded, mnist

    from snn_deploy.backends.loihi.oracle import job_of
    from snn_deploy.backends.loihi.target import LoihiTarget
    from snn_deploy.backends.prepare import prepare
    from snn_deploy.engine.fixed import FixedEngine
    from snn_deploy.io.netx_read import NetxOptions, read_netx
    from snn_deploy.passes.pipeline import fold

    network = fold(read_netx(net, NetxOptions(dt_s=1e-3)))
    program = prepare(network, LoihiTarget())
    x = encoded(mnist(folder)[0], STEPS)
    engine = FixedEngine(program.qnet)
    assert engine.compiles(*x.shape[:2])
    began = time.perf_counter()
    output = engine.run(x).output
    first = time.perf_counter() - began
    plain = FixedEngine(program.qnet, compile_from=float("inf"))
    few = x[:NUMPY_IMAGES]
    if not np.array_equal(plain.run(few).output, output[:NUMPY_IMAGES]):
        raise SystemExit("the engine's two paths differ")
    # Before and after Lava, so that a neighbour's load on the machine meets both.
    ours = [timed(lambda: engine.run(x), repeat, len(x))]
    job = job_of(program, x[: max(samples for _, samples in LAVA)])
    job = replace(job, recorded=network.outputs)
    theirs = [lava(job, copies, samples, output) for copies, samples in LAVA]
    ours.append(timed(lambda: engine.run(x), repeat, len(x)))
    return {
        "network": network.source.sha256,
        "steps": STEPS,
        "first_s": first,
        "compiled": max(ours, key=lambda found: found["wall_s"]),
        "numpy": timed(lambda: plain.run(few), 1, len(few)),
        "lava": theirs,
        "spikes": int(output[: max(samples for _, samples in LAVA)].sum()),
    }


def text(found: dict[str, Any]) -> list[str]:
    """Return the lines of the report."""
    ours, plain = found["compiled"], found["numpy"]
    best = min(found["lava"], key=lambda mode: mode["wall_s"])
    lines = [
        "## The integer engine and Lava",
        "",
        "`python tools/bench.py --only engine --net NETWORK.net --mnist MNIST_FOLDER --write`",
        "",
        f"784-128-64-10, dense (SHA-256 {found['network'][:16]}...), MNIST test images as spikes, "
        f"{found['steps']} steps; {best['version']}. The engine runs on one thread; Lava forks a "
        "process per node, and its processor time is that of all of them. Lava's times are "
        "those of its run, without starting and building.",
        "",
        "| what | samples | wall time per sample | processor time per sample |",
        "|---|---:|---:|---:|",
    ]
    rows = [("engine, compiled", ours), ("engine, numpy", plain)]
    for mode in found["lava"]:
        how = "one after the other" if mode["copies"] == 1 else f"{mode['copies']} side by side"
        rows.append((f"Lava, {how}", mode))
    for name, row in rows:
        times = f"{row['wall_s'] * 1e6:,.1f} us | {row['cpu_s'] * 1e6:,.1f} us"
        lines.append(f"| {name} | {row['samples']:,} | {times} |")
    wall, cpu = (
        min(mode[kind] for mode in found["lava"]) / ours[kind] for kind in ("wall_s", "cpu_s")
    )
    compared = max(mode["samples"] for mode in found["lava"])
    return [
        *lines,
        "",
        f"Lava's fastest mode takes {wall:,.0f} times the engine's wall time per sample, and the "
        f"one that needs least {cpu:,.0f} times its processor time. In every mode the output's "
        f"spikes are equal ({found['spikes']:,} in {compared} samples). The engine's first run of "
        f"{ours['samples']:,} images, machine code made or read, took {found['first_s']:.1f} s.",
        "",
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("net", type=Path)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    print(json.dumps(measure(options.net, options.mnist, options.repeat)))


if __name__ == "__main__":
    main()
