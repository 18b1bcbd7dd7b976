"""Reads hostile files, each in a forked process with little memory and time, and reports.

Usage: python hostile_child.py, with [[reader, path], ...] as JSON on standard input. Prints one
JSON list of {outcome, message, hint, grown_bytes}.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from snn_deploy.errors import SnnDeployError
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.io.hdf5 import open_audited, read_array, read_strings
from snn_deploy.io.inputs import read_inputs
from snn_deploy.io.netx_read import NetxOptions, read_netx
from snn_deploy.io.nir_read import NirOptions, read_nir
from snn_deploy.io.pickle_arrays import read_array_list
from snn_deploy.io.safetensors import read_safetensors
from snn_deploy.io.ticket import read_ticket
from snn_deploy.io.torch_zip import read_torch_zip
from snn_deploy.ir.network import Readout
from snn_deploy.ir.text import to_text
from snn_deploy.passes.pipeline import fold

ADDRESS_SPACE_BYTES = 2**30
SECONDS = 20
CPU_SECONDS = 2


def read_hdf5(path: str) -> None:
    """Read every value, as a careless caller would."""
    with open_audited(path) as file:

        def visit(name: str, thing: Any) -> None:
            if isinstance(thing, h5py.Dataset):
                text = h5py.check_string_dtype(thing.dtype) is not None
                (read_strings if text else read_array)(thing, name)

        file.visititems(visit)


def read_network(path: str) -> None:
    """Read a NIR graph with every question answered, and fold it."""
    options = NirOptions(dt_s=1e-3, reset="value", if_r="per-step", readout=Readout(kind="mean"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SnnDeployWarning)
        to_text(fold(read_nir(path, options)))


def read_integers(path: str) -> None:
    """Read a lava-dl network, and fold it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SnnDeployWarning)
        to_text(fold(read_netx(path, NetxOptions(dt_s=1e-3, readout=Readout(kind="count")))))


READERS: dict[str, Callable[[str], object]] = {
    "torch": read_torch_zip,
    "ticket": read_ticket,
    "safetensors": read_safetensors,
    "masks": read_array_list,
    "npz": lambda path: read_inputs(path, (4,)),
    "hdf5": read_hdf5,
    "nir": read_network,
    "netx": read_integers,
    "nothing": lambda path: None,
}


def outcome(reader: str, path: str) -> dict[str, object]:
    """Return how reading ended, with the message that a user would see."""
    try:
        READERS[reader](path)
    except SnnDeployError as error:
        kind = type(error).__name__
        return {"outcome": kind, "message": str(error), "hint": error.hint, "where": error.where}
    except BaseException as error:
        return {"outcome": f"escaped {type(error).__name__}: {error}"}
    return {"outcome": "value"}


def in_child(reader: str, path: str) -> dict[str, object]:
    """Read one file in a fork; its peak memory comes back from the system."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + ADDRESS_SPACE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        cpu = int(spent) + CPU_SECONDS + 1
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
        signal.alarm(SECONDS)
        os.write(send, json.dumps(outcome(reader, path)).encode()[:60_000])
        os._exit(0)
    os.close(send)
    _, status, usage = os.wait4(child, 0)
    with os.fdopen(receive, "rb") as pipe:
        said = pipe.read()
    result: dict[str, object] = {"outcome": f"died with status {status}"}
    if status == 0:
        result = json.loads(said)
    result["peak_bytes"] = usage.ru_maxrss * 1024
    return result


def main() -> None:
    """Read the list, report on it."""
    np.ones(10).sum()
    idle = int(str(in_child("nothing", "")["peak_bytes"]))
    results = []
    for reader, path in json.load(sys.stdin):
        result = in_child(reader, path)
        result["grown_bytes"] = int(str(result.pop("peak_bytes"))) - idle
        results.append(result)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
