"""Measure what quantization-aware fine-tuning gives; writes docs/measured/qat.md and .json.

Run from the repository's root:  python tools/measure_qat.py
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SPARSITY = 0.95


def measure(
    arch: str, seed: int, targets: list[str], bits: list[int], folder: Path
) -> Iterator[dict[str, Any]]:
    """Train one ticket, fine-tune it for each grid, and yield figures, accuracies in percent."""
    import torch

    from snn_deploy.backends.arithmetics import ARITHMETICS
    from snn_deploy.frontends.state import load_state
    from snn_deploy.io.ticket import read_ticket
    from snn_deploy.tickets import loop
    from snn_deploy.tickets.config import TrainConfig, arranged, data_of, recipe_of, resolved
    from snn_deploy.tickets.models.build import build
    from snn_deploy.tickets.qat import Grid, fine_tune
    from snn_deploy.tickets.trainer import train

    config = resolved(
        TrainConfig(out=folder / f"{arch}-{seed}.pt", arch=arch, sparsity=SPARSITY, seed=seed)
    )
    assert config.round_epochs is not None
    trained = train(config)
    ticket = read_ticket(trained.path)
    data, recipe = data_of(config), recipe_of(config)
    x = torch.from_numpy(arranged(data.x_train, config))
    inputs = loop.evaluation_input(arranged(data.x_test, config), recipe, seed)
    for target in targets:
        for width in bits:
            with loop.deterministic(seed):
                model = build(arch, x.shape[1:], data.classes, hidden=config.hidden)
                load_state(model, ticket.state)
                result = fine_tune(
                    model,
                    x,
                    torch.from_numpy(data.y_train),
                    recipe,
                    Grid(arithmetic=ARITHMETICS[target], bits=width),
                    epochs=config.round_epochs,
                    seed=seed,
                    masks={k: torch.tensor(m).bool() for k, m in ticket.masks.items()},
                    example_input=x[:1],
                    coding=ticket.graph["coding"],
                    inputs=inputs,
                    labels=data.y_test,
                )
            nonzeros = sum(int(torch.count_nonzero(model.state_dict()[k])) for k in ticket.masks)
            yield {
                "arch": arch,
                "target": target,
                "bits": width,
                "seed": seed,
                "epochs": result.epochs,
                "float_percent": 100 * trained.ticket_accuracy,
                "integer_percent": 100 * result.accuracy_before,
                "qat_percent": 100 * result.accuracy,
                "nonzeros": trained.nonzeros,
                "qat_nonzeros": nonzeros,
            }


def table(rows: list[dict[str, Any]]) -> str:
    """Return means over the seeds, and each seed's figures, as a Markdown table."""
    lines = [
        "| net | target | bits | float % | integers % | fine-tuned % | nonzeros | by seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((r["arch"], r["target"], r["bits"]) for r in rows):
        mine = [r for r in rows if (r["arch"], r["target"], r["bits"]) == key]
        mean = {k: statistics.mean(r[k] for r in mine) for k in mine[0] if k.endswith("_percent")}
        kept = statistics.mean(r["qat_nonzeros"] / r["nonzeros"] for r in mine)
        seeds = ", ".join(f"{r['integer_percent']:.1f} to {r['qat_percent']:.1f}" for r in mine)
        lines.append(
            f"| {key[0]} | {key[1]} | {key[2]} | {mean['float_percent']:.2f} "
            f"| {mean['integer_percent']:.2f} | {mean['qat_percent']:.2f} "
            f"| {100 * kept:.1f} % | {seeds} |"
        )
    return "\n".join(lines)


def write(rows: list[dict[str, Any]], out: Path) -> None:
    """Write both files."""
    import torch

    order = list(dict.fromkeys(r["arch"] for r in rows))
    rows.sort(key=lambda r: (order.index(r["arch"]), r["target"], -r["bits"], r["seed"]))
    seeds = {r["seed"] for r in rows}
    where = f"{platform.machine()}, one thread, torch {torch.__version__}"
    text = f"""# Quantization-aware fine-tuning on the 8x8 digits

Made by `python tools/measure_qat.py` ({where}); every figure is in [qat.json](qat.json).
Tickets of {100 * SPARSITY:g} % sparsity, rate-coded input, accuracy by spike count on the same 450
test images (one image is 0.22 points), means over {len(seeds)} seeds. "float" is the trained
ticket, "integers" the same weights rounded, "fine-tuned" the integers after as many epochs as a
pruning round has (mlp 10, conv 7). Nonzeros are those of the fine-tuned weights, of those that the
masks keep: coarse grids round small weights to zero. The last epoch counts, nothing was chosen on
the test images within a run; its learning rate, and that scales of 4 bits and fewer are of least
squared error, were chosen by looking at such tables. Take differences of less than a point as
noise.

{table(rows)}
"""
    out.mkdir(parents=True, exist_ok=True)
    (out / "qat.md").write_text(text)
    (out / "qat.json").write_text(json.dumps(rows, indent=1) + "\n")


def main() -> None:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", nargs="+", default=["mlp", "conv"])
    parser.add_argument("--targets", nargs="+", default=["loihi"])
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 6, 4, 3, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measured")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for arch in args.arch:
            for seed in args.seeds:
                for row in measure(arch, seed, args.targets, args.bits, Path(folder)):
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    write(rows, args.out)


if __name__ == "__main__":
    main()
