"""Functions and tensor methods in a forward function: additions, reshapes, dropout, sizes."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.frontends import layers
from snn_deploy.frontends.builder import Attribute, Builder, Signal, add_operator
from snn_deploy.frontends.functional import apply_layer, is_layer

_ADD = {operator.add, operator.iadd, torch.add, "add", "add_"}
_RESHAPE = {torch.flatten, torch.reshape, "flatten", "reshape", "view"}
_KEEP = {"contiguous", "detach", "clone", "float"}
_DROPOUT = {functional.dropout, functional.dropout2d, functional.alpha_dropout, torch.dropout}
_ACTIVATIONS = {functional.relu, torch.relu, "relu", torch.sigmoid, functional.gelu, torch.tanh}


def apply_function(
    builder: Builder, node: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Return the value of a function or method call in forward; nodes are added as needed.

    Raises UnsupportedError for what has no node, and InputError for a reshape that cannot be.
    """
    target: Any = node.target
    signals = [a for a in (*args, *kwargs.values()) if isinstance(a, Signal)]
    if target in _ADD:
        return _sum(args, kwargs, str(node))
    if target is operator.getitem and isinstance(args[0], tuple | list | torch.Size):
        return args[0][args[1]]
    if target in _RESHAPE and signals:
        x = signals[0]
        sizes = [a for a in args if not isinstance(a, Signal)]
        if builder.all_steps and "flatten" in str(node) and sizes and sizes[0] > 1:
            sizes[0] -= 1  # it counts the time axis
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
        return Signal(after, (add_operator(builder, str(node), flat, x),))
    if is_layer(target):
        return apply_layer(builder, str(node), target, args, kwargs)
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
    target: Any, where: str, signals: list[Signal], args: tuple[Any, ...]
) -> UnsupportedError:
    name = getattr(target, "__name__", str(target))
    if any(isinstance(a, Attribute) for a in args) or name in ("linear", "conv1d", "conv2d"):
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
    if len(values) != 2 or not all(isinstance(v, Signal) for v in values):
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
    return Signal(a.tensor, a.sources + b.sources)
