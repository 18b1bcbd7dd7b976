"""Elementwise functions of one value: scales, clips and floors, and what they are together.

An exporter writes an activation as a row of small operators. They are collected in a Curve until
something else reads the value; then the row is one activation, or scales that a layer takes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from snn_deploy.errors import UnsupportedError
from snn_deploy.frontends.ann import Activation
from snn_deploy.ir.arrays import Array, frozen
from snn_deploy.ir.synapses import Shape

_CLOSE = 1e-4  # constants are float32 and pass through divisions


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """affine: ``a x + b``; clip: to ``a``..``b``; floor. Values are one per channel.

    name: of the (last) operator that it is.
    """

    name: str
    kind: Literal["affine", "clip", "floor"]
    a: Array
    b: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """A function of node ``base``. name: of its last operator."""

    base: str
    name: str
    stages: tuple[Stage, ...]

    def then(
        self, name: str, kind: Literal["affine", "clip", "floor"], a: Array, b: Array
    ) -> Curve:
        """Return the function followed by one more stage; neighbours of a kind become one."""
        stages, last = self.stages, self.stages[-1] if self.stages else None
        if last is not None and last.kind == kind == "affine":
            stages, a, b = stages[:-1], last.a * a, last.b * a + b
        elif last is not None and last.kind == kind == "clip":
            a, b = np.clip(last.a, a, b), np.clip(last.b, a, b)
            stages = stages[:-1]
        return replace(self, name=name, stages=(*stages, Stage(name=name, kind=kind, a=a, b=b)))


def constant_per_channel(value: Array, shape: Shape, where: str) -> Array:
    """Return a constant as one value per channel of a value of ``shape`` (without batch)."""
    array = np.asarray(value, np.float64)
    if array.ndim > 1 + len(shape) or not _stretches(array.shape, (1, *shape)):
        raise UnsupportedError(
            f"a constant of shape {array.shape} does not fit {shape} without changing it",
            where=where,
            hint="use one value, or one per channel",
        )
    array = array.reshape(*[1] * (1 + len(shape) - array.ndim), *array.shape)
    rows = array.reshape(array.shape[1], -1)
    if not bool(np.all(rows == rows[:, :1])):
        raise UnsupportedError(
            "a constant differs within a channel",
            where=where,
            hint="use one value, or one per channel",
        )
    return frozen(np.broadcast_to(rows[:, 0], shape[:1]))


def _stretches(part: Shape, whole: Shape) -> bool:
    """Return whether numpy stretches ``part`` to ``whole``."""
    pairs = zip(reversed(part), reversed(whole), strict=False)
    return all(a in (1, b) for a, b in pairs)


def simple_activation(stage: Stage) -> Activation:
    """Return a clip as an activation; UnsupportedError where it is not one of rates."""
    low, high = stage.a, stage.b
    if np.any(low != 0) or np.any(high <= 0) or np.any(np.isinf(high) != np.isinf(high[0])):
        raise UnsupportedError(
            "a clip that does not start at 0 is no rate",
            where=stage.name,
            used=f"{float(np.min(low)):g} to {float(np.max(high)):g}",
            hint="use Relu, or a Clip from 0 to a positive bound",
        )
    return Activation(upper=None if np.isinf(high[0]) else _short(high))


def quantised_activation(curve: Curve) -> Activation:
    """Return a row of operators with a floor as the clip-floor-shift activation that it is.

    The clip may stand before the floor or behind it (Bu et al., "Optimal ANN-SNN conversion for
    high-accuracy and ultra-low-latency spiking neural networks", ICLR 2022, eq. 15; their code
    clips first).
    """
    stages = list(curve.stages)
    one, zero = np.ones_like(stages[0].a), np.zeros_like(stages[0].a)

    def affine() -> tuple[Array, Array]:
        if stages and stages[0].kind == "affine":
            stage = stages.pop(0)
            return stage.a, stage.b
        return one, zero

    def take(kind: str) -> Stage:
        if not stages or stages[0].kind != kind:
            raise _no_activation(curve)
        return stages.pop(0)

    with np.errstate(all="ignore"):  # what is not finite is refused below
        before = affine()
        if stages and stages[0].kind == "clip":
            clip, inner = take("clip"), affine()
            take("floor")
            after = affine()
            offsets = (before[1], inner[1] - 0.5, after[1], clip.a)
            levels, upper = clip.b * inner[0], clip.b / before[0]
            amplitude = levels * after[0]
        else:
            take("floor")
            inner, clip = affine(), take("clip")
            after = affine()
            offsets = (before[1] - 0.5, inner[1], after[1], clip.a)
            levels = clip.b / inner[0]
            upper, amplitude = levels / before[0], clip.b * after[0]
    count = round(float(levels[0])) if np.all(np.isfinite(levels)) else 0
    good = (
        not stages
        and count >= 1
        and bool(np.all(np.abs(levels - count) <= _CLOSE * count))
        and all(bool(np.all(np.abs(o) <= _CLOSE)) for o in offsets)
        and bool(np.all(np.isfinite(upper) & (upper > 0) & np.isfinite(amplitude)))
    )
    if not good:
        raise _no_activation(curve)
    return Activation(upper=_short(upper), levels=count, amplitude=_short(amplitude))


def _no_activation(curve: Curve) -> UnsupportedError:
    return UnsupportedError(
        "Floor is read as part of a quantised activation only, and this is none",
        where=curve.name,
        used=" ".join(stage.kind for stage in curve.stages),
        hint="the form is A clip(floor(x L/A + 1/2)/L, 0, 1), with the clip inside or outside",
    )


def _short(values: Array) -> Array:
    """Return equal values as one."""
    return frozen(values[0] if bool(np.all(values == values[0])) else values)
