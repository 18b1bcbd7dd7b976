"""The integer engine: runs a QNetwork in its Arithmetic, bit for bit, over whole data sets.

It does not pipeline: a step is a step for every layer. Sums of a step are exact, so no order of
events matters. Sources: Lava 0.10's fixed-point LIF model; targets/rtl/neuron.sv.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snn_deploy.engine import kernel
from snn_deploy.engine.host import Host, graded_input
from snn_deploy.engine.kernel_plan import Plan
from snn_deploy.engine.loop import Inputs, Loop, Record, by_input, check_input
from snn_deploy.errors import InputError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import per_neuron
from snn_deploy.ir.quantized import Arithmetic, QNetwork
from snn_deploy.ir.trace import Trace

#: Multiplications that take numpy most of a second, in which numba is imported and its code read.
COMPILE_FROM = 5e9


def decay(state: Array, code: Array, arithmetic: Arithmetic) -> Array:
    """Return the state after losing the share ``code / 2^decay_bits``, rounded toward zero."""
    bits = arithmetic.decay_bits
    product = state * ((1 << bits) - code)
    return np.asarray(np.sign(product) * (np.abs(product) >> bits))


def _binary(x: Array) -> bool:
    if x.dtype.kind in "bu":
        return not x.size or int(x.max()) <= 1
    return bool(np.all((x == 0) | (x == 1)))


def wrap(value: Array, bits: int) -> Array:
    """Return ``value`` wrapped once into (-2^(bits-1), 2^(bits-1)], as Lava's u does."""
    half, full = 1 << (bits - 1), 1 << bits
    value = np.where(value > half, value - full, value)
    return np.where(value <= -half, value + full, value)


class _FixedCell:
    def __init__(self, qnet: QNetwork, name: str, samples: int, injected: Array | None) -> None:
        population = qnet.network.population(name)
        q = qnet.populations[name]
        self._arithmetic = a = qnet.arithmetic
        size = population.size

        def row(value: Array) -> Array:
            return per_neuron(value, population.shape).astype(np.int64)

        zero = np.zeros((), np.int64)
        self._decay_u, self._decay_v = row(q.decay_u), row(q.decay_v)
        self._bias = row(zero if q.bias is None else q.bias) << a.bias_shift
        self._spikes = q.threshold is not None
        # A neuron that never spikes still meets the comparator: with the largest threshold.
        largest = np.asarray((1 << a.threshold_bits) - 1)
        self._threshold = row(largest if q.threshold is None else q.threshold) << a.threshold_shift
        self._reset, self._shift = q.reset, q.shift
        self._v_reset, self._amount = row(q.v_reset), row(q.reset_amount)
        self._injected = None if injected is None else injected << a.bias_shift
        self._now = 0
        self.variables: tuple[str, ...] = ("u", "v") if a.current else ("v",)
        self._u = np.zeros((samples, size), np.int64)
        self._v = np.tile(row(q.v_init), (samples, 1))
        self.saturated = self.wrapped = 0

    def step(self, current: Array) -> Array:
        a = self._arithmetic
        drive = np.asarray(current).astype(np.int64)
        u = decay(self._u, self._decay_u, a) + (drive << self._shift)
        self._u = wrap(u, a.state_bits)
        self.wrapped += int(np.count_nonzero(self._u != u))
        self._v = self._clip(decay(self._v, self._decay_v, a) + self._u + self._constant())
        fired = self._v > self._threshold
        if self._reset == "subtract":
            self._v = self._clip(np.where(fired, self._v - self._amount, self._v))
        else:
            self._v = np.where(fired, self._v_reset, self._v)
        return fired.astype(np.uint8) if self._spikes else self._v

    def _constant(self) -> Array:
        """Return what adds to the membrane besides spikes: the bias, or the host's current."""
        if self._injected is None:
            return self._bias
        self._now += 1
        return np.asarray(self._injected[:, self._now - 1])

    def state(self, variable: str) -> Array:
        return self._u if variable == "u" else self._v

    def _clip(self, value: Array) -> Array:
        clipped = np.clip(value, self._arithmetic.state_min, self._arithmetic.state_max)
        self.saturated += int(np.count_nonzero(clipped != value))
        return clipped


