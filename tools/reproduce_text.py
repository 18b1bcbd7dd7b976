"""For reproduce.py: docs/reproduction.md from the results, section by section."""

from __future__ import annotations

import itertools
import json
import platform
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reproduce_deploy import SAMPLES, TARGETS, TICKETS
from reproduce_jobs import GROWN, SPARSITIES

Results = dict[str, dict[str, Any]]


class Figures:
    """Results by section, label and protocol, over the seeds that are there."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def all(self, section: str, label: str, protocol: str) -> list[dict[str, Any]]:
        """Return a job's figures, one per seed."""
        found = [
            (int(name.rsplit("/", 1)[1]), values)
            for name, values in self._results.items()
            if name.rsplit("/", 1)[0] == f"{section}/{label}/{protocol}"
        ]
        return [values for _, values in sorted(found, key=lambda pair: pair[0])]

    def numbers(self, section: str, label: str, protocol: str, key: str) -> list[float]:
        """Return one figure of each seed, shares in percent."""
        scale = 100 if key in ("accuracy", "dense", "sparsity") else 1
        return [scale * row[key] for row in self.all(section, label, protocol)]

    def cell(self, section: str, label: str, protocol: str, key: str = "accuracy") -> str:
        """Return mean and spread of a figure over the seeds."""
        return spread(self.numbers(section, label, protocol, key))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return "mean +- standard deviation (number of seeds)"; a single value alone."""
    if not values:
        return "not run"
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return f"{mean} (1)"
    return f"{mean} ± {statistics.stdev(values):.{digits}f} ({len(values)})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None of nothing."""
    return statistics.mean(values) if values else None


def difference(a: Sequence[float], b: Sequence[float], digits: int = 2) -> str:
    """Return mean and spread of a - b, seed by seed."""
    return spread([x - y for x, y in zip(a, b, strict=False)], digits)


def epochs_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each seed's figures with the epochs of all its phases."""
    return [{**row, "epochs": sum(r["epochs"] for r in row["rounds"])} for row in rows]


def imp(f: Figures) -> str:
    """Magnitude pruning against its controls, and on all of MNIST."""
    protocols = ("small", "slower", "gentle", "plain")
    rows = []
    for protocol, s in itertools.product(protocols, ("0.9", "0.98")):
        ticket = f.numbers("imp", f"imp {s}", protocol, "accuracy")
        controls = {
            label: f.numbers("imp", f"{label} {s}", protocol, "accuracy")
            for label in ("random layer", "random global", "reinit")
        }
        best = [max(values) for values in zip(*controls.values(), strict=False)]
        rows.append(
            [f"{protocol}, {100 * float(s):g} %", spread(ticket)]
            + [spread(values) for values in controls.values()]
            + [f.cell("imp", f"snip {s}", protocol), difference(ticket, best)]
        )
    dense = ", ".join(f"{p} {f.cell('imp', 'imp 0.9', p, 'dense')}" for p in protocols)
    full = "imp 0.97"
    lost = difference(
        f.numbers("imp", full, "full", "dense"), f.numbers("imp", full, "full", "accuracy")
    )
    return f"""Accuracy in percent; dense: {dense}. "small" has rate-coded
input and fully connected weights that start 3 times as large as torch's, as `train` does;
"slower" is that at a learning rate of 0.004 in place of 0.01, "gentle" at 0.002; in "plain",
input is direct and the weights start as torch has them. Controls: random masks as dense per layer
as the ticket's, random masks over all layers (both with weights larger by 1/sqrt(density)), the
ticket's masks over other initial weights, SNIP.

Wanted: at least 3 points at 90 %, 8 at 98 %, above the better of random and re-initialised. The
lead depends on the learning rate: the faster a network learns within its 4 epochs, the more of it
a re-initialised one makes up. Both bounds are met at 0.004, where every network still learns;
at 0.01 the second is not, and at 0.002 the controls at 98 % do not learn at all.

{
        table(
            [
                "sparsity",
                "ticket",
                "random, layer",
                "random, global",
                "re-initialised",
                "SNIP",
                "ticket - best control",
            ],
            rows,
        )
    }

All of MNIST, 784-256-128-10, T = 8, 97 %: dense {f.cell("imp", full, "full", "dense")}, ticket
{f.cell("imp", full, "full")}, lost {lost} points (wanted: at most 1.5). N-MNIST (1,000
recordings, 100 for testing), 90 %: dense {f.cell("imp", "imp 0.9", "events", "dense")}, ticket
{f.cell("imp", "imp 0.9", "events")}.

Paper (Kim et al., ECCV 2022, VGG16 on CIFAR-10): 92.66 % at 68 % sparsity, 91.81 % at 98.13 %."""


