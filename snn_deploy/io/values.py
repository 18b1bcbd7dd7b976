"""Values that model files describe in JSON or small arrays: readout, coding, shapes, padding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from snn_deploy.errors import InputError
from snn_deploy.io.graph import as_pair
from snn_deploy.ir.network import Coding, Readout
from snn_deploy.ir.synapses import Shape


def whole(value: object, what: str) -> int:
    """Return a whole number; InputError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{what} must be a whole number, got {value!r}", hint="correct the value")
    return value


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(
            f"{what} must be a table of settings, got {value!r}",
            hint='such as {"kind": "count"}',
        )
    return value


def number(value: object, what: str) -> float:
    """Return a finite number; InputError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{what} must be a finite number, got {value!r}", hint="correct the value")
    return float(value)


def readout_of(value: object) -> Readout:
    """Return the Readout of a JSON description; InputError where it is malformed."""
    value = _object(value, "readout")
    kind = value.get("kind", "count")
    if kind not in ("count", "vote", "last", "max", "mean"):
        raise InputError(f"unknown readout {kind!r}", hint="count, vote, last, max or mean")
    groups, window = value.get("groups"), value.get("window")
    return Readout(
        kind=kind,
        groups=None if groups is None else whole(groups, "readout groups"),
        window=None if window is None else as_pair(window, "readout window"),
        cutoff=cutoff_of(value.get("cutoff")),
    )


def readout_json(readout: Readout) -> dict[str, Any]:
    """Return what ``readout_of`` reads, in JSON values."""
    return {
        "kind": readout.kind,
        "groups": readout.groups,
        "window": None if readout.window is None else list(readout.window),
        "cutoff": cutoff_json(readout.cutoff),
    }


def cutoff_of(value: object) -> tuple[float, ...] | None:
    """Return a readout's cutoff; InputError for anything but a list of numbers.

    null and infinity in the list: that step never stops a sample.
    """
    if value is None:
        return None
    given = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(given, list | tuple) or not all(
        v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in given
    ):
        raise InputError(
            f"a cutoff must be a list of thresholds, got {' '.join(repr(value).split())[:80]}",
            hint="one number per step, such as [4, 3.5, 2], null where no sample stops",
        )
    return tuple(math.inf if v is None else float(v) for v in given)


def cutoff_json(cutoff: tuple[float, ...] | None) -> list[float | None] | None:
    """Return a cutoff in JSON values: JSON has no infinity, null stands for it."""
    return None if cutoff is None else [None if math.isinf(v) else v for v in cutoff]


def coding_of(value: object) -> Coding:
    """Return the Coding of a JSON description; InputError where it is malformed."""
    value = _object(value, "coding")
    kind = value.get("kind", "events")
    if kind not in ("rate", "direct", "events"):
        raise InputError(f"unknown coding {kind!r}", hint="rate, direct or events")
    steps = value.get("steps")
    if steps is not None and whole(steps, "coding steps") < 1:
        raise InputError("the coding has no time steps", used=f"steps = {steps}", hint="at least 1")
    return Coding(
        kind=kind,
        steps=steps,
        seed=whole(value.get("seed", 0), "coding seed"),
        gain=number(value.get("gain", 1.0), "coding gain"),
    )


def coding_json(coding: Coding) -> dict[str, Any]:
    """Return what ``coding_of`` reads, in JSON values."""
    return {
        "kind": coding.kind,
        "steps": coding.steps,
        "seed": coding.seed,
        "gain": coding.gain,
    }


def shape_of(value: object) -> Shape:
    """Return a shape of at least one axis, all positive."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.ndim > 1 or array.size == 0 or int(array.min()) < 1:
        raise InputError(
            "a shape is a list of positive whole numbers",
            used=f"{' '.join(repr(value).split())[:80]}",
            hint="give the sizes without a batch or time axis, such as [2, 34, 34]",
        )
    return tuple(int(v) for v in array.reshape(-1))


def padding_of(value: object) -> tuple[int, int, int, int]:
    """Return padding as (top, bottom, left, right) from an int, a pair (h, w), or four ints."""
    array = np.asarray(value)
    if array.size == 4 and array.dtype.kind in "iu":
        top, bottom, left, right = (int(v) for v in array.reshape(-1))
        return top, bottom, left, right
    h, w = as_pair(value, "padding")
    return h, h, w, w
