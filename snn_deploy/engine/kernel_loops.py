"""The integer engine's inner loops, event-driven and compiled by numba.

Only engine/kernel.py imports this file, and only when there is enough work: it knows which
networks keep every number here within int32. Offsets are unsigned, so that no index has to be
looked at for counting from the end; every intermediate is cast back to int32, so that the
compiler's vectors hold twice as many.
"""

from __future__ import annotations

import numpy as np

from snn_deploy.engine.kernel_plan import AT_ONCE, Plan
from snn_deploy.io.compiled import compiled
from snn_deploy.ir.arrays import Array

I32 = np.int32
U = np.uintp

_BITS = (np.arange(256)[:, None] >> np.arange(8)) & 1
_ONES = _BITS.sum(1).astype(np.uint8)
#: For each byte the places of its ones, ascending, and then of its zeros.
_PLACES = np.argsort(1 - _BITS, axis=1, kind="stable").astype(np.uint8)
#: Gathers the lowest bits of a word's eight bytes in its highest byte.
_GATHER = np.uint64(0x0102040810204080)


@compiled
def events(words: Array, begin: int, end: int, ids: Array, at: int, silent: int) -> int:
    """Write the places of ones in ``words`` (eight bytes of 0 or 1 each) to ``ids`` from ``at`` on.

    begin, end: of the population's words. Returns how many there are. AT_ONCE more entries of ids
    become ``silent``, the row of zeros.
    """
    place = U(at)
    for j in range(U(end) - U(begin)):
        word = words[U(begin) + j]
        if word:
            mask = U((word * _GATHER) >> np.uint64(56))
            for b in range(U(8)):
                ids[place + b] = I32(U(_PLACES[mask, b]) + j * U(8))
            place += U(_ONES[mask])
    for b in range(U(AT_ONCE)):
        ids[place + b] = silent
    return int(place - U(at))


@compiled
def tally(seen: Array, first: int, ones: Array, begin: int, n: int) -> None:
    """Add n bytes of 0 or 1 to bytes that count them."""
    for i in range(U(n)):
        seen[U(first) + i] += ones[U(begin) + i]


@compiled
def collect(counts: Array, first: int, seen: Array, begin: int, n: int) -> None:
    """Move n counts from bytes to ``counts``."""
    for i in range(U(n)):
        counts[U(first) + i] += seen[U(begin) + i]
        seen[U(begin) + i] = 0


@compiled
def add_rows(
    total: Array, first: int, n: int, rows: Array, row: int, ids: Array, at: int, many: int
) -> None:
    """Add the rows of some events, eight at a time, to n places of ``total``."""
    begin, start, width = U(first), U(row), U(n)
    for e in range(U(at), U(at) + U(many), U(AT_ONCE)):
        a = start + U(ids[e]) * width
        b = start + U(ids[e + U(1)]) * width
        c = start + U(ids[e + U(2)]) * width
        d = start + U(ids[e + U(3)]) * width
        p = start + U(ids[e + U(4)]) * width
        q = start + U(ids[e + U(5)]) * width
        r = start + U(ids[e + U(6)]) * width
        s = start + U(ids[e + U(7)]) * width
        for k in range(width):
            left = rows[a + k] + rows[b + k] + rows[c + k] + rows[d + k]
            right = rows[p + k] + rows[q + k] + rows[r + k] + rows[s + k]
            total[begin + k] += np.int16(left + right)


@compiled
def add_entries(
    total: Array,
    first: int,
    pointers: Array,
    posts: Array,
    weights: Array,
    row: int,
    ids: Array,
    at: int,
    many: int,
) -> None:
    """Add the stored weights of some events to ``total``."""
    for e in range(U(at), U(at) + U(many)):
        source = U(row) + U(ids[e])
        for k in range(U(pointers[source]), U(pointers[source + U(1)])):
            total[U(first) + U(posts[k])] += weights[k]


@compiled
def advance(
    total: Array,
    u: Array,
    v: Array,
    z: Array,
    first: int,
    span: int,
    keep_u: Array,
    keep_v: Array,
    bias: Array,
    threshold: Array,
    back: Array,
    shift: int,
    mask: int,
    limits: Array,
) -> tuple[int, int]:
    """Let u and v decay, add, fire and reset; returns how many v were cut and u wrapped.

    A state's product with a factor in 1/4096 is exact in float64; the cast rounds toward zero.
    """
    half, full, low, high = limits[0], limits[1], limits[2], limits[3]
    cut = I32(0)
    wrapped = I32(0)
    for i in range(U(first), U(first) + U(span)):
        drive = I32(I32(u[i] * keep_u[i]) + I32(total[i] << shift))
        new = I32(drive - full) if drive > half else drive
        new = I32(new + full) if new <= -half else new
        wrapped = I32(wrapped + I32(new != drive))
        u[i] = new
        summed = I32(I32(v[i] * keep_v[i]) + I32(new + bias[i]))
        inside = min(max(summed, low), high)
        fired = inside > threshold[i]
        z[i] = fired
        reset = I32(I32(inside & mask) + back[i]) if fired else inside
        kept = min(max(reset, low), high)
        v[i] = kept
        cut = I32(cut + I32(I32(summed != inside) + I32(reset != kept)))
    return int(cut), int(wrapped)


