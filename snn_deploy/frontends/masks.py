"""Pruning masks of a module: given, composed from torch.nn.utils.prune, or read off the zeros."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from snn_deploy.errors import InputError
from snn_deploy.io.seeded import Seeded, expanded, packed

State = dict[str, Tensor]


def compose_pruned(state: Mapping[str, Tensor]) -> tuple[State, State]:
    """Return the state with ``<name>_orig`` and ``<name>_mask`` merged into ``<name>``, and masks.

    This is the layout of torch.nn.utils.prune. Tensors are copied where they change. Raises
    InputError for a mask without its tensor or of another shape.
    """
    merged, masks = dict(state), {}
    for key in state:
        if key.endswith("_mask") and f"{key[:-5]}_orig" in state:
            name = key[:-5]
            original, mask = merged.pop(f"{name}_orig"), merged.pop(key)
            masks[name] = checked(mask, original, key)
            merged[name] = torch.where(masks[name], original, torch.zeros_like(original))
    return merged, masks


def checked(mask: Any, weight: Tensor, where: str) -> Tensor:
    """Return ``mask`` as a bool tensor; InputError unless it is 0/1 and of the weight's shape."""
    mask = torch.as_tensor(mask).detach().cpu()
    if mask.shape != weight.shape:
        raise InputError(
            "the mask has another shape than its weight",
            where=where,
            used=f"{list(mask.shape)}, expected {list(weight.shape)}",
            hint="masks are given per parameter, in the layout of the parameter",
        )
    odd = (mask != 0) & (mask != 1)
    if bool(odd.any()):
        raise InputError(
            "a mask holds 0 and 1 only",
            where=where,
            used=f"{int(odd.sum()):,} of {mask.numel():,} values are something else",
            hint="pass (score > threshold), not the scores",
        )
    return mask.bool()


def resolve(
    masks: Mapping[str, Any] | None, weights: Mapping[str, Tensor], aliases: Mapping[str, str]
) -> State:
    """Return a mask for every weight in ``weights``: the given one, or its nonzeros.

    masks: by parameter name, or by module name for that module's weight. weights: the learned
    tensors that the graph uses, by state key. aliases: other names of the same parameters. A
    kept weight that is exactly 0 counts as removed, so masks and nonzeros always agree. Raises
    InputError for an unknown name, a wrong shape or values other than 0 and 1.
    """
    given: State = {}
    for name, mask in (masks or {}).items():
        key = next((k for k in (name, f"{name}.weight") if aliases.get(k, k) in weights), None)
        if key is None:
            near = difflib.get_close_matches(name, weights, 1)
            raise InputError(
                f"there is no weight called {name!r} in the network",
                where=f"masks -> {name}",
                hint=f"did you mean {near[0]!r}?" if near else f"weights: {', '.join(weights)}",
            )
        key = aliases.get(key, key)
        given[key] = checked(mask, weights[key], f"masks -> {name}")
    return {
        key: given[key] & (weight != 0) if key in given else weight != 0
        for key, weight in weights.items()
    }


def by_seed(
    seeded: Mapping[str, Seeded], state: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> tuple[State, State, dict[str, Any]]:
    """Return a ticket's state, masks and ``seeded`` with these weights stored as seeds and bits.

    Raises InputError unless the seeds give the state's masked weights, bit for bit.
    """
    for name in seeded:
        if name not in masks:
            raise InputError(
                f"there is no weight called {name!r} in the network",
                where=f"seeded -> {name}",
                hint=f"weights: {', '.join(masks)}",
            )
    described = {name: entry.as_json() for name, entry in seeded.items()}
    bits = {name: packed(masks[name].numpy()) for name in seeded}
    made, _ = expanded(described, {}, bits)
    for name, weights in made.items():
        # As bytes, so that a zero's sign and the type count too.
        if state[name].numpy().tobytes() != weights.tobytes():
            raise InputError(
                "a weight is not what its seed stands for",
                where=f"seeded -> {name}",
                hint="its values have changed since: leave it out, and they are stored themselves",
            )
    rest = {key: value for key, value in state.items() if key not in seeded}
    short = {name: torch.from_numpy(mask) for name, mask in bits.items()}
    return rest, {**masks, **short}, described
