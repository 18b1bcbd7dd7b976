"""From memory images back to integers: what the accelerator would compute with these bits.

``decode`` reads the images alone; of the network it takes names, shapes and the wiring. A wrong
bit in an image therefore changes the decoded network as it would change the hardware.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snn_deploy.backends.fpga.program import Core, FpgaProgram, Segment, Table
from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.network import Projection
from snn_deploy.ir.quantized import QNetwork, QPopulation
from snn_deploy.ir.synapses import Csr, Pool2d, Synapse


def decode(program: FpgaProgram, qnet: QNetwork) -> QNetwork:
    """Return ``qnet`` with every integer replaced by what the images hold."""
    projections: dict[str, Projection] = {}
    populations: dict[str, QPopulation] = {}
    by_name = {p.name: p for p in qnet.network.projections}
    for core in program:
        populations[core.population] = _population(core, qnet.populations[core.population])
        row, bank, index, weight = entries(core)
        for segment in core.segments:
            span = (row >= segment.first_row) & (row < segment.first_row + segment.rows)
            chain = _chain(
                core, segment, row[span] - segment.first_row, bank[span], index[span], weight[span]
            )
            projections[segment.projection] = replace(by_name[segment.projection], synapses=chain)
    network = replace(
        qnet.network, projections=tuple(projections[p.name] for p in qnet.network.projections)
    )
    return replace(qnet, network=network, populations=populations)


def entries(core: Core) -> tuple[Array, Array, Array, Array]:
    """Return (row, bank, index, weight) of every entry that the pointers reach, int64."""
    lengths, starts = core.lengths(), core.starts()
    flat = lengths.reshape(-1)
    row, bank = np.divmod(np.repeat(np.arange(flat.size), flat), core.layout.banks)
    offset = np.arange(row.size) - np.repeat(np.cumsum(flat) - flat, flat)
    at = starts[row, bank] + offset
    inside = at < core.depth  # past the image a memory holds zeros
    word = np.where(inside, core.weights[bank, np.where(inside, at, 0)], np.uint64(0))
    bits = core.widths.weight
    weight = signed(word & np.uint64((1 << bits) - 1), bits)
    if core.format == "dense":
        return row, bank, offset, weight
    return row, bank, (word >> np.uint64(bits)).astype(np.int64), weight


def signed(words: Array, bits: int) -> Array:
    """Return two's complement words of ``bits`` bits as int64."""
    values = words.astype(np.int64)
    return values - ((values >> (bits - 1)) << bits)


def _chain(
    core: Core, segment: Segment, row: Array, bank: Array, index: Array, weight: Array
) -> tuple[Synapse, ...]:
    neuron_at = core.layout.neurons()
    size = core.layout.channels * core.layout.pixels
    if segment.window is None:
        pre, address = row, index
        width = segment.rows
    else:
        pre, address, bank, weight = _slide(core, segment, row, bank, index, weight)
        width = int(np.prod(segment.window.in_shape))
    address = address & ((1 << core.widths.address) - 1)
    inside = address < core.layout.words
    post = np.where(inside, neuron_at[bank, np.where(inside, address, 0)], -1)
    keep = (post >= 0) & (weight != 0)
    csr = _csr(post[keep], pre[keep], weight[keep], (size, width))
    if segment.pool is None:
        return (csr,)
    kernel = segment.pool.kernel
    return (Pool2d(kind="sum", kernel=kernel, stride=kernel), csr)


def _slide(
    core: Core, segment: Segment, row: Array, bank: Array, index: Array, weight: Array
) -> tuple[Array, Array, Array, Array]:
    """Return (event, address, bank, weight) of kernel entries at every pixel that they reach."""
    window = segment.window
    assert window is not None
    _, height, width = window.in_shape
    out_w = window.out_shape[2]
    kh, kw = window.kernel
    channel, tap = np.divmod(row, kh * kw)
    ys, xs = window.axis(0), window.axis(1)
    parts: list[tuple[Array, Array, Array, Array]] = []
    for ky in range(kh):
        for kx in range(kw):
            here = np.flatnonzero(tap == ky * kw + kx)
            y, x = np.flatnonzero(ys[:, ky] >= 0), np.flatnonzero(xs[:, kx] >= 0)
            if not (here.size and y.size and x.size):
                continue
            base = (ys[y, ky][:, None] * out_w + xs[x, kx][None, :]) * core.layout.per_bank
            pixel = y[:, None] * width + x[None, :]
            event = channel[here][:, None] * (height * width) + pixel.reshape(1, -1)
            address = index[here][:, None] + base.reshape(1, -1)
            spread = np.broadcast_to
            parts.append(
                (
                    event.reshape(-1),
                    address.reshape(-1),
                    spread(bank[here][:, None], address.shape).reshape(-1),
                    spread(weight[here][:, None], address.shape).reshape(-1),
                )
            )
    if not parts:
        none = np.zeros(0, np.int64)
        return none, none, none, none
    event, address, banks, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    return event, address, banks, weights


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


def _values(core: Core, table: Table) -> Array:
    """Return a parameter of every neuron, int64 (N,)."""
    words, layout = table.words, core.layout
    if table.per == "core":
        chosen = np.broadcast_to(words[0, 0], (layout.channels * layout.pixels,))
    elif table.per == "channel":
        slot, lane = layout.perm // layout.banks, layout.perm % layout.banks
        chosen = np.repeat(words[slot, lane], layout.pixels)
    else:
        bank, address = layout.places()
        chosen = words[address, bank]
    mask = np.uint64((1 << table.bits) - 1)
    return adopt(signed(chosen & mask, table.bits if table.signed else 63))


def _population(core: Core, q: QPopulation) -> QPopulation:
    found = {t.name: _values(core, t) for t in core.tables}
    return replace(
        q,
        shift=core.shift,
        threshold=found.get("threshold") if core.spiking else None,
        bias=found.get("bias"),
        decay_v=found["decay"],
        reset=core.reset,
        v_reset=found.get("v_reset", q.v_reset),
        reset_amount=found.get("reset_amount", q.reset_amount),
    )
