"""Time constants for neurons that add their whole input: a gain of exactly 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from snn_deploy.ir.arrays import Array


def unit_gain(share: Any, dt_s: float) -> tuple[Array, Array]:
    """Return (tau_s, gain) with ``dt_s / tau_s = share`` and ``dt_s / tau_s * gain = 1``.

    share: what the state loses in a step; inf stands for both where it loses nothing. The first
    holds within 2^-51, mostly as closely as a quotient of doubles can; the second to the last bit
    wherever doubles next to these allow it. It matters: a sum of weights may equal the threshold,
    which is no spike, and 1 + 2e-16 times it passes the threshold.
    """
    share = np.asarray(share, np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        tau = nearest = dt_s / share
        gain = 1.0 / (dt_s / nearest)
        off = abs((1.0 - dt_s / nearest) - (1.0 - share))
        exact = np.zeros(share.shape, bool)
        candidates = [
            (allowed, t, g)
            for allowed in (off, off + 2.0**-52)
            for t in _neighbours(nearest)
            for g in _neighbours(t / dt_s)
        ]
        for allowed, t, g in candidates:
            a = dt_s / t
            found = ~exact & (a * g == 1.0) & (abs((1.0 - a) - (1.0 - share)) <= allowed)
            tau, gain = np.where(found, t, tau), np.where(found, g, gain)
            exact |= found
    return tau, gain


def _neighbours(value: Array) -> list[Array]:
    """Return ``value`` and the two doubles on either side of it."""
    below, above = np.nextafter(value, 0.0), np.nextafter(value, np.inf)
    return [value, below, above, np.nextafter(below, 0.0), np.nextafter(above, np.inf)]
