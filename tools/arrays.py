"""The arrays of the papers beside ours, on the same tickets and spikes.

Run from the repository's root:

    python tools/arrays.py --work FOLDER [--mnist FOLDER] [--write]
    python tools/arrays.py --ticket MODEL --input X.npz

The first trains small tickets in FOLDER (those that stand there are taken as they are) and, with
--write, writes docs/arrays.md and docs/measured/arrays.json; --mnist adds tickets on MNIST's idx
files. The second takes a ticket and samples of yours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

ELEMENTS = 16
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A ticket to train, and the name of the table that it belongs to."""

    table: str
    data: str = "digits"
    arch: str = "mlp"
    method: str = "imp"
    sparsity: float = 0.95
    steps: int = 4

    @property
    def name(self) -> str:
        """The ticket's file name, without suffix."""
        return f"{self.data}-{self.arch}-{self.method}-{self.sparsity:g}-T{self.steps}"


JOBS = (
    *(Job(table="sparsity", sparsity=s) for s in (0.8, 0.9, 0.95, 0.98)),
    *(Job(table="sparsity", data="mnist", sparsity=s) for s in (0.9, 0.95, 0.98)),
    *(Job(table="sparsity", arch="conv", sparsity=s) for s in (0.8, 0.95)),
    *(Job(table="balance", method="uticket", sparsity=s) for s in (0.9, 0.95, 0.98)),
    *(Job(table="steps", steps=t) for t in (8, 16)),
)


def train(job: Job, work: Path, mnist: Path | None) -> tuple[Path, Path]:
    """Return the ticket and its test samples, trained where they do not stand in ``work`` yet."""
    ticket, samples = work / f"{job.name}.pt", work / f"{job.name}.npz"
    if not (ticket.exists() and samples.exists()):
        command = [sys.executable, "-m", "snn_deploy", "train", "--method", job.method]
        command += ["--arch", job.arch, "--data", job.data, "--sparsity", str(job.sparsity)]
        command += ["--steps", str(job.steps), "--output", str(ticket), "--test-set", str(samples)]
        if job.data == "mnist":
            command += ["--data-dir", str(mnist), "--limit", "2000"]
        command += ["--force", "--quiet", "--no-progress"]
        subprocess.run(command, check=True, cwd=ROOT)
    return ticket, samples


