"""Neuron types as ONNX functions of standard operators, one step of forward Euler each.

A runtime that knows nothing of spiking networks inlines the body; one that does may replace the
call. Inputs are the coefficients of ``ir.neurons.Step``, so that no division by a time constant
is left to the runtime's rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import FunctionProto, NodeProto, helper

from snn_deploy.bridges.onnx_graph import OPSET, Graph
from snn_deploy.ir.network import Population, fitted
from snn_deploy.ir.neurons import Relay, Step, Threshold

DOMAIN = "ai.snn_deploy"


@dataclass(frozen=True, slots=True)
class Advanced:
    """What a population leaves behind in a step: value names; u is None without a current."""

    z: str
    v: str
    u: str | None


def function_name(population: Population, step: Step) -> str:
    """Return the function's name: the neuron's type, and Subtract where it resets so."""
    kind = type(population.neuron).__name__
    return f"{kind}Subtract" if step.reset == "subtract" else kind


def parameters(population: Population, step: Step) -> list[str]:
    """Return the names of the coefficients that the population's function takes, in order."""
    kind = type(population.neuron).__name__
    if kind == "Threshold":
        return ["threshold"]
    names = ["keep_u", "gain_u"] if step.has_current else []
    names += ["gain_v"] if kind in ("IF", "Integrator") else ["keep_v", "gain_v", "offset"]
    if step.threshold is not None:
        names += ["threshold", "v_reset" if step.reset == "value" else "reset_amount"]
    return names


def states(population: Population, step: Step) -> tuple[str, ...]:
    """Return the state variables of a population: u, v, both or none."""
    if isinstance(population.neuron, Relay | Threshold):
        return ()
    return ("u", "v") if step.has_current else ("v",)


def function(population: Population, step: Step) -> FunctionProto:
    """Return the function: inputs current, states, coefficients; outputs z (if it spikes), states.

    Every neuron type but Relay, which computes nothing, has one.
    """
    names = parameters(population, step)
    held = states(population, step)
    nodes: list[NodeProto] = []

    def add(op: str, output: str, *inputs: str) -> str:
        nodes.append(helper.make_node(op, list(inputs), [output]))
        return output

    drive = "current"
    if step.has_current:
        kept, gained = add("Mul", "kept_u", "keep_u", "u"), add("Mul", "gained_u", "gain_u", drive)
        drive = add("Add", "next_u", kept, gained)
    fires = step.threshold is not None
    if not held:
        before = drive
    elif "keep_v" in names:
        kept, gained = add("Mul", "kept_v", "keep_v", "v"), add("Mul", "gained_v", "gain_v", drive)
        summed = add("Add", "moved_v", kept, gained)
        before = add("Add", "before" if fires else "next_v", summed, "offset")
    else:
        gained = add("Mul", "gained_v", "gain_v", drive)
        before = add("Add", "before" if fires else "next_v", "v", gained)
    outputs = [f"next_{name}" for name in held]
    if fires:
        fired = add("Greater", "fired", before, "threshold")
        add("CastLike", "z", fired, "current")
        outputs.insert(0, "z")
        if step.reset == "value":
            add("Where", "next_v", fired, "v_reset", before)
        elif step.reset == "subtract":
            add("Sub", "next_v", before, add("Mul", "taken", "z", "reset_amount"))
    return helper.make_function(
        DOMAIN,
        function_name(population, step),
        ["current", *held, *names],
        outputs,
        nodes,
        [helper.make_opsetid("", OPSET)],
        doc_string=f"One step of {function_name(population, step)}: z = v > threshold, strict.",
    )


def advance(
    graph: Graph, population: Population, step: Step, current: str, held: dict[str, str]
) -> Advanced:
    """Add one step of a population; held: the names of its states' values, replaced by the new."""
    if isinstance(population.neuron, Relay):
        return Advanced(current, current, None)
    inputs = [current, *(held[name] for name in states(population, step))]
    for name in parameters(population, step):
        value = fitted(getattr(step, name), population.shape)
        inputs.append(graph.constant(f"{population.name}.{name}", value))
    fires = step.threshold is not None
    outputs = [f"{population.name}.z"] if fires else []
    outputs += [f"{population.name}.next_{name}" for name in states(population, step)]
    made = graph.several(function_name(population, step), inputs, outputs, domain=DOMAIN)
    z = made[0] if fires else ""
    new = dict(zip(states(population, step), made[1 if fires else 0 :], strict=True))
    held.update(new)
    v = new.get("v", current)
    return Advanced(z or v, v, new.get("u"))
