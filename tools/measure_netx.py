"""Measure a trained .net file on MNIST and write docs/measured/netx.{md,json}.

    python tools/measure_netx.py NETWORK.net MNIST_FOLDER [--steps 32] [--netx 50]

NETWORK.net: R. Gaurav's trained_mnist_network.net (784-128-64-10). MNIST_FOLDER holds the test
set's two .gz files. Images become spikes as its author encodes them: a neuron per pixel adds its
grey value (0 to 1) in every step, fires above 1 and starts again at 0. --netx: so many images run
in lava-dl's netx too, from the same file, and every spike, u and v is compared.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
OUT = ROOT / "docs" / "measured"
BATCH = 500


def encoded(images: Any, steps: int) -> Any:
    """Return spikes (samples, steps, 784) of grey values (samples, 784) in 0..255."""
    v = np.zeros(images.shape)
    spikes = np.zeros((len(images), steps, images.shape[1]), np.uint8)
    for t in range(steps):
        v += images / 255
        spikes[:, t] = v > 1
        v[v > 1] = 0
    return spikes


def mnist(folder: Path) -> tuple[Any, Any]:
    """Return the test images (10000, 784) and their labels."""
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        return images, np.frombuffer(file.read(), np.uint8, offset=8)


def against_netx(path: Path, program: Any, x: Any) -> dict[str, Any]:
    """Return how many values of all layers netx was compared in, and how many differ."""
    from snn_deploy.backends.loihi.netx_job import netx_job
    from snn_deploy.backends.loihi.netx_oracle import NetxOracle
    from snn_deploy.backends.loihi.oracle import trace_of
    from snn_deploy.backends.loihi.process import run_job
    from snn_deploy.engine.fixed import FixedEngine

    version = NetxOracle().version()
    job = replace(netx_job(program.payload, x), net=path.read_bytes())
    theirs = trace_of(program, x, run_job(job, timeout_s=900.0))
    ours = FixedEngine(program.qnet).run(x, "states")
    found = {"version": version, "images": len(x), "values": 0, "differ": 0, "spikes": 0}
    for population in program.real.computing():
        name = population.name
        pairs = [(ours.spikes[name], theirs.spikes[name])]
        pairs += [(ours.states[name][s], theirs.states[name][s]) for s in ("u", "v")]
        found["spikes"] += int(np.sum(ours.spikes[name]))
        found["values"] += sum(a.size for a, _ in pairs)
        found["differ"] += sum(int(np.sum(a != b)) for a, b in pairs)
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    from snn_deploy.backends.loihi.target import LoihiTarget
    from snn_deploy.backends.prepare import prepare
    from snn_deploy.engine.event import EventEngine
    from snn_deploy.engine.fixed import FixedEngine
    from snn_deploy.io.netx_read import NetxOptions, read_netx
    from snn_deploy.passes.pipeline import fold

    network = fold(read_netx(options.network, NetxOptions(dt_s=1e-3)))
    program = prepare(network, LoihiTarget())
    images, labels = mnist(options.mnist)
    engines = {"integers": FixedEngine(program.qnet), "float": EventEngine(network)}
    right = dict.fromkeys(engines, 0)
    for start in range(0, len(images), BATCH):
        x = encoded(images[start : start + BATCH], options.steps)
        for name, engine in engines.items():
            predicted = network.readout.predict(engine.run(x).output)
            right[name] += int(np.sum(predicted == labels[start : start + BATCH]))
    return {
        "network": network.source.sha256,
        "steps": options.steps,
        "images": len(images),
        "right": right,
        "netx": against_netx(
            options.network, program, encoded(images[: options.netx], options.steps)
        ),
    }


def text(found: dict[str, Any]) -> str:
    right, images, netx, steps = (found[key] for key in ("right", "images", "netx", "steps"))
    return f"""# The trained MNIST network of lava-dl

    python tools/measure_netx.py NETWORK.net MNIST_FOLDER --steps {steps} --netx {netx["images"]}

R. Gaurav's `trained_mnist_network.net` (SHA-256 {found["network"][:16]}...), 784-128-64-10, the
{images:,} MNIST test images in {steps} steps, encoded as its author encodes them.

| | right of {images:,} |
|---|---|
| our integer engine | {right["integers"]:,} ({right["integers"] / images:.2%}) |
| our float engine, the same weights | {right["float"]:,} ({right["float"] / images:.2%}) |

Against {netx["version"]}, which loads the same file:
{netx["images"]} images, {netx["spikes"]:,} spikes; of {netx["values"]:,} values (spikes, u and v of
every layer and step) {netx["differ"]} differ.
"""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--netx", type=int, default=50)
    found = measure(parser.parse_args())
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "netx.json").write_text(json.dumps(found, indent=1) + "\n")
    (OUT / "netx.md").write_text(text(found))
    print(text(found))


if __name__ == "__main__":
    main()
