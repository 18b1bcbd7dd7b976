"""snnTorch's neurons: their own equations, read from snnTorch 1.0.0's code.

A neuron that fired resets at the start of its next step, unless reset_delay is False. Subtraction
then takes the threshold off *after* the decay: before it, that is threshold/beta. Reset to zero in
Leaky clears the membrane before the decay, which is a reset to 0; in Synaptic and the recurrent
neurons it clears what the next step would have added too, which no NIR neuron does.
"""

from __future__ import annotations

from typing import Any

import torch

from snn_deploy.frontends.record import Cell, Node, Request, join, layer_of, plain, tensor64
from snn_deploy.ir.unit_gain import unit_gain

_ZERO_HINT = "use reset_mechanism='subtract', Leaky, or reset_delay=False"


def _check(module: Any, request: Request) -> None:
    name = type(module).__name__
    if module.inhibition:
        raise request.refuse(f"{name} with inhibition cannot be deployed", "use inhibition=False")
    if module.state_quant:
        raise request.refuse(
            f"{name} with state_quant cannot be deployed",
            "train without it; targets quantize states in their own integers",
        )
    delayed = getattr(module, "reset_delay", True)
    if not delayed and name == "RSynaptic":
        raise request.refuse("RSynaptic with reset_delay=False cannot run", "leave reset_delay out")
    if not delayed and module.reset_mechanism == "subtract":
        raise request.refuse(
            f"{name} with reset_delay=False subtracts the threshold a second time where the "
            "membrane stays above it",
            "use reset_delay=True, snnTorch's default",
        )


def _decay(value: Any, name: str, request: Request, *, one: bool) -> Any:
    """Return a decay as float64, clamped as forward clamps it; ``one``: whether 1 is allowed."""
    decay = tensor64(value).clamp(0, 1)
    some = decay == 1
    if bool(some.any()) and not (one and bool(some.all())):
        raise request.refuse(
            f"{name} is 1 "
            + ("for some neurons only" if one else "and its state is never forgotten"),
            f"use one kind of neuron in a layer, and {name} below 1",
            used=f"{int(some.sum())} of {decay.numel()} values",
        )
    return decay


def _firing(module: Any, keep: Any, request: Request) -> Node:
    """Return threshold and reset; keep: the membrane's decay, between spike and subtraction."""
    threshold = tensor64(module.threshold)
    node: Node = {"v_threshold": plain(threshold), "v_reset": 0.0, "reset": "subtract"}
    mechanism = module.reset_mechanism
    if mechanism == "zero":
        if type(module).__name__ != "Leaky" and getattr(module, "reset_delay", True):
            raise request.refuse(
                f"{type(module).__name__} with reset_mechanism='zero' also drops the input of the "
                "step after a spike",
                _ZERO_HINT,
            )
        node["reset"] = "value"
    elif mechanism == "none":
        node["reset_amount"] = 0.0
    else:
        if bool((keep == 0).any()):
            raise request.refuse(
                "beta is 0 and the reset subtracts: a spike inhibits the next step",
                "use reset_mechanism='zero', or beta above 0",
            )
        node["reset_amount"] = plain(threshold / keep)
    return node


def _leaky(module: Any, request: Request, keep: Any, gain: Any, dt_s: float) -> Node:
    if bool((keep == 1).all()):
        neuron: Node = {"op": "IF", "r": plain(gain), "r_unit": "per-step"}
    else:
        tau, whole = unit_gain(1 - keep, dt_s)
        neuron = {"op": "LIF", "tau_s": plain(tau), "r": plain(gain * tensor64(whole))}
        neuron["v_leak"] = 0.0
    return {**neuron, **_firing(module, keep, request)}


def _graded(module: Any) -> tuple[tuple[str, Node], ...]:
    factor = tensor64(module.graded_spikes_factor)
    if bool((factor == 1).all()):
        return ()
    return (("graded", {"op": "Scale", "scale": plain(factor)}),)


def leaky(module: Any, request: Request) -> Cell:
    """Return Leaky: v = beta v + I."""
    _check(module, request)
    dt_s = request.step_s("snnTorch")
    keep = _decay(module.beta, "beta", request, one=True)
    neuron = _leaky(module, request, keep, tensor64(1.0), dt_s)
    return Cell(neuron=neuron, dt_s=dt_s, after=_graded(module))


def lapicque(module: Any, request: Request) -> Cell:
    """Return Lapicque: v = (1 - step/(R C)) v + step/C I."""
    _check(module, request)
    dt_s = request.step_s("snnTorch")
    step, resistance, capacity = (tensor64(v) for v in (module.time_step, module.R, module.C))
    keep = _decay(1 - step / (resistance * capacity), "1 - time_step/(R C)", request, one=False)
    gain = resistance * (1 / (resistance * capacity)) * step
    neuron = _leaky(module, request, keep, gain, dt_s)
    return Cell(neuron=neuron, dt_s=dt_s, after=_graded(module))


def synaptic(module: Any, request: Request) -> Cell:
    """Return Synaptic: i = alpha i + I; v = beta v + i."""
    _check(module, request)
    dt_s = request.step_s("snnTorch")
    alpha = _decay(module.alpha, "alpha", request, one=False)
    beta = _decay(module.beta, "beta", request, one=False)
    tau_syn, w_in = unit_gain(1 - alpha, dt_s)
    tau_mem, r = unit_gain(1 - beta, dt_s)
    neuron: Node = {
        "op": "CubaLIF",
        "tau_syn_s": plain(tau_syn),
        "tau_mem_s": plain(tau_mem),
        "r": plain(r),
        "w_in": plain(w_in),
        "v_leak": 0.0,
        **_firing(module, beta, request),
    }
    return Cell(neuron=neuron, dt_s=dt_s, after=_graded(module))


def _recurrent(module: Any, request: Request) -> tuple[str, Node]:
    path = join(request.path, "recurrent")
    if isinstance(module.recurrent, torch.nn.Linear | torch.nn.Conv2d):
        return "recurrent", layer_of(module.recurrent, path)
    return "recurrent", {"op": "Scale", "scale": plain(module.V)}


def _with_loop(inner: Cell, module: Any, request: Request) -> Cell:
    return Cell(
        neuron=inner.neuron,
        dt_s=inner.dt_s,
        around=((*inner.after, _recurrent(module, request)),),
        after=inner.after,
    )


def recurrent_leaky(module: Any, request: Request) -> Cell:
    """Return RLeaky: Leaky with its spikes fed back through weights of its own."""
    return _with_loop(leaky(module, request), module, request)


def recurrent_synaptic(module: Any, request: Request) -> Cell:
    """Return RSynaptic: Synaptic with its spikes fed back through weights of its own."""
    return _with_loop(synaptic(module, request), module, request)


READERS = {
    "Leaky": leaky,
    "Lapicque": lapicque,
    "Synaptic": synaptic,
    "RLeaky": recurrent_leaky,
    "RSynaptic": recurrent_synaptic,
}
_STATES = {"Leaky": 1, "Lapicque": 1, "Synaptic": 2, "RLeaky": 1, "RSynaptic": 2}


def values(module: Any) -> int:
    """Return how many values a call returns: spikes, then the states unless they are hidden."""
    if module.init_hidden and not module.output:
        return 1
    return 1 + _STATES[type(module).__name__]
