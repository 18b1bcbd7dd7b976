"""Loads a ``.net`` file in lava-dl's own netx, without torch, and wires spikes to it.

netx builds every Process itself; the neurons' model is Lava's, watched (processes/recorded).
Its first layer is reset at step 1 + reset_offset, each further one a step later; the input
arrives there at step 2, one step after it was sent.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.lif.process import LIFReset

from .processes.recorded import RecordedLifModel, SpikeFile

if TYPE_CHECKING:
    Entry = dict[str, Any]

# Importing netx loads these, running a network of LIF neurons calls none of them.
NEED_TORCH = (
    "lava.lib.dl.slayer",
    "lava.lib.dl.slayer.neuron",
    "lava.lib.dl.slayer.neuron.rf",
    "lava.lib.dl.netx.sequential_modules",
)
FIRST_ARRIVAL = 2


def build(job: Entry, folder: Path) -> tuple[Any, Loihi2SimCfg]:
    """Return one Process of the loaded network, and how to run it."""
    network = _netx().Network(
        net_config=str(folder / job["net"]),
        reset_interval=job["steps"],
        reset_offset=FIRST_ARRIVAL - 1,
    )
    layers, files = network.layers, job["files"]
    if len(layers) != len(files):
        raise ValueError(f"netx made {len(layers)} layers of the file, expected {len(files)}")
    def window(first: int) -> dict[str, int]:
        return {"first": first, "samples": job["samples"], "steps": job["steps"], "gap": 0}

    for i, (layer, paths) in enumerate(zip(layers, files)):  # noqa: B905 (lengths are equal)
        if type(layer.neuron) is not LIFReset:
            raise TypeError(f"netx made neurons of type {type(layer.neuron).__name__}")
        layer.neuron.proc_params["record"] = {
            "window": window(FIRST_ARRIVAL + i),
            "files": {kind: str(folder / name) for kind, name in paths.items()},
            "currents": None,
        }
    source = SpikeFile(
        shape=network.inp.shape,
        path=str(folder / job["input"]),
        window=window(1),
        name="input",
    )
    source.s_out.connect(network.inp)
    config = Loihi2SimCfg(
        select_tag="fixed_pt", exception_proc_model_map={LIFReset: RecordedLifModel}
    )
    return source, config


def _netx() -> Any:
    """Import netx's hdf5 module with stand-ins for the modules that need torch."""
    try:
        netx = importlib.util.find_spec("lava.lib.dl.netx")
    except ModuleNotFoundError:
        netx = None
    if netx is None:
        raise ModuleNotFoundError("lava-dl is not installed beside lava-nc")

    def neuron_params(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("resonate-and-fire neurons need slayer, and slayer needs torch")

    for name in NEED_TORCH:
        module = types.ModuleType(name)
        # Lava's compiler executes the folder of every loaded sibling: let it be netx's own.
        module.__file__ = netx.origin
        module.neuron_params = neuron_params  # type: ignore[attr-defined]
        sys.modules[name] = module
    return importlib.import_module("lava.lib.dl.netx.hdf5")
