"""Quantization: a folded network in a target's integers, with the error of every tensor.

All fan-ins of a population share one scale (integer units per real unit), because they add in
one register. The scale is the largest at which every weight stays on the grid and threshold,
bias and reset stay in their registers. States are divided by their gain, so the gain never
touches a weight: thresholds and biases carry it.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np

from snn_deploy.engine.operators import chain_bias
from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.ir.arrays import Array, adopt, frozen
from snn_deploy.ir.network import Network, Population, Projection, per_neuron
from snn_deploy.ir.neurons import Relay, Step
from snn_deploy.ir.quantized import Arithmetic, QNetwork, QPopulation, TensorReport
from snn_deploy.ir.synapses import (
    LEARNED,
    Diagonal,
    Identity,
    Pool2d,
    Synapse,
    learned_size,
    with_weights,
)
from snn_deploy.passes.reach import reach
from snn_deploy.passes.scale import (
    choose_scale,
    fewest_bits,
    is_mixed,
    learned_of,
    real_weights,
    weight_grid,
)


def quantize(network: Network, arithmetic: Arithmetic, *, bits: int | None = None) -> QNetwork:
    """Return ``network`` (folded) in ``arithmetic``.

    bits: weight bits, from ``fewest_bits`` to the arithmetic's own width. Raises InputError for
    other bits; UnsupportedError, located, for what the arithmetic has no form of.
    """
    bits = arithmetic.weight_bits if bits is None else bits
    fewest = fewest_bits(arithmetic)
    if not fewest <= bits <= arithmetic.weight_bits:
        raise InputError(
            f"{arithmetic.name} stores weights of {fewest} to {arithmetic.weight_bits} bits",
            used=f"--bits {bits}",
            hint=f"choose --bits {fewest} to --bits {arithmetic.weight_bits}",
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
    pinned = network.grid is not None and network.grid.arithmetic == arithmetic.name
    if network.coding.kind == "direct" and not pinned:
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
    for projection in fan_in:
        _check_chain(network, projection)
    bias = _constant_current(network, fan_in)
    if bias is not None and step.has_current:
        raise UnsupportedError(
            "a bias into a neuron with a synaptic current has no register on this target",
            where=where,
            hint="train the layer without bias, or use LIF neurons",
        )
    gain = per_neuron(step.gain_u, population.shape) * per_neuron(step.gain_v, population.shape)
    if bool(np.any(gain <= 0)):
        raise UnsupportedError(
            "a neuron gain (r or w_in) is zero or negative",
            where=where,
            hint="fold its sign into the weights",
        )
    offset = per_neuron(step.offset, population.shape) / gain
    offset = offset if bias is None else bias + offset
    real_threshold = (
        None if step.threshold is None else per_neuron(step.threshold, population.shape) / gain
    )
    pinned = network.grid if network.grid and network.grid.arithmetic == arithmetic.name else None
    if pinned is not None:
        shift, scale = pinned.shift, pinned.scale
    else:
        expected = reach(network, population, step, offset)
        shift, scale = choose_scale(fan_in, arithmetic, bits, real_threshold, offset, expected)
    fine = scale * (1 << shift) / (1 << arithmetic.threshold_shift)
    # Floor keeps a strict comparison; numbers that came as integers are whole up to rounding.
    whole = np.floor if pinned is None else np.rint
    threshold = None if real_threshold is None else whole(real_threshold * fine).astype(np.int64)
    bias_scale = scale * (1 << shift) / (1 << arithmetic.bias_shift)
    int_bias = np.rint(offset * bias_scale).astype(np.int64)
    state_scale = scale * (1 << shift)
    # A comparator keeps nothing, so the reset that hardware always does changes only what is
    # recorded after a spike; recorded it must be, because the simulator records it.
    comparator = step.threshold is not None and step.reset == "none"
    q = QPopulation(
        name=population.name,
        scale=scale,
        shift=shift,
        decay_u=_code(per_neuron(step.keep_u, population.shape), arithmetic),
        decay_v=_code(per_neuron(step.keep_v, population.shape), arithmetic),
        threshold=None if threshold is None else _compact(threshold),
        bias=_compact(int_bias) if bool(np.any(offset)) else None,
        reset="value" if comparator else step.reset,
        v_reset=_compact(_round(step.v_reset, gain, state_scale, population)),
        reset_amount=_compact(_round(step.reset_amount, gain, state_scale, population)),
    )
    _check_registers(q, arithmetic, where)
    if pinned is not None:
        _check_exact(network, population, scale, bits, arithmetic)
    integer, reports = _weights(network, population, scale, arithmetic, bits, pinned is not None)
    return q, integer, reports


def _check_exact(
    network: Network, population: Population, scale: float, bits: int, arithmetic: Arithmetic
) -> None:
    """Raise where the integers that a file held are none of this arithmetic's."""
    for projection in network.into(population.name):
        real = real_weights(projection).astype(np.float64) * scale
        mixed = is_mixed(real)
        step, top = weight_grid(arithmetic, bits, mixed=mixed)
        # Two's complement has one more step below, and only weights of both signs use it.
        low = -top - step if mixed else -top
        off = (real != np.rint(real / step) * step) | (real < low) | (real > top)
        if learned_of(projection) is not None and bool(np.any(off)):
            raise UnsupportedError(
                f"a weight of the file is none that {arithmetic.name} stores in {bits} bits",
                where=network.where(projection.name),
                used=f"{float(real[off].flat[0]):g}, and {int(off.sum()) - 1} more; "
                f"steps of {step} up to {top}",
                hint="weights of both signs are even on Loihi: quantize the network again",
            )


