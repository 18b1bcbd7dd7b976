"""A readable text form of a Network, for ``inspect``, golden tests and bug reports."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from snn_deploy.errors import printable
from snn_deploy.ir.network import Network, Projection
from snn_deploy.ir.synapses import (
    Csr,
    Pool2d,
    Synapse,
    bias_of,
    learned_nonzeros,
    learned_size,
    weights_of,
)


def _parameter(value: object) -> str:
    if isinstance(value, np.ndarray):
        if value.size == 1 or bool(np.all(value == value.flat[0])):
            return f"{float(value.flat[0]):g}"
        return f"[{float(value.min()):g}..{float(value.max()):g}]"
    return str(value)


def synapse_text(synapse: Synapse) -> str:
    """Return one operator in a few words."""
    name = type(synapse).__name__
    parts: list[str] = []
    if learned_size(synapse):
        weights = weights_of(synapse)
        assert weights is not None
        shape = synapse.shape if isinstance(synapse, Csr) else weights.shape
        parts.append("x".join(map(str, shape)))
        parts.append(f"{learned_nonzeros(synapse):,} of {learned_size(synapse):,} nonzero")
        if bias_of(synapse) is not None:
            parts.append("bias")
    if isinstance(synapse, Pool2d):
        parts.append(f"{synapse.kind} {synapse.kernel[0]}x{synapse.kernel[1]}")
    for label in ("stride", "padding", "dilation", "groups"):
        value = getattr(synapse, label, None)
        if value not in (None, 1, (1, 1), (0, 0), (0, 0, 0, 0)):
            parts.append(f"{label} {value}")
    return f"{name}({', '.join(parts)})"


def _projection_text(projection: Projection) -> str:
    chain = " . ".join(synapse_text(s) for s in projection.synapses)
    delay = np.asarray(projection.delay_steps)
    late = f" delay {int(delay.max())}" if delay.any() else ""
    helper = " [helper]" if projection.helper else ""
    return f"  {projection.pre} -> {projection.post}: {chain}{late}{helper}"


def to_text(network: Network) -> str:
    """Return the network as lines: header, populations, projections."""
    cutoff = network.readout.cutoff
    lines = [
        f"network dt {network.dt_s:g} s, readout {network.readout.kind}"
        + ("" if cutoff is None else f" with cutoff {_parameter(np.asarray(cutoff))}")
        + f", coding {network.coding.kind}"
        + (f" over {network.coding.steps} steps" if network.coding.steps else "")
    ]
    for population in network.populations:
        neuron = population.neuron
        parameters = ", ".join(
            f"{f.name}={_parameter(getattr(neuron, f.name))}"
            for f in fields(neuron)
            if getattr(neuron, f.name) is not None
        )
        role = (
            " input"
            if population.name in network.inputs
            else " output"
            if population.name in network.outputs
            else ""
        )
        shape = "x".join(map(str, population.shape))
        lines.append(f"  {population.name} [{shape}] {type(neuron).__name__}({parameters}){role}")
    lines += [_projection_text(p) for p in network.projections]
    return "\n".join(printable(line) for line in lines) + "\n"
