"""Neuron types, and the one normal form that every engine integrates.

Forward Euler with step ``dt`` turns each type into

    u_t = keep_u u_{t-1} + gain_u I_t          (u_t = I_t without a synaptic current)
    v_t = keep_v v_{t-1} + gain_v u_t + offset
    z_t = v_t > threshold                      (strict)
    v_t := v_reset  or  v_t - reset_amount     where z_t

from v = v_init and u = 0 before step 0, so engines and quantizers see :class:`Step` and nothing
else. Parameters are float64 scalars or arrays of the population's shape. The equations are those
of the NIR primitives.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypedDict

import numpy as np

from snn_deploy.errors import InputError
from snn_deploy.ir.arrays import Array, frozen, same

ResetKind = Literal["value", "subtract"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Forward-Euler coefficients of one population (see the module's text).

    threshold: None for a population that never spikes. reset: "value", "subtract", or "none".
    has_current: whether u is a state of its own. memoryless: keep_v is 0 everywhere.
    """

    keep_u: Array
    gain_u: Array
    keep_v: Array
    gain_v: Array
    offset: Array
    threshold: Array | None
    reset: Literal["value", "subtract", "none"]
    v_reset: Array
    reset_amount: Array
    v_init: Array
    has_current: bool


def _step(
    *,
    keep_u: Array | float = 0.0,
    gain_u: Array | float = 1.0,
    keep_v: Array | float,
    gain_v: Array | float,
    offset: Array | float = 0.0,
    threshold: Array | None = None,
    reset: Literal["value", "subtract", "none"] = "none",
    v_reset: Array | float = 0.0,
    reset_amount: Array | float = 0.0,
    v_init: Array | None = None,
    has_current: bool = False,
) -> Step:
    return Step(
        keep_u=frozen(keep_u, np.float64),
        gain_u=frozen(gain_u, np.float64),
        keep_v=frozen(keep_v, np.float64),
        gain_v=frozen(gain_v, np.float64),
        offset=frozen(offset, np.float64),
        threshold=None if threshold is None else frozen(threshold, np.float64),
        reset=reset,
        v_reset=frozen(v_reset, np.float64),
        reset_amount=frozen(reset_amount, np.float64),
        v_init=frozen(0.0 if v_init is None else v_init, np.float64),
        has_current=has_current,
    )


