"""One torch layer to one node of the ticket format: a table of exact classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from snn_deploy.errors import InputError, UnsupportedError

Node = dict[str, Any]
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
# Their modules are opaque to us: tracing into them would give a misleading error.
FOREIGN = ("norse", "snntorch", "spikingjelly", "sinabs", "rockpool", "lava", "spyx", "braintorch")
_SUPPORTED = (
    "Linear, Conv1d, Conv2d, BatchNorm1d/2d, AvgPool2d, MaxPool2d, AdaptiveAvgPool2d, Flatten, "
    "Dropout, Identity, snn_deploy.tickets.lif.LIF and norse's LIFBoxCell"
)


def is_norse_lif(module: nn.Module) -> bool:
    """Return whether ``module`` is norse's LIFBoxCell, without importing norse."""
    kind = type(module)
    return kind.__name__ == "LIFBoxCell" and kind.__module__.split(".")[0] == "norse"


def is_neuron(module: nn.Module) -> bool:
    """Return whether ``module`` is a population: norse's LIFBoxCell, or it has ``ticket_node``."""
    return is_norse_lif(module) or callable(getattr(module, "ticket_node", None))


def is_foreign(module: nn.Module) -> bool:
    """Return whether ``module`` belongs to another spiking framework."""
    return type(module).__module__.split(".")[0] in FOREIGN


def neuron_node(module: nn.Module, path: str, shape: tuple[int, ...]) -> Node:
    """Return a population's node, with ``dt_s`` still in it; ``shape`` is without the batch.

    A module's ``ticket_node()`` gives ``op``, ``dt_s`` and parameters as numbers, or as tensors
    that are buffers or parameters of that module under the same name.
    """
    if is_norse_lif(module):
        node = _norse_lif(module, path)
    else:
        node = dict(cast(Any, module).ticket_node())
        owned = dict(module.named_buffers(recurse=False))
        owned.update(module.named_parameters(recurse=False))
        for name, value in node.items():
            if isinstance(value, Tensor):
                if owned.get(name) is not value:
                    raise UnsupportedError(
                        f"{type(module).__name__}.{name} is a tensor but not in its state_dict",
                        where=path,
                        hint=f"register_buffer({name!r}, ...) or make it a number",
                    )
                node[name] = join(path, name)
    node["shape"] = list(shape)
    return node


def _norse_lif(module: nn.Module, path: str) -> Node:
    cell = cast(Any, module)
    p = cell.p
    method = getattr(p.reset_method, "__name__", "")
    if method not in ("reset_value", "reset_subtract"):
        raise UnsupportedError(
            f"this cell resets by {method or 'a method of its own'}",
            where=path,
            hint="use norse's reset_value or reset_subtract",
        )
    leak = torch.as_tensor(p.v_leak)
    if bool((leak != 0).any()):
        # norse starts at v_leak, we start at 0: the first spikes would differ.
        raise UnsupportedError(
            "norse starts a cell with a leak potential at that potential, snn-deploy at 0",
            where=path,
            used=f"v_leak = {float(leak.abs().max()):g}",
            hint="train with v_leak = 0, and put the offset into the layer's bias",
        )
    rate = torch.as_tensor(p.tau_mem_inv).to(torch.float64)
    if not bool((rate > 0).all()):
        raise InputError("tau_mem_inv must be positive", where=path)
    return {
        "op": "LIF",
        "dt_s": float(cell.dt),
        "reset": method.removeprefix("reset_"),
        "tau_s": _plain(1 / rate),
        "r": 1.0,
        "v_leak": 0.0,
        "v_threshold": _plain(p.v_th),
        "v_reset": _plain(p.v_reset),
    }


def _plain(value: Any) -> Any:
    tensor = torch.as_tensor(value).detach().cpu().to(torch.float64)
    return tensor.item() if tensor.ndim == 0 else tensor.tolist()


def join(path: str, name: str) -> str:
    """Return the state_dict key of ``name`` in the module at ``path`` ("" is the root)."""
    return f"{path}.{name}" if path else name


def layer_node(module: nn.Module, path: str, before: Tensor, after: Tensor) -> Node | None:
    """Return a stateless layer's node, or None where it does nothing in inference.

    before and after: the layer's input and output with a batch axis. Raises UnsupportedError.
    """
    convert = CONVERTERS.get(type(module))
    if convert is None:
        raise unsupported(module, path)
    return convert(module, path, before, after)


def unsupported(module: nn.Module, path: str) -> UnsupportedError:
    """Return the error for a module of a class that has no node."""
    name = type(module).__name__
    if is_foreign(module):
        hint = (
            "of other frameworks' modules only norse's LIFBoxCell is read live; export the "
            "network to NIR, or use snn_deploy.tickets.lif.LIF with the same equation"
        )
    elif hasattr(module, "parametrizations"):
        hint = "call torch.nn.utils.parametrize.remove_parametrizations first"
    elif "activation" in type(module).__module__:
        hint = "replace the activation by a spiking neuron, such as snn_deploy.tickets.lif.LIF"
    else:
        hint = f"supported: {_SUPPORTED}"
    return UnsupportedError(f"{name} cannot be deployed", where=path, hint=hint)


def _linear(module: nn.Linear, path: str, before: Tensor, after: Tensor) -> Node:
    _need(before.ndim == 2, module, path, before, "flat samples (batch, features)")
    return {"op": "Linear", **_weights(module, path)}


def _weights(module: nn.Module, path: str) -> Node:
    node = {"weight": join(path, "weight")}
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
        elif module.divisor_override not in (None, math.prod(kernel)):
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
    return _pool_node(kind, kernel, stride, padding)


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
    nn.AdaptiveAvgPool2d: _adaptive,
    nn.Flatten: _flatten,
    **dict.fromkeys(PASS_THROUGH, _nothing),
}
