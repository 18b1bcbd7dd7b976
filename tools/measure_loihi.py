"""Train the tickets and measure what Loihi's integers make of them.

    python tools/measure_loihi.py FOLDER --mnist DIR --nmnist DIR [--verify N] [--only NAME...]

FOLDER gets the tickets that it lacks, an interrupted training goes on where it was. Figures go to
docs/measured/loihi.json as they come, and docs/measured/loihi.md is made from it. A row that is
there already is kept while its ticket is the same file, unless --again, or unless its check in
Lava could not run. A data set whose folder is not given keeps its rows.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from snn_deploy.io.files import sha256_file, write_json, write_text  # noqa: E402

if TYPE_CHECKING:
    from snn_deploy.ir.network import Network
    from snn_deploy.ir.quantized import QNetwork
    from snn_deploy.tickets.trainer import TrainConfig

# (data, architecture): sparsities in percent. All settings but SETTINGS are the trainer's defaults.
TICKETS = {
    ("digits", "mlp"): (90, 95, 98),
    ("digits", "recurrent"): (90, 95, 98),
    ("digits", "conv"): (90, 95, 98),
    ("mnist", "mlp"): (90, 95, 98),
    ("mnist", "recurrent"): (90, 95),
    ("mnist", "conv"): (90, 95),
    ("nmnist", "mlp"): (90, 95),
    ("nmnist", "conv"): (90, 95),
}
# Half of the images: convolutions are slow to train, and half are enough.
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {("mnist", "conv"): {"limit": 30_000}}
# (weight bits, whether every layer has a weight exponent)
WAYS = ((8, False), (6, False), (4, False), (8, True))
# Points of accuracy that integers may cost, by weight bits, without exponents and with.
LIMITS = {(8, False): 1.0, (8, True): 1.0, (6, False): 2.0}
BATCH = 250
NETX_SAMPLES = 3  # netx runs samples one after the other, as the file says
GUIDE = ROOT / "docs" / "loihi.md"
MARKS = ("<!-- table: tools/measure_loihi.py -->\n", "<!-- end of table -->")

Row = dict[str, Any]


def main() -> None:
    """Train, measure, and write both files after every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the tickets")
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's four idx files")
    parser.add_argument("--nmnist", type=Path, help="folder of N-MNIST's recordings")
    parser.add_argument("--verify", type=int, default=20, metavar="N", help="samples in Lava")
    parser.add_argument("--only", nargs="+", default=[""], help="tickets whose names begin so")
    parser.add_argument("--train-only", action="store_true", help="measure nothing")
    parser.add_argument("--no-train", action="store_true", help="leave out missing tickets")
    parser.add_argument("--again", action="store_true", help="measure every row again")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measured")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    file = args.out / "loihi.json"
    rows: list[Row] = json.loads(file.read_text())["rows"] if file.exists() else []
    for config, percent in wanted(args):
        name = Path(config.out).stem
        if not Path(config.out).exists() and not args.no_train:
            train(config, name)
        if args.train_only or not Path(config.out).exists():
            continue
        digest = sha256_file(config.out)
        ticket = {"data": config.data, "arch": config.arch, "percent": percent, "sha256": digest}
        kept = [] if args.again else [r for r in rows if ticket.items() <= r.items() and checked(r)]
        missing = [w for w in WAYS if w not in map(way, kept)]
        for figures in measure(config, missing, args.verify):
            row = {**ticket, **figures}
            rows = sorted([*(r for r in rows if place(r) != place(row)), row], key=place)
            store(rows, args.out)
            say(f"{name} {label(way(row))}: {summary(row)}")


def wanted(args: argparse.Namespace) -> list[tuple[TrainConfig, int]]:
    """Return the configuration and the percentage of every ticket that was asked for."""
    from snn_deploy.tickets.trainer import TrainConfig, resolved

    folders: dict[str, Path | None] = {"mnist": args.mnist, "nmnist": args.nmnist}
    found = []
    for (data, arch), sparsities in TICKETS.items():
        for percent in sparsities:
            name = f"{data}-{arch}-{percent}"
            if not name.startswith(tuple(args.only)):
                continue
            if data in folders and folders[data] is None:
                say(f"{name}: left out, no folder of {data} is given")
            else:
                config = TrainConfig(
                    out=args.folder / f"{name}.pt",
                    arch=arch,
                    data=data,
                    data_dir=folders.get(data),
                    sparsity=percent / 100,
                    **SETTINGS.get((data, arch), {}),
                )
                found.append((resolved(config), percent))
    return found


