"""An engine's images: rows of entries in banks, pointers, maps and parameter tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from snn_deploy.backends.fpga.plan import Geometry
from snn_deploy.backends.fpga.program import Banks, Engine, Format, Layer, Segment, Widths
from snn_deploy.backends.fpga.rows import Entries, add_sums, segment_of
from snn_deploy.backends.fpga.tables import tables_of
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.quantized import QNetwork

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
            segment, own = segment_of(network, plan, source, layout, rows)
            most = (1 << (VALUE_BITS - 1)) if plan.pre in network.inputs and qnet.levels else 1
            add_sums(sums, plan, layout, most)
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
                tables=tables_of(q, layout, population.shape, qnet, where),
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
        current=max(x.shift + signed_bits(0, x.sum_most) for x in layers),
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
