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
from snn_deploy.backends.fpga.cycles import PARTS
from snn_deploy.backends.fpga.layout import Settings
from snn_deploy.backends.fpga.memory import Memory, blocks
from snn_deploy.backends.fpga.plan import check_supported
from snn_deploy.backends.fpga.target import FpgaTarget, settings
from snn_deploy.device import load
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.errors import InputError, OutputError, UnsupportedError, UsageError
from snn_deploy.ir import LI, LIF, Dense, Network, Population, Projection, Readout, Relay
from snn_deploy.passes.pipeline import fold
from snn_deploy.passes.quantize import quantize

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
        ({"engines": 2}, "engines is out of range", "2, range 0..1"),
        ({"bank": 8}, "no setting 'bank'", None),
    ],
)
def test_settings_out_of_range_are_refused(chosen, message, used):
    with pytest.raises(UsageError, match=message) as caught:
        settings(chosen)
    assert caught.value.used == used
    assert caught.value.hint


def test_settings_at_the_ends_of_their_ranges():
    assert settings(None) == Settings(banks=8, fifo_depth=4, engines="per-layer", dense_rows=True)
    chosen = settings({"banks": 64, "fifo_depth": 64, "engines": 1, "dense_rows": 0})
    assert chosen == Settings(banks=64, fifo_depth=64, engines="shared", dense_rows=False)
    assert settings({"banks": 1, "fifo_depth": 2}).fifo_depth == 2


def test_feedback_is_refused_with_its_place():
    net = _net()
    loop = Projection(
        name="back", pre="p1", post="p0", synapses=net.projections[1].synapses, origin="rec"
    )
    weight = np.zeros((33, 10), np.float32)
    loop = replace(loop, synapses=(Dense(weight=weight),))
    with pytest.raises(UnsupportedError, match="no feedback connections") as caught:
        check_supported(replace(net, projections=(*net.projections, loop)))
    assert caught.value.where == "rec" and "--target cpu" in (caught.value.hint or "")


def test_delays_are_refused_with_their_place():
    net = _net()
    slow = replace(net.projections[1], delay_steps=2)
    with pytest.raises(UnsupportedError, match="has no delays") as caught:
        check_supported(replace(net, projections=(net.projections[0], slow)))
    assert (caught.value.where, caught.value.used) == ("layer1", "2 of 0 steps")
    assert "--target loihi" in (caught.value.hint or "")


def test_a_silent_population_cannot_feed_another():
    net = _net(hidden=LI(tau_s=2e-3, r=1.0, v_leak=0.0))
    with pytest.raises(UnsupportedError, match="p0 does not spike") as caught:
        _program(net)
    assert caught.value.where == "layer1" and caught.value.hint


def test_a_population_without_input_is_refused():
    net = _net()
    lone = Population(name="lone", shape=(3,), neuron=LIF_)
    with pytest.raises(InputError, match="nothing feeds this population") as caught:
        check_supported(replace(net, populations=(*net.populations, lone)))
    assert caught.value.where == "lone" and caught.value.hint


def test_another_family_of_device_is_refused():
    with pytest.raises(UsageError, match="loihi1 is not an FPGA") as caught:
        _program(device=load("loihi1"))
    assert "ecp5-25f" in (caught.value.hint or "")


def test_analogue_input_is_refused():
    with pytest.raises(InputError, match="takes spikes") as caught:
        TARGET.run(_program(), _x() * 0.5)
    assert "encode" in (caught.value.hint or "")


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
    trace = TARGET.run(_program(), _x())
    for name in TARGET.charged:
        assert name == "synops_helper" or trace.events.total(name) > 0, name
    assert not trace.spikes
    assert trace.events.at("p0")["cycles"] == trace.timing["cycles/p0"].sum()
    parts = sum(trace.timing[f"cycles/p0/{part}"] for part in PARTS)
    assert (parts == trace.timing["cycles/p0"]).all()


def test_a_silent_sample_takes_the_sweeps_alone():
    program = _program(banks=8)
    trace = TARGET.run(program, np.zeros((1, 4, 20), np.uint8))
    # 33 neurons are 5 words in each of 8 banks: 0 + 1 + 3 + 5 + 3
    assert trace.timing["cycles/p0"].tolist() == [4 * 12]
    assert trace.timing["cycles/p1"].tolist() == [4 * 9]
    assert trace.timing["cycles"].tolist() == [4 * 12 + 9]
    assert trace.events["p0", "state_read_bits"] == 4 * 8 * 5 * 16
    shared = TARGET.run(_program(banks=8, engines=1), np.zeros((1, 4, 20), np.uint8))
    assert shared.timing["cycles"].tolist() == [4 * (12 + 9)]


