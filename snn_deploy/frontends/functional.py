"""Functional layers in a forward function, with weights that are parameters of the module."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from snn_deploy.errors import UnsupportedError
from snn_deploy.frontends import layers
from snn_deploy.frontends.builder import Attribute, Builder, Signal, add_operator
from snn_deploy.frontends.record import Node
from snn_deploy.frontends.trace import run_layer


def _linear(args: Mapping[str, Any], x: Signal) -> tuple[nn.Module, Node]:
    weight = args["weight"].value
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=args["bias"] is not None)
    return module, {}


def _conv(axes: int) -> Any:
    kind = (nn.Conv1d, nn.Conv2d)[axes - 1]

    def make(args: Mapping[str, Any], x: Signal) -> tuple[nn.Module, Node]:
        weight = args["weight"].value
        groups = args["groups"]
        module = kind(
            weight.shape[1] * groups,
            weight.shape[0],
            tuple(weight.shape[2:]),
            stride=args["stride"],
            padding=args["padding"],
            dilation=args["dilation"],
            groups=groups,
            bias=args["bias"] is not None,
        )
        return module, {}

    return make


def _avg_pool(args: Mapping[str, Any], x: Signal) -> tuple[nn.Module, Node]:
    return nn.AvgPool2d(**{k: v for k, v in args.items() if k != "input"}), {}


def _max_pool(args: Mapping[str, Any], x: Signal) -> tuple[nn.Module, Node]:
    return nn.MaxPool2d(**{k: v for k, v in args.items() if k != "input"}), {}


def _batch_norm(args: Mapping[str, Any], x: Signal) -> tuple[nn.Module, Node]:
    if args["training"]:
        raise UnsupportedError(
            "this batch norm uses the statistics of the batch it sees",
            hint="pass training=self.training, and call model.eval()",
        )
    kind = nn.BatchNorm1d if x.tensor.ndim < 4 else nn.BatchNorm2d
    module = kind(x.tensor.shape[1], eps=args["eps"], affine=args["weight"] is not None)
    return module, {"mean": args["running_mean"].path, "variance": args["running_var"].path}


_AVERAGE = (
    "input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad",
    "divisor_override",
)  # fmt: skip
_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_CONV_DEFAULTS = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_POOL_DEFAULTS = {"stride": None, "padding": 0, "ceil_mode": False}
#: function -> (names of its arguments in order, defaults, maker of the module that it equals)
_KNOWN: dict[Any, tuple[tuple[str, ...], dict[str, Any], Any]] = {
    functional.linear: (("input", "weight", "bias"), {"bias": None}, _linear),
    functional.conv1d: (_CONV, _CONV_DEFAULTS, _conv(1)),
    functional.conv2d: (_CONV, _CONV_DEFAULTS, _conv(2)),
    functional.avg_pool2d: (
        _AVERAGE,
        {**_POOL_DEFAULTS, "count_include_pad": True, "divisor_override": None},
        _avg_pool,
    ),
    functional.max_pool2d: (
        ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
        {**_POOL_DEFAULTS, "dilation": 1, "return_indices": False},
        _max_pool,
    ),
    functional.batch_norm: (
        tuple(inspect.signature(functional.batch_norm).parameters),
        {"weight": None, "bias": None, "training": False, "momentum": 0.1, "eps": 1e-5},
        _batch_norm,
    ),
    **{
        f: (_CONV, _CONV_DEFAULTS, _conv(i + 1)) for i, f in enumerate((torch.conv1d, torch.conv2d))
    },
}


def is_layer(target: Any) -> bool:
    """Return whether a function computes what one of the layers computes."""
    return target in _KNOWN


def apply_layer(
    builder: Builder, where: str, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Signal:
    """Return the value of a functional layer; its node refers to the module's parameters.

    Raises UnsupportedError where weights are computed in forward, and InputError for shapes.
    """
    names, defaults, make = _KNOWN[target]
    given = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
    x = given["input"]
    computed = [k for k, v in given.items() if k != "input" and isinstance(v, Signal)]
    loose = [k for k in ("weight", "bias") if isinstance(given.get(k), torch.Tensor)]
    if not isinstance(x, Signal) or computed or loose:
        raise UnsupportedError(
            f"{getattr(target, '__name__', target)} with {(computed + loose or ['input'])[0]} "
            "computed in forward cannot be deployed",
            where=where,
            hint="make it a parameter or buffer of the module",
        )
    try:
        module, extra = make(given, x)
    except UnsupportedError as error:
        error.where = where
        raise
    module = module.to(x.tensor.dtype).eval()
    after = run_layer(module, type(module), where, x.tensor)
    node = layers.layer_node(module, "", x.tensor, after)
    assert node is not None
    for key in ("weight", "bias"):
        if isinstance(given.get(key), Attribute):
            node[key] = given[key].path
    return Signal(after, (add_operator(builder, where, {**node, **extra}, x),))
