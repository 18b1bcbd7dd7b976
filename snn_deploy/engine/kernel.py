"""The integer engine's compiled path: which networks it takes, and how it runs them.

It is the arithmetic of engine/fixed.py, sample by sample and step by step, and does work only
where spikes are: a spike adds its row of weights. What is no spike, or could leave int32, stays
with the other path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING, Any

import numpy as np

from snn_deploy.engine.kernel_plan import AT_ONCE, Plan
from snn_deploy.engine.loop import Book, Loop, Record
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network, Population, per_neuron
from snn_deploy.ir.quantized import QNetwork, QPopulation
from snn_deploy.ir.trace import Trace

if TYPE_CHECKING:
    from scipy.sparse import csr_array

#: A population takes a multiple of so many places: vectors then leave no neuron over.
LANES = 16
LARGEST_WEIGHT = ((1 << 15) - 1) // AT_ONCE
_DENSE_FROM = 1 / 32  # above this density adding whole rows beats adding single entries
_DENSE_MOST = 32_000_000  # entries of a whole network in rows, 64 MB
#: Samples that run at the same time, and places of one from which they no longer gain from it.
_COPIES = 8
_COPIES_MOST = 4096
_INT32 = (1 << 31) - 1


def supports(qnet: QNetwork, loop: Loop, reach: Mapping[str, Array], steps: int) -> bool:
    """Return whether ``run`` gives this network's exact integers over so many steps.

    reach: per population the largest |sum| of a step, in units of the state. Spikes alone
    travel, weights are small integers, decays are shares, and no sum leaves int32.
    """
    network, a = qnet.network, qnet.arithmetic
    if qnet.real.coding.kind == "direct":
        return False
    for projection in network.projections:
        silent = projection.pre in qnet.populations and (
            qnet.populations[projection.pre].threshold is None
        )
        if silent or not all(_small(op.sparse.data) for _, op in loop.operators[projection.name]):
            return False
    half, full = 1 << (a.state_bits - 1), 1 << a.state_bits
    top = max(-a.state_min, a.state_max)
    for population in qnet.computing():
        q = qnet.populations[population.name]
        sum_most = int(reach[population.name].max(initial=0))
        u_most = half + steps * max(0, sum_most - full)
        bias = 0 if q.bias is None else int(np.abs(q.bias).max()) << a.bias_shift
        within = (
            (q.threshold is None) == (network.step_of(population.name).threshold is None)
            and all(_between(code, 0, 1 << a.decay_bits) for code in (q.decay_u, q.decay_v))
            and all(_between(v, a.state_min, a.state_max) for v in (q.v_reset, q.v_init))
            and _between(q.reset_amount, -_INT32 + top, _INT32 - top)
            and u_most + max(sum_most, top + bias) <= _INT32
            and (q.threshold is None or int(np.max(q.threshold)) << a.threshold_shift <= _INT32)
        )
        if not within:
            return False
    return True


def _small(weights: Array) -> bool:
    return _between(weights, -LARGEST_WEIGHT, LARGEST_WEIGHT) and bool(
        np.all(weights == np.rint(weights))
    )


def _between(values: Array, low: int, high: int) -> bool:
    return bool(np.all((values >= low) & (values <= high)))


def plan(qnet: QNetwork, loop: Loop) -> Plan:
    """Return the flat form of a network that ``supports`` accepts."""
    network, a = qnet.network, qnet.arithmetic
    names = [p.name for p in network.populations]
    index = {name: i for i, name in enumerate(names)}
    size = np.array([p.size for p in network.populations])
    room = -(-size // LANES) * LANES
    copies = _COPIES if room.sum() <= _COPIES_MOST else 1
    first = copies * (np.cumsum(room) - room)
    column, next_column = np.zeros(len(names), np.int64), 0
    for name in network.inputs:
        column[index[name]] = next_column
        next_column += room[index[name]] // 8
    wiring = _Wiring(index)
    for name in names:
        wiring.begin()
        for projection in network.into(name):
            for delay, operator in loop.operators[projection.name]:
                wiring.add(projection.pre, delay, operator.sparse)
    wiring.begin()

    def flat(value_of: Callable[[QPopulation], Array | int], silent: int = 0) -> Array:
        """Return a parameter at every place; ``silent`` where there is no neuron."""
        found = np.full(copies * int(room.sum()), silent, np.int64)
        for population in qnet.computing():
            i = index[population.name]
            value = per_neuron(value_of(qnet.populations[population.name]), population.shape)
            own = found[first[i] : first[i] + copies * room[i]].reshape(copies, room[i])
            own[:, : size[i]] = value
        return found

    def share(lost: Array) -> Array:
        full = 1 << a.decay_bits
        return (full - lost) / full

    computing = [(i, qnet.populations[n]) for n, i in index.items() if n in qnet.populations]
    shift, mask = np.zeros(len(names), np.int32), np.zeros(len(names), np.int32)
    for i, q in computing:
        shift[i] = q.shift
        mask[i] = -1 if q.reset == "subtract" else 0
    # A neuron that never spikes still meets the comparator: with the largest threshold.
    largest = (1 << a.threshold_bits) - 1
    top = [1 << (a.state_bits - 1), 1 << a.state_bits, a.state_min, a.state_max]
    return Plan(
        order=np.array([index[n] for n in loop.plan.order if n not in network.inputs]),
        inputs=np.array([index[n] for n in network.inputs]),
        copies=copies,
        size=size,
        room=room,
        first=first,
        column=column,
        **wiring.arrays(),
        keep_u=share(flat(lambda q: q.decay_u)),
        keep_v=share(flat(lambda q: q.decay_v)),
        start=flat(lambda q: q.v_init).astype(np.int32),
        bias=flat(lambda q: 0 if q.bias is None else q.bias << a.bias_shift).astype(np.int32),
        threshold=flat(
            lambda q: (largest if q.threshold is None else q.threshold) << a.threshold_shift,
            silent=_INT32,
        ).astype(np.int32),
        back=flat(lambda q: -q.reset_amount if q.reset == "subtract" else q.v_reset).astype(
            np.int32
        ),
        shift=shift,
        mask=mask,
        limits=np.array(top, np.int32),
        slots=1 + max(wiring.delay, default=0),
    )


class _Wiring:
    """Collects the parts of all projections, population after population."""

    def __init__(self, index: Mapping[str, int]) -> None:
        self._index = index
        self._parts: list[int] = []
        self._pre: list[int] = []
        self.delay: list[int] = []
        self._dense: list[bool] = []
        self._at: list[int] = []
        self._rows: list[Array] = [np.zeros(0, np.int16)]
        self._entries: list[tuple[Array, Array, Array]] = []
        self._row_size = self._pointer_size = self._entry_size = 0

    def begin(self) -> None:
        """Begin the next population."""
        self._parts.append(len(self._pre))

    def add(self, pre: str, delay: int, sparse: csr_array) -> None:
        """Add synapses (post, pre) of one delay."""
        post_size, pre_size = sparse.shape
        width = -(-post_size // LANES) * LANES
        whole = (pre_size + 1) * width
        dense = sparse.nnz > _DENSE_FROM * whole and self._row_size + whole <= _DENSE_MOST
        self._pre.append(self._index[pre])
        self.delay.append(delay)
        self._dense.append(dense)
        if dense:
            rows = np.zeros((pre_size + 1, width), np.int16)
            rows[:-1, :post_size] = sparse.astype(np.int16).toarray().T
            self._at.append(self._row_size)
            self._rows.append(rows.reshape(-1))
            self._row_size += whole
            return
        by_source = sparse.tocsc()
        pointers = by_source.indptr.astype(np.int64) + self._entry_size
        self._at.append(self._pointer_size)
        self._entries.append((pointers, by_source.indices, by_source.data))
        self._pointer_size += pointers.size
        self._entry_size += by_source.data.size

    def arrays(self) -> dict[str, Any]:
        """Return the Plan's arrays of these parts."""
        nothing = (np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int16))
        pointers, posts, weights = zip(nothing, *self._entries, strict=True)
        return {
            "parts": np.array(self._parts),
            "pre": np.array(self._pre, np.int64),
            "delay": np.array(self.delay, np.int64),
            "dense": np.array(self._dense, np.bool_),
            "at": np.array(self._at, np.int64),
            "rows": np.concatenate(self._rows),
            "pointers": np.concatenate(pointers),
            "posts": np.concatenate(posts).astype(np.int32),
            "weights": np.concatenate(weights).astype(np.int16),
        }