def early(f: Figures) -> str:
    """Early-time and early-bird searches."""
    rows = []
    cases = (("0.9", "small"), ("0.98", "small"), ("0.9 direct", "small"), ("0.9", "events"))
    for label, protocol in cases:
        found = f.all("early", f"et {label}", protocol)
        base = f.all("imp", f"imp {label}", protocol)
        cost = [
            a["timestep_epochs"] / b["timestep_epochs"] for a, b in zip(found, base, strict=False)
        ]
        rows.append(
            [
                f"{label}, {protocol}",
                ", ".join(f"{r['found']['t_early']} of {r['found']['steps']}" for r in found)
                or "not run",
                spread([r["found"]["t_early"] / r["found"]["steps"] for r in found]),
                spread(cost) if base else "-",
                f.cell("early", f"et {label}", protocol),
                difference(
                    [100 * r["accuracy"] for r in found], [100 * b["accuracy"] for b in base]
                )
                if base
                else "-",
            ]
        )
    birds = []
    for s in ("0.683", "0.822", "0.899", "0.957", "0.981"):
        found = f.all("early", f"eb {s}", "small")
        stops = ", ".join(str(r["found"]["stop_epoch"] or "never") for r in found)
        birds.append(
            [f"{100 * float(s):g} %", stops or "not run", f.cell("early", f"eb {s}", "small")]
        )
    return f"""\
T_early by the published criterion (N = 2 epochs, lambda = 0.6). Cost in timestep-epochs, the
probe's two epochs and the last round at T counted, relative to imp's.

{
        table(
            [
                "sparsity, protocol",
                "T_early",
                "T_early / T",
                "whole cost / imp's",
                "accuracy",
                "accuracy - imp",
            ],
            rows,
        )
    }

Paper: T_early = 3 of 5; 92.49 against 92.66 % (68 %), 91.10 against 91.81 % (98.13 %), VGG16,
CIFAR-10.

Early-bird (masks of 5 epochs within 0.02; at most 8 epochs of search, ticket from the initial
weights):

{table(["sparsity", "stopped after epoch", "accuracy"], birds)}

Paper: 91.74 % at 68 %, 84.64 % at 98.13 %. At 98 % two masks can differ in 3.7 % of their
entries at most, so the search stops almost at once."""


def rewired(f: Figures) -> str:
    """Gradient rewiring and soft thresholds."""
    dense = f.numbers("rewired", "gradr 0", "wide", "accuracy")
    rows = []
    for label in ("gradr 0", "gradr 0.01", "gradr 0.03", "gradr 0.1", "stds 0.97"):
        found = f.all("rewired", label, "wide")
        connectivity = [100 - 100 * r["sparsity"] for r in found]
        accuracy = [100 * r["accuracy"] for r in found]
        rows.append([label, spread(connectivity), spread(accuracy), difference(dense, accuracy)])
    events = f.all("rewired", "gradr 0.1", "events")
    return f"""\
One training of 784-400-10 on all of MNIST, T = 5, 8 epochs, no retraining. The prior's strength
follows the name; gradr 0 has none. Wanted: at most 0.5 points lost at about 25 % connectivity, 4
at 1 to 3 %.

{table(["method", "connectivity %", "accuracy %", "lost points"], rows)}

N-MNIST, prior 0.1: {spread([100 - 100 * r["sparsity"] for r in events])} % connectivity,
{spread([100 * r["accuracy"] for r in events])} %.

Paper (Chen et al., IJCAI 2021): about 3.5 points lost on MNIST at 0.73 % connectivity; 512
epochs."""


