"""The FPGA target's program against the integer engine and the counts by definition.

What the hardware does with the same files is in test_rtl.py; here every kind of network meets
every format of rows without a simulator.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.base import Options
from snn_deploy.backends.fpga.decode import decode
from snn_deploy.backends.fpga.target import FpgaTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.engine.compare import compare
from snn_deploy.engine.count import Counter
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.engine.operators import chain_matrix
from snn_deploy.ir import Conv2d, Dense
from snn_deploy.passes.pipeline import fold
from tests import builders as b
from tests.rtl_cases import FAMILIES, FORMATS, Case, case

TARGET = FpgaTarget()
SETTINGS = (
    {"banks": 1, "fifo_depth": 2, "engines": 0},
    {"banks": 4, "fifo_depth": 4, "engines": 1},
    {"banks": 16, "fifo_depth": 8, "engines": 2},
)


def _program(made: Case):
    return prepare(fold(made.network), TARGET, Options(settings=made.settings))


def _equal(program, x):
    """Return a trace that equals the integer engine on the network before it became images."""
    ours = FixedEngine(program.qnet).run(x, "states")
    trace = TARGET.run(program, x, "states")
    found = compare(program.real, trace, ours, names=("images", "engine"), tolerance=0.0)
    assert found.equal, found.first
    assert np.array_equal(trace.output, ours.output)
    return trace


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("settings", "form"), list(zip(SETTINGS, FORMATS, strict=True)), ids=FORMATS
)
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_the_engine_and_to_the_counts_by_definition(family, settings, form, seed):
    made = case(family, seed, {**settings, **FORMATS[form]})
    program = _program(made)
    payload = program.payload
    assert {e.format for e in payload.engines} <= {"csr", form}
    trace = _equal(program, made.x)
    cycles = TARGET.cycles(program, trace) if trace.stop is None else None
    segments = [(e, s) for e, x in payload.layers() for s in x.segments]
    layers = [] if cycles is None else list(cycles.layers.values())
    # Multiplied-out chains merge entries, the ends of delays never arrive, and values of 0 are
    # not sent. Zeros of full rows are the lowering's own.
    merged = {s.projection for _, s in segments if s.composite}
    fewer = merged | {s.projection for _, s in segments if s.delay}
    full = {s.projection for e, s in segments if e.format == "dense"}
    for (where, event), n in Counter(program.real, program.qnet).count(trace).items():
        found = trace.events[where, event]
        if event == "macs" or (event == "synops_helper" and where in merged):
            assert found > 0 or n == 0, (where, event)
        elif event in ("synops_quantized", "synops_helper") and where in fewer:
            assert 0 <= found <= n, (where, event)
        else:
            assert found == n, (where, event)
        if event == "synops_quantized" and where in full - merged and layers:
            added = found + trace.events[where, "synops_helper"]
            assert added == sum(x.accumulates.get(where, np.zeros(())).sum() for x in layers)
    if cycles is None:
        return
    for name, layer in cycles.layers.items():
        assert (sum(layer.parts.values()) == layer.ingest + layer.sweep).all(), name
        assert all((part >= 0).all() for part in layer.parts.values()), name
        assert (sum(layer.accumulates.values()) <= sum(layer.entries.values())).all()
        assert trace.events[name, "cycles"] == (layer.ingest + layer.sweep).sum()
        assert trace.events[name, "fpga:stall_cycles"] == layer.stalls.sum()
        assert trace.events[name, "fpga:fifo_pushes"] == layer.pushes.sum()
        assert (np.diff(cycles.swept[name], axis=1) >= layer.sweep).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_synapses_come_back_from_the_images(family, seed):
    """Per projection, the sum of its delays' matrices; where delays differ, each on its own."""
    qnet = _program(case(family, seed, {})).qnet
    for settings in SETTINGS:
        program = _program(case(family, seed, dict(settings)))
        found = decode(program.payload, qnet).network.projections
        for before in qnet.network.projections:
            parts = [p for p in found if p.name.rsplit(".", 1)[0] == before.name]
            got = sum(chain_matrix(qnet.network, p) for p in parts)
            assert abs(got - chain_matrix(qnet.network, before)).sum() == 0, before.name
            if len(parts) > 1:
                delays = [int(p.delay_steps) for p in parts]
                used = chain_matrix(qnet.network, before).toarray() != 0
                assert set(delays) == set(np.asarray(before.delay_steps)[used].tolist())


