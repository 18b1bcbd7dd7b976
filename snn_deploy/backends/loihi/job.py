"""What the Lava child process is asked to simulate, checked before it starts.

Lava accepts out-of-range parameters and wraps, floors or hangs on them, so every limit of
its fixed-point models is enforced here, with the population or projection named.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from snn_deploy.errors import InputError, SnnDeployError, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from snn_deploy.ir.synapses import Csr

    IntArray = NDArray[np.integer]

DU_RANGE = (-1, 4095)  # Lava adds one: -1 keeps u for ever, 4095 forgets it at once
DV_RANGE = (0, 4096)
VTH_RANGE = (0, (1 << 17) - 1)
BIAS_RANGE = (-(1 << 12), (1 << 12) - 1)
BIAS_EXP_RANGE = (0, 7)
WEIGHT_EXP_RANGE = (-7, 7)
MIXED_RANGE = (-256, 254)
EXCITATORY_RANGE = (0, 255)
INHIBITORY_RANGE = (-255, 0)
CONV_WEIGHT_RANGE = (-256, 255)
DELAY_RANGE = (0, 62)
GEOMETRY_LIMIT = 127  # Lava keeps kernel, stride, padding and dilation as int8
MAX_INPUT = (1 << 24) - 1  # beyond it, (a << 6) + u may leave Lava's int32 intermediates


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInput:
    """Spikes fed to the network: ``spikes`` is uint8 of 0 and 1, (samples, steps, n).

    ``shape`` is (n,) or (C, H, W) with n = C*H*W in C order.
    """

    name: str
    shape: tuple[int, ...]
    spikes: NDArray[np.uint8]

    @property
    def depth(self) -> int:
        """Hops from the input: 0 by definition."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPopulation:
    """One population on Lava's ``LIFReset`` in its ``fixed_pt`` model.

    ``shape`` is (n,) or (C, H, W). ``depth`` is the number of synaptic hops from the input.
    ``du`` (-1..4095, Lava uses du + 1) and ``dv`` (0..4096) are decays in 1/4096 per step;
    ``vth`` (0..131071) is compared as v > vth << 6; ``bias`` (-4096..4095) is added every step
    as bias << bias_exp. Each is one integer or one per neuron, (n,) in C order.
    """

    name: str
    shape: tuple[int, ...]
    depth: int
    du: int | IntArray
    dv: int | IntArray
    vth: int | IntArray
    bias: int | IntArray | None = None
    bias_exp: int = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseJob:
    """All-to-all synapses: integer ``weight`` (n_post, n_pre) in the C order of both shapes.

    The summed input is multiplied by 2**weight_exp (floored). ``delay`` adds steps to the
    one step that every synapse takes; one for all, or one per weight.
    """

    pre: str
    post: str
    weight: IntArray
    weight_exp: int = 0
    delay: int | IntArray = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseJob:
    """Stored synapses alone: integer ``weight``, its rows post and its columns pre neurons.

    ``weight_exp`` and ``delay`` as in DenseJob. ``free``: weights are those of a convolution,
    -256 to 255 with odd ones of either sign, as Lava's convolution takes them.
    """

    pre: str
    post: str
    weight: Csr
    weight_exp: int = 0
    delay: int = 0
    free: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvJob:
    """2-D cross-correlation: integer ``weight`` (O, I/groups, kH, kW); geometry is (h, w)."""

    pre: str
    post: str
    weight: IntArray
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def delay(self) -> int:
        """Extra steps: Lava's convolution has none."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LavaJob:
    """A feed-forward integer network and its input, for one Lava run.

    ``record`` is "states" (spikes, u and v) or "spikes", of the populations ``recorded`` or,
    where that is empty, of all. ``side_by_side``: so many samples run as copies of the network
    in one larger one (see batch.py), and the next ones after them.
    """

    inputs: tuple[JobInput, ...]
    populations: tuple[JobPopulation, ...]
    projections: tuple[DenseJob | SparseJob | ConvJob, ...]
    record: Literal["spikes", "states"] = "states"
    recorded: tuple[str, ...] = ()
    side_by_side: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """Populations in the order in which they are recorded."""
        return self.recorded or tuple(p.name for p in self.populations)

    @property
    def samples(self) -> int:
        """Number of samples, from the first input."""
        return int(self.inputs[0].spikes.shape[0])

    @property
    def steps(self) -> int:
        """Steps per sample, from the first input."""
        return int(self.inputs[0].spikes.shape[1])

    @property
    def run_steps(self) -> int:
        """Steps that Lava runs: every sample's, plus the pipeline's depth."""
        return self.samples * self.steps + max((p.depth for p in self.populations), default=0)


def check_job(job: LavaJob) -> None:
    """Raise if Lava would not simulate exactly what ``job`` says.

    InputError: arrays whose shapes or values do not belong together. UnsupportedError: a
    value outside Lava's range, or fan-ins that arrive at different steps.
    """
    if not job.inputs or not job.populations:
        raise InputError("a Lava job needs at least one input and one population")
    if job.side_by_side < 1:
        raise InputError("at least one sample runs at a time", used=str(job.side_by_side))
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
        _check_population(population)
    worst = {p.name: 0 for p in job.populations}
    for projection in job.projections:
        worst[projection.post] = worst.get(projection.post, 0) + _check_projection(
            projection, nodes
        )
    for name, amount in worst.items():
        if amount > MAX_INPUT:
            raise UnsupportedError(
                "the summed input of one step can overflow Lava's 32-bit intermediates",
                where=name,
                used=f"up to {amount} of {MAX_INPUT}",
                hint="lower the weights or the weight exponent, or prune the layer's fan-in",
            )
    for name in job.recorded:
        if name not in worst:
            raise InputError("a population that is to be recorded does not exist", where=name)
    _check_connected(job)


def _nodes(job: LavaJob) -> tuple[JobInput | JobPopulation, ...]:
    return (*job.inputs, *job.populations)


def _check_input(source: JobInput, job: LavaJob) -> None:
    spikes = source.spikes
    expected = (job.inputs[0].spikes.shape[:2], math.prod(source.shape))
    if spikes.ndim != 3 or (spikes.shape[:2], spikes.shape[2]) != expected:
        raise InputError(
            "input spikes must be (samples, steps, n), alike for all inputs",
            where=source.name,
            used=f"{spikes.shape} for n = {expected[1]}",
        )
    if spikes.dtype != np.uint8 or (spikes.size and int(spikes.max()) > 1):
        raise InputError("input spikes must be uint8 of 0 and 1", where=source.name)
    if not spikes.shape[0] or not spikes.shape[1]:
        raise InputError(
            "nothing to run: at least one sample and one step are needed",
            where=source.name,
            used=f"{spikes.shape[0]} samples, {spikes.shape[1]} steps",
        )


def _check_population(population: JobPopulation) -> None:
    n = math.prod(population.shape)
    if population.depth < 1:
        raise InputError(
            "a population's depth is at least 1", where=population.name, used=str(population.depth)
        )
    fields = (
        ("du", population.du, DU_RANGE, "current decay du"),
        ("dv", population.dv, DV_RANGE, "membrane decay dv"),
        ("vth", population.vth, VTH_RANGE, "threshold vth"),
        ("bias", population.bias, BIAS_RANGE, "bias"),
        ("bias_exp", population.bias_exp, BIAS_EXP_RANGE, "bias exponent"),
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
    projection: DenseJob | SparseJob | ConvJob, nodes: dict[str, JobInput | JobPopulation]
) -> int:
    where = f"{projection.pre} -> {projection.post}"
    pre, post = nodes.get(projection.pre), nodes.get(projection.post)
    if pre is None or not isinstance(post, JobPopulation):
        raise InputError("a projection joins populations that do not exist", where=where)
    _check_range(np.asarray(projection.delay), DELAY_RANGE, "delay", where)
    arrival = pre.depth + 1 + projection.delay
    if arrival != post.depth:
        raise UnsupportedError(
            "spikes arrive at the wrong step: every synapse takes one step on Loihi",
            where=where,
            used=f"arrives {arrival} steps after the input, expected at {post.depth}",
            hint="pad the shorter path with a delay or a relay population",
        )
    try:
        if isinstance(projection, ConvJob):
            return _check_conv(projection, pre, post)
        return _check_matrix(projection, pre, post)
    except SnnDeployError as error:
        raise error.located(where) from None


def _check_matrix(
    projection: DenseJob | SparseJob, pre: JobInput | JobPopulation, post: JobPopulation
) -> int:
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
    return _worst_drive(values, first) << max(projection.weight_exp, 0)


def _worst_drive(values: IntArray, first: IntArray) -> int:
    """Return the largest |sum| that one sign's weights of a row make; rows start at ``first``."""
    # One more entry, a zero, lets the last row be empty.
    flat = np.append(values.reshape(-1).astype(np.int64), 0)
    filled = np.diff(first, append=values.size) > 0
    sums = [np.add.reduceat(np.maximum(part, 0), first) for part in (flat, -flat)]
    return int(np.where(filled, sums, 0).max())


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


