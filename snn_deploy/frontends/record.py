"""What a framework's stateful module is in the ticket graph, and how a reader is asked for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from snn_deploy.errors import UnsupportedError, UsageError

Node = dict[str, Any]
Named = tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a reader is asked for.

    path: of the module. shape: of its input, without batch. dtype: what it computes in. dt_s:
    seconds asked, or None. child: reads the population that the module holds; None for one that
    is no population.
    """

    path: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    dt_s: float | None
    child: Callable[[nn.Module, Request], Cell | None]

    def step_s(self, framework: str) -> float:
        """Return the asked step in seconds, for a framework whose modules know none."""
        if self.dt_s is None:
            raise UsageError(
                f"{framework}'s neurons count in steps: how long one is must be said",
                where=self.path or None,
                hint="pass dt_s=SECONDS (in the command line: --dt SECONDS)",
            )
        return self.dt_s

    def refuse(self, what: str, hint: str, used: str | None = None) -> UnsupportedError:
        """Return the error for something that this module does and no node can."""
        return UnsupportedError(what, where=self.path or None, used=used, hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A population and the operators that its module holds.

    neuron: op and parameters (numbers, lists, or names of tensors). before: operators on the way
    to it, by suffix; around: from its spikes back to its input, one step later; after: on the way
    out. shape: of the population, None for the input's. dt_s: seconds. tensors: what operators
    refer to beyond the module's state_dict, by name.
    """

    neuron: Node
    dt_s: float
    before: Named = ()
    around: tuple[Named, ...] = ()
    after: Named = ()
    shape: tuple[int, ...] | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


def join(path: str, name: str) -> str:
    """Return the state_dict key of ``name`` in the module at ``path`` ("" is the root)."""
    return f"{path}.{name}" if path else name


def plain(value: Any) -> Any:
    """Return a number or nested list of float64 for a parameter of any form."""
    tensor = torch.as_tensor(value).detach().cpu().to(torch.float64)
    return tensor.item() if tensor.numel() == 1 else tensor.tolist()


def tensor64(value: Any) -> Tensor:
    """Return a parameter as a float64 tensor with the value that the module computes with."""
    return torch.as_tensor(value).detach().cpu().to(torch.float64)


def layer_of(module: nn.Linear | nn.Conv1d | nn.Conv2d, path: str) -> Node:
    """Return the node of a plain layer that a cell holds, its tensors by their state_dict keys."""
    node: Node = {"weight": join(path, "weight")}
    if module.bias is not None:
        node["bias"] = join(path, "bias")
    if isinstance(module, nn.Linear):
        return {"op": "Linear", **node}
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise UnsupportedError(
            "a recurrent convolution with this padding cannot be deployed",
            where=path,
            used=f"padding {module.padding!r}, {module.padding_mode}",
            hint="give the padding in numbers, with padding_mode='zeros'",
        )
    return {
        "op": f"Conv{len(module.kernel_size)}d",
        **node,
        "stride": list(module.stride),
        "padding": [side for p in module.padding for side in (p, p)],
        "dilation": list(module.dilation),
        "groups": module.groups,
    }
