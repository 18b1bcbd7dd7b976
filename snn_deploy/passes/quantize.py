"""Quantization: a folded network in a target's integers, with the error of every tensor.

All fan-ins of a population share one scale (integer units per real unit), because they add in
one register. The scale is the largest at which every weight stays on the grid and threshold,
bias and reset stay in their registers. States are divided by their gain, so the gain never
touches a weight: thresholds and biases carry it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.ir.arrays import Array, adopt, frozen
from snn_deploy.ir.network import Network, Population, Projection, per_neuron
from snn_deploy.ir.neurons import Relay, Step
from snn_deploy.ir.quantized import Arithmetic, QNetwork, QPopulation, TensorReport
from snn_deploy.ir.synapses import LEARNED, Identity, Synapse, weights_of, with_weights

_HEADROOM_BITS = 3  # a state may reach 8 thresholds before it meets its end


def weight_grid(arithmetic: Arithmetic, bits: int, *, mixed: bool) -> tuple[int, int]:
    """Return (step, largest magnitude) of the integer grid for a tensor of these signs."""
    if arithmetic.weight_grid == "symmetric":
        return 1, (1 << (bits - 1)) - 1
    step = 1 << (8 - bits + int(mixed))
    return step, 256 - step


def quantize(network: Network, arithmetic: Arithmetic, *, bits: int | None = None) -> QNetwork:
    """Return ``network`` (folded) in ``arithmetic``.

    bits: weight bits, 2 to the arithmetic's own width (1 too on a one-sign grid). Raises
    UnsupportedError, located, for what the arithmetic has no form of.
    """
    bits = arithmetic.weight_bits if bits is None else bits
    if not 2 <= bits <= arithmetic.weight_bits:
        raise InputError(
            f"{arithmetic.name} stores weights of 2 to {arithmetic.weight_bits} bits",
            used=f"--bits {bits}",
            hint=f"choose --bits 2 to --bits {arithmetic.weight_bits}",
        )
    _check_coding(network, arithmetic)
    populations: dict[str, QPopulation] = {}
    projections: dict[str, Projection] = {}
    reports: list[TensorReport] = []
    for population in network.computing():
        q, integer, tensors = _population(network, population, arithmetic, bits)
        populations[population.name] = q
        projections.update({p.name: p for p in integer})
        reports += tensors
    quantized = replace(
        network, projections=tuple(projections[p.name] for p in network.projections)
    )
    return QNetwork(
        network=quantized,
        arithmetic=arithmetic,
        populations=populations,
        tensors=tuple(reports),
        real=network,
    )


def _check_coding(network: Network, arithmetic: Arithmetic) -> None:
    if network.coding.kind == "direct":
        raise UnsupportedError(
            f"the {arithmetic.name} integers take spikes, and this network takes analogue input",
            where=network.where(network.inputs[0]),
            hint="train with --coding rate, or run it with --target cpu in float",
        )


def _population(
    network: Network, population: Population, arithmetic: Arithmetic, bits: int
) -> tuple[QPopulation, list[Projection], list[TensorReport]]:
    where = network.where(population.name)
    step = population.neuron.step(network.dt_s)
    fan_in = network.into(population.name)
    _check_form(network, population, step, arithmetic, where)
    bias, has_bias = _constant_current(network, population, fan_in)
    if has_bias and step.has_current:
        raise UnsupportedError(
            "a bias into a neuron with a synaptic current has no register on this target",
            where=where,
            hint="train the layer without bias, or use LIF neurons",
        )
    gain = per_neuron(step.gain_u * step.gain_v, population.shape)
    if bool(np.any(gain <= 0)):
        raise UnsupportedError(
            "a neuron gain (r or w_in) is zero or negative", where=where, hint="fold its sign into the weights"
        )
    offset = bias + per_neuron(step.offset, population.shape) / gain
    real_threshold = (
        None if step.threshold is None else per_neuron(step.threshold, population.shape) / gain
    )
    shift, scale = _choose_scale(fan_in, arithmetic, bits, real_threshold, offset, where)
    fine = scale * (1 << shift) / (1 << arithmetic.threshold_shift)
    threshold = None if real_threshold is None else np.floor(real_threshold * fine).astype(np.int64)
    bias_scale = scale * (1 << shift) / (1 << arithmetic.bias_shift)
    int_bias = np.rint(offset * bias_scale).astype(np.int64)
    state_scale = scale * (1 << shift)
    # A comparator keeps nothing, so the reset that hardware always does changes only what is
    # recorded after a spike; recorded it must be, because the simulator records it.
    memoryless = step.threshold is not None and step.reset == "none"
    q = QPopulation(
        name=population.name,
        scale=scale,
        shift=shift,
        decay_u=_code(step.keep_u, step.has_current, arithmetic),
        decay_v=_code(step.keep_v, True, arithmetic),
        threshold=None if threshold is None else _compact(threshold),
        bias=_compact(int_bias) if has_bias or bool(np.any(int_bias)) else None,
        reset="value" if memoryless else step.reset,
        v_reset=_compact(_round(step.v_reset, gain, state_scale, population)),
        reset_amount=_compact(_round(step.reset_amount, gain, state_scale, population)),
    )
    _check_registers(q, arithmetic, where)
    integer, reports = _weights(fan_in, scale, arithmetic, bits)
    return q, integer, reports


def _compact(value: Array) -> Array:
    """Return one value where all are equal, so that per-neuron tables appear only where needed."""
    if value.size and bool(np.all(value == value.flat[0])):
        return frozen(np.int64(value.flat[0]))
    return frozen(value, np.int64)


def _round(value: Array, gain: Array, scale: float, population: Population) -> Array:
    return np.rint(per_neuron(value, population.shape) / gain * scale).astype(np.int64)


def _code(keep: Array, used: bool, arithmetic: Arithmetic) -> Array:
    full = 1 << arithmetic.decay_bits
    return _compact(np.rint(full * (1.0 - np.asarray(keep))).astype(np.int64)) if used else frozen(
        np.int64(full)
    )


def _check_form(
    network: Network, population: Population, step: Step, arithmetic: Arithmetic, where: str
) -> None:
    if isinstance(population.neuron, Relay):
        raise UnsupportedError(
            "the network ends in plain sums, which no spiking target outputs",
            where=where,
            hint="end it in a spiking or a leaky-integrator population",
        )
    if step.has_current and not arithmetic.current:
        raise UnsupportedError(
            f"{arithmetic.name} has no synaptic-current state (CubaLIF, CubaLI)",
            where=where,
            hint="use LIF neurons, or --target loihi",
        )
    if step.reset not in (*arithmetic.resets, "none"):
        raise UnsupportedError(
            f"{arithmetic.name} has no {step.reset} reset",
            where=where,
            hint="train with value reset at 0 (reset='value', v_reset=0)",
        )
    if arithmetic.zero_reset_only and step.reset == "value" and bool(np.any(step.v_reset != 0)):
        raise UnsupportedError(
            f"{arithmetic.name} resets to 0 only",
            where=where,
            used=f"v_reset {float(np.max(np.abs(step.v_reset))):g}",
            hint="train with v_reset=0",
        )
    for projection in network.into(population.name):
        delay = int(np.max(projection.delay_steps))
        if delay > arithmetic.max_delay_steps:
            raise UnsupportedError(
                f"{arithmetic.name} delays by at most {arithmetic.max_delay_steps} steps",
                where=network.where(projection.name),
                used=f"{delay} of {arithmetic.max_delay_steps} steps",
                hint="shorten the delay, or insert a relay population",
            )


def _constant_current(
    network: Network, population: Population, fan_in: tuple[Projection, ...]
) -> tuple[Array, bool]:
    from snn_deploy.engine.operators import chain_bias

    parts = [b for b in (chain_bias(network, p) for p in fan_in) if b is not None]
    return sum(parts, start=np.zeros(population.size)), bool(parts)


def _learned(projection: Projection) -> list[int]:
    return [i for i, s in enumerate(projection.synapses) if isinstance(s, LEARNED)]


def _real_weights(projection: Projection) -> list[Array]:
    learned = _learned(projection)
    if not learned:
        return [np.ones(1)]
    return [weights_of(projection.synapses[i]) for i in learned]  # type: ignore[misc]


def _choose_scale(
    fan_in: tuple[Projection, ...],
    arithmetic: Arithmetic,
    bits: int,
    threshold: Array | None,
    offset: Array,
    where: str,
) -> tuple[int, float]:
    """Return (shift, scale): as fine as weights, threshold, bias and headroom allow."""
    limits: list[float] = []
    exact = True
    for projection in fan_in:
        if len(_learned(projection)) > 1:
            raise UnsupportedError(
                "two learned layers follow each other without a neuron between them",
                where=where,
                hint="merge them into one layer, or put a neuron between them",
            )
        for weights in _real_weights(projection):
            largest = float(np.max(np.abs(weights), initial=0.0))
            mixed = bool(np.any(weights > 0)) and bool(np.any(weights < 0))
            grid_step, top = weight_grid(arithmetic, bits, mixed=mixed)
            exact &= _on_unit_grid(weights, top // grid_step)
            if largest > 0:
                limits.append(top / largest)
    scale = min(limits, default=1.0)
    if any(not _learned(projection) for projection in fan_in):
        # A relay's weight of one becomes the scale itself, and must be a whole number.
        scale = float(max(1, math.floor(scale)))
    if exact and fan_in:
        # Small integer weights (pools, relays, tests on a grid) need no finer unit than their own.
        unit = max(
            weight_grid(arithmetic, bits, mixed=bool(np.any(w > 0)) and bool(np.any(w < 0)))[0]
            for p in fan_in
            for w in _real_weights(p)
        )
        scale = float(unit)
    state_top = arithmetic.state_max >> _HEADROOM_BITS
    reach = float(np.max(np.abs(threshold), initial=0.0)) if threshold is not None else 0.0
    reach = max(reach, float(np.max(np.abs(offset), initial=0.0)))
    least, most = arithmetic.shift_bits
    threshold_top = min(
        state_top, ((1 << arithmetic.threshold_bits) - 1) << arithmetic.threshold_shift
    )
    bias_top = ((1 << (arithmetic.bias_bits - 1)) - 1) << arithmetic.bias_shift
    top_state = min(threshold_top, bias_top) if np.any(offset) else threshold_top
    shift = most
    while shift > least and reach * scale * (1 << shift) > top_state:
        shift -= 1
    if reach * scale * (1 << shift) > top_state:
        scale = top_state / (reach * (1 << shift))
    return shift, scale


def _on_unit_grid(weights: Array, top: int) -> bool:
    return bool(np.all(weights == np.rint(weights))) and float(
        np.max(np.abs(weights), initial=0.0)
    ) <= top


def _weights(
    fan_in: tuple[Projection, ...], scale: float, arithmetic: Arithmetic, bits: int
) -> tuple[list[Projection], list[TensorReport]]:
    projections: list[Projection] = []
    reports: list[TensorReport] = []
    for projection in fan_in:
        chain: list[Synapse] = list(projection.synapses)
        for i in _learned(projection):
            weights = weights_of(chain[i])
            assert weights is not None
            integer, report = _tensor(projection.name, weights, scale, arithmetic, bits)
            chain[i] = with_weights(chain[i], adopt(integer), None)
            reports.append(replace(report, size=_size(projection.synapses[i])))
        if not _learned(projection):
            chain = _unit_chain(chain, scale)
        projections.append(replace(projection, synapses=tuple(chain)))
    return projections, reports


def _size(synapse: Synapse) -> int:
    from snn_deploy.ir.synapses import learned_size

    return learned_size(synapse)


def _unit_chain(chain: list[Synapse], scale: float) -> list[Synapse]:
    """Give a helper projection (pool, relay) the integer weight that its scale asks for."""
    from snn_deploy.ir.synapses import Diagonal

    value = round(scale)
    rest = [s for s in chain if not isinstance(s, Identity)]
    if value == 1:
        return chain
    return [*rest, Diagonal(scale=np.array(value, np.int32))]


def _tensor(
    name: str, weights: Array, scale: float, arithmetic: Arithmetic, bits: int
) -> tuple[Array, TensorReport]:
    real = weights.astype(np.float64)
    mixed = bool(np.any(real > 0)) and bool(np.any(real < 0))
    step, top = weight_grid(arithmetic, bits, mixed=mixed)
    ideal = np.rint(real * (scale / step)) * step
    integer = np.clip(ideal, -top, top)
    error = np.abs(integer / scale - real)
    report = TensorReport(
        projection=name,
        bits=bits,
        scale=scale,
        max_abs=float(np.max(np.abs(real), initial=0.0)),
        max_error=float(np.max(error, initial=0.0)),
        rms_error=math.sqrt(float(np.mean(error**2))) if error.size else 0.0,
        saturated=int(np.count_nonzero(integer != ideal)),
        nonzeros_before=int(np.count_nonzero(real)),
        nonzeros_after=int(np.count_nonzero(integer)),
        size=int(weights.size),
    )
    return integer.astype(np.int32), report


def _check_registers(q: QPopulation, arithmetic: Arithmetic, where: str) -> None:
    """Raise where a value does not fit its register: the network's numbers are out of reach."""
    threshold_top = (1 << arithmetic.threshold_bits) - 1
    bias_top = (1 << (arithmetic.bias_bits - 1)) - 1
    if q.threshold is not None and (
        bool(np.any(q.threshold < 0)) or int(np.max(q.threshold)) > threshold_top
    ):
        worst = int(q.threshold.flat[int(np.argmax(np.abs(q.threshold)))])
        raise UnsupportedError(
            "a threshold does not fit its register",
            where=where,
            used=f"{worst:,}, range 0..{threshold_top:,}",
            hint="thresholds must be positive and comparable to the weights; rescale the layer",
        )
    if q.bias is not None and int(np.max(np.abs(q.bias))) > bias_top:
        raise UnsupportedError(
            "a bias does not fit its register",
            where=where,
            used=f"{int(np.max(np.abs(q.bias))):,} of {bias_top:,}",
            hint="train with smaller biases (weight decay), or without batch norm before this layer",
        )
