"""sinabs' layers in their single-spike mode: their own equations, read from sinabs 3.1.3's code.

v = alpha v + I (times 1 - alpha with norm_input), alpha = exp(-1/tau); it fires where
v >= threshold. With tau_syn, the current decays together with its new input:
i = alpha_syn (i + I).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from snn_deploy.frontends.record import Cell, Node, Request, join, layer_of, plain, tensor64
from snn_deploy.ir.unit_gain import unit_gain

_NAME = "sinabs"


def _check(module: Any, request: Request) -> None:
    name = type(module).__name__
    if module.spike_fn is not None and getattr(module.spike_fn, "__name__", "") != "SingleSpike":
        raise request.refuse(
            f"{name} may fire several spikes in a step",
            "build it with spike_fn=sinabs.activation.SingleSpike, and train it so",
        )
    if module.min_v_mem is not None:
        raise request.refuse(
            f"{name} with min_v_mem cannot be deployed",
            "build it with min_v_mem=None (from_model sets -1 unless told)",
            used=f"{float(module.min_v_mem.min()):g}",
        )


def _firing(module: Any, request: Request) -> Node:
    threshold = tensor64(module.spike_threshold)
    before = torch.from_numpy(np.asarray(np.nextafter(threshold.numpy(), -np.inf)))
    node: Node = {"v_threshold": plain(before), "v_reset": 0.0}
    reset = type(module.reset_fn).__name__
    if reset == "MembraneSubtract":
        amount = module.reset_fn.subtract_value
        amount = threshold if amount is None else tensor64(amount)
        return {**node, "reset": "subtract", "reset_amount": plain(amount)}
    if reset != "MembraneReset" or module.reset_fn.reset_value != 0:
        # MembraneReset adds its value to every neuron, whether it fired or not.
        raise request.refuse(
            f"{reset or 'this'} reset to a value other than 0 cannot be deployed",
            "use MembraneSubtract() or MembraneReset()",
        )
    return {**node, "reset": "value"}


def _share(alpha: Any, name: str, request: Request) -> Any:
    share = 1 - tensor64(alpha)
    if not bool(((share > 0) & (share <= 1)).all()):
        raise request.refuse(
            f"{name} must lie in [0, 1)",
            "give a time constant in steps, greater than 0",
            used=f"{float((1 - share).max()):g}",
        )
    return share


def lif(module: Any, request: Request) -> Cell:
    """Return LIF, IAF and ExpLeak (which never fires), with or without a synaptic current."""
    _check(module, request)
    dt_s = request.step_s(_NAME)
    fires = module.spike_fn is not None
    node: Node = _firing(module, request) if fires else {}
    perfect = bool((tensor64(module.alpha_mem_calculated) == 1).all())
    if perfect and module.norm_input:
        raise request.refuse(
            "this membrane keeps all of itself, so that norm_input multiplies its input by 0",
            "use IAF, norm_input=False or a shorter tau_mem",
        )
    if module.alpha_syn_calculated is None:
        if perfect and not fires:
            return Cell(neuron={"op": "Integrator", "r": 1 / dt_s}, dt_s=dt_s)
        if perfect:
            neuron = {"op": "IF", "r": 1.0, "r_unit": "per-step"}
            return Cell(neuron={**neuron, **node}, dt_s=dt_s)
        share = _share(module.alpha_mem_calculated, "alpha_mem", request)
        tau, whole = unit_gain(share, dt_s)
        neuron = {"op": "LIF" if fires else "LI", "tau_s": plain(tau), "v_leak": 0.0}
        neuron["r"] = 1.0 if module.norm_input else plain(whole)
        return Cell(neuron={**neuron, **node}, dt_s=dt_s)
    if perfect:
        raise request.refuse(
            "a synaptic current in front of a membrane without leak cannot be deployed",
            "use LIF with a long tau_mem",
        )
    share = _share(module.alpha_mem_calculated, "alpha_mem", request)
    synapse = _share(module.alpha_syn_calculated, "alpha_syn", request)
    tau, whole = unit_gain(share, dt_s)
    neuron = {
        "op": "CubaLIF" if fires else "CubaLI",
        "tau_syn_s": plain(dt_s / synapse),
        "tau_mem_s": plain(tau),
        "r": 1.0 if module.norm_input else plain(whole),
        "w_in": plain((1 - synapse) / synapse),
        "v_leak": 0.0,
    }
    return Cell(neuron={**neuron, **node}, dt_s=dt_s)


def recurrent(module: Any, request: Request) -> Cell:
    """Return LIFRecurrent and IAFRecurrent: spikes fed back through one layer without bias."""
    inner = lif(module, request)
    layer, path = module.rec_connect, join(request.path, "rec_connect")
    if isinstance(layer, torch.nn.Sequential):
        parts = [(i, m) for i, m in enumerate(layer) if not isinstance(m, torch.nn.Flatten)]
        if len(parts) == 1:
            path, layer = f"{path}.{parts[0][0]}", parts[0][1]
    if not isinstance(layer, torch.nn.Linear | torch.nn.Conv2d | torch.nn.Identity):
        raise request.refuse(
            f"rec_connect is {type(layer).__name__}", "use one nn.Linear or nn.Conv2d without bias"
        )
    if getattr(layer, "bias", None) is not None and bool(layer.bias.detach().ne(0).any()):
        raise request.refuse(
            "the bias of rec_connect acts from the second step on",
            "use bias=False there, and a bias in the layer before",
        )
    if isinstance(layer, torch.nn.Identity):
        node: Node = {"op": "Identity"}
    else:
        node = layer_of(layer, path)
        node.pop("bias", None)
    return Cell(neuron=inner.neuron, dt_s=inner.dt_s, around=((("rec_connect", node),),))


READERS = {
    "LIF": lif,
    "LIFSqueeze": lif,
    "IAF": lif,
    "IAFSqueeze": lif,
    "ExpLeak": lif,
    "ExpLeakSqueeze": lif,
    "LIFRecurrent": recurrent,
    "LIFRecurrentSqueeze": recurrent,
    "IAFRecurrent": recurrent,
    "IAFRecurrentSqueeze": recurrent,
}
_FOLD = "use Repeat around stateless layers, or the Squeeze forms of the neurons"
# Part of a class's name: why it has no node, and what helps if not another neuron.
REFUSED = {
    "ALIF": ("a neuron whose threshold adapts", ""),
    "FlattenTime": ("a change of axes that depends on what follows", _FOLD),
    "UnflattenTime": ("a change of axes that depends on what precedes", _FOLD),
}


def values(module: Any) -> int:
    """Return how many values a call returns: the spikes alone."""
    return 1


def multi_step(module: Any) -> bool:
    """Return whether a module has a time axis: all but the squeezed ones, behind the batch."""
    return not squeezed(module)


def squeezed(module: Any) -> bool:
    """Return whether a module finds the steps in the batch axis by itself."""
    return "Squeeze" in type(module).__name__
