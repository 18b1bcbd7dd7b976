"""A live torch module to the graph of the ticket format.

The module is traced for one step: its forward function takes one step's input (batch first) and
returns spikes, or a tuple whose first entry is the spikes. Branches that meet in an addition
become several edges into one neuron.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from snn_deploy.errors import InputError, SnnDeployError, UnsupportedError, UsageError
from snn_deploy.frontends import cells, layers, spikingjelly
from snn_deploy.frontends.builder import Attribute, Builder, Signal, add_operator
from snn_deploy.frontends.functions import apply_function
from snn_deploy.frontends.record import Named
from snn_deploy.frontends.trace import run_layer, strip, trace, untouched
from snn_deploy.io.values import cutoff_json, cutoff_of
from snn_deploy.ir.network import MEMBRANE_READOUTS, Coding, Readout

Graph = dict[str, Any]
State = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a module turned out to be: the graph, the state it refers to, and notes for the user."""

    graph: Graph
    state: State
    notes: tuple[str, ...]


def graph_from_module(
    module: nn.Module,
    example_input: Tensor,
    *,
    dt_s: float | None = None,
    readout: str | Mapping[str, Any] | Readout = "count",
    coding: str | Mapping[str, Any] | Coding = "events",
) -> tuple[Graph, State]:
    """Return the ticket graph of ``module`` and its state_dict as CPU tensors.

    example_input: one step's input with a batch axis, values do not matter; a single sample
    without batch is taken too, except where nn.Flatten comes first. dt_s: seconds, by default
    what the neurons say; a different one is an error. readout: a kind, or {"kind", "groups",
    "window", "cutoff"}. coding: a kind, or {"kind", "steps", "seed", "gain"}. The module is left
    as it was. Raises UnsupportedError and InputError that name the module's path.
    """
    reading = read_module(module, example_input, dt_s=dt_s, readout=readout, coding=coding)
    return reading.graph, reading.state


def read_module(
    module: nn.Module,
    example_input: Tensor,
    *,
    dt_s: float | None = None,
    readout: str | Mapping[str, Any] | Readout = "count",
    coding: str | Mapping[str, Any] | Coding = "events",
) -> Reading:
    """Return what ``graph_from_module`` returns, and notes on what was left out."""
    if not isinstance(module, nn.Module):
        raise UsageError(f"a torch module is needed, not {type(module).__name__}")
    _check_devices(module)
    _check_training(module)
    how = _readout(readout)
    with untouched(module):
        graph, modules = trace(module)
        example = torch.as_tensor(example_input).detach().cpu()
        example = example.to(_dtype(module))
        builder, result = _walk_either(graph, modules, example, dt_s)
        state = {
            key: _portable(value, key)
            for key, value in (*module.state_dict().items(), *builder.tensors.items())
            if isinstance(value, Tensor)
        }
    _finish(builder, result, how, type(module).__name__)
    return Reading(
        graph={
            "dt_s": _common_step(builder.dt_s, dt_s),
            "nodes": builder.nodes,
            "edges": builder.edges,
            "readout": how,
            "coding": _coding(coding),
            "feedback": [],
        },
        state=state,
        notes=tuple(builder.notes),
    )


def _dtype(module: nn.Module) -> torch.dtype:
    """Return the floating type that a module's layers compute in."""
    found = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(found, torch.get_default_dtype())


def _check_devices(module: nn.Module) -> None:
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.device.type != "cpu":
            raise UnsupportedError(
                f"the module lives on {tensor.device}",
                where=name,
                hint="call module.cpu() first",
            )


def _check_training(module: nn.Module) -> None:
    for name, part in module.named_modules():
        drops = isinstance(part, layers.DROPOUT) or type(part).__name__ in spikingjelly.PASS_THROUGH
        if part.training and drops and getattr(part, "p", 0):
            raise UnsupportedError(
                "the module is in training mode, where its dropout is active",
                where=name or type(part).__name__,
                hint="call model.eval() first: what is deployed is the module in inference",
            )


def _portable(value: Tensor, key: str) -> Tensor:
    """Return a copy of its own; half precision becomes float32, which holds the same values."""
    if value.dtype in (torch.float16, torch.bfloat16):
        value = value.float()
    if value.is_complex() or value.is_quantized:
        raise UnsupportedError(f"{value.dtype} values cannot be deployed", where=key)
    return value.detach().clone(memory_format=torch.contiguous_format)


def _readout(value: str | Mapping[str, Any] | Readout) -> dict[str, Any]:
    if isinstance(value, Readout):
        value = dataclasses.asdict(value)
    given: dict[str, Any] = {"kind": value} if isinstance(value, str) else dict(value)
    full = {"kind": "count", "groups": None, "window": None, "cutoff": None} | given
    if full["kind"] not in ("count", "vote", *MEMBRANE_READOUTS) or len(full) > 4:
        raise UsageError(
            f"unknown readout {value!r}",
            hint="count, vote, last, max or mean; groups; window; cutoff",
        )
    if (full["kind"] == "vote") != (full["groups"] is not None):
        raise UsageError(
            "groups belong to the vote readout, and it needs them",
            used=f"{full}",
            hint='readout={"kind": "vote", "groups": CLASSES}',
        )
    if full["window"] is not None:
        full["window"] = [int(v) for v in full["window"]]
    full["cutoff"] = cutoff_json(cutoff_of(full["cutoff"]))
    return full


