"""Speed and memory, measured: start-up, export of large tickets, engines and training by peers.

    python tools/bench.py [--repeat 5] [--only NAME] [--write] [--net NETWORK.net --mnist FOLDER]

Prints tables; --write also stores docs/measured/bench.md and .json, where a bench that was not
run keeps what stands there. Times are medians of whole processes, and per sample those of
bench_engine.py, which takes --net and --mnist; on a shared machine compare ratios, not times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "snn_deploy"]
TARGETS = ("cpu", "loihi", "fpga")


def timed(command: list[str], repeat: int, cwd: Path) -> tuple[float, float]:
    """Return (median seconds, peak MB) of a command's runs in children of their own."""
    seconds, peak = [], 0.0
    for _ in range(repeat):
        start = time.perf_counter()
        child = subprocess.Popen(
            command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert child.stderr is not None
        words = child.stderr.read().decode()
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)} failed:\n{words}")
        seconds.append(time.perf_counter() - start)
        peak = max(peak, usage.ru_maxrss / 1024)
    return statistics.median(seconds), peak


def large_mlp(path: Path) -> int:
    """Write an MLP ticket of 15 million weights, 98 % of them pruned; returns the weights."""
    sys.path.insert(0, str(ROOT))
    import torch
    from torch import nn

    from snn_deploy.frontends.state import save_ticket
    from snn_deploy.tickets.lif import LIF

    torch.manual_seed(0)
    sizes = (784, 4096, 2880, 10)
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), LIF(tau_s=2e-3, dt_s=1e-3)]
    return _save(nn.Sequential(*layers), path, torch.zeros(1, 784), save_ticket)


def large_conv(path: Path) -> int:
    """Write a VGG16 ticket (13 convolutions, batch norm) of 14.7 million weights, 98 % pruned."""
    sys.path.insert(0, str(ROOT))
    import torch
    from torch import nn

    from snn_deploy.frontends.state import save_ticket
    from snn_deploy.tickets.lif import LIF

    torch.manual_seed(0)
    plan = (64, 64, "P", 128, 128, "P", 256, 256, 256, "P", 512, 512, 512, "P", 512, 512, 512, "P")
    layers: list[nn.Module] = []
    channels = 3
    for entry in plan:
        if entry == "P":
            layers.append(nn.AvgPool2d(2))
            continue
        assert isinstance(entry, int)
        layers += [
            nn.Conv2d(channels, entry, 3, padding=1, bias=False),
            nn.BatchNorm2d(entry),
            LIF(tau_s=2e-3, dt_s=1e-3),
        ]
        channels = entry
    layers += [nn.Flatten(), nn.Linear(512, 10), LIF(tau_s=2e-3, dt_s=1e-3)]
    return _save(nn.Sequential(*layers).eval(), path, torch.zeros(1, 3, 32, 32), save_ticket)


def _save(module, path, example, save_ticket) -> int:
    import torch

    weights = [p for n, p in module.named_parameters() if p.ndim > 1]
    with torch.no_grad():
        for weight in weights:
            weight.mul_(torch.rand_like(weight) < 0.02)
    coding = {"kind": "rate", "steps": 16, "seed": 0}
    save_ticket(module, path, example_input=example, dt_s=1e-3, coding=coding)
    return sum(w.numel() for w in weights)


def bench_help(repeat: int, folder: Path) -> list[dict]:
    seconds, peak = timed([*COMMAND, "--help"], max(repeat, 9), folder)
    return [{"name": "snn-deploy --help", "seconds": seconds, "peak_mb": peak, "target": "0.15 s"}]


def bench_import(repeat: int, folder: Path) -> list[dict]:
    bare, _ = timed([sys.executable, "-c", "pass"], max(repeat, 9), folder)
    seconds, peak = timed([sys.executable, "-c", "import snn_deploy"], max(repeat, 9), folder)
    row = {"name": "import snn_deploy (beyond python itself)", "peak_mb": peak}
    return [row | {"seconds": max(0.0, seconds - bare), "target": "0.10 s"}]


