"""norse's cells and layers: their own equations, read from norse 1.1.0's functional code.

LIF (with a synaptic current) adds the input to the current, lets the membrane see the sum, and
only then decays the current: as u_t = (1 - dt/tau_syn) u_{t-1} + I_t that is a CubaLIF with
w_in = tau_syn/dt. Membranes start at the leak potential, IAF's at the reset potential.
"""

from __future__ import annotations

from typing import Any

from snn_deploy.errors import InputError
from snn_deploy.frontends.record import Cell, Node, Request, join, plain, tensor64
from snn_deploy.ir.unit_gain import unit_gain


def _rate(value: Any, request: Request, name: str) -> Any:
    rate = tensor64(value)
    if not bool((rate > 0).all()):
        raise InputError(
            f"{name} must be positive",
            where=request.path,
            hint="it is the inverse of a time constant in seconds",
        )
    return rate


def _membrane(p: Any, request: Request) -> Node:
    leak = tensor64(p.v_leak)
    node: Node = {
        "tau_s": plain(1 / _rate(p.tau_mem_inv, request, "tau_mem_inv")),
        "r": 1.0,
        "v_leak": plain(leak),
    }
    if bool((leak != 0).any()):
        node["v_init"] = plain(leak)
    return node


def _synapse(p: Any, dt_s: float, request: Request) -> Node:
    node = _membrane(p, request)
    node["tau_mem_s"] = node.pop("tau_s")
    tau, w_in = unit_gain(_rate(p.tau_syn_inv, request, "tau_syn_inv") * dt_s, dt_s)
    node.update(tau_syn_s=plain(tau), w_in=plain(w_in))
    return node


def _firing(p: Any) -> Node:
    return {"reset": "value", "v_threshold": plain(p.v_th), "v_reset": plain(p.v_reset)}


def lif_box(module: Any, request: Request) -> Cell:
    """Return LIFBoxCell: no synaptic current; resets by value or by the threshold."""
    p = module.p
    method = getattr(p.reset_method, "__name__", "")
    if method not in ("reset_value", "reset_subtract"):
        raise request.refuse(
            f"this cell resets by {method or 'a method of its own'}",
            "use norse's reset_value or reset_subtract",
        )
    reset = method.removeprefix("reset_")
    node = {"op": "LIF", **_membrane(p, request), **_firing(p), "reset": reset}
    return Cell(neuron=node, dt_s=float(module.dt))


def lif(module: Any, request: Request) -> Cell:
    """Return LIFCell and LIF (over time): with a synaptic current, reset to a value."""
    dt_s = float(module.dt)
    node = {"op": "CubaLIF", **_synapse(module.p, dt_s, request), **_firing(module.p)}
    return Cell(neuron=node, dt_s=dt_s)


def lif_recurrent(module: Any, request: Request) -> Cell:
    """Return LIFRecurrentCell and LIFRecurrent: input and recurrent weights of its own."""
    inner = lif(module, request)
    path = request.path
    return Cell(
        neuron=inner.neuron,
        dt_s=inner.dt_s,
        before=(("input_weights", {"op": "Linear", "weight": join(path, "input_weights")}),),
        around=(
            (("recurrent_weights", {"op": "Linear", "weight": join(path, "recurrent_weights")}),),
        ),
        shape=(int(module.hidden_size),),
    )


def iaf(module: Any, request: Request) -> Cell:
    """Return IAFCell and IAF: no leak, starts at the reset potential."""
    node: Node = {"op": "IF", "r": 1.0, "r_unit": "per-step", **_firing(module.p)}
    if bool((tensor64(module.p.v_reset) != 0).any()):
        node["v_init"] = node["v_reset"]
    return Cell(neuron=node, dt_s=float(module.dt))


def li(module: Any, request: Request) -> Cell:
    """Return LICell and LI: a leaky integrator behind a synaptic current."""
    dt_s = float(module.dt)
    return Cell(neuron={"op": "CubaLI", **_synapse(module.p, dt_s, request)}, dt_s=dt_s)


def li_box(module: Any, request: Request) -> Cell:
    """Return LIBoxCell: a leaky integrator."""
    return Cell(neuron={"op": "LI", **_membrane(module.p, request)}, dt_s=float(module.dt))


def li_linear(module: Any, request: Request) -> Cell:
    """Return LILinearCell: a leaky integrator behind weights of its own."""
    inner = li(module, request)
    weights = {"op": "Linear", "weight": join(request.path, "input_weights")}
    return Cell(
        neuron=inner.neuron,
        dt_s=inner.dt_s,
        before=(("input_weights", weights),),
        shape=(int(module.hidden_size),),
    )


READERS = {
    "LIFBoxCell": lif_box,
    "LIFCell": lif,
    "LIF": lif,
    "LIFRecurrentCell": lif_recurrent,
    "LIFRecurrent": lif_recurrent,
    "IAFCell": iaf,
    "IAF": iaf,
    "LICell": li,
    "LI": li,
    "LIBoxCell": li_box,
    "LILinearCell": li_linear,
}
# Layers over time: the first axis of what they get is time.
MULTI_STEP = ("LIF", "LIFRecurrent", "IAF", "LI")


def values(module: Any) -> int:
    """Return how many values a call returns: output and state."""
    return 2


def multi_step(module: Any) -> bool:
    """Return whether a module takes all steps at once."""
    return type(module).__name__ in MULTI_STEP
