"""The lockstep array against hand counts and a loop over events, waves and elements."""

from __future__ import annotations

import importlib.util
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from snn_deploy.backends.base import Options
from snn_deploy.backends.cpu.target import CpuTarget
from snn_deploy.backends.fpga.arrays.lockstep import WAITS, lockstep, wave_utilisation
from snn_deploy.backends.prepare import prepare
from snn_deploy.engine.count import Counter
from snn_deploy.engine.event import EventEngine
from snn_deploy.engine.load import spike_load, weight_load
from snn_deploy.errors import InputError, UsageError
from snn_deploy.ir import Coding, Conv1d, Conv2d, Dense, Readout
from snn_deploy.ir.synapses import LEARNED
from snn_deploy.passes.pipeline import fold
from tests.builders import grid, lif, mlp, row, spikes
from tests.unit.test_count import CASES, connections

WITH_WEIGHTS = [name for name in CASES if name not in ("pool", "max pool")]
#: Channels 0..3 on two elements: their inputs.
WEIGHT = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 1, 1]], np.float32)
SPIKES = np.array([[[1, 0, 0], [0, 1, 1]]], np.uint8)


def by_hand():
    net = row((3,), Dense(weight=WEIGHT), lif())
    return net, EventEngine(net).run(SPIKES, record="spikes")


@pytest.mark.parametrize(
    ("waits", "gated", "skipping"),
    [
        # Wave 0 is channels 0 and 1, two weights and none; wave 1 none and two.
        ("wave", [4, 4], [1, 3]),
        # Element 0 holds channels 0 and 2, two weights; element 1 the others', two.
        ("layer", [2, 2], [1, 2]),
        # One weight per element and input: the first of element 0, the last of element 1.
        ("event", [3, 3], [1, 2]),
    ],
)
def test_cycles_by_hand(waits, gated, skipping):
    net, trace = by_hand()
    always = lockstep(net, trace, elements=2, waits=waits)
    assert always.layers[0].cycles.tolist() == [gated]
    assert always.layers[0].work.tolist() == [[[2, 2], [2, 2]]]
    assert always.idle == 2 * sum(gated) - 8
    spiking = lockstep(net, trace, elements=2, waits=waits, skips_silent=True)
    assert spiking.layers[0].cycles.tolist() == [skipping]
    assert spiking.layers[0].work.tolist() == [[[1, 0], [1, 2]]]
    assert spiking.cycles.tolist() == [sum(skipping)]
    for run in (always, spiking):
        assert run.layers[0].accumulates.tolist() == [[1, 3]]
        assert run.accumulates == 4
    masks = lockstep(net, elements=2, waits=waits)
    assert masks.layers[0].cycles.tolist() == [gated[:1]]
    assert masks.accumulates == masks.work == 4


