"""The run-ahead recurrence over a batch, compiled by numba."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from snn_deploy.io import compiled as io_compiled
from snn_deploy.ir.arrays import Array

#: Columns of ``ingest``'s result.
COLUMNS = ("time", "slots", "entries", "busiest", "stalls", "pointers", "pushes")


def ingest(
    first: Array,
    events: Array,
    pattern_of: Array,
    base: Array,
    pattern_first: Array,
    taps: Array,
    lengths: Array,
    depth: int,
) -> Any:
    """Return, per step, how long a core's banks take to swallow its events.

    first: int64 (steps+1,), where each step's events start in ``events``. An event e expands to
    rows ``base[e] + tap`` for the taps of its pattern; a negative tap takes a slot and reads
    nothing. lengths: int64 (rows, banks). depth: of the FIFOs. Result: int64 (steps, 7), see
    COLUMNS.

    Row k is pushed at p_k = max(p_{k-1} + 1, c[b, m_b - depth] + 1 over all banks b), where
    c[b, i] is when bank b takes its i-th pointer and m_b how many were pushed to it; it takes
    this one at max(p_k + 1, the end of the one before) and is busy for its length.
    """
    banks = lengths.shape[1]
    steps = first.size - 1
    result = np.zeros((steps, 7), np.int64)
    taken = np.zeros((banks, depth), np.int64)
    pushed = np.zeros(banks, np.int64)
    free_at = np.zeros(banks, np.int64)
    work = np.zeros(banks, np.int64)
    for step in range(steps):
        pushed[:] = 0
        free_at[:] = 0
        work[:] = 0
        now = 0
        slots = 0
        stalls = 0
        pointers = 0
        for k in range(first[step], first[step + 1]):
            event = events[k]
            pattern = pattern_of[event]
            for i in range(pattern_first[pattern], pattern_first[pattern + 1]):
                slots += 1
                now += 1
                earliest = now
                for b in range(banks):
                    if pushed[b] >= depth:
                        room = taken[b, pushed[b] % depth] + 1
                        if room > now:
                            now = room
                stalls += now - earliest
                if taps[i] < 0:
                    continue
                pointers += 1
                row = base[event] + taps[i]
                for b in range(banks):
                    n = lengths[row, b]
                    if n > 0:
                        start = max(now + 1, free_at[b])
                        taken[b, pushed[b] % depth] = start
                        pushed[b] += 1
                        free_at[b] = start + n
                        work[b] += n
        if slots > 0:
            end = now + 1
            for b in range(banks):
                if pushed[b] > 0 and free_at[b] + 1 > end:
                    end = free_at[b] + 1
            result[step, 0] = end
        result[step, 1] = slots
        result[step, 2] = work.sum()
        result[step, 3] = work.max()
        result[step, 4] = stalls
        result[step, 5] = pointers
        result[step, 6] = pushed.sum()
    return result


@functools.cache
def compiled() -> Callable[..., Array]:
    """Return ``ingest``, compiled (see io/compiled.py)."""
    return io_compiled.compiled(ingest)
