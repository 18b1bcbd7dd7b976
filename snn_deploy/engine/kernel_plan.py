"""A network as the flat arrays that the compiled path runs on."""

from __future__ import annotations

from typing import NamedTuple

from snn_deploy.ir.arrays import Array

#: Rows of weights that are summed at once, in int16.
AT_ONCE = 8


class Plan(NamedTuple):
    """A network as flat arrays. P populations, inputs among them; N places; S parts.

    A part is a projection's synapses of one delay. order: populations in order of evaluation,
    without inputs; inputs: those. copies: samples that run at the same time, each in places of
    its own. size, room, first: (P,) neurons of a population, the places that one copy takes, and
    where all of its places start; column: an input's first word in a step of x, where eight
    neurons make a word.
    parts: (P+1,) where the parts that end in a population start. pre, delay, dense, at: (S,);
    ``at`` is where a dense part's rows start in ``rows``, a sparse one's in ``pointers``.
    rows: int16, per source neuron the weights to all places of the post population, and a row
    of zeros behind them. pointers, posts, weights: stored entries by source neuron.
    keep_u, keep_v: float64 (N,), factors of decay. start, bias, threshold, back: int32 (N,) in
    units of the state; start: v before the first step; a neuron that fires becomes
    (v & mask) + back. shift, mask: (P,). limits: int32 half, full (u wraps), low, high (of v).
    slots: steps whose events are kept.
    """

    order: Array
    inputs: Array
    copies: int
    size: Array
    room: Array
    first: Array
    column: Array
    parts: Array
    pre: Array
    delay: Array
    dense: Array
    at: Array
    rows: Array
    pointers: Array
    posts: Array
    weights: Array
    keep_u: Array
    keep_v: Array
    start: Array
    bias: Array
    threshold: Array
    back: Array
    shift: Array
    mask: Array
    limits: Array
    slots: int
