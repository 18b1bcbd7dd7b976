"""Measure the mapping onto Loihi's cores against a first fit; writes docs/measured/mapping.*.

    python tools/measure_mapping.py [--only NAME] [--samples 2] [--steps 8]

Networks are untrained: a seed draws weights and masks, large enough that spikes reach the last
layer. The first fit is that of tools/first_fit.py.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
NETWORKS = ("MNIST MLP", "MNIST conv", "N-MNIST conv", "VGG16", "ResNet19")
_WEIGHT_SPREAD = 1.2  # of a neuron's current, thresholds being 1
_INPUT_RATE = 0.2


def _layer(module: Any) -> list[Any]:
    from snn_deploy.tickets.lif import LIF

    return [module, LIF(tau_s=2e-3, dt_s=1e-3)]


def modules(name: str) -> tuple[Any, tuple[int, ...], float]:
    """Return (module, input shape, share of weights kept)."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    if name == "MNIST MLP":
        sizes = (nn.Linear(784, 1024), nn.Linear(1024, 1024), nn.Linear(1024, 10))
        return nn.Sequential(*(m for x in sizes for m in _layer(x))), (784,), 0.2
    if name == "MNIST conv":
        layers = [
            *_layer(nn.Conv2d(1, 32, 3, padding=1)),
            nn.AvgPool2d(2),
            *_layer(nn.Conv2d(32, 64, 3, padding=1)),
            nn.AvgPool2d(2),
            nn.Flatten(),
            *_layer(nn.Linear(64 * 7 * 7, 10)),
        ]
        return nn.Sequential(*layers), (1, 28, 28), 0.2
    if name == "N-MNIST conv":
        layers = [
            *_layer(nn.Conv2d(2, 32, 5, stride=2, padding=2)),
            *_layer(nn.Conv2d(32, 64, 3, padding=1)),
            *_layer(nn.Conv2d(64, 64, 3, stride=2, padding=1)),
            nn.Flatten(),
            *_layer(nn.Linear(64 * 9 * 9, 10)),
        ]
        return nn.Sequential(*layers), (2, 34, 34), 0.2
    if name == "VGG16":
        plan = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
        layers, channels = [], 3
        for width in plan:
            if not width:
                layers.append(nn.AvgPool2d(2))
                continue
            layers += _layer(nn.Conv2d(channels, width, 3, padding=1))
            channels = width
        layers += [nn.Flatten(), *_layer(nn.Linear(512, 10))]
        return nn.Sequential(*layers), (3, 32, 32), 0.02
    return _resnet19(), (3, 32, 32), 0.02


def _resnet19() -> Any:
    from torch import nn

    class Block(nn.Module):
        """Two convolutions, and a projection around both."""

        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.lif1 = _layer(nn.Conv2d(inputs, outputs, 3, stride, 1))
            self.conv2, self.lif2 = _layer(nn.Conv2d(outputs, outputs, 3, 1, 1))
            self.short = nn.Conv2d(inputs, outputs, 1, stride)

        def forward(self, x: Any) -> Any:
            return self.lif2(self.conv2(self.lif1(self.conv1(x))) + self.short(x))

    layers, channels = _layer(nn.Conv2d(3, 128, 3, padding=1)), 128
    for width, blocks, stride in ((128, 3, 1), (256, 3, 2), (512, 2, 2)):
        for number in range(blocks):
            layers.append(Block(channels, width, stride if number == 0 else 1))
            channels = width
    layers += [
        nn.AvgPool2d(8),
        nn.Flatten(),
        *_layer(nn.Linear(512, 256)),
        *_layer(nn.Linear(256, 10)),
    ]
    return nn.Sequential(*layers)


def ticket(name: str, path: Path, steps: int) -> None:
    """Write a network's ticket."""
    import torch

    from snn_deploy.frontends.state import save_ticket

    module, shape, kept = modules(name)
    with torch.no_grad():
        for key, weight in module.named_parameters():
            if weight.ndim == 1:
                weight.zero_() if key.endswith("bias") else None
                continue
            inputs = weight[0].numel() * kept * _INPUT_RATE
            weight.copy_(torch.randn_like(weight) * _WEIGHT_SPREAD * 2 / math.sqrt(inputs))
            weight.mul_(torch.rand_like(weight) < kept)
    coding = {"kind": "rate", "steps": steps, "seed": 0}
    save_ticket(module.eval(), path, example_input=torch.zeros(1, *shape), dt_s=1e-3, coding=coding)


def lowered(path: Path) -> tuple[Any, Any]:
    """Return (target, program) of a ticket."""
    from snn_deploy.backends.loihi.target import LoihiTarget
    from snn_deploy.backends.prepare import prepare
    from snn_deploy.frontends.load import load_model
    from snn_deploy.passes.pipeline import fold

    target = LoihiTarget()
    return target, prepare(fold(load_model(path)), target)


def ours(program: Any, mapping: Any, counts: Any) -> dict[str, Any]:
    """Return the figures of a mapping of ours."""
    from snn_deploy.backends.loihi.cores import core_limits

    limits = core_limits(mapping.device)
    return {
        "cores": len(mapping.cores),
        "chips": mapping.chips,
        "packets": sum(int(counts[s.pre] @ mapping.targets[s.name]) for s in program.synapses),
        "hops": sum(int(counts[s.pre] @ mapping.links[s.name]) for s in program.synapses),
        "fullest": sum(c.used.share(limits) for c in mapping.cores) / len(mapping.cores),
        "over": sum(c.used.share(limits) > 1 for c in mapping.cores),
        "population_axons": sorted(n for n, kind in mapping.axons.items() if kind != "discrete"),
    }


