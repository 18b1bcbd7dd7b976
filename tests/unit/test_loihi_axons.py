"""Bits and axons of boxes against loops over single axons, taps and weights."""

from __future__ import annotations

import math

import numpy as np
import pytest

from snn_deploy.backends.loihi.axons import (
    Box,
    Grid,
    connections,
    fan_in,
    index_bits,
    list_bits,
)
from snn_deploy.backends.loihi.program import LoihiSynapses
from snn_deploy.engine.operators import matrix
from snn_deploy.ir import Conv2d
from snn_deploy.ir.synapses import Csr


def loop_bits(weights: int, entry: int) -> int:
    """The published formula, group by group."""
    bits = 0
    while weights > 0:
        group = min(weights, 64)
        bits += 64 * math.ceil((group * entry + 4 + 6) / 64)
        weights -= group
    return bits


def synapses(operator, in_shape, out_shape, **changes):
    values = {
        "name": "w",
        "projection": "w",
        "pre": "a",
        "post": "b",
        "exponent": 0,
        "delay_steps": 0,
        "weight_bits": 8,
        "helper": False,
        "origin": "w",
    }
    return LoihiSynapses(
        operator=operator, in_shape=in_shape, out_shape=out_shape, **(values | changes)
    )


def convolution(seed=0, *, shape=(3, 7, 6), kernel=(4, 3, 3, 2), kept=0.4, **geometry):
    rng = np.random.default_rng(seed)
    weight = rng.integers(1, 100, kernel) * (rng.random(kernel) < kept)
    operator = Conv2d(weight=weight.astype(np.int32), **geometry)
    out = operator.out_shape(shape)
    return synapses(operator, shape, out), Grid(shape=out, order=np.arange(out[0]))


GEOMETRIES = [
    {},
    {"padding": (1, 1, 1, 0)},
    {"stride": (2, 1), "padding": (1, 0, 0, 1)},
    {"stride": (2, 3)},
    {"dilation": (2, 1), "padding": (2, 2, 0, 0)},
    {"groups": 2, "kernel": (4, 2, 3, 2), "shape": (4, 7, 6)},
    {"groups": 4, "kernel": (4, 1, 3, 2), "shape": (4, 7, 6), "padding": (1, 1, 1, 1)},
]


@pytest.mark.parametrize(
    ("weights", "entry", "bits"),
    # 8 + 6 bits: 3 x 14 + 10 = 52 in one word; 4 x 14 + 10 = 66 in two; 64 x 14 + 10 = 906 in 15.
    [(0, 14, 0), (3, 14, 64), (4, 14, 128), (64, 14, 960), (65, 14, 1024), (128, 8, 1152)],
)
def test_a_list_of_weights_by_hand(weights, entry, bits):
    assert int(list_bits(np.array(weights), entry)) == bits == loop_bits(weights, entry)


def test_the_dense_layer_of_the_source_takes_three_and_a_half_cores():
    # 784 -> 512, 8 bits, without indices: 784 x 8 x 64 x ceil((64 x 8 + 10) / 64) bits
    assert 784 * int(list_bits(np.array(512), 8)) == 3_612_672


@pytest.mark.parametrize(
    ("compartments", "bits"), [(1, 6), (64, 6), (65, 7), (128, 7), (512, 9), (513, 10), (1024, 10)]
)
def test_the_index_is_as_wide_as_its_core_needs(compartments, bits):
    assert index_bits(compartments) == bits


@pytest.mark.parametrize("delay_steps", [0, 1, 5, 62])
@pytest.mark.parametrize("weight_bits", [1, 6, 8])
def test_listed_synapses_against_loops(weight_bits, delay_steps):
    rng = np.random.default_rng(1)
    dense = rng.integers(-9, 9, (90, 20)) * (rng.random((90, 20)) < 0.3)
    dense[:, 3] = 0
    made = synapses(
        Csr.from_dense(dense.astype(np.int32)),
        (20,),
        (90,),
        weight_bits=weight_bits,
        delay_steps=delay_steps,
    )
    fan = fan_in(made, Grid(shape=(90, 1, 1), order=np.arange(90)[::-1]))
    box = Box(channels=(10, 85), rows=(0, 1), columns=(0, 1))
    part = dense[::-1][10:85]
    counts = (part != 0).sum(axis=0)
    delay = delay_steps.bit_length()
    for last, width in ((75, 7), (64, 6), (600, 10)):
        load = fan.load(box, last, "discrete")
        indexed = sum(loop_bits(n, weight_bits + delay + width) for n in counts.tolist())
        every = sum(loop_bits(75, weight_bits + delay) for n in counts.tolist() if n)
        assert load.bits == min(indexed, every)
        assert load.lists == ("indexed" if indexed <= every else "all")
        assert load.axons == load.sources == np.count_nonzero(counts)
        assert load.synapses == np.count_nonzero(part)
    assert fan.sources(box).tolist() == np.flatnonzero(counts).tolist()


def test_weights_that_are_zero_take_nothing():
    made = synapses(
        Csr(
            indptr=np.array([0, 2, 3]),
            indices=np.array([0, 1, 1], np.int32),
            data=np.array([0, 5, 7], np.int32),
            shape=(2, 2),
        ),
        (2,),
        (2,),
    )
    indptr, indices, weights = connections(made)
    assert (indptr.tolist(), indices.tolist(), weights.tolist()) == ([0, 1, 2], [1, 1], [5, 7])
    fan = fan_in(made, Grid(shape=(2, 1, 1), order=np.arange(2)))
    load = fan.load(Box(channels=(0, 2), rows=(0, 1), columns=(0, 1)), 2, "discrete")
    assert (load.axons, load.synapses) == (1, 2)


