"""From memory images back to integers: what the accelerator computes with these bits.

``decode`` reads the images alone; of the network it takes names, shapes and the wiring. A wrong
bit in an image therefore changes the decoded network as it would change the hardware.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from snn_deploy.backends.fpga.program import Engine, FpgaProgram, Layer, Segment, Table
from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.network import Projection
from snn_deploy.ir.quantized import QNetwork, QPopulation
from snn_deploy.ir.synapses import Csr


def decode(program: FpgaProgram, qnet: QNetwork) -> QNetwork:
    """Return ``qnet`` with every integer replaced by what the images hold.

    A projection with a delay per synapse, or a pool, comes back as one sparse matrix per delay.
    """
    projections: list[Projection] = []
    populations: dict[str, QPopulation] = {}
    by_name = {p.name: p for p in qnet.network.projections}
    for engine, layer in program.layers():
        populations[layer.population] = _population(layer, qnet.populations[layer.population])
        held = rows_of_entries(engine)
        for number, segment in enumerate(layer.segments):
            original = by_name[segment.projection]
            parts = [s for s in layer.segments if s.projection == segment.projection]
            # Feedback is the schedule's: only the rest of a delay stands in the network.
            late = min(s.delay for s in parts) - int(np.min(original.delay_steps))
            name = segment.projection if len(parts) == 1 else f"{segment.projection}.{number}"
            chain = (_matrix(program, layer, segment, held),)
            projections.append(
                replace(original, name=name, synapses=chain, delay_steps=segment.delay - late)
            )
    order = {p.name: i for i, p in enumerate(qnet.network.projections)}
    projections.sort(key=lambda p: order[p.name if p.name in order else p.name.rsplit(".", 1)[0]])
    network = replace(qnet.network, projections=tuple(projections))
    return replace(qnet, network=network, populations=populations)


def rows_of_entries(engine: Engine) -> tuple[Array, Array, Array, Array, Array]:
    """Return (row, bank, place, tap, weight) of every entry that the pointers reach, int64."""
    lengths, starts = engine.lengths, engine.starts
    flat = lengths.reshape(-1)
    row, bank = np.divmod(np.repeat(np.arange(flat.size), flat), lengths.shape[1])
    offset = np.arange(row.size) - np.repeat(np.cumsum(flat) - flat, flat)
    at = starts[row, bank] + offset
    inside = at < engine.depth  # past the image a memory holds zeros
    word = np.where(inside, engine.weights[bank, np.where(inside, at, 0)], np.uint64(0))
    w = engine.widths
    weight = signed(word & np.uint64((1 << w.weight) - 1), w.weight)
    tap = np.zeros_like(row)
    if engine.format == "dense":
        return row, bank, offset, tap, weight
    if engine.format == "bitmap":
        assert engine.bitmaps is not None
        ones = np.unpackbits(
            engine.bitmaps.astype("<u8").view(np.uint8).reshape(*lengths.shape, 8),
            axis=2,
            bitorder="little",
        )
        _, _, place = np.nonzero(ones)
        return row, bank, place, tap, weight
    rest = (word >> np.uint64(w.weight)).astype(np.int64)
    return row, bank, rest & ((1 << w.index) - 1), rest >> w.index, weight


def signed(words: Array, width: int) -> Array:
    """Return two's complement words of ``width`` bits as int64."""
    values = words.astype(np.int64)
    return values - ((values >> (width - 1)) << width)


def _matrix(program: FpgaProgram, layer: Layer, segment: Segment, held: Sequence[Array]) -> Csr:
    """Return a segment's synapses as (post, pre)."""
    engine, _ = program.layer(layer.population)
    row, bank, place, tap, weight = held
    words = program.words_of(segment.pre)
    rows = segment.rows_of(words)
    order = program.order_of(segment.pre)
    # Every position of the source with the entries of its row.
    by_row = np.argsort(row, kind="stable")
    first = np.searchsorted(row[by_row], np.arange(engine.rows + 1))
    positions = np.flatnonzero((rows >= 0) & (order >= 0))
    counts = first[rows[positions] + 1] - first[rows[positions]]
    position = np.repeat(positions, counts)
    offset = np.arange(position.size) - np.repeat(np.cumsum(counts) - counts, counts)
    entry = by_row[np.repeat(first[rows[positions]], counts) + offset]
    address = place[entry]
    keep = np.ones(entry.size, bool)
    mask = (1 << engine.widths.address) - 1
    if engine.taps:
        word = position // segment.lanes
        base = np.full(words, layer.layout.words - 1)
        if segment.map is not None and segment.taps:
            base = segment.map.base
            keep = segment.map.reach[word, np.minimum(tap[entry], segment.taps - 1)]
        address = (base[word] - address) & mask
    bank_to = bank[entry]
    neuron_at = layer.layout.neurons()
    fits = address < layer.layout.words
    post = np.where(fits, neuron_at[bank_to, np.where(fits, address, 0)], -1)
    keep = keep & (post >= 0) & (weight[entry] != 0)
    size = layer.layout.channels * layer.layout.pixels
    return _csr(
        post[keep], order[position][keep], weight[entry][keep], (size, _size(program, segment))
    )


def _size(program: FpgaProgram, segment: Segment) -> int:
    order = program.order_of(segment.pre)
    return int(np.count_nonzero(order >= 0))


def _csr(post: Array, pre: Array, weight: Array, shape: tuple[int, int]) -> Csr:
    order = np.lexsort((pre, post))
    post, pre, weight = post[order], pre[order], weight[order]
    if post.size:
        # A damaged image may name one neuron twice in a row: the hardware adds both.
        first = np.concatenate([[True], (np.diff(post) != 0) | (np.diff(pre) != 0)])
        group = np.flatnonzero(first)
        weight = np.add.reduceat(weight, group)
        post, pre = post[group], pre[group]
    counts = np.bincount(post, minlength=shape[0])
    return Csr(
        indptr=adopt(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)),
        indices=adopt(pre.astype(np.int32)),
        data=adopt(weight.astype(np.int32)),
        shape=shape,
    )


def _values(layer: Layer, table: Table) -> Array:
    """Return a parameter of every neuron, int64 (N,)."""
    layout, words = layer.layout, table.words
    if table.per == "layer":
        return np.broadcast_to(words[0, 0], (layout.channels * layout.pixels,))
    if table.per == "slot":
        slot, lane = layout.perm // layout.banks, layout.perm % layout.banks
        return np.repeat(words[slot, lane], layout.pixels)
    bank, address = layout.places()
    return np.asarray(words[address, bank])


def _population(layer: Layer, q: QPopulation) -> QPopulation:
    found = {t.name: adopt(_values(layer, t).copy()) for t in layer.tables}
    back = found["reset"]
    one = 1 << (layer.table("keep_v").bits - 1)
    return replace(
        q,
        shift=layer.shift,
        threshold=found["threshold"] if layer.spiking else None,
        bias=found["bias"],
        decay_u=adopt(one - found["keep_u"]),
        decay_v=adopt(one - found["keep_v"]),
        reset=layer.reset,
        v_reset=back if layer.reset == "value" else q.v_reset,
        reset_amount=back if layer.reset == "subtract" else q.reset_amount,
        v_init=found["start"],
    )
