"""Measure reading, fuzzing and crosschecking, and write docs/measured/interop.{md,json}.

    python tools/measure_interop.py [--graph cnn_sinabs.nir] [--graphs 300] [--fuzz 3000]

--graph: a NIR file to time; the one of the figures is the NIR paper's N-MNIST CNN (270 kB), which
snn-deploy does not ship. Times are medians of fresh processes in one run; read ratios, not times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
OUT = ROOT / "docs" / "measured"
RUNS = 9

TIMED = """
import time, sys
start = time.perf_counter()
{before}
middle = time.perf_counter()
{after}
print((middle - start) * 1e3, (time.perf_counter() - middle) * 1e3, "torch" in sys.modules)
"""


def timed(before: str, after: str) -> tuple[float, float]:
    """Return medians in ms of two pieces of code, each run in fresh processes."""
    rows = []
    for _ in range(RUNS):
        code = TIMED.format(before=before, after=after)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        )
        first, second, torch = done.stdout.split()
        assert torch == "False", "torch was imported"
        rows.append((float(first), float(second)))
    return statistics.median(r[0] for r in rows), statistics.median(r[1] for r in rows)


def reading(graph: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = {"import_ms": timed("import snn_deploy", "pass")[0]}
    if graph is None:
        return found
    ours = (
        "from snn_deploy.io.nir_read import NirOptions, read_nir\n"
        "options = NirOptions(dt_s=1e-4, reset='value', if_r='per-step')\n"
        f"path = {str(graph)!r}\n"
    )
    found["read_ms"] = timed(ours + "import h5py", "read_nir(path, options)")[1]
    found["read_with_h5py_ms"] = timed(ours, "read_nir(path, options)")[1]
    official = timed("import nir", f"nir.read({str(graph)!r})")
    found["nir_import_ms"], found["nir_read_ms"] = official
    found["graph_bytes"] = graph.stat().st_size
    return found


def crosschecking(graphs: int) -> dict[str, dict[str, int]]:
    """Return per framework how many random graphs it ran, spikes fired and spikes that differ."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    from snn_deploy.bridges.crosscheck import crosscheck
    from snn_deploy.bridges.peers import NAMES
    from snn_deploy.passes.pipeline import fold
    from tests.builders import conv_net, spikes
    from tests.property.graphs import networks

    totals = {n: {"graphs": 0, "cannot": 0, "spikes": 0, "mismatched": 0} for n in NAMES}

    def add(network: Any, x: Any) -> None:
        for result in crosscheck(fold(network), x):
            row = totals[result.name]
            if result.comparison is None:
                row["cannot"] += 1
                continue
            row["graphs"] += 1
            row["spikes"] += result.spikes
            row["mismatched"] += result.comparison.mismatches.get("spikes", 0)

    @settings(
        max_examples=graphs,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(networks(), st.integers(0, 2**32 - 1))
    def random_graph(network: Any, seed: int) -> None:
        rng = np.random.default_rng(seed)
        add(
            network,
            {
                n: (rng.random((6, 12, *network.shapes[n])) < 0.5).astype(np.uint8)
                for n in network.inputs
            },
        )

    random_graph()
    rng = np.random.default_rng(0)
    for seed in range(8):
        add(conv_net(np.random.default_rng(seed)), spikes(rng, 10, 14, (2, 8, 8), 0.5))
    return totals


def fuzzing(files: int) -> dict[str, Any]:
    """Return outcomes of damaged and changed NIR files, and the worst memory growth."""
    from tests.property.nir_mutations import damaged, mutated

    child = ROOT / "tests" / "security" / "hostile_child.py"
    outcomes: Counter[str] = Counter()
    grown = 0
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for seed in range(files):
            path = Path(folder) / f"{seed}.nir"
            path.write_bytes((mutated if seed % 2 else damaged)(seed))
            paths.append(str(path))
        done = subprocess.run(
            [sys.executable, str(child)],
            input=json.dumps([["nir", path] for path in paths]),
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        for result in json.loads(done.stdout):
            outcomes[str(result["outcome"])] += 1
            grown = max(grown, int(result["grown_bytes"]))
    return {"files": files, "outcomes": dict(outcomes), "most_grown_bytes": grown}


def text(found: dict[str, Any]) -> str:
    read, fuzz = found["reading"], found["fuzzing"]
    lines = [
        "# Reading, fuzzing and crosschecking, measured",
        "",
        "Command: `python tools/measure_interop.py`. Times are medians of "
        f"{RUNS} fresh processes on two shared cores; compare them with each other only.",
        "",
        "| | ms |",
        "|---|---|",
        f"| `import snn_deploy` | {read['import_ms']:.0f} |",
    ]
    if "read_ms" in read:
        kilo = read["graph_bytes"] / 1000
        lines += [
            f"| read the NIR paper's N-MNIST CNN ({kilo:.0f} kB), audit included, without torch | "
            f"{read['read_ms']:.0f} |",
            f"| the same, with importing h5py | {read['read_with_h5py_ms']:.0f} |",
            f"| `nir.read` of the same file, h5py imported | {read['nir_read_ms']:.0f} |",
            f"| `import nir` | {read['nir_import_ms']:.0f} |",
        ]
    lines += [
        "",
        "## The same networks in other frameworks",
        f"{found['graphs']} random graphs of all NIR nodes (`tests/property/graphs.py`) and 8 "
        "convolutional networks, on weights on which membranes meet thresholds exactly.",
        "",
        "| framework | graphs run | cannot express | spikes | mismatched |",
        "|---|---|---|---|---|",
    ]
    for name, row in found["crosscheck"].items():
        lines.append(
            f"| {name} | {row['graphs']:,} | {row['cannot']:,} | {row['spikes']:,} | "
            f"{row['mismatched']:,} |"
        )
    outcomes = ", ".join(f"{n:,} {name}" for name, n in sorted(fuzz["outcomes"].items()))
    lines += [
        "",
        "## Damaged and changed NIR files",
        f"{fuzz['files']:,} files: {outcomes}. Each within 2 s of processor time; memory grew by "
        f"at most {fuzz['most_grown_bytes'] / 1e6:.0f} MB.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", type=Path)
    parser.add_argument("--graphs", type=int, default=300)
    parser.add_argument("--fuzz", type=int, default=3000)
    options = parser.parse_args()
    found = {
        "reading": reading(options.graph.resolve() if options.graph else None),
        "graphs": options.graphs,
        "crosscheck": crosschecking(options.graphs),
        "fuzzing": fuzzing(options.fuzz),
    }
    (OUT / "interop.json").write_text(json.dumps(found, indent=2) + "\n")
    (OUT / "interop.md").write_text(text(found))


if __name__ == "__main__":
    main()
