"""Workload-balanced pruning: masks that give every processing element the same work.

As published for u-Ticket (Yin et al. 2024): within a layer, an element that holds more nonzeros
than the mean, rounded up, loses some, one that holds fewer recovers some, at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snn_deploy.engine import load
from snn_deploy.errors import UsageError
from snn_deploy.tickets import loop
from snn_deploy.tickets.pruning import Masks

Choice = Literal["random", "magnitude"]
CHOICES: tuple[Choice, ...] = get_args(Choice)


def balanced(
    masks: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    elements: int,
    seed: int,
    *,
    mapping: load.MappingName = "sata",
    choice: Choice = "random",
) -> Masks:
    """Return masks (out, in, ...) of equally many nonzeros on each element, layer by layer.

    choice: what an element loses and recovers: "random", as published; or by "magnitude" the
    smallest of the kept and the largest of the removed ``weights``, equals at random. An element
    with too few weights for its share keeps them all and the others make up for it, so that a
    layer has as many nonzeros as before, or fewer than ``elements`` more. A layer of fewer
    channels than elements is balanced over as many elements as it has channels: what the paper
    does there is not known. Raises UsageError as ``engine.load`` and for an unknown choice.
    """
    if choice not in CHOICES:
        raise UsageError(f"unknown choice {choice!r}", hint=" or ".join(CHOICES))
    axis = load.axis_of(elements, mapping)
    found: Masks = {}
    for name, mask in masks.items():
        generator = torch.Generator().manual_seed(loop.stream_seed(seed, "balance", name))
        order = torch.randperm(mask.numel(), generator=generator)
        if choice == "magnitude":
            size = weights[name].detach().abs().flatten().cpu()
            order = order[torch.argsort(size[order], descending=True, stable=True)]
        shape = [1] * mask.ndim
        shape[axis] = -1
        element = (torch.arange(mask.shape[axis]) % elements).reshape(shape).expand(mask.shape)
        kept = _levelled(mask.flatten().cpu(), element.flatten(), elements, order)
        found[name] = kept.reshape(mask.shape)
    return found


def _levelled(mask: Tensor, element: Tensor, elements: int, order: Tensor) -> Tensor:
    """Return the mask with equal counts; of an element's weights, those first in order stay."""
    room = torch.bincount(element, minlength=elements).numpy()
    level = _level(room, int(mask.sum()))
    result = mask.clone()
    for k in range(elements):
        mine = order[element[order] == k]
        kept, removed = mine[mask[mine]], mine[~mask[mine]]
        share = min(level, int(room[k]))
        result[kept[share:]] = False
        result[removed[: max(0, share - len(kept))]] = True
    return result


def _level(room: NDArray[np.int64], total: int) -> int:
    """Return the smallest level at which elements of this room hold at least ``total``."""
    low, high = 0, int(room.max(initial=0))
    while low < high:
        middle = (low + high) // 2
        if int(np.minimum(room, middle).sum()) >= total:
            high = middle
        else:
            low = middle + 1
    return low


def mask_load(
    masks: Mapping[str, Tensor], elements: int, mapping: load.MappingName = "sata"
) -> load.Load:
    """Return the load of masks without groups: nonzeros per element, a kernel's counted once."""
    return load.Load(
        elements=elements,
        layers=tuple(
            load.pattern_load(name, mask.numpy(), elements, mapping) for name, mask in masks.items()
        ),
    )
