"""SpikingJelly's neurons and containers: their own equations, read from SpikingJelly 2.0.0's code.

A node fires where v >= threshold: here that is v > the next smaller number. Most start at v_reset,
or at 0 where they subtract, and their leak goes towards that start.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from snn_deploy.frontends.record import Cell, Node, Request, join, plain, tensor64
from snn_deploy.ir.unit_gain import unit_gain

_NAME = "SpikingJelly"


def _in_dtype(value: Any, request: Request) -> float:
    """Return a number as the module sees it: 0.7 is another one in float32 than in float64."""
    return float(torch.tensor(float(value), dtype=request.dtype))


def _check_spikes(module: Any, request: Request) -> None:
    """Refuse a surrogate function whose forward pass is no step that fires at 0."""
    points = torch.tensor([-1.0, -1e-3, 0.0, 1e-3, 1.0], dtype=request.dtype)
    try:
        with torch.no_grad():
            found = torch.as_tensor(module.surrogate_function(points)).tolist()
    except Exception:
        found = []  # the user's own function, or one of chances: whatever it raises, it is no step
    if found != [0, 0, 1, 1, 1]:
        raise request.refuse(
            f"{type(module).__name__}'s surrogate_function gives other values than spikes",
            "call surrogate_function.set_spiking_mode(True), and train it so",
            used=f"{type(module.surrogate_function).__name__}",
        )


def _firing(module: Any, request: Request, starts_at: float | None = None) -> Node:
    """Return threshold and reset; the membrane starts at the reset's value unless told."""
    _check_spikes(module, request)
    threshold = _in_dtype(module.v_threshold, request)
    node: Node = {"v_threshold": float(np.nextafter(threshold, -np.inf))}
    if module.v_reset is None:
        node.update(v_reset=0.0, reset="subtract", reset_amount=threshold)
    else:
        node.update(v_reset=_in_dtype(module.v_reset, request), reset="value")
    start = node["v_reset"] if starts_at is None else _in_dtype(starts_at, request)
    return {**node, "v_init": start} if start else node


def _if(module: Any, request: Request, firing: Node) -> Cell:
    node = {"op": "IF", "r": 1.0, "r_unit": "per-step", **firing}
    return Cell(neuron=node, dt_s=request.step_s(_NAME))


def integrate_and_fire(module: Any, request: Request) -> Cell:
    """Return IFNode: v = v + I."""
    return _if(module, request, _firing(module, request))


def simple_if(module: Any, request: Request) -> Cell:
    """Return SimpleIFNode: IFNode that starts at 0, wherever it resets to."""
    return _if(module, request, _firing(module, request, starts_at=0.0))


def half_threshold_if(module: Any, request: Request) -> Cell:
    """Return HalfThresholdIFNode: IFNode that starts at half its threshold."""
    return _if(module, request, _firing(module, request, starts_at=module.v_threshold / 2))


def _lif(module: Any, request: Request, share: Any, firing: Node) -> Cell:
    """Return a LIF that loses ``share`` of its membrane in a step."""
    dt_s = request.step_s(_NAME)
    tau, whole = unit_gain(share, dt_s)
    node: Node = {
        "op": "LIF",
        "tau_s": plain(dt_s / share if module.decay_input else tau),
        "r": 1.0 if module.decay_input else plain(whole),
        "v_leak": firing["v_reset"],
        **firing,
    }
    return Cell(neuron=node, dt_s=dt_s)


def leaky(module: Any, request: Request) -> Cell:
    """Return LIFNode: v = v + (I - (v - v_reset)) / tau, or without the division of I."""
    return _lif(module, request, 1 / np.float64(module.tau), _firing(module, request))


def simple_lif(module: Any, request: Request) -> Cell:
    """Return SimpleLIFNode: LIFNode that starts at 0, wherever it resets to."""
    if module.v_reset is None:
        raise request.refuse(
            "SimpleLIFNode computes with v_reset and cannot do without", "use LIFNode"
        )
    share = 1 / np.float64(module.tau)
    return _lif(module, request, share, _firing(module, request, starts_at=0.0))


def parametric(module: Any, request: Request) -> Cell:
    """Return ParametricLIFNode: LIFNode with 1/tau = sigmoid(w)."""
    share = tensor64(module.w.detach().sigmoid()).numpy()
    return _lif(module, request, share, _firing(module, request))