def map_alone(path: Path) -> dict[str, Any]:
    """Return what mapping takes in a process that does nothing else."""
    target, program = lowered(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, cpu = time.perf_counter(), time.process_time()
    target.mapping(program)
    return {
        "map_seconds": time.perf_counter() - start,
        "map_cpu_seconds": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_mb_before": before,
    }


def compare(path: Path, samples: int, steps: int) -> dict[str, Any]:
    """Return the figures of both mappings under the spikes of a run of random rate-coded input."""
    import numpy as np
    from first_fit import first_fit

    from snn_deploy.backends.loihi.mapping import place

    target, program = lowered(path)
    shape = program.real.input_population.shape
    rng = np.random.default_rng(0)

    def spikes(number: int) -> Any:
        rates = rng.uniform(0, 2 * _INPUT_RATE, (number, 1, *shape))
        return (rng.random((number, steps, *shape)) < rates).astype(np.float32)

    calibration = target.run(program, spikes(samples)).counts
    counts = target.run(program, spikes(samples)).counts
    loihi = program.payload
    tuned = place(loihi, program.device, calibration)
    return {
        "neurons": sum(math.prod(p.shape) for p in loihi.populations),
        "nonzeros": sum(int(np.count_nonzero(s.weights)) for s in loihi.synapses),
        "spikes": {p.name: int(counts[p.name].sum()) for p in loihi.populations},
        "samples": samples,
        "ours": ours(loihi, target.mapping(program), counts),
        "calibrated": ours(loihi, tuned, counts),
        "first_fit": first_fit(loihi, program.device, counts),
    }


def measured(name: str, samples: int, steps: int) -> dict[str, Any]:
    """Return all figures of one network; each part in a child of its own."""
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {"name": name}
        path = Path(folder) / "net.pt"
        for part in ("ticket", "map", "compare"):
            command = [sys.executable, __file__, "--part", part, "--only", name, str(path)]
            command += ["--samples", str(samples), "--steps", str(steps)]
            ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found |= json.loads(ran.stdout or "{}")
        return found


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    lines = [
        "| network | neurons | least cores | cores | first fit | valid | fullest limit | packets "
        "| first fit | hops | calibrated | first fit | map | peak |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        mine, tuned, fit, samples = row["ours"], row["calibrated"], row["first_fit"], row["samples"]
        cells = (
            row["name"],
            f"{row['neurons']:,}",
            f"{math.ceil(row['neurons'] / 1024):,}",
            f"{mine['cores']:,}",
            f"{fit['cores']:,}",
            f"{fit['cores_if_valid']:,}",
            f"{100 * mine['fullest']:.0f} %",
            *(f"{x['packets'] / samples:,.0f}" for x in (mine, fit)),
            *(f"{x['hops'] / samples:,.0f}" for x in (mine, tuned, fit)),
            f"{row['map_cpu_seconds']:.1f} s",
            f"{row['peak_mb']:,.0f} MB",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(rows: list[dict[str, Any]], command: str) -> str:
    """Return the Markdown page."""
    even = [
        f"{r['name']} ({what})"
        for r in rows
        for what in ("cores", "packets", "hops")
        if r["ours"][what] >= r["first_fit"][what]
    ]
    valid = [r["name"] for r in rows if r["ours"]["cores"] >= r["first_fit"]["cores_if_valid"]]
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"""# The mapping onto cores, against a first fit

    {command}

loihi1, untrained networks with random masks (VGG16 and ResNet19 98 % sparse, the others 80 %),
packets and hops per sample of {rows[0]["steps"]} steps of random rate-coded input. Least cores: by
neurons alone, 1,024 each. Valid: the first fit cannot know output axons in advance; with so many
cores at least, none needs more of them than it has. Calibrated: placed by the spikes of other
samples. Map: processor time of one process on {machine}; peak: its memory, the loading of the
ticket included.

{table(rows)}

Not better than the first fit: {", ".join(even) or "nowhere"}.
Fewer cores than the first fit that keeps all limits: {len(rows) - len(valid)} of {len(rows)}\
{f"; as many or more: {', '.join(valid)}" if valid else ""}.
Cores of ours over any limit: {sum(r["ours"]["over"] for r in rows)}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=("ticket", "map", "compare"), help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=NETWORKS)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "measured")
    options = parser.parse_args()
    if options.part == "ticket":
        ticket(options.only, options.path, options.steps)
    elif options.part == "map":
        print(json.dumps(map_alone(options.path)))
    elif options.part == "compare":
        print(json.dumps(compare(options.path, options.samples, options.steps)))
    if options.part:
        return
    rows = []
    for name in NETWORKS if options.only is None else (options.only,):
        rows.append(measured(name, options.samples, options.steps) | {"steps": options.steps})
        print(table(rows[-1:]), flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        command = f"python tools/measure_mapping.py --samples {options.samples}"
        command += f" --steps {options.steps}"
        (options.out / "mapping.md").write_text(page(rows, command))
        (options.out / "mapping.json").write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