def train(config: TrainConfig, name: str) -> None:
    """Train one ticket, or go on with it."""
    from dataclasses import replace

    from snn_deploy.tickets.trainer import checkpoint_path
    from snn_deploy.tickets.trainer import train as run

    def show(p: Any) -> None:
        if p.epoch == p.epochs:
            say(f"{name} {p.phase}: loss {p.loss:.3f}, accuracy {100 * p.accuracy:.1f} %")

    result = run(replace(config, resume=checkpoint_path(config.out).exists()), progress=show)
    say(
        f"{name}: dense {100 * result.dense_accuracy:.2f} %, ticket "
        f"{100 * result.ticket_accuracy:.2f} %, {result.seconds:.0f} s"
    )


def measure(config: TrainConfig, ways: list[tuple[int, bool]], samples: int) -> Iterator[Row]:
    """Yield the figures of one ticket in Loihi's integers, by weight bits.

    samples: how many of the test samples Lava runs.
    """
    import snn_deploy
    from snn_deploy.engine.event import EventEngine
    from snn_deploy.engine.fixed import FixedEngine
    from snn_deploy.io.inputs import encode
    from snn_deploy.io.ticket import read_ticket
    from snn_deploy.tickets.trainer import arranged, data_of

    if not ways:
        return
    data = data_of(config)
    network = snn_deploy.fold(snn_deploy.load_model(config.out))
    masks = read_ticket(config.out).masks.values()
    x = np.asarray(encode(arranged(data.x_test, config), network.coding))
    real, _ = decisions(EventEngine(network), network, x)
    for bits, exponents in ways:
        qnet, verify = judged(network, bits, exponents, x[:samples])
        integer, overflows = decisions(FixedEngine(qnet), network, x)
        yield {
            "bits": bits,
            "exponents": exponents,
            "weights": sum(m.size for m in masks),
            "nonzeros": sum(int(m.sum()) for m in masks),
            "samples": len(x),
            "float_percent": 100 * float(np.mean(real == data.y_test)),
            "integer_percent": 100 * float(np.mean(integer == data.y_test)),
            "equal_percent": 100 * float(np.mean(real == integer)),
            "overflows": overflows,
            "verify": verify,
            "tensors": tensors(qnet),
        }


def judged(network: Network, bits: int, exponents: bool, x: Any) -> tuple[QNetwork, Row]:
    """Return the integers, and what Lava and netx say of samples ``x``, or why not."""
    import snn_deploy
    from snn_deploy.backends.arithmetics import LOIHI
    from snn_deploy.backends.base import Options
    from snn_deploy.errors import SnnDeployError
    from snn_deploy.passes.quantize import quantize

    target = snn_deploy.target("loihi")
    qnet = quantize(network, LOIHI, bits=bits, exponents=exponents)
    try:
        chosen = Options(bits=bits, settings={"exponents": int(exponents)})
        program = snn_deploy.prepare(network, target, chosen)
        found = compared(target, program, x, target.oracle())
    except SnnDeployError as error:
        return qnet, {"left_out": f"{type(error).__name__}: {error}"}
    assert program.qnet is not None
    netx = next(judge for judge in target.simulators() if judge.name == "netx")
    try:
        found["netx"] = compared(target, program, x[:NETX_SAMPLES], netx)
    except SnnDeployError as error:
        found["netx"] = {"left_out": f"{type(error).__name__}: {error.message}"}
    return program.qnet, found


def compared(target: Any, program: Any, x: Any, judge: Any) -> Row:
    """Return how many values a simulator was compared in, and how many differ."""
    import snn_deploy

    verdict = snn_deploy.verify(target, program, x, oracle=judge)
    assert verdict.proof is not None
    return {
        "judge": verdict.proof.judge,
        "samples": verdict.proof.samples,
        "steps": verdict.proof.steps,
        "values": sum(verdict.proof.values.values()),
        "mismatches": sum(verdict.proof.mismatches.values())
        + sum(verdict.lowering.mismatches.values()),
    }


def decisions(engine: Any, network: Network, x: Any) -> tuple[Any, dict[str, int]]:
    """Return the class of every sample, and how many states met the end of their range."""
    classes, overflows = [], {"saturated": 0, "wrapped": 0}
    for start in range(0, len(x), BATCH):
        trace = engine.run(x[start : start + BATCH])
        classes.append(network.readout.predict(trace.output))
        for kind, count in trace.overflows.items():
            overflows[kind] += count
    return np.concatenate(classes), overflows