def slowly(net, trace, elements, waits, skips):
    """Return the cycles (samples, steps) of each learned operator, an addition at a time."""
    found = []
    for p in net.projections:
        shapes = [net.population(p.pre).shape]
        for synapse in p.synapses:
            shapes.append(synapse.out_shape(shapes[-1]))
        for at, synapse in enumerate(p.synapses):
            if not isinstance(synapse, LEARNED):
                continue
            conv = isinstance(synapse, Conv1d | Conv2d)
            pixels = int(np.prod(shapes[at + 1][1:])) if conv else 1
            weights = [
                (i, o // pixels) for i, o, w, _ in connections(synapse, shapes[at]) if w != 0
            ]
            cycles = np.zeros((trace.samples, trace.steps), int)
            for sample, step in np.ndindex(*cycles.shape):
                fired = np.asarray(trace.spikes[p.pre])[sample, step].ravel()
                # Each spike is followed through the operators before this one by itself.
                events = []
                for neuron in np.flatnonzero(fired):
                    arriving = {int(neuron): 1}
                    for before, shape in zip(p.synapses[:at], shapes, strict=False):
                        after = defaultdict(int)
                        for i, o, *_ in connections(before, shape):
                            after[o] += arriving.get(i, 0)
                        arriving = after
                    events.append(arriving)
                if not skips:
                    events = [{i: 1} for i in range(int(np.prod(shapes[at])))]
                cycles[sample, step] = _spent(events, weights, elements, waits)
            found.append(cycles.tolist())
    return found


def _spent(events, weights, elements, waits):
    total = 0
    busy = defaultdict(lambda: [0] * elements)
    for event in events:
        here = [0] * elements
        for i, channel in weights:
            times = event.get(i, 0)
            here[channel % elements] += times
            busy[channel // elements if waits == "wave" else 0][channel % elements] += times
        total += max(here)
    return total if waits == "event" else sum(max(one) for one in busy.values())


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("waits", WAITS)
@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_against_a_loop(name, waits, skips):
    net = CASES[name]()
    (source,) = net.inputs
    x = spikes(np.random.default_rng(2), 2, 3, net.population(source).shape)
    trace = EventEngine(net).run(x, record="spikes")
    run = lockstep(net, trace, elements=2, waits=waits, skips_silent=skips)
    expected = slowly(net, trace, 2, waits, skips)
    assert [layer.cycles.tolist() for layer in run.layers] == expected
    assert run.accumulates == Counter(net).count(trace).total("synops_effective") > 0


def case(density=0.4, steps=5):
    net = mlp(np.random.default_rng(3), 20, 16, 8, density=density)
    x = spikes(np.random.default_rng(4), 3, steps, (20,))
    return net, EventEngine(net).run(x, record="spikes")


def test_one_element_never_waits():
    net, trace = case()
    for waits in WAITS:
        run = lockstep(net, trace, elements=1, waits=waits, skips_silent=True)
        assert run.idle == 0
        assert run.cycles.sum() == run.work == run.accumulates
        assert run.utilisation == 1


def test_gating_takes_as_long_as_full_activity():
    net, _ = case()
    full = EventEngine(net).run(np.ones((2, 3, 20), np.uint8), record="spikes")
    silent = EventEngine(net).run(np.zeros((2, 3, 20), np.uint8), record="spikes")
    for waits in WAITS:
        gated = lockstep(net, silent, elements=4, waits=waits).layers[0]
        busiest = lockstep(net, full, elements=4, waits=waits, skips_silent=True).layers[0]
        assert gated.cycles.tolist() == busiest.cycles.tolist()
        nothing = lockstep(net, silent, elements=4, waits=waits, skips_silent=True).layers[0]
        assert nothing.cycles.sum() == nothing.work.sum() == gated.accumulates.sum() == 0
        assert nothing.utilisation == 1


def test_waiting_less_often_never_takes_longer():
    net, trace = case()
    for skips in (False, True):
        wave, layer, event = (
            lockstep(net, trace, elements=4, waits=w, skips_silent=skips).cycles for w in WAITS
        )
        assert np.all(layer <= wave)
        assert np.all(layer <= event)


def test_in_one_step_it_is_the_load_of_the_elements():
    net, trace = case(steps=1)
    run, load = lockstep(net, trace, elements=4, waits="layer", skips_silent=True), spike_load(
        net, trace, 4
    )  # fmt: skip
    assert (int(run.cycles.sum()), run.work, run.idle) == (load.cycles, load.work, load.idle)
    assert run.utilisation == pytest.approx(load.utilisation)
    masks, weights = lockstep(net, elements=4, waits="layer"), weight_load(net, 4)
    assert (int(masks.cycles.sum()), masks.idle) == (weights.cycles, weights.idle)
    assert masks.utilisation == pytest.approx(weights.utilisation)


def test_the_published_relations():
    net, trace = case()
    run = lockstep(net, trace, elements=4)
    assert run.cycles.sum() == (run.work + run.idle) / 4
    tool = Path(__file__).parents[2] / "tools" / "uticket_table.py"
    spec = importlib.util.spec_from_file_location("uticket_table", tool)
    table = importlib.util.module_from_spec(spec)
    sys.modules["uticket_table"] = table
    spec.loader.exec_module(table)
    published = table.Network(
        work=run.work, idle=run.idle, spike_sparsity=1 - run.accumulates / run.work
    )
    assert published.energy(3.0) == pytest.approx(3 * run.accumulates + run.work + run.idle)


def test_the_published_average_of_utilisation():
    # Waves of two channels: loads (3, 1), (2, 2), none; a second layer of one wave, (4, 0).
    first = np.zeros((6, 4), np.float32)
    first[0, :3] = first[1, 0] = first[2, :2] = first[3, 1:3] = 1
    second = np.zeros((2, 6), np.float32)
    second[0, :4] = 1
    net = row((4,), Dense(weight=first), lif(), Dense(weight=second), lif())
    waves = [1 - (3 - 2) / 3 * 2, 1.0]
    assert wave_utilisation(net, 2) == pytest.approx(np.mean([np.mean(waves), 1 - 2 / 4 * 2]))
    # Two and one: the mean, rounded up, is the most that an element has.
    near = row((4,), Dense(weight=np.array([[1, 1, 0, 0], [1, 0, 0, 0]], np.float32)), lif())
    assert wave_utilisation(near, 2) == 1
    assert wave_utilisation(near, 1) == 1
    assert wave_utilisation(near, 3) is None
    kernel = np.zeros((2, 1, 3, 3), np.float32)
    kernel[0, 0, :2] = kernel[1, 0, 0] = 1
    conv = row((1, 6, 6), Conv2d(weight=kernel), lif())
    assert wave_utilisation(conv, 2) == pytest.approx(1 - (6 - 5) / 6 * 2)


def test_sparser_masks_wait_more():
    rng = np.random.default_rng(7)
    found = []
    for density in (0.5, 0.2, 0.05, 0.02):
        weight = (rng.random((64, 200)) < density).astype(np.float32)
        net = row((200,), Dense(weight=weight), lif())
        found.append((wave_utilisation(net), lockstep(net).utilisation))
    for figures in zip(*found, strict=True):
        assert list(figures) == sorted(figures, reverse=True)
        assert figures[0] > 0.8
        assert figures[-1] < 0.6


def test_analogue_input_meets_every_weight():
    net = row((6,), Dense(weight=grid(np.random.default_rng(1), 5, 6, density=0.5)), lif(),
              coding=Coding(kind="direct", steps=4, seed=0, gain=1.0))  # fmt: skip
    x = np.random.default_rng(2).random((2, 4, 6))
    trace = EventEngine(net).run(x, record="spikes")
    run = lockstep(net, trace, elements=2, skips_silent=True)
    assert run.cycles.tolist() == lockstep(net, trace, elements=2).cycles.tolist()
    assert run.work == run.accumulates == Counter(net).count(trace).total("macs") > 0


def test_a_layer_of_few_channels_counts_but_not_in_the_utilisation():
    four, two = np.ones((4, 6), np.float32), np.ones((2, 4), np.float32)
    net = row((6,), Dense(weight=four), lif(), Dense(weight=two), lif())
    run = lockstep(net, elements=4)
    assert [layer.elements for layer in run.layers] == [4, 4]
    assert run.utilisation == run.layers[0].utilisation == 1
    assert run.idle == run.layers[1].idle == 4 * 4 - 8
    assert run.layers[1].utilisation == pytest.approx(1 / 3)
    assert lockstep(net, elements=8).utilisation is None


def test_work_ends_where_samples_stop_early():
    weight = np.eye(2, dtype=np.float32)
    net = row((2,), Dense(weight=weight), lif(1, threshold=0.5), Dense(weight=weight),
              lif(1, threshold=0.5), readout=Readout(cutoff=(1.0,) * 6))  # fmt: skip
    x = np.zeros((2, 6, 2), np.uint8)
    x[0, :, 0] = x[1, ::2, 0] = x[1, 1::2, 1] = 1
    target = CpuTarget()
    trace = target.run(prepare(fold(net), target, Options()), x, "spikes")
    for skips in (False, True):
        run = lockstep(net, trace, elements=2, skips_silent=skips)
        assert [layer.cycles.sum(axis=1).tolist() for layer in run.layers] == [[2, 6]] * 2
        assert run.accumulates == trace.events.total("synops_effective")


def test_unfit_requests():
    net, trace = case()
    with pytest.raises(UsageError, match="at least one processing element") as caught:
        lockstep(net, trace, elements=0)
    assert caught.value.hint == "the published array has 16"
    with pytest.raises(UsageError, match="at least one processing element"):
        wave_utilisation(net, 0)
    with pytest.raises(UsageError, match="unknown wait 'step'") as caught:
        lockstep(net, trace, waits="step")
    assert caught.value.hint == "one of wave, layer, event"
    with pytest.raises(UsageError, match="masks alone have no silent inputs") as caught:
        lockstep(net, skips_silent=True)
    assert caught.value.hint == "pass a run's trace"
    bare = EventEngine(net).run(np.zeros((1, 2, 20), np.uint8))
    with pytest.raises(InputError, match="recorded no spikes") as caught:
        lockstep(net, bare)
    assert caught.value.hint == 'record them: run(x, record="spikes")'
