"""torch.fx tracing of one step of a module, without leaving a trace in the module."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx, nn

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.frontends import cells

PREFIX = "module"
_LOOP_HINT = (
    "pass the module of one step: no loop over time and no branch on values in forward; "
    "states are arguments that default to None"
)


class _Root(nn.Module):  # type: ignore[misc]
    """Holds the user's module, so that a module that is itself a layer is called like any other."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Any) -> Any:
        return self.module(x)


class _Tracer(fx.Tracer):  # type: ignore[misc]
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if cells.is_sequence(m) or cells.is_composite(m):
            return False
        return (
            cells.is_cell(m)
            or cells.is_foreign(m)
            or super().is_leaf_module(m, module_qualified_name)
        )

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if getattr(m, "time_batched", False):
            return _apply_children(m, args[0])
        if cells.is_sequence(m):
            if getattr(m, "return_hidden", False):
                raise UnsupportedError(
                    "SequentialState with return_hidden has no single output",
                    where=strip(self.path_of_module(m)),
                    hint="use return_hidden=False",
                )
            x = _apply_children(m, args[0])
            return (x, None) if _returns_state(m) else x
        return super().call_module(m, forward, args, kwargs)


def _apply_children(module: nn.Module, x: Any) -> Any:
    for child in module.children():
        x = child(x)
        if cells.values_of(child) > 1 or isinstance(x, tuple):
            x = x[0]
    return x


def _returns_state(module: nn.Module) -> bool:
    """Return whether a sequence returns its state too: norse's do, Lift where it holds one."""
    kind = type(module)
    return cells.package_of(kind) == "norse" and getattr(module, "is_stateful", True)


def strip(path: str) -> str:
    """Return a traced path as the user knows it; the root itself is ""."""
    return path.removeprefix(PREFIX).removeprefix(".")


@contextlib.contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Run the block with ``module`` in eval mode and undo all that it does to its attributes."""
    saved = []
    for part in module.modules():
        attributes = dict(part.__dict__)
        tables = {k: dict(attributes[k]) for k in ("_parameters", "_buffers", "_modules")}
        saved.append((part, attributes, tables))
    try:
        module.eval()
        for part, _, _ in saved:
            if callable(getattr(part, "ticket_node", None)) and hasattr(part, "step"):
                # One step is what a call means here; the membrane stays the engine's business.
                part.__dict__["step"] = lambda x, v=None, part=part: (part(x), None)
        yield
    finally:
        for part, attributes, tables in saved:
            part.__dict__.clear()
            part.__dict__.update(attributes)
            for name, table in tables.items():
                part.__dict__[name].clear()
                part.__dict__[name].update(table)


def trace(module: nn.Module) -> tuple[fx.Graph, dict[str, nn.Module]]:
    """Return the graph of one step and the modules by the paths that the graph uses.

    Call inside ``untouched``. Raises UnsupportedError where the forward function cannot be
    followed symbolically.
    """
    root = _Root(module)
    name = type(module).__name__
    try:
        graph = _Tracer().trace(root)
    except UnsupportedError:
        raise
    except fx.proxy.TraceError as err:
        raise UnsupportedError(
            f"{name}.forward cannot be followed: {_first_line(err)}", where=name, hint=_LOOP_HINT
        ) from err
    except Exception as err:
        # The user's own forward ran on symbols; whatever it raised, it is not ours to classify.
        raise UnsupportedError(
            f"{name}.forward cannot be followed: {type(err).__name__}: {_first_line(err)}",
            where=name,
            hint=f"forward takes one step's input; {_LOOP_HINT}",
        ) from err
    return graph, dict(root.named_modules(remove_duplicate=False))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def run_layer(module: nn.Module, base: type, path: str, x: torch.Tensor) -> torch.Tensor:
    """Return the layer's output for ``x``; InputError where torch refuses the shape.

    base: the class whose forward computes one step, see ``layers.base_layer``.
    """
    try:
        with torch.no_grad():
            out = module(x) if base is type(module) else base.forward(module, x)  # type: ignore
    except (RuntimeError, ValueError, IndexError) as err:
        raise InputError(
            f"{type(module).__name__} does not fit its input: {_first_line(err)}",
            where=path,
            used=f"shape {list(x.shape)}",
            hint="compare the layer's sizes with what feeds it, and example_input with one step's "
            "input (batch first)",
        ) from err
    assert isinstance(out, torch.Tensor)
    return out
