"""What a mapped program uses of its device: memory per core, and every resource with a limit."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from snn_deploy.backends.loihi.cores import Core, CoreMap, core_limits, limit
from snn_deploy.backends.loihi.program import LoihiProgram
from snn_deploy.device.usage import Lever, MemoryItem, Resource, Usage

_STATE_BITS = 24
# name as printed, what of Amounts, limit key, unit
_PER_CORE = (
    ("neurons", "neurons", "neurons_per_core", "neurons"),
    ("synapse memory", "synapse_bits", "synapse_bits_per_core", "bits"),
    ("input axons", "in_axons", "in_axons_per_core", "axons"),
    ("output axons", "out_axons", "out_axons_per_core", "axons"),
)
# Counts that the source itself marks as to be checked; only for devices whose file names them.
_CONFIGS = (
    (
        "compartment configurations",
        "compartment_configs",
        "compartment_configs_per_core",
        "configurations",
    ),
    (
        "threshold configurations",
        "threshold_configs",
        "threshold_configs_per_core",
        "configurations",
    ),
    ("synapse formats", "synapse_formats", "synapse_formats_per_core", "formats"),
)
_PER_CHIP = (
    ("neurons of the chip", "neurons", "neurons_per_chip", "neurons"),
    ("synapses of the chip", "synapses", "synapses_per_chip", "synapses"),
)


def usage(program: LoihiProgram, mapping: CoreMap) -> Usage:
    """Return memory per core and every resource that the chip limits."""
    device = mapping.device
    nonzeros = {s.name: int(np.count_nonzero(s.weights)) for s in program.synapses}
    resources = [r for core in mapping.cores for r in _core(core, mapping, nonzeros)]
    shares: dict[str, int] = {}
    for core in mapping.cores:
        for name in dict.fromkeys(part.population for part in core.slices):
            shares[name] = shares.get(name, 0) + 1
    hints: tuple[str, ...] = ()
    if mapping.chips > 1:
        hints = (f"spread it over {mapping.chips} chips",)
    resources.append(
        Resource(
            name="cores",
            where="chip",
            used=len(mapping.cores),
            limit_key="cores_per_chip",
            unit="cores",
            contributors=tuple((p.name, shares[p.name]) for p in program.populations),
            hints=hints,
        )
    )
    total = mapping.used()
    resources += [
        Resource(name=name, where="chip", used=int(getattr(total, what)), limit_key=key, unit=unit)
        for name, what, key, unit in _PER_CHIP
        if key in device.limits
    ]
    return Usage(
        items=tuple(item for core in mapping.cores for item in _items(core)),
        resources=tuple(resources),
        excludes=_excludes(mapping),
        cores=mapping.as_dict(),
    )


def _items(core: Core) -> Iterator[MemoryItem]:
    region = f"core {core.index}"
    for name, bits in core.layers:
        yield MemoryItem(
            where=name,
            kind="weights",
            bits=bits,
            region=region,
            detail="weights, indices and headers",
        )
    sizes: dict[str, int] = {}
    for part in core.slices:
        sizes[part.population] = sizes.get(part.population, 0) + part.box.size
    for name, size in sizes.items():
        bits = 2 * _STATE_BITS * size
        yield MemoryItem(where=name, kind="state", bits=bits, region=region, detail="u and v")


def _core(core: Core, mapping: CoreMap, nonzeros: dict[str, int]) -> Iterator[Resource]:
    region = f"core {core.index}"
    device = mapping.device
    neurons = tuple((part.population, part.box.size) for part in core.slices)
    axons: dict[str, int] = {}
    for part in core.slices:
        for name, load in part.loads.items():
            axons[name] = axons.get(name, 0) + load.axons
    contributors = {
        "neurons": neurons,
        "synapse_bits": core.layers,
        "in_axons": tuple(axons.items()),
    }
    # Pieces are as small as they must be, so only a single neuron can be too large for a core.
    levers = tuple(
        Lever(
            where=name,
            unit="nonzeros",
            count=nonzeros[name],
            cost=bits / max(nonzeros[name], 1),
        )
        for name, bits in core.layers
        if bits
    )
    known = tuple(row for row in _CONFIGS if row[2] in device.limits or row[2] in device.unknown)
    for name, what, key, unit in (*_PER_CORE, *known):
        yield Resource(
            name=name,
            where=region,
            used=int(getattr(core.used, what)),
            limit_key=key,
            unit=unit,
            contributors=contributors.get(what, neurons),
            levers=levers if what == "synapse_bits" else (),
            hints=_hints(what),
        )


def _hints(what: str) -> tuple[str, ...]:
    if what == "in_axons":
        return ("prune it so that no neuron has more inputs than a core has input axons",)
    if what == "out_axons":
        return ("prune what it projects to, so that its neurons reach fewer cores",)
    if what.endswith("configs"):
        return ("give the neurons of a population the same decays and thresholds",)
    return ()


def _excludes(mapping: CoreMap) -> tuple[str, ...]:
    device = mapping.device
    said = ["whether a base below 256 and shared lists hold on every stepping of the chip"]
    if any(key in device.limits for _, _, key, _ in _CONFIGS):
        said.append("counts of configurations: checked, but their source calls them unchecked")
    else:
        said.append("configurations per core (compartment, threshold and synapse formats)")
    if "neurons_per_core" not in device.limits:
        limits = core_limits(device)
        share = [
            f"{int(value):,} {what}"
            for what, value in (("neurons", limits.neurons), ("synapses", limits.synapses))
            if math.isfinite(value)
        ]
        if share:
            said.append(
                f"a core's own limits: cores hold an even share of the chip, {' and '.join(share)}"
            )
    if math.isinf(limit(device, "cores_per_tile")):
        said.append("hops between tiles")
    return tuple(said)