def _coding(value: str | Mapping[str, Any] | Coding) -> dict[str, Any]:
    if isinstance(value, Coding):
        value = dataclasses.asdict(value)
    given = {"kind": value} if isinstance(value, str) else dict(value)
    full = {"kind": "events", "steps": None, "seed": 0, "gain": 1.0} | given
    if full["kind"] not in ("rate", "direct", "events") or len(full) > 4:
        raise UsageError(
            f"unknown coding {value!r}", hint="rate, direct or events; steps; seed; gain"
        )
    return full


def _common_step(found: Mapping[str, float], asked: float | None) -> float:
    first, dt_s = next(iter(found.items()))
    for name, other in found.items():
        if other != dt_s:
            raise InputError(
                "populations of one network have one step, these have two",
                where=f"{first} and {name}",
                used=f"{dt_s:g} s and {other:g} s",
                hint="give all neurons the same dt",
            )
    if asked is not None and asked != dt_s:
        raise InputError(
            "dt_s differs from the step that the neurons were trained with",
            where=first,
            used=f"{asked:g} s asked, {dt_s:g} s in the module",
            hint="leave dt_s out; another step would change every time constant",
        )
    return dt_s


def _walk_either(
    graph: fx.Graph, modules: dict[str, nn.Module], example: Tensor, dt_s: float | None
) -> tuple[Builder, Signal]:
    """Read ``example`` as a batch; where its shape does not fit, as one sample."""
    if example.ndim < 2:
        return _walk(graph, modules, example[None], dt_s)
    try:
        return _walk(graph, modules, example, dt_s)
    except InputError as batch_error:
        try:
            return _walk(graph, modules, example[None], dt_s)
        except SnnDeployError:
            raise batch_error from None


def _walk(
    graph: fx.Graph, modules: dict[str, nn.Module], example: Tensor, dt_s: float | None
) -> tuple[Builder, Signal]:
    builder = Builder(asked_dt_s=dt_s, all_steps=_takes_all_steps(modules))
    source = builder.add("input", {"op": "Input", "shape": list(example.shape[1:])}, ())
    # Two samples: a batch of one would let a size of 1 pass for the batch axis.
    zeros = torch.zeros((2, *example.shape[1:]), dtype=example.dtype)
    values: dict[fx.Node, Any] = {}
    result: Any = None
    for node in graph.nodes:
        args = fx.node.map_arg(node.args, lambda n: values[n])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: values[n])
        if node.op == "placeholder":
            values[node] = Signal(zeros, (source,))
        elif node.op == "call_module":
            path = strip(str(node.target))
            values[node] = _call(builder, modules[str(node.target)], path, args, kwargs)
        elif node.op == "output":
            result = args[0]
        elif node.op == "get_attr":
            values[node] = Attribute(strip(str(node.target)), _resolved(modules[""], node))
        else:
            values[node] = apply_function(builder, node, args, kwargs)
    while isinstance(result, tuple | list) and result:
        result = result[0]
    if not isinstance(result, Signal):
        raise UnsupportedError(
            "forward does not return the output's spikes",
            hint="return the spikes of the last population, or a tuple that starts with them",
        )
    return builder, result


def _resolved(root: nn.Module, node: fx.Node) -> Any:
    value: Any = root
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value


def _takes_all_steps(modules: Mapping[str, nn.Module]) -> bool:
    """Return whether the cells have a time axis; UnsupportedError where some do and some do not."""
    _check_folded(modules)
    over = tuple(f"{name}." for name, module in modules.items() if cells.wraps_time(module))
    found = {
        name: cells.takes_all_steps(module) or name.startswith(over)
        for name, module in modules.items()
        if cells.is_cell(module)
    }
    # A cell may hold another: what the outer one takes counts.
    kinds = {
        name: many
        for name, many in found.items()
        if not any(name.startswith(f"{other}.") for other in found)
    }
    if len(set(kinds.values())) > 1:
        one = next(n for n, many in kinds.items() if not many)
        all_of_them = next(n for n, many in kinds.items() if many)
        raise UnsupportedError(
            "some neurons take one step and some all steps at once",
            where=f"{strip(one)} and {strip(all_of_them)}",
            hint="use one step mode for the whole network",
        )
    return any(kinds.values())


def _check_folded(modules: Mapping[str, nn.Module]) -> None:
    """Refuse neurons that would take the steps for samples."""
    folded = [name for name, module in modules.items() if cells.folds_time(module)]
    for name, module in modules.items():
        around = next((other for other in folded if name.startswith(f"{other}.")), None)
        if around is not None and cells.is_cell(module) and not cells.keeps_time(module):
            raise UnsupportedError(
                f"{type(modules[around]).__name__} shows {type(module).__name__} every step as a "
                "sample of its own, so that it keeps no state",
                where=strip(name),
                hint="put stateless layers alone into it, and the neuron behind it",
            )


