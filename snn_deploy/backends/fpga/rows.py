"""A projection's geometry as rows of entries in banks, and how its events become rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from snn_deploy.backends.fpga.plan import Geometry
from snn_deploy.backends.fpga.program import Banks, Map, Segment, Window
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network


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


def segment_of(
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


def add_sums(sums: Array, plan: Geometry, layout: Banks, most: int) -> None:
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
