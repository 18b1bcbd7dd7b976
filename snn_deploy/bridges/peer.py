"""What a peer of crosscheck is, and the record of what it did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from snn_deploy.engine.loop import Inputs
from snn_deploy.errors import MissingDependencyError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import MEMBRANE_READOUTS, Network
from snn_deploy.ir.trace import Trace


class Peer(Protocol):
    """One framework. latency_steps: declared steps from input to output beyond ours.

    tolerance: of membranes; spikes are always compared exactly.
    """

    name: str
    latency_steps: int
    tolerance: float

    def version(self) -> str:
        """Return what runs, with its version; MissingDependencyError where it is absent."""

    def run(self, network: Network, x: Inputs) -> Trace:
        """Return spikes, and v where the framework shows it, of a folded network's populations.

        x: (samples, steps, *shape), or one array per input name. Raises UnsupportedError, located,
        for what the framework cannot express.
        """


def installed(packages: Mapping[str, str]) -> str:
    """Return "name version, ..." of packages; MissingDependencyError with the command otherwise."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for package, command in packages.items():
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            raise MissingDependencyError(f"{package} is not installed", hint=command) from None
    return ", ".join(found)


def trace_of(network: Network, outputs: Mapping[str, Array], states: Mapping[str, Array]) -> Trace:
    """Return the Trace of outputs and membranes by population, (samples, steps, *shape)."""
    first = next(iter(outputs.values()))
    membrane = network.readout.kind in MEMBRANE_READOUTS
    read = [
        np.asarray(states[name] if membrane and name in states else outputs[name])
        for name in network.outputs
    ]
    return Trace(
        output=np.concatenate([r.reshape(*r.shape[:2], -1) for r in read], axis=2),
        counts={n: np.count_nonzero(v, axis=(0, 1)).reshape(-1) for n, v in outputs.items()},
        samples=first.shape[0],
        steps=first.shape[1],
        spikes=dict(outputs),
        states={name: {"v": value} for name, value in states.items()},
    )
