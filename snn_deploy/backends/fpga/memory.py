"""Memories of a program: itemised bits, and the block RAM that they take on a part."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from snn_deploy.backends.fpga.program import Core, FpgaProgram, Segment
from snn_deploy.device.model import Device
from snn_deploy.device.usage import Lever, MemoryItem, MemoryKind, Resource, Usage

DISTRIBUTED_BITS = 1024  # below, a block would be wasted on a memory that fits look-up tables
_SPIKE_STEPS = 2
#: (width, depth) of a block, one read and one write port, by bits per block.
ASPECTS: dict[int, tuple[tuple[int, int], ...]] = {
    4096: ((2, 2048), (4, 1024), (8, 512), (16, 256)),
    18432: ((1, 16384), (2, 8192), (4, 4096), (9, 2048), (18, 1024), (36, 512)),
    36864: ((1, 32768), (2, 16384), (4, 8192), (9, 4096), (18, 2048), (36, 1024), (72, 512)),
}
_HALF_BLOCK = {36864: 18432}  # each block splits into two independent ones of half the size


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """``copies`` equal memories of depth x width bits that belong to one place."""

    where: str
    kind: MemoryKind
    width: int
    depth: int
    copies: int
    detail: str = ""

    @property
    def bits(self) -> int:
        """Bits of one copy."""
        return self.width * self.depth

    @property
    def distributed(self) -> bool:
        """Whether it is too small for block RAM."""
        return self.bits <= DISTRIBUTED_BITS


def memories(program: FpgaProgram) -> Iterator[Memory]:
    """Yield every memory of a program. A shared engine keeps all cores' contents as well; its
    FIFOs exist once.
    """
    for name, size in program.inputs:
        yield Memory(where=name, kind="spikes", width=1, depth=_SPIKE_STEPS * size, copies=1)
    fifos = program.cores
    if program.engines == "shared":
        fifos = (max(program.cores, key=lambda c: c.widths.pointer),)
    for core in program:
        name, banks = core.population, core.layout.banks
        yield Memory(
            where=name, kind="weights", width=core.widths.entry, depth=core.depth, copies=banks
        )
        if core.format == "csr":
            yield Memory(
                where=name,
                kind="pointers",
                width=banks * core.widths.pointer,
                depth=core.rows,
                copies=1,
            )
        yield Memory(
            where=name,
            kind="state",
            width=program.arithmetic.state_bits,
            depth=core.layout.words,
            copies=banks,
        )
        for table in core.tables:
            depth, lanes = table.words.shape
            yield Memory(
                where=name,
                kind="thresholds",
                width=lanes * table.bits,
                depth=depth,
                copies=1,
                detail=table.name.replace("_", " "),
            )
        if core.spiking:
            depth = _SPIKE_STEPS * core.layout.words
            yield Memory(where=name, kind="spikes", width=1, depth=depth, copies=banks)
        if core in fifos:
            slides = any(segment.window is not None for segment in core.segments)
            width = core.widths.pointer + (core.widths.address if slides else 0)
            yield Memory(
                where=name, kind="buffers", width=width, depth=program.fifo_depth, copies=banks
            )


def cut(memory: Memory, block_bits: int) -> tuple[int, ...]:
    """Return the depth of the blocks in each column of a memory, in the cut that takes fewest.

    The width is cut into columns of the block's own shapes; a half block counts as a block.
    Empty for distributed memory, and for a part whose shapes are not known.
    """
    shapes = ASPECTS.get(_HALF_BLOCK.get(block_bits, block_bits))
    if memory.distributed or shapes is None:
        return ()
    best: list[tuple[int, tuple[int, ...]]] = [(0, ())]
    for width in range(1, memory.width + 1):
        choices = (
            (best[max(0, width - shape)], math.ceil(memory.depth / deep), deep)
            for shape, deep in shapes
        )
        best.append(min((n + more, (*columns, deep)) for (n, columns), more, deep in choices))
    return best[memory.width][1]


def blocks(memory: Memory, block_bits: int) -> float:
    """Return the blocks that one copy takes; halves where a block splits into two.

    Synthesis may find a better cut by a block or two, or trim constant bits.
    """
    if memory.distributed:
        return 0.0
    columns = cut(memory, block_bits)
    if not columns:
        return float(math.ceil(memory.bits / block_bits))
    taken = sum(math.ceil(memory.depth / deep) for deep in columns)
    return taken * _HALF_BLOCK.get(block_bits, block_bits) / block_bits


def usage(program: FpgaProgram, device: Device) -> Usage:
    """Return memory itemised by layer, and block RAM against the device's.

    Look-up tables, flip-flops and multipliers are in ``excludes``: they need synthesis.
    """
    block_bits = int(device.limit("block_ram_bits"))
    items: list[MemoryItem] = []
    taken: dict[str, float] = {}
    weights: dict[str, Memory] = {}
    for memory in memories(program):
        per_copy = blocks(memory, block_bits)
        taken[memory.where] = taken.get(memory.where, 0.0) + per_copy * memory.copies
        region = "distributed RAM" if memory.distributed else "block RAM"
        if memory.kind == "weights":
            core = program.core(memory.where)
            weights[memory.where] = memory
            items += _entry_items(core, region)
        elif memory.kind == "pointers":
            core = program.core(memory.where)
            items += [_pointer_item(core, segment, region) for segment in core.segments]
        else:
            items.append(
                MemoryItem(
                    where=memory.where,
                    kind=memory.kind,
                    bits=memory.bits * memory.copies,
                    region=region,
                    detail=memory.detail,
                )
            )
    total = math.ceil(sum(taken.values()))
    levers = [
        lever
        for core in program
        if (lever := _lever(core, weights[core.population], taken[core.population], block_bits))
    ]
    resource = Resource(
        name="block RAM",
        where="the chip",
        used=total,
        limit_key="block_ram",
        unit="blocks",
        contributors=tuple((name, math.ceil(n)) for name, n in taken.items() if n > 0),
        levers=tuple(levers),
    )
    return Usage(
        items=tuple(items),
        resources=(resource,),
        excludes=(
            "look-up tables, flip-flops and multipliers: they need synthesis",
            "memories of at most 1,024 bits: they go into look-up tables",
        ),
    )


def _entry_items(core: Core, region: str) -> Iterator[MemoryItem]:
    """Yield weight and index bits per projection; words that no row uses go to the last one."""
    left = core.depth * core.layout.banks
    lengths = core.lengths()
    for i, segment in enumerate(core.segments):
        rows = slice(segment.first_row, segment.first_row + segment.rows)
        words = int(lengths[rows].sum()) if i < len(core.segments) - 1 else left
        left -= words
        fields: tuple[tuple[MemoryKind, int], ...] = (
            ("weights", core.widths.weight),
            ("indices", core.widths.index),
        )
        for kind, bits in fields:
            if bits:
                yield MemoryItem(
                    where=segment.projection,
                    kind=kind,
                    bits=words * bits,
                    region=region,
                    detail=core.choice,
                )


def _pointer_item(core: Core, segment: Segment, region: str) -> MemoryItem:
    return MemoryItem(
        where=segment.projection,
        kind="pointers",
        bits=segment.rows * core.layout.banks * core.widths.pointer,
        region=region,
    )


def _lever(core: Core, memory: Memory, all_blocks: float, block_bits: int) -> Lever | None:
    """Return how pruning shrinks a core's weight memory; None where it is not in block RAM.

    With its columns kept, a memory of d words takes at most d / depth + 1 blocks per column.
    Assumes that the pruned rows balance as well as these do.
    """
    columns = cut(memory, block_bits)
    count = int(core.lengths().sum())
    if core.format != "csr" or not columns or not count:
        return None
    share = memory.copies * _HALF_BLOCK.get(block_bits, block_bits) / block_bits
    per_word = share * sum(1 / deep for deep in columns)
    return Lever(
        where=core.population,
        unit="nonzeros",
        count=count,
        cost=per_word * core.depth / count,
        fixed=all_blocks - blocks(memory, block_bits) * memory.copies + share * len(columns),
    )
