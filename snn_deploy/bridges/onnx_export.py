"""Export to ONNX: a network that plain onnxruntime runs, with no operators of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from snn_deploy.errors import MissingDependencyError, UsageError
from snn_deploy.io.files import write_bytes
from snn_deploy.ir.network import Network
from snn_deploy.passes.pipeline import fold

INSTALL = "pip install 'snn-deploy[onnx]'"


def require(package: str) -> None:
    """Raise MissingDependencyError where ``package`` (onnx or onnxruntime) is not installed."""
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise MissingDependencyError(f"{package} is not installed", hint=INSTALL)


def to_onnx(
    network: Network,
    path: Path | str | None = None,
    *,
    dtype: Literal["float32", "float64"] = "float32",
    record: bool = False,
    force: bool = False,
) -> bytes:
    """Return ``network`` as an ONNX model, and write it to ``path`` where one is given.

    One Scan over time runs any number of steps and any batch from the initial state. Inputs go by
    population name: (T, B, *shape) in ``dtype``. Outputs: ``<name>.z``, the spikes as 0 and 1, or
    ``<name>.v``, the membrane after the reset, for a membrane readout and for what never spikes;
    (T, B, *shape). record: z, v and, with a synaptic current, u of every population as well.
    force: replace an existing file. The same network gives the same bytes.
    Weights are dense: runtimes take no sparse ones, so zeros are stored.

    Raises UnsupportedError for what does not fold or exceeds 2 GiB, OutputError where ``path``
    cannot be written, MissingDependencyError without onnx.
    """
    if dtype not in ("float32", "float64"):
        raise UsageError(f"dtype {dtype!r} is not exported", hint="use float32 or float64")
    require("onnx")
    from snn_deploy.bridges.onnx_scan import Settings, model_bytes

    data = model_bytes(fold(network), Settings(dtype=np.dtype(dtype).type, record=record))
    if path is not None:
        write_bytes(path, data, force)
    return data
