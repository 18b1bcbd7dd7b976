"""The integer engine's inner loops, event-driven and compiled by numba.

Only engine/kernel.py imports this file, and only when there is enough work: it knows which
networks keep every number here within int32. Offsets are unsigned, so that no index has to be
looked at for counting from the end; every intermediate is cast back to int32, so that the
compiler's vectors hold twice as many.
"""

from __future__ import annotations

import numpy as np

from snn_deploy.engine.kernel import AT_ONCE, Plan
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
def events(z: Array, ids: Array) -> int:
    """Write the places of the ones in ``z`` (uint8) to ``ids``; returns how many.

    Up to eight more entries of ids are overwritten: they then point at the row of zeros.
    """
    many = U(0)
    words = z[: z.size // 8 * 8].view(np.uint64)
    for j in range(U(words.size)):
        if words[j]:
            mask = U((words[j] * _GATHER) >> np.uint64(56))
            for b in range(U(8)):
                ids[many + b] = I32(U(_PLACES[mask, b]) + j * U(8))
            many += U(_ONES[mask])
    for j in range(U(words.size * 8), U(z.size)):
        if z[j]:
            ids[many] = I32(j)
            many += U(1)
    for b in range(U(AT_ONCE)):
        ids[many + b] = z.size
    return np.int64(many)


@compiled
def add_rows(total: Array, rows: Array, at: int, ids: Array, many: int) -> None:
    """Add the rows of ``ids`` to ``total``, eight at a time."""
    n = U(total.size)
    start = U(at)
    for e in range(U(0), U(many), U(AT_ONCE)):
        a = start + U(ids[e]) * n
        b = start + U(ids[e + U(1)]) * n
        c = start + U(ids[e + U(2)]) * n
        d = start + U(ids[e + U(3)]) * n
        p = start + U(ids[e + U(4)]) * n
        q = start + U(ids[e + U(5)]) * n
        r = start + U(ids[e + U(6)]) * n
        s = start + U(ids[e + U(7)]) * n
        for k in range(n):
            left = rows[a + k] + rows[b + k] + rows[c + k] + rows[d + k]
            right = rows[p + k] + rows[q + k] + rows[r + k] + rows[s + k]
            total[k] += np.int16(left + right)


@compiled
def add_entries(
    total: Array, pointers: Array, posts: Array, weights: Array, at: int, ids: Array, many: int
) -> None:
    """Add the stored weights of the source neurons ``ids`` to ``total``."""
    for e in range(U(many)):
        row = U(at) + U(ids[e])
        for k in range(U(pointers[row]), U(pointers[row + U(1)])):
            total[U(posts[k])] += weights[k]


@compiled
def saturate_rows(
    v: Array, rows: Array, at: int, ids: Array, many: int, shift: int, low: int, high: int
) -> int:
    """Add the rows of ``ids`` to ``v`` one after the other, each sum within low..high.

    Returns how often one was cut.
    """
    n = U(v.size)
    cut = I32(0)
    for e in range(U(many)):
        a = U(at) + U(ids[e]) * n
        for k in range(n):
            summed = I32(v[k] + I32(I32(rows[a + k]) << shift))
            v[k] = min(max(summed, low), high)
            cut = I32(cut + I32(summed != v[k]))
    return np.int64(cut)


@compiled
def saturate_entries(
    v: Array,
    pointers: Array,
    posts: Array,
    weights: Array,
    at: int,
    ids: Array,
    many: int,
    shift: int,
    low: int,
    high: int,
) -> int:
    """Do what saturate_rows does with stored entries."""
    cut = 0
    for e in range(U(many)):
        row = U(at) + U(ids[e])
        for k in range(U(pointers[row]), U(pointers[row + U(1)])):
            post = U(posts[k])
            summed = I32(v[post] + I32(I32(weights[k]) << shift))
            v[post] = min(max(summed, low), high)
            cut += summed != v[post]
    return cut


@compiled
def decayed(state: int, factor: float, floor: bool, loss: bool) -> int:
    """Return a state after decay. Its product with a factor of 1/4096 is exact in float64."""
    product = state * factor
    share = I32(np.floor(product)) if floor else I32(product)
    return I32(state - share) if loss else share


@compiled
def fire(
    v: Array, z: Array, threshold: Array, reset_to: Array, amount: Array, limits: Array, sub: bool
) -> int:
    """Compare, reset and write spikes to ``z``; returns how many states were cut."""
    low, high = limits[2], limits[3]
    cut = I32(0)
    for i in range(v.size):
        fired = v[i] > threshold[i]
        z[i] = fired
        if sub:
            less = I32(v[i] - amount[i]) if fired else v[i]
            v[i] = min(max(less, low), high)
            cut = I32(cut + I32(less != v[i]))
        else:
            v[i] = reset_to[i] if fired else v[i]
    return np.int64(cut)


@compiled
def integrate_before(
    total: Array,
    u: Array,
    v: Array,
    keep_u: Array,
    keep_v: Array,
    bias: Array,
    shift: int,
    limits: Array,
    floor: bool,
    loss: bool,
) -> tuple[int, int]:
    """Let u and v decay, then add; returns how many v were cut and how many u wrapped."""
    half, full, low, high = limits[0], limits[1], limits[2], limits[3]
    cut = I32(0)
    wrapped = I32(0)
    for i in range(v.size):
        drive = I32(decayed(u[i], keep_u[i], floor, loss) + I32(total[i] << shift))
        new = I32(drive - full) if drive > half else drive
        new = I32(new + full) if new <= -half else new
        wrapped = I32(wrapped + I32(new != drive))
        u[i] = new
        summed = I32(decayed(v[i], keep_v[i], floor, loss) + I32(new + bias[i]))
        v[i] = min(max(summed, low), high)
        cut = I32(cut + I32(summed != v[i]))
    return np.int64(cut), np.int64(wrapped)


@compiled
def integrate_after(
    total: Array, leaked: Array, v: Array, bias: Array, shift: int, limits: Array, each: bool
) -> int:
    """Add to the leaked state, or, where each entry was added to v, the bias alone."""
    low, high = limits[2], limits[3]
    cut = I32(0)
    for i in range(v.size):
        summed = v[i] if each else I32(leaked[i] + I32(total[i] << shift))
        inside = min(max(summed, low), high)
        biased = I32(inside + bias[i])
        v[i] = min(max(biased, low), high)
        cut = I32(cut + I32(I32(summed != inside) + I32(biased != v[i])))
    return np.int64(cut)


@compiled
def simulate(
    plan: Plan,
    x: Array,
    spikes: Array,
    spikes_at: Array,
    us: Array,
    us_at: Array,
    vs: Array,
    vs_at: Array,
    counts: Array,
) -> tuple[int, int]:
    """Run x, uint8 (samples, steps, inputs); returns how many states were cut and wrapped.

    spikes, us, vs: flat recordings, a population's (samples, steps, n) from its entry of
    ``*_at`` on, or none where that is negative. counts: int64 (N,), spikes are added.
    """
    samples, steps, _ = x.shape
    neurons = plan.keep_u.size
    low, high = plan.limits[2], plan.limits[3]
    u = np.zeros(neurons, np.int32)
    v = np.zeros(neurons, np.int32)
    z = np.zeros(neurons, np.uint8)
    total = np.zeros(neurons, np.int32)
    # Room behind every population: events() writes a little more than there is.
    room = plan.size.max() + 2 * AT_ONCE
    ids = np.zeros((plan.size.size, plan.slots, room), np.int32)
    many = np.zeros((plan.size.size, plan.slots), np.int64)
    cut = 0
    wrapped = 0
    for sample in range(samples):
        u[:] = 0
        v[:] = 0
        for t in range(steps):
            slot = t % plan.slots
            for p in plan.inputs:
                row = x[sample, t, plan.column[p] : plan.column[p] + plan.size[p]]
                many[p, slot] = events(row, ids[p, slot])
                base = plan.first[p]
                for e in range(many[p, slot]):
                    counts[U(base + ids[p, slot, e])] += 1
            for p in plan.order:
                n = plan.size[p]
                span = slice(plan.first[p], plan.first[p] + n)
                sum_p, u_p, v_p, z_p = total[span], u[span], v[span], z[span]
                shift = plan.shift[p]
                if plan.each:
                    v_p[:] = u_p
                else:
                    sum_p[:] = 0
                for part in range(plan.parts[p], plan.parts[p + 1]):
                    if t < plan.delay[part]:
                        continue
                    pre = plan.pre[part]
                    then = (t - plan.delay[part]) % plan.slots
                    who, k, at = ids[pre, then], many[pre, then], plan.at[part]
                    if plan.dense[part]:
                        if plan.each:
                            cut += saturate_rows(v_p, plan.rows, at, who, k, shift, low, high)
                        else:
                            add_rows(sum_p, plan.rows, at, who, k)
                    elif plan.each:
                        cut += saturate_entries(
                            v_p,
                            plan.pointers,
                            plan.posts,
                            plan.weights,
                            at,
                            who,
                            k,
                            shift,
                            low,
                            high,
                        )
                    else:
                        add_entries(sum_p, plan.pointers, plan.posts, plan.weights, at, who, k)
                if plan.before:
                    more, turned = integrate_before(
                        sum_p,
                        u_p,
                        v_p,
                        plan.keep_u[span],
                        plan.keep_v[span],
                        plan.bias[span],
                        shift,
                        plan.limits,
                        plan.floor,
                        plan.loss,
                    )
                    wrapped += turned
                else:
                    more = integrate_after(
                        sum_p, u_p, v_p, plan.bias[span], shift, plan.limits, plan.each
                    )
                cut += more
                cut += fire(
                    v_p,
                    z_p,
                    plan.threshold[span],
                    plan.reset_to[span],
                    plan.amount[span],
                    plan.limits,
                    plan.subtract[p],
                )
                if not plan.before:
                    for i in range(n):
                        u_p[i] = decayed(
                            v_p[i], plan.keep_v[plan.first[p] + i], plan.floor, plan.loss
                        )
                many[p, slot] = events(z_p, ids[p, slot])
                for e in range(many[p, slot]):
                    counts[U(plan.first[p] + ids[p, slot, e])] += 1
                where = (sample * steps + t) * n
                if spikes_at[p] >= 0:
                    spikes[spikes_at[p] + where : spikes_at[p] + where + n] = z_p
                if us_at[p] >= 0:
                    us[us_at[p] + where : us_at[p] + where + n] = u_p
                if vs_at[p] >= 0:
                    vs[vs_at[p] + where : vs_at[p] + where + n] = v_p
    return cut, wrapped
