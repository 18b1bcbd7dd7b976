"""What the Lava child process is asked to simulate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

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
CURRENT_RANGE = (-(1 << 15), (1 << 15) - 1)  # Lava keeps biases as int16
STATE_RANGE = (-(1 << 23) + 1, (1 << 23) - 1)
DELAY_RANGE = (0, 62)
GEOMETRY_LIMIT = 127  # Lava keeps kernel, stride, padding and dilation as int8
MAX_INPUT = (1 << 24) - 1  # beyond it, (a << 6) + u may leave Lava's int32 intermediates
MAX_CONV_SUM = (1 << 23) - 1  # beyond it, Lava's convolution wraps


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInput:
    """What is fed to the network: ``spikes`` is (samples, steps, n), uint8 of 0 and 1.

    graded: whole numbers instead, int32. ``shape`` is (n,) or (C, H, W) with n = C*H*W in C order.
    """

    name: str
    shape: tuple[int, ...]
    spikes: NDArray[np.uint8] | NDArray[np.int32]
    graded: bool = False

    @property
    def depth(self) -> int:
        """Hops from the input: 0 by definition."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPopulation:
    """One population on Lava's ``LIFReset`` in its ``fixed_pt`` model.

    ``shape`` is (n,) or (C, H, W). ``depth`` is by how many steps it runs late. ``du`` (-1..4095,
    Lava uses du + 1) and ``dv`` (0..4096) are decays in 1/4096 per step; ``vth`` (0..131071) is
    compared as v > vth << 6; ``bias`` (-4096..4095) is added every step as bias << bias_exp. Each
    is one integer or one per neuron, (n,) in C order. ``currents`` (samples, steps, n) takes the
    place of the bias, step by step. ``reset``, ``v_reset``, ``reset_amount`` and ``v_init``, in
    units of v, run on our programmable neuron where they differ from the defaults.
    """

    name: str
    shape: tuple[int, ...]
    depth: int
    du: int | IntArray
    dv: int | IntArray
    vth: int | IntArray
    bias: int | IntArray | None = None
    bias_exp: int = 6
    currents: NDArray[np.int32] | None = None
    reset: Literal["value", "subtract"] = "value"
    v_reset: int | IntArray = 0
    reset_amount: int | IntArray = 0
    v_init: int | IntArray = 0

    @property
    def programmed(self) -> bool:
        """Whether it runs on our programmable neuron."""
        return is_programmed(self.reset, self.v_reset, self.v_init)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseJob:
    """All-to-all synapses: integer ``weight`` (n_post, n_pre) in the C order of both shapes.

    The summed input is multiplied by 2**weight_exp (floored). ``delay`` adds steps to the
    one step that every synapse takes. ``graded``: spikes carry whole numbers.
    """

    pre: str
    post: str
    weight: IntArray
    weight_exp: int = 0
    delay: int = 0
    graded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseJob:
    """Stored synapses alone: integer ``weight``, its rows post and its columns pre neurons.

    ``weight_exp``, ``delay`` and ``graded`` as in DenseJob; the delay may also be one per stored
    weight, in their order. ``free``: weights are those of a convolution,
    -256 to 255 with odd ones of either sign, as Lava's convolution takes them.
    """

    pre: str
    post: str
    weight: Csr
    weight_exp: int = 0
    delay: int | IntArray = 0
    free: bool = False
    graded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvJob:
    """2-D cross-correlation: integer ``weight`` (O, I/groups, kH, kW); geometry is (h, w).

    Lava's convolution ignores exponents: the weights themselves are multiplied by 2**weight_exp.
    """

    pre: str
    post: str
    weight: IntArray
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    weight_exp: int = 0
    graded: bool = False

    @property
    def delay(self) -> int:
        """Extra steps: Lava's convolution has none."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LavaJob:
    """An integer network and its input, for one Lava run.

    ``record`` is "states" (spikes, u and v) or "spikes", of the populations ``recorded`` or,
    where that is empty, of all. ``side_by_side``: so many samples run as copies of the network
    in one larger one (see batch.py), and the next ones after them. ``gap``: idle steps between
    samples, in which no neuron computes or fires, so that no delayed spike of a sample reaches the
    next; with a gap, neurons are also silent before their first step.
    """

    inputs: tuple[JobInput, ...]
    populations: tuple[JobPopulation, ...]
    projections: tuple[DenseJob | SparseJob | ConvJob, ...]
    record: Literal["spikes", "states"] = "states"
    recorded: tuple[str, ...] = ()
    side_by_side: int = 1
    gap: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Populations in the order in which they are recorded."""
        return self.recorded or tuple(p.name for p in self.populations)

    @property
    def _given(self) -> NDArray[np.integer]:
        for source in self.inputs:
            return source.spikes
        return next(p.currents for p in self.populations if p.currents is not None)

    @property
    def samples(self) -> int:
        """Number of samples, from the first input or current."""
        return int(self._given.shape[0])

    @property
    def steps(self) -> int:
        """Steps per sample, from the first input or current."""
        return int(self._given.shape[1])

    @property
    def run_steps(self) -> int:
        """Steps that Lava runs: every sample's, the gaps between them, and the pipeline's depth."""
        deepest = max((p.depth for p in self.populations), default=0)
        return self.samples * (self.steps + self.gap) - self.gap + deepest


def is_programmed(reset: str, v_reset: int | IntArray, v_init: int | IntArray) -> bool:
    """Return whether a neuron does more than reset to 0 and start at 0, as Lava's does."""
    return reset == "subtract" or bool(np.any(v_reset) or np.any(v_init))


def weight_limits(low: int, high: int, *, dense: bool) -> tuple[int, int]:
    """Return the range that a tensor spanning low..high may use: Lava's Dense has one per sign."""
    if not dense:
        return CONV_WEIGHT_RANGE
    return EXCITATORY_RANGE if low >= 0 else INHIBITORY_RANGE if high <= 0 else MIXED_RANGE
