"""Write a Network as a NIR graph, in the HDF5 layout that the ``nir`` package reads.

What NIR has no field for (dt, reset kind, readout, coding, order, names) goes into the graph's
metadata as one JSON text, which other readers ignore. The same network gives the same bytes.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from snn_deploy.errors import UnsupportedError
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.io.nir_file import METADATA_KEY, METADATA_SCHEMA
from snn_deploy.io.nir_operators import flatten_node, operator_node
from snn_deploy.io.values import coding_json, readout_json
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.check import chain_shapes
from snn_deploy.ir.network import Network, Population, Projection, per_neuron
from snn_deploy.ir.neurons import (
    IF,
    LI,
    LIF,
    CubaLI,
    CubaLIF,
    Integrator,
    Relay,
    Threshold,
)
from snn_deploy.ir.synapses import (
    Conv1d,
    Conv2d,
    Csr,
    Dense,
    Diagonal,
    Identity,
    Shape,
    bias_of,
)

NIR_VERSION = "1.0.8"


@dataclass(slots=True)
class _Writer:
    network: Network
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    no_bias: list[str] = field(default_factory=list)
    scales: dict[str, list[int]] = field(default_factory=dict)  # shapes that were broadcast
    projections: list[dict[str, Any]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    misjudged: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)

    def fresh(self, wanted: str) -> str:
        name = base = wanted.replace("/", ".") or "node"
        n = 2
        while name in self.nodes:
            name, n = f"{base}_{n}", n + 1
        return name


def nir_bytes(network: Network) -> bytes:
    """Return the bytes of a ``.nir`` file; UnsupportedError, located, for what NIR cannot say."""
    writer = _Writer(network)
    remarks: dict[str, dict[str, Any]] = {}
    for population in network.populations:
        name = writer.fresh(population.name)
        writer.names[population.name] = name
        if population.name in network.inputs:
            writer.nodes[name] = {"type": "Input", "shape": np.array(population.shape)}
        elif isinstance(population.neuron, Relay):
            if network.out_of(population.name) or population.name not in network.outputs:
                raise UnsupportedError(
                    "NIR has no population that passes values on",
                    where=network.where(population.name),
                    hint="join its two sides into one projection",
                )
            writer.nodes[name] = {"type": "Output", "shape": np.array(population.shape)}
        else:
            writer.nodes[name] = _neuron(population)
            remarks[name] = _remarks(population)
    for projection in network.projections:
        _projection(writer, projection)
    for name in network.outputs:
        if not isinstance(network.population(name).neuron, Relay):
            out = writer.fresh("output")
            writer.nodes[out] = {
                "type": "Output",
                "shape": np.array(network.population(name).shape),
            }
            writer.edges.append((writer.names[name], out))
    _warn_subtract(network)
    if writer.misjudged:
        warnings.warn(
            f"{', '.join(writer.misjudged)}: the nir package infers a wrong shape for a grouped "
            "convolution or a kernel that is not square, and refuses the file unless it is read "
            "with type_check=False",
            SnnDeployWarning,
            2,
        )
    if writer.reshaped:
        warnings.warn(
            f"{', '.join(writer.reshaped)}: a line of values feeds neurons that form an image, "
            "which NIR has no node for; the nir package reads the file with type_check=False only",
            SnnDeployWarning,
            2,
        )
    return _hdf5(writer, _metadata(writer, remarks))


def _warn_subtract(network: Network) -> None:
    for population in network.computing():
        if population.neuron.step(network.dt_s).reset == "subtract":
            warnings.warn(
                f"{population.name} resets by subtraction, which NIR has no field for: other "
                "readers of this graph will reset to a value",
                SnnDeployWarning,
                3,
            )
            return


def _full(value: Array, shape: Shape) -> Array:
    return per_neuron(value, shape).reshape(shape).astype(np.float64)


def _neuron(population: Population) -> dict[str, Any]:
    neuron, shape = population.neuron, population.shape

    def put(value: Array) -> Array:
        return _full(value, shape)

    if isinstance(neuron, LIF):
        return {
            "type": "LIF",
            "tau": put(neuron.tau_s),
            "r": put(neuron.r),
            "v_leak": put(neuron.v_leak),
            "v_threshold": put(neuron.v_threshold),
            "v_reset": put(neuron.v_reset),
        }
    if isinstance(neuron, IF):
        return {
            "type": "IF",
            "r": put(neuron.r),
            "v_threshold": put(neuron.v_threshold),
            "v_reset": put(neuron.v_reset),
        }
    if isinstance(neuron, CubaLIF | CubaLI):
        node = {
            "type": type(neuron).__name__,
            "tau_syn": put(neuron.tau_syn_s),
            "tau_mem": put(neuron.tau_mem_s),
            "r": put(neuron.r),
            "v_leak": put(neuron.v_leak),
            "w_in": put(neuron.w_in),
        }
        if isinstance(neuron, CubaLIF):
            node |= {"v_threshold": put(neuron.v_threshold), "v_reset": put(neuron.v_reset)}
        return node
    if isinstance(neuron, LI):
        tau, r, leak = put(neuron.tau_s), put(neuron.r), put(neuron.v_leak)
        return {"type": "LI", "tau": tau, "r": r, "v_leak": leak}
    if isinstance(neuron, Integrator):
        return {"type": "I", "r": put(neuron.r)}
    assert isinstance(neuron, Threshold)
    return {"type": "Threshold", "threshold": put(neuron.threshold)}


def _remarks(population: Population) -> dict[str, Any]:
    """Return what NIR has no field for: reset kind, IF's unit, parameters that were no arrays."""
    neuron = population.neuron
    arrays = {f.name: np.asarray(getattr(neuron, f.name)) for f in fields(neuron)}
    channels = (population.shape[0],) if len(population.shape) > 1 else ()
    entry: dict[str, Any] = {
        "scalar": [name for name, value in arrays.items() if value.ndim == 0],
        "channel": [name for name, value in arrays.items() if value.shape == channels != ()],
    }
    for key in ("reset", "r_unit"):
        if hasattr(neuron, key):
            entry[key] = getattr(neuron, key)
    for key in ("reset_amount", "v_init"):
        value = getattr(neuron, key, None)
        if value is not None:
            entry[key] = value.tolist()
    return entry