def bench_export(repeat: int, folder: Path) -> list[dict]:
    rows = []
    for name, make in (("MLP", large_mlp), ("VGG16", large_conv)):
        path = folder / f"{name}.pt"
        # In a child: building it in torch must not count towards what export needs.
        code = (
            "import sys, pathlib, bench; "
            "print(getattr(bench, sys.argv[1])(pathlib.Path(sys.argv[2])))"
        )
        made = subprocess.run(
            [sys.executable, "-c", code, make.__name__, str(path)],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        )
        weights = int(made.stdout)
        for target in TARGETS:
            command = [*COMMAND, "export", str(path), "-t", target, "-o", f"{name}-{target}"]
            seconds, peak = timed([*command, "--force", "-q"], min(repeat, 3), folder)
            rows.append(
                {
                    "name": f"export {name}, {weights / 1e6:.1f} M weights, 98 % sparse, {target}",
                    "seconds": seconds,
                    "peak_mb": peak,
                    "target": "10 s, 1,536 MB",
                }
            )
    return rows


def bench_engine(options: argparse.Namespace) -> dict | None:
    """Return bench_engine.py's figures, or None, said, without its data."""
    if not (options.net and options.net.is_file() and options.mnist and options.mnist.is_dir()):
        print("engine: skipped; give --net NETWORK.net and --mnist FOLDER (see bench_engine.py)")
        return None
    script = ROOT / "tools" / "bench_engine.py"
    paths = [str(options.net.resolve()), str(options.mnist.resolve())]
    command = [sys.executable, str(script), *paths, "--repeat", str(options.repeat)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def bench_training(options: argparse.Namespace) -> dict:
    """Return bench_training.py's figures."""
    script = ROOT / "tools" / "bench_training.py"
    command = [sys.executable, str(script), "--repeat", str(max(options.repeat, 9))]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


BENCHES = {"help": bench_help, "import": bench_import, "export": bench_export}


def table(rows: list[dict]) -> list[str]:
    """Return the lines of the table of whole processes."""
    lines = ["| what | median | peak memory | wanted |", "|---|---:|---:|---|"]
    for row in rows:
        cells = f"{row['seconds']:.2f} s | {row['peak_mb']:,.0f} MB | {row['target']}"
        lines.append(f"| {row['name']} | {cells} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", choices=(*BENCHES, "engine", "training"))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--net", type=Path, help="for engine: a .net file of 784 inputs")
    parser.add_argument("--mnist", type=Path, help="for engine: the folder of MNIST's .gz files")
    options = parser.parse_args()
    results: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as name:
        for key, bench in BENCHES.items():
            if options.only in (None, key):
                results[key] = bench(options.repeat, Path(name))
    engine = bench_engine(options) if options.only in (None, "engine") else None
    training = bench_training(options) if options.only in (None, "training") else None
    print("\n".join(report(results, engine, training)))
    if options.write:
        write(results, engine, training)


def report(results: dict[str, list[dict]], engine: dict | None, training: dict | None) -> list[str]:
    """Return the lines of all tables."""
    import bench_engine as engine_bench

    rows = [row for found in results.values() for row in found]
    lines = (table(rows) if rows else []) + (engine_bench.text(engine) if engine else [])
    if training:
        import bench_training as training_bench

        lines += training_bench.text(training)
    return lines


def write(results: dict[str, list[dict]], engine: dict | None, training: dict | None) -> None:
    """Store what was measured; what was not keeps the figures that stand there."""
    folder = ROOT / "docs" / "measured"
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "bench.json"
    before = json.loads(store.read_text()) if store.is_file() else {}
    results = {key: results.get(key) or before.get(key, []) for key in BENCHES}
    engine = engine or before.get("engine")
    training = training or before.get("training")
    machine = (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}"
    )
    head = f"`python tools/bench.py --write`, {machine}, shared with other work."
    lines = ["# Speed and memory", "", head, "", *report(results, engine, training)]
    (folder / "bench.md").write_text("\n".join(lines))
    content = {"machine": machine, **results, "engine": engine, "training": training}
    store.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