def grown(f: Figures) -> str:
    """Drop and grow."""
    rows = []
    for s in SPARSITIES:
        for method in (*GROWN, "rigl long", "set long", "static long", "ndsnn short", "imp"):
            label = f"{method} {s:g}"
            if not f.all("grown", label, "small"):
                continue
            rows.append(
                [
                    f"{100 * s:g} %",
                    method,
                    f.cell("grown", label, "small"),
                    spread(f.numbers("grown", label, "small", "cost"), 3),
                ]
            )
    ratios = []
    for sparsity in SPARSITIES:
        label = f"{sparsity:g}"
        whole, each = (
            [
                a["cost"] / b["cost"] * (b["epochs"] / a["epochs"] if per_epoch else 1)
                for a, b in zip(
                    epochs_of(f.all("grown", f"{kind} {label}", "small")),
                    epochs_of(f.all("grown", f"imp {label}", "small")),
                    strict=False,
                )
            ]
            for kind, per_epoch in (("ndsnn short", False), ("ndsnn", True))
        )
        ratios.append([f"{100 * sparsity:g} %", spread(whole, 3), spread(each)])
    events = [
        [method, f.cell("grown", f"{method} 0.95", "events"),
         spread(f.numbers("grown", f"{method} 0.95", "events", "cost"), 3)]
        for method in GROWN
    ]  # fmt: skip
    return f"""\
Cost: spike rate times density, summed over all epochs of all rounds. Equal epochs: 12. Equal cost:
"long" trains for as many epochs as cost about what ndsnn's 12 do (22 to 160). "ndsnn short" trains
4 epochs, imp 4 per round. All start from masks with ERK densities and weights scaled by
1/sqrt(density).

{table(["sparsity", "method", "accuracy %", "cost"], rows)}

ndsnn's cost relative to imp's for the same final sparsity: summed, both with 4 epochs per run (imp
has 11 to 16 of them); and per epoch, of ndsnn's 12.

{table(["sparsity", "summed", "per epoch"], ratios)}

Paper (Huang et al., DAC 2023, abstract): 0.41 (ResNet19) and 0.31 (VGG16) on CIFAR-10; how it
counts rounds is not known to us.

N-MNIST, 95 %, 20 epochs:

{table(["method", "accuracy %", "cost"], events)}"""


def cutoff(f: Figures) -> str:
    """Early stop."""
    rows = []
    for label, protocol in (
        ("penalty 0", "long"),
        ("penalty 0.002", "long"),
        ("penalty 0", "events"),
    ):
        found = [r["cutoff"] for r in f.all("cutoff", label, protocol) if r.get("cutoff")]
        rows.append(
            [
                f"{label}, {protocol}",
                spread([100 * c["accuracy"] for c in found]),
                spread([100 * c["accuracy_stopped"] for c in found]),
                difference(
                    [100 * c["accuracy"] for c in found],
                    [100 * c["accuracy_stopped"] for c in found],
                ),
                spread([c["steps"] / c["mean_steps"] for c in found]),
            ]
        )
    return f"""\
Bernoulli input, T = 20 (long), and N-MNIST's frames; imp at 90 %. The table is calibrated at
epsilon = 0.01 on training samples with dropout 0.3. Wanted: at least 2 times fewer steps for at
most 0.2 points.

{table(["training", "all steps %", "stopped %", "lost points", "times fewer steps"], rows)}

Paper (Wu et al., abstract): 1.76 to 2.76 times on CIFAR-10, 1.64 to 1.95 times on event sets,
nearly without loss."""


def untrained(f: Figures) -> str:
    """Connection tickets."""
    dense = f.numbers("untrained", "dense", "full", "accuracy")
    rows = []
    for label in ("dense", "connection", "connection binary"):
        accuracy = f.numbers("untrained", label, "full", "accuracy")
        rows.append([label, spread(accuracy), difference(dense, accuracy)])
    return f"""\
784-256-128-10 on all of MNIST, T = 8, 8 epochs; half of each layer is kept, no weight is
trained. Wanted: within 3 points of the trained network.

{table(["network", "accuracy %", "lost points"], rows)}

Paper (arXiv 2311.12060, VGG9 at 50 %, CIFAR-10): 87.71 trained, 87.52 chosen."""


def balanced(f: Figures) -> str:
    """Workload balance."""
    rows = []
    for s in ("0.9", "0.98"):
        found = f.all("balanced", f"uticket {s}", "small")
        base = f.numbers("imp", f"imp {s}", "small", "accuracy")
        magnitude = f.all("imp", f"imp {s}", "small")
        before, after = (
            [row["load"] for row in them if "load" in row] for them in (magnitude, found)
        )
        rows.append(
            [
                f"{100 * float(s):g} %",
                spread([a["utilisation"] for a in before], 3),
                spread([b["utilisation"] for b in after], 3),
                spread([a["cycles"] for a in before], 0),
                spread([b["cycles"] for b in after], 0),
                f.cell("balanced", f"uticket {s}", "small"),
                difference(base, [100 * row["accuracy"] for row in found]),
            ]
        )
    head = [
        "sparsity", "utilisation of imp", "of uticket", "cycles of imp", "of uticket",
        "accuracy %", "points below imp",
    ]  # fmt: skip
    return f"""\
16 processing elements; both tickets have the same number of nonzeros, to rounding, so what is
saved is balance. The layer of 10 outputs counts in the cycles, not in the utilisation. Wanted:
utilisation of at least 0.97 with accuracy within 1 point.

{table(head, rows)}

The paper's energy table beside what follows from its own cycle table:
[uticket.md](uticket.md)."""


