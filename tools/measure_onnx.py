"""Measure the ONNX export and the conversion of dense networks; write docs/measured/onnx.{md,json}.

    python tools/measure_onnx.py

The networks are those of tests/onnx_models.py, trained on the first 1,400 of the 8x8 digits;
thresholds are taken from 300 of them, accuracies from the 397 digits that training never saw.
Times are medians in one run on shared cores; read ratios, not times.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
OUT = ROOT / "docs" / "measured"
STEPS = (2, 4, 8, 16, 32, 64, 128, 256)
RUNS = 5


def accuracy(network: Any, x: Any, y: Any, steps: int) -> float:
    """Return the share of right decisions after ``steps``."""
    from snn_deploy.engine.event import EventEngine

    inputs = np.broadcast_to(x[:, None], (len(x), steps, *x.shape[1:]))
    scores = EventEngine(network).run(inputs).output
    return float((network.readout.predict(scores) == y).mean())


def conversions() -> list[dict[str, Any]]:
    """Return accuracies over the steps, by network and rule."""
    from snn_deploy.frontends.convert import Rates
    from snn_deploy.frontends.onnx_import import convert_onnx
    from snn_deploy.passes.pipeline import fold
    from tests.onnx_models import digits, trained

    train, _, x, y = digits()
    rows = []
    cases = (
        ("relu", "99.9th percentile", Rates()),
        ("relu", "the same, starting at 0", Rates(start=0.0)),
        ("relu", "99.9th percentile per channel", Rates(per_channel=True)),
        ("relu", "maximum", Rates(percentile=100.0)),
        ("quantised", "learned, 8 levels", Rates()),
        ("relu max", "99.9th percentile, max pooling", Rates()),
    )
    for kind, label, rates in cases:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = Path(folder) / "net.onnx"
            path.write_bytes(trained(kind))
            made = convert_onnx(path, train[:300], rates)
        network = fold(made.network)
        dense = float((made.scores(x).argmax(1) == y).mean())
        spiking = {steps: accuracy(network, x, y, steps) for steps in STEPS}
        rows.append({"network": kind, "thresholds": label, "dense": dense, "spiking": spiking})
    return rows


def exports() -> list[dict[str, Any]]:
    """Return, by network, spikes and differences in both precisions, and time per sample."""
    import onnxruntime

    from snn_deploy.bridges.onnx_export import to_onnx
    from snn_deploy.bridges.onnx_peer import run_model
    from snn_deploy.engine.event import EventEngine
    from snn_deploy.passes.pipeline import fold
    from tests.builders import conv_net, mlp, spikes

    rng = np.random.default_rng(0)
    nets = {
        "784-512-10 LIF, 10 % of the weights": (mlp(rng, 784, 512, 10, density=0.1), (784,)),
        "conv 4 - sum pool - conv 4 - dense 3": (conv_net(rng), (2, 8, 8)),
    }
    rows = []
    for label, (made, shape) in nets.items():
        network = fold(made)
        x = spikes(rng, 64, 100, shape, 0.2)
        found = EventEngine(network).run(x, "spikes").spikes
        spiking = {p.name: found[p.name] for p in network.computing()}
        row: dict[str, Any] = {
            "network": label,
            "spikes": sum(int(s.sum()) for s in spiking.values()),
        }
        name = network.inputs[0]
        for dtype in ("float32", "float64"):
            data = to_onnx(network, dtype=dtype, record=True)
            theirs = run_model(data, {name: x}, np.dtype(dtype).type)
            row[dtype] = sum(int((theirs[f"{p}.z"] != s).sum()) for p, s in spiking.items())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            to_onnx(network), options, providers=["CPUExecutionProvider"]
        )
        feed = {name: np.ascontiguousarray(np.moveaxis(x, 0, 1), np.float32)}
        engine = EventEngine(network)
        row["onnxruntime_ms"] = median_ms(lambda s=session, f=feed: s.run(None, f)) / len(x)
        row["engine_ms"] = median_ms(lambda e=engine, v=x: e.run(v)) / len(x)
        rows.append(row)
    return rows


def median_ms(work: Any) -> float:
    """Return the median time of RUNS runs, after one that warms up."""
    work()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def text(found: dict[str, Any]) -> str:
    """Return the page."""
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    lines = [
        "# ONNX, measured",
        "",
        f"Command: `python tools/measure_onnx.py` ({versions}).",
        "",
        "## Export: the same spikes in onnxruntime",
        "64 samples of 100 steps, one thread; weights on which membranes meet thresholds exactly.",
        "",
        "| network | spikes | differ, float32 | differ, float64 | onnxruntime | our engine |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r['network']} | {r['spikes']:,} | {r['float32']} | {r['float64']} "
        f"| {r['onnxruntime_ms']:.2f} ms/sample | {r['engine_ms']:.2f} ms/sample |"
        for r in found["exports"]
    ]
    lines += [
        "",
        "## Import: accuracy in percent over the steps",
        "Digits that training never saw (397). dense: the network as we read it; tests compare it "
        "with onnxruntime's outputs.",
        "",
        "| network | thresholds | dense | " + " | ".join(f"T={s}" for s in STEPS) + " |",
        "|---|---|---:|" + "---:|" * len(STEPS),
    ]
    lines += [
        f"| {r['network']} | {r['thresholds']} | {100 * r['dense']:.1f} | "
        + " | ".join(f"{100 * r['spiking'][s]:.1f}" for s in STEPS)
        + " |"
        for r in found["conversions"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    from importlib.metadata import version

    import torch

    torch.set_num_threads(1)
    packages = ("torch", "onnx", "onnxruntime")
    found = {
        "versions": {name: version(name) for name in packages},
        "exports": exports(),
        "conversions": conversions(),
    }
    OUT.mkdir(exist_ok=True)
    (OUT / "onnx.md").write_text(text(found), encoding="utf-8")
    (OUT / "onnx.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