class _Log:
    """One flat buffer with a (samples, steps, n) recording of each of some populations."""

    def __init__(
        self, network: Network, names: Set[str], lead: tuple[int, int], dtype: type
    ) -> None:
        self._lead = lead
        self._start: dict[str, int] = {}
        self.at = np.full(len(network.populations), -1)
        size = 0
        for i, population in enumerate(network.populations):
            if population.name in names:
                self.at[i] = self._start[population.name] = size
                size += lead[0] * lead[1] * population.size
        self.flat: Array = np.empty(size, dtype)

    def of(self, population: Population) -> Array:
        """Return a population's recording."""
        start = self._start[population.name]
        end = start + self._lead[0] * self._lead[1] * population.size
        return self.flat[start:end].reshape(*self._lead, population.size)


def _words(network: Network, x: Mapping[str, Array]) -> Array:
    """Return the spikes of all inputs, eight in a uint64, each input filled up to its room."""
    given = []
    for name in network.inputs:
        spikes = x[name]
        over = -spikes.shape[2] % LANES
        given.append(np.pad(spikes, ((0, 0), (0, 0), (0, over))) if over else spikes)
    entering = given[0] if len(given) == 1 else np.concatenate(given, axis=2)
    words = np.ascontiguousarray(entering, np.uint8).reshape(-1).view(np.uint64)
    # Always the same type to numba, which would compile anew for another.
    words = np.require(words, requirements="A").view()
    words.flags.writeable = False
    return words


