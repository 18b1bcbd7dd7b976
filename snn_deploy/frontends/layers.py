"""One torch layer to one node of the ticket format: a table of exact classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.frontends import cells, spikingjelly
from snn_deploy.frontends.record import Node, join

# Layers that do nothing in inference.
PASS_THROUGH = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
DROPOUT = PASS_THROUGH[1:]
_SUPPORTED = (
    "Linear, Conv1d, Conv2d, BatchNorm1d/2d, AvgPool2d, MaxPool2d, AdaptiveAvgPool2d, Flatten, "
    "Dropout, Identity, neurons of norse, snnTorch, SpikingJelly and sinabs, and "
    "snn_deploy.tickets.lif.LIF"
)


def layer_node(module: nn.Module, path: str, before: Tensor, after: Tensor) -> Node | None:
    """Return a stateless layer's node, or None where it does nothing in inference.

    before and after: the layer's input and output with a batch axis. Raises UnsupportedError.
    """
    base = base_layer(module)
    if base is None:
        raise unsupported(module, path)
    return CONVERTERS[base](module, path, before, after)


def base_layer(module: nn.Module) -> type | None:
    """Return the layer class that a module is, or that a framework's wrapper of it computes."""
    kind = type(module)
    if kind in CONVERTERS:
        return kind
    if kind.__name__ == "SumPool2d" and cells.package_of(kind) == "sinabs":
        return cast(type, nn.LPPool2d)
    if kind.__module__.startswith("spikingjelly.activation_based.layer"):
        if kind.__name__ in spikingjelly.PASS_THROUGH:
            return cast(type, nn.Identity)
        known: list[type] = [k for k in kind.__mro__ if k in CONVERTERS]
        return known[0] if known and kind.__name__ == known[0].__name__ else None
    return None


def unsupported(module: nn.Module, path: str) -> UnsupportedError:
    """Return the error for a module of a class that has no node."""
    name = type(module).__name__
    reason = f"{name} cannot be deployed"
    if cells.is_foreign(module):
        package = cells.package_of(type(module))
        known = cells.FRAMEWORKS.get(package)
        refused = getattr(known, "REFUSED", {})
        why, instead = next((what for part, what in refused.items() if part in name), ("", ""))
        if why:
            reason = f"{name} cannot be deployed: it is {why}"
        if instead:
            hint = instead
        elif known is not None:
            hint = f"read of {package}: {', '.join(known.READERS)}; see docs/frameworks.md"
        elif package in cells.FOREIGN:
            hint = "export the network to NIR, or use snn_deploy.tickets.lif.LIF"
        else:
            base = next(k for k in type(module).__mro__ if cells.package_of(k) in cells.FRAMEWORKS)
            hint = (
                f"it derives from {base.__name__} and may compute something else: use "
                f"{base.__name__} itself"
            )
    elif hasattr(module, "parametrizations"):
        hint = "call torch.nn.utils.parametrize.remove_parametrizations first"
    elif "activation" in type(module).__module__:
        hint = "replace the activation by a spiking neuron, such as snn_deploy.tickets.lif.LIF"
    else:
        hint = f"supported: {_SUPPORTED}"
    return UnsupportedError(reason, where=path, hint=hint)


def _linear(module: nn.Linear, path: str, before: Tensor, after: Tensor) -> Node:
    _need(before.ndim == 2, module, path, before, "flat samples (batch, features)")
    return {"op": "Linear", **_weights(module, path)}


def _weights(module: nn.Module, path: str) -> Node:
    node: Node = {"weight": join(path, "weight")}
    if "weight" in module._buffers:  # no parameter: nothing in it is learned
        node["fixed"] = True
    if getattr(module, "bias", None) is not None:
        node["bias"] = join(path, "bias")
    return node