def _call(
    builder: Builder,
    module: nn.Module,
    path: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    name = path or type(module).__name__
    x = args[0] if args else next(iter(kwargs.values()), None)
    if isinstance(x, tuple) and x and isinstance(x[0], Signal):
        raise UnsupportedError(
            f"{type(module).__name__} gets a pair (spikes, state) in place of the spikes",
            where=name,
            hint="nn.Sequential passes on all that a cell returns: use "
            "norse.torch.SequentialState (snnTorch: init_hidden=True), or take the spikes alone in "
            "your forward",
        )
    if not isinstance(x, Signal):
        raise UnsupportedError(
            f"{type(module).__name__} gets something other than the step's values",
            where=name,
            hint="forward must feed it from the input or from another layer",
        )
    if cells.is_cell(module):
        return _neuron(builder, module, path, name, x, [*args[1:], *list(kwargs.values())])
    base = layers.base_layer(module)
    if base is None:
        raise layers.unsupported(module, name)
    if builder.all_steps and type(module) is nn.Flatten and module.start_dim > 1:
        after = layers.flattened(x.tensor, module.start_dim - 1, module.end_dim, all_steps=True)
    else:
        after = run_layer(module, base, name, x.tensor)
    try:
        node = layers.layer_node(module, path, x.tensor, after)
    except SnnDeployError as error:
        error.where = name
        raise
    if node is None:
        if isinstance(module, layers.PASS_THROUGH):
            builder.notes.append(f"{name}: {type(module).__name__} does nothing in inference")
        return Signal(after, x.sources)
    return Signal(after, (add_operator(builder, name, node, x),))


def _neuron(
    builder: Builder, module: nn.Module, path: str, name: str, x: Signal, extra: list[Any]
) -> Any:
    if module in builder.called or any(not _is_rest(value) for value in extra):
        raise UnsupportedError(
            f"{type(module).__name__} is used more than once in a step, or is given a state",
            where=name,
            hint="pass the module of one step, without the loop over time; a population may be "
            "used once, and its state argument defaults to None",
        )
    builder.called.add(module)
    shape = tuple(x.tensor.shape[1:])
    cell = cells.read_cell(module, path, x.tensor, builder.asked_dt_s)
    builder.tensors.update(cell.tensors)
    sources = _add_row(builder, name, cell.before, x)
    shape = cell.shape or shape
    neuron = builder.add(name, {**cell.neuron, "shape": list(shape)}, sources)
    if cell.neuron["op"] not in ("LI", "CubaLI", "Integrator"):
        builder.neurons.add(neuron)
    builder.dt_s[neuron] = cell.dt_s
    spikes = torch.zeros((x.tensor.shape[0], *shape), dtype=x.tensor.dtype)
    for row in cell.around:
        (last,) = _add_row(builder, name, row, Signal(spikes, (neuron,)))
        builder.edges.append([last, neuron])
    out = Signal(spikes, _add_row(builder, name, cell.after, Signal(spikes, (neuron,))))
    values = cells.values_of(module)
    return out if values == 1 else (out, *[None] * (values - 1))


def _is_rest(value: Any) -> bool:
    """Return whether a state argument means the state at rest: absent, or zeros."""
    if isinstance(value, Attribute):
        value = value.value
    return value is None or (isinstance(value, Tensor) and not bool(value.ne(0).any()))


def _add_row(builder: Builder, name: str, row: Named, x: Signal) -> tuple[str, ...]:
    """Add operators one behind the other and return what the last one's output is called."""
    sources = x.sources
    for suffix, node in row:
        at = f"{name}.{suffix}"
        sources = (add_operator(builder, at, dict(node), Signal(x.tensor, sources)),)
    return sources


def _finish(builder: Builder, result: Signal, readout: Mapping[str, Any], name: str) -> None:
    """Add the Output node, drop what does not lead there, refuse what cannot be read."""
    if not builder.neurons:
        raise UnsupportedError(
            "the module has no spiking neuron",
            where=name,
            hint="put a spiking neuron after each layer; see examples/bring_your_own_model.py",
        )
    spiking = all(source in builder.neurons for source in result.sources)
    if len(result.sources) > 1 or (not spiking and readout["kind"] not in MEMBRANE_READOUTS):
        raise UnsupportedError(
            f"the {readout['kind']} readout needs the spikes of one population",
            where=", ".join(result.sources),
            hint='end the module with a LIF, or choose readout="mean" for a sum of values',
        )
    output = builder.add("output", {"op": "Output"}, result.sources)
    reached, waiting = set(), [output]
    while waiting:
        reached.add(here := waiting.pop())
        waiting += [a for a, b in builder.edges if b == here and a not in reached]
    for node in builder.nodes:
        if node["name"] not in reached:
            builder.notes.append(f"{node['name']}: does not lead to the output, left out")
    builder.nodes = [n for n in builder.nodes if n["name"] in reached]
    builder.edges = [[a, b] for a, b in builder.edges if b in reached]
