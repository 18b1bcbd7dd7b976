"""Where the zeros of a published ticket come from: a list of masks, or a soft threshold."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from snn_deploy.errors import InputError, UsageError
from snn_deploy.frontends.masks import checked
from snn_deploy.frontends.published.keys import Arrays, some
from snn_deploy.io.files import read_limited
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.ir.arrays import Array

#: Below this, the lottery-ticket code takes a weight for a pruned one.
TINY_LTH = 1e-6
_MAX_THRESHOLDS_BYTES = 2**20


def is_weight(name: str, array: Array | Tensor) -> bool:
    """Return whether the published codes may prune a tensor: a matrix or kernel of weights."""
    return "weight" in name and array.ndim > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskList:
    """Masks by parameter, and where they and the weights disagree.

    removed: weights that the mask alone removes; zero: weights that it keeps and that are 0;
    tiny: weights that it keeps and that the lottery-ticket code takes for pruned (below 1e-6).
    """

    masks: Mapping[str, Tensor]
    removed: int
    zero: int
    tiny: int


def mask_list(module: nn.Module, masks: Sequence[Array], where: str) -> MaskList:
    """Return the masks of a list in the order of the module's parameters called weight.

    module: with its weights loaded. Vectors (batch norm) must be kept whole. Warns where a mask
    removes only a part of what it removes from a tensor that is sparse already: such a mask is
    of another round. Raises InputError, located in ``where``.
    """
    weights = {name: p.detach() for name, p in module.named_parameters() if "weight" in name}
    if len(masks) != len(weights):
        raise InputError(
            "the list has another number of masks than the architecture has weights",
            where=where,
            used=f"{len(masks)} masks, {len(weights)} weights: {some(list(weights))}",
            hint="one mask per parameter called weight, batch norm included, in their order",
        )
    found: dict[str, Tensor] = {}
    removed = zero = tiny = 0
    for at, (mask, (name, weight)) in enumerate(zip(masks, weights.items(), strict=True)):
        kept = checked(torch.from_numpy(np.array(mask)), weight, f"{where} -> {at} ({name})")
        if weight.ndim < 2:
            if not bool(kept.all()):
                raise InputError(
                    "the mask of a batch norm removes values, which that code never does",
                    where=f"{where} -> {at} ({name})",
                    used=f"{int((~kept).sum()):,} of {kept.numel():,} removed",
                    hint="check that the list belongs to this architecture, in this order",
                )
            continue
        live = (~kept & (weight.abs() >= TINY_LTH)).sum().item()
        if 0 < live < (~kept).sum().item():
            warnings.warn(
                f"{name}: the mask removes {int(live):,} weights that are alive, among others "
                "that are zero already; the file and the masks may be of different rounds",
                SnnDeployWarning,
                stacklevel=3,
            )
        removed += int((~kept & (weight != 0)).sum())
        zero += int((kept & (weight == 0)).sum())
        tiny += int((kept & (weight != 0) & (weight.abs() < TINY_LTH)).sum())
        found[name] = kept & (weight != 0)
    return MaskList(masks=found, removed=removed, zero=zero, tiny=tiny)


def check_order(module: nn.Module, keys: Sequence[str], where: str) -> None:
    """Raise InputError where a file lists its weights in another order than the module.

    A list of masks says nothing but its order, which is that of the file.
    """
    wanted = [name for name, _ in module.named_parameters() if "weight" in name]
    listed = [key for key in keys if key in set(wanted)]
    for ours, theirs in zip(wanted, listed, strict=True):
        if ours != theirs:
            raise InputError(
                "the architecture has its weights in another order than the file",
                where=where,
                used=f"{ours} where the file has {theirs}",
                hint="create the layers in the file's order: masks are matched by it alone",
            )


Thresholds = float | Mapping[str, float]


def soft_thresholds(text: str) -> Thresholds:
    """Return a threshold, or thresholds by layer, from a number or a .json file's path.

    Raises UsageError and InputError.
    """
    if Path(text).suffix.lower() != ".json":
        try:
            return _positive(float(text), text)
        except ValueError:
            raise UsageError(
                f"{text!r} is no threshold",
                hint='a number, or a file {"layer": number, ...} that ends in .json',
            ) from None
    try:
        # Integers as floats: one of a thousand digits is then infinite, and refused below.
        values = json.loads(read_limited(text, _MAX_THRESHOLDS_BYTES), parse_int=float)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not all(isinstance(v, float) for v in values.values()):
        raise InputError(
            "the file of thresholds is no JSON object of numbers",
            where=text,
            hint='{"conv1": 0.5, "conv2": 0.25, ...}, by layer or by parameter',
        )
    return {name: _positive(v, f"{name}: {v}", zero=True) for name, v in values.items()}


def _positive(value: float, shown: str, *, zero: bool = False) -> float:
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise UsageError(
            f"{shown[:80]} is no threshold",
            hint="greater than 0; with 0, every weight would be left as it is",
        )
    return value


def soft_thresholded(arrays: Arrays, thresholds: Thresholds) -> dict[str, Array]:
    """Return sign(theta) max(|theta| - d, 0) for every weight matrix and kernel theta.

    thresholds: d for all, or by the name of the parameter or its layer, every one named. Raises
    InputError for a name that is missing or unknown, and for a tensor of which nothing is left.
    """
    weights = [name for name, array in arrays.items() if is_weight(name, array)]
    if not isinstance(thresholds, Mapping):
        thresholds = dict.fromkeys(weights, thresholds)
    by_name = {}
    for name in weights:
        layer = name.rpartition(".")[0]
        if (given := next((k for k in (name, layer) if k in thresholds), None)) is not None:
            by_name[name] = given
    missing = [name for name in weights if name not in by_name]
    unknown = sorted(set(thresholds) - set(by_name.values()))
    if missing or unknown:
        raise InputError(
            "the thresholds do not name the layers of the file",
            used=f"without a threshold {some(missing) or 'none'}; unknown "
            f"{some(unknown) or 'none'}",
            hint="one number for every weight, 0 for what was not thresholded",
        )
    result = dict(arrays)
    for name, given in by_name.items():
        theta, d = arrays[name], thresholds[given]
        result[name] = np.sign(theta) * np.maximum(np.abs(theta) - d, 0)
        if not result[name].any():
            raise InputError(
                f"no weight of {name} is above the threshold",
                where=name,
                used=f"|theta| up to {np.abs(theta).max(initial=0):.4g}, threshold {d:g}",
                hint="the last threshold of the training, not that of another run",
            )
    return result
