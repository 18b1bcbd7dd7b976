"""What an arithmetic has no form of: located errors before and after its integers are chosen."""

from __future__ import annotations

import numpy as np

from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.network import Network, Population, Projection
from snn_deploy.ir.neurons import Relay, Step
from snn_deploy.ir.quantized import Arithmetic, QPopulation
from snn_deploy.ir.synapses import LEARNED, Diagonal, Pool2d
from snn_deploy.passes.scale import is_mixed, learned_of, real_weights, weight_grid


def check_form(
    network: Network, population: Population, step: Step, arithmetic: Arithmetic
) -> None:
    """Raise for neurons and delays that the arithmetic cannot express."""
    where = network.where(population.name)
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
    if not arithmetic.initial_state and bool(np.any(step.v_init != 0)):
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


def check_chain(network: Network, projection: Projection) -> None:
    """Raise for a folded chain whose weights are no single tensor."""
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


def check_exact(
    network: Network,
    fan_in: tuple[Projection, ...],
    scale: float,
    bits: int,
    arithmetic: Arithmetic,
) -> None:
    """Raise where the integers that a file held are none of this arithmetic's."""
    for projection in fan_in:
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


def check_registers(q: QPopulation, arithmetic: Arithmetic, where: str) -> None:
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