def _compact(value: Array) -> Array:
    """Return one value where all are equal, so that per-neuron tables appear only where needed."""
    if value.size and bool(np.all(value == value.flat[0])):
        return frozen(np.int64(value.flat[0]))
    return frozen(value, np.int64)


def _round(value: Array, gain: Array, scale: float, population: Population) -> Array:
    return np.rint(per_neuron(value, population.shape) / gain * scale).astype(np.int64)


def _code(keep: Array, arithmetic: Arithmetic) -> Array:
    return _compact(np.rint((1 << arithmetic.decay_bits) * (1.0 - keep)).astype(np.int64))


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
    if bool(np.any(step.v_init != 0)):
        raise UnsupportedError(
            f"{arithmetic.name} starts every membrane at 0",
            where=where,
            used=f"v_init {float(np.max(np.abs(step.v_init))):g}",
            hint="train or convert from v = 0, or run it with --target cpu in float",
        )
    for projection in network.into(population.name):
        pre = projection.pre
        if pre not in network.inputs and network.step_of(pre).threshold is None:
            raise UnsupportedError(
                f"{pre} does not spike, and only spikes travel between integer populations",
                where=network.where(projection.name),
                hint="put a spiking population between them, or use --target cpu in float",
            )
        delay = int(np.max(projection.delay_steps))
        if delay > arithmetic.max_delay_steps:
            raise UnsupportedError(
                f"{arithmetic.name} delays by at most {arithmetic.max_delay_steps} steps",
                where=network.where(projection.name),
                used=f"{delay} of {arithmetic.max_delay_steps} steps",
                hint="shorten the delay, or insert a relay population",
            )


def _constant_current(network: Network, fan_in: tuple[Projection, ...]) -> Array | None:
    """Return the sum of all biases, float64 (N,), or None where they are absent or zero."""
    parts = [b for b in (chain_bias(network, p) for p in fan_in) if b is not None]
    total = np.sum(parts, axis=0) if parts else None
    return total if total is not None and bool(np.any(total)) else None


def _check_chain(network: Network, projection: Projection) -> None:
    where = network.where(projection.name)
    if sum(isinstance(s, LEARNED) for s in projection.synapses) > 1:
        raise UnsupportedError(
            "two learned layers follow each other without a neuron between them",
            where=where,
            hint="merge them into one layer, or put a neuron between them",
        )
    scales = [s.scale.size for s in projection.synapses if isinstance(s, Diagonal)]
    averages = any(isinstance(s, Pool2d) and s.kind == "avg" for s in projection.synapses)
    assert not averages, f"{where}: fold it first"
    if scales and learned_of(projection) is not None:
        raise UnsupportedError(
            "a per-neuron scale next to a convolution cannot be folded into its kernel",
            where=where,
            hint="use one scale for all neurons, or one per channel",
        )
    if len(scales) > 1 and max(scales) > 1:
        raise UnsupportedError(
            "several scales follow each other, and one differs between neurons",
            where=where,
            hint="multiply them into one Scale",
        )


