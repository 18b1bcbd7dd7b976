"""SpikingJelly's neurons and containers: their own equations, read from SpikingJelly 2.0.0's code.

A node fires where v >= threshold: here that is v > the next smaller number. It starts at v_reset,
or at 0 where it subtracts, and its leak goes towards that start.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from snn_deploy.frontends.record import Cell, Node, Request, join, plain, tensor64
from snn_deploy.ir.unit_gain import unit_gain

_NAME = "SpikingJelly"


def _firing(module: Any) -> Node:
    """Return threshold and reset; a hard reset's value is also where the membrane starts."""
    threshold = float(module.v_threshold)
    node: Node = {"v_threshold": float(np.nextafter(threshold, -np.inf))}
    if module.v_reset is None:
        return {**node, "v_reset": 0.0, "reset": "subtract", "reset_amount": threshold}
    node.update(v_reset=float(module.v_reset), reset="value")
    if module.v_reset:
        node["v_init"] = float(module.v_reset)
    return node


def integrate_and_fire(module: Any, request: Request) -> Cell:
    """Return IFNode: v = v + I."""
    node = {"op": "IF", "r": 1.0, "r_unit": "per-step", **_firing(module)}
    return Cell(neuron=node, dt_s=request.step_s(_NAME))


def _lif(module: Any, request: Request, share: Any, firing: Node, op: str = "LIF") -> Cell:
    """Return a LIF that loses ``share`` of its membrane in a step."""
    dt_s = request.step_s(_NAME)
    rest = 0.0 if module.v_reset is None else float(module.v_reset)
    tau, whole = unit_gain(share, dt_s)
    node: Node = {
        "op": op,
        "tau_s": plain(dt_s / share if module.decay_input else tau),
        "r": 1.0 if module.decay_input else plain(whole),
        "v_leak": rest,
        **firing,
    }
    return Cell(neuron=node, dt_s=dt_s)


def leaky(module: Any, request: Request) -> Cell:
    """Return LIFNode: v = v + (I - (v - v_reset)) / tau, or without the division of I."""
    return _lif(module, request, 1 / tensor64(module.tau), _firing(module))


def parametric(module: Any, request: Request) -> Cell:
    """Return ParametricLIFNode: LIFNode with 1/tau = sigmoid(w)."""
    return _lif(module, request, tensor64(module.w.detach().sigmoid()), _firing(module))


def _output_of(module: Any, request: Request, child: Any, path: str) -> Cell:
    cell = request.child(child, replace(request, path=join(request.path, path)))
    if cell is None:
        raise request.refuse(
            f"{type(module).__name__} around {type(child).__name__} cannot be deployed",
            "put one spiking neuron into it",
        )
    return cell


def linear_recurrent(module: Any, request: Request) -> Cell:
    """Return LinearRecurrentContainer: a layer over the input and the last output, side by side."""
    layer = module.rc
    size = request.shape[0]
    wide = replace(request, shape=(layer.out_features,))
    inner = _output_of(module, wide, module.sub_module, "sub_module")
    key = join(request.path, "rc")
    weight = layer.weight.detach()
    forward: Node = {"op": "Linear", "weight": f"{key}.weight.input"}
    if layer.bias is not None:
        forward["bias"] = f"{key}.bias"
    back: Node = {"op": "Linear", "weight": f"{key}.weight.recurrent"}
    return replace(
        inner,
        before=(("input", forward), *inner.before),
        around=((*inner.after, ("recurrent", back)), *inner.around),
        shape=(layer.out_features,),
        tensors={
            **inner.tensors,
            f"{key}.weight.input": weight[:, :size].clone(),
            f"{key}.weight.recurrent": weight[:, size:].clone(),
        },
    )


def element_wise_recurrent(module: Any, request: Request) -> Cell:
    """Return ElementWiseRecurrentContainer: the last output added to the input."""
    inner = _output_of(module, request, module.sub_module, "sub_module")
    a, b = torch.rand(2, 7, generator=torch.Generator().manual_seed(0))
    try:
        adds = bool(torch.equal(module.element_wise_function(a, b), a + b))
    except Exception:
        adds = False  # the user's own function: whatever it raises, it does not add two tensors
    if not adds:
        raise request.refuse(
            "ElementWiseRecurrentContainer with another function than addition",
            "use element_wise_function=lambda x, y: x + y",
        )
    return replace(inner, around=((*inner.after, ("recurrent", {"op": "Identity"})), *inner.around))


READERS = {
    "IFNode": integrate_and_fire,
    "LIFNode": leaky,
    "ParametricLIFNode": parametric,
    "LinearRecurrentContainer": linear_recurrent,
    "ElementWiseRecurrentContainer": element_wise_recurrent,
}
# Sequences of layers, whatever they do with the time axis.
SEQUENCES = ("SeqToANNContainer", "MultiStepContainer", "StepModeContainer")
# What does nothing in inference; they derive from no torch class.
PASS_THROUGH = ("Dropout", "Dropout2d")
REFUSED = {
    "BatchNormThroughTime": "a batch norm with statistics per time step",
    "TemporalEffectiveBatchNorm": "a batch norm with a weight per time step",
    "ThresholdDependentBatchNorm": "a batch norm with statistics over time",
    "NeuNorm": "a normalisation with a state",
    "PSN": "a neuron that mixes time steps by a matrix",
}


def why_refused(name: str) -> str | None:
    """Return what a class does that no node can, or None for one that nobody looked at."""
    return next((why for part, why in REFUSED.items() if part in name), None)


def values(module: Any) -> int:
    """Return how many values a call returns: the spikes alone."""
    return 1


def multi_step(module: Any) -> bool:
    """Return whether a module takes all steps at once."""
    return getattr(module, "step_mode", "s") == "m"
