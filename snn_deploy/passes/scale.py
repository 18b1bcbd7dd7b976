"""The integer scale of a population's fan-in: as fine as its registers allow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Projection
from snn_deploy.ir.quantized import Arithmetic
from snn_deploy.ir.synapses import LEARNED, Diagonal, Synapse, weights_of

_HEADROOM_BITS = 3  # of an estimate: a state may reach 8 thresholds before it meets its end
_FEW_LEVELS = 7  # magnitudes beside 0: those of 4 bits and fewer, signs included
_SHARES = tuple(k / 64 for k in range(64, 7, -1))
_SAMPLED = 1 << 16  # weights of a tensor that its scale is chosen by
_GRID_BITS = 7  # finer weight grids than 1/128 are taken for real numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How far a state must be able to go, in units of current; measured, or estimated."""

    reach: float
    measured: bool = False


def weight_grid(arithmetic: Arithmetic, bits: int, *, mixed: bool) -> tuple[int, int]:
    """Return (step, largest magnitude) of the integer grid for a tensor of these signs."""
    if arithmetic.weight_grid == "symmetric":
        return 1, (1 << (bits - 1)) - 1
    # One bit holds one magnitude: a tensor of both signs is stored as two tensors of one.
    step = 1 << (8 - bits + int(mixed and bits > 1))
    return step, 256 - step


def fewest_bits(arithmetic: Arithmetic) -> int:
    """Return the fewest weight bits that leave a value beside 0: a symmetric grid spends one
    on the sign.
    """
    return 2 if arithmetic.weight_grid == "symmetric" else 1


def learned_of(projection: Projection) -> Synapse | None:
    """Return the learned operator of a folded chain, or None for a helper's."""
    return next((s for s in projection.synapses if isinstance(s, LEARNED)), None)


def real_weights(projection: Projection) -> Array:
    """Return the values that become integers: weights, or a helper's scale (1 without any)."""
    learned = learned_of(projection)
    if learned is not None:
        weights = weights_of(learned)
        assert weights is not None
        return weights
    value = np.ones(1)
    for synapse in projection.synapses:
        if isinstance(synapse, Diagonal):
            value = value * np.asarray(synapse.scale, np.float64)
    return value


def bits_of(projection: Projection, arithmetic: Arithmetic, bits: int) -> int:
    """Return the bits of a projection's weights: those asked for, if they are learned."""
    fixed = projection.helper or learned_of(projection) is None
    return arithmetic.weight_bits if fixed else bits


def is_mixed(weights: Array) -> bool:
    """Return whether weights of both signs are present."""
    return bool(np.any(weights > 0)) and bool(np.any(weights < 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Integer units of a population's fan-in per real unit, and their left shift into the state.

    exponents: per projection; its stored weights count 2^exponent units each.
    """

    shift: int
    units: float
    exponents: tuple[int, ...] = ()


def choose_scale(
    fan_in: tuple[Projection, ...],
    arithmetic: Arithmetic,
    bits: int,
    threshold: Array | None,
    offset: Array,
    room: Room,
    *,
    finer: bool = False,
) -> Scale:
    """Return the scale that is as fine as weights, threshold, bias and the state's room allow.

    Where several projections meet, it grows by powers of two towards that of the smallest
    weights, and the others are stored with exponents, if the arithmetic has them. finer: it grows
    as far as the registers allow, for threshold and bias alone.
    """
    tensors = [real_weights(projection) for projection in fan_in]
    grids = [
        weight_grid(arithmetic, bits_of(p, arithmetic, bits), mixed=is_mixed(w))
        for p, w in zip(fan_in, tensors, strict=True)
    ]
    largest = [_largest(w, grid) for w, grid in zip(tensors, grids, strict=True)]
    # Without a weight, only bias and threshold bound the unit: as if the largest weight were 1.
    _, top = weight_grid(arithmetic, bits, mixed=False)
    each = [t / w if w > 0 else math.inf for (_, t), w in zip(grids, largest, strict=True)]
    scale = min((s for s in each if s < math.inf), default=top)
    step = max((step for step, _ in grids), default=1)
    unit = _common_unit(tensors) if tensors else None
    if any(learned_of(projection) is None for projection in fan_in):
        # A relay's weight of one becomes the scale itself, and must be a whole number.
        scale = float(max(1, math.floor(scale)))
    if unit is not None and scale * unit >= step:
        # Weights on a grid of their own stay on it. Small integers (pools, relays) keep their own
        # unit, which takes the fewest bits, unless the bias needs a finer one.
        own = unit == 1.0 and bool(np.all(offset == np.rint(offset)))
        scale = (1 if own else math.floor(scale * unit / step)) * step / unit
    state_top = arithmetic.state_max >> (0 if room.measured else _HEADROOM_BITS)
    threshold_top = min(
        state_top, ((1 << arithmetic.threshold_bits) - 1) << arithmetic.threshold_shift
    )
    bias_top = min(state_top, ((1 << (arithmetic.bias_bits - 1)) - 1) << arithmetic.bias_shift)
    highest = 0.0 if threshold is None else float(np.max(np.abs(threshold), initial=0.0))
    # The state's unit at which threshold, bias and the state itself just fit.
    most = min(
        arithmetic.state_max / room.reach if room.reach else math.inf,
        threshold_top / highest if highest else math.inf,
        bias_top / float(np.max(np.abs(offset))) if bool(np.any(offset)) else math.inf,
    )
    least, shift = arithmetic.shift_bits
    while shift > least and scale * (1 << shift) > most:
        shift -= 1
    finest = most / (1 << shift)
    learned = all(learned_of(projection) is not None for projection in fan_in)
    if not fan_in and finest < math.inf:
        scale = finest
    elif scale <= finest and unit is None and learned:
        widest = max((s for s in each if s < math.inf), default=scale)
        wanted = math.inf if finer else widest
        for _ in range(arithmetic.max_exponent):
            if scale >= wanted or 2 * scale > finest:
                break
            scale *= 2
    elif scale > finest and unit is not None and finest * unit >= step:
        scale = math.floor(finest * unit / step) * step / unit
    elif scale > finest:
        scale = float(math.floor(finest)) if finest >= 1 and not learned else finest
    return Scale(
        shift=shift,
        units=scale,
        exponents=tuple(
            max(0, math.ceil(math.log2(scale / s))) if s < math.inf else 0 for s in each
        ),
    )


def _largest(weights: Array, grid: tuple[int, int]) -> float:
    """Return the magnitude that becomes the grid's largest: the weights' own.

    On a grid of few magnitudes one large weight would round most others to zero. There it is the
    share of it that leaves the least squared error, and larger weights meet the grid's end.
    """
    step, top = grid
    size = np.abs(weights[weights != 0]).astype(np.float64)
    if top > _FEW_LEVELS * step or not size.size:
        return float(np.max(size, initial=0.0))
    size = np.sort(size)[:: -1 - size.size // _SAMPLED]
    levels = top // step

    def error(largest: float) -> float:
        rounded = np.minimum(np.rint(size * (levels / largest)), levels) * (largest / levels)
        return float(np.sum((size - rounded) ** 2))

    return min((float(size[0]) * share for share in _SHARES), key=error)


def _common_unit(tensors: list[Array]) -> float | None:
    """Return the largest 2^-k, k in 0.._GRID_BITS, of which all weights are multiples, or None."""
    for k in range(_GRID_BITS + 1):
        if all(bool(np.all(np.ldexp(w, k) == np.rint(np.ldexp(w, k)))) for w in tensors):
            return float(2.0**-k)
    return None
