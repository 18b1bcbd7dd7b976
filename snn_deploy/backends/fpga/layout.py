"""From a quantized network to banks and memory images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from snn_deploy.backends.fpga.plan import (
    Geometry,
    check_supported,
    geometry,
    kernel_shape,
    multiplied_out,
)
from snn_deploy.backends.fpga.program import Banks, Core, FpgaProgram, Segment, Table, Widths
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.network import per_neuron
from snn_deploy.ir.quantized import Arithmetic, QNetwork, QPopulation

_SWAPS_PER_BANK = 64
# Dense rows execute their zeros: they may cost this much more work to save memory, no more.
_DENSE_MOST_WORDS = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user may choose. banks: P of every core. fifo_depth: F, pointers that wait before
    a bank. dense_rows: whether rows may be stored without indices where that takes fewer bits
    and not much more work.
    """

    banks: int = 8
    fifo_depth: int = 4
    engines: Literal["per-layer", "shared"] = "per-layer"
    dense_rows: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldLimits:
    """The widest fields that the accelerator's words have, in bits."""

    length: int = 16
    start: int = 24
    index: int = 20
    weight: int = 16


def build(
    qnet: QNetwork,
    settings: Settings,
    *,
    expected: Mapping[str, Array] | None = None,
    limits: FieldLimits | None = None,
) -> FpgaProgram:
    """Return the memory images of a quantized network.

    expected: spikes per neuron and population from calibration, any unit; without it every
    event is as likely as another. Raises UnsupportedError for what has no form here, and for a
    row or memory that exceeds ``limits``.
    """
    network = qnet.network
    source, _ = network.input_population, network.output_population
    cores: list[Core] = []
    for index, name in enumerate(check_supported(network)):
        plans = [geometry(network, p) for p in network.into(name)]
        channels, pixels = network.population(name).size, 1
        shaped = [p for p in plans if p.window is not None]
        if shaped:
            channels, pixels = kernel_shape(network, shaped[0])
            plans = [
                multiplied_out(network, p)
                if p.window is not None and kernel_shape(network, p) != (channels, pixels)
                else p
                for p in plans
            ]
        loads = sum(
            (_loads(p, channels, pixels, (expected or {}).get(p.projection.pre)) for p in plans),
            start=np.zeros(channels),
        )
        perm = balance(loads, settings.banks)
        layout = Banks(banks=settings.banks, channels=channels, pixels=pixels, perm=perm)
        cores.append(_core(qnet, name, index, layout, plans, settings, limits or FieldLimits()))
    return FpgaProgram(
        cores=tuple(cores),
        inputs=((source.name, source.size),),
        banks=settings.banks,
        fifo_depth=settings.fifo_depth,
        engines=settings.engines,
        arithmetic=qnet.arithmetic,
    )


