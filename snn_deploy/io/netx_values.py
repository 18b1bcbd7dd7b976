"""Numbers in a ``.net`` file, each checked before it is used."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from snn_deploy.errors import InputError
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.ir.arrays import Array

MOST_DELAY_STEPS = 62


def need(layer: dict[str, Any], key: str) -> Any:
    """Return a value that a layer must have; InputError without it."""
    if key not in layer:
        raise InputError(f"the layer has no {key}", hint="export the network again")
    return layer[key]


def text(layer: dict[str, Any], key: str) -> str:
    """Return a text that a layer must have; InputError for anything else."""
    value = need(layer, key)
    if not isinstance(value, str):
        raise InputError(f"{key} is not a text", hint="export the network again")
    return value


def real(value: Any, what: str) -> Array:
    """Return finite numbers as float64; InputError for others."""
    if isinstance(value, str | dict):
        raise InputError(
            f"{what} is not a number", used=repr(value)[:60], hint="export the network again"
        )
    array = np.asarray(value, np.float64)
    if not bool(np.all(np.isfinite(array))) or array.size == 0:
        raise InputError(f"{what} is not finite", hint="export the network again")
    return array


def whole(value: Any, what: str) -> Array:
    """Return whole numbers as float64; InputError for others, which netx would cut silently."""
    array = real(value, what)
    if not bool(np.all(array == np.rint(array))) or float(np.abs(array).max()) >= 2**31:
        raise InputError(
            f"{what} holds values that are not whole numbers of 32 bits",
            hint="export quantized weights: netx would cut off their fractions",
        )
    return array


def number(value: Any, what: str) -> float:
    """Return one number; InputError for anything else."""
    array = real(value, what)
    if array.size != 1:
        raise InputError(f"{what} must be one number", hint="export the network again")
    return float(array.reshape(-1)[0])


def integer(value: Any, what: str) -> int:
    """Return one whole number; InputError for anything else."""
    return int(number(whole(value, what), what))


def whole_numbers(value: Any, what: str) -> Array:
    """Return whole numbers as int64; InputError for others."""
    return whole(value, what).astype(np.int64)


def delays(value: Any, shape: tuple[int, ...]) -> int | Array:
    """Return delays by (output, input), at most what netx clamps to."""
    if value is None:
        return 0
    delay = whole_numbers(value, "delay")
    if bool(np.any(delay < 0)):
        raise InputError("a delay is negative", where="delay", hint="0 or more steps")
    if int(delay.max()) > MOST_DELAY_STEPS:
        warnings.warn(
            f"delays beyond {MOST_DELAY_STEPS} steps are cut to that, as netx cuts them",
            SnnDeployWarning,
            2,
        )
        delay = np.minimum(delay, MOST_DELAY_STEPS)
    if delay.size == 1:
        return int(delay.reshape(-1)[0])
    if delay.shape == (shape[0],):
        return delay[:, None]
    if delay.shape == (shape[1],):
        return delay[None]
    if delay.shape == shape:
        return delay
    raise InputError(
        f"delays of shape {delay.shape} do not fit weights of shape {shape}",
        where="delay",
        hint="one for all, one per output, one per input, or one per weight",
    )
