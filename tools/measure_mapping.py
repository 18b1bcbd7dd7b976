"""Measure the mapping onto Loihi's cores against a first fit; writes docs/measured/mapping.*.

    python tools/measure_mapping.py [--only NAME] [--samples 2] [--steps 8]

Networks are untrained: a seed draws weights and masks, large enough that spikes reach the last
layer. The first fit takes layers and neurons in order, fills a core until a limit is hit, opens
the next, and places cores in order; it stores lists by the same rules (own, all, or shared where
they are equal), by discrete axons. Output axons it cannot know in advance: it says how many of
its cores need more than there are.
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


class FirstFit:
    """Cores in order of creation: of each the ranges (population, first, last)."""

    def __init__(self, program: Any, device: Any) -> None:
        from snn_deploy.backends.loihi.axons import connections
        from snn_deploy.backends.loihi.cores import core_limits

        self.limits = core_limits(device)
        self.cores: list[list[tuple[str, int, int]]] = [[]]
        self.home: dict[str, Any] = {}
        self._used = (0, 0, 0)
        for population in program.populations:
            fans = []
            for synapses in program.into(population.name):
                fans.append((synapses, connections(synapses)))
            self._fill(population.name, math.prod(population.shape), fans)

    def _fill(self, name: str, size: int, fans: list[Any]) -> None:
        import numpy as np

        home = np.zeros(size, np.int64)
        first, guess = 0, size
        while first < size:
            most = min(size, first + int(self.limits.neurons) - self._used[0])
            last = self._last(first, most, first + guess, fans)
            if last == first and self.cores[-1]:
                self.cores.append([])
                self._used = (0, 0, 0)
                continue
            last = max(last, first + 1)  # a neuron that fits no core has one to itself
            bits, axons = self._cost(first, last, fans)
            self._used = (
                self._used[0] + last - first,
                self._used[1] + bits,
                self._used[2] + axons,
            )
            self.cores[-1].append((name, first, last))
            home[first:last] = len(self.cores) - 1
            first, guess = last, last - first
        self.home[name] = home

    def _last(self, first: int, most: int, guess: int, fans: list[Any]) -> int:
        def fits(last: int) -> bool:
            bits, axons = self._cost(first, last, fans)
            return (
                self._used[1] + bits <= self.limits.synapse_bits
                and self._used[2] + axons <= self.limits.in_axons
            )

        good, bad, probe = first, most + 1, min(guess, most)
        while bad - good > 1:
            probe = probe if good < probe < bad else (good + bad) // 2
            if fits(probe):
                good, probe = probe, probe + max(1, (probe - first) // 16)
            else:
                bad, probe = probe, 0
        return good

    def _cost(self, first: int, last: int, fans: list[Any]) -> tuple[int, int]:
        import numpy as np

        from snn_deploy.backends.loihi.axons import delay_bits, index_bits, list_bits

        bits = axons = 0
        for synapses, entries in fans:
            indptr, indices, _ = entries
            counts = np.bincount(indices[indptr[first] : indptr[last]])
            counts = counts[counts > 0]
            entry = synapses.weight_bits + delay_bits(synapses)
            indexed = entry + index_bits(self._used[0] + last - first)
            own = int(list_bits(counts, indexed).sum())
            every = counts.size * int(list_bits(np.array(last - first), entry))
            shared = self._shared(entries, first, last, indexed, own)
            bits += min(own, every, shared)
            axons += counts.size
        return bits, axons

    def _shared(self, entries: Any, first: int, last: int, entry: int, own: int) -> int:
        """Return the bits of the distinct lists: the same weights at the same distances."""
        import numpy as np

        from snn_deploy.backends.loihi.axons import BASES, list_bits

        indptr = entries[0][first : last + 1]
        if indptr[-1] == indptr[0]:
            return own
        pre = entries[1][indptr[0] : indptr[-1]]
        row = np.repeat(np.arange(last - first), np.diff(indptr))
        order = np.argsort(pre, kind="stable")
        pre, row = pre[order], row[order]
        value = entries[2][indptr[0] : indptr[-1]][order].astype(np.int64)
        starts = np.flatnonzero(np.diff(pre, prepend=-1))
        counts = np.diff(np.append(starts, pre.size))
        base = row[starts]
        distance = row - np.repeat(np.minimum(base, base % BASES), counts)
        mixed = (distance * 1_000_003 + value * 97 + 12_345) * 0x9E3779B97F4A7C1
        mixed = (mixed ^ (mixed >> 29)) * 0x94D049BB133111
        sums = np.add.reduceat(mixed, starts)
        _, unique = np.unique(np.stack([sums, counts]), axis=1, return_index=True)
        return int(list_bits(counts[unique], entry).sum())


def first_fit(program: Any, device: Any, counts: Any) -> dict[str, Any]:
    """Return the figures of the first fit; counts: spikes per neuron by population."""
    import numpy as np

    from snn_deploy.backends.loihi.axons import connections
    from snn_deploy.backends.loihi.placement import distances

    start = time.process_time()
    fitted = FirstFit(program, device)
    seconds = time.process_time() - start
    cores = len(fitted.cores)
    tile = np.arange(cores) // 4
    distance = distances(int(tile[-1]) + 1)
    packets = hops = 0
    outgoing = np.zeros(cores, np.int64)
    for synapses in program.synapses:
        indptr, indices, _ = connections(synapses)
        row = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
        keys = indices.astype(np.int64) * cores + fitted.home[synapses.post][row]
        pre, core = np.divmod(np.unique(keys), cores)
        spikes = counts[synapses.pre][pre]
        packets += int(spikes.sum())
        sender = np.zeros(pre.size, np.int64)
        if synapses.pre in fitted.home:
            home = fitted.home[synapses.pre][pre]
            outgoing += np.bincount(home, minlength=cores)
            sender = tile[home]
        hops += int(spikes @ distance[sender, tile[core]])
    return {
        "cores": cores,
        "packets": packets,
        "hops": hops,
        "map_cpu_seconds": seconds,
        "cores_over_out_axons": int((outgoing > fitted.limits.out_axons).sum()),
    }


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
        "| network | neurons | least cores | cores | first fit | fullest limit | packets "
        "| first fit | hops | calibrated | first fit | map | peak |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        mine, tuned, fit, samples = row["ours"], row["calibrated"], row["first_fit"], row["samples"]
        cells = (
            row["name"],
            f"{row['neurons']:,}",
            f"{math.ceil(row['neurons'] / 1024):,}",
            f"{mine['cores']:,}",
            f"{fit['cores']:,}",
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
    over = [r for r in rows if r["first_fit"]["cores_over_out_axons"]]
    said = "; ".join(f"{r['name']} {r['first_fit']['cores_over_out_axons']:,}" for r in over)
    even = [
        f"{r['name']} ({what})"
        for r in rows
        for what in ("cores", "packets", "hops")
        if r["ours"][what] >= r["first_fit"][what]
    ]
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"""# The mapping onto cores, against a first fit

    {command}

loihi1, untrained networks with random masks (VGG16 and ResNet19 98 % sparse, the others 80 %),
packets and hops per sample of {rows[0]["steps"]} steps of random rate-coded input. Least cores: by
neurons alone, 1,024 each. Calibrated: placed by the spikes of other samples. Map: processor time of
one process on {machine}; peak: its memory, the loading of the ticket included.

{table(rows)}

Not better than the first fit: {", ".join(even) or "nowhere"}.
Cores of the first fit that need more output axons than a core has, which makes it no valid mapping:
{said or "none"}. Cores of ours over any limit: {sum(r["ours"]["over"] for r in rows)}.
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
