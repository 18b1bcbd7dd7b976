"""Quantization: a folded network in a target's integers, with the error of every tensor.

All fan-ins of a population share one scale (integer units per real unit), because they add in
one register. The scale is the largest at which every weight stays on the grid and threshold,
bias and reset stay in their registers. States are divided by their gain, so the gain never
touches a weight: thresholds and biases carry it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.ir.arrays import Array, adopt, frozen
from snn_deploy.ir.network import Network, Population, Projection, per_neuron
from snn_deploy.ir.quantized import Arithmetic, Injection, QNetwork, QPopulation, TensorReport
from snn_deploy.ir.synapses import (
    Diagonal,
    Identity,
    Synapse,
    learned_size,
    with_weights,
)
from snn_deploy.passes.analogue import (
    AnalogueMode,
    analogue_into,
    constant_current,
    largest_current,
    with_levels,
)
from snn_deploy.passes.forms import check_chain, check_exact, check_form, check_registers
from snn_deploy.passes.reach import Reached, membrane_gain, reach
from snn_deploy.passes.scale import (
    Room,
    Scale,
    bits_of,
    choose_scale,
    fewest_bits,
    is_mixed,
    learned_of,
    real_weights,
    weight_grid,
)

#: How much further than observed a calibrated state may go before it meets its register's end.
MARGIN = 2.0


def quantize(
    network: Network,
    arithmetic: Arithmetic,
    *,
    bits: int | None = None,
    analogue: AnalogueMode | None = None,
    exponents: bool = False,
    observed: Mapping[str, Reached] | None = None,
) -> QNetwork:
    """Return ``network`` (folded) in ``arithmetic``.

    bits: weight bits, from ``fewest_bits`` to the arithmetic's own width. analogue: how values of
    a directly coded input enter: currents that the host adds up ("bias"), or whole numbers that
    spikes carry ("graded"); by default as the arithmetic prefers. exponents: let every layer have
    a weight exponent, for finer thresholds and biases, and not only where layers of unlike size
    meet. observed: how far each population's states go on samples (see calibrate.observe); times
    MARGIN it takes the place of the estimate from the weights. Raises InputError for other bits;
    UnsupportedError, located, for what the arithmetic has no form of.
    """
    bits = arithmetic.weight_bits if bits is None else bits
    fewest = fewest_bits(arithmetic)
    if not fewest <= bits <= arithmetic.weight_bits:
        raise InputError(
            f"{arithmetic.name} stores weights of {fewest} to {arithmetic.weight_bits} bits",
            used=f"--bits {bits}",
            hint=f"choose --bits {fewest} to --bits {arithmetic.weight_bits}",
        )
    analogue = analogue or preferred(arithmetic)
    _check_coding(network, arithmetic, analogue)
    real = network
    levels: dict[str, float] = {}
    if network.coding.kind == "direct" and analogue == "graded":
        network, levels = with_levels(network, arithmetic, bits)
    populations: dict[str, QPopulation] = {}
    projections: dict[str, Projection] = {}
    reports: list[TensorReport] = []
    injections: dict[str, Injection] = {}
    for population in network.computing():
        injected = () if levels else analogue_into(network, population.name)
        # A helper that a pass added was not observed, and is estimated.
        reached = None if observed is None else observed.get(population.name)
        q, scale, injection = _population(
            network, population, arithmetic, bits, injected, reached, finer=exponents
        )
        spiking = [p for p in network.into(population.name) if p not in injected]
        integer, tensors = _weights(network, spiking, scale, arithmetic, bits)
        level = {p.name: levels.get(p.pre, 1.0) for p in spiking}
        tensors = [_in_own_unit(t, level[t.projection]) for t in tensors]
        populations[population.name] = q
        projections.update({p.name: p for p in integer})
        reports += tensors
        if injection is not None:
            injections[population.name] = injection
    kept = tuple(projections[p.name] for p in network.projections if p.name in projections)
    return QNetwork(
        network=replace(network, projections=kept),
        arithmetic=arithmetic,
        populations=populations,
        tensors=tuple(reports),
        real=real,
        injections=injections,
        levels=levels,
        calibrated=observed is not None,
    )


def preferred(arithmetic: Arithmetic) -> AnalogueMode:
    """Return how values other than spikes enter unless somebody asks for another way."""
    return cast("AnalogueMode", next(iter(arithmetic.analogue), "bias"))


def _check_coding(network: Network, arithmetic: Arithmetic, analogue: AnalogueMode) -> None:
    if network.coding.kind == "direct" and not arithmetic.analogue:
        raise UnsupportedError(
            f"the {arithmetic.name} integers take spikes, and this network takes analogue input",
            where=network.where(network.inputs[0]),
            hint="train with --coding rate, or run it with --target cpu in float",
        )
    if network.coding.kind == "direct" and analogue not in arithmetic.analogue:
        raise UnsupportedError(
            f"the {arithmetic.name} integers have no form of analogue input called {analogue}",
            where=network.where(network.inputs[0]),
            hint=f"--analogue {' or '.join(arithmetic.analogue)}",
        )


def _population(
    network: Network,
    population: Population,
    arithmetic: Arithmetic,
    bits: int,
    injected: tuple[Projection, ...],
    reached: Reached | None,
    *,
    finer: bool,
) -> tuple[QPopulation, Scale, Injection | None]:
    """Return the integers of a population; ``injected``: the fan-in that the host adds up."""
    where = network.where(population.name)
    step = population.neuron.step(network.dt_s)
    spiking = tuple(p for p in network.into(population.name) if p not in injected)
    check_form(network, population, step, arithmetic)
    for projection in network.into(population.name):
        check_chain(network, projection)
    bias = constant_current(network, population.name)
    if bias is not None and step.has_current and not injected:
        raise UnsupportedError(
            "a bias into a neuron with a synaptic current has no register on this target",
            where=where,
            hint="train the layer without bias, or use LIF neurons",
        )
    gain = membrane_gain(population, step)
    if bool(np.any(gain <= 0)):
        raise UnsupportedError(
            "a neuron gain (r or w_in) is zero or negative",
            where=where,
            hint="fold its sign into the weights",
        )
    leak = per_neuron(step.offset, population.shape) / gain
    offset = leak if bias is None or step.has_current else bias + leak
    real_threshold = (
        None if step.threshold is None else per_neuron(step.threshold, population.shape) / gain
    )
    pinned = network.grid if network.grid and network.grid.arithmetic == arithmetic.name else None
    if pinned is not None:
        chosen = Scale(shift=pinned.shift, units=pinned.scale, exponents=(0,) * len(spiking))
    else:
        largest = np.abs(offset)
        if reached is None:
            room = Room(reach=reach(network, population, step, offset))
            largest = largest + largest_current(network, population, step, injected)
        else:
            room = Room(reach=MARGIN * reached.state, measured=True)
            largest = largest + (MARGIN * reached.current if injected else 0.0)
        chosen = choose_scale(spiking, arithmetic, bits, real_threshold, largest, room, finer=finer)
    shift, scale = chosen.shift, chosen.units
    state_scale = scale * (1 << shift)
    bias_scale = state_scale / (1 << arithmetic.bias_shift)
    fine = state_scale / (1 << arithmetic.threshold_shift)
    # Floor keeps a strict comparison; numbers that came as integers are whole up to rounding.
    whole = np.floor if pinned is None else np.rint
    threshold = None if real_threshold is None else whole(real_threshold * fine).astype(np.int64)
    int_bias = np.rint(offset * bias_scale).astype(np.int64)
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
        bias=_compact(int_bias) if bool(np.any(offset)) and not injected else None,
        reset="value" if comparator else step.reset,
        v_reset=_compact(_round(step.v_reset, gain, state_scale, population)),
        reset_amount=_compact(_round(step.reset_amount, gain, state_scale, population)),
        v_init=_compact(_round(step.v_init, gain, state_scale, population)),
    )
    check_registers(q, arithmetic, where)
    if pinned is not None:
        check_exact(network, spiking, scale, bits, arithmetic)
    if not injected:
        return q, chosen, None
    injection = Injection(
        projections=tuple(p.name for p in injected),
        bias=np.zeros(population.size) if bias is None else bias,
        keep=per_neuron(step.keep_u, population.shape) if step.has_current else None,
        leak=leak,
        scale=bias_scale,
    )
    return q, chosen, injection


def _compact(value: Array) -> Array:
    """Return one value where all are equal, so that per-neuron tables appear only where needed."""
    if value.size and bool(np.all(value == value.flat[0])):
        return frozen(np.int64(value.flat[0]))
    return frozen(value, np.int64)


def _round(value: Array, gain: Array, scale: float, population: Population) -> Array:
    return np.rint(per_neuron(value, population.shape) / gain * scale).astype(np.int64)


def _code(keep: Array, arithmetic: Arithmetic) -> Array:
    return _compact(np.rint((1 << arithmetic.decay_bits) * (1.0 - keep)).astype(np.int64))


def _weights(
    network: Network,
    fan_in: Sequence[Projection],
    scale: Scale,
    arithmetic: Arithmetic,
    bits: int,
) -> tuple[list[Projection], list[TensorReport]]:
    exact = network.grid is not None and network.grid.arithmetic == arithmetic.name
    projections: list[Projection] = []
    reports: list[TensorReport] = []
    for projection, exponent in zip(fan_in, scale.exponents, strict=True):
        grid = (bits_of(projection, arithmetic, bits), exponent)
        integer, report = _tensor(projection, scale.units, arithmetic, grid, exact)
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


def _in_own_unit(report: TensorReport, level: float) -> TensorReport:
    """Return a report of weights that were divided by ``level`` in the weights' own unit."""
    return replace(
        report,
        scale=report.scale / level,
        max_abs=report.max_abs * level,
        max_error=report.max_error * level,
        rms_error=report.rms_error * level,
    )


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
    projection: Projection,
    scale: float,
    arithmetic: Arithmetic,
    grid: tuple[int, int],
    exact: bool,
) -> tuple[Array, TensorReport]:
    """Return weights on the grid of (bits, exponent), and what that did to them."""
    real = real_weights(projection).astype(np.float64)
    learned = learned_of(projection)
    bits, exponent = grid
    step, top = (n << exponent for n in weight_grid(arithmetic, bits, mixed=is_mixed(real)))
    ideal = np.rint(real * (scale / step)) * step
    integer = np.rint(real * scale) if exact else np.clip(ideal, -top, top)
    error = np.abs(integer / scale - real)
    report = TensorReport(
        projection=projection.name,
        bits=bits,
        scale=scale / (1 << exponent),
        exponent=exponent,
        max_abs=float(np.max(np.abs(real), initial=0.0)),
        max_error=float(np.max(error, initial=0.0)),
        rms_error=math.sqrt(float(np.mean(error**2))) if error.size else 0.0,
        saturated=int(np.count_nonzero(integer != ideal)),
        nonzeros_before=int(np.count_nonzero(real)),
        nonzeros_after=int(np.count_nonzero(integer)),
        size=real.size if learned is None else learned_size(learned),
    )
    return adopt(integer.astype(np.int32)), report