# ---------------------------------------------------------------- a damaged image is noticed


def _mutated(program, population, field, change):
    payload = program.payload
    engine, layer = payload.layer(population)
    if field in ("weights", "starts", "lengths"):
        words = getattr(engine, field).copy()
        change(engine, words)
        changed = replace(engine, **{field: words})
    else:
        table = layer.table(field)
        words = table.words.copy()
        change(engine, words)
        tables = tuple(replace(t, words=words) if t is table else t for t in layer.tables)
        layers = tuple(replace(x, tables=tables) if x is layer else x for x in engine.layers)
        changed = replace(engine, layers=layers)
    engines = tuple(changed if e is engine else e for e in payload.engines)
    return replace(program, payload=replace(payload, engines=engines))


def _flip(bit):
    def change(engine, words):
        words[...] ^= np.int64(1 << bit)

    change.__name__ = f"bit_{bit}"
    return change


def _sign_of_a_weight(engine, words):
    words[0] ^= np.uint64(1 << (engine.widths.weight - 1))


def _index_of_an_entry(engine, words):
    words ^= np.uint64(1 << engine.widths.weight)


def _one_entry_less(engine, words):
    row, bank = np.argwhere(engine.lengths > 0)[0]
    words[row, bank] -= 1


def _start_too_late(engine, words):
    words[engine.lengths > 0] += 1


def _rows(rng):
    back = b.lif(threshold=0.375, v_reset=-0.125, v_init=-0.25)
    first = Dense(weight=b.grid(rng, 23, 30, density=0.3), bias=b.grid(rng, 23) / 8)
    return b.row((30,), first, back, Dense(weight=b.grid(rng, 10, 23)), b.lif(reset="subtract"))


def _kernels(rng):
    first = Conv2d(weight=b.grid(rng, 5, 2, 3, 3, density=0.7), bias=b.grid(rng, 5) / 8)
    second = Dense(weight=b.grid(rng, 4, 80))
    return b.row((2, 6, 6), first, b.lif(), second, b.cuba(v_reset=-0.25))


@pytest.mark.parametrize(
    ("build", "population", "field", "change"),
    [
        (_rows, "n1", "weights", _sign_of_a_weight),
        (_rows, "n1", "weights", _index_of_an_entry),
        (_rows, "n1", "lengths", _one_entry_less),
        (_rows, "n1", "starts", _start_too_late),
        (_rows, "n1", "threshold", _flip(10)),
        (_rows, "n1", "bias", _flip(9)),
        (_rows, "n1", "keep_v", _flip(10)),
        (_rows, "n1", "reset", _flip(12)),
        (_rows, "n1", "start", _flip(12)),
        (_rows, "n2", "reset", _flip(12)),
        (_kernels, "n1", "weights", _sign_of_a_weight),
        (_kernels, "n1", "weights", _index_of_an_entry),
        (_kernels, "n1", "starts", _start_too_late),
        (_kernels, "n1", "bias", _flip(9)),
        (_kernels, "n2", "keep_u", _flip(10)),
        (_kernels, "n2", "threshold", _flip(10)),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_damaged_image_changes_the_spikes(build, population, field, change):
    rng = np.random.default_rng(0)
    network = build(rng)
    x = b.spikes(rng, 12, 12, network.input_population.shape)
    program = _program(Case(network=network, settings=FORMATS["csr"], x=x))
    intact = _equal(program, x)
    damaged = TARGET.run(_mutated(program, population, field, change), x, "spikes")
    assert not np.array_equal(intact.spikes[population], damaged.spikes[population])
