"""The Loihi program: populations and synapses in the chip's own integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from snn_deploy.backends.loihi.job import GEOMETRY_LIMIT, is_programmed
from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.network import Network
from snn_deploy.ir.synapses import Conv2d, Csr, Shape, weights_of

if TYPE_CHECKING:
    from scipy.sparse import csr_array
else:
    csr_array = Any

NEVER = (1 << 17) - 1  # the largest threshold: what a population that never spikes gets


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoihiPopulation:
    """A population as Lava's LIF in its fixed-point model takes it.

    du: -1..4095, dv: 0..4096, vth: compared as v > vth << 6, bias: added as bias << 6, or None;
    each an int or (n,). depth: by how many steps it runs late. reset, v_reset, reset_amount and
    v_init (in units of v) differ from "value" and 0 only where a programmable neuron runs it.
    injected: the host adds its input current to v in every step, constant bias included.
    """

    name: str
    shape: Shape
    depth: int
    du: int | Array
    dv: int | Array
    vth: int | Array
    bias: int | Array | None
    origin: str
    reset: Literal["value", "subtract"] = "value"
    v_reset: int | Array = 0
    reset_amount: int | Array = 0
    v_init: int | Array = 0
    injected: bool = False

    @property
    def programmed(self) -> bool:
        """Whether the chip's own neuron, which resets to 0 and starts at 0, cannot run it."""
        return is_programmed(self.reset, self.v_reset, self.v_init)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoihiSynapses:
    """Synapses from one population to another: integer mantissas, without bias.

    projection: the network's projection that they are, or a part of (its positive or negative
    weights). operator: Csr (post, pre), or Conv2d from in_shape to out_shape, both (C, H, W) in
    the C order of the populations. exponent: the summed input is shifted left by it. delay_steps:
    beyond the one step that every synapse takes; an int, or one per nonzero of a Csr, in its
    order. weight_bits: what a weight takes in a core's memory. payload_bits: of a graded spike, 0
    for spikes of 1. helper: nothing in it is learned.
    """

    name: str
    projection: str
    pre: str
    post: str
    operator: Csr | Conv2d
    in_shape: Shape
    out_shape: Shape
    exponent: int
    delay_steps: int | Array
    weight_bits: int
    helper: bool
    origin: str
    payload_bits: int = 0

    @property
    def weights(self) -> Array:
        """The stored mantissas: of a Csr its nonzeros, of a convolution its kernels."""
        weights = weights_of(self.operator)
        assert weights is not None
        return weights


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoihiProgram:
    """What goes to the chip or its simulator.

    network: of integers, as the engine runs it: names, shapes, readout and coding. splits:
    population -> on how many cores it lies at least. margin: share of each of a core's limits to
    keep free.
    """

    populations: tuple[LoihiPopulation, ...]
    synapses: tuple[LoihiSynapses, ...]
    network: Network
    splits: Mapping[str, int] = field(default_factory=dict)
    margin: float = 0.0
    _populations: Mapping[str, LoihiPopulation] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_populations", {p.name: p for p in self.populations})

    @property
    def depth(self) -> int:
        """Steps that the last population runs late."""
        return max((p.depth for p in self.populations), default=0)

    def population(self, name: str) -> LoihiPopulation:
        """Return a population by name."""
        return self._populations[name]

    def into(self, name: str) -> tuple[LoihiSynapses, ...]:
        """Return the synapses that end in a population, in order."""
        return tuple(s for s in self.synapses if s.post == name)


def lava_form(synapses: LoihiSynapses) -> Csr | Conv2d:
    """Return the operator as Lava has a Process for it.

    Its convolution pads alike on both sides, without delays, between images.
    """
    operator = synapses.operator
    if isinstance(operator, Csr):
        return operator
    top, bottom, left, right = operator.padding
    geometry = (*operator.weight.shape[2:], *operator.stride, *operator.padding)
    if (
        (top, left) == (bottom, right)
        and not np.any(synapses.delay_steps)
        and max(*geometry, *operator.dilation) <= GEOMETRY_LIMIT
    ):
        return operator
    from snn_deploy.engine.operators import matrix

    return integer_csr(matrix(operator, synapses.in_shape))


def delay_table(synapses: LoihiSynapses) -> int | Array:
    """Return the delay of all synapses, or of each pair (post, pre), 0 where there is none."""
    if isinstance(synapses.delay_steps, int):
        return synapses.delay_steps
    operator = synapses.operator
    assert isinstance(operator, Csr)
    table = np.zeros(operator.shape, np.int64)
    table[operator.rows, operator.indices] = synapses.delay_steps
    return table


def integer_csr(entries: csr_array) -> Csr:
    """Return a matrix of whole numbers (post, pre) without its zeros."""
    entries.eliminate_zeros()
    return Csr(
        indptr=adopt(entries.indptr.astype(np.int64)),
        indices=adopt(entries.indices.astype(np.int32)),
        data=adopt(np.rint(entries.data).astype(np.int32)),
        shape=(entries.shape[0], entries.shape[1]),
    )