def measure(ticket: Path, inputs: Path, samples: int) -> Row:
    """Return the figures of one ticket on all arrays, per sample."""
    from snn_deploy.backends.base import Options
    from snn_deploy.backends.fpga.arrays.loas import Loas, loas, preprocessed
    from snn_deploy.backends.fpga.arrays.lockstep import lockstep, wave_utilisation
    from snn_deploy.backends.prepare import prepare
    from snn_deploy.backends.registry import target
    from snn_deploy.engine.load import spike_load
    from snn_deploy.frontends.load import load_model
    from snn_deploy.io.inputs import encode, read_for
    from snn_deploy.passes.pipeline import fold

    network, fpga = fold(load_model(ticket)), target("fpga")
    source = network.input_population
    data = read_for(inputs, {source.name: source.shape}).first(samples)
    x = encode(data, network.coding)
    shared, own = (
        prepare(network, fpga, Options(settings={"banks": ELEMENTS, "engines": engines}))
        for engines in (1, 0)
    )
    trace, pipelined = fpga.run(shared, x, "spikes"), fpga.run(own, x)
    assert shared.qnet is not None
    net, count = shared.qnet.network, len(x)

    def mean(values: Any) -> float:
        return float(values.sum()) / count

    def accuracy(output: Any) -> float | None:
        return None if data.y is None else float((network.readout.predict(output) == data.y).mean())

    neurons = [p.size for p in net.populations if p.name not in net.inputs]
    updates = sum(-(-size // ELEMENTS) for size in neurons)
    row: Row = {
        "samples": count,
        "steps": trace.steps,
        "accuracy": accuracy(trace.output),
        "accumulates": spike_load(net, trace, ELEMENTS).work / count,
        "update_cycles": updates,
        "mean_utilisation": wave_utilisation(net, ELEMENTS),
        "ours": {
            "cycles": mean(trace.timing["cycles"]),
            "pipelined_cycles": mean(pipelined.timing["cycles"]),
            "parts": parts(trace.timing, count),
        },
        "lockstep": {},
    }
    for skips in (False, True):
        for waits in ("wave", "layer", "event"):
            run = lockstep(net, trace, elements=ELEMENTS, waits=waits, skips_silent=skips)
            row["lockstep"][f"{'skips' if skips else 'gates'} {waits}"] = {
                "cycles": mean(run.cycles),
                "work": run.work / count,
                "idle": run.idle / count,
                "utilisation": run.utilisation,
                "spike_sparsity": 1 - run.accumulates / run.work if run.work else None,
            }
    masked = preprocessed(network, x)
    row["loas"] = {
        "plain": joined(loas(net, trace), count),
        "two_fast_sums": joined(loas(net, trace, Loas(adders=Loas().line_bits)), count),
        "dropped": joined(loas(net, masked), count) | {"accuracy": accuracy(masked.output)},
    }
    return row


def parts(timing: Any, count: int) -> dict[str, float]:
    """Return our cycles by part, summed over populations, whatever parts the target names."""
    found: dict[str, float] = {}
    for name, values in timing.items():
        kind, *where = name.split("/")
        if kind == "cycles" and len(where) == 2:
            found[where[1]] = found.get(where[1], 0.0) + float(values.sum()) / count
    return found


def joined(run: Any, count: int) -> Row:
    """Return the figures of one run of the inner join."""
    layers = run.layers
    return {
        "cycles": float(run.cycles.sum()) / count,
        "stepwise_cycles": float(run.stepwise_cycles.sum()) / count,
        "utilisation": run.utilisation,
        "silent": run.silent,
        "spike_sparsity": run.spike_sparsity,
        "matches": sum(int(layer.matches.sum()) for layer in layers) / count,
        "corrections": sum(int(layer.corrections.sum()) for layer in layers) / count,
        "packed_bits": sum(int(layer.packed_bits.sum()) for layer in layers) / count,
        "map_bits": sum(layer.map_bits for layer in layers),
        "coordinate_bits": sum(int(layer.coordinate_bits.sum()) for layer in layers) / count,
        "weight_bits": sum(layer.weight_bits for layer in layers),
    }


def rows_of(jobs: list[Job], work: Path, mnist: Path | None, samples: int) -> Iterator[Row]:
    """Train and measure, one ticket after the other."""
    work.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        found = measure(*train(job, work, mnist), samples)
        settings = {k: getattr(job, k) for k in ("table", "data", "arch", "method", "sparsity")}
        print(f"{job.name}: done", file=sys.stderr, flush=True)
        yield settings | found


def main() -> None:
    """Measure, print, and write where asked to."""
    from arrays_text import page, tables

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="folder of the tickets")
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's idx files")
    parser.add_argument("--ticket", type=Path)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="write docs/")
    options = parser.parse_args()
    if options.ticket is not None:
        if options.input is None or options.write:
            parser.error("--ticket goes with --input, and is not written")
        row = {"table": "sparsity", "data": options.ticket.stem, "arch": "", "method": ""}
        rows = [row | {"sparsity": None} | measure(options.ticket, options.input, options.samples)]
    elif options.work is None:
        parser.error("--work FOLDER, or --ticket MODEL --input X.npz")
    else:
        jobs = [j for j in JOBS if j.data != "mnist" or options.mnist is not None]
        rows = list(rows_of(jobs, options.work, options.mnist, options.samples))
    print("\n\n".join(tables(rows).values()))
    if options.write:
        report = {"schema": 1, "elements": ELEMENTS, "rows": rows}
        text = json.dumps(report, indent=2) + "\n"
        (ROOT / "docs" / "measured" / "arrays.json").write_text(text)
        (ROOT / "docs" / "arrays.md").write_text(page(rows))


if __name__ == "__main__":
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # before numpy is imported
    main()