def tensors(qnet: QNetwork) -> list[Row]:
    """Return what quantization did to each layer; rms and rms_error are of the kept weights."""
    from snn_deploy.passes.scale import real_weights

    projections = {p.name: p for p in qnet.real.projections}
    rows = []
    for report in qnet.tensors:
        weights = real_weights(projections[report.projection]).astype(np.float64)
        kept = weights[weights != 0]
        rows.append(
            {
                "layer": report.projection,
                "max_abs": report.max_abs,
                "rms": float(np.sqrt(np.mean(kept**2))),
                # Zeros stay zero: the error is that of the kept weights alone.
                "rms_error": report.rms_error * float(np.sqrt(weights.size / kept.size)),
                "max_error": report.max_error,
                "scale": report.scale,
                "saturated": report.saturated,
                "nonzeros_before": report.nonzeros_before,
                "nonzeros_after": report.nonzeros_after,
            }
        )
    return rows


def checked(row: Row) -> bool:
    """Return whether Lava judged this row."""
    return "values" in row["verify"]


def place(row: Row) -> tuple[int, int, int]:
    """Return where a row stands in the table."""
    ticket = list(TICKETS).index((row["data"], row["arch"]))
    return ticket, row["percent"], WAYS.index(way(row))


def way(row: Row) -> tuple[int, bool]:
    """Return the weight bits of a row, and whether every layer has an exponent."""
    return row["bits"], row.get("exponents", False)


def label(chosen: tuple[int, bool]) -> str:
    """Return what a column is called."""
    return f"{chosen[0]} bits{', exp.' if chosen[1] else ''}"


def points(row: Row) -> float:
    """Return how many points of accuracy the integers cost."""
    return float(row["float_percent"] - row["integer_percent"])


def summary(row: Row) -> str:
    """Return a row in a line."""
    check = row["verify"]
    lava = f"{check['mismatches']} of {check['values']:,}" if checked(row) else check["left_out"]
    return (
        f"float {row['float_percent']:.2f} %, integers {row['integer_percent']:.2f} %, "
        f"Lava differs in {lava}"
    )


def store(rows: list[Row], out: Path) -> None:
    """Write both files."""
    import torch

    out.mkdir(parents=True, exist_ok=True)
    machine = f"{platform.machine()}, torch {torch.__version__}, numpy {np.__version__}"
    write_json(out / "loihi.json", {"schema": 1, "machine": machine, "rows": rows}, force=True)
    write_text(out / "loihi.md", page(rows, machine), force=True)
    if out == GUIDE.parent / "measured":
        before, rest = GUIDE.read_text().split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        write_text(GUIDE, before + MARKS[0] + summary_table(rows) + MARKS[1] + after, force=True)


def page(rows: list[Row], machine: str) -> str:
    """Return docs/measured/loihi.md."""
    return f"""# Tickets in Loihi's integers

Made by `python tools/measure_loihi.py FOLDER --mnist DIR --nmnist DIR`, which trains the tickets
with the defaults of `snn-deploy train` (MNIST's conv nets on its first 30,000 images) and measures
them; all figures are in
[loihi.json](loihi.json) ({machine}).
Accuracy is by spike count on whole test sets: 450 digits, 10,000 MNIST images, and the 100
recordings of N-MNIST's small selection, where one recording is a point. *float* is the trained
network, *integers* the same ticket in Loihi's arithmetic on the integer engine; *lost* is the
difference in points, *same class* the share of samples on which both decide alike. *Lava* says how
many spikes and states were compared with Lava's simulator, of all populations in all steps of the
first samples, and how many of them differed.

{accuracy_table(rows)}

{verdict(rows)}

## What rounding does to the weights
Root mean square of the rounding error over that of the kept weights, per layer, and in brackets
how many kept weights became 0. No target is set for them.

{layer_table(rows)}
"""


