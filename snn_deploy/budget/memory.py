"""Memory that an event-driven integer program would take on a microcontroller.

A model of storage, no code is generated: weights, indices, pointers and neuron parameters in
flash; neuron state, spike bitmaps, input and readout buffers in RAM. Everything is stored in
whole bytes. Weights are kept dense or compressed by presynaptic neuron (for a convolution by
input channel), whichever is smaller.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from snn_deploy.device import Device, Lever, MemoryItem, Resource, Usage
from snn_deploy.device.usage import MemoryKind, within
from snn_deploy.errors import UsageError
from snn_deploy.ir.check import chain_shapes
from snn_deploy.ir.network import MEMBRANE_READOUTS, Projection
from snn_deploy.ir.quantized import QNetwork
from snn_deploy.ir.schedule import schedule
from snn_deploy.ir.synapses import Conv1d, Conv2d, Csr, Dense, Diagonal, Synapse
from snn_deploy.units import BITS_PER_BYTE

FLASH = "flash"
FLASH_KEY = "flash_bytes"
EXCLUDES = (
    "program code, libraries and the call stack",
    "padding between arrays",
)
_ACCUMULATOR_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """How one learned operator is stored: bytes of each part, and what a nonzero costs."""

    form: str
    nonzeros: int
    weight_bytes: int
    index_bytes: int
    pointer_bytes: int
    sparse_pointer_bytes: int
    bytes_per_nonzero: int


def storage(synapse: Synapse, weight_bits: int) -> Storage:
    """Return the smaller of the dense and the compressed form of a learned operator.

    Indices and pointers take 1, 2 or 4 bytes, as their range needs.
    """
    rows, targets, size, nonzeros = _layout(synapse)
    each = _bytes(weight_bits)
    index = _bytes(max(1, (targets - 1).bit_length()))
    pointers = (rows + 1) * _bytes(max(1, nonzeros.bit_length()))
    if size * each <= nonzeros * (each + index) + pointers:
        form, stored, indices, kept = "dense", size * each, 0, 0
    else:
        form, stored, indices, kept = "compressed", nonzeros * each, nonzeros * index, pointers
    return Storage(
        form=form,
        nonzeros=nonzeros,
        weight_bytes=stored,
        index_bytes=indices,
        pointer_bytes=kept,
        sparse_pointer_bytes=pointers,
        bytes_per_nonzero=each + index,
    )


def _layout(synapse: Synapse) -> tuple[int, int, int, int]:
    """Return (compressed rows, range of an index in a row, weights, nonzero weights)."""
    if isinstance(synapse, Csr):
        out, width = synapse.shape
        return width, out, out * width, int(np.count_nonzero(synapse.data))
    if isinstance(synapse, Dense):
        out, width = synapse.weight.shape
        return width, out, out * width, int(np.count_nonzero(synapse.weight))
    if isinstance(synapse, Conv1d):
        synapse = synapse.as_conv2d()
    assert isinstance(synapse, Conv2d)
    out, per_group, height, width = synapse.weight.shape
    nonzeros = int(np.count_nonzero(synapse.weight))
    taps = out // synapse.groups * height * width
    return per_group * synapse.groups, taps, int(synapse.weight.size), nonzeros


def _bytes(bits: int) -> int:
    """Return the size of the machine integer that holds ``bits`` bits: 1, 2, 4 or 8 bytes."""
    return next(size for size in (1, 2, 4, 8) if bits <= size * BITS_PER_BYTE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """An array that lies in one memory region."""

    where: str
    kind: MemoryKind
    bytes: int
    detail: str
    neurons: int = 0
    bytes_per_neuron: float = 0.0


def microcontroller_usage(qnet: QNetwork, device: Device, margin: float = 0.0) -> Usage:
    """Return what the network stores in the flash and RAM regions of a microcontroller.

    State is 16 bits per neuron where the arithmetic's state fits and the neuron has no synaptic
    current, else 32 bits for each of u and v. RAM arrays are placed whole, the largest first,
    each into the smallest region that still has room under the margin; what fits nowhere goes
    where most is free, and exceeds it. Raises UsageError for another family of device.
    """
    if device.family != "microcontroller":
        raise UsageError(
            f"{device.name} is no microcontroller",
            used=f"family {device.family}",
            hint="its own target computes what it uses",
        )
    fixed, levers = _flash_blocks(qnet)
    items = [_item(block, FLASH) for block in fixed]
    resources = [
        Resource(
            name="flash bytes",
            where=FLASH,
            used=sum(block.bytes for block in fixed),
            limit_key=FLASH_KEY,
            unit="bytes",
            contributors=_by_place(fixed),
            levers=tuple(levers),
        )
    ]
    for key, blocks in _place(_ram_blocks(qnet), device, margin).items():
        region = key.removesuffix("_bytes")
        items += [_item(block, region) for block in blocks]
        resources.append(
            Resource(
                name=f"{region} bytes",
                where=region,
                used=sum(block.bytes for block in blocks),
                limit_key=key,
                unit="bytes",
                contributors=_by_place(blocks),
                levers=_ram_levers(qnet, blocks),
            )
        )
    return Usage(items=tuple(items), resources=tuple(resources), excludes=EXCLUDES)


def _item(block: _Block, region: str) -> MemoryItem:
    return MemoryItem(
        where=block.where,
        kind=block.kind,
        bits=block.bytes * BITS_PER_BYTE,
        region=region,
        detail=block.detail,
    )


def _by_place(blocks: Iterable[_Block]) -> tuple[tuple[str, int], ...]:
    total: dict[str, int] = {}
    for block in blocks:
        total[block.where] = total.get(block.where, 0) + block.bytes
    return tuple(total.items())


def _flash_blocks(qnet: QNetwork) -> tuple[list[_Block], list[Lever]]:
    blocks: list[_Block] = []
    levers: list[Lever] = []
    for projection in qnet.network.projections:
        learned = [s for s in projection.synapses if isinstance(s, Dense | Csr | Conv1d | Conv2d)]
        for position, synapse in enumerate(learned):
            name = projection.origin or projection.name
            name = name if len(learned) == 1 else f"{name}[{position}]"
            delay = 0 if isinstance(projection.delay_steps, int) else 1
            made, lever = _stored(name, storage(synapse, qnet.arithmetic.weight_bits), delay)
            blocks += made
            levers.append(lever)
        for fixed in projection.synapses:
            if isinstance(fixed, Diagonal):
                size = int(fixed.scale.size) * _bytes(qnet.arithmetic.weight_bits)
                place = projection.origin or projection.name
                blocks.append(_Block(where=place, kind="weights", bytes=size, detail="scale"))
    return blocks + _parameter_blocks(qnet), levers


def _stored(name: str, kept: Storage, delay_bytes: int) -> tuple[list[_Block], Lever]:
    """Return the arrays of one operator, and the lever that prunes it.

    delay_bytes: per nonzero, where every synapse has a delay of its own.
    """
    parts: tuple[tuple[MemoryKind, int, str], ...] = (
        ("weights", kept.weight_bytes, f"{kept.form}, {kept.nonzeros:,} nonzeros"),
        ("indices", kept.index_bytes, "of the nonzeros"),
        ("pointers", kept.pointer_bytes, "to the rows"),
        ("indices", kept.nonzeros * delay_bytes, "delays of the nonzeros"),
    )
    blocks = [_Block(where=name, kind=k, bytes=n, detail=detail) for k, n, detail in parts if n]
    lever = Lever(
        where=name,
        unit="nonzeros",
        count=kept.nonzeros,
        cost=kept.bytes_per_nonzero + delay_bytes,
        fixed=kept.sparse_pointer_bytes,
    )
    return blocks, lever


def _parameter_blocks(qnet: QNetwork) -> list[_Block]:
    """Return thresholds, biases, decays and reset values: one each, or one per neuron."""
    arithmetic = qnet.arithmetic
    state = _bytes(arithmetic.state_bits)
    blocks = []
    for population in qnet.computing():
        q = qnet.populations[population.name]
        sizes = [
            (q.threshold, _bytes(arithmetic.threshold_bits)),
            (q.bias, _bytes(arithmetic.bias_bits)),
            (q.decay_v, _bytes(arithmetic.decay_bits)),
            (q.decay_u if _has_current(qnet, q.name) else None, _bytes(arithmetic.decay_bits)),
            (q.v_reset if q.reset == "value" else None, state),
            (q.reset_amount if q.reset == "subtract" else None, state),
        ]
        total = sum(int(np.size(values)) * each for values, each in sizes if values is not None)
        blocks.append(
            _Block(
                where=population.name,
                kind="thresholds",
                bytes=total,
                detail="thresholds, biases, decays, resets",
            )
        )
    return blocks


def _has_current(qnet: QNetwork, name: str) -> bool:
    return qnet.network.step_of(name).has_current


def _ram_blocks(qnet: QNetwork) -> list[_Block]:
    network = qnet.network
    history = _history(qnet)
    blocks = []
    for population in network.populations:
        name, size = population.name, population.size
        is_input = name in network.inputs
        if not is_input:
            per_neuron, detail = _state_bytes(qnet, name)
            blocks.append(
                _Block(
                    where=name,
                    kind="state",
                    bytes=size * per_neuron,
                    detail=detail,
                    neurons=size,
                    bytes_per_neuron=per_neuron,
                )
            )
        if is_input and network.coding.kind == "direct":
            blocks.append(
                _Block(where=name, kind="buffers", bytes=size * 4, detail="input, 32-bit values")
            )
            continue
        if not is_input and qnet.populations[name].threshold is None:
            continue  # never spikes
        maps = history.get(name, 1)
        blocks.append(
            _Block(
                where=name,
                kind="buffers" if is_input else "spikes",
                bytes=maps * _bitmap(size),
                detail=f"{'input ' if is_input else ''}spikes, {maps} step{'s' * (maps > 1)}",
                neurons=size,
                bytes_per_neuron=maps / BITS_PER_BYTE,
            )
        )
    for name in network.outputs:
        each = 4 if network.readout.kind in MEMBRANE_READOUTS else 2
        size = network.population(name).size * each
        blocks.append(_Block(where=name, kind="buffers", bytes=size, detail="readout"))
    return blocks + _intermediate(qnet)


def _state_bytes(qnet: QNetwork, name: str) -> tuple[int, str]:
    if _has_current(qnet, name):
        return 8, "u and v, 32 bits each"
    each = _bytes(max(16, qnet.arithmetic.state_bits))
    return each, f"v, {each * BITS_PER_BYTE} bits"


def _bitmap(neurons: int) -> int:
    return -(-neurons // BITS_PER_BYTE)


def _history(qnet: QNetwork) -> dict[str, int]:
    """Return for each population how many steps of its spikes are kept."""
    plan = schedule(qnet.network)
    kept: dict[str, int] = {}
    for projection in qnet.network.projections:
        steps = int(np.max(projection.delay_steps, initial=0)) + plan.feedback[projection.name]
        kept[projection.pre] = max(kept.get(projection.pre, 1), 1 + steps)
    return kept


def _intermediate(qnet: QNetwork) -> list[_Block]:
    """Return the buffers between two learned operators of one projection."""
    blocks = []
    for projection in qnet.network.projections:
        for shape in _inner_shapes(qnet, projection):
            size = int(np.prod(shape)) * _ACCUMULATOR_BYTES
            place = projection.origin or projection.name
            blocks.append(
                _Block(where=place, kind="buffers", bytes=size, detail="sums between operators")
            )
    return blocks


def _inner_shapes(qnet: QNetwork, projection: Projection) -> list[tuple[int, ...]]:
    shapes = chain_shapes(qnet.network, projection)
    learned = [
        i
        for i, synapse in enumerate(projection.synapses)
        if isinstance(synapse, Dense | Csr | Conv1d | Conv2d)
    ]
    return [shapes[i] for i in learned[1:]]


def _place(blocks: list[_Block], device: Device, margin: float) -> dict[str, list[_Block]]:
    """Return the blocks of each RAM region, by limit key, every region of the device included."""
    sizes = {
        key: within(value.value, margin)
        for key, value in device.limits.items()
        if key.startswith("ram") and key.endswith("_bytes") and not isinstance(value.value, tuple)
    }
    if not sizes:
        return {"ram_bytes": blocks}
    free = dict(sizes)
    placed: dict[str, list[_Block]] = {key: [] for key in sizes}
    for block in sorted(blocks, key=lambda b: -b.bytes):
        room = [key for key in free if free[key] >= block.bytes]
        key = min(room, key=sizes.__getitem__) if room else max(free, key=free.__getitem__)
        free[key] -= block.bytes
        placed[key].append(block)
    return placed


def _ram_levers(qnet: QNetwork, blocks: list[_Block]) -> tuple[Lever, ...]:
    """Return a lever for each hidden population; inputs and outputs belong to the task."""
    ends = {*qnet.network.inputs, *qnet.network.outputs}
    levers: dict[str, Lever] = {}
    for block in blocks:
        if not block.neurons or block.where in ends:
            continue
        old = levers.get(block.where)
        # A bitmap is rounded up to a byte for each step that it keeps.
        rounding = block.bytes_per_neuron * BITS_PER_BYTE if block.kind == "spikes" else 0.0
        new = Lever(
            where=block.where,
            unit="neurons",
            count=block.neurons,
            cost=block.bytes_per_neuron,
            fixed=rounding,
        )
        if old is not None:
            new = replace(new, cost=old.cost + new.cost, fixed=old.fixed + new.fixed)
        levers[block.where] = new
    return tuple(levers.values())
