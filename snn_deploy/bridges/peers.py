"""The peers of crosscheck: the same network in another framework, each with its own arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from snn_deploy.bridges.onnx_peer import OnnxPeer
from snn_deploy.bridges.peer import Peer, installed, trace_of
from snn_deploy.engine.loop import Inputs, by_input
from snn_deploy.errors import UsageError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network
from snn_deploy.ir.trace import Trace


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
        given = by_input(network, x)
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

        given = by_input(network, x)
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
        return OnnxPeer()
    raise UsageError(f"no framework is called {name!r}", hint=f"choose from {', '.join(NAMES)}")