@compiled
def record(log: Array, at: int, step: int, values: Array, first: int, n: int) -> None:
    """Copy n values from ``first`` on to their step of a recording; ``at`` < 0: nowhere."""
    if at >= 0:
        for i in range(U(n)):
            log[U(at + step * n) + i] = values[U(first) + i]


@compiled
def simulate(
    plan: Plan,
    samples: int,
    steps: int,
    x: Array,
    spikes: Array,
    spikes_at: Array,
    us: Array,
    us_at: Array,
    vs: Array,
    vs_at: Array,
    counts: Array,
) -> tuple[int, int]:
    """Run samples of some steps; returns how many states were cut and how many wrapped.

    x: uint64 (samples * steps * words of a step,), eight input neurons in each (see Plan.column).
    spikes, us, vs: flat recordings, a population's (samples, steps, n) from its entry of
    ``*_at`` on, or none where that is negative. counts: int64, spikes are added; a population's
    start where its places of one copy would.
    """
    width = x.size // (samples * steps)
    ones = x.view(np.uint8)
    places = plan.bias.size
    u = np.zeros(places, np.int32)
    v = np.zeros(places, np.int32)
    z = np.zeros(places, np.uint8)
    words = z.view(np.uint64)
    total = np.zeros(places, np.int32)
    seen = np.zeros(places, np.uint8)
    seen_in = np.zeros(8 * width, np.uint8)
    # events() writes a little more than there is.
    most = plan.room.max() + 2 * AT_ONCE
    ids = np.zeros(plan.size.size * plan.copies * plan.slots * most, np.int32)
    many = np.zeros(plan.size.size * plan.copies * plan.slots, np.int64)
    cut = 0
    wrapped = 0
    for sample in range(0, samples, plan.copies):
        copies = min(plan.copies, samples - sample)
        u[:] = 0
        v[:] = plan.start
        for t in range(steps):
            slot = t % plan.slots
            for c in range(copies):
                step = ((sample + c) * steps + t) * width
                tally(seen_in, 0, ones, 8 * step, 8 * width)
                for p in plan.inputs:
                    here = (p * plan.copies + c) * plan.slots + slot
                    begin = step + plan.column[p]
                    end = begin + plan.room[p] // 8
                    many[here] = events(x, begin, end, ids, here * most, plan.size[p])
            for p in plan.order:
                first, room = plan.first[p], plan.room[p]
                span = copies * room
                total[first : first + span] = 0
                for c in range(copies):
                    own = first + c * room
                    for part in range(plan.parts[p], plan.parts[p + 1]):
                        if t < plan.delay[part]:
                            continue
                        then = (t - plan.delay[part]) % plan.slots
                        there = (plan.pre[part] * plan.copies + c) * plan.slots + then
                        row, at, k = plan.at[part], there * most, many[there]
                        if plan.dense[part]:
                            add_rows(total, own, room, plan.rows, row, ids, at, k)
                        else:
                            add_entries(
                                total, own, plan.pointers, plan.posts, plan.weights, row, ids, at, k
                            )
                more, turned = advance(
                    total, u, v, z, first, span, plan.keep_u, plan.keep_v, plan.bias,
                    plan.threshold, plan.back, plan.shift[p], plan.mask[p], plan.limits,
                )  # fmt: skip
                wrapped += turned
                cut += more
                tally(seen, first, z, first, span)
                for c in range(copies):
                    own, n = first + c * room, plan.size[p]
                    here = (p * plan.copies + c) * plan.slots + slot
                    many[here] = events(words, own // 8, (own + room) // 8, ids, here * most, n)
                    step = (sample + c) * steps + t
                    record(spikes, spikes_at[p], step, z, own, n)
                    record(us, us_at[p], step, u, own, n)
                    record(vs, vs_at[p], step, v, own, n)
            if t == steps - 1 or (t + 1) % (255 // plan.copies) == 0:  # before a byte is full
                for p in plan.inputs:
                    first = plan.first[p] // plan.copies
                    collect(counts, first, seen_in, 8 * plan.column[p], plan.size[p])
                for p in plan.order:
                    for c in range(copies):
                        own = plan.first[p] + c * plan.room[p]
                        collect(counts, plan.first[p] // plan.copies, seen, own, plan.size[p])
    return cut, wrapped
