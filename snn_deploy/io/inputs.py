"""Reads input samples and labels, and turns samples into what a network sees at every step."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from snn_deploy.errors import InputError, UsageError
from snn_deploy.io.files import PathLike, hash_open_file, open_regular
from snn_deploy.io.npz import array_names, open_npz, read_array, save_npz
from snn_deploy.ir.arrays import Array

if TYPE_CHECKING:
    from snn_deploy.ir.network import Coding

__all__ = [
    "InputData",
    "encode",
    "encode_several",
    "read_for",
    "read_inputs",
    "read_several",
    "save_npz",
]

InputKind = Literal["static", "steps"]
# float32 arithmetic before saving may overshoot 1 by this much; more is the user's to scale.
RATE_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InputData:
    """Samples and labels. x: (samples, *shape) if kind is "static", (samples, steps, *shape) if
    "steps"; y: (samples,) int64 or None; both read-only. several: of a model with several inputs,
    the values by the input's name, alike in samples and kind; x is the first of them.
    """

    x: Array
    y: Array | None
    kind: InputKind
    source: str = ""
    sha256: str = ""
    several: Mapping[str, Array] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.x)

    def first(self, count: int | None) -> InputData:
        """Return the first ``count`` samples (all if None or more than there are)."""
        if count is not None and count < 1:
            raise UsageError(f"--samples {count} leaves no samples", hint="use 1 or more")
        return self.part(0, self.samples if count is None else count)

    def part(self, first: int, last: int) -> InputData:
        """Return samples first..last-1."""
        return replace(
            self,
            x=self.x[first:last],
            y=None if self.y is None else self.y[first:last],
            several={name: values[first:last] for name, values in self.several.items()},
        )


def read_inputs(
    path: PathLike,
    shape: tuple[int, ...],
    *,
    steps: int | None = None,
    max_bytes: int = 16 * 2**30,
) -> InputData:
    """Read an .npz with ``x`` and optional labels ``y``, checked against a model's input.

    shape: the model's input per step. steps: how many steps x must have if it has steps; None
    takes any number. Raises InputError: not an .npz, hostile, wrong shape, no samples or steps,
    NaN or infinity, labels of the wrong length, type or sign.
    """
    where = os.fspath(path)
    with open_regular(path) as file:
        archive = open_npz(file, where, max_bytes)
        x = read_array(archive, "x")
        y = read_array(archive, "y") if "y" in array_names(archive) else None
        digest = hash_open_file(file)
    kind = _check_shape(x, tuple(shape), steps, f"{where} -> x")
    _check_finite(x, f"{where} -> x")
    if y is not None:
        y = _check_labels(y, len(x), f"{where} -> y")
    return InputData(x=x, y=y, kind=kind, source=where, sha256=digest)


def read_several(
    path: PathLike, shapes: Mapping[str, tuple[int, ...]], *, max_bytes: int = 16 * 2**30
) -> InputData:
    """Read an .npz with an array per input, under the input's name, and optional labels ``y``.

    shapes: of each input, by name. Raises InputError as ``read_inputs`` does, and where the arrays
    are not alike in samples and steps.
    """
    where = os.fspath(path)
    with open_regular(path) as file:
        archive = open_npz(file, where, max_bytes)
        found = array_names(archive)
        missing = [name for name in shapes if name not in found]
        if missing:
            raise InputError(
                f"the model has {len(shapes)} inputs, and there is no array for {missing[0]!r}",
                where=where,
                used=f"arrays {', '.join(sorted(found)) or 'none'}",
                hint=f"save one array per input: {', '.join(shapes)}",
            )
        several = {name: read_array(archive, name) for name in shapes}
        y = read_array(archive, "y") if "y" in found and "y" not in shapes else None
        digest = hash_open_file(file)
    kinds = {}
    for name, values in several.items():
        kinds[name] = _check_shape(values, tuple(shapes[name]), None, f"{where} -> {name}")
        _check_finite(values, f"{where} -> {name}")
    first, x = next(iter(several.items()))
    for name, values in several.items():
        lead = 2 if kinds[name] == "steps" else 1
        if kinds[name] != kinds[first] or values.shape[:lead] != x.shape[:lead]:
            raise InputError(
                "the inputs have different numbers of samples or steps",
                where=f"{where} -> {name}",
                used=f"{values.shape}, and {first} is {x.shape}",
                hint="save all inputs with the same samples, and steps where they have any",
            )
    labels = None if y is None else _check_labels(y, len(x), f"{where} -> y")
    return InputData(x=x, y=labels, kind=kinds[first], source=where, sha256=digest, several=several)


def read_for(path: PathLike, shapes: Mapping[str, tuple[int, ...]]) -> InputData:
    """Read samples for a model with these inputs: ``x`` for one, else an array for each name."""
    if len(shapes) > 1:
        return read_several(path, shapes)
    (shape,) = shapes.values()
    return read_inputs(path, shape)


def _tuple(shape: tuple[int, ...], *axes: str) -> str:
    parts = [*axes, *map(str, shape)]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def _check_shape(x: Array, shape: tuple[int, ...], steps: int | None, where: str) -> InputKind:
    kind: InputKind
    if x.ndim == 1 + len(shape) and x.shape[1:] == shape:
        kind = "static"
    elif x.ndim == 2 + len(shape) and x.shape[2:] == shape:
        kind = "steps"
    else:
        raise InputError(
            f"x has shape {x.shape}, but the model's input is {_tuple(shape)}",
            where=where,
            used=f"x must be {_tuple(shape, 'samples')} or {_tuple(shape, 'samples', 'steps')}",
            hint=_shape_hint(x, shape),
        )
    if len(x) == 0:
        raise InputError("x holds no samples", where=where, hint="save at least one sample")
    if kind == "steps" and x.shape[1] == 0:
        raise InputError("x has 0 steps", where=where, hint="save at least one step per sample")
    if kind == "steps" and steps is not None and x.shape[1] != steps:
        raise InputError(
            f"x has {x.shape[1]} steps, but the model runs {steps}",
            where=where,
            used=f"{x.shape[1]} of {steps} steps",
            hint=f"save x[:, :{steps}]"
            if x.shape[1] > steps
            else f"record more steps, or run the model with --steps {x.shape[1]}",
        )
    return kind


def _shape_hint(x: Array, shape: tuple[int, ...]) -> str:
    """Say which reshape or transpose of x would fit, if one does."""
    wanted = math.prod(shape)
    for axes, leading in ((1, "len(x)"), (2, "len(x), x.shape[1]")):
        rest = x.shape[axes:]
        if x.ndim >= axes and len(x) and math.prod(rest) == wanted:
            channels_last = len(rest) == 3 and rest[-1:] + rest[:-1] == shape
            if channels_last and rest[-1] > 1:
                return f"channels come first: save np.moveaxis(x, -1, {axes})"
            return f"save x.reshape({leading}, {', '.join(map(str, shape))})"
    if x.shape == shape:
        return "the samples axis is missing: save x[None]"
    return "give the data that the model was trained on"


def _check_finite(x: Array, where: str) -> None:
    if x.dtype.kind != "f":
        return
    for start in range(0, len(x), step := max(1, 2**22 // max(1, x[0].size))):
        good = np.isfinite(x[start : start + step])
        if not good.all():
            place = np.unravel_index(int(np.argmin(good)), good.shape)
            index = (start + int(place[0]), *(int(i) for i in place[1:]))
            raise InputError(
                f"x{list(index)} is {x[index]}",
                where=where,
                hint="NaN and infinity are not data: replace them, e.g. np.nan_to_num(x)",
            )


def _check_labels(y: Array, samples: int, where: str) -> Array:
    if y.dtype.kind not in "iu":
        raise InputError(
            f"labels must be integers, not {y.dtype}",
            where=where,
            hint="save y.astype(np.int64); for one-hot labels y.argmax(1)",
        )
    if y.shape != (samples,):
        one_hot = y.ndim == 2 and len(y) == samples
        raise InputError(
            f"y has shape {y.shape}, but x has {samples} samples",
            where=where,
            used=f"y must be ({samples},)",
            hint="save y.argmax(1)" if one_hot else "save one label per sample, in the same order",
        )
    if int(y.min()) < 0 or int(y.max()) > np.iinfo(np.int64).max:
        at = int(np.argmax((y < 0) | (y > np.iinfo(np.int64).max)))
        raise InputError(
            f"label y[{at}] is {y[at]}",
            where=where,
            hint="labels count classes from 0; leave unlabelled samples out",
        )
    labels = y.astype(np.int64)
    labels.flags.writeable = False
    return labels


def encode(
    x: InputData | Array,
    coding: Coding,
    first_index: int = 0,
    *,
    kind: InputKind | None = None,
) -> Array:
    """Return what the network sees: (samples, steps, *shape).

    rate: uint8 spikes, Bernoulli with probability gain * x, drawn for the sample at position i
    (first_index for x[0]) from ``Generator(PCG64(SeedSequence([seed, i]))).random()`` in C order,
    so that any subset of a file sees the same spikes. A sample with steps that is 0/1 already
    passes as it is. events: x has steps and is 0/1. direct: floats, gain * x, a static sample
    repeated by a read-only broadcast. kind: what a bare array is; by default "static", for events
    "steps". Raises InputError: probabilities outside 0..1 (by more than 1e-6), steps that are
    missing or disagree, events that are not 0/1; UsageError: a coding without steps or seed.
    """
    where = x.source or None if isinstance(x, InputData) else None
    if isinstance(x, InputData):
        kind, x = x.kind, x.x
    kind = kind or ("steps" if coding.kind == "events" else "static")
    steps = _steps(x, coding, kind, where)
    if coding.kind == "events":
        return _events(x, kind, where)
    if coding.kind == "rate":
        return _rate(x, coding, steps, first_index, kind, where)
    if coding.kind == "direct":
        return _direct(x, coding, steps, kind)
    raise UsageError(f"unknown coding {coding.kind!r}", hint="use rate, direct or events")


def encode_several(data: InputData, coding: Coding, first_index: int = 0) -> dict[str, Array]:
    """Return what a network with several inputs sees, by input; input k is drawn with seed + k."""
    return {
        name: encode(
            replace(data, x=values, several={}),
            replace(coding, seed=coding.seed + k),
            first_index,
        )
        for k, (name, values) in enumerate(data.several.items())
    }


def _steps(x: Array, coding: Coding, kind: InputKind, where: str | None) -> int:
    if kind == "steps":
        found = int(x.shape[1])
        if coding.steps is not None and coding.steps != found:
            raise InputError(
                f"x has {found} steps, but the coding asks for {coding.steps}",
                where=where,
                hint=f"give x with {coding.steps} steps, or run with --steps {found}",
            )
        return found
    if coding.kind == "events":
        raise InputError(
            "the model takes spike events, but x has no steps",
            where=where,
            hint="save x as 0/1 of shape (samples, steps, ...), or pass --coding rate --steps N",
        )
    if coding.steps is None or coding.steps < 1:
        raise UsageError(
            "how many steps a static sample lasts is not known",
            where=where,
            hint="say it with --steps N, 1 or more",
        )
    return coding.steps


def _is_binary(x: Array) -> bool:
    return x.dtype.kind == "b" or bool(((x == 0) | (x == 1)).all())


def _events(x: Array, kind: InputKind, where: str | None) -> Array:
    for i, sample in enumerate(x):
        if not _is_binary(sample):
            odd = sample[(sample != 0) & (sample != 1)]
            raise InputError(
                f"events must be 0 or 1, but sample {i} holds {odd[0]}",
                where=where,
                hint="save (x > 0) if each value is a spike count, or use rate or direct coding",
            )
    return x.astype(np.uint8)


def _rate(
    x: Array, coding: Coding, steps: int, first_index: int, kind: InputKind, where: str | None
) -> Array:
    if coding.seed < 0 or first_index < 0:
        raise UsageError(f"seed {coding.seed} is negative", hint="use a seed of 0 or more")
    shape = x.shape[2:] if kind == "steps" else x.shape[1:]
    spikes = np.empty((len(x), steps, *shape), np.uint8)
    for i, sample in enumerate(x):
        if kind == "steps" and _is_binary(sample):
            spikes[i] = sample
            continue
        chance = np.multiply(sample, coding.gain, dtype=np.float64)
        low, high = (float(chance.min()), float(chance.max())) if chance.size else (0.0, 0.0)
        if low < -RATE_TOLERANCE or high > 1 + RATE_TOLERANCE or math.isnan(low + high):
            raise InputError(
                f"rate coding needs values in 0..1 after gain {coding.gain:g}, but sample "
                f"{first_index + i} spans {low:g}..{high:g}",
                where=where,
                hint="scale x to 0..1, e.g. x / x.max(), or choose a smaller gain",
            )
        stream = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence([coding.seed, first_index + i]))
        )
        np.less(stream.random((steps, *shape)), chance, out=spikes[i], casting="unsafe")
    return spikes


def _direct(x: Array, coding: Coding, steps: int, kind: InputKind) -> Array:
    # Whole numbers of up to 16 bits are exact in float32, as are bool and float16.
    exact = np.can_cast(x.dtype, np.float32)
    dtype: Any = np.float32 if exact else np.float64
    values = x.astype(dtype, copy=False)
    if coding.gain != 1:
        values = values * dtype(coding.gain)
    if kind == "static":
        values = np.broadcast_to(values[:, None], (len(x), steps, *x.shape[1:]))
    return values