class _Parameters:
    """Freezes array fields and checks that they are finite and, for time constants, positive."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.name in ("reset", "r_unit") or value is None:
                continue
            array = frozen(value, np.float64)
            if not np.all(np.isfinite(array)):
                raise InputError(
                    f"{type(self).__name__}.{field.name} is not finite",
                    hint="a NaN or infinite parameter usually means that training diverged",
                )
            if field.name.startswith("tau") and not np.all(array > 0):
                raise InputError(
                    f"{type(self).__name__}.{field.name} must be positive",
                    used=f"{float(array.min()):g} s",
                    hint="time constants are in seconds, greater than 0",
                )
            object.__setattr__(self, field.name, array)

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    __hash__ = None  # type: ignore[assignment]


class _Firing(TypedDict):
    v_init: Array | None
    threshold: Array
    reset: ResetKind
    v_reset: Array
    reset_amount: Array


def _firing(neuron: LIF | IF | CubaLIF) -> _Firing:
    amount = neuron.v_threshold if neuron.reset_amount is None else neuron.reset_amount
    return {
        "v_init": neuron.v_init,
        "threshold": neuron.v_threshold,
        "reset": neuron.reset,
        "v_reset": neuron.v_reset,
        "reset_amount": amount,
    }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LIF(_Parameters):
    """Leaky integrate-and-fire: ``tau v' = (v_leak - v) + r I``.

    tau_s: seconds, > 0. reset: "value" (v := v_reset) or "subtract" (v := v - reset_amount,
    by default the threshold). v_init: the membrane before step 0, None for 0 (all types).
    """

    tau_s: Array
    r: Array
    v_leak: Array
    v_threshold: Array
    v_reset: Array
    reset: ResetKind = "value"
    reset_amount: Array | None = None
    v_init: Array | None = None

    def step(self, dt_s: float) -> Step:
        """Return the Euler coefficients for a step of ``dt_s`` seconds."""
        a = dt_s / self.tau_s
        return _step(keep_v=1.0 - a, gain_v=a * self.r, offset=a * self.v_leak, **_firing(self))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IF(_Parameters):
    """Integrate-and-fire: ``v' = r I`` (r_unit "physical") or ``v += r I`` ("per-step")."""

    r: Array
    v_threshold: Array
    v_reset: Array
    r_unit: Literal["physical", "per-step"] = "per-step"
    reset: ResetKind = "value"
    reset_amount: Array | None = None
    v_init: Array | None = None

    def step(self, dt_s: float) -> Step:
        """Return the Euler coefficients for a step of ``dt_s`` seconds."""
        gain = self.r * dt_s if self.r_unit == "physical" else self.r
        return _step(keep_v=1.0, gain_v=gain, **_firing(self))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CubaLIF(_Parameters):
    """Current-based LIF: ``tau_syn I' = -I + w_in S``; ``tau_mem v' = (v_leak - v) + r I``."""

    tau_syn_s: Array
    tau_mem_s: Array
    r: Array
    v_leak: Array
    v_threshold: Array
    v_reset: Array
    w_in: Array
    reset: ResetKind = "value"
    reset_amount: Array | None = None
    v_init: Array | None = None

    def step(self, dt_s: float) -> Step:
        """Return the Euler coefficients for a step of ``dt_s`` seconds."""
        a, b = dt_s / self.tau_syn_s, dt_s / self.tau_mem_s
        return _step(
            keep_u=1.0 - a,
            gain_u=a * self.w_in,
            keep_v=1.0 - b,
            gain_v=b * self.r,
            offset=b * self.v_leak,
            has_current=True,
            **_firing(self),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LI(_Parameters):
    """Leaky integrator, never spikes: ``tau v' = (v_leak - v) + r I``."""

    tau_s: Array
    r: Array
    v_leak: Array
    v_init: Array | None = None

    def step(self, dt_s: float) -> Step:
        """Return the Euler coefficients for a step of ``dt_s`` seconds."""
        a = dt_s / self.tau_s
        return _step(keep_v=1.0 - a, gain_v=a * self.r, offset=a * self.v_leak, v_init=self.v_init)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CubaLI(_Parameters):
    """Current-based leaky integrator, never spikes."""

    tau_syn_s: Array
    tau_mem_s: Array
    r: Array
    v_leak: Array
    w_in: Array
    v_init: Array | None = None

    def step(self, dt_s: float) -> Step:
        """Return the Euler coefficients for a step of ``dt_s`` seconds."""
        a, b = dt_s / self.tau_syn_s, dt_s / self.tau_mem_s
        return _step(
            keep_u=1.0 - a,
            gain_u=a * self.w_in,
            keep_v=1.0 - b,
            gain_v=b * self.r,
            offset=b * self.v_leak,
            v_init=self.v_init,
            has_current=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Integrator(_Parameters):
    """Pure integrator, never spikes: ``v' = r I``."""

    r: Array
    v_init: Array | None = None

    def step(self, dt_s: float) -> Step:
        """Return the Euler coefficients for a step of ``dt_s`` seconds."""
        return _step(keep_v=1.0, gain_v=dt_s * self.r, v_init=self.v_init)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Threshold(_Parameters):
    """Memoryless comparator: ``z = I > threshold``."""

    threshold: Array

    def step(self, dt_s: float) -> Step:
        """Return the coefficients; ``dt_s`` does not matter."""
        return _step(keep_v=0.0, gain_v=1.0, threshold=self.threshold)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Relay(_Parameters):
    """Passes its input on as a value: the network's inputs, and outputs that are plain sums."""

    def step(self, dt_s: float) -> Step:
        """Return the coefficients; ``dt_s`` does not matter."""
        return _step(keep_v=0.0, gain_v=1.0)


Neuron = LIF | IF | CubaLIF | LI | CubaLI | Integrator | Threshold | Relay
NEURON_TYPES: dict[str, type] = {
    cls.__name__: cls for cls in (LIF, IF, CubaLIF, LI, CubaLI, Integrator, Threshold, Relay)
}
