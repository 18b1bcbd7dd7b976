"""A live torch module to the graph of the ticket format.

The module is traced for one step: its forward function takes one step's input (batch first) and
returns spikes, or a tuple whose first entry is the spikes. Branches that meet in an addition
become several edges into one neuron.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from snn_deploy.errors import InputError, SnnDeployError, UnsupportedError, UsageError
from snn_deploy.frontends import layers
from snn_deploy.frontends.trace import run_layer, strip, trace, untouched
from snn_deploy.ir.network import MEMBRANE_READOUTS, Coding, Readout

Graph = dict[str, Any]
State = dict[str, Tensor]

_ADD = {operator.add, operator.iadd, torch.add, "add", "add_"}
_RESHAPE = {torch.flatten, torch.reshape, "flatten", "reshape", "view"}
_KEEP = {"contiguous", "detach", "clone", "float"}
_DROPOUT = {functional.dropout, functional.dropout2d, functional.alpha_dropout, torch.dropout}
_ACTIVATIONS = {functional.relu, torch.relu, "relu", torch.sigmoid, functional.gelu, torch.tanh}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a module turned out to be: the graph, the state it refers to, and notes for the user."""

    graph: Graph
    state: State
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Signal:
    """A value inside the step: a tensor of its shape, and the nodes whose sum it is."""

    tensor: Tensor
    sources: tuple[str, ...]


@dataclass(slots=True)
class _Builder:
    """Nodes and edges under construction."""

    nodes: list[dict[str, Any]] = field(default_factory=list)
    edges: list[list[str]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    neurons: set[str] = field(default_factory=set)
    called: set[nn.Module] = field(default_factory=set)
    dt_s: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, wanted: str, node: dict[str, Any], sources: tuple[str, ...]) -> str:
        name, count = wanted, 1
        while name in self.names:
            count += 1
            name = f"{wanted}_use{count}"
        self.names.add(name)
        self.nodes.append({"name": name, **node})
        self.edges.extend([source, name] for source in sources)
        return name


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
    "window"}. coding: a kind, or {"kind", "steps", "seed", "gain"}. The module is left as it
    was. Raises UnsupportedError and InputError that name the module's path.
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
    how = _readout(readout)
    with untouched(module):
        graph, modules = trace(module)
        example = torch.as_tensor(example_input).detach().cpu()
        if not example.is_floating_point():
            example = example.to(torch.get_default_dtype())
        builder, result = _walk_either(graph, modules, example)
        state = {
            key: _portable(value, key)
            for key, value in module.state_dict().items()
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


def _check_devices(module: nn.Module) -> None:
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.device.type != "cpu":
            raise UnsupportedError(
                f"the module lives on {tensor.device}",
                where=name,
                hint="call module.cpu() first",
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
    given = {"kind": value} if isinstance(value, str) else dict(value)
    full = {"kind": "count", "groups": None, "window": None} | given
    if full["kind"] not in ("count", "vote", *MEMBRANE_READOUTS) or len(full) > 3:
        raise UsageError(
            f"unknown readout {value!r}", hint="count, vote, last, max or mean; groups; window"
        )
    if (full["kind"] == "vote") != (full["groups"] is not None):
        raise UsageError(
            "groups belong to the vote readout, and it needs them",
            used=f"{full}",
            hint='readout={"kind": "vote", "groups": CLASSES}',
        )
    if full["window"] is not None:
        full["window"] = [int(v) for v in full["window"]]
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
    graph: fx.Graph, modules: dict[str, nn.Module], example: Tensor
) -> tuple[_Builder, _Signal]:
    """Read ``example`` as a batch; where its shape does not fit, as one sample."""
    if example.ndim < 2:
        return _walk(graph, modules, example[None])
    try:
        return _walk(graph, modules, example)
    except InputError as batch_error:
        try:
            return _walk(graph, modules, example[None])
        except SnnDeployError:
            raise batch_error from None


def _walk(
    graph: fx.Graph, modules: dict[str, nn.Module], example: Tensor
) -> tuple[_Builder, _Signal]:
    builder = _Builder()
    source = builder.add("input", {"op": "Input", "shape": list(example.shape[1:])}, ())
    # Two samples: a batch of one would let a size of 1 pass for the batch axis.
    zeros = torch.zeros((2, *example.shape[1:]), dtype=example.dtype)
    values: dict[fx.Node, Any] = {}
    result: Any = None
    for node in graph.nodes:
        args = fx.node.map_arg(node.args, lambda n: values[n])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: values[n])
        if node.op == "placeholder":
            values[node] = _Signal(zeros, (source,))
        elif node.op == "call_module":
            path = strip(str(node.target))
            values[node] = _call(builder, modules[str(node.target)], path, args, kwargs)
        elif node.op == "output":
            result = args[0]
        elif node.op == "get_attr":
            values[node] = _Attribute(strip(str(node.target)))
        else:
            values[node] = _function(builder, node, args, kwargs)
    while isinstance(result, tuple | list) and result:
        result = result[0]
    if not isinstance(result, _Signal):
        raise UnsupportedError(
            "forward does not return the output's spikes",
            hint="return the spikes of the last population, or a tuple that starts with them",
        )
    return builder, result


