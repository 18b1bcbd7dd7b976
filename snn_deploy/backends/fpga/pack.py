"""An engine's images: rows of entries in banks, pointers, maps and parameter tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from snn_deploy.backends.fpga.plan import Geometry
from snn_deploy.backends.fpga.program import (
    Banks,
    Engine,
    Format,
    Layer,
    Map,
    Segment,
    Table,
    Widths,
    Window,
)
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.network import Network, per_neuron
from snn_deploy.ir.quantized import QNetwork, QPopulation

# Dense rows execute their zeros: they may cost this much more work to save memory, no more.
_DENSE_MOST_WORDS = 1.5
_LONGEST_BITMAP = 64
#: Bits of an event's value where the input is analogue, sign included.
VALUE_BITS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldLimits:
    """The widest fields that the accelerator's words have, in bits."""

    length: int = 16
    start: int = 24
    index: int = 20
    weight: int = 16
    sum: int = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """Entries of rows: int64, one each. place: the neuron's address, or index under a kernel."""

    row: Array
    bank: Array
    place: Array
    tap: Array
    weight: Array

    @staticmethod
    def joined(parts: Sequence[Entries]) -> Entries:
        """Return several as one."""
        names = ("row", "bank", "place", "tap", "weight")
        joined = {n: np.concatenate([getattr(p, n) for p in parts]) for n in names}
        return Entries(**joined)


def packed(
    qnet: QNetwork,
    index: int,
    group: Sequence[str],
    layouts: Mapping[str, Banks],
    plans: Mapping[str, Sequence[Geometry]],
    skew: Mapping[str, int],
    *,
    formats: Mapping[Format, bool],
    first: int,
    limits: FieldLimits,
) -> Engine:
    """Return the engine of some layers. formats: those that may be chosen; first: the number of
    its first layer. Raises UnsupportedError, located, for a field that would not hold.
    """
    network = qnet.network
    layers: list[Layer] = []
    entries: list[Entries] = []
    rows = state = 0
    for number, name in enumerate(group):
        layout, q = layouts[name], qnet.populations[name]
        sums = np.zeros((layout.banks, layout.words), np.int64)
        segments: list[Segment] = []
        for plan in plans[name]:
            source = layouts.get(plan.pre)
            segment, own = _segment(network, plan, source, layout, rows)
            most = (1 << (VALUE_BITS - 1)) if plan.pre in network.inputs and qnet.levels else 1
            _add_sums(sums, plan, layout, most)
            segments.append(segment)
            entries.append(own)
            rows += segment.rows
        where = network.where(name)
        population = network.population(name)
        layers.append(
            Layer(
                population=name,
                index=first + number,
                layout=layout,
                segments=tuple(segments),
                tables=_tables(q, layout, population.shape, qnet, where),
                shift=q.shift,
                spiking=q.threshold is not None,
                reset=q.reset if q.threshold is not None else "none",
                state=state,
                skew=skew[name],
                sum_most=int(sums.max(initial=0)),
                current=bool(np.any(q.decay_u != 1 << qnet.arithmetic.decay_bits)),
                leak=bool(np.any(q.decay_v != 0)),
            )
        )
        state += layout.words
    made = _formatted(index, layers, Entries.joined(entries), rows, formats, qnet)
    _check(made, qnet, limits)
    return made


def _segment(
    network: Network, plan: Geometry, source: Banks | None, layout: Banks, first: int
) -> tuple[Segment, Entries]:
    """Return a segment whose rows start at ``first``, and their entries."""
    lanes = 1 if source is None else source.banks
    size = network.population(plan.pre).size
    words = size if source is None else source.words
    # Where each source neuron stands in the order of events.
    at = np.arange(size)
    if source is not None:
        bank, word = source.places()
        at = word * lanes + bank
    taps, map_ = 0, None
    row: Array
    if plan.window is not None:
        taps = plan.window.kernel[0] * plan.window.kernel[1]
        map_, row_of, rows = _kernel_map(plan, plan.window, source, layout, words, first)
        row, place, tap = _kernel_entries(plan, plan.window, source, layout, row_of)
        bank_to = layout.perm[plan.target] % layout.banks
    else:
        bank, address = layout.places()
        bank_to, place = bank[plan.target], address[plan.target]
        tap = np.zeros_like(place)
        if plan.pool is None:
            rows = words * lanes
            row = first + at[plan.row]
        else:
            map_, row_of, rows = _pool_map(plan, source, words, first)
            row = row_of[plan.row]
    segment = Segment(
        projection=plan.projection.name,
        pre=plan.pre,
        delay=plan.delay,
        lanes=lanes,
        first_row=first,
        rows=rows,
        map=map_,
        taps=taps,
        learned=plan.learned,
        composite=plan.composite,
    )
    return segment, Entries(row=row, bank=bank_to, place=place, tap=tap, weight=plan.weight)


