"""The load of processing elements against loops over single weights and single spikes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from snn_deploy.backends.base import Options
from snn_deploy.backends.cpu.target import CpuTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.engine.count import Counter
from snn_deploy.engine.event import EventEngine
from snn_deploy.engine.load import (
    MAPPINGS,
    LayerLoad,
    Load,
    cycles,
    decomposition,
    pattern_load,
    spike_load,
    utilisation,
    weight_load,
)
from snn_deploy.errors import InputError, UsageError
from snn_deploy.ir import Coding, Conv1d, Conv2d, Csr, Dense, Readout
from snn_deploy.ir.synapses import LEARNED
from snn_deploy.passes.pipeline import fold
from tests.builders import grid, lif, row, spikes
from tests.unit.test_count import CASES, connections

TOOL = Path(__file__).parents[2] / "tools" / "uticket_table.py"
ELEMENTS = 3
CASES_WITH_WEIGHTS = [name for name in CASES if name not in ("pool", "max pool")]


def layer(*work: list[int], channels: int = 100) -> LayerLoad:
    return LayerLoad(name="fc", channels=channels, work=np.array(work))


def weights_by_hand(synapse, mapping):
    """Return nonzero weights per element, found one weight at a time."""
    work = [0] * ELEMENTS
    weight = synapse.to_dense() if isinstance(synapse, Csr) else synapse.weight
    conv = isinstance(synapse, Conv1d | Conv2d)
    for at in np.ndindex(weight.shape):
        if weight[at]:
            out, into = at[:2]
            if conv:
                into += weight.shape[1] * (out // (weight.shape[0] // synapse.groups))
            work[(out if mapping == "sata" else into) % ELEMENTS] += 1
    return work


def learned_of(net):
    return [s for p in net.projections for s in p.synapses if isinstance(s, LEARNED)]


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("name", CASES_WITH_WEIGHTS)
def test_weights_against_a_loop(name, mapping):
    net = CASES[name]()
    load = weight_load(net, ELEMENTS, mapping)
    assert [one.work.tolist() for one in load.layers] == [
        [weights_by_hand(s, mapping)] for s in learned_of(net)
    ]
    assert load.work > 0


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("name", CASES_WITH_WEIGHTS)
def test_spikes_against_a_loop(name, mapping):
    net = CASES[name]()
    (source,) = net.inputs
    x = spikes(np.random.default_rng(2), 3, 4, net.population(source).shape)
    trace = EventEngine(net).run(x, record="spikes")
    load = spike_load(net, trace, ELEMENTS, mapping)
    expected = []
    for p in net.projections:
        shapes = [net.population(p.pre).shape]
        for synapse in p.synapses:
            shapes.append(synapse.out_shape(shapes[-1]))
        for at, synapse in enumerate(p.synapses):
            if not isinstance(synapse, LEARNED):
                continue
            work = np.zeros((3, ELEMENTS), int)
            for sample in range(3):
                reached = trace.spikes[p.pre][sample].reshape(4, -1).sum(0)
                for before, shape, after in zip(p.synapses[:at], shapes, shapes[1:], strict=False):
                    there = np.zeros(int(np.prod(after)), int)
                    for i, o, *_ in connections(before, shape):
                        there[o] += reached[i]
                    reached = there
                conv = isinstance(synapse, Conv1d | Conv2d)
                pixels = [int(np.prod(s[1:])) if conv else 1 for s in (shapes[at], shapes[at + 1])]
                for i, o, weight, _ in connections(synapse, shapes[at]):
                    if weight:
                        place = o // pixels[1] if mapping == "sata" else i // pixels[0]
                        work[sample, place % ELEMENTS] += reached[i]
            expected.append(work.tolist())
    assert [one.work.tolist() for one in load.layers] == expected
    events = Counter(net).count(trace)
    assert load.work == events.total("synops_effective") > 0


def test_analogue_input_costs_every_product():
    net = row((6,), Dense(weight=grid(np.random.default_rng(1), 5, 6, density=0.5)), lif(),
              coding=Coding(kind="direct", steps=4, seed=0, gain=1.0))  # fmt: skip
    x = np.random.default_rng(2).random((2, 4, 6))
    trace = EventEngine(net).run(x, record="spikes")
    assert spike_load(net, trace, ELEMENTS).work == Counter(net).count(trace).total("macs") > 0


def test_the_published_formulas():
    one = layer([4, 2, 0, 2])
    assert utilisation(one.work) == pytest.approx(1 - (4 - 2) / 4 * 4 / 3)
    load = Load(elements=4, layers=(one, layer([3, 3, 3, 3])))
    assert (load.work, load.idle, load.cycles) == (20, 8, 7)
    assert load.cycles == (load.work + load.idle) / 4
    assert load.utilisation == pytest.approx(1 - (7 - 5) / 7 * 4 / 3)
    assert utilisation(np.array([[5, 0, 0, 0]])) == 0
    assert utilisation(np.array([[5, 5, 5, 5]])) == 1
    assert utilisation(np.zeros((1, 4), int)) == utilisation(np.array([[7]])) == 1


def test_samples_wait_each_for_its_slowest_element():
    work = np.array([[4, 0], [0, 4]])
    assert cycles(work) == 8
    assert cycles(work.sum(axis=0, keepdims=True)) == 4
    assert utilisation(work) == 0


def test_a_layer_of_few_channels_stands_apart():
    few = pattern_load("out", np.ones((10, 5)), 16, "sata")
    assert not few.fills
    assert few.ceiling == pytest.approx(utilisation(few.work)) == pytest.approx(0.6)
    full = layer([1] * 16)
    assert full.ceiling == 1
    load = Load(elements=16, layers=(full, few))
    assert load.utilisation == 1
    assert load.idle == 6 * 5
    assert load.balanced_cycles == load.cycles == 6
    assert Load(elements=16, layers=(few,)).utilisation is None


def test_balance_is_told_apart_from_less_work():
    before = Load(elements=2, layers=(layer([10, 4]), layer([3, 0])))
    after = Load(elements=2, layers=(layer([5, 5]), layer([1, 0])))
    parts = decomposition(before, after)
    assert (parts.before, parts.balanced, parts.after) == (13, 7 + 2, 6)
    assert parts.by_balance == pytest.approx(4 / 13)
    assert parts.by_less_work == pytest.approx(3 / 13)
    nothing = Load(elements=2, layers=())
    assert decomposition(nothing, nothing).by_balance == 0
    assert decomposition(nothing, nothing).by_less_work == 0


def test_unfit_requests():
    net = CASES["dense"]()
    with pytest.raises(UsageError, match="at least one processing element") as caught:
        weight_load(net, 0)
    assert (caught.value.used, caught.value.hint) == ("elements = 0", "the published array has 16")
    with pytest.raises(UsageError, match="unknown mapping 'diagonal'") as caught:
        weight_load(net, 4, "diagonal")
    assert caught.value.hint == "sata or systolic"
    trace = EventEngine(net).run(spikes(np.random.default_rng(0), 1, 2, (7,)))
    with pytest.raises(InputError, match="recorded no spikes") as caught:
        spike_load(net, trace, 4)
    assert caught.value.where in net.inputs
    assert caught.value.hint == 'record them: run(x, record="spikes")'


def test_published_energy_cuts_follow_from_the_published_cycles():
    spec = importlib.util.spec_from_file_location("uticket_table", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["uticket_table"] = module
    spec.loader.exec_module(module)
    ratio = module.fitted_ratio()
    assert ratio == pytest.approx(4.8, abs=0.1)
    assert len(module.ROWS) == 6
    for line in module.ROWS:
        assert line.cut(ratio) == pytest.approx(line.published, abs=0.6), line.name
    text = (TOOL.parents[1] / "docs" / "uticket.md").read_text(encoding="utf-8")
    assert module.table(ratio) in text
    assert f"least squares: {ratio:.2f}" in text
    latencies = [line.lth.latency for line in module.ROWS]
    assert latencies[0] == pytest.approx(0.109, abs=5e-4)
    assert max(latencies) == pytest.approx(0.212, abs=5e-4)
    assert max(line.latency_cuts()[0] for line in module.ROWS) == pytest.approx(76.9, abs=0.2)


def test_work_ends_where_samples_stop_early():
    weight = np.eye(2, dtype=np.float32)
    spiking = lif(1, threshold=0.5)
    net = row(
        (2,),
        Dense(weight=weight),
        spiking,
        Dense(weight=weight),
        spiking,
        readout=Readout(cutoff=(1.0,) * 6),
        coding=Coding(kind="events"),
    )
    x = np.zeros((2, 6, 2), np.uint8)
    x[0, :, 0] = x[1, ::2, 0] = x[1, 1::2, 1] = 1
    target = CpuTarget()
    trace = target.run(prepare(fold(net), target, Options()), x, "spikes")
    assert trace.stop.steps.tolist() == [2, 6]
    load = spike_load(net, trace, 2)
    assert [one.work.tolist() for one in load.layers] == [[[2, 0], [3, 3]]] * 2
    assert load.work == trace.events.total("synops_effective")