def balance(loads: Array, banks: int) -> Array:
    """Return a permutation, int64 (n,), that spreads ``loads`` evenly over ``banks``.

    Item j goes to bank ``perm[j] % banks``, slot ``perm[j] // banks``, and keeps its slot
    (``j // banks``), so that no bank holds more than ceil(n / banks) items and a walk over the
    slots meets the items of a bank in order. Greedy, slots with the largest spread first, then
    swaps within slots as long as they lower the fullest bank. Deterministic.
    """
    slots = -(-loads.size // banks)
    grid = np.zeros((slots, banks))
    grid.reshape(-1)[: loads.size] = loads
    lane = np.empty((slots, banks), np.int64)  # which item of its slot a bank holds
    total = np.zeros(banks)
    for slot in np.argsort(-np.ptp(grid, axis=1), kind="stable"):
        heavy = np.argsort(-grid[slot], kind="stable")
        light = np.argsort(total, kind="stable")
        lane[slot, light] = heavy
        total[light] += grid[slot, heavy]
    held = np.take_along_axis(grid, lane, axis=1)
    for _ in range(_SWAPS_PER_BANK * banks):
        top = int(total.argmax())
        gain = held[:, [top]] - held
        after = np.maximum(total[top] - gain, total[None, :] + gain)
        after[:, top] = np.inf
        slot, other = divmod(int(after.argmin()), banks)
        if after[slot, other] >= total[top]:
            break
        total[top] -= gain[slot, other]
        total[other] += gain[slot, other]
        for array in (held, lane):
            array[slot, [top, other]] = array[slot, [other, top]]
    perm = np.empty((slots, banks), np.int64)
    bank = np.arange(banks)[None, :]
    np.put_along_axis(perm, lane, np.arange(slots)[:, None] * banks + bank, axis=1)
    return adopt(perm.reshape(-1)[: loads.size].copy())


def _loads(plan: Geometry, channels: int, pixels: int, events: Array | None) -> Array:
    """Return the expected entries per channel of the post population, float64 (channels,)."""
    if events is None:
        rate = np.ones(plan.rows)
    else:
        rate = np.zeros(plan.rows)
        flat = np.asarray(events, np.float64).reshape(-1)
        at = plan.pool.transform() if plan.pool else np.arange(flat.size)
        if plan.window is None:
            np.add.at(rate, at[at >= 0], flat[at >= 0])
        else:
            taps = plan.window.kernel[0] * plan.window.kernel[1]
            area = plan.window.in_shape[1] * plan.window.in_shape[2]
            np.add.at(rate, at[at >= 0] // area * taps, flat[at >= 0])
            rate = np.repeat(rate[::taps], taps)
    target = plan.target if plan.window is not None else plan.target // pixels
    return np.bincount(target, weights=rate[plan.row], minlength=channels)


def _bits(top: int) -> int:
    """Return the bits that hold 0..top, at least one."""
    return max(1, int(top).bit_length())


def _core(
    qnet: QNetwork,
    name: str,
    index: int,
    layout: Banks,
    plans: list[Geometry],
    settings: Settings,
    limits: FieldLimits,
) -> Core:
    network, q = qnet.network, qnet.populations[name]
    where = network.where(name)
    bank, address = layout.places()
    rows, banks_of, indices, weights = [], [], [], []
    segments: list[Segment] = []
    first_row = first_word = 0
    for plan in plans:
        size = layout.per_bank if plan.window is not None else layout.words
        if plan.window is not None:
            banks_of.append(layout.perm[plan.target] % layout.banks)
            indices.append(layout.perm[plan.target] // layout.banks)
        else:
            banks_of.append(bank[plan.target])
            indices.append(address[plan.target])
        rows.append(plan.row + first_row)
        weights.append(plan.weight)
        segments.append(
            Segment(
                projection=plan.projection.name,
                pre=plan.projection.pre,
                pre_size=network.population(plan.projection.pre).size,
                first_row=first_row,
                rows=plan.rows,
                pool=plan.pool,
                window=plan.window,
                learned=plan.learned,
                composite=plan.composite,
                first_word=first_word,
                row_length=size,
            )
        )
        first_row += plan.rows
        first_word += plan.rows * size
    entries = _Entries(
        row=np.concatenate(rows),
        bank=np.concatenate(banks_of),
        index=np.concatenate(indices),
        weight=np.concatenate(weights),
    )
    packed = _pack(entries, segments, first_row, first_word, layout, settings, limits, where)
    format_, choice, widths, words, pointers = packed
    if format_ == "csr":
        segments = [replace(s, first_word=0, row_length=0) for s in segments]
    return Core(
        population=name,
        index=index,
        layout=layout,
        segments=tuple(segments),
        format=format_,
        choice=choice,
        widths=widths,
        weights=words,
        pointers=pointers,
        tables=_tables(q, layout, network.population(name).shape, qnet.arithmetic, where),
        shift=q.shift,
        spiking=q.threshold is not None,
        reset=q.reset if q.threshold is not None else "none",
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Entries:
    row: Array
    bank: Array
    index: Array
    weight: Array


def _pack(
    entries: _Entries,
    segments: list[Segment],
    rows: int,
    dense_depth: int,
    layout: Banks,
    settings: Settings,
    limits: FieldLimits,
    where: str,
) -> tuple[Literal["csr", "dense"], str, Widths, Array, Array]:
    banks = layout.banks
    counts = np.bincount(entries.row * banks + entries.bank, minlength=rows * banks)
    counts = counts.reshape(rows, banks)
    depth = max(1, int(counts.sum(axis=0).max()))
    signed = max(
        int(entries.weight.max(initial=0)), -1 - int(entries.weight.min(initial=0))
    ).bit_length()
    weight_bits = max(2, signed + 1)
    index_top = max(
        (layout.per_bank if s.window is not None else layout.words) - 1 for s in segments
    )
    widths = Widths(
        index=_bits(index_top),
        weight=weight_bits,
        start=_bits(depth - 1 if counts.any() else 0),
        length=_bits(int(counts.max(initial=0))),
        address=_bits(layout.words - 1),
    )
    csr_bits = banks * (depth * widths.entry + rows * widths.pointer)
    dense_bits = banks * dense_depth * weight_bits
    sparse = f"sparse rows ({csr_bits:,} bits, {depth:,} words per bank)"
    full = f"dense rows ({dense_bits:,} bits, {dense_depth:,} words per bank)"
    slower = dense_depth > _DENSE_MOST_WORDS * depth
    if settings.dense_rows and dense_bits < csr_bits and not slower:
        widths = replace(
            widths,
            index=0,
            start=_bits(dense_depth - 1),
            length=_bits(max(s.row_length for s in segments)),
        )
        _check_fields(widths, limits, where, max(s.row_length for s in segments), dense_depth)
        words = np.zeros((banks, dense_depth), np.uint64)
        first = np.concatenate(
            [s.first_word + np.arange(s.rows, dtype=np.int64) * s.row_length for s in segments]
        )
        at = first[entries.row] + entries.index
        words[entries.bank, at] = _twos(entries.weight, weight_bits)
        none = np.zeros((0, banks), np.uint64)
        return "dense", f"{full} rather than {sparse}", widths, adopt(words), adopt(none)
    _check_fields(widths, limits, where, int(counts.max(initial=0)), depth)
    starts = np.cumsum(counts, axis=0) - counts
    order = np.lexsort((entries.index, entries.row, entries.bank))
    bank = entries.bank[order]
    held = counts.sum(axis=0)
    at = np.arange(bank.size) - np.repeat(np.cumsum(held) - held, held)
    word = entries.index[order].astype(np.uint64) << np.uint64(weight_bits)
    words = np.zeros((banks, depth), np.uint64)
    words[bank, at] = word | _twos(entries.weight[order], weight_bits)
    # A row without entries at the memory's end would start one word past it.
    starts = np.where(counts > 0, starts, 0)
    pointers = (starts.astype(np.uint64) << np.uint64(widths.length)) | counts.astype(np.uint64)
    return "csr", f"{sparse} rather than {full}", widths, adopt(words), adopt(pointers)


def _check_fields(
    widths: Widths, limits: FieldLimits, where: str, longest: int, depth: int
) -> None:
    hint = "prune the layer, or spread it over more banks: --set banks=N"
    checks = (
        ("a row of synapses is longer than the pointer's length field", widths.length,
         limits.length, f"{longest:,} of {(1 << limits.length) - 1:,} entries in one bank"),
        ("the weight memory is deeper than the pointer's start field", widths.start,
         limits.start, f"{depth:,} of {1 << limits.start:,} words in one bank"),
        ("a bank holds more neurons than the index field addresses", widths.index,
         limits.index, f"{widths.index} of {limits.index} bits"),
        ("a multiplied-out weight is wider than the weight field", widths.weight,
         limits.weight, f"{widths.weight} of {limits.weight} bits"),
    )  # fmt: skip
    for message, needed, allowed, used in checks:
        if needed > allowed:
            raise UnsupportedError(message, where=where, used=used, hint=hint)


def _twos(values: Array, bits: int) -> Array:
    """Return signed integers as two's complement words of ``bits`` bits, uint64."""
    return (np.asarray(values, np.int64) & ((1 << bits) - 1)).astype(np.uint64)


def _tables(
    q: QPopulation, layout: Banks, shape: tuple[int, ...], arithmetic: Arithmetic, where: str
) -> tuple[Table, ...]:
    state = arithmetic.state_bits
    wanted: list[tuple[str, Array, int, bool]] = []
    if q.threshold is not None:
        wanted.append(("threshold", q.threshold, arithmetic.threshold_bits, False))
    if q.bias is not None:
        wanted.append(("bias", q.bias, arithmetic.bias_bits, True))
    wanted.append(("decay", q.decay_v, arithmetic.decay_bits + 1, False))
    if q.threshold is not None and q.reset == "value":
        wanted.append(("v_reset", q.v_reset, state, True))
    if q.threshold is not None and q.reset == "subtract":
        wanted.append(("reset_amount", q.reset_amount, state, True))
    tables = []
    for name, value, bits, signed in wanted:
        full = per_neuron(value, shape).astype(np.int64)
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        if int(full.min()) < low or int(full.max()) > high:
            worst = int(full[np.argmax(np.abs(full))])
            raise UnsupportedError(
                f"{name.replace('_', ' ')} does not fit its register",
                where=where,
                used=f"{worst:,}, range {low:,}..{high:,}",
                hint="rescale the layer, so that its values are comparable to its threshold",
            )
        tables.append(_table(name, full, bits, signed, layout))
    return tuple(tables)


def _table(name: str, full: Array, bits: int, signed: bool, layout: Banks) -> Table:
    """Return a parameter as one word, a word per slot, or a word per address."""
    words = _twos(full, bits)
    per: Literal["core", "channel", "neuron"]
    by_channel = words.reshape(layout.channels, layout.pixels)
    if bool(np.all(words == words[0])):
        per, memory = "core", words[:1].reshape(1, 1).copy()
    elif layout.pixels > 1 and bool(np.all(by_channel == by_channel[:, :1])):
        per, memory = "channel", np.zeros((layout.per_bank, layout.banks), np.uint64)
        memory[layout.perm // layout.banks, layout.perm % layout.banks] = by_channel[:, 0]
    else:
        per, memory = "neuron", np.zeros((layout.words, layout.banks), np.uint64)
        bank, address = layout.places()
        memory[address, bank] = words
    return Table(name=name, bits=bits, signed=signed, per=per, words=adopt(memory))
