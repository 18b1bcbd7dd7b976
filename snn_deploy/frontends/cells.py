"""Who reads which framework's class, by the module path and name of the class: no framework is
imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from snn_deploy.errors import SnnDeployError, UnsupportedError
from snn_deploy.frontends import norse, sinabs, snntorch, spikingjelly
from snn_deploy.frontends.record import Cell, Named, Request, join, layer_of

Reader = Callable[[Any, Request], Cell]
# Their modules are opaque to us: tracing into them would give a misleading error.
FRAMEWORKS: dict[str, Any] = {
    "norse": norse,
    "snntorch": snntorch,
    "spikingjelly": spikingjelly,
    "sinabs": sinabs,
}
# What applies its children in order.
_SEQUENCES = {
    "norse": ("SequentialState", "Lift"),
    "spikingjelly": spikingjelly.SEQUENCES,
    "sinabs": ("Repeat",),
}
FOREIGN = (*FRAMEWORKS, "rockpool", "lava", "spyx", "braintorch")


def package_of(kind: type) -> str:
    """Return the top package that a class comes from."""
    return kind.__module__.split(".")[0]


def reader_of(module: nn.Module) -> Reader | None:
    """Return the reader of a framework's exact class, or None."""
    framework = FRAMEWORKS.get(package_of(type(module)))
    return None if framework is None else framework.READERS.get(type(module).__name__)


def is_foreign(module: nn.Module) -> bool:
    """Return whether ``module`` belongs to a spiking framework, or derives from its neuron."""
    kinds = type(module).__mro__
    derived = any(
        kind.__name__ in FRAMEWORKS[package_of(kind)].READERS
        for kind in kinds[1:]
        if package_of(kind) in FRAMEWORKS
    )
    return package_of(type(module)) in FOREIGN or derived


def is_cell(module: nn.Module) -> bool:
    """Return whether ``module`` is a population: a known class, or it has ``ticket_node``."""
    return reader_of(module) is not None or callable(getattr(module, "ticket_node", None))


def is_composite(module: nn.Module) -> bool:
    """Return whether ``module`` is a framework's whole model, whose forward can be followed."""
    kind = type(module)
    if kind.__module__ == "sinabs.network":
        return kind.__name__ == "Network"
    return kind.__module__.startswith("spikingjelly.activation_based.model.")


def is_sequence(module: nn.Module) -> bool:
    """Return whether ``module`` applies its children in order, whatever it does with time."""
    kind = type(module)
    package, name = package_of(kind), kind.__name__
    return name in _SEQUENCES.get(package, ())


def wraps_time(module: nn.Module) -> bool:
    """Return whether ``module`` is a sequence that runs its single-step children over time."""
    kind = type(module)
    if package_of(kind) == "norse":
        return kind.__name__ == "Lift"
    return is_sequence(module) and getattr(module, "step_mode", "m") == "m"


def folds_time(module: nn.Module) -> bool:
    """Return whether ``module`` is a sequence that shows its children the steps as a batch."""
    kind = type(module)
    if package_of(kind) == "sinabs":
        return kind.__name__ == "Repeat"
    return is_sequence(module) and spikingjelly.folds_time(module)


def keeps_time(module: nn.Module) -> bool:
    """Return whether a cell finds the steps again where they are folded into the batch."""
    kind = type(module)
    return package_of(kind) == "sinabs" and sinabs.squeezed(module)


def values_of(module: nn.Module) -> int:
    """Return how many values a cell's call returns; 1 means the spikes as they are."""
    if reader_of(module) is None:
        return 1
    count: int = FRAMEWORKS[package_of(type(module))].values(module)
    return count


def takes_all_steps(module: nn.Module) -> bool:
    """Return whether a known cell has a time axis in what it gets."""
    if reader_of(module) is None:
        return False
    known = getattr(FRAMEWORKS[package_of(type(module))], "multi_step", None)
    return known is not None and bool(known(module))


def read_cell(module: nn.Module, path: str, x: Tensor, dt_s: float | None) -> Cell:
    """Return what a population's module is, see ``Request``; located errors.

    x: one step's input, batch first.
    """
    shape = tuple(x.shape[1:])
    return _read(module, Request(path=path, shape=shape, dtype=x.dtype, dt_s=dt_s, child=_child))


def _child(module: nn.Module, request: Request) -> Cell | None:
    return _read(module, request) if reader_of(module) is not None else None


def _read(module: nn.Module, request: Request) -> Cell:
    """Return what a population's module is; UnsupportedError or InputError, located.

    A module's ``ticket_node()`` gives ``op``, ``dt_s`` and parameters as numbers, or as tensors
    that are buffers or parameters of that module under the same name; ``recurrent`` names the
    submodule, a linear layer or convolution, that leads its spikes back to it one step later;
    ``amplitude`` is what a spike is worth on the way out, if not 1.
    """
    reader = reader_of(module)
    try:
        return _own(module, request) if reader is None else reader(module, request)
    except SnnDeployError as error:
        error.where = error.where or request.path or None
        raise


def _own(module: Any, request: Request) -> Cell:
    node = dict(module.ticket_node())
    dt_s, back = node.pop("dt_s"), node.pop("recurrent", None)
    owned = dict(module.named_buffers(recurse=False))
    owned.update(module.named_parameters(recurse=False))
    for name, value in node.items():
        if isinstance(value, Tensor):
            if owned.get(name) is not value:
                raise UnsupportedError(
                    f"{type(module).__name__}.{name} is a tensor but not in its state_dict",
                    where=request.path,
                    hint=f"register_buffer({name!r}, ...) or make it a number",
                )
            node[name] = join(request.path, name)
    worth = node.pop("amplitude", None)
    return Cell(
        neuron=node,
        dt_s=dt_s,
        around=() if back is None else (_back(module, back, request),),
        after=() if worth is None else (("amplitude", {"op": "Scale", "scale": worth}),),
    )


def _back(module: nn.Module, name: str, request: Request) -> Named:
    """Return the row of the one layer ``name`` of ``module`` that leads its spikes back."""
    layer = module.get_submodule(name)
    if type(layer) not in (nn.Linear, nn.Conv1d, nn.Conv2d):
        raise UnsupportedError(
            f"{type(layer).__name__} leads the spikes of {type(module).__name__} back",
            where=join(request.path, name),
            hint="make it nn.Linear, nn.Conv1d or nn.Conv2d",
        )
    return ((name, layer_of(layer, join(request.path, name))),)
