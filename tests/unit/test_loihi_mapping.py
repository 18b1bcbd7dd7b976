"""Cores, packets, hops and synapse bits against loops over single neurons."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.base import Options
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.device.load import load
from snn_deploy.ir import Conv2d, Dense, Pool2d
from snn_deploy.ir.synapses import Csr
from snn_deploy.passes.pipeline import fold
from tests.builders import grid, lif, mlp, row, spikes


def spread():
    """Return a program whose layers lie on several tiles, and a trace of it."""
    rng = np.random.default_rng(0)
    net = fold(mlp(rng, 30, 5000, 2500, 10, density=0.02, bias=False, neuron=lif(threshold=0.1)))
    target = LoihiTarget()
    program = prepare(net, target)
    return target, program, target.run(program, spikes(rng, 2, 4, (30,)), "spikes")


def test_packets_go_to_the_cores_that_a_neuron_reaches_and_hops_to_their_tiles():
    target, program, trace = spread()
    mapping = target.mapping(program)
    assert len(mapping.cores) > 8  # more than two tiles
    packets = hops = 0
    for synapses in program.payload.synapses:
        assert isinstance(synapses.operator, Csr)
        reached = synapses.operator.to_dense() != 0
        tile_of = np.zeros(reached.shape[1], np.int64)
        for core, part in mapping.slices_of(synapses.pre):
            tile_of[part.neurons] = core.index // 4
        for neuron, fired in enumerate(trace.counts[synapses.pre].tolist()):
            for core, part in mapping.slices_of(synapses.post):
                if not reached[part.neurons, neuron].any():
                    continue
                here, there = int(tile_of[neuron]), core.index // 4
                packets += fired
                hops += fired * (abs(here // 8 - there // 8) + abs(here % 8 - there % 8))
    assert hops > 0
    assert trace.events.total("packets") == packets
    assert trace.events.total("hops") == hops


def test_without_a_tile_size_hops_are_not_counted():
    rng = np.random.default_rng(1)
    target = LoihiTarget()
    program = prepare(fold(mlp(rng, 6, 5, 4)), target, Options(device=load("loihi2")))
    trace = target.run(program, spikes(rng, 2, 4, (6,)))
    assert not trace.events.has("hops")
    assert trace.events.has("packets")


@pytest.mark.parametrize(("bits", "stored"), [(8, 8), (7, 8), (6, 6), (4, 4), (2, 2)])
def test_synapse_memory_follows_the_bits_of_a_weight(bits, stored):
    rng = np.random.default_rng(2)
    weight = rng.normal(0, 0.3, (100, 3)).astype(np.float32)
    net = row((3,), Dense(weight=weight), lif())
    program = prepare(net, LoihiTarget(), Options(bits=bits))
    operator = program.payload.synapses[0].operator
    assert isinstance(operator, Csr)
    expected = {"sparse": 0, "dense": 0}
    for reached in (operator.to_dense() != 0).sum(axis=0).tolist():
        for form, count, index in (("sparse", reached, 7), ("dense", 100 if reached else 0, 0)):
            while count > 0:
                group = min(count, 64)
                expected[form] += 64 * math.ceil((group * (stored + index) + 10) / 64)
                count -= group
    assert LoihiTarget().usage(program).bits("weights") == min(expected.values())


def test_a_pool_multiplied_out_stays_on_the_grid_of_its_weights():
    # Overlapping windows add weights: multiples of the grid's step are larger multiples of it.
    rng = np.random.default_rng(3)
    net = fold(
        row(
            (1, 6, 6),
            Pool2d(kind="sum", kernel=(2, 2), stride=(1, 1)),
            Conv2d(weight=abs(grid(rng, 2, 1, 2, 2)) / 16),
            lif(threshold=8.0),
        )
    )
    program = prepare(net, LoihiTarget(), Options(bits=3))
    synapses = program.payload.synapses[0]
    quantized = program.qnet.network.projections[0].synapses[1]
    assert isinstance(synapses.operator, Csr)
    assert synapses.operator.data.max() > quantized.weight.max()
    assert synapses.weight_bits == 3


def test_the_program_keeps_its_numbers_whatever_the_bits():
    net = fold(mlp(np.random.default_rng(4), 6, 5, 4))
    target = LoihiTarget()
    program = prepare(net, target, Options(bits=4))
    wide = replace(
        program.payload,
        synapses=tuple(replace(s, weight_bits=8) for s in program.payload.synapses),
    )
    x = spikes(np.random.default_rng(5), 2, 6, (6,))
    one, other = (target.run(replace(program, payload=p), x) for p in (program.payload, wide))
    assert np.array_equal(one.output, other.output)