def _weights(
    network: Network,
    population: Population,
    scale: float,
    arithmetic: Arithmetic,
    bits: int,
    exact: bool,
) -> tuple[list[Projection], list[TensorReport]]:
    projections: list[Projection] = []
    reports: list[TensorReport] = []
    for projection in network.into(population.name):
        integer, report = _tensor(projection, scale, arithmetic, bits, exact)
        learned = learned_of(projection)
        if report.nonzeros_before and not report.nonzeros_after:
            _all_zero(network.where(projection.name), report, helper=learned is None)
        if learned is None:
            chain = _helper_chain(projection, integer)
        else:
            reports.append(report)
            chain = tuple(
                with_weights(s, integer, None) if s is learned else s for s in projection.synapses
            )
        projections.append(replace(projection, synapses=chain))
    return projections, reports


def _all_zero(where: str, report: TensorReport, *, helper: bool) -> None:
    """Raise for a helper, whose connection would be cut; warn for learned weights."""
    used = f"largest weight {report.max_abs:g}, smallest step {1 / report.scale:g}"
    if helper:
        raise UnsupportedError(
            "a connection of fixed weight rounds to zero",
            where=where,
            used=used,
            hint="a threshold or bias of its neurons is too large for it: rescale the layer",
        )
    warnings.warn(f"{where}: every weight rounds to zero ({used})", SnnDeployWarning, 5)


def _helper_chain(projection: Projection, integer: Array) -> tuple[Synapse, ...]:
    """Return the chain of a helper (pool, relay) with its scales replaced by whole numbers."""
    chain = projection.synapses
    scales = [i for i, s in enumerate(chain) if isinstance(s, Diagonal)]
    rest = [s for s in chain if not isinstance(s, Diagonal | Identity)]
    if integer.size == 1:
        value = int(integer.flat[0])
        made: tuple[Synapse, ...] = (Diagonal(scale=frozen(np.int32(value))),)
        return (*rest, *(made if value != 1 else ())) or (Identity(),)
    return tuple(Diagonal(scale=integer) if i in scales else s for i, s in enumerate(chain))


def _tensor(
    projection: Projection, scale: float, arithmetic: Arithmetic, bits: int, exact: bool
) -> tuple[Array, TensorReport]:
    real = real_weights(projection).astype(np.float64)
    learned = learned_of(projection)
    step, top = weight_grid(arithmetic, bits, mixed=is_mixed(real))
    ideal = np.rint(real * (scale / step)) * step
    integer = np.rint(real * scale) if exact else np.clip(ideal, -top, top)
    error = np.abs(integer / scale - real)
    report = TensorReport(
        projection=projection.name,
        bits=bits,
        scale=scale,
        max_abs=float(np.max(np.abs(real), initial=0.0)),
        max_error=float(np.max(error, initial=0.0)),
        rms_error=math.sqrt(float(np.mean(error**2))) if error.size else 0.0,
        saturated=int(np.count_nonzero(integer != ideal)),
        nonzeros_before=int(np.count_nonzero(real)),
        nonzeros_after=int(np.count_nonzero(integer)),
        size=real.size if learned is None else learned_size(learned),
    )
    return adopt(integer.astype(np.int32)), report


def _check_registers(q: QPopulation, arithmetic: Arithmetic, where: str) -> None:
    """Raise where a value does not fit its register: the network's numbers are out of reach."""
    threshold_top = (1 << arithmetic.threshold_bits) - 1
    bias_top = (1 << (arithmetic.bias_bits - 1)) - 1
    if q.threshold is not None and (
        bool(np.any(q.threshold < 0)) or int(np.max(q.threshold)) > threshold_top
    ):
        low, high = int(np.min(q.threshold)), int(np.max(q.threshold))
        worst = low if low < 0 else high
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
            hint="train with smaller biases (weight decay), or without batch norm at this layer",
        )
    for label, value in (("v_reset", q.v_reset), ("reset amount", q.reset_amount)):
        low, high = int(np.min(value)), int(np.max(value))
        if low < arithmetic.state_min or high > arithmetic.state_max:
            raise UnsupportedError(
                f"the {label} lies outside the membrane's range",
                where=where,
                used=f"{low:,}..{high:,} of {arithmetic.state_min:,}..{arithmetic.state_max:,}",
                hint="reset to a value between the leak and the threshold",
            )
