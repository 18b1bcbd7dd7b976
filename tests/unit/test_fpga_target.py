"""The FPGA target: what it refuses, counts, stores and writes."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snn_deploy.backends.arithmetics import FPGA
from snn_deploy.backends.base import Options
from snn_deploy.backends.fpga import kernel
from snn_deploy.backends.fpga import target as target_module
from snn_deploy.backends.fpga.artifacts import SOURCES
from snn_deploy.backends.fpga.cycles import PARTS, SWEEP_FIXED
from snn_deploy.backends.fpga.images import map_bits
from snn_deploy.backends.fpga.kernel import EMPTY, START
from snn_deploy.backends.fpga.layout import Settings
from snn_deploy.backends.fpga.machine import SCAN_FIXED
from snn_deploy.backends.fpga.memory import Memory, blocks
from snn_deploy.backends.fpga.pack import VALUE_BITS
from snn_deploy.backends.fpga.plan import check_supported
from snn_deploy.backends.fpga.target import FpgaTarget, settings
from snn_deploy.backends.prepare import prepare
from snn_deploy.device import load
from snn_deploy.engine.count import Counter
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.errors import InputError, OutputError, UnsupportedError, UsageError
from snn_deploy.ir import (
    LI,
    LIF,
    Coding,
    Conv2d,
    CubaLIF,
    Dense,
    Network,
    Population,
    Projection,
    Readout,
    Relay,
)
from snn_deploy.passes.pipeline import fold
from snn_deploy.passes.quantize import quantize
from tests.builders import cuba, grid, row

LIF_ = LIF(tau_s=2e-3, r=1.0, v_leak=0.0, v_threshold=0.5, v_reset=0.0)
TARGET = FpgaTarget()


def _net(sizes=(20, 33, 10), density=0.3, hidden=LIF_, seed=0):
    rng = np.random.default_rng(seed)
    pops = [Population(name="in", shape=(sizes[0],), neuron=Relay())]
    pops += [
        Population(name=f"p{i}", shape=(n,), neuron=hidden if i < len(sizes) - 2 else LIF_)
        for i, n in enumerate(sizes[1:])
    ]
    projections = []
    for i, (pre, post) in enumerate(itertools.pairwise(sizes)):
        weight = (rng.normal(0.2, 0.5, (post, pre)) * (rng.random((post, pre)) < density)).astype(
            "f4"
        )
        projections.append(
            Projection(
                name=f"j{i}", pre=pops[i].name, post=pops[i + 1].name,
                synapses=(Dense(weight=weight),), origin=f"layer{i}",
            )
        )  # fmt: skip
    return Network(
        populations=tuple(pops), projections=tuple(projections), inputs=("in",),
        outputs=(pops[-1].name,), dt_s=1e-3,
    )  # fmt: skip


def _program(net=None, device=None, **chosen):
    net = fold(_net() if net is None else net)
    return TARGET.lower(net, quantize(net, FPGA), Options(settings=chosen, device=device))


def _x(samples=3, steps=6, size=20, rate=0.4):
    return (np.random.default_rng(7).random((samples, steps, size)) < rate).astype(np.uint8)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("chosen", "message", "used"),
    [
        ({"banks": 0}, "banks is out of range", "0, range 1..64"),
        ({"banks": 65}, "banks is out of range", "65, range 1..64"),
        ({"fifo_depth": 3}, "fifo_depth is out of range", "3, range 2..64"),
        ({"fifo_depth": 128}, "fifo_depth is out of range", "128, range 2..64"),
        ({"banks": 3}, "banks is out of range", "3, range 1..64"),
        ({"engines": 65}, "engines is out of range", "65, range 0..64"),
        ({"dense_rows": 2}, "dense_rows is out of range", "2, range 0..1"),
        ({"bitmap_rows": -1}, "bitmap_rows is out of range", "-1, range 0..1"),
        ({"bank": 8}, "no setting 'bank'", None),
    ],
)
def test_settings_out_of_range_are_refused(chosen, message, used):
    with pytest.raises(UsageError, match=message) as caught:
        settings(chosen)
    assert caught.value.used == used
    assert caught.value.hint


def test_settings_at_the_ends_of_their_ranges():
    assert settings(None) == Settings(
        banks=8, fifo_depth=4, engines=0, dense_rows=True, bitmap_rows=True
    )
    chosen = settings(
        {"banks": 64, "fifo_depth": 64, "engines": 64, "dense_rows": 0, "bitmap_rows": 0}
    )
    assert chosen == Settings(
        banks=64, fifo_depth=64, engines=64, dense_rows=False, bitmap_rows=False
    )
    assert settings({"banks": 1, "fifo_depth": 2}).fifo_depth == 2


def test_a_silent_population_cannot_feed_another():
    net = _net(hidden=LI(tau_s=2e-3, r=1.0, v_leak=0.0))
    with pytest.raises(UnsupportedError, match="p0 does not spike") as caught:
        _program(net)
    assert caught.value.where == "layer1" and caught.value.hint


def test_a_population_without_input_is_refused():
    net = _net()
    lone = Population(name="lone", shape=(3,), neuron=LIF_)
    net = replace(net, populations=(*net.populations, lone))
    with pytest.raises(InputError, match="nothing feeds this population") as caught:
        check_supported(replace(quantize(_net(), FPGA), network=net))
    assert caught.value.where == "lone"
    assert caught.value.hint == "connect it, or remove it from the graph"


def test_a_bias_into_a_synaptic_current_is_refused():
    weight, bias = np.ones((3, 4), np.float32), np.ones(3, np.float32)
    assert prepare(fold(row((4,), Dense(weight=weight), cuba())), TARGET)
    with pytest.raises(UnsupportedError, match="a bias adds to a synaptic current") as caught:
        prepare(fold(row((4,), Dense(weight=weight, bias=bias), cuba())), TARGET)
    assert caught.value.where == "n1"
    assert caught.value.hint == "train this layer without a bias, or use --target loihi"


def test_a_delay_beyond_the_buffers_is_refused_with_its_place():
    net = _net()
    slow = [replace(net.projections[1], delay_steps=n) for n in (62, 63)]
    nets = [replace(net, projections=(net.projections[0], p)) for p in slow]
    assert _program(nets[0]).payload.edges[1].delay == 62
    with pytest.raises(UnsupportedError) as caught:
        _program(nets[1])
    assert (caught.value.where, caught.value.used) == ("layer1", "63 of 62 steps")
    assert caught.value.hint


def test_another_family_of_device_is_refused():
    with pytest.raises(UsageError, match="loihi1 is not an FPGA") as caught:
        _program(device=load("loihi1"))
    assert "ecp5-25f" in (caught.value.hint or "")


def test_values_where_spikes_are_taken_are_refused():
    with pytest.raises(InputError, match="take spikes") as caught:
        TARGET.run(_program(), _x() * 0.5)
    assert "encode" in (caught.value.hint or "")


def _direct():
    return fold(replace(_net(), coding=Coding(kind="direct")))


def test_analogue_input_arrives_as_whole_numbers_unless_said_otherwise():
    program = prepare(_direct(), TARGET)
    assert list(program.qnet.levels) == ["in"]
    assert program.payload.engines[0].widths.value == VALUE_BITS
    x = np.random.default_rng(0).uniform(-1, 1, (2, 5, 20))
    trace = TARGET.run(program, x)
    dense = TARGET.run(program, np.ones((2, 5, 20)))
    assert trace.events["j0", "macs"] > 0 and "synops_quantized" not in trace.events.at("j0")
    nonzeros = int(np.count_nonzero(program.payload.engines[0].weights))
    assert dense.events["j0", "macs"] == 2 * 5 * nonzeros
    with pytest.raises(UnsupportedError) as caught:
        prepare(_direct(), TARGET, Options(analogue="bias"))
    assert "bias" in caught.value.message and caught.value.hint and "graded" in caught.value.hint


def test_input_values_fit_an_events_field_or_are_refused():
    program = prepare(_direct(), TARGET)
    top = (1 << (VALUE_BITS - 1)) - 1
    level = program.qnet.levels["in"]
    x = np.zeros((1, 2, 20))
    x[0, 1, 3] = -top / level
    assert target_module.sent(program, x)[0, 1, 3] == -top
    with pytest.raises(InputError, match="larger than the events of this target") as caught:
        TARGET.run(program, x * ((top + 1) / top))
    assert caught.value.used == "512 of 511 levels"
    assert caught.value.hint == (
        "scale the input to at most 1, or pass samples that the network was trained on"
    )


# ---------------------------------------------------------------- running and counting


def test_run_equals_the_integer_engine_in_chunks_or_at_once(monkeypatch):
    program = _program()
    x = _x()
    whole = TARGET.run(program, x, "states")
    reference = FixedEngine(program.qnet).run(x, "states")
    monkeypatch.setattr(target_module, "_CHUNK_VALUES", 1)
    parts = TARGET.run(program, x, "states")
    for name in ("p0", "p1"):
        assert (whole.spikes[name] == reference.spikes[name]).all()
        assert (parts.spikes[name] == reference.spikes[name]).all()
        assert (parts.states[name]["v"] == reference.states[name]["v"]).all()
        assert (parts.counts[name] == reference.counts[name]).all()
    assert dict(whole.events) == dict(parts.events)
    assert (whole.output == parts.output).all() and parts.samples == 3
    assert whole.timing.keys() == parts.timing.keys()
    assert all((whole.timing[k] == parts.timing[k]).all() for k in whole.timing)


def test_every_charged_event_is_counted():
    trace = TARGET.run(_program(bitmap_rows=0), _x())
    for name in TARGET.charged:
        assert name == "synops_helper" or trace.events.total(name) > 0, name
    assert not trace.spikes
    assert trace.events.at("p0")["cycles"] == trace.timing["cycles/p0"].sum()
    parts = sum(trace.timing[f"cycles/p0/{part}"] for part in PARTS)
    assert (parts == trace.timing["cycles/p0"]).all()


def test_a_silent_sample_takes_the_sweeps_alone():
    silent = np.zeros((1, 4, 20), np.uint8)
    program = _program(banks=8)
    sums = program.payload.engines[0].widths.sum
    trace = TARGET.run(program, silent)
    # A step: START, EMPTY, the flush; 33 neurons are 5 words in each of 8 banks, 10 are 2.
    ingest, first, second = START + EMPTY + 1, 5 + SWEEP_FIXED, 2 + SWEEP_FIXED
    assert trace.timing["cycles/p0"].tolist() == [4 * (ingest + first)]
    assert trace.timing["cycles/p1"].tolist() == [4 * (ingest + second)]
    # The input sends a step in a cycle; the sweeps of p0 follow one another.
    scan = 10 + SCAN_FIXED
    assert trace.timing["cycles"].tolist() == [1 + ingest + 4 * first + ingest + second + scan]
    # A word of all banks holds a membrane and a sum each; no current is kept.
    assert trace.events["p0", "state_read_bits"] == 4 * 8 * 5 * (16 + sums)
    shared = TARGET.run(_program(banks=8, engines=1), silent)
    assert shared.timing["cycles/p0"].tolist() == trace.timing["cycles/p0"].tolist()
    assert shared.timing["cycles"] > trace.timing["cycles"]


def test_a_producer_waits_for_room_in_the_spike_buffer():
    net = _net((4, 1, 640), density=1.0)  # the second layer sweeps 80 words, the first one
    program = _program(net, banks=8)
    trace = TARGET.run(program, np.zeros((1, 9, 4), np.uint8), "spikes")
    cycles = TARGET.cycles(program, trace)
    edge = program.payload.edges[1]
    assert (edge.pre, edge.ahead) == ("p0", 2)
    swept, taken = cycles.sweeping["p0"][0], cycles.ingested["p1"][0]
    for step in range(9):
        ready = cycles.ingested["p0"][0, step]
        before = cycles.swept["p0"][0, step - 1] if step else 0
        room = taken[step - 2] if step >= 2 else 0
        assert swept[step] == max(ready, before, room)
    assert swept[8] == taken[6] > cycles.ingested["p0"][0, 8]
    assert cycles.layers["p0"].sweep == 1 + SWEEP_FIXED
    assert cycles.layers["p1"].sweep == 80 + SWEEP_FIXED


@pytest.mark.parametrize("engines", [0, 1, 2])
def test_counters_are_what_the_definitions_count(engines):
    """What the accelerator adds up is what spikes with nonzero fan-out are, each once."""
    program = _program(_net((20, 33, 17, 10)), engines=engines, dense_rows=0)
    trace = TARGET.run(program, _x(), "spikes")
    cycles = TARGET.cycles(program, trace)
    counted = Counter(program.real, program.qnet).count(trace)
    for i, name in enumerate(("p0", "p1", "p2")):
        layer, pre = cycles.layers[name], ("in", "p0", "p1")[i]
        added = int(layer.accumulates[f"j{i}"].sum())
        assert added == trace.events[f"j{i}", "synops_quantized"]
        assert added == counted[f"j{i}", "synops_quantized"] > 0
        assert (layer.entries[f"j{i}"] == layer.accumulates[f"j{i}"]).all()
        assert layer.rows.sum() == trace.spikes[pre].sum()
        assert layer.pushes.sum() <= layer.entries[f"j{i}"].sum()
        assert (sum(layer.parts.values()) == layer.ingest + layer.sweep).all()
        assert all((part >= 0).all() for part in layer.parts.values())
    for key, n in counted.items():
        assert trace.events[key] == n, key


def test_short_fifos_hold_events_back_and_bounds_hold():
    program = _program(_net((30, 23, 10), density=0.6), banks=4, fifo_depth=2)
    x = np.ones((1, 3, 30), np.uint8)
    layer = TARGET.cycles(program, TARGET.run(program, x, "spikes")).layers["p0"]
    assert layer.stalls.min() > 0
    engine = program.payload.layer("p0")[0]
    assert (layer.ingest > max(30, int(engine.lengths.sum(axis=0).max()))).all()
    deep = _program(_net((30, 23, 10), density=0.6), banks=4, fifo_depth=64)
    assert TARGET.cycles(deep, TARGET.run(deep, x, "spikes")).layers["p0"].stalls.max() == 0


def test_latency_uses_the_clock_of_the_device_file_and_says_what_it_is():
    program = _program()
    trace = TARGET.run(program, _x())
    latency = TARGET.latency(program, trace)
    assert latency.cycles == trace.timing["cycles"].mean()
    assert latency.seconds == latency.cycles / 50e6
    assert (latency.kind, latency.steps) == ("estimated", 6)
    timeless = replace(program, device=replace(program.device, timing={}))
    latency = TARGET.latency(timeless, trace)
    assert latency.seconds is None and "states no clock" in latency.unavailable_reason


def test_the_compiled_recurrence_is_the_python_one():
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 5, (12, 3)) * rng.integers(0, 2, (12, 3))
    held = lengths > 0
    begin = np.array([[0, 0], [0, 5], [5, 30]])
    end = np.array([[0, 0], [5, 9], [30, 30]])
    early = np.array([[False, True], [False, False], [False, True]])
    first = np.concatenate([[0], np.cumsum(held.sum(axis=1))])
    arguments = (
        begin, end, early, rng.integers(-1, 12, 30), first,
        np.broadcast_to(np.arange(3), lengths.shape)[held], lengths[held], 3, 2,
    )  # fmt: skip
    expected = kernel.ingest(*arguments)
    assert (kernel.compiled()(*arguments) == expected).all()
    # No event: a segment without any, one skipped, and the flush.
    ticks = kernel.START + kernel.EMPTY + kernel.SKIPPED
    assert expected[0].tolist() == [ticks + 1, ticks, 0, 0, 0, 0]
    assert (expected[1:, 2:4] > 0).all() and expected[:, 5].max() > 0


@pytest.mark.parametrize("writable", [True, False])
def test_kernels_are_kept_in_the_user_cache_or_compiled_anew(tmp_path, writable):
    code = (
        "import numpy as np, numba.core.caching as caching, sys\n"
        "from snn_deploy.backends.fpga import kernel\n"
        "if sys.argv[1] == 'False':\n"
        "    caching.CacheImpl._locator_classes = []  # as if no folder could be written\n"
        "z, one, two = np.zeros(1, np.int64), np.ones(1, np.int64), np.array([0, 2])\n"
        "row = z[None], one[None], one[None] > 1, z, two, np.arange(2), np.full(2, 3), 2, 4\n"
        "print(kernel.compiled()(*row).tolist())\n"
    )
    env = {**os.environ, "SNN_DEPLOY_CACHE": str(tmp_path)}
    env.pop("NUMBA_CACHE_DIR", None)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(writable)],
        env=env, cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ticks = START + kernel.LATENCY + 2
    cycles = START + kernel.LATENCY + kernel.PIPELINE + 1 + 3 + kernel.AFTER + 2
    assert done.stdout.strip() == f"[[{cycles}, {ticks}, 1, 2, 3, 0]]"
    kept = list((tmp_path / "numba").rglob("*.nbc")) if writable else []
    assert len(kept) == int(writable) and any(tmp_path.iterdir()) == writable


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("width", "depth", "block_bits", "expected"),
    [
        (16, 64, 18432, 0),  # 1,024 bits: distributed
        (16, 65, 18432, 1),
        (18, 1024, 18432, 1),
        (18, 1025, 18432, 2),
        (36, 512, 18432, 1),
        (37, 512, 18432, 2),
        (13, 4096, 18432, 3),  # 9 + 4 bits: two blocks of 2048 x 9 and one of 4096 x 4
        (104, 4096, 18432, 24),
        (18, 1024, 36864, 0.5),
        (36, 1024, 36864, 1),
        (16, 256, 4096, 1),
        (16, 257, 4096, 2),
        (10, 1000, 10000, 1),  # a part whose shapes are not known: bits alone
        (10, 1001, 10000, 2),
    ],
)
def test_blocks_of_a_memory(width, depth, block_bits, expected):
    memory = Memory(where="x", kind="weights", width=width, depth=depth, copies=1)
    assert blocks(memory, block_bits) == expected


def test_usage_itemises_every_memory():
    program = _program(_net((300, 200, 10), 0.1), banks=4, bitmap_rows=0)
    usage = TARGET.usage(program)
    engine = program.payload.layer("p0")[0]
    widths = engine.widths
    assert engine.format == "csr" and widths.index == 6
    by = {(i.where, i.kind, i.detail): i.bits for i in usage.items}
    words = 4 * engine.depth
    assert by["j0", "weights", engine.choice] == words * widths.weight
    assert by["j0", "indices", engine.choice] == words * widths.index
    assert by["j0", "pointers", ""] == 300 * 4 * (widths.start + widths.length)
    assert by["p0", "state", "membranes"] == 4 * 50 * 16
    assert by["p0", "state", "sums, two halves"] == 2 * 4 * 50 * widths.sum
    # Two steps of each population are on their way: words of spikes with addresses, or events.
    assert [(e.pre, e.words, e.steps) for e in program.payload.edges] == [
        ("in", 300, 2), ("p0", 50, 2),
    ]  # fmt: skip
    assert by["p0", "spikes", "for p1"] == 2 * 64 * (4 + 6)
    assert by["in", "spikes", "for p0"] == 2 * 512 * 9
    assert by["p0", "buffers", ""] == 4 * 4 * widths.pointer
    assert not any(i.kind == "thresholds" for i in usage.items)  # a value for all: no memory
    (resource,) = usage.resources
    assert (resource.limit_key, resource.unit) == ("block_ram", "blocks")
    assert resource.used <= sum(n for _, n in resource.contributors)
    assert any("look-up tables, flip-flops" in text for text in usage.excludes)


def test_currents_parameters_and_kernels_take_memory_of_their_own():
    rng = np.random.default_rng(0)
    slow = CubaLIF(
        tau_syn_s=2e-3, tau_mem_s=3e-3, r=1.0, v_leak=0.0, v_reset=0.0, w_in=1.0,
        v_threshold=rng.uniform(0.5, 1, (5, 4, 4)),
    )  # fmt: skip
    net = row(
        (2, 6, 6), Conv2d(weight=grid(rng, 5, 2, 3, 3)), slow, Dense(weight=grid(rng, 3, 80)), LIF_
    )
    program = _program(net, banks=4)
    engine = program.payload.engines[0]
    by = {(i.where, i.kind, i.detail): i.bits for i in TARGET.usage(program).items}
    words = 2 * 16
    assert by["n1", "state", "currents"] == 4 * words * 24
    assert by["n1", "thresholds", "threshold"] == 4 * words * 15
    assert by["n1", "pointers", "where kernels lie"] == 72 * map_bits(engine)
    assert by["w1", "pointers", ""] == engine.rows * 4 * engine.widths.pointer
    assert ("n2", "state", "currents") not in by


def test_a_lever_promises_no_more_than_pruning_gives():
    net = _net((256, 512, 10), 0.5)
    program = _program(net, banks=4, dense_rows=0, bitmap_rows=0)
    used = dict(TARGET.usage(program).resources[0].contributors)
    lever = next(lv for lv in TARGET.usage(program).resources[0].levers if lv.where == "p0")
    assert lever.count == int(program.payload.layer("p0")[0].lengths.sum())
    allowed = used["p0"] * 0.7
    target = lever.fitting(allowed)
    assert 0 < target < lever.count
    weight = net.projections[0].synapses[0].weight.copy()
    rows, columns = np.nonzero(weight)
    keep = np.random.default_rng(0).permutation(rows.size)[:target]
    pruned = np.zeros_like(weight)
    pruned[rows[keep], columns[keep]] = weight[rows[keep], columns[keep]]
    first = replace(net.projections[0], synapses=(Dense(weight=pruned),))
    smaller = _program(
        replace(net, projections=(first, net.projections[1])), banks=4, dense_rows=0, bitmap_rows=0
    )
    after = dict(TARGET.usage(smaller).resources[0].contributors)
    assert after["p0"] <= allowed


# ---------------------------------------------------------------- artifacts


def test_files_are_deterministic_and_explained_by_the_configuration(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        net = replace(_net(), readout=Readout(cutoff=(4.0, float("inf"))))
        names = TARGET.write(_program(net), folder, "model")
        assert sorted(names) == sorted(p.name for p in folder.iterdir())
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    config = json.loads((folders[0] / "config.json").read_text())
    assert (config["format"], config["schema"], config["banks"]) == ("snn-deploy/fpga", 2, 8)
    assert config["readout"]["cutoff"] == [4.0, None]
    layers = [layer["population"] for e in config["engines"] for layer in e["layers"]]
    assert layers == ["p0", "p1"]
    assert (folders[0] / "readout.thresholds.hex").is_file()
    listed = 0
    for engine in config["engines"]:
        for image in engine["images"].values():
            data = (folders[0] / image["file"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == image["sha256"]
            lines = data.decode().split("\n")[:-1]
            assert len(lines) == image["depth"]
            assert {len(line) for line in lines} == {-(-image["width"] // 4)}
            assert max(int(line, 16) for line in lines) < 1 << image["width"]
            listed += 1
    # Beside images: the configuration, the readout's thresholds, and the hardware.
    assert listed + 2 + len(SOURCES) + 1 == len(names)
    assert (folders[0] / config["top"]).read_text().count("module accelerator") == 1


def test_wide_words_hold_bank_0_in_their_lowest_bits(tmp_path):
    for banks in (2, 16):  # 16 lanes are wider than 64 bits
        program = _program(banks=banks)
        folder = tmp_path / str(banks)
        folder.mkdir()
        TARGET.write(program, folder, "m")
        engine = program.payload.layer("p0")[0]
        bits, length = engine.widths.pointer, engine.widths.length
        lines = (folder / "engine00.pointers.hex").read_text().split()
        low = engine.lengths if engine.bitmaps is None else engine.bitmaps
        assert len(lines) == engine.rows
        for line, *expected in zip(lines, engine.starts.tolist(), low.tolist(), strict=True):
            lanes = [int(line, 16) >> (b * bits) & ((1 << bits) - 1) for b in range(banks)]
            assert [(n >> length, n & ((1 << length) - 1)) for n in lanes] == list(
                zip(*expected, strict=True)
            )


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes into read-only folders")
def test_a_read_only_folder_is_reported(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OutputError):
        TARGET.write(_program(), tmp_path, "m")


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        TARGET.write(_program(), tmp_path / "absent", "m")


def test_constraints_name_every_operator_once():
    rows = [what for what, _ in TARGET.constraints()]
    assert len(set(rows)) == len(rows) and "Conv1d, Conv2d" in rows
    assert TARGET.oracle().name == "rtl" and TARGET.arithmetic() is FPGA