def _conv(module: nn.Conv1d | nn.Conv2d, path: str, before: Tensor, after: Tensor) -> Node:
    axes = len(module.kernel_size)
    names = "(batch, C, L)" if axes == 1 else "(batch, C, H, W)"
    _need(before.ndim == axes + 2, module, path, before, names)
    if module.padding_mode != "zeros":
        raise UnsupportedError(
            f"padding mode {module.padding_mode!r} cannot be deployed",
            where=path,
            hint="use padding_mode='zeros'",
        )
    if module.padding == "same":
        extra = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        padding = [side for e in extra for side in (e // 2, e - e // 2)]
    else:
        ends = (0,) * axes if module.padding == "valid" else cast(tuple[int, ...], module.padding)
        padding = [side for e in ends for side in (e, e)]
    return {
        "op": f"Conv{axes}d",
        **_weights(module, path),
        "stride": list(module.stride),
        "padding": padding,
        "dilation": list(module.dilation),
        "groups": module.groups,
    }


def _batch_norm(
    module: nn.BatchNorm1d | nn.BatchNorm2d, path: str, before: Tensor, after: Tensor
) -> Node:
    if module.running_mean is None or module.running_var is None:
        raise UnsupportedError(
            "this batch norm keeps no statistics, so it depends on the batch it sees",
            where=path,
            hint="train with track_running_stats=True",
        )
    node: Node = {
        "op": "BatchNorm",
        "mean": join(path, "running_mean"),
        "variance": join(path, "running_var"),
        "weight": [1.0] * module.num_features,
        "bias": [0.0] * module.num_features,
        "eps": module.eps,
    }
    if module.affine:
        node.update(_weights(module, path))
    return node


def _pool(module: nn.AvgPool2d | nn.MaxPool2d, path: str, before: Tensor, after: Tensor) -> Node:
    _need(before.ndim == 4, module, path, before, "(batch, C, H, W)")
    kernel, padding = _pair(module.kernel_size), _pair(module.padding)
    stride = _pair(module.stride)
    refused = None
    if isinstance(module, nn.AvgPool2d):
        if any(padding) and not module.count_include_pad:
            refused = "count_include_pad=False with padding"
        elif module.divisor_override not in (None, 1, math.prod(kernel)):
            refused = "divisor_override"
    elif _pair(module.dilation) != [1, 1]:
        refused = "dilation"
    elif module.return_indices:
        refused = "return_indices"
    floor = [
        (size + 2 * p - k) // s + 1
        for size, p, k, s in zip(before.shape[2:], padding, kernel, stride, strict=True)
    ]
    if refused is None and list(after.shape[2:]) != floor:
        refused = "ceil_mode where it adds a row or a column"
    if refused is not None:
        raise UnsupportedError(
            f"{type(module).__name__} with {refused} cannot be deployed",
            where=path,
            hint="use a plain pool whose windows tile the padded input",
        )
    kind = "avg" if isinstance(module, nn.AvgPool2d) else "max"
    if kind == "avg" and module.divisor_override == 1:
        kind = "sum"
    return _pool_node(kind, kernel, stride, padding)


def _sum_pool(module: nn.LPPool2d, path: str, before: Tensor, after: Tensor) -> Node:
    _need(before.ndim == 4, module, path, before, "(batch, C, H, W)")
    kernel = _pair(module.kernel_size)
    stride = kernel if module.stride is None else _pair(module.stride)
    if module.norm_type != 1 or module.ceil_mode:
        raise UnsupportedError(
            f"{type(module).__name__} with norm_type {module.norm_type} and ceil_mode "
            f"{module.ceil_mode} cannot be deployed",
            where=path,
            hint="norm_type=1 without ceil_mode is a sum pool",
        )
    return _pool_node("sum", kernel, stride, [0, 0])


def _adaptive(module: nn.AdaptiveAvgPool2d, path: str, before: Tensor, after: Tensor) -> Node:
    _need(before.ndim == 4, module, path, before, "(batch, C, H, W)")
    sizes, wanted = list(before.shape[2:]), list(after.shape[2:])
    if any(size % out for size, out in zip(sizes, wanted, strict=True)):
        raise UnsupportedError(
            "this adaptive pool has windows of different sizes",
            where=path,
            used=f"{sizes} to {wanted}",
            hint="choose an output size that divides the input's",
        )
    kernel = [size // out for size, out in zip(sizes, wanted, strict=True)]
    return _pool_node("avg", kernel, kernel, [0, 0])


def _pool_node(kind: str, kernel: list[int], stride: list[int], padding: list[int]) -> Node:
    sides = [side for p in padding for side in (p, p)]
    return {"op": "Pool2d", "kind": kind, "kernel": kernel, "stride": stride, "padding": sides}


def _pair(value: Any) -> list[int]:
    return [int(value)] * 2 if isinstance(value, int) else [int(v) for v in value]


def _flatten(module: nn.Flatten, path: str, before: Tensor, after: Tensor) -> Node | None:
    return flatten_node(path, before, after)


def flattened(x: Tensor, first: int, last: int, *, all_steps: bool) -> Tensor:
    """Return ``x`` (batch first) flattened; with all_steps, ``last`` counts a time axis too."""
    return x.flatten(first, last - 1 if all_steps and last > 0 else last)


def flatten_node(path: str, before: Tensor, after: Tensor) -> Node | None:
    """Return a Flatten node, None where the shape stays; UnsupportedError for other reshapes."""
    if after.shape == before.shape:
        return None
    if after.shape != (before.shape[0], math.prod(before.shape[1:])):
        raise UnsupportedError(
            "only flattening whole samples can be deployed",
            where=path,
            used=f"{list(before.shape)} to {list(after.shape)}",
            hint="keep the batch axis and flatten all others: nn.Flatten()",
        )
    return {"op": "Flatten"}


def _nothing(module: nn.Module, path: str, before: Tensor, after: Tensor) -> None:
    return None


def _need(holds: bool, module: nn.Module, path: str, before: Tensor, expected: str) -> None:
    if not holds:
        raise InputError(
            f"{type(module).__name__} needs {expected}",
            where=path,
            used=f"shape {list(before.shape)}",
            hint="example_input is one step's input with a batch axis; put nn.Flatten() before "
            "the first fully connected layer",
        )


CONVERTERS: dict[type, Callable[[Any, str, Tensor, Tensor], Node | None]] = {
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.AvgPool2d: _pool,
    nn.MaxPool2d: _pool,
    nn.LPPool2d: _sum_pool,
    nn.AdaptiveAvgPool2d: _adaptive,
    nn.Flatten: _flatten,
    **dict.fromkeys(PASS_THROUGH, _nothing),
}