@dataclass(frozen=True, slots=True)
class _Attribute:
    """A parameter or constant that forward uses by itself."""

    path: str


def _call(
    builder: _Builder,
    module: nn.Module,
    path: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    name = path or type(module).__name__
    x = args[0] if args else next(iter(kwargs.values()), None)
    if not isinstance(x, _Signal):
        raise UnsupportedError(
            f"{type(module).__name__} gets something other than the step's values",
            where=name,
            hint="forward must feed it from the input or from another layer",
        )
    if layers.is_neuron(module):
        return _neuron(builder, module, path, name, x, [*args[1:], *list(kwargs.values())])
    if layers.is_foreign(module):
        raise layers.unsupported(module, name)
    if type(module) not in layers.CONVERTERS:
        raise layers.unsupported(module, name)
    after = run_layer(module, name, x.tensor)
    try:
        node = layers.layer_node(module, path, x.tensor, after)
    except SnnDeployError as error:
        error.where = name
        raise
    if node is None:
        if isinstance(module, layers.PASS_THROUGH):
            builder.notes.append(f"{name}: {type(module).__name__} does nothing in inference")
        return _Signal(after, x.sources)
    return _Signal(after, (_operator(builder, name, node, x),))


def _operator(builder: _Builder, name: str, node: dict[str, Any], x: _Signal) -> str:
    if len(x.sources) > 1:
        spikes = all(source in builder.neurons for source in x.sources)
        raise UnsupportedError(
            f"{node['op']} reads a sum of {'spikes' if spikes else 'branches'}",
            where=f"{name} <- {', '.join(x.sources)}",
            hint="add the branches' currents right before a neuron (spike-element-wise addition "
            "gives values other than 0 and 1); a batch norm belongs on each branch",
        )
    return builder.add(name, node, x.sources)


def _neuron(
    builder: _Builder, module: nn.Module, path: str, name: str, x: _Signal, extra: list[Any]
) -> Any:
    if module in builder.called or any(value is not None for value in extra):
        raise UnsupportedError(
            f"{type(module).__name__} is used more than once in a step, or is given a state",
            where=name,
            hint="pass the module of one step, without the loop over time; a population may be "
            "used once, and its state argument defaults to None",
        )
    builder.called.add(module)
    try:
        node = layers.neuron_node(module, path, tuple(x.tensor.shape[1:]))
    except SnnDeployError as error:
        error.where = name
        raise
    dt_s = node.pop("dt_s")
    node_name = builder.add(name, node, x.sources)
    builder.neurons.add(node_name)
    builder.dt_s[node_name] = dt_s
    spikes = _Signal(torch.zeros_like(x.tensor), (node_name,))
    return (spikes, None) if layers.is_norse_lif(module) else spikes


def _function(
    builder: _Builder, node: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    target: Any = node.target
    signals = [a for a in (*args, *kwargs.values()) if isinstance(a, _Signal)]
    if target in _ADD:
        return _sum(args, kwargs, str(node))
    if target is operator.getitem and isinstance(args[0], tuple | list | torch.Size):
        return args[0][args[1]]
    if target in _RESHAPE and signals:
        x = signals[0]
        sizes = [a for a in args if not isinstance(a, _Signal)]
        reshape = getattr(x.tensor, getattr(target, "__name__", str(target)))
        try:
            after = reshape(*sizes, **{k: v for k, v in kwargs.items() if k != "input"})
        except (RuntimeError, IndexError) as err:
            raise InputError(
                f"this reshape does not fit: {err}",
                where=str(node),
                used=f"shape {list(x.tensor.shape)}",
                hint="keep the batch axis: x.flatten(1)",
            ) from err
        flat = layers.flatten_node(str(node), x.tensor, after)
        if flat is None:
            return x
        return _Signal(after, (_operator(builder, str(node), flat, x),))
    if target in _DROPOUT:
        chance = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
        training = kwargs.get("training", args[2] if len(args) > 2 else target is not torch.dropout)
        if training and chance:
            raise UnsupportedError(
                "this dropout stays active in inference",
                where=str(node),
                hint="pass training=self.training, or use nn.Dropout",
            )
        builder.notes.append(f"{node}: dropout does nothing in inference")
        return signals[0]
    if target in _KEEP and signals:
        return signals[0]
    if target in ("size", "dim") and signals:
        return getattr(signals[0].tensor, target)(*args[1:])
    if target is getattr and signals and args[1] in ("shape", "ndim"):
        return getattr(signals[0].tensor, args[1])
    if not signals and node.op == "call_function" and _is_plain(args):
        return target(*args, **kwargs)
    raise _unknown_function(target, str(node), signals, args)


def _is_plain(args: tuple[Any, ...]) -> bool:
    return all(isinstance(a, int | float | torch.Size) for a in args)


def _unknown_function(
    target: Any, where: str, signals: list[_Signal], args: tuple[Any, ...]
) -> UnsupportedError:
    name = getattr(target, "__name__", str(target))
    if any(isinstance(a, _Attribute) for a in args) or name in ("linear", "conv1d", "conv2d"):
        hint = "use the module (nn.Linear, nn.Conv2d, ...) so that the weights have a name"
    elif target in _ACTIVATIONS:
        hint = "replace the activation by a spiking neuron, such as snn_deploy.tickets.lif.LIF"
    elif target is operator.getitem:
        hint = "pass the module of one step: forward must not index its input over time"
    else:
        hint = "use torch.nn layers and neurons, and add currents with +"
    return UnsupportedError(f"{name} in forward cannot be deployed", where=where, hint=hint)


def _sum(args: tuple[Any, ...], kwargs: Mapping[str, Any], where: str) -> Any:
    if all(isinstance(a, int | float) for a in args):
        return sum(args)
    values = [*args, *(v for k, v in kwargs.items() if k in ("other", "input"))]
    if len(values) != 2 or not all(isinstance(v, _Signal) for v in values):
        raise UnsupportedError(
            "adding anything but two branches cannot be deployed",
            where=where,
            hint="put constants into a layer's bias",
        )
    a, b = values
    if kwargs.get("alpha", 1) != 1 or a.tensor.shape != b.tensor.shape:
        raise UnsupportedError(
            "branches are added one to one",
            where=where,
            used=f"shapes {list(a.tensor.shape)} and {list(b.tensor.shape)}, "
            f"alpha {kwargs.get('alpha', 1)}",
            hint="both branches need the same shape, and no alpha",
        )
    if set(a.sources) & set(b.sources):
        raise UnsupportedError(
            "a branch is added to itself",
            where=where,
            hint="scale the weights of the layer before instead",
        )
    return _Signal(a.tensor, a.sources + b.sources)


def _finish(builder: _Builder, result: _Signal, readout: Mapping[str, Any], name: str) -> None:
    """Add the Output node, drop what does not lead there, refuse what cannot be read."""
    if not builder.neurons:
        raise UnsupportedError(
            "the module has no spiking neuron",
            where=name,
            hint="put a LIF after each layer; see examples/bring_your_own_model.py",
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