def _projection(writer: _Writer, projection: Projection) -> None:
    network = writer.network
    where = network.where(projection.name)
    shapes = chain_shapes(network, projection)
    here = writer.names[projection.pre]
    used: list[str] = []
    early, late = _delays(projection, where)

    def put(node: dict[str, Any], wanted: str) -> None:
        nonlocal here
        name = writer.fresh(wanted)
        writer.nodes[name] = node
        writer.edges.append((here, name))
        used.append(name)
        here = name

    def wait(steps: Array | None, shape: Shape) -> None:
        if steps is not None:
            seconds = np.broadcast_to(steps, math.prod(shape)).reshape(shape) * network.dt_s
            put({"type": "Delay", "delay": seconds}, f"{projection.name}.delay")

    wait(early, shapes[0])
    for synapse, shape in zip(projection.synapses, shapes, strict=False):
        if isinstance(synapse, Identity):
            continue
        if isinstance(synapse, Dense | Csr) and len(shape) > 1:
            put(flatten_node(shape), f"{projection.name}.flatten")
        node, suffix = operator_node(synapse, shape, where)
        put(node, projection.name + suffix)
        if "bias" in node and getattr(synapse, "bias", None) is None:
            writer.no_bias.append(here)
        if isinstance(synapse, Diagonal) and synapse.scale.shape != shape:
            writer.scales[here] = list(synapse.scale.shape)
        if isinstance(synapse, Conv1d | Conv2d) and (
            synapse.groups > 1
            or (len(set(synapse.weight.shape[2:])) > 1 and not isinstance(node["padding"], str))
        ):
            writer.misjudged.append(here)
    post = network.population(projection.post).shape
    last = shapes[-1]
    if late is not None and any(
        np.any(b) for s in projection.synapses if (b := bias_of(s)) is not None
    ):
        warnings.warn(
            f"{where}: a bias stands before a delay per target neuron; other readers of this graph "
            "let it act that much later",
            SnnDeployWarning,
            4,
        )
    wait(late, last)
    if len(last) < len(post):
        writer.reshaped.append(projection.name)
    if len(last) > len(post):
        put(flatten_node(last), f"{projection.name}.flatten")
    if (here, writer.names[projection.post]) in writer.edges:
        # An edge can stand once only: a second direct connection gets a node of its own.
        ones = np.ones(shapes[-1])
        put({"type": "Scale", "scale": ones}, f"{projection.name}.scale")
    writer.edges.append((here, writer.names[projection.post]))
    writer.projections.append(
        {
            "path": [writer.names[projection.pre], *used, writer.names[projection.post]],
            "name": projection.name,
            "origin": projection.origin,
            "helper": projection.helper,
        }
    )


