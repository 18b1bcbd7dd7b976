"""Memories of a program: itemised bits, and the block RAM that they take on a part."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from snn_deploy.backends.fpga.images import map_bits, map_words, table_depth, tabled
from snn_deploy.backends.fpga.program import Engine, FpgaProgram
from snn_deploy.backends.fpga.verilog import bits_for, v_bits
from snn_deploy.device.model import Device
from snn_deploy.device.usage import Lever, MemoryItem, MemoryKind, Resource, Usage

DISTRIBUTED_BITS = 1024  # below, a block would be wasted on a memory that fits look-up tables
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
    """Yield every memory of a program: of its engines, and of the edges between them."""
    for engine in program.engines:
        yield from _engine(program, engine)
    for edge in program.edges:
        width = edge.lanes + bits_for(edge.words)
        if edge.pre == program.input[0]:
            width = bits_for(edge.words) + program.engines[edge.engine].widths.value
        yield Memory(
            where=edge.pre,
            kind="spikes",
            width=width,
            depth=edge.steps << (edge.words - 1).bit_length(),
            copies=1,
            detail=f"for {program.engines[edge.engine].name}",
        )


def _engine(program: FpgaProgram, engine: Engine) -> Iterator[Memory]:
    name, banks, w = engine.name, program.banks, engine.widths

    def memory(kind: MemoryKind, width: int, depth: int, copies: int, detail: str = "") -> Memory:
        return Memory(where=name, kind=kind, width=width, depth=depth, copies=copies, detail=detail)

    yield memory("weights", engine.entry_bits, engine.depth, banks)
    if engine.format != "dense":
        yield memory("pointers", banks * w.pointer, engine.rows, 1)
    maps = len(map_words(program, engine))
    if maps:
        yield memory("pointers", map_bits(engine), maps, 1, "where kernels lie")
    most = max(layer.layout.words for layer in engine.layers)
    yield memory("state", w.sum, most, 2 * banks, "sums, two halves")
    yield memory("state", v_bits(program), engine.states, banks, "membranes")
    if any(layer.current for layer in engine.layers):
        yield memory("state", program.arithmetic.state_bits, engine.states, banks, "currents")
    fields = tabled(engine)
    if fields:
        width = sum(engine.layers[0].table(n).bits for n in fields)
        depth = sum(table_depth(layer, fields) for layer in engine.layers)
        yield memory("thresholds", banks * width, depth, 1, ", ".join(fields).replace("_", " "))
    kernel = w.address + engine.taps if engine.taps else 0
    yield memory("buffers", w.pointer + kernel + w.value, program.fifo_depth, banks)


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
    by_name = {engine.name: engine for engine in program.engines}
    for memory in memories(program):
        per_copy = blocks(memory, block_bits)
        taken[memory.where] = taken.get(memory.where, 0.0) + per_copy * memory.copies
        region = "distributed RAM" if memory.distributed else "block RAM"
        if memory.kind == "weights":
            weights[memory.where] = memory
            items += _entry_items(by_name[memory.where], region)
        elif memory.kind == "pointers" and not memory.detail:
            items += _pointer_items(by_name[memory.where], region)
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
        for engine in program.engines
        if (lever := _lever(engine, weights[engine.name], taken[engine.name], block_bits))
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


def _entry_items(engine: Engine, region: str) -> Iterator[MemoryItem]:
    """Yield weight and index bits per projection; words that no row uses go to the last one."""
    left = engine.weights.size
    segments = engine.segments
    for number, segment in enumerate(segments):
        rows = slice(segment.first_row, segment.first_row + segment.rows)
        words = int(engine.lengths[rows].sum()) if number < len(segments) - 1 else left
        left -= words
        fields: tuple[tuple[MemoryKind, int], ...] = (
            ("weights", engine.widths.weight),
            ("indices", engine.entry_bits - engine.widths.weight),
        )
        for kind, width in fields:
            if width:
                yield MemoryItem(
                    where=segment.projection,
                    kind=kind,
                    bits=words * width,
                    region=region,
                    detail=engine.choice,
                )


def _pointer_items(engine: Engine, region: str) -> Iterator[MemoryItem]:
    for segment in engine.segments:
        yield MemoryItem(
            where=segment.projection,
            kind="pointers",
            bits=segment.rows * engine.lengths.shape[1] * engine.widths.pointer,
            region=region,
        )


def _lever(engine: Engine, memory: Memory, all_blocks: float, block_bits: int) -> Lever | None:
    """Return how pruning shrinks an engine's weight memory; None where it is not in block RAM.

    With its columns kept, a memory of d words takes at most d / depth + 1 blocks per column.
    Assumes that the pruned rows balance as well as these do.
    """
    columns = cut(memory, block_bits)
    count = int(engine.lengths.sum())
    if engine.format == "dense" or not columns or not count:
        return None
    share = memory.copies * _HALF_BLOCK.get(block_bits, block_bits) / block_bits
    per_word = share * sum(1 / deep for deep in columns)
    return Lever(
        where=engine.name,
        unit="nonzeros",
        count=count,
        cost=per_word * engine.depth / count,
        fixed=all_blocks - blocks(memory, block_bits) * memory.copies + share * len(columns),
    )