def summary_table(rows: list[Row]) -> str:
    """Return a Markdown table with a line per ticket, and what it says, for the guide."""
    widths = " | ".join(map(label, WAYS))
    lines = [
        f"| data | net | pruned | float % | {widths} | Lava | netx |",
        f"|---|---|---:|---:|{'---:|' * len(WAYS)}---|---|",
    ]
    tickets: dict[tuple[str, str, int], dict[tuple[int, bool], Row]] = {}
    for row in rows:
        key = (row["data"], row["arch"], row["percent"])
        tickets.setdefault(key, {})[way(row)] = row
    for (data, arch, percent), by_way in tickets.items():
        checks = [row["verify"] for row in by_way.values() if checked(row)]
        files = [c["netx"] for c in checks if "values" in c.get("netx", {})]
        lost = [f"{points(by_way[w]):.2f}" if w in by_way else "" for w in WAYS]
        first = next(iter(by_way.values()))
        lines.append(
            f"| {data} | {arch} | {percent} % | {first['float_percent']:.2f} "
            f"| {' | '.join(lost)} | {differ(checks)} | {differ(files)} |"
        )
    return f"""
Made by `python tools/measure_loihi.py FOLDER --mnist DIR --nmnist DIR`: tickets of `train`, on
whole test sets (450 digits, 10,000 MNIST images, 100 N-MNIST recordings, where one recording is a
point). Under *bits*: points of accuracy that Loihi's integers lose against float, by weight bits;
*exp.*: with `--set exponents=1`, which makes thresholds and biases finer and leaves no `.net` file.
*Lava*, *netx*: values that differ, of those compared (spikes, u, v), at all these bits. All else is
in [measured/loihi.md](measured/loihi.md).

{chr(10).join(lines)}

{verdict(rows)}

"""


def differ(checks: list[Row]) -> str:
    """Return how many values differ of how many, or a dash where nothing was compared."""
    values = sum(check["values"] for check in checks)
    return f"{sum(c['mismatches'] for c in checks):,} of {values:,}" if values else "-"


def accuracy_table(rows: list[Row]) -> str:
    """Return a Markdown table with a line per row."""
    lines = [
        "| data | net | pruned | kept | bits | float % | integers % | lost | same class % | Lava |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        check = row["verify"]
        lava = "not run"
        if checked(row):
            lava = f"{check['mismatches']:,} of {check['values']:,}"
        elif "left_out" in check:
            lava = "refused" if "Unsupported" in check["left_out"] else "not run"
        lines.append(
            f"| {row['data']} | {row['arch']} | {row['percent']} % | {row['nonzeros']:,} "
            f"| {label(way(row))} | {row['float_percent']:.2f} | {row['integer_percent']:.2f} "
            f"| {points(row):.2f} | {row['equal_percent']:.2f} | {lava} |"
        )
    return "\n".join(lines)


def verdict(rows: list[Row]) -> str:
    """Return a sentence per limit: how many rows keep it, and which do not."""
    lines = []
    for chosen, limit in LIMITS.items():
        mine = [row for row in rows if way(row) == chosen]
        over = [row for row in mine if points(row) > limit + 1e-9]
        named = ", ".join(f"{r['data']} {r['arch']} {r['percent']} %" for r in over)
        lines.append(
            f"At {label(chosen)} {len(mine) - len(over)} of {len(mine)} tickets lose at most "
            f"{limit:g} point{'s' if limit != 1 else ''}{f'; not {named}' if over else ''}."
        )
    if spilled := [r for r in rows if any(r["overflows"].values())]:
        names = ", ".join(
            f"{r['data']} {r['arch']} {r['percent']} % {label(way(r))}" for r in spilled
        )
        lines.append(f"States met the end of their range in: {names}.")
    elif rows:
        lines.append("No state met the end of its range.")
    return "\n".join(lines)


def layer_table(rows: list[Row]) -> str:
    """Return a Markdown table of rounding errors with a line per ticket and layer."""
    lines = [
        f"| data | net | pruned | layer | {' | '.join(map(label, WAYS))} |",
        f"|---|---|---|---|{'---|' * len(WAYS)}",
    ]
    cells: dict[tuple[str, str, int, str], dict[tuple[int, bool], str]] = {}
    for row in rows:
        for t in row["tensors"]:
            gone = t["nonzeros_before"] - t["nonzeros_after"]
            cell = f"{100 * t['rms_error'] / t['rms']:.1f} % ({gone:,})"
            key = (row["data"], row["arch"], row["percent"], t["layer"])
            cells.setdefault(key, {})[way(row)] = cell
    for (data, arch, percent, layer), by_way in cells.items():
        shown = " | ".join(by_way.get(w, "") for w in WAYS)
        lines.append(f"| {data} | {arch} | {percent} % | {layer} | {shown} |")
    return "\n".join(lines)


def say(line: str) -> None:
    """Show progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