def weight_limits(low: int, high: int, *, dense: bool) -> tuple[int, int]:
    """Return the range that a tensor spanning low..high may use: Lava's Dense has one per sign."""
    if not dense:
        return CONV_WEIGHT_RANGE
    return EXCITATORY_RANGE if low >= 0 else INHIBITORY_RANGE if high <= 0 else MIXED_RANGE


def _check_conv(projection: ConvJob, pre: JobInput | JobPopulation, post: JobPopulation) -> int:
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
    return _worst_drive(weight, np.arange(weight.shape[0]) * weight[0].size)


def _check_range(
    values: NDArray[np.generic], limits: tuple[int, int], label: str, where: str | None
) -> None:
    if values.dtype.kind not in "iu":
        raise InputError(f"{label} must be integers", where=where, used=str(values.dtype))
    if not values.size:
        return
    low, high = int(values.min()), int(values.max())
    if low < limits[0] or high > limits[1]:
        found = str(low) if low == high else f"{low} to {high}"
        raise UnsupportedError(
            f"{label} outside Loihi's range",
            where=where,
            used=f"{found}, allowed {limits[0]} to {limits[1]}",
        )


def _check_connected(job: LavaJob) -> None:
    """Lava runs one connected component only and would leave the others out silently."""
    neighbours: dict[str, set[str]] = {node.name: set() for node in _nodes(job)}
    for projection in job.projections:
        neighbours[projection.pre].add(projection.post)
        neighbours[projection.post].add(projection.pre)
    pending = [job.inputs[0].name]
    reached = set(pending)
    while pending:
        new = neighbours[pending.pop()] - reached
        reached |= new
        pending.extend(new)
    for node in _nodes(job):
        if node.name not in reached:
            raise UnsupportedError(
                "not connected to the rest of the network",
                where=node.name,
                hint="remove it, or run it as a network of its own",
            )