def run(
    qnet: QNetwork, flat: Plan, x: Mapping[str, Array], record: Record
) -> tuple[Trace, dict[str, int]]:
    """Return the trace of spikes x, as check_input returns them, and overflows as in a Trace."""
    from snn_deploy.engine.kernel_loops import simulate

    network = qnet.network
    samples, steps, _ = next(iter(x.values())).shape
    lead = (samples, steps)
    book = Book(network, samples, steps, record)
    # A population that never spikes passes on, and is recorded by, its membrane.
    silent = {n for n, q in qnet.populations.items() if q.threshold is None}
    stated = set(qnet.populations) if record == "states" else set()
    read = set(network.outputs) if book.membrane else set()
    shown = set(network.outputs) - read if record == "output" else set(qnet.populations)
    spikes = _Log(network, shown - silent, lead, np.uint8)
    u = _Log(network, stated if qnet.arithmetic.current else set(), lead, np.int64)
    v = _Log(network, stated | read | silent, lead, np.int64)
    counts = np.zeros(flat.bias.size // flat.copies, np.int64)
    recordings = (spikes.flat, spikes.at, u.flat, u.at, v.flat, v.at)
    cut, wrapped = simulate(flat, samples, steps, _words(network, x), *recordings, counts)
    for population, first in zip(network.populations, flat.first // flat.copies, strict=True):
        name = population.name
        if name in silent:
            book.keep(name, v.of(population).astype(np.float64))
        else:
            book.counts[name] = counts[first : first + population.size]
            if name in network.inputs:
                book.store(name, x[name])
            elif name in shown:
                book.store(name, spikes.of(population))
        if name in stated or name in read:
            log = {"u": u, "v": v} if name in stated and qnet.arithmetic.current else {"v": v}
            book.states[name] = {k: kept.of(population) for k, kept in log.items()}
    return book.trace(), {"saturated": int(cut), "wrapped": int(wrapped)}
