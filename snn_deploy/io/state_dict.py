"""Finds the state_dict in what a training script saved: bare, or inside a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snn_deploy.errors import InputError, UsageError
from snn_deploy.io.files import PathLike, sha256_file
from snn_deploy.io.ticket import is_ticket
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Source

#: Keys of a checkpoint that are looked into.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDict:
    """A state_dict: arrays by key. wrapper: the checkpoint's key that it stood under, or "".
    beside: the checkpoint's other keys, which are not used. ordered: whether the arrays stand in
    the module's order (a .safetensors file sorts them).
    """

    arrays: Mapping[str, Array]
    source: Source
    wrapper: str = ""
    beside: tuple[str, ...] = ()
    ordered: bool = True


def read_state_dict(path: PathLike) -> StateDict:
    """Return the state_dict in a .safetensors file, or in what ``torch.save`` wrote, by content.

    Raises InputError and UnsupportedError, see the two readers, and UsageError for a ticket.
    """
    from snn_deploy.io.safetensors import read_safetensors
    from snn_deploy.io.torch_zip import read_torch_zip

    where = os.fspath(path)
    sorted_keys = Path(path).suffix.lower() == ".safetensors"
    content = read_safetensors(path) if sorted_keys else read_torch_zip(path)
    if is_ticket(content):
        raise UsageError(
            "the file is a ticket already, not a checkpoint",
            where=where,
            hint="every command reads it as it is, such as: snn-deploy inspect MODEL.pt",
        )
    source = Source(path=where, sha256=sha256_file(path), format="state_dict")
    return state_dict_in(content, source, ordered=not sorted_keys)


def state_dict_in(content: object, source: Source, *, ordered: bool = True) -> StateDict:
    """Return the state_dict in a file's content; InputError where there is none, or several."""
    if isinstance(content, dict) and set(content) >= {"state", "param_groups"}:
        raise InputError(
            "this is the state of an optimizer, not of a network",
            where=source.path,
            hint="give the file with the weights: torch.save(net.state_dict(), path)",
        )
    wrapper, inner = "", content
    beside: tuple[str, ...] = ()
    if isinstance(content, dict) and not _is_state(content):
        found = [key for key in WRAPPERS if isinstance(content.get(key), dict)]
        if len(found) > 1:
            raise InputError(
                "the file holds several state_dicts",
                where=source.path,
                used=f"under {', '.join(map(repr, found))}",
                hint="save the one to import alone: torch.save(checkpoint[KEY], path)",
            )
        if found:
            wrapper, inner = found[0], content[found[0]]
            beside = tuple(str(key) for key in content if key != wrapper)
    if not isinstance(inner, dict) or not _is_state(inner):
        raise InputError(
            "the file holds neither a ticket nor a state_dict of tensors",
            where=source.path,
            used=_seen(content),
            hint=f"save torch.save(model.state_dict(), path), alone or under one of the keys "
            f"{', '.join(WRAPPERS)}; or use snn_deploy.save_ticket",
        )
    return StateDict(arrays=inner, source=source, wrapper=wrapper, beside=beside, ordered=ordered)


def _is_state(value: Mapping[Any, Any]) -> bool:
    return bool(value) and all(
        isinstance(k, str) and isinstance(v, np.ndarray) for k, v in value.items()
    )


def _seen(content: object) -> str:
    if isinstance(content, np.ndarray):
        return f"one tensor of shape {list(content.shape)}"
    if isinstance(content, dict):
        return f"a dictionary with the keys {', '.join(map(str, list(content)[:6])) or 'none'}"
    return f"a {type(content).__name__}"
