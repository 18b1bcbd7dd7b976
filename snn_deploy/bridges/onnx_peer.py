"""onnxruntime as a peer of crosscheck: the model that we export, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from snn_deploy.bridges.onnx_export import INSTALL, require, to_onnx
from snn_deploy.bridges.peer import installed, trace_of
from snn_deploy.engine.loop import Inputs, by_input
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network
from snn_deploy.ir.trace import Trace


class OnnxPeer:
    """The exported model in onnxruntime's CPU kernels."""

    name = "onnx"
    latency_steps = 0
    tolerance = 1e-9

    def version(self) -> str:
        """Return the versions of onnxruntime and onnx; MissingDependencyError without them."""
        return installed({"onnxruntime": INSTALL, "onnx": INSTALL})

    def run(self, network: Network, x: Inputs) -> Trace:
        """Return every population's spikes and states, all samples at once."""
        given = by_input(network, x)
        found = run_model(to_onnx(network, dtype="float64", record=True), given, np.float64)
        outputs: dict[str, Array] = {}
        states: dict[str, dict[str, Array]] = {}
        for population in network.computing():
            name = population.name
            states[name] = {k: found[f"{name}.{k}"] for k in ("u", "v") if f"{name}.{k}" in found}
            outputs[name] = found.get(f"{name}.z", states[name]["v"])
        trace = trace_of(network, outputs, {name: s["v"] for name, s in states.items()})
        return replace(trace, states=states)


def run_model(data: bytes, x: Mapping[str, Array], dtype: type) -> dict[str, Array]:
    """Return a model's outputs by name, (samples, steps, *shape), on one CPU thread.

    data: what to_onnx returned. x: (samples, steps, *shape) by input name.
    """
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    feeds: dict[str, Array] = {
        name: np.ascontiguousarray(np.moveaxis(np.asarray(values, dtype), 0, 1))
        for name, values in x.items()
    }
    names = [output.name for output in session.get_outputs()]
    results = session.run(names, feeds)
    return {name: np.moveaxis(value, 0, 1) for name, value in zip(names, results, strict=True)}
