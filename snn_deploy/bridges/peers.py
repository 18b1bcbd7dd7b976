"""The peers of crosscheck: the same network in another framework, each with its own arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from snn_deploy.engine.loop import Inputs
from snn_deploy.errors import MissingDependencyError, UsageError
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


class TorchPeer:
    """A framework whose neurons are torch modules: its cells, torch's layers, in float64."""

    latency_steps = 0
    tolerance = 1e-9

    def __init__(self, name: str, packages: Mapping[str, str], cell: tuple[str, str]) -> None:
        self.name, self._packages, self._cell = name, packages, cell

    def version(self) -> str:
        """Return the framework's version and torch's."""
        return installed(self._packages)

    def run(self, network: Network, x: Inputs) -> Trace:
        """Return what the framework's neurons did, all samples at once."""
        self.version()
        import torch

        from snn_deploy.bridges.torch_network import NetworkModule, Recording

        module, function = self._cell
        make = getattr(import_module(module), function)
        net = NetworkModule(network, make).double().eval()
        given = x if isinstance(x, Mapping) else {network.inputs[0]: x}
        tensors = {
            name: torch.from_numpy(np.array(values, np.float64)).movedim(0, 1)
            for name, values in given.items()
        }
        recording = Recording()
        with torch.no_grad():
            net(tensors, recording)

        def stacked(found: Mapping[str, list[Any]]) -> dict[str, Array]:
            return {name: torch.stack(steps, 1).numpy() for name, steps in found.items()}

        return trace_of(network, stacked(recording.outputs), stacked(recording.membranes))


class NirEulerPeer:
    """NIR's equations on the file that we write, as the nir package reads it."""

    name = "nir-euler"
    latency_steps = 0
    tolerance = 1e-9

    def version(self) -> str:
        """Return the nir package's version."""
        return installed({"nir": "pip install nir"})

    def run(self, network: Network, x: Inputs) -> Trace:
        """Return the spikes and membranes that the equations give."""
        from snn_deploy.bridges.nir_euler import run

        given = x if isinstance(x, Mapping) else {network.inputs[0]: x}
        return trace_of(network, *run(network, given))


def _torch_peer(name: str, package: str, extra: str, cell: str) -> Peer:
    command = f"pip install 'snn-deploy[{extra}]'"
    packages = {package: command, "torch": "pip install 'snn-deploy[train]'"}
    return TorchPeer(name, packages, (f"snn_deploy.bridges.{name}_cells", cell))


NAMES = ("norse", "snntorch", "spikingjelly", "nir-euler", "onnx")


def peer(name: str) -> Peer:
    """Return a peer by its name; UsageError for an unknown one."""
    if name == "norse":
        return _torch_peer("norse", "norse", "train", "norse_cell")
    if name == "snntorch":
        return _torch_peer("snntorch", "snntorch", "interop", "snntorch_cell")
    if name == "spikingjelly":
        return _torch_peer("spikingjelly", "spikingjelly", "interop", "spikingjelly_cell")
    if name == "nir-euler":
        return NirEulerPeer()
    if name == "onnx":
        onnx: Peer = import_module("snn_deploy.bridges.onnx_peer").OnnxPeer()
        return onnx
    raise UsageError(f"no framework is called {name!r}", hint=f"choose from {', '.join(NAMES)}")
