"""Modules and plain state_dicts to tickets, and a user's own architecture file to a module."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_deploy.errors import InputError, SnnDeployError, UnsupportedError, UsageError
from snn_deploy.frontends import masks as masking
from snn_deploy.frontends.modules import read_module
from snn_deploy.io.files import atomic_write
from snn_deploy.io.seeded import Seeded
from snn_deploy.io.ticket import (
    FORMAT,
    SEEDED_VERSION,
    VERSION,
    Ticket,
    network_of,
    parse_ticket,
)
from snn_deploy.ir.check import check
from snn_deploy.ir.network import Coding, Network, Readout, Source

Options = str | Mapping[str, Any]
_SHOWN = 6


def save_ticket(
    module: nn.Module,
    path: str | Path,
    *,
    example_input: Tensor,
    masks: Mapping[str, Any] | None = None,
    dt_s: float | None = None,
    readout: Options | Readout = "count",
    coding: Options | Coding = "events",
    meta: Mapping[str, Any] | None = None,
    seeded: Mapping[str, Seeded] | None = None,
    force: bool = False,
) -> Path:
    """Write ``module`` as a ticket and return its path.

    module: of one step, see ``graph_from_module``. example_input: one step's input, batch first.
    masks: by parameter or module name, 0/1; None or absent: a weight's zeros are its mask. dt_s:
    seconds, None for what the neurons say. readout, coding: a kind or a dict. meta: JSON values
    of your own. seeded: weights to store as a seed and a mask, by parameter name. Weights are
    stored masked. Raises InputError (NaN, masks or seeds that do not fit), UnsupportedError (a
    module that cannot be deployed), OutputError (file exists, disk full).
    """
    content = ticket_content(
        module,
        example_input=example_input,
        masks=masks,
        dt_s=dt_s,
        readout=readout,
        coding=coding,
        meta=meta,
        seeded=seeded,
    )
    write_ticket(content, path, force=force)
    return Path(path)


def write_ticket(content: Mapping[str, Any], path: str | Path, *, force: bool = False) -> None:
    """Write what ``ticket_content`` returned; OutputError (file exists, disk full)."""
    # Through memory: torch turns a full disk into a RuntimeError, atomic_write into exit 10.
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    with atomic_write(path, force=force) as file:
        file.write(buffer.getbuffer())


def deployable(module: nn.Module) -> nn.Module:
    """Return a module as it is saved: itself, or what its ``deployed`` makes of it.

    What trains in another form than it is deployed in has that method.
    """
    deployed = getattr(module, "deployed", None)
    return deployed() if callable(deployed) else module


def ticket_content(
    module: nn.Module,
    *,
    example_input: Tensor,
    masks: Mapping[str, Any] | None = None,
    dt_s: float | None = None,
    readout: Options | Readout = "count",
    coding: Options | Coding = "events",
    meta: Mapping[str, Any] | None = None,
    seeded: Mapping[str, Seeded] | None = None,
) -> dict[str, Any]:
    """Return what ``save_ticket`` writes: a plain dict of tensors and JSON values."""
    if callable(getattr(module, "to_network", None)):
        raise UnsupportedError(
            "a module made from a network has no ticket",
            where=type(module).__name__,
            hint="write it as NIR: snn_deploy.save_nir(module.to_network(), path)",
        )
    module = deployable(module)
    reading = read_module(module, example_input, dt_s=dt_s, readout=readout, coding=coding)
    state, composed = masking.compose_pruned(reading.state)
    aliases = _aliases(module)
    weights = _used_weights(reading.graph, state, aliases)
    _check_finite(reading.graph, state)
    final = masking.resolve({**composed, **(masks or {})}, weights, aliases)
    for key in state:
        mask = final.get(aliases.get(key, key))
        if mask is not None:
            state[key] = torch.where(mask, state[key], torch.zeros_like(state[key]))
    content_meta = dict(meta or {})
    if reading.notes:
        content_meta.setdefault("notes", list(reading.notes))
    content = {
        "format": FORMAT,
        "version": VERSION,
        "graph": reading.graph,
        "state": state,
        "masks": final,
        "meta": _json(content_meta),
    }
    if seeded:
        rest, short, described = masking.by_seed(seeded, state, final)
        seeds = {"version": SEEDED_VERSION, "seeded": described}
        content |= {**seeds, "state": rest, "masks": short}
    return content


def ticket_from_state(
    state: Mapping[str, NDArray[Any]],
    module: nn.Module,
    *,
    example_input: Tensor,
    masks: Mapping[str, Any] | None = None,
    dt_s: float | None = None,
    readout: Options | Readout = "count",
    coding: Options | Coding = "events",
    source: Source | None = None,
) -> Ticket:
    """Return the ticket of a plain state_dict and the module that it belongs to.

    state: arrays by key, as the readers in ``io`` give them; torch.nn.utils.prune's
    ``weight_orig`` and ``weight_mask`` are merged. The module's own values are replaced. Raises
    InputError that lists missing and unexpected keys, or the shapes that differ.
    """
    source = source or Source(format="state_dict")
    try:
        composed = load_state(module, state)
        content = ticket_content(
            module,
            example_input=example_input,
            masks={**composed, **(masks or {})},
            dt_s=dt_s,
            readout=readout,
            coding=coding,
        )
    except SnnDeployError as error:
        raise error.located(source.path) if source.path else error from None
    return parsed(content, source)


def _array(value: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = value.numpy()
    array.flags.writeable = False
    return array


def network_from_module(
    module: nn.Module,
    *,
    example_input: Tensor,
    masks: Mapping[str, Any] | None = None,
    dt_s: float | None = None,
    readout: Options | Readout = "count",
    coding: Options | Coding = "events",
) -> Network:
    """Return the Network of a module, by the same way that its ticket would take."""
    content = ticket_content(
        module,
        example_input=example_input,
        masks=masks,
        dt_s=dt_s,
        readout=readout,
        coding=coding,
    )
    return check(network_of(parsed(content, Source(format="module"))))


def parsed(content: Mapping[str, Any], source: Source) -> Ticket:
    """Return the ticket in what ``ticket_content`` returned."""
    arrays = {
        part: {key: _array(value) for key, value in content[part].items()}
        for part in ("state", "masks")
    }
    return parse_ticket({**content, **arrays}, source)


def load_state(
    module: nn.Module,
    state: Mapping[str, NDArray[Any]],
    key_hint: Callable[[Sequence[str], Sequence[str]], str] | None = None,
) -> dict[str, Tensor]:
    """Load ``state`` into ``module``, every key, and return masks from torch.nn.utils.prune.

    key_hint: what helps, for names that are missing in the state and unexpected ones. Raises
    InputError that lists both, or the shapes that differ.
    """
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    wanted = module.state_dict()
    composed: dict[str, Tensor] = {}
    if not any(key.endswith("_orig") for key in wanted):
        tensors, composed = masking.compose_pruned(tensors)
    # A counter that inference never reads; older files lack it, and other writers drop it.
    counters = {k: v for k, v in wanted.items() if k.endswith("num_batches_tracked")}
    tensors = {**counters, **{k: v.reshape(()) if k in counters else v for k, v in tensors.items()}}
    missing, unexpected = sorted(wanted.keys() - tensors), sorted(tensors.keys() - wanted)
    if missing or unexpected:
        raise InputError(
            "the file's keys are not those of the architecture",
            used=f"missing {_some(missing)}; unexpected {_some(unexpected)}",
            hint=(key_hint or _key_hint)(missing, unexpected),
        )
    differing = [
        f"{k} {list(tensors[k].shape)}, expected {list(v.shape)}"
        for k, v in wanted.items()
        if tensors[k].shape != v.shape
    ]
    if differing:
        raise InputError(
            "the file's tensors do not have the architecture's shapes",
            used=_some(differing),
            hint="build the module with the sizes that it was trained with",
        )
    module.load_state_dict(tensors)
    return composed


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _key_hint(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    for prefix in ("module.", "model.", "net."):
        if unexpected and all(k.startswith(prefix) for k in unexpected):
            return f"strip the prefix {prefix!r} from the keys (a wrapper such as DataParallel)"
        if missing and all(k.startswith(prefix) for k in missing):
            return f"the module wraps the saved one as {prefix[:-1]!r}: return the inner module"
    return "the factory after --arch must build the module whose state_dict was saved"


def module_from_file(spec: str) -> tuple[nn.Module, Tensor | None]:
    """Return the module of ``file.py:factory``, and its example input if the factory gives one.

    This runs the user's own file. The factory takes no arguments and returns the module, or
    (module, example_input). Raises UsageError and InputError.
    """
    path, _, name = spec.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise UsageError(
            f"{spec!r} does not name a factory",
            hint="FILE.py:FACTORY, a function that returns the module",
        )
    if not Path(path).is_file():
        raise InputError("there is no such architecture file", where=path, hint="check the path")
    loaded = importlib.util.spec_from_file_location("snn_deploy_user_arch", path)
    assert loaded is not None
    assert loaded.loader is not None
    code = importlib.util.module_from_spec(loaded)
    folder = str(Path(path).resolve().parent)
    sys.path.insert(0, folder)  # so that the file can import its neighbours, as when run itself
    sys.modules[loaded.name] = code
    try:
        loaded.loader.exec_module(code)
        factory = getattr(code, name, None)
        if not callable(factory):
            public = sorted(
                k
                for k, v in vars(code).items()
                if callable(v)
                and not k.startswith("_")
                and getattr(v, "__module__", None) == loaded.name
            )
            raise InputError(
                f"the file has no function {name!r}",
                where=path,
                hint=f"it has {_some(public)}" if public else "define it in this file",
            )
        made = factory()
    except (SnnDeployError, KeyboardInterrupt):
        raise
    except Exception as err:
        raise InputError(
            f"the architecture file failed: {type(err).__name__}: {err}",
            where=spec,
            hint="run the file by itself to see the whole traceback",
        ) from err
    finally:
        sys.modules.pop(loaded.name, None)
        if folder in sys.path:
            sys.path.remove(folder)
    module, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module) or not isinstance(example, Tensor | None):
        raise InputError(
            f"the factory returned {type(made).__name__}",
            where=spec,
            hint="return a torch.nn.Module, or (module, example_input)",
        )
    return module, example


def _used_weights(
    graph: Mapping[str, Any], state: Mapping[str, Tensor], aliases: Mapping[str, str]
) -> dict[str, Tensor]:
    """Return the learned weights of the graph, whose references become the parameters' first names.

    Every reference must be in ``state``.
    """
    weights: dict[str, Tensor] = {}
    for node in graph["nodes"]:
        for name, key in node.items():
            if name in ("name", "op", "kind", "reset", "r_unit") or not isinstance(key, str):
                continue
            key = node[name] = aliases.get(key, key)
            if key not in state:
                raise UnsupportedError(
                    f"{name} is computed by a hook, not stored",
                    where=node["name"],
                    hint="remove the hook first, such as torch.nn.utils.remove_weight_norm",
                )
            if name == "weight" and node["op"] in ("Linear", "Conv1d", "Conv2d"):
                weights[key] = state[key]
    return weights


def _aliases(module: nn.Module) -> dict[str, str]:
    """Return second names of parameters and their first ones: shared modules and tied weights."""
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            aliases[name] = first[id(parameter)]
    return aliases


def _check_finite(graph: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    for node in graph["nodes"]:
        for value in node.values():
            tensor = state.get(value) if isinstance(value, str) else None
            if tensor is not None and not bool(torch.isfinite(tensor).all()):
                raise InputError(
                    "the module holds NaN or infinite values",
                    where=str(value),
                    used=f"{int((~torch.isfinite(tensor)).sum()):,} of {tensor.numel():,} values",
                    hint="training diverged; use a smaller learning rate",
                )


def _json(meta: dict[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(meta, allow_nan=False))
    except (TypeError, ValueError) as err:
        raise UsageError(
            f"meta is not JSON: {err}", hint="numbers, strings, lists and dicts; no tensors"
        ) from err
    return plain


def module_with_example(
    spec: str, input_shape: tuple[int, ...] | None = None
) -> tuple[nn.Module, Tensor]:
    """Return the module of ``file.py:factory`` and an example of one step's input, batch first.

    input_shape: of one sample, in place of the factory's example. Raises UsageError where
    neither tells, and what ``module_from_file`` raises.
    """
    module, example = module_from_file(spec)
    if input_shape is not None:
        example = torch.zeros(1, *input_shape)
    if example is None:
        raise UsageError(
            "the shape of one input sample is not known",
            where=spec,
            hint="let the factory return (module, example_input), or pass --input-shape C,H,W",
        )
    return module, example