def _words(source: Banks | None, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return (slot, pixel) of every word of a source of this shape (channels, ...).

    An input is one lane: its slots are its channels.
    """
    pixels = int(np.prod(shape[1:]))
    if source is None:
        slot, pixel = np.divmod(np.arange(shape[0] * pixels), pixels)
        return slot, pixel
    pixel, slot = np.divmod(np.arange(source.words), source.per_bank)
    return slot, pixel


def _place_of_channel(source: Banks | None, channels: int) -> Array:
    """Return slot * lanes + lane of every channel."""
    return np.arange(channels) if source is None else source.perm


def _pool_map(
    plan: Geometry, source: Banks | None, words: int, first: int
) -> tuple[Map, Array, int]:
    """Return the map of a pool before a fully connected layer, the row of every pooled event,
    and how many rows there are.
    """
    assert plan.pool is not None
    channels, _, width = plan.pool.shape
    _, out_h, out_w = plan.pool.out_shape
    slot, pixel = _words(source, plan.pool.shape)
    lanes = 1 if source is None else source.banks
    slots = channels if source is None else source.per_bank
    y, x = pixel // width // plan.pool.kernel[0], pixel % width // plan.pool.kernel[1]
    inside = (y < out_h) & (x < out_w)
    row = first + ((y * out_w + x) * slots + slot) * lanes
    map_ = Map(
        row=np.where(inside, row, -1),
        base=np.zeros(words, np.int64),
        reach=np.ones((words, 0), bool),
    )
    channel, spot = np.divmod(np.arange(channels * out_h * out_w), out_h * out_w)
    row_of = first + spot * slots * lanes + _place_of_channel(source, channels)[channel]
    return map_, row_of, out_h * out_w * slots * lanes


def _kernel_map(
    plan: Geometry, window: Window, source: Banks | None, layout: Banks, words: int, first: int
) -> tuple[Map, Array, int]:
    """Return the map of a kernel, the row of (class, channel), and how many rows there are.

    Pixels of one class (of their coordinates modulo the stride) meet the same taps.
    """
    shape = window.in_shape if plan.pool is None else plan.pool.shape
    channels = shape[0]
    slot, pixel = _words(source, shape)
    y, x = np.divmod(pixel, shape[2])
    inside = np.ones(words, bool)
    if plan.pool is not None:
        _, out_h, out_w = plan.pool.out_shape
        y, x = y // plan.pool.kernel[0], x // plan.pool.kernel[1]
        inside = (y < out_h) & (x < out_w)
        y, x = np.where(inside, y, 0), np.where(inside, x, 0)
    lanes = 1 if source is None else source.banks
    slots = channels if source is None else source.per_bank
    (sy, sx), (top, _, left, _) = window.stride, window.padding
    kind = (y + top) % sy * sx + (x + left) % sx
    _, _, out_w = window.out_shape
    base = ((y + top) // sy * out_w + (x + left) // sx) * layout.per_bank + layout.per_bank - 1
    rows_y, rows_x = window.axis(0) >= 0, window.axis(1) >= 0
    valid = rows_y[y][:, :, None] & rows_x[x][:, None, :]
    reach = valid.reshape(words, -1)
    row = first + (kind * slots + slot) * lanes
    row = np.where(inside & reach.any(axis=1), row, -1)
    place = _place_of_channel(source, channels)
    row_of = first + np.arange(sy * sx)[:, None] * (slots * lanes) + place[None, :]
    return Map(row=row, base=base, reach=reach), row_of, sy * sx * slots * lanes


def _kernel_entries(
    plan: Geometry, window: Window, source: Banks | None, layout: Banks, row_of: Array
) -> tuple[Array, Array, Array]:
    """Return (row, index, tap) of the entries of a kernel."""
    kh, kw = window.kernel
    channel, tap = np.divmod(plan.row, kh * kw)
    ky, kx = np.divmod(tap, kw)
    (sy, sx), (dy, dx) = window.stride, window.dilation
    kind = ky * dy % sy * sx + kx * dx % sx
    back = ky * dy // sy * window.out_shape[2] + kx * dx // sx
    slot = layout.perm[plan.target] // layout.banks
    index = back * layout.per_bank + layout.per_bank - 1 - slot
    return row_of[kind, channel], index, tap


def _add_sums(sums: Array, plan: Geometry, layout: Banks, most: int) -> None:
    """Add to the largest |sum| of each accumulator what one projection can bring in a step."""
    weight = np.abs(plan.weight) * most
    if plan.window is None:
        bank, address = layout.places()
        pooled = 1 if plan.pool is None else plan.pool.kernel[0] * plan.pool.kernel[1]
        np.add.at(sums, (bank[plan.target], address[plan.target]), weight * pooled)
        return
    pooled = 1 if plan.pool is None else plan.pool.kernel[0] * plan.pool.kernel[1]
    channel = np.bincount(plan.target, weights=weight * pooled, minlength=layout.channels)
    lane, slot = layout.perm % layout.banks, layout.perm // layout.banks
    per_slot = np.zeros((layout.banks, layout.per_bank), np.int64)
    per_slot[lane, slot] = channel.astype(np.int64)
    sums += np.tile(per_slot, (1, layout.pixels))


def bits(top: int) -> int:
    """Return the bits that hold 0..top, at least one."""
    return max(1, int(top).bit_length())


def signed_bits(low: int, high: int) -> int:
    """Return the bits that hold low..high in two's complement, at least two."""
    return max(2, max(int(high), -1 - int(low)).bit_length() + 1)


def _formatted(
    index: int,
    layers: Sequence[Layer],
    entries: Entries,
    rows: int,
    formats: Mapping[Format, bool],
    qnet: QNetwork,
) -> Engine:
    """Return the engine in the format that takes the fewest bits."""
    banks = layers[0].layout.banks
    flat = entries.row * banks + entries.bank
    counts = np.bincount(flat, minlength=rows * banks).reshape(rows, banks)
    segments = [s for layer in layers for s in layer.segments]
    taps = max(s.taps for s in segments)
    most_words = max(layer.layout.words for layer in layers)
    graded = bool(qnet.levels) and any(s.pre in qnet.network.inputs for s in segments)
    sum_bits = signed_bits(0, max(layer.sum_most for layer in layers))
    place = entries.place
    if taps:  # a kernel's indices count down from its base, modulo the address
        plain = np.concatenate([np.full(s.rows, s.taps == 0) for s in segments])[entries.row]
        owner = np.concatenate([np.full(s.rows, w - 1) for s, w in _owners(layers)])
        place = np.where(plain, owner[entries.row] - place, place)
    address = bits(most_words - 1)
    if taps:
        place = place & ((1 << address) - 1)
    depth = max(1, int(counts.sum(axis=0).max()))
    weight_bits = signed_bits(entries.weight.min(initial=0), entries.weight.max(initial=0))
    base = Widths(
        weight=weight_bits,
        index=bits(int(place.max(initial=0))),
        tap=bits(taps - 1) if taps else 0,
        start=bits(depth - 1),
        length=bits(int(counts.max(initial=0))),
        address=address,
        value=VALUE_BITS if graded else 0,
        sum=sum_bits,
        current=max(layer.shift for layer in layers) + sum_bits,
    )
    entry = base.weight + base.index + base.tap
    row_words = np.concatenate([np.full(s.rows, w) for s, w in _owners(layers)])
    dense_depth = int(row_words.sum())
    length = int(row_words.max())
    sizes: dict[Format, int] = {"csr": banks * (depth * entry + rows * base.pointer)}
    if not taps and not np.any(_doubled(entries, place)):
        if formats["bitmap"] and length <= _LONGEST_BITMAP:
            sizes["bitmap"] = banks * (depth * base.weight + rows * (base.start + length))
        # Rows of one length lie one after the other, and need no pointers.
        if formats["dense"] and len(layers) == 1 and dense_depth <= _DENSE_MOST_WORDS * depth:
            sizes["dense"] = banks * dense_depth * base.weight
    chosen = min(sizes, key=lambda name: sizes[name])
    names: dict[Format, str] = {"csr": "indices", "bitmap": "bitmaps", "dense": "no indices"}
    choice = "rows with " + ", ".join(
        f"{names[f]}: {size:,} bits" for f, size in sorted(sizes.items(), key=lambda p: p[1])
    )
    order = np.lexsort((place, entries.row, entries.bank))
    starts = np.cumsum(counts, axis=0) - counts
    bank = entries.bank[order]
    held = counts.sum(axis=0)
    at = np.arange(bank.size) - np.repeat(np.cumsum(held) - held, held)
    value = _twos(entries.weight[order], base.weight)
    bitmaps = None
    if chosen == "dense":
        first = np.cumsum(row_words) - row_words
        words = np.zeros((banks, dense_depth), np.uint64)
        words[entries.bank, first[entries.row] + place] = _twos(entries.weight, base.weight)
        widths = replace(base, index=0, start=bits(dense_depth - 1), length=bits(length))
        starts, counts = (np.repeat(a[:, None], banks, axis=1) for a in (first, row_words))
    else:
        words = np.zeros((banks, depth), np.uint64)
        widths = base
        if chosen == "bitmap":
            widths = replace(base, index=0, length=length)
            bitmaps = np.zeros((rows, banks), np.uint64)
            one = np.uint64(1) << place.astype(np.uint64)
            np.bitwise_or.at(bitmaps, (entries.row, entries.bank), one)
        else:
            tap = entries.tap[order].astype(np.uint64) << np.uint64(base.index)
            value = value | ((place[order].astype(np.uint64) | tap) << np.uint64(base.weight))
        words[bank, at] = value
        # A row without entries at the memory's end would start one word past it.
        starts = np.where(counts > 0, starts, 0)
    return Engine(
        index=index,
        layers=tuple(layers),
        format=chosen,
        choice=choice,
        widths=widths,
        weights=adopt(words),
        starts=adopt(starts.astype(np.int64)),
        lengths=adopt(counts.astype(np.int64)),
        bitmaps=None if bitmaps is None else adopt(bitmaps),
    )


def _owners(layers: Sequence[Layer]) -> list[tuple[Segment, int]]:
    """Return every segment with the words of its layer."""
    return [(s, layer.layout.words) for layer in layers for s in layer.segments]


def _doubled(entries: Entries, place: Array) -> Array:
    """Return which entries name a neuron twice in a row: such rows need indices."""
    key = np.stack([entries.row, entries.bank, place])
    order = np.lexsort(key)
    same = np.all(np.diff(key[:, order], axis=1) == 0, axis=0)
    return np.asarray(same)


def _check(engine: Engine, qnet: QNetwork, limits: FieldLimits) -> None:
    widths, layer = engine.widths, engine.layers[0]
    where = qnet.network.where(layer.population)
    hint = "prune the layer, or spread it over more banks: --set banks=N"
    longest = int(engine.lengths.max(initial=0))
    checks = (
        ("a row of synapses is longer than the pointer's length field",
         bits(longest), limits.length,
         f"{longest:,} of {(1 << limits.length) - 1:,} entries in one bank", hint),
        ("the weight memory is deeper than the pointer's start field", widths.start,
         limits.start, f"{engine.depth:,} of {1 << limits.start:,} words in one bank", hint),
        ("a bank holds more neurons than the index field addresses", widths.address,
         limits.index, f"{widths.address} of {limits.index} bits", hint),
        ("a multiplied-out weight is wider than the weight field", widths.weight,
         limits.weight, f"{widths.weight} of {limits.weight} bits", hint),
        ("the sum of a step can be wider than an accumulator", widths.current, limits.sum,
         f"{widths.current} of {limits.sum} bits",
         "prune the layer, or use fewer weight bits: --bits N"),
    )  # fmt: skip
    for message, needed, allowed, used, advice in checks:
        if needed > allowed:
            raise UnsupportedError(message, where=where, used=used, hint=advice)
    for layer in engine.layers:
        if layer.current:
            _check_current(layer, qnet, widths)


def _check_current(layer: Layer, qnet: QNetwork, widths: Widths) -> None:
    """Refuse a synaptic current that could leave its register."""
    arithmetic = qnet.arithmetic
    lost = np.asarray(qnet.populations[layer.population].decay_u, np.float64)
    share = lost / (1 << arithmetic.decay_bits)
    largest = float(np.max((layer.sum_most << layer.shift) / np.maximum(share, 1e-9)))
    limit = (1 << (arithmetic.state_bits - 1)) - 1
    if largest > limit:
        raise UnsupportedError(
            "the synaptic current can grow beyond its register",
            where=qnet.network.where(layer.population),
            used=f"{largest:,.0f} of {limit:,}",
            hint="prune the layer, use fewer weight bits (--bits N), or a shorter synaptic time "
            "constant",
        )


def _twos(values: Array, width: int) -> Array:
    """Return signed integers as two's complement words of ``width`` bits, uint64."""
    return (np.asarray(values, np.int64) & ((1 << width) - 1)).astype(np.uint64)


def _tables(
    q: QPopulation, layout: Banks, shape: tuple[int, ...], qnet: QNetwork, where: str
) -> tuple[Table, ...]:
    a = qnet.arithmetic
    one = 1 << a.decay_bits
    silent = (1 << a.threshold_bits) - 1  # a membrane never gets above it
    none = np.zeros((), np.int64)
    back = none
    if q.threshold is not None:
        back = q.reset_amount if q.reset == "subtract" else q.v_reset
    width = a.state_max.bit_length() + 1
    wanted = (
        ("threshold", silent if q.threshold is None else q.threshold, a.threshold_bits, False),
        ("bias", none if q.bias is None else q.bias, a.bias_bits, True),
        ("keep_u", one - np.asarray(q.decay_u), a.decay_bits + 1, False),
        ("keep_v", one - np.asarray(q.decay_v), a.decay_bits + 1, False),
        ("reset", back, width, True),
        ("start", q.v_init, width, True),
    )
    tables = []
    for name, value, width, signed in wanted:
        full = per_neuron(np.asarray(value), shape).astype(np.int64)
        low, high = (
            (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
        )
        if int(full.min()) < low or int(full.max()) > high:
            worst = int(full[np.argmax(np.abs(full))])
            raise UnsupportedError(
                f"{name} does not fit its register",
                where=where,
                used=f"{worst:,}, range {low:,}..{high:,}",
                hint="rescale the layer, so that its values are comparable to its threshold",
            )
        tables.append(_table(name, full, width, layout))
    return tuple(tables)


def _table(name: str, full: Array, width: int, layout: Banks) -> Table:
    """Return a parameter as one value, a word per slot, or a word per address."""
    by_channel = full.reshape(layout.channels, layout.pixels)
    if bool(np.all(full == full[0])):
        return Table(name=name, bits=width, per="layer", words=adopt(full[:1].reshape(1, 1).copy()))
    if layout.pixels > 1 and bool(np.all(by_channel == by_channel[:, :1])):
        memory = np.zeros((layout.per_bank, layout.banks), np.int64)
        memory[layout.perm // layout.banks, layout.perm % layout.banks] = by_channel[:, 0]
        return Table(name=name, bits=width, per="slot", words=adopt(memory))
    memory = np.zeros((layout.words, layout.banks), np.int64)
    bank, address = layout.places()
    memory[address, bank] = full
    return Table(name=name, bits=width, per="word", words=adopt(memory))
