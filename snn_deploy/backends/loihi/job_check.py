"""The limits of Lava's fixed-point models, checked before it starts.

Lava accepts out-of-range parameters and wraps, floors or hangs on them, so every limit is
enforced here, with the population or projection named.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from snn_deploy.backends.loihi.job import (
    BIAS_EXP_RANGE,
    BIAS_RANGE,
    CONV_WEIGHT_RANGE,
    CURRENT_RANGE,
    DELAY_RANGE,
    DU_RANGE,
    DV_RANGE,
    GEOMETRY_LIMIT,
    MAX_CONV_SUM,
    MAX_INPUT,
    STATE_RANGE,
    VTH_RANGE,
    WEIGHT_EXP_RANGE,
    ConvJob,
    DenseJob,
    JobInput,
    JobPopulation,
    LavaJob,
    SparseJob,
    weight_limits,
)
from snn_deploy.errors import InputError, SnnDeployError, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from snn_deploy.backends.loihi.job import IntArray


def check_job(job: LavaJob) -> None:
    """Raise if Lava would not simulate exactly what ``job`` says.

    InputError: arrays whose shapes or values do not belong together. UnsupportedError: a
    value outside Lava's range, or spikes that arrive before their step or in the next sample.
    """
    fed = bool(job.inputs) or any(p.currents is not None for p in job.populations)
    if not fed or not job.populations:
        raise InputError("a Lava job needs at least one input and one population")
    if job.side_by_side < 1:
        raise InputError("at least one sample runs at a time", used=str(job.side_by_side))
    if not job.samples or not job.steps:
        raise InputError(
            "nothing to run: at least one sample and one step are needed",
            used=f"{job.samples} samples, {job.steps} steps",
        )
    nodes: dict[str, JobInput | JobPopulation] = {}
    for node in _nodes(job):
        if node.name in nodes:
            raise InputError("two populations have the same name", where=node.name)
        if len(node.shape) not in (1, 3) or min(node.shape) < 1:
            raise UnsupportedError(
                "a population's shape on Loihi is (n,) or (C, H, W)",
                where=node.name,
                used=f"{node.shape}",
            )
        nodes[node.name] = node
    for source in job.inputs:
        _check_input(source, job)
    for population in job.populations:
        _check_population(population, job)
    drives = {p.name: np.zeros((2, math.prod(p.shape)), np.int64) for p in job.populations}
    for projection in job.projections:
        drive = _check_projection(projection, nodes, job.gap)
        drives[projection.post] += drive
    for name, drive in drives.items():
        amount = int(drive.max())
        if amount > MAX_INPUT:
            raise UnsupportedError(
                "the summed input of one step can overflow Lava's 32-bit intermediates",
                where=name,
                used=f"up to {amount} of {MAX_INPUT}",
                hint="lower the weights or the weight exponent, or prune the layer's fan-in",
            )
    for name in job.recorded:
        if name not in drives:
            raise InputError("a population that is to be recorded does not exist", where=name)


def _nodes(job: LavaJob) -> tuple[JobInput | JobPopulation, ...]:
    return (*job.inputs, *job.populations)


def _check_input(source: JobInput, job: LavaJob) -> None:
    spikes = source.spikes
    expected = (job.samples, job.steps, math.prod(source.shape))
    if spikes.shape != expected:
        raise InputError(
            "input spikes must be (samples, steps, n), alike for all inputs",
            where=source.name,
            used=f"{spikes.shape}, expected {expected}",
        )
    if source.graded:
        _check_range(spikes, STATE_RANGE, "graded spikes", source.name)
    elif spikes.dtype != np.uint8 or (spikes.size and int(spikes.max()) > 1):
        raise InputError("input spikes must be uint8 of 0 and 1", where=source.name)


def _check_population(population: JobPopulation, job: LavaJob) -> None:
    n = math.prod(population.shape)
    if population.depth < 0:
        raise InputError(
            "a population's depth is at least 0", where=population.name, used=str(population.depth)
        )
    currents = population.currents
    if currents is not None:
        if currents.shape != (job.samples, job.steps, n):
            raise InputError(
                "currents must be (samples, steps, n)",
                where=population.name,
                used=f"{currents.shape}, expected {(job.samples, job.steps, n)}",
            )
        _check_range(currents, CURRENT_RANGE, "injected current", population.name)
    fields = (
        ("du", population.du, DU_RANGE, "current decay du"),
        ("dv", population.dv, DV_RANGE, "membrane decay dv"),
        ("vth", population.vth, VTH_RANGE, "threshold vth"),
        ("bias", population.bias, BIAS_RANGE, "bias"),
        ("bias_exp", population.bias_exp, BIAS_EXP_RANGE, "bias exponent"),
        ("v_reset", population.v_reset, STATE_RANGE, "reset value"),
        ("reset_amount", population.reset_amount, (0, STATE_RANGE[1]), "reset amount"),
        ("v_init", population.v_init, STATE_RANGE, "initial membrane"),
    )
    for field, value, limits, label in fields:
        if value is None:
            continue
        array = np.asarray(value)
        if array.ndim and (field == "bias_exp" or array.shape != (n,)):
            raise InputError(
                f"{label} must be one integer or one per neuron",
                where=population.name,
                used=f"shape {array.shape} for {n} neurons",
            )
        _check_range(array, limits, label, population.name)


def _check_projection(
    projection: DenseJob | SparseJob | ConvJob,
    nodes: dict[str, JobInput | JobPopulation],
    gap: int,
) -> NDArray[np.int64]:
    """Return the largest input of either sign (2, n post); spikes may come ``gap`` steps late."""
    where = f"{projection.pre} -> {projection.post}"
    pre, post = nodes.get(projection.pre), nodes.get(projection.post)
    if pre is None or not isinstance(post, JobPopulation):
        raise InputError("a projection joins populations that do not exist", where=where)
    delay = np.asarray(projection.delay)
    _check_range(delay, DELAY_RANGE, "delay", where)
    if delay.ndim and (
        not isinstance(projection, SparseJob) or delay.shape != projection.weight.data.shape
    ):
        raise InputError(
            "delays are one for all synapses, or one per stored weight",
            where=where,
            used=f"shape {delay.shape}",
        )
    arrivals = pre.depth + 1 + delay
    if bool(np.any((arrivals < post.depth) | (arrivals > post.depth + gap))):
        raise UnsupportedError(
            "spikes arrive at the wrong step: every synapse takes one step on Loihi",
            where=where,
            used=f"arrive {_span(arrivals)} steps after the input, "
            f"expected {_span(np.array([post.depth, post.depth + gap]))}",
            hint="pad the shorter path with a delay or a relay population",
        )
    try:
        if isinstance(projection, ConvJob):
            drive = _check_conv(projection, pre, post)
        else:
            drive = _check_matrix(projection, pre, post)
    except SnnDeployError as error:
        raise error.located(where) from None
    if not isinstance(pre, JobInput) or not pre.graded:
        return drive
    low, high = int(pre.spikes.min(initial=0)), int(pre.spikes.max(initial=0))
    return drive * high - drive[::-1] * low


def _check_matrix(
    projection: DenseJob | SparseJob, pre: JobInput | JobPopulation, post: JobPopulation
) -> NDArray[np.int64]:
    weight = projection.weight
    expected = (math.prod(post.shape), math.prod(pre.shape))
    if weight.shape != expected:
        raise InputError(
            "weights must be (n_post, n_pre)", used=f"{weight.shape}, expected {expected}"
        )
    _check_range(np.asarray(projection.weight_exp), WEIGHT_EXP_RANGE, "weight exponent", None)
    if isinstance(projection, DenseJob):
        values, first = projection.weight, np.arange(expected[0]) * expected[1]
    else:
        values, first = projection.weight.data, projection.weight.indptr[:-1]
    if isinstance(projection, SparseJob) and projection.free:
        _check_range(values, CONV_WEIGHT_RANGE, "convolution weight", None)
    else:
        _check_grid(values)
    return _drive(values, first) << max(projection.weight_exp, 0)


def _drive(values: IntArray, first: IntArray) -> NDArray[np.int64]:
    """Return the sums of positive weights and of negative ones, (2, rows) of magnitudes.

    Rows start at ``first`` in ``values``.
    """
    # One more entry, a zero, lets the last row be empty.
    flat = np.append(values.reshape(-1).astype(np.int64), 0)
    filled = np.diff(first, append=values.size) > 0
    sums = [np.add.reduceat(np.maximum(part, 0), first) for part in (flat, -flat)]
    return np.where(filled, sums, 0)


def _check_grid(values: IntArray) -> None:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    mode = "excitatory" if low >= 0 else "inhibitory" if high <= 0 else "mixed-sign"
    _check_range(values, weight_limits(low, high, dense=True), f"{mode} weight", None)
    if mode == "mixed-sign" and bool(np.any(values & 1)):
        raise UnsupportedError(
            "mixed-sign weights must be even: Lava floors odd ones to 8 bits",
            used=f"{int(np.count_nonzero(values & 1))} odd weights",
            hint="quantize this layer in steps of 2",
        )


def _check_conv(
    projection: ConvJob, pre: JobInput | JobPopulation, post: JobPopulation
) -> NDArray[np.int64]:
    weight, groups = projection.weight, projection.groups
    if weight.ndim != 4 or len(pre.shape) != 3 or len(post.shape) != 3:
        raise InputError(
            "a convolution needs (O, I, kH, kW) weights between (C, H, W) populations",
            used=f"weight {weight.shape}, {pre.shape} to {post.shape}",
        )
    kernel = weight.shape[2:]
    geometry = (*kernel, *projection.stride, *projection.padding, *projection.dilation)
    smallest = (1, 1, 1, 1, 0, 0, 1, 1)
    if any(not low <= g <= GEOMETRY_LIMIT for g, low in zip(geometry, smallest, strict=True)):
        raise UnsupportedError(
            "kernel, stride, padding and dilation must each fit Lava's int8",
            used=f"{geometry}, largest allowed {GEOMETRY_LIMIT}",
        )
    if groups < 1 or pre.shape[0] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise InputError(
            "channels and groups disagree",
            used=f"weight {weight.shape}, {groups} groups, input {pre.shape}",
        )
    size = [
        (pre.shape[1 + i] + 2 * projection.padding[i] - projection.dilation[i] * (kernel[i] - 1))
        for i in (0, 1)
    ]
    expected = (
        weight.shape[0],
        *((size[i] - 1) // projection.stride[i] + 1 if size[i] > 0 else 0 for i in (0, 1)),
    )
    if post.shape != expected or min(expected) < 1:
        raise InputError("the convolution's output has another shape", used=f"{expected}")
    _check_range(weight, CONV_WEIGHT_RANGE, "convolution weight", None)
    exponent = projection.weight_exp
    _check_range(np.asarray(exponent), (0, WEIGHT_EXP_RANGE[1]), "weight exponent", None)
    drive = _drive(weight, np.arange(weight.shape[0]) * weight[0].size) << exponent
    worst = int(drive.max())
    if worst > MAX_CONV_SUM:
        raise UnsupportedError(
            "the sum of a convolution can leave the 24 bits that Lava keeps of it",
            used=f"up to {worst} of {MAX_CONV_SUM}",
            hint="prune the layer, or lower its weights",
        )
    return np.repeat(drive, math.prod(post.shape[1:]), axis=1)


def _check_range(
    values: NDArray[np.generic], limits: tuple[int, int], label: str, where: str | None
) -> None:
    if values.dtype.kind not in "iu":
        raise InputError(f"{label} must be integers", where=where, used=str(values.dtype))
    if not values.size:
        return
    low, high = int(values.min()), int(values.max())
    if low < limits[0] or high > limits[1]:
        raise UnsupportedError(
            f"{label} outside Loihi's range",
            where=where,
            used=f"{_span(values)}, allowed {limits[0]} to {limits[1]}",
        )


def _span(values: NDArray[np.generic]) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"