def _delays(projection: Projection, where: str) -> tuple[Array | None, Array | None]:
    """Return steps per source and per target, each None where nothing waits."""
    steps = np.asarray(projection.delay_steps)
    if steps.ndim == 0:
        return (steps, None) if int(steps) else (None, None)
    if 1 in steps.shape:
        flat = steps.reshape(-1)
        return (flat, None) if steps.shape[0] == 1 else (None, flat)
    # A delay of source and target is one where rows differ by a constant.
    late = steps[:, 0] - steps[:, 0].min()
    early = steps[int(steps[:, 0].argmin())]
    if not np.array_equal(steps, early[None] + late[:, None]):
        raise UnsupportedError(
            "NIR has no delay per synapse",
            where=where,
            hint="use one delay for the projection, or one per source or target neuron",
        )
    return early, late


def _metadata(writer: _Writer, remarks: dict[str, dict[str, Any]]) -> str:
    network = writer.network
    content = {
        "schema": METADATA_SCHEMA,
        "dt_s": network.dt_s,
        "readout": readout_json(network.readout),
        "coding": coding_json(network.coding),
        "grid": None
        if network.grid is None
        else {
            "arithmetic": network.grid.arithmetic,
            "scale": network.grid.scale,
            "shift": network.grid.shift,
        },
        "feedback": [[writer.names[a], writer.names[b]] for a, b in network.feedback],
        "neurons": remarks,
        "no_bias": writer.no_bias,
        "populations": [
            {
                "node": writer.names[p.name],
                "name": p.name,
                "origin": p.origin,
                "shape": list(p.shape),
            }
            for p in network.populations
        ],
        "projections": writer.projections,
        "order": list(writer.nodes),
        "scales": writer.scales,
    }
    return json.dumps(content, sort_keys=True, allow_nan=False)


def _hdf5(writer: _Writer, metadata: str) -> bytes:
    import h5py

    text = h5py.string_dtype("utf-8")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=False) as file:
        file.create_dataset("version", data=NIR_VERSION, dtype=text)
        root = file.create_group("node")
        root.create_dataset("type", data="NIRGraph", dtype=text)
        edges = np.array(writer.edges, dtype=object).reshape(-1, 2)
        root.create_dataset("edges", data=edges, dtype=text)
        root.create_group("metadata").create_dataset(METADATA_KEY, data=metadata, dtype=text)
        nodes = root.create_group("nodes")
        for name, fields in writer.nodes.items():
            group = nodes.create_group(name)
            for key, value in fields.items():
                if isinstance(value, str):
                    group.create_dataset(key, data=value, dtype=text)
                elif isinstance(value, np.ndarray) and value.size > 1:
                    # Weights are mostly zeros: shuffle and a low level are fast and enough.
                    group.create_dataset(
                        key, data=value, compression="gzip", compression_opts=1, shuffle=True
                    )
                else:
                    group.create_dataset(key, data=value)
    return buffer.getvalue()
