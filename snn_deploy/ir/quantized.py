"""Arithmetic: one target's numbers; QNetwork: a network in them.

After the division of every state by its gain, each population is, in integers,

    u_t = decay(u_{t-1}) + (sum_t << shift)     wraps
    v_t = decay(v_{t-1}) + u_t + bias           saturates
    z_t = v_t > threshold; reset

sum_t is exact: no order of events matters. decay(x) = x (2^bits - code) / 2^bits, rounded toward
zero. ``engine/fixed`` interprets these fields and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from snn_deploy.ir.arrays import Array, frozen
from snn_deploy.ir.network import MEMBRANE_READOUTS, Network, Population, per_neuron


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """Widths and steps of one target's integers.

    name: as in ``--arithmetic``. weight_bits: stored width. weight_grid: "symmetric"
    (-(2^(b-1)-1) .. 2^(b-1)-1), or "loihi" (a magnitude grid that spans -256..256, whose step
    depends on the signs present: 2^(9-b) mixed, 2^(8-b) of one sign; at 1 bit 128 for both).
    shift_bits: (least, most) left shift of weights into the state. current: whether a synaptic
    current register exists; it wraps at state_bits. state_min, state_max: range of v.
    decay_bits: of the share that a state loses in a step. threshold_shift, bias_shift: the stored
    value's left shift into the state's unit. threshold_bits unsigned, bias_bits signed.
    resets: kinds the target has.
    hop_steps: latency per synapse layer. max_delay_steps: most extra steps a projection has.
    max_exponent: most bits by which a projection's summed weights can be shifted left.
    analogue: how values other than spikes can enter (see QNetwork), by preference.
    initial_state: whether a membrane can start elsewhere than at 0.
    """

    name: str
    weight_bits: int
    weight_grid: Literal["symmetric", "loihi"]
    shift_bits: tuple[int, int]
    state_bits: int
    state_min: int
    state_max: int
    current: bool
    decay_bits: int
    threshold_bits: int
    threshold_shift: int
    bias_bits: int
    bias_shift: int
    resets: tuple[str, ...]
    hop_steps: int
    max_delay_steps: int
    max_exponent: int
    analogue: tuple[str, ...]
    initial_state: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QPopulation:
    """Integer parameters of one population; arrays are int64, 0-d or (N,).

    scale: integer weight units per real unit of input current. shift: of weights into v.
    decay_u, decay_v: codes 0..2^decay_bits, the share that is lost in a step. threshold: None
    for a population that never spikes. threshold and bias are in stored units (see
    Arithmetic.threshold_shift, bias_shift); v_reset, reset_amount and v_init in state units.
    """

    name: str
    scale: float
    shift: int
    decay_u: Array
    decay_v: Array
    threshold: Array | None
    bias: Array | None
    reset: Literal["value", "subtract", "none"]
    v_reset: Array
    reset_amount: Array
    v_init: Array = field(default_factory=lambda: frozen(np.int64(0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorReport:
    """What quantization did to one learned tensor.

    scale: stored units per real unit; exponent: bits by which they are shifted left. max_error:
    largest |real - integer/scale|, in real units; max_abs: largest |real|. saturated: values that
    met the grid's end. nonzeros before and after: rounding makes zeros.
    """

    projection: str
    bits: int
    scale: float
    exponent: int
    max_abs: float
    max_error: float
    rms_error: float
    saturated: int
    nonzeros_before: int
    nonzeros_after: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Injection:
    """Currents of analogue input that the host computes and adds to membranes in every step.

    projections: of the real network, by name. bias: what adds to them, (N,). keep: what a synaptic
    current keeps of itself in a step, (N,), None without one. leak: what reaches the membrane all
    the same, (N,). Both are in units of current; scale: bias units (see Arithmetic.bias_shift) per
    unit of current.
    """

    projections: tuple[str, ...]
    bias: Array
    keep: Array | None
    leak: Array
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QNetwork:
    """A folded network whose learned weights are int32, and the integers of its populations.

    Weights have their exponents applied: those stored are fewer by as many bits.
    real: the network before. Where its input is analogue, injections say for which populations
    the host adds up currents (their projections are not in ``network``), and levels by how much
    it multiplies the values of an input before it sends them as whole numbers. calibrated:
    whether samples set how far states go, or an estimate from the weights.
    """

    network: Network
    arithmetic: Arithmetic
    populations: Mapping[str, QPopulation]
    tensors: tuple[TensorReport, ...]
    real: Network
    injections: Mapping[str, Injection] = field(default_factory=dict)
    levels: Mapping[str, float] = field(default_factory=dict)
    calibrated: bool = False

    @property
    def exponents(self) -> Mapping[str, int]:
        """Return the exponents of projections, by name, where they are not 0."""
        return {t.projection: t.exponent for t in self.tensors if t.exponent}

    def computing(self) -> tuple[Population, ...]:
        """Return the populations that integrate, in order."""
        return tuple(self.network.computing())

    def readout_values(self, values: Array) -> Array:
        """Return the output's recorded values (samples, steps, n) as the readout compares them.

        An integer membrane is divided by its neuron's gain. Where gains differ, so do the units of
        the membranes, and the host that reads them multiplies each by its gain again.
        """
        if self.real.readout.kind not in MEMBRANE_READOUTS:
            return values
        gains = [
            per_neuron(step.gain_u, shape) * per_neuron(step.gain_v, shape)
            for step, shape in (
                (self.real.step_of(name), self.real.shapes[name]) for name in self.real.outputs
            )
        ]
        gain = np.concatenate(gains)
        return values if bool(np.all(gain == gain[0])) else values * gain
