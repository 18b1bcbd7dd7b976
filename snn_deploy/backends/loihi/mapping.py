"""Placement on cores: contiguous neuron ranges, as many cores as the limits ask for.

Memory by the published per-axon formula: an axon's weights on a core are stored in groups of up
to 64, each group in whole 64-bit words with 10 bits of header. An axon either lists all neurons
of its span or names those it reaches by index, whichever is smaller over the layer's core.
Source: nengo-loihi, block.py (synapse bits); limits from the device file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from snn_deploy.backends.loihi.program import LoihiProgram, LoihiSynapses
from snn_deploy.device.model import Device
from snn_deploy.device.usage import Lever, MemoryItem, Resource, Usage
from snn_deploy.ir.arrays import Array

_WORD_BITS = 64
_GROUP = 64
_HEADER_BITS = 10
_INDEX_BITS = (6, 12)
_STATE_BITS = 24
_MESH = 8  # tiles in a row


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Core:
    """Neurons first..last-1 of a population on one core."""

    index: int
    population: str
    first: int
    last: int
    synapse_bits: int
    in_axons: int
    layers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mapping:
    """cores in order; out_axons per core; targets: projection -> (pre neurons,) cores reached;
    links: projection -> (pre neurons,) links that one spike crosses, None without tiles.
    """

    cores: tuple[Core, ...]
    out_axons: dict[int, int]
    targets: dict[str, Array]
    links: dict[str, Array] | None

    def cores_of(self, population: str) -> tuple[Core, ...]:
        """Return the cores that hold a population."""
        return tuple(c for c in self.cores if c.population == population)


def axon_bits(counts: Array, weight_bits: int, index_bits: int, delay_bits: int) -> int:
    """Return the synapse memory of axons with ``counts`` weights each on one core."""
    counts = counts[counts > 0].astype(np.int64)
    entry = weight_bits + index_bits + delay_bits
    whole, rest = counts // _GROUP, counts % _GROUP
    full = -(-(_GROUP * entry + _HEADER_BITS) // _WORD_BITS)
    last = -(-(rest[rest > 0] * entry + _HEADER_BITS) // _WORD_BITS)
    return _WORD_BITS * (int(whole.sum()) * full + int(last.sum()))


def _entries(synapses: LoihiSynapses) -> tuple[Array, Array]:
    """Return (post, pre) of every nonzero connection, sorted by post."""
    from snn_deploy.engine.operators import matrix

    part = matrix(synapses.operator, synapses.in_shape)
    rows = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
    keep = part.data != 0
    return rows[keep], part.indices[keep]


def limit(device: Device, key: str) -> float | None:
    """Return a limit of the device file, or None where it names none."""
    found = device.limits.get(key)
    if found is None:
        return None
    assert not isinstance(found.value, tuple), key
    return float(found.value)


def place(program: LoihiProgram, device: Device) -> Mapping:
    """Return the cores of every population; cores beyond the chip are counted, not refused."""
    most_neurons = limit(device, "neurons_per_core")
    most_bits = limit(device, "synapse_bits_per_core") or math.inf
    most_axons = limit(device, "in_axons_per_core") or math.inf
    cores: list[Core] = []
    entries = {s.name: _entries(s) for s in program.synapses}
    for population in program.populations:
        fan_in = [s for s in program.synapses if s.post == population.name]
        size = math.prod(population.shape)
        parts = math.ceil(size / (most_neurons or size))
        while True:
            tried = _split(population.name, size, parts, fan_in, entries, len(cores))
            worst_bits = max(c.synapse_bits for c in tried)
            worst_axons = max(c.in_axons for c in tried)
            over = max(worst_bits / most_bits, worst_axons / most_axons)
            if over <= 1 or parts >= size:
                break
            parts = min(size, max(parts + 1, math.floor(parts * over)))
        cores += tried
    return _wire(program, cores, entries, limit(device, "cores_per_tile"))


def _split(
    name: str,
    size: int,
    parts: int,
    fan_in: list[LoihiSynapses],
    entries: dict[str, tuple[Array, Array]],
    first_core: int,
) -> list[Core]:
    edges = np.linspace(0, size, parts + 1).astype(np.int64)
    result = []
    for i in range(parts):
        low, high = int(edges[i]), int(edges[i + 1])
        layers, axons = [], 0
        for synapses in fan_in:
            post, pre = entries[synapses.name]
            span = slice(*np.searchsorted(post, (low, high)))
            counts = np.bincount(pre[span])
            bits = _best_bits(counts, high - low, synapses)
            layers.append((synapses.name, bits))
            axons += int(np.count_nonzero(counts))
        result.append(
            Core(
                index=first_core + i,
                population=name,
                first=low,
                last=high,
                synapse_bits=sum(bits for _, bits in layers),
                in_axons=axons,
                layers=tuple(layers),
            )
        )
    return result


def _best_bits(counts: Array, neurons: int, synapses: LoihiSynapses) -> int:
    delay_bits = 6 if np.any(synapses.delay_steps) else 0
    index = min(max(_INDEX_BITS[0], math.ceil(math.log2(max(neurons, 2)))), _INDEX_BITS[1])
    sparse = axon_bits(counts, synapses.weight_bits, index, delay_bits)
    every = np.where(counts > 0, neurons, 0)
    return min(sparse, axon_bits(every, synapses.weight_bits, 0, delay_bits))


def _wire(
    program: LoihiProgram,
    cores: list[Core],
    entries: dict[str, tuple[Array, Array]],
    per_tile: float | None,
) -> Mapping:
    shapes = program.network.shapes
    targets: dict[str, Array] = {}
    links: dict[str, Array] = {}
    out_axons = {core.index: 0 for core in cores}
    starts: dict[str, list[int]] = {c.population: [] for c in cores}
    for core in cores:
        starts[core.population].append(core.first)
    for synapses in program.synapses:
        post, pre = entries[synapses.name]
        part = np.searchsorted(starts[synapses.post], post, side="right") - 1
        # One mark per (neuron, core): at most 65,536 x 2,000 bytes for the largest networks known.
        size, parts = math.prod(shapes[synapses.pre]), len(starts[synapses.post])
        met = np.zeros((size, parts), bool)
        met[pre, part] = True
        reached = met.sum(axis=1, dtype=np.int64)
        targets[synapses.name] = reached
        if per_tile is not None:
            links[synapses.name] = _links(synapses, met, cores, int(per_tile))
        for core in cores:
            if core.population == synapses.pre:
                out_axons[core.index] += int(reached[core.first : core.last].sum())
    return Mapping(
        cores=tuple(cores),
        out_axons=out_axons,
        targets=targets,
        links=None if per_tile is None else links,
    )


def _links(synapses: LoihiSynapses, met: Array, cores: list[Core], per_tile: int) -> Array:
    """Return the links between tiles that one spike of each neuron crosses, int64 (pre,).

    met: bool (pre, cores of the post population). Cores are numbered tile by tile on a mesh of
    rows of 8 tiles; routes are Manhattan, one per core reached. Spikes that stay on their tile
    cross none. The host's spikes enter at tile 0.
    """
    tile = np.zeros(len(met), np.int64)
    for core in cores:
        if core.population == synapses.pre:
            tile[core.first : core.last] = core.index // per_tile
    crossed = np.zeros(len(met), np.int64)
    receivers = [c.index // per_tile for c in cores if c.population == synapses.post]
    for column, other in enumerate(receivers):
        distance = abs(tile // _MESH - other // _MESH) + abs(tile % _MESH - other % _MESH)
        crossed += np.where(met[:, column], distance, 0)
    return crossed


def usage(program: LoihiProgram, mapping: Mapping) -> Usage:
    """Return memory per core and every resource that the chip limits."""
    items: list[MemoryItem] = []
    resources: list[Resource] = []
    nonzeros = {s.name: int(np.count_nonzero(s.weights)) for s in program.synapses}
    for core in mapping.cores:
        region = f"core {core.index}"
        items += [
            MemoryItem(
                where=name,
                kind="weights",
                bits=bits,
                region=region,
                detail="weights, indices and headers",
            )
            for name, bits in core.layers
        ]
        states = 2 * _STATE_BITS * (core.last - core.first)
        items.append(
            MemoryItem(
                where=core.population, kind="state", bits=states, region=region, detail="u and v"
            )
        )
        levers = tuple(
            Lever(
                where=name,
                unit="nonzeros",
                count=nonzeros[name],
                cost=core.synapse_bits
                * len(mapping.cores_of(core.population))
                / max(nonzeros[name], 1),
            )
            for name, bits in core.layers
            if bits == max(b for _, b in core.layers)
        )
        resources += [
            Resource(
                name="neurons",
                where=region,
                used=core.last - core.first,
                limit_key="neurons_per_core",
                unit="neurons",
                contributors=((core.population, core.last - core.first),),
            ),
            Resource(
                name="synapse memory",
                where=region,
                used=core.synapse_bits,
                limit_key="synapse_bits_per_core",
                unit="bits",
                contributors=core.layers,
                levers=levers,
            ),
            Resource(
                name="input axons",
                where=region,
                used=core.in_axons,
                limit_key="in_axons_per_core",
                unit="axons",
                contributors=tuple((name, core.in_axons) for name, _ in core.layers[:1]),
            ),
            Resource(
                name="output axons",
                where=region,
                used=mapping.out_axons[core.index],
                limit_key="out_axons_per_core",
                unit="axons",
                contributors=((core.population, mapping.out_axons[core.index]),),
            ),
        ]
    resources.append(
        Resource(
            name="cores",
            where="chip",
            used=len(mapping.cores),
            limit_key="cores_per_chip",
            unit="cores",
            contributors=tuple(
                (p.name, len(mapping.cores_of(p.name))) for p in program.populations
            ),
        )
    )
    return Usage(
        items=tuple(items),
        resources=tuple(resources),
        excludes=("configurations per core (compartment, threshold and synapse formats)",),
    )