def test_a_producer_waits_for_a_free_half_of_the_spike_buffer():
    net = _net((4, 1, 640), density=1.0)  # the second layer sweeps 80 words, the first one
    program = _program(net, banks=8)
    trace = TARGET.run(program, np.zeros((1, 6, 4), np.uint8), "spikes")
    cycles = TARGET.cycles(program, trace)
    first, second = 8, 87
    assert cycles.cores["p0"].total[0].tolist() == [first] * 6
    assert cycles.start["p1"][0].tolist() == [first + second * t for t in range(6)]
    # step t of p0 begins when p1 has finished step t - 2
    expected = [0, first] + [first + second * (t - 1) for t in range(2, 6)]
    assert cycles.start["p0"][0].tolist() == expected
    assert cycles.latency.tolist() == [first + 6 * second]


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
    first = np.array([0, 0, 5, 30])
    events = rng.integers(0, 6, 30)
    patterns = np.array([0, 1, 3, 4])
    taps = np.array([0, 0, 1, -1])
    arguments = (first, events, np.array([0, 1, 2, 1, 0, 1]), np.arange(6) * 2, patterns, taps)
    expected = kernel.ingest(*arguments, lengths, 2)
    assert (kernel.compiled()(*arguments, lengths, 2) == expected).all()
    assert expected[0].tolist() == [0] * 7 and (expected[1:, 0] > 0).all()


@pytest.mark.parametrize("writable", [True, False])
def test_kernels_are_kept_in_the_user_cache_or_compiled_anew(tmp_path, writable):
    code = (
        "import numpy as np, numba.core.caching as caching, sys\n"
        "from snn_deploy.backends.fpga import kernel\n"
        "if sys.argv[1] == 'False':\n"
        "    caching.CacheImpl._locator_classes = []  # as if no folder could be written\n"
        "z, two = np.zeros(1, np.int64), np.array([0, 1])\n"
        "print(kernel.compiled()(two, z, z, z, two, z, np.full((1, 2), 3), 4).tolist())\n"
    )
    env = {**os.environ, "SNN_DEPLOY_CACHE": str(tmp_path)}
    env.pop("NUMBA_CACHE_DIR", None)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(writable)],
        env=env, cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[[6, 1, 6, 3, 0, 1, 2]]"
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
    program = _program(_net((300, 200, 10), 0.1), banks=4)
    usage = TARGET.usage(program)
    core = program.payload.core("p0")
    assert core.format == "csr"
    by = {(i.where, i.kind): i.bits for i in usage.items if i.kind != "thresholds"}
    words = 4 * core.depth
    assert by["j0", "weights"] == words * core.widths.weight
    assert by["j0", "indices"] == words * core.widths.index == words * 6
    assert by["j0", "pointers"] == 300 * 4 * (core.widths.start + core.widths.length)
    assert by["p0", "state"] == 4 * 50 * 16
    assert by["p0", "spikes"] == 2 * 200 and by["in", "spikes"] == 600
    assert by["p0", "buffers"] == 4 * 4 * core.widths.pointer
    names = {i.detail for i in usage.items if i.where == "p0" and i.kind == "thresholds"}
    assert names == {"threshold", "decay", "v reset"}
    (resource,) = usage.resources
    assert (resource.limit_key, resource.unit) == ("block_ram", "blocks")
    assert resource.used <= sum(n for _, n in resource.contributors)
    assert any("look-up tables, flip-flops" in text for text in usage.excludes)


def test_a_lever_promises_no_more_than_pruning_gives():
    net = _net((256, 512, 10), 0.5)
    program = _program(net, banks=4, dense_rows=0)
    used = dict(TARGET.usage(program).resources[0].contributors)
    lever = next(lv for lv in TARGET.usage(program).resources[0].levers if lv.where == "p0")
    assert lever.count == int(program.payload.core("p0").lengths().sum())
    allowed = used["p0"] * 0.7
    target = lever.fitting(allowed)
    assert 0 < target < lever.count
    weight = net.projections[0].synapses[0].weight.copy()
    rows, columns = np.nonzero(weight)
    keep = np.random.default_rng(0).permutation(rows.size)[:target]
    pruned = np.zeros_like(weight)
    pruned[rows[keep], columns[keep]] = weight[rows[keep], columns[keep]]
    first = replace(net.projections[0], synapses=(Dense(weight=pruned),))
    smaller = _program(replace(net, projections=(first, net.projections[1])), banks=4, dense_rows=0)
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
    assert (config["format"], config["schema"], config["banks"]) == ("snn-deploy/fpga", 1, 8)
    assert config["readout"]["cutoff"] == [4.0, None]
    assert [core["population"] for core in config["cores"]] == ["p0", "p1"]
    listed = 0
    for core in config["cores"]:
        for image in core["images"].values():
            data = (folders[0] / image["file"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == image["sha256"]
            lines = data.decode().split("\n")[:-1]
            assert len(lines) == image["depth"]
            assert {len(line) for line in lines} == {-(-image["width"] // 4)}
            assert max(int(line, 16) for line in lines) < 1 << image["width"]
            listed += 1
    assert listed + 1 == len(names)


def test_wide_words_hold_bank_0_in_their_lowest_bits(tmp_path):
    for banks in (2, 16):  # 16 lanes are wider than 64 bits
        program = _program(banks=banks)
        folder = tmp_path / str(banks)
        folder.mkdir()
        TARGET.write(program, folder, "m")
        core = program.payload.core("p0")
        bits = core.widths.pointer
        lines = (folder / "core00.pointers.hex").read_text().split()
        for row, line in enumerate(lines):
            lanes = [int(line, 16) >> (b * bits) & ((1 << bits) - 1) for b in range(banks)]
            assert lanes == core.pointers[row].tolist()


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
    assert TARGET.oracle() is None and TARGET.arithmetic() is FPGA
