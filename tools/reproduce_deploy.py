"""For reproduce.py: one ticket of every method through export, verify and compare."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("cpu", "loihi", "fpga")
SAMPLES = 100
SHARES = (1.0, 0.7, 0.4)
# Method: the job, of seed 0, whose ticket is deployed.
TICKETS = {
    "imp": "imp/imp 0.97/full/0",
    "et": "early/et 0.98/small/0",
    "eb": "early/eb 0.899/small/0",
    "gradr": "rewired/gradr 0.1/wide/0",
    "stds": "rewired/stds 0.97/wide/0",
    "ndsnn": "grown/ndsnn 0.98/small/0",
    "rigl": "grown/rigl 0.98/small/0",
    "set": "grown/set 0.98/small/0",
    "static": "grown/static 0.98/small/0",
    "random": "imp/random layer 0.9/small/0",
    "reinit": "imp/reinit 0.9/small/0",
    "snip": "imp/snip 0.9/small/0",
    "cutoff": "cutoff/penalty 0/long/0",
    "connection": "untrained/connection/full/0",
    "connection, binary": "untrained/connection binary/full/0",
    "uticket": "balanced/uticket 0.98/small/0",
    "patch": "patches/patch 0.7/patches/0",
    "patch, all patches": "patches/patch 1/patches/0",
    "imp, N-MNIST": "imp/imp 0.9/events/0",
    "ndsnn, N-MNIST": "grown/ndsnn 0.95/events/0",
}


def command(*words: object) -> dict[str, Any]:
    """Return the JSON that an snn-deploy command prints; exits with its words where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "snn_deploy", *map(str, words), "--json", "-", "--no-progress"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise SystemExit(f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}") from None
    return found


def deploy(ticket: Path, samples: Path) -> dict[str, Any]:
    """Return what verify says of 100 samples on each target, and compare's figures."""
    ticket, samples = ticket.resolve(), samples.resolve()
    verified = {}
    with tempfile.TemporaryDirectory() as folder:
        for target in TARGETS:
            command("export", ticket, "-t", target, "-o", Path(folder) / target)
            found = command("verify", ticket, "-t", target, "-i", samples, "-n", SAMPLES)
            verdict = found["verdict"]
            proof = verdict["proof"] or verdict["lowering"]
            verified[target] = {
                "judge": proof["judge"],
                "model_only": verdict["proof"] is None,
                "values": sum(proof["values"].values()),
                "mismatches": sum(proof["mismatches"].values()),
                "equal": verdict["equal"],
            }
    compared = command("compare", ticket, "-i", samples, "-n", 1000)
    targets = {}
    for row in compared["targets"]:
        total = row["energy"]["total"]
        synops = sum(e["total"] for e in row["events"] if e["event"] == "synops_effective")
        targets[row["target"]] = {
            "accuracy": row["accuracy"],
            "samples": row["samples"],
            "steps": row["steps_run"]["mean"],
            "synops": synops / row["samples"],
            "energy_pj": None if total is None else total["nominal_pj"],
            "cycles": row["latency"]["cycles"],
        }
    return {"verified": verified, "compared": targets}


def shares(ticket: Path, samples: Path) -> dict[str, Any]:
    """Return accuracy (0..1) and synops per sample with fewer and fewer patches, by share."""
    found = {}
    with np.load(samples) as held, tempfile.TemporaryDirectory() as folder:
        # The last channel is the keep channel.
        bare, chosen = Path(folder) / "bare.npz", Path(folder) / "chosen.npz"
        np.savez(bare, x=held["x"][:1000, :-1], y=held["y"][:1000])
        for share in SHARES:
            words = ("-i", bare, "--share", share, "-o", chosen, "--force")
            selected = command("select-patches", ticket, *words)
            result = command("run", ticket, "-t", "cpu", "-i", chosen)["result"]
            found[f"{share:g}"] = {
                "accuracy": result["accuracy"],
                "synops": sum(layer["synops_effective"] or 0 for layer in result["layers"]),
                "kept": selected["kept"] / selected["patches"],
            }
    return found
