"""The run-ahead recurrence of a layer's ingest over a batch, compiled by numba."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from snn_deploy.io import compiled as io_compiled
from snn_deploy.ir.arrays import Array

#: Columns of ``ingest``'s result.
COLUMNS = ("cycles", "ticks", "rows", "pushes", "busiest", "stalls")
#: Cycles from a job's start to its first segment, and of a segment: without events, skipped, and
#: from its start to its first event; from an event to its push; after the last one's add.
START, EMPTY, SKIPPED, LATENCY, PIPELINE, AFTER = 1, 2, 1, 3, 4, 4


def ingest(
    begin: Array,
    end: Array,
    early: Array,
    rows: Array,
    row_first: Array,
    row_bank: Array,
    row_length: Array,
    banks: int,
    depth: int,
) -> Any:
    """Return, per job, how long ingest takes and what it did, int64 (jobs, 6): see COLUMNS.

    begin, end: int64 (jobs, segments), where each segment's events start and end in ``rows``, the
    row of each event, -1 for none. early: bool (jobs, segments), skipped for their delay.
    row_first: (rows+1,), where the row's banks start in row_bank and row_length. depth: of FIFOs.

    Row k is pushed at p_k = max(p_{k-1} + gap, c[b, m_b - depth] + 1 over all banks b), where
    c[b, i] is when bank b takes its i-th row and m_b how many were pushed to it; it takes this one
    at max(p_k + 1, the end of the one before) and is busy for its length. gap: 1 within a segment.
    ticks: cycles until all rows were issued, without stalls.
    """
    jobs, segments = begin.shape
    result = np.zeros((jobs, 6), np.int64)
    taken = np.zeros((banks, depth), np.int64)
    pushed = np.zeros(banks, np.int64)
    free_at = np.zeros(banks, np.int64)
    work = np.zeros(banks, np.int64)
    for job in range(jobs):
        pushed[:] = 0
        free_at[:] = 0
        work[:] = 0
        tick = START  # in cycles of the pipeline, which stands still in a stall
        stalled = 0
        last = 0  # the last push, in real cycles
        room = 0  # the first cycle in which no FIFO is full
        count = 0
        pushes = 0
        quiet = 0
        for s in range(segments):
            if early[job, s]:
                tick += SKIPPED
                continue
            first, final = begin[job, s], end[job, s]
            if first == final:
                tick += EMPTY
                continue
            tick += LATENCY
            for k in range(first, final):
                row = rows[k]
                now = tick + PIPELINE + stalled
                if row >= 0:
                    if room > now:
                        stalled += room - now
                        now = room
                    count += 1
                    for i in range(row_first[row], row_first[row + 1]):
                        b = row_bank[i]
                        n = row_length[i]
                        start = max(now + 1, free_at[b])
                        slot = pushed[b] % depth
                        taken[b, slot] = start
                        pushed[b] += 1
                        free_at[b] = start + n
                        work[b] += n
                        if pushed[b] >= depth:
                            open_at = taken[b, pushed[b] % depth] + 1
                            if open_at > room:
                                room = open_at
                        pushes += 1
                last = now
                tick += 1
            tick += 1
        flush = tick + stalled
        quiet = max(flush, last + 1)
        for b in range(banks):
            if work[b] and free_at[b] + AFTER + 1 > quiet:
                quiet = free_at[b] + AFTER + 1
        result[job, 0] = quiet + 1
        result[job, 1] = tick
        result[job, 2] = count
        result[job, 3] = pushes
        result[job, 4] = work.max()
        result[job, 5] = stalled
    return result


@functools.cache
def compiled() -> Callable[..., Array]:
    """Return ``ingest``, compiled (see io/compiled.py)."""
    return io_compiled.compiled(ingest)