def axons_of(made, box, order):
    """Yield (channel, pixel, taps, weights, base) of every input neuron, by loops over taps."""
    operator = made.operator
    out, per_group, kh, kw = operator.weight.shape
    top, _, left, _ = operator.padding
    channels, height, width = made.in_shape
    for i in range(channels):
        for sy in range(height):
            for sx in range(width):
                taps, weights, bases = set(), 0, []
                for ky in range(kh):
                    for kx in range(kw):
                        y, over = divmod(sy + top - ky * operator.dilation[0], operator.stride[0])
                        x, off = divmod(sx + left - kx * operator.dilation[1], operator.stride[1])
                        inside = box.rows[0] <= y < box.rows[1]
                        if over or off or not (inside and box.columns[0] <= x < box.columns[1]):
                            continue
                        taps.add((ky, kx))
                        across = box.columns[1] - box.columns[0]
                        bases.append((y - box.rows[0]) * across + x - box.columns[0])
                        for o in order[slice(*box.channels)].tolist():
                            if o // (out // operator.groups) == i // per_group:
                                weights += operator.weight[o, i % per_group, ky, kx] != 0
                if taps:
                    yield i, (sy, sx), frozenset(taps), int(weights), min(bases)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_convolution_shares_lists_among_equal_taps(geometry):
    made, grid = convolution(**geometry)
    order = np.array([2, 0, 3, 1])
    grid = Grid(shape=grid.shape, order=order)
    fan = fan_in(made, grid)
    dense = matrix(made.operator, made.in_shape).toarray() != 0
    _, height, width = grid.shape
    for box in (
        grid.whole,
        Box(channels=(1, 3), rows=(0, height), columns=(0, 1)),
        Box(channels=(0, 4), rows=(height // 2, height), columns=(0, width)),
    ):
        reached = dense[grid.neurons(box)]
        found = list(axons_of(made, box, order))
        lists = {(i, taps): n for i, _, taps, n, _ in found if n}
        load = fan.load(box, box.size, "discrete")
        entry = 8 + max(6, math.ceil(math.log2(box.size)))
        shared = sum(loop_bits(n, entry) for n in lists.values())
        every = reached.any(axis=0).sum() * loop_bits(box.size, 8)
        assert load.bits == min(shared, every)
        assert load.axons == load.sources == reached.any(axis=0).sum()
        assert load.synapses == reached.sum()
        assert fan.sources(box).tolist() == np.flatnonzero(reached.any(axis=0)).tolist()

        together = fan.load(box, box.size, "population")
        longest: dict[frozenset[tuple[int, int]], int] = {}
        for _, _, taps, n, _ in found:
            longest[taps] = max(longest.get(taps, 0), n)
        channels = made.in_shape[0]
        assert together.bits == sum(loop_bits(channels * n, entry) for n in longest.values())
        pixels = {pixel for _, pixel, taps, _, _ in found if longest[taps]}
        assert together.axons == len(pixels)
        assert together.sources == load.sources


def test_a_base_reaches_256_pixels_and_no_further():
    made, grid = convolution(shape=(1, 40, 20), kernel=(1, 1, 3, 3), kept=1.0, padding=(1, 1, 1, 1))
    fan = fan_in(made, grid)
    found = list(axons_of(made, grid.whole, grid.order))
    lists = {(taps, base // 256): n for _, _, taps, n, base in found}
    load = fan.load(grid.whole, 800, "discrete")
    assert len({part for _, part in lists}) == 4
    assert load.bits == sum(loop_bits(n, 8 + 10) for n in lists.values())
    small = Box(channels=(0, 1), rows=(0, 12), columns=(0, 20))
    assert len({base // 256 for *_, base in axons_of(made, small, grid.order)}) == 1


def test_sharing_is_what_makes_a_convolution_small():
    made, grid = convolution(shape=(1, 16, 16), kernel=(4, 1, 3, 3), kept=1.0, padding=(1, 1, 1, 1))
    load = fan_in(made, grid).load(grid.whole, 1024, "discrete")
    # Inside, all nine taps: 36 weights of 18 bits. Edges see six or three of them, or fewer.
    sets = {taps for _, _, taps, _, _ in axons_of(made, grid.whole, grid.order)}
    assert len(sets) == 9
    assert load.bits == sum(loop_bits(4 * len(taps), 18) for taps in sets)
    alone = sum(loop_bits(n, 18) for *_, n, _ in axons_of(made, grid.whole, grid.order))
    assert load.lists == "shared" and load.bits < alone / 25


def test_pixels_of_a_fused_pool_share_their_lists():
    rng = np.random.default_rng(7)
    small = rng.integers(1, 99, (3, 2, 2, 2)).astype(np.int32)
    operator = Conv2d(weight=small.repeat(2, axis=2).repeat(2, axis=3), stride=(2, 2))
    made = synapses(operator, (2, 10, 10), operator.out_shape((2, 10, 10)))
    grid = Grid(shape=made.out_shape, order=np.arange(3))
    pooled = synapses(Conv2d(weight=small), (2, 5, 5), grid.shape)
    one = fan_in(made, grid).load(grid.whole, 48, "discrete")
    other = fan_in(pooled, grid).load(grid.whole, 48, "discrete")
    assert one.bits == other.bits and one.lists == "shared"
    assert (one.axons, other.axons) == (200, 50)
