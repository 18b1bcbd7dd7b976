"""What each core does, against the layers' totals and against loops over single neurons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.base import Options
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.device.load import load
from snn_deploy.engine.operators import matrix
from snn_deploy.ir import Coding, Conv2d, Dense, Pool2d, Readout
from snn_deploy.passes.pipeline import fold
from tests.builders import cuba, grid, lif, mlp, row, spikes

TARGET = LoihiTarget()


def conv():
    rng = np.random.default_rng(2)
    first = Conv2d(weight=grid(rng, 4, 2, 3, 3, density=0.5), padding=(1, 1, 1, 1), groups=1)
    second = Conv2d(weight=grid(rng, 6, 2, 3, 3, density=0.5), stride=(2, 2), groups=2)
    pool = Pool2d(kind="sum", kernel=(2, 2), stride=(2, 2))
    last = Dense(weight=grid(rng, 3, 6, density=0.5))
    return row(
        (2, 10, 10),
        first,
        lif(),
        pool,
        second,
        lif(),
        Pool2d(kind="avg", kernel=(2, 2), stride=(2, 2)),
        last,
        lif(),
    )


NETWORKS = {
    "mlp": lambda: mlp(np.random.default_rng(1), 30, 40, 20, density=0.3),
    "conv": conv,
    "bias before a current": lambda: row(
        (6,), Dense(weight=grid(np.random.default_rng(3), 5, 6), bias=np.full(5, 0.5)), cuba()
    ),
}


def ran(name, **changes):
    net = fold(replace(NETWORKS[name](), **changes))
    splits = {"n1": 3} if name != "bias before a current" else None
    program = prepare(net, TARGET, Options(device=load("loihi1"), splits=splits))
    x = spikes(np.random.default_rng(0), 3, 6, net.input_population.shape)
    return program, TARGET.run(program, x, "spikes")


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("cutoff", [None, (0.0,) * 6])
def test_cores_add_up_to_the_layers(name, cutoff):
    readout = Readout(kind="count", cutoff=cutoff)
    program, trace = ran(name, readout=readout)
    work = TARGET.core_work(program, trace)
    assert set(work) == {core.index for core in TARGET.mapping(program).cores}
    own = ("synops_dense", "synops_event", "synops_quantized", "synops_helper", "neuron_updates")
    for event in own:
        total = sum(core.get(event, 0) for core in work.values())
        assert total == trace.events.total(event), event
    fired = sum(core["spikes"] for core in work.values())
    sent = {"input"} & set(trace.counts)
    assert fired == sum(int(c.sum()) for n, c in trace.counts.items() if n not in sent)


def test_a_core_does_what_its_neurons_do():
    program, trace = ran("conv")
    mapping = TARGET.mapping(program)
    work = TARGET.core_work(program, trace)
    assert len(work) >= 3
    for core in mapping.cores:
        quantized = spikes_of = packets = hops = 0
        for part in core.slices:
            spikes_of += int(trace.counts[part.population][part.neurons].sum())
            for synapses in program.payload.synapses:
                entries = matrix(synapses.operator, synapses.in_shape).toarray() != 0
                if synapses.post == part.population:
                    reached = entries[part.neurons] @ trace.counts[synapses.pre]
                    quantized += int(reached.sum())
                if synapses.pre == part.population:
                    own = trace.counts[synapses.pre][part.neurons]
                    packets += int(own @ mapping.targets[synapses.name][part.neurons])
                    hops += int(own @ mapping.links[synapses.name][part.neurons])
        found = work[core.index]
        assert (found["synops_quantized"], found["spikes"]) == (quantized, spikes_of)
        assert (found.get("packets", 0), found.get("hops", 0)) == (packets, hops)


def test_what_the_host_adds_up_is_on_no_core():
    net = fold(replace(NETWORKS["mlp"](), coding=Coding(kind="direct", steps=6)))
    program = prepare(net, TARGET)
    x = np.random.default_rng(0).random((2, 6, 30))
    trace = TARGET.run(program, x)
    work = TARGET.core_work(program, trace)
    quantized = sum(core.get("synops_quantized", 0) for core in work.values())
    assert quantized == trace.events.total("synops_quantized") > 0