def current_based(module: Any, request: Request) -> Cell:
    """Return CUBALIFNode: c = c_decay c + I, v = v_decay v + c, without a leak towards v_reset."""
    dt_s = request.step_s(_NAME)
    decays = np.array([module.c_decay, module.v_decay], np.float64)
    if not bool(np.all((decays >= 0) & (decays < 1))):
        raise request.refuse(
            "c_decay and v_decay must lie in [0, 1)",
            "give decays below 1",
            used=f"{module.c_decay:g} and {module.v_decay:g}",
        )
    tau, gain = unit_gain(1 - decays, dt_s)
    node: Node = {
        "op": "CubaLIF",
        "tau_syn_s": plain(tau[0]),
        "w_in": plain(gain[0]),
        "tau_mem_s": plain(tau[1]),
        "r": plain(gain[1]),
        "v_leak": 0.0,
        **_firing(module, request),
    }
    return Cell(neuron=node, dt_s=dt_s)


def _check_decode(module: Any, request: Request) -> None:
    if module.decode is not None:
        raise request.refuse(
            f"{type(module).__name__} with decode={module.decode!r} returns no value per step",
            'use decode=None, and pass readout="last", "max" or "mean"',
        )


def non_spiking_if(module: Any, request: Request) -> Cell:
    """Return NonSpikingIFNode: v = v + I, and v is what it returns."""
    _check_decode(module, request)
    dt_s = request.step_s(_NAME)
    return Cell(neuron={"op": "Integrator", "r": 1 / dt_s}, dt_s=dt_s)


def non_spiking_lif(module: Any, request: Request) -> Cell:
    """Return NonSpikingLIFNode: v = v + (I - v) / tau, and v is what it returns."""
    _check_decode(module, request)
    dt_s = request.step_s(_NAME)
    node: Node = {"op": "LI", "tau_s": float(module.tau) * dt_s, "r": 1.0, "v_leak": 0.0}
    return Cell(neuron=node, dt_s=dt_s)


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
    # Wide of 0 and 1, where minima, maxima and bounds would show.
    a, b = 8 * torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
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
    "CUBALIFNode": current_based,
    "HalfThresholdIFNode": half_threshold_if,
    "SimpleIFNode": simple_if,
    "SimpleLIFNode": simple_lif,
    # In inference both are LIFNode; what makes them online is in the backward pass.
    "SLTTLIFNode": leaky,
    "OTTTLIFNode": leaky,
    "NonSpikingIFNode": non_spiking_if,
    "NonSpikingLIFNode": non_spiking_lif,
    "LinearRecurrentContainer": linear_recurrent,
    "ElementWiseRecurrentContainer": element_wise_recurrent,
}
# Sequences of layers, whatever they do with the time axis.
SEQUENCES = ("SeqToANNContainer", "MultiStepContainer", "StepModeContainer")
# What does nothing in inference; they derive from no torch class.
PASS_THROUGH = ("Dropout", "Dropout2d")
# Part of a class's name: why it has no node, and what helps if not another neuron.
REFUSED = {
    "BatchNormThroughTime": ("a batch norm with statistics per time step", ""),
    "TemporalEffectiveBatchNorm": ("a batch norm with a weight per time step", ""),
    "ThresholdDependentBatchNorm": ("a batch norm with statistics over time", ""),
    "NeuNorm": ("a normalisation with a state", ""),
    "PSN": ("a neuron that mixes time steps by a matrix", ""),
    "GatedLIF": ("a neuron with a parameter per time step", ""),
    "ComplementaryLIF": ("a neuron with a second membrane", ""),
    "KLIF": ("a neuron that rectifies its membrane", ""),
    "LIAF": ("a neuron with analogue outputs", ""),
    "ILIF": ("a neuron with several spikes in a step", ""),
    "Ternary": ("a neuron with negative spikes", ""),
    "MPBN": ("a neuron that normalises its membrane over the batch", ""),
    "QIF": ("a neuron with a membrane that is not linear", ""),
    "EIF": ("a neuron with a membrane that is not linear", ""),
    "Izhikevich": ("a neuron with a membrane that is not linear", ""),
    "SynapseFilter": ("a current with a state", "use CUBALIFNode for the neuron behind it"),
    "VotingLayer": (
        "a readout",
        'leave it out, and pass readout={"kind": "vote", "groups": CLASSES}',
    ),
}


def folds_time(module: Any) -> bool:
    """Return whether a sequence shows its children all steps as one batch."""
    if type(module).__name__ == "StepModeContainer":
        return module.step_mode == "m" and not module.stateful
    return type(module).__name__ == "SeqToANNContainer"


def values(module: Any) -> int:
    """Return how many values a call returns: the spikes alone."""
    return 1


def multi_step(module: Any) -> bool:
    """Return whether a module takes all steps at once; what does not spike takes nothing else."""
    return getattr(module, "step_mode", "m") == "m"
