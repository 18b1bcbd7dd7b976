"""Train the tickets and measure what Loihi's integers make of them.

Run from the repository's root:
    python tools/measure_loihi.py FOLDER --mnist DIR --nmnist DIR

FOLDER gets the tickets that it lacks. Figures go to docs/measured/loihi.json as they come, and
docs/measured/loihi.md is made from it; what is measured already is kept unless --again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# (data, architecture): sparsities in percent. All other settings are the trainer's defaults.
TICKETS = {
    ("digits", "mlp"): (90, 95, 98),
    ("digits", "conv"): (90, 95, 98),
    ("digits", "recurrent"): (90, 95, 98),
    ("mnist", "mlp"): (90, 95, 98),
    ("mnist", "recurrent"): (90, 95),
    ("mnist", "conv"): (90, 95),
    ("nmnist", "mlp"): (90, 95),
    ("nmnist", "conv"): (90, 95),
}


def train_missing(args: argparse.Namespace) -> None:
    """Train the tickets that the folder lacks, going on where a run was interrupted."""
    from snn_deploy.tickets.trainer import TrainConfig, checkpoint_path, train

    args.folder.mkdir(parents=True, exist_ok=True)
    for data, arch, percent, path in chosen(args):
        if path.exists():
            continue
        config = TrainConfig(
            out=path,
            arch=arch,
            data=data,
            data_dir=folder_of(data, args),
            sparsity=percent / 100,
            resume=checkpoint_path(path).exists(),
        )
        result = train(
            config,
            progress=lambda p: say(
                f"{path.stem} {p.phase} {p.epoch}: {p.loss:.3f} {p.accuracy:.4f}"
            ),
        )
        say(
            f"{path.stem}: dense {100 * result.dense_accuracy:.2f} %, ticket "
            f"{100 * result.ticket_accuracy:.2f} %, {result.seconds:.0f} s, rounds {[r.accuracy for r in result.rounds]}"
        )


def chosen(args: argparse.Namespace) -> list[tuple[str, str, int, Path]]:
    """Return (data, architecture, percent, path) of the tickets asked for."""
    return [
        (data, arch, percent, args.folder / f"{data}-{arch}-{percent}.pt")
        for (data, arch), sparsities in TICKETS.items()
        for percent in sparsities
        if not args.only or f"{data}-{arch}-{percent}".startswith(tuple(args.only))
    ]


def folder_of(data: str, args: argparse.Namespace) -> Path | None:
    """Return the user's folder of a data set; the digits need none."""
    folders: dict[str, Path | None] = {"mnist": args.mnist, "nmnist": args.nmnist}
    return folders.get(data)


def say(line: str) -> None:
    """Show progress."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Train, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the tickets")
    parser.add_argument("--mnist", type=Path, help="folder of the four idx files")
    parser.add_argument("--nmnist", type=Path, help="folder of recordings")
    parser.add_argument("--only", nargs="+", help="tickets whose names begin so")
    args = parser.parse_args()
    train_missing(args)


if __name__ == "__main__":
    main()