def patches(f: Figures) -> str:
    """Patch tickets on the transformer."""
    rows, saved = [], []
    for name, protocol in (("MNIST", "patches"), ("digits", "digit patches")):
        whole, best = (
            f.numbers("patches", f"patch {s}", protocol, "accuracy") for s in ("1", "0.7")
        )
        rows.append([name, spread(whole), spread(best), difference(whole, best)])
        found = [row["shares"] for row in f.all("patches", "patch 0.7", protocol)]
        for share in found[0] if found else ():
            here = [each[share] for each in found]
            saved.append(
                [
                    f"{name}, {100 * here[0]['kept']:.1f} %",
                    spread([100 * x["accuracy"] for x in here], 1),
                    spread([x["synops"] for x in here], 0),
                    spread(
                        [
                            100 * x["synops"] / e["1"]["synops"]
                            for x, e in zip(here, found, strict=True)
                        ],
                        1,
                    ),
                ]
            )
    return f"""\
Wanted: 30 % fewer patches within 2 points, synaptic operations falling in proportion. Two
networks, one trained on all patches and one on the best 70 % (34 of 49 on MNIST, 11 of 16 on the
digits):

{table(["data", "all patches", "the best", "lost"], rows)}

Operations of one network (the one trained on the best) with fewer and fewer patches. A dropped
patch costs nothing, so they fall by what the dropped patches held: nearly in proportion on the
digits, which fill their frame; by less on MNIST, whose margin is empty, since a ranking that
keeps what is informative keeps the busy patches ([transformer.md](transformer.md)).

{table(["patches", "accuracy %", "synops per sample", "% of all patches'"], saved)}

Paper (TINY, CIFAR-10): 84.81 to 81.21 % with 31.4 % of the patches and 48.7 % of the connections
left out."""


def deployed(results: Results) -> str:
    """Every method's ticket on every target."""
    rows = []
    for method in TICKETS:
        found = results.get(f"deploy/{method}")
        if found is None:
            rows.append([method, *["not run"] * 5])
            continue
        verified, compared = found["verified"], found["compared"]
        shown = [f"{verified[t]['mismatches']} of {verified[t]['values']:,}" for t in TARGETS]
        accuracy = " / ".join(f"{100 * compared[t]['accuracy']:.1f}" for t in TARGETS)
        rows.append([method, *shown, accuracy, f"{compared['cpu']['synops']:,.0f}"])
    head = ["method", *(f"{t}: mismatches" for t in TARGETS), "accuracy % on each", "synops"]
    return f"""\
Exported to each target, verified on {SAMPLES} test samples, compared on 1,000 (N-MNIST: 100).
cpu is judged by norse, loihi by Lava bit for bit, fpga by its own cycle model alone (no RTL
ran). Synaptic operations: effective, per sample, before quantization.

{table(head, rows)}"""


SECTIONS = {
    "Magnitude pruning and its controls (imp, random, reinit, snip)": imp,
    "Early searches (et, eb)": early,
    "Gradient rewiring and soft thresholds (gradr, stds)": rewired,
    "Drop and grow (ndsnn, rigl, set, static)": grown,
    "Early stop (cutoff)": cutoff,
    "Connection tickets (connection)": untrained,
    "Patch tickets (patch)": patches,
    "Balanced tickets (uticket)": balanced,
}


def write(results: Results, docs: Path) -> None:
    """Write docs/reproduction.md and docs/measured/reproduction.json."""
    import torch

    figures = Figures(results)
    parts = [
        f"""# Reproduction
Made by `python tools/reproduce.py --mnist FOLDER --nmnist FOLDER --deploy --write`
({platform.machine()}, one thread per training, torch {torch.__version__}); every figure of every
seed and its settings are in [measured/reproduction.json](measured/reproduction.json). Mean ±
standard deviation over (number of) seeds; accuracies on test data that no choice within a run
was made on. Hyper-parameters were chosen by looking at single runs of such jobs.

What differs from all the papers: networks and data are far smaller (MNIST and 1,100 N-MNIST
recordings in place of CIFAR and DVS128), trainings are a few epochs with Adam, input is
rate-coded unless said otherwise, outputs are spikes, counted. Protocols: small is 10,000 images,
784-256-256-10, T = 5, 4 epochs per round; the others stand with their figures."""
    ]
    parts += [f"## {title}\n{make(figures)}" for title, make in SECTIONS.items()]
    parts.append(f"## On every target\n{deployed(results)}")
    (docs / "reproduction.md").write_text("\n\n".join(parts) + "\n")
    text = json.dumps(results, indent=1, sort_keys=True)
    (docs / "measured" / "reproduction.json").write_text(text + "\n")
