"""Memory images of engines, as ``$readmemh`` loads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from snn_deploy.backends.fpga.program import Engine, FpgaProgram, Layer, Segment

TABLED = ("threshold", "bias", "keep_u", "keep_v", "reset", "start")


def threshold_image(program: FpgaProgram) -> tuple[str, int, list[int]] | None:
    """Return (name, width in bits, words) of the readout's thresholds; None without any."""
    unit = program.readout
    if unit is None or unit.thresholds is None:
        return None
    return "readout.thresholds", unit.bits, list(unit.thresholds)


def images(program: FpgaProgram, engine: Engine) -> Iterator[tuple[str, int, list[int]]]:
    """Yield (name, width in bits, words) of each memory; bank 0 in a wide word's lowest bits."""
    for bank in range(program.banks):
        yield f"weights.b{bank:02d}", engine.entry_bits, engine.weights[bank].tolist()
    w = engine.widths
    if engine.format != "dense":
        low = engine.lengths if engine.bitmaps is None else engine.bitmaps
        lanes = [
            [(start << w.length) | length for start, length in zip(*row, strict=True)]
            for row in zip(engine.starts.tolist(), low.tolist(), strict=True)
        ]
        yield "pointers", program.banks * w.pointer, _wide(lanes, w.pointer)
    maps = map_words(program, engine)
    if maps:
        yield "map", map_bits(engine), maps
    fields = tabled(engine)
    if fields:
        width = sum(engine.layers[0].table(name).bits for name in fields)
        yield "params", program.banks * width, _params(program, engine, fields)


def map_bits(engine: Engine) -> int:
    """Return the bits of a map's word: {none, row, base, reach}."""
    return 1 + row_bits(engine) + engine.widths.address + max(1, engine.taps)


def row_bits(engine: Engine) -> int:
    """Return the bits of a row's number."""
    return max(1, (engine.rows - 1).bit_length())


def map_starts(program: FpgaProgram, engine: Engine) -> list[int]:
    """Return where each segment's part of the map starts, 0 for one without."""
    starts, used = [], 0
    for segment in engine.segments:
        starts.append(used if segment.map is not None else 0)
        used += program.words_of(segment.pre) if segment.map is not None else 0
    return starts


def map_words(program: FpgaProgram, engine: Engine) -> list[int]:
    """Return the words of the map of all segments that have one."""
    words: list[int] = []
    for layer in engine.layers:
        for segment in layer.segments:
            words += _map(engine, layer, segment)
    return words


def _map(engine: Engine, layer: Layer, segment: Segment) -> list[int]:
    if segment.map is None:
        return []
    taps, address = max(1, engine.taps), engine.widths.address
    rows = row_bits(engine)
    base, reach = segment.map.base, segment.map.reach
    if not segment.taps:  # a pool before full rows, which count from their layer's last neuron
        base = np.full(len(base), layer.layout.words - 1)
        reach = np.ones((len(base), taps), bool)
    words = []
    for row, at, bits in zip(segment.map.row.tolist(), base.tolist(), reach, strict=True):
        inside = sum(1 << int(t) for t in np.flatnonzero(bits))
        low = ((at & ((1 << address) - 1)) << taps) | inside
        none = int(row < 0)
        words.append((((none << rows) | max(row, 0)) << (address + taps)) | low)
    return words


def tabled(engine: Engine) -> tuple[str, ...]:
    """Return the parameters that differ within a layer of an engine."""
    return tuple(n for n in TABLED if any(x.table(n).per != "layer" for x in engine.layers))


def by_slot(layer: Layer, fields: Sequence[str]) -> bool:
    """Return whether a layer's table has a word per slot, not per address."""
    return all(layer.table(n).per != "word" for n in fields)


def table_depth(layer: Layer, fields: Sequence[str]) -> int:
    """Return the words of a layer in its engine's table."""
    return layer.layout.per_bank if by_slot(layer, fields) else layer.layout.words


def _params(program: FpgaProgram, engine: Engine, fields: Sequence[str]) -> list[int]:
    words: list[int] = []
    for layer in engine.layers:
        depth = table_depth(layer, fields)
        lanes = [[0] * program.banks for _ in range(depth)]
        low = 0
        for name in fields:
            table = layer.table(name)
            full = np.broadcast_to(table.words, (len(table.words), program.banks))
            if table.per == "layer":
                full = np.broadcast_to(full, (depth, program.banks))
            elif len(full) != depth:  # a word per slot in a table by address
                full = np.tile(full, (depth // len(full), 1))
            mask = (1 << table.bits) - 1
            for word, values in zip(lanes, full.tolist(), strict=True):
                for bank, value in enumerate(values):
                    word[bank] |= (value & mask) << low
            low += table.bits
        words += _wide(lanes, low)
    return words


def _wide(rows: Sequence[Sequence[int]], width: int) -> list[int]:
    """Return rows of lanes as one integer each, lane 0 lowest."""
    return [sum(int(word) << (lane * width) for lane, word in enumerate(row)) for row in rows]


def hex_image(words: Sequence[int], width: int) -> bytes:
    """Return words as lines of hexadecimal digits, as many for each as ``width`` bits need."""
    digits = -(-width // 4)
    return "".join(f"{int(word):0{digits}x}\n" for word in words).encode()


def packed_parameter(values: Sequence[int], width: int = 32) -> str:
    """Return a SystemVerilog literal whose lowest bits are the first value."""
    digits = -(-width // 4)
    total = sum((int(v) & ((1 << width) - 1)) << (i * width) for i, v in enumerate(values))
    bits = width * len(values)
    return f"{bits}'h{total:0{digits}x}"
