"""Measure dense and ticket accuracy on the digits; writes docs/measured/tickets.md and .json.

Run from the repository's root:  python tools/measure_tickets.py
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

ARCHITECTURES = ("mlp", "recurrent", "conv")


def measure(arch: str, seed: int, sparsity: float, folder: Path) -> dict[str, Any]:
    """Train one ticket and return its figures, accuracies in percent."""
    from snn_deploy.tickets.trainer import TrainConfig, resolved, train

    config = TrainConfig(
        out=folder / f"{arch}-{seed}.pt", arch=arch, data="digits", sparsity=sparsity, seed=seed
    )
    result = train(config)
    settings = dataclasses.asdict(resolved(config))
    del settings["out"], settings["data_dir"]
    return {
        "arch": arch,
        "seed": seed,
        "sparsity": result.sparsity,
        "nonzeros": result.nonzeros,
        "weights": result.weights,
        "dense_percent": 100 * result.dense_accuracy,
        "ticket_percent": 100 * result.ticket_accuracy,
        "loss_points": 100 * (result.dense_accuracy - result.ticket_accuracy),
        "rounds": [100 * r.accuracy for r in result.rounds],
        "seconds": result.seconds,
        "settings": settings,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as a Markdown table with a mean per architecture."""
    lines = [
        "| net | seed | weights | kept | dense % | ticket % | lost points | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arch in dict.fromkeys(row["arch"] for row in rows):
        mine = [row for row in rows if row["arch"] == arch]
        for row in mine:
            lines.append(
                f"| {arch} | {row['seed']} | {row['weights']:,} | {row['nonzeros']:,} "
                f"| {row['dense_percent']:.2f} | {row['ticket_percent']:.2f} "
                f"| {row['loss_points']:.2f} | {row['seconds']:.0f} |"
            )
        mean = {
            key: statistics.mean(row[key] for row in mine)
            for key in ("dense_percent", "ticket_percent", "loss_points", "seconds")
        }
        lines.append(
            f"| {arch} | mean | | | {mean['dense_percent']:.2f} | {mean['ticket_percent']:.2f} "
            f"| {mean['loss_points']:.2f} | {mean['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and write both files."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measured")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for arch in args.arch or ARCHITECTURES:
            for seed in args.seeds:
                row = measure(arch, seed, args.sparsity, Path(folder))
                rows.append(row)
                print(
                    f"{arch} seed {seed}: dense {row['dense_percent']:.2f} %, ticket "
                    f"{row['ticket_percent']:.2f} %, {row['seconds']:.0f} s",
                    file=sys.stderr,
                )
    machine = f"{platform.machine()}, one thread, torch {torch.__version__}"
    args.out.mkdir(parents=True, exist_ok=True)
    report = {"schema": 1, "machine": machine, "rows": rows}
    (args.out / "tickets.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    text = f"""# Tickets on the 8x8 digits

Made by `python tools/measure_tickets.py` ({machine}); settings and every round are in
[tickets.json](tickets.json). Iterative magnitude pruning to {100 * args.sparsity:g} % sparsity with
late rewinding, rate-coded input, accuracy by spike count on the same 450 test images
(one image is 0.22 points). No choice was made on the test images within a run; the default
widths, epochs and learning rate were chosen by looking at such tables, so take differences of
less than a point as noise. Seconds are of a shared machine.

{table(rows)}
"""
    (args.out / "tickets.md").write_text(text)
    print(table(rows))


if __name__ == "__main__":
    main()
