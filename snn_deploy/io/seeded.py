"""Weights that are stored as a seed and a mask: a bit per weight, the same numbers everywhere.

The bits are PCG64's (O'Neill 2014), whose stream numpy keeps for good; a number is
(bits >> 41) / 2^22 - 1, exact in float32: uniform in [-1, 1), in steps of 2^-22. A weight is its
number, or the sign of it (-1, 0 or 1), times a float32 scale, rounded to float32 once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import InputError, SnnDeployError
from snn_deploy.io.tensors import MAX_DIMS
from snn_deploy.ir.arrays import Array, adopt

# Of one ticket: together they become 5 bytes each of what the file holds a bit of.
MAX_WEIGHTS = 1 << 25
_MAX_SEEDS = 8
_CHUNK = 1 << 16
_LARGEST = float(np.finfo(np.float32).max)
_HINT = "save it with snn_deploy.save_ticket"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeded:
    """A tensor of ``scale`` times numbers in [-1, 1), or times their signs.

    seed: non-negative integers below 2^64. scale: a float32 value.
    """

    seed: tuple[int, ...]
    shape: tuple[int, ...]
    scale: float
    sign: bool = False

    def weights(self) -> NDArray[np.float32]:
        """Return the tensor, float32."""
        numbers = uniform(self.seed, self.shape)
        if self.sign:
            np.sign(numbers, out=numbers)
        numbers *= np.float32(self.scale)
        return numbers

    def as_json(self) -> dict[str, Any]:
        """Return what ``seeded_of`` reads, in JSON values."""
        return {**asdict(self), "seed": list(self.seed), "shape": list(self.shape)}


def uniform(seed: Sequence[int], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return float32 numbers of ``shape`` in [-1, 1) from a seed of non-negative integers."""
    bits = np.random.PCG64(list(seed))
    numbers = np.empty(math.prod(shape), np.float32)
    for start in range(0, numbers.size, _CHUNK):
        part = numbers[start : start + _CHUNK]
        part[:] = (bits.random_raw(part.size) >> np.uint64(41)).astype(np.float64) / (1 << 22) - 1
    return numbers.reshape(shape)


def packed(mask: Array) -> NDArray[np.uint8]:
    """Return a mask as bits, eight per byte, the first one in the highest place."""
    return np.packbits(mask.astype(bool))


def seeded_of(value: object) -> Seeded:
    """Return the Seeded of a JSON description; InputError where it is malformed."""
    if not isinstance(value, Mapping) or value.keys() != {"seed", "shape", "scale", "sign"}:
        raise InputError("a seeded tensor has seed, shape, scale and sign", hint=_HINT)
    seed, shape, scale, sign = (value[key] for key in ("seed", "shape", "scale", "sign"))
    if not _whole(seed, _MAX_SEEDS) or not all(0 <= part < 1 << 64 for part in seed):
        raise InputError(
            "a seed is a short list of whole numbers",
            used=_shown(seed),
            hint=f"1 to {_MAX_SEEDS} numbers from 0 to 2^64 - 1, such as [0, 1]",
        )
    if not _whole(shape, MAX_DIMS) or min(shape) < 1:
        raise InputError(
            "a shape is a list of positive whole numbers",
            used=_shown(shape),
            hint="the shape of the weight tensor, such as [10, 256]",
        )
    if type(scale) is not float or not abs(scale) <= _LARGEST or float(np.float32(scale)) != scale:
        raise InputError("a scale is a float32 number", used=_shown(scale), hint=_HINT)
    if type(sign) is not bool:
        raise InputError("sign is true or false", used=_shown(sign), hint=_HINT)
    return Seeded(seed=tuple(seed), shape=tuple(shape), scale=scale, sign=sign)


def _whole(value: Any, most: int) -> bool:
    known = isinstance(value, list | tuple) and 1 <= len(value) <= most
    return known and all(type(part) is int for part in value)


def _shown(value: object) -> str:
    return " ".join(repr(value).split())[:80]


def expanded(
    seeded: object, state: Mapping[str, Array], masks: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return state and masks with a ticket's seeded tensors in them, whose masks are packed.

    Weights that are masked are 0. seeded: untrusted, by state key. Raises InputError for anything
    malformed, and for more than ``MAX_WEIGHTS`` weights.
    """
    if not isinstance(seeded, dict) or not all(isinstance(key, str) for key in seeded):
        raise InputError("the ticket's seeded is not a dict of seeded tensors", hint=_HINT)
    full, flags, total = dict(state), dict(masks), 0
    entries: dict[str, Seeded] = {}
    for key, value in seeded.items():
        with _at(key):
            if key in state:
                raise InputError("a tensor is stored twice, as numbers and as a seed", hint=_HINT)
            entries[key] = seeded_of(value)
            total += math.prod(entries[key].shape)
            if total > MAX_WEIGHTS:  # before any of them is made
                raise InputError(
                    "the ticket's seeds stand for more weights than this release makes",
                    used=f"{total:,} of {MAX_WEIGHTS:,}",
                    hint="save the weights themselves: leave seeded out",
                )
    for key, entry in entries.items():
        with _at(key):
            mask, weights = _unpacked(masks.get(key), entry.shape), entry.weights()
            np.copyto(weights, 0, where=~mask)
            flags[key], full[key] = mask, adopt(weights)
    return full, flags


@contextmanager
def _at(key: str) -> Iterator[None]:
    try:
        yield
    except SnnDeployError as error:
        raise error.located(f"seeded -> {key}") from None


def _unpacked(bits: Array | None, shape: tuple[int, ...]) -> Array:
    size = math.prod(shape)
    needed = -(-size // 8)
    if bits is None or bits.dtype != np.uint8 or bits.shape != (needed,):
        found = "none" if bits is None else f"{bits.dtype} {list(bits.shape)}"
        raise InputError(
            "a seeded tensor needs its mask as bits",
            used=f"mask {found}, needed uint8 [{needed}] for {size:,} weights",
            hint="numpy.packbits(mask)",
        )
    flags = np.unpackbits(bits)
    if bool(flags[size:].any()):
        raise InputError(
            "a mask has bits beyond its last weight", hint="the file is damaged: write it again"
        )
    return adopt(flags[:size].view(bool).reshape(shape))