class FixedEngine:
    """Runs a QNetwork. x: (samples, steps, *input shape), binary; analogue for direct coding.

    compile_from: multiplications (see Operator.cost) from which the compiled path runs what it
    supports (see engine/kernel.py); both give the same integers, and below it starting numba costs
    more than it saves.
    """

    def __init__(self, qnet: QNetwork, *, compile_from: float = COMPILE_FROM) -> None:
        self.qnet = qnet
        self._compile_from = compile_from
        self._cells: list[_FixedCell] = []
        self._host = Host(qnet)
        self._injected: dict[str, Array] = {}
        self._reach: dict[str, Array] = {}
        self._loop = Loop(qnet.network, self._cell)
        for population in qnet.computing():
            shift = qnet.populations[population.name].shift
            reach = np.zeros(population.size, np.int64)
            for projection in qnet.network.into(population.name):
                for _, operator in self._loop.operators[projection.name]:
                    reach += abs(operator.sparse).sum(axis=1).astype(np.int64) << shift
            self._reach[population.name] = reach
        self._flat: Plan | None = None
        self._supported: dict[int, bool] = {}
        # What a sample costs in a step; a neuron takes as long as a hundred multiplications.
        self._work = 100 * sum(p.size for p in qnet.computing()) + sum(
            operator.cost for parts in self._loop.operators.values() for _, operator in parts
        )

    def _cell(self, name: str, samples: int) -> _FixedCell:
        injected = self._injected.get(name)
        cell = _FixedCell(self.qnet, name, samples, injected)
        self._cells.append(cell)
        return cell

    def compiles(self, samples: int, steps: int) -> bool:
        """Return whether so much input runs on the compiled path."""
        if samples * steps * self._work < self._compile_from:
            return False
        if steps not in self._supported:
            supported = kernel.supports(self.qnet, self._loop, self._reach, steps)
            self._supported[steps] = supported
        return self._supported[steps]

    def _plan(self) -> Plan:
        if self._flat is None:
            self._flat = kernel.plan(self.qnet, self._loop)
        return self._flat

    def run(self, x: Inputs, record: Record = "output") -> Trace:
        """Return the trace of a batch; every sample starts from the initial state.

        Raises InputError for values other than 0 and 1 where the network takes spikes.
        """
        qnet = self.qnet
        if qnet.real.coding.kind != "direct":
            for values in by_input(qnet.network, x).values():
                self._check_spikes(values)
        elif qnet.levels:
            x = graded_input(qnet, x)
        elif qnet.real.grid is not None:
            for values in by_input(qnet.network, x).values():
                self._check_whole(values)
        flat = check_input(qnet.network, x)
        if self.compiles(*next(iter(flat.values())).shape[:2]):
            trace, overflows = kernel.run(qnet, self._plan(), flat, record)
        else:
            self._injected = self._host.currents(x)
            self._cells.clear()
            trace = self._loop.run(x, record)
            overflows = {
                "saturated": sum(cell.saturated for cell in self._cells),
                "wrapped": sum(cell.wrapped for cell in self._cells),
            }
        return replace(trace, output=qnet.readout_values(trace.output), overflows=overflows)

    def _check_whole(self, values: Array) -> None:
        if not bool(np.all(np.asarray(values) == np.rint(values))):
            raise InputError(
                f"the {self.qnet.arithmetic.name} integers take whole numbers, and x holds others",
                hint="scale and round x first, as the network was trained with",
            )

    def _check_spikes(self, values: Array) -> None:
        if not _binary(values):
            raise InputError(
                f"the {self.qnet.arithmetic.name} integers take spikes, and x holds other values",
                hint="encode x first: with rate coding, or as events of 0 and 1",
            )
