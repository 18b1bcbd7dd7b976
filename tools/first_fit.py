"""A first fit of a Loihi program onto cores: what the mapping is measured against.

Layers and neurons are taken in order; a core is filled until a limit is hit, then the next one is
opened, and cores are placed in order. Lists are stored by the same rules as ours (own, all, or
shared where they are equal), with the kind of axon that takes fewer cores for each layer. Output
axons it cannot know in advance: it says how many of its cores need more than there are.
"""

from __future__ import annotations

import math
import time
from typing import Any


class FirstFit:
    """Cores in order of creation: of each the ranges (population, first, last)."""

    def __init__(self, program: Any, device: Any) -> None:
        from snn_deploy.backends.loihi.axons import connections
        from snn_deploy.backends.loihi.cores import core_limits

        self.limits = core_limits(device)
        self.cores: list[list[tuple[str, int, int]]] = [[]]
        self.home: dict[str, Any] = {}
        self.axons: dict[str, str] = {}
        self._used = (0, 0, 0)
        for population in program.populations:
            fans = [(s, connections(s)) for s in program.into(population.name)]
            self._fill(population.name, math.prod(population.shape), fans)

    def _fill(self, name: str, size: int, fans: list[Any]) -> None:
        """Fill cores with a population, by the kind of axon that takes fewer of them."""
        from snn_deploy.ir import Conv2d

        convolved = [s.name for s, _ in fans if isinstance(s.operator, Conv2d)]
        before = self.cores, self._used
        tried = []
        for kind in ("discrete", "population") if convolved else ("discrete",):
            self.cores, self._used = [list(core) for core in before[0]], before[1]
            kinds = {s.name: kind if s.name in convolved else "discrete" for s, _ in fans}
            home = self._ranges(name, size, [(s, e, kinds[s.name]) for s, e in fans])
            tried.append((len(self.cores), len(tried), self.cores, self._used, home, kinds))
        _, _, self.cores, self._used, self.home[name], kinds = min(tried)
        self.axons |= kinds

    def _ranges(self, name: str, size: int, fans: list[Any]) -> Any:
        import numpy as np

        home = np.zeros(size, np.int64)
        first, guess = 0, size
        while first < size:
            most = min(size, first + int(self.limits.neurons) - self._used[0])
            last = self._last(first, most, first + guess, fans)
            if last == first and self.cores[-1]:
                self.cores.append([])
                self._used = (0, 0, 0)
                continue
            last = max(last, first + 1)  # a neuron that fits no core has one to itself
            bits, axons = self._cost(first, last, fans)
            neurons = self._used[0] + last - first
            self._used = (neurons, self._used[1] + bits, self._used[2] + axons)
            self.cores[-1].append((name, first, last))
            home[first:last] = len(self.cores) - 1
            first, guess = last, last - first
        return home

    def _last(self, first: int, most: int, guess: int, fans: list[Any]) -> int:
        def fits(last: int) -> bool:
            bits, axons = self._cost(first, last, fans)
            return (
                self._used[1] + bits <= self.limits.synapse_bits
                and self._used[2] + axons <= self.limits.in_axons
            )

        good, bad, probe = first, most + 1, min(guess, most)
        while bad - good > 1:
            probe = probe if good < probe < bad else (good + bad) // 2
            if fits(probe):
                good, probe = probe, probe + max(1, (probe - first) // 16)
            else:
                bad, probe = probe, 0
        return good

    def _cost(self, first: int, last: int, fans: list[Any]) -> tuple[int, int]:
        import numpy as np

        from snn_deploy.backends.loihi.axons import delay_bits, index_bits, list_bits, pixels_of

        bits = axons = 0
        for synapses, (indptr, indices, weights), kind in fans:
            span = slice(indptr[first], indptr[last])
            pre, value = indices[span].astype(np.int64), weights[span].astype(np.int64)
            if not pre.size:
                continue
            row = np.repeat(np.arange(last - first), np.diff(indptr[first : last + 1]))
            entry = synapses.weight_bits + delay_bits(synapses)
            indexed = entry + index_bits(self._used[0] + last - first)
            if kind == "population":
                pixels, channels = pixels_of(synapses.in_shape), synapses.in_shape[0]
                channel, pixel = np.divmod(pre, pixels)
                longest, distinct = _lists(pixel, row, value * channels + channel)
                count = np.bincount(pixel * channels + channel, minlength=pixels * channels)
                most = count.reshape(pixels, channels).max(axis=1)
                most = most[most > 0]
                bits += int(list_bits(channels * most[distinct], indexed).sum())
                axons += longest.size
                continue
            counts, distinct = _lists(pre, row, value)
            every = counts.size * int(list_bits(np.array(last - first), entry))
            bits += min(every, int(list_bits(counts[distinct], indexed).sum()))
            axons += counts.size
        return bits, axons


def _lists(axon: Any, row: Any, content: Any) -> tuple[Any, Any]:
    """Return (entries of each axon, numbers of the axons whose lists are the first of their kind).

    Lists are alike where the same contents lie at the same distances from their bases.
    """
    import numpy as np

    from snn_deploy.backends.loihi.axons import BASES

    order = np.argsort(axon, kind="stable")
    axon, row, content = axon[order], row[order], content[order]
    starts = np.flatnonzero(np.diff(axon, prepend=-1))
    counts = np.diff(np.append(starts, axon.size))
    base = np.minimum.reduceat(row, starts)
    distance = row - np.repeat(base % BASES, counts)
    mixed = (distance * 1_000_003 + content * 97 + 12_345) * 0x9E3779B97F4A7C1
    mixed = (mixed ^ (mixed >> 29)) * 0x94D049BB133111
    sums = np.add.reduceat(mixed ^ (mixed >> 32), starts)
    _, distinct = np.unique(np.stack([sums, counts]), axis=1, return_index=True)
    return counts, distinct


def first_fit(program: Any, device: Any, counts: Any) -> dict[str, Any]:
    """Return the figures of the first fit; counts: spikes per neuron by population."""
    import numpy as np

    from snn_deploy.backends.loihi.axons import POPULATION_SLOTS, connections, pixels_of
    from snn_deploy.backends.loihi.placement import distances

    start = time.process_time()
    fitted = FirstFit(program, device)
    seconds = time.process_time() - start
    cores = len(fitted.cores)
    tile = np.arange(cores) // 4
    distance = distances(int(tile[-1]) + 1)
    packets = hops = 0
    outgoing = np.zeros(cores, np.int64)
    for synapses in program.synapses:
        indptr, indices, _ = connections(synapses)
        row = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
        keys = indices.astype(np.int64) * cores + fitted.home[synapses.post][row]
        pre, core = np.divmod(np.unique(keys), cores)
        spikes = counts[synapses.pre][pre]
        packets += int(spikes.sum())
        sender = np.zeros(pre.size, np.int64)
        if synapses.pre in fitted.home:
            home = fitted.home[synapses.pre][pre]
            sender = tile[home]
            if fitted.axons[synapses.name] == "population":
                pixels = pixels_of(synapses.in_shape)
                taken = np.unique((home * cores + core) * pixels + pre % pixels)
                home = np.repeat(taken // pixels // cores, POPULATION_SLOTS)
            outgoing += np.bincount(home, minlength=cores)
        hops += int(spikes @ distance[sender, tile[core]])
    return {
        "cores": cores,
        "packets": packets,
        "hops": hops,
        "map_cpu_seconds": seconds,
        "cores_over_out_axons": int((outgoing > fitted.limits.out_axons).sum()),
        # Each of those would have to be divided so often, at the least.
        "cores_if_valid": int(np.maximum(1, np.ceil(outgoing / fitted.limits.out_axons)).sum()),
    }
