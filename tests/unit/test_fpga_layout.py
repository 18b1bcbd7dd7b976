"""Banks and memory images of the FPGA target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.arithmetics import FPGA
from snn_deploy.backends.fpga.decode import decode, entries
from snn_deploy.backends.fpga.layout import FieldLimits, Settings, balance, build
from snn_deploy.backends.fpga.program import Banks, Pooling, Window
from snn_deploy.engine.operators import chain_matrix
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir import LIF, Conv2d, Dense, Network, Pool2d, Population, Projection, Relay
from snn_deploy.passes.pipeline import fold
from snn_deploy.passes.quantize import quantize

LIF_ = LIF(tau_s=2e-3, r=1.0, v_leak=0.0, v_threshold=1.0, v_reset=0.0)


def _net(shapes, chains, neuron=LIF_):
    """A chain of populations; ``chains`` gives the synapses into each but the first."""
    pops = [Population(name="in", shape=shapes[0], neuron=Relay(), origin="in")]
    pops += [
        Population(name=f"p{i}", shape=s, neuron=neuron, origin=f"node{i}")
        for i, s in enumerate(shapes[1:])
    ]
    projections = [
        Projection(name=f"j{i}", pre=pops[i].name, post=pops[i + 1].name, synapses=tuple(chain))
        for i, chain in enumerate(chains)
    ]
    return Network(
        populations=tuple(pops),
        projections=tuple(projections),
        inputs=("in",),
        outputs=(pops[-1].name,),
        dt_s=1e-3,
    )


def _qnet(shapes, chains, bits=None, neuron=LIF_):
    return quantize(fold(_net(shapes, chains, neuron)), FPGA, bits=bits)


def _ones(out, pre, keep):
    weight = np.zeros((out, pre), np.float32)
    weight[keep] = 1
    return [Dense(weight=weight)]


# ---------------------------------------------------------------- banks


@pytest.mark.parametrize("n", [1, 7, 8, 9, 64, 100])
@pytest.mark.parametrize("banks", [1, 3, 8])
def test_a_permutation_keeps_slots_and_shares_no_place(n, banks):
    loads = np.random.default_rng(n).lognormal(0, 1, n)
    perm = balance(loads, banks)
    assert len(set(perm.tolist())) == n
    assert (perm // banks == np.arange(n) // banks).all()
    assert np.bincount(perm % banks, minlength=banks).max() <= -(-n // banks)
    natural = np.bincount(np.arange(n) % banks, weights=loads).max()
    assert np.bincount(perm % banks, weights=loads).max() <= natural * (1 + 1e-12)
    assert (balance(loads, banks) == perm).all()


def test_skewed_loads_come_close_to_an_even_share():
    rng = np.random.default_rng(1)
    loads = np.repeat([40.0, 1, 1, 1], 64) + rng.random(256)  # every 4th lane would be heavy
    loads = loads.reshape(4, 64).T.reshape(-1)
    worst = np.bincount(balance(loads, 8) % 8, weights=loads).max()
    assert np.bincount(np.arange(256) % 8, weights=loads).max() > 1.8 * loads.sum() / 8
    assert worst < 1.001 * loads.sum() / 8


def test_calibrated_counts_move_the_neurons_that_get_events():
    weight = np.ones((4, 2), np.float32)
    weight[0:2, 1] = 0  # neurons 0, 1 read input 0; neurons 2, 3 read both
    qnet = _qnet([(2,), (4,)], [[Dense(weight=weight)]])
    quiet = build(qnet, Settings(banks=2), expected={"in": np.array([1, 0])})
    perm = quiet.cores[0].layout.perm
    assert sorted(perm.tolist()) == [0, 1, 2, 3]
    loud = np.zeros((8, 2), np.float32)
    loud[[0, 2, 4, 6], 1] = 1  # only these hear input 1
    loud[:, 0] = 1
    qnet = _qnet([(2,), (8,)], [[Dense(weight=loud)]])
    perm = build(qnet, Settings(banks=2), expected={"in": np.array([0, 9])}).cores[0].layout.perm
    assert np.bincount(perm[[0, 2, 4, 6]] % 2, minlength=2).tolist() == [2, 2]


def test_places_and_neurons_are_inverse():
    banks = Banks(banks=4, channels=6, pixels=9, perm=balance(np.arange(6.0), 4))
    assert (banks.per_bank, banks.words) == (2, 18)
    bank, address = banks.places()
    assert (banks.neurons()[bank, address] == np.arange(54)).all()
    assert np.count_nonzero(banks.neurons() < 0) == 4 * 18 - 54


def test_pooled_events_outside_the_covered_area_drop():
    pooled = Pooling(shape=(1, 3, 5), kernel=(2, 2)).transform().reshape(3, 5)
    assert pooled.tolist() == [[0, 0, 1, 1, -1], [0, 0, 1, 1, -1], [-1] * 5]


def test_window_axis_lists_the_output_of_every_tap():
    window = Window(
        in_shape=(1, 1, 5), out_shape=(1, 1, 3), kernel=(1, 3), stride=(2, 2),
        padding=(0, 0, 1, 1), dilation=(1, 1),
    )  # fmt: skip
    assert window.axis(1).tolist() == [
        [-1, 0, -1],
        [1, -1, 0],
        [-1, 1, -1],
        [2, -1, 1],
        [-1, 2, -1],
    ]


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("banks", [1, 3, 8])
@pytest.mark.parametrize("dense_rows", [True, False])
@pytest.mark.parametrize("bits", [None, 4])
def test_decoded_images_equal_the_quantized_network(banks, dense_rows, bits):
    rng = np.random.default_rng(banks)
    sparse = lambda *s: (rng.normal(0, 1, s) * (rng.random(s) < 0.4)).astype("f4")
    qnet = _qnet(
        [(3, 6, 6), (5, 6, 6), (4, 3, 3), (11,), (4,)],
        [
            [Conv2d(weight=sparse(5, 3, 3, 3), padding=(1,) * 4, bias=rng.random(5).astype("f4"))],
            [Pool2d(kind="sum", kernel=(2, 2), stride=(2, 2)), Conv2d(weight=sparse(4, 5, 1, 1))],
            [Dense(weight=sparse(11, 36), bias=rng.random(11).astype("f4"))],
            [Dense(weight=np.ones((4, 11), np.float32))],
        ],
        bits,
        LIF(tau_s=3e-3, r=1.0, v_leak=0.0, v_threshold=0.7, v_reset=-0.2),
    )  # fmt: skip
    program = build(qnet, Settings(banks=banks, dense_rows=dense_rows))
    found = decode(program, qnet)
    for before, after in zip(qnet.network.projections, found.network.projections, strict=True):
        wanted = chain_matrix(qnet.network, before)
        assert (wanted != chain_matrix(found.network, after)).nnz == 0
        assert wanted.nnz > 0
    for name, q in qnet.populations.items():
        for field in ("threshold", "bias", "decay_v", "v_reset"):
            wanted, got = getattr(q, field), getattr(found.populations[name], field)
            if wanted is None:
                assert got is None
            else:
                size = qnet.network.population(name).size
                per = (
                    np.broadcast_to(wanted, size)
                    if wanted.ndim == 0 or wanted.size == size
                    else None
                )
                assert per is not None and (got == per).all(), (name, field)
    stored = sum(len(entries(core)[0]) for core in program if core.format == "csr")
    kernels = sum(
        int(np.count_nonzero(s.weight if hasattr(s, "weight") else s.data))
        for core in program
        if core.format == "csr"
        for p in qnet.network.into(core.population)
        for s in p.synapses
        if hasattr(s, "weight") or hasattr(s, "data")
    )
    assert stored == kernels


def test_rows_that_need_no_index_are_stored_dense_only_where_that_pays():
    full = _qnet([(16,), (32,)], [[Dense(weight=np.full((32, 16), 0.3, np.float32))]])
    core = build(full, Settings(banks=8)).cores[0]
    assert (core.format, core.widths.index, core.pointers.size) == ("dense", 0, 0)
    assert core.choice.startswith("dense rows (") and "rather than sparse rows (" in core.choice
    assert build(full, Settings(banks=8, dense_rows=False)).cores[0].format == "csr"
    rng = np.random.default_rng(0)
    half = np.where(rng.random((32, 16)) < 0.5, 0.3, 0).astype(np.float32)
    core = build(_qnet([(16,), (32,)], [[Dense(weight=half)]]), Settings(banks=8)).cores[0]
    assert core.format == "csr" and core.choice.startswith("sparse rows (")


def test_a_population_that_hears_two_kernel_shapes_multiplies_the_second_out():
    rng = np.random.default_rng(0)
    net = _net([(2, 4, 4), (4, 2, 2)], [[Conv2d(weight=rng.random((4, 2, 3, 3)).astype("f4"))]])
    other = Projection(
        name="wide", pre="in", post="p0", synapses=(
            Conv2d(weight=rng.random((2, 2, 3, 1)).astype("f4")),
            ),
    )  # fmt: skip
    qnet = quantize(fold(replace(net, projections=(*net.projections, other))), FPGA)
    program = build(qnet, Settings(banks=4))
    first, second = program.cores[0].segments
    assert first.window is not None and not first.composite
    assert second.window is None and second.composite
    found = decode(program, qnet)
    for before, after in zip(qnet.network.projections, found.network.projections, strict=True):
        assert (chain_matrix(qnet.network, before) != chain_matrix(found.network, after)).nnz == 0


# ---------------------------------------------------------------- widths: just fits, just fails


@pytest.mark.parametrize(
    ("neurons", "limits", "message"),
    [
        (7, FieldLimits(length=3), None),
        (8, FieldLimits(length=3), "longer than the pointer's length field"),
        (16, FieldLimits(index=4), None),
        (17, FieldLimits(index=4), "more neurons than the index field"),
    ],
)
def test_row_length_and_index_limits(neurons, limits, message):
    chain = _ones(neurons, 4, np.s_[:, 1])  # one row that holds every neuron of the bank
    qnet = _qnet([(4,), (neurons,)], [chain])
    settings = Settings(banks=1, dense_rows=False)
    if message is None:
        assert build(qnet, settings, limits=limits).cores[0].rows == 4
        return
    with pytest.raises(UnsupportedError, match=message) as caught:
        build(qnet, settings, limits=limits)
    assert caught.value.where == "node0"
    assert caught.value.hint is not None and "banks" in caught.value.hint
    assert caught.value.used is not None and " of " in caught.value.used


@pytest.mark.parametrize(("rows", "fits"), [(16, True), (17, False)])
def test_weight_memory_depth_limit(rows, fits):
    qnet = _qnet([(rows,), (1,)], [_ones(1, rows, np.s_[:, :])])
    settings, limits = Settings(banks=1, dense_rows=False), FieldLimits(start=4)
    if fits:
        core = build(qnet, settings, limits=limits).cores[0]
        assert (core.depth, core.widths.start) == (16, 4)
        return
    with pytest.raises(UnsupportedError, match="deeper than the pointer's start field") as caught:
        build(qnet, settings, limits=limits)
    assert caught.value.used == "17 of 16 words in one bank"


@pytest.mark.parametrize(("limit", "fits"), [(8, True), (7, False)])
def test_weight_width_limit(limit, fits):
    weight = np.array([[1.0, -0.3]], np.float32)  # becomes 127 and -38
    qnet = _qnet([(2,), (1,)], [[Dense(weight=weight)]])
    settings = Settings(banks=1, dense_rows=False)
    if fits:
        core = build(qnet, settings, limits=FieldLimits(weight=limit)).cores[0]
        assert core.widths.weight == 8
        return
    with pytest.raises(UnsupportedError, match="wider than the weight field"):
        build(qnet, settings, limits=FieldLimits(weight=limit))


def test_widths_follow_the_content():
    weight = np.zeros((9, 5), np.float32)
    weight[:, 2] = 3.0  # small integers stay what they are: 3 needs 3 bits with its sign
    qnet = _qnet([(5,), (9,)], [[Dense(weight=weight)]])
    widths = build(qnet, Settings(banks=2, dense_rows=False)).cores[0].widths
    assert (widths.index, widths.weight, widths.start, widths.length) == (3, 3, 3, 3)


@pytest.mark.parametrize(("v_reset", "fits"), [(-32768, True), (-32769, False)])
def test_a_reset_value_must_fit_the_state(v_reset, fits):
    qnet = _qnet([(2,), (2,)], [_ones(2, 2, np.s_[:, :])])
    q = replace(qnet.populations["p0"], v_reset=np.array(v_reset))
    qnet = replace(qnet, populations={"p0": q})
    if fits:
        table = build(qnet, Settings()).cores[0].table("v_reset")
        assert table is not None and table.words[0, 0] == 1 << 15
        return
    with pytest.raises(UnsupportedError, match="v reset does not fit its register") as caught:
        build(qnet, Settings())
    assert caught.value.used == "-32,769, range -32,768..32,767"
    assert caught.value.where == "node0" and caught.value.hint


def test_parameters_take_one_word_a_word_per_slot_or_per_address():
    rng = np.random.default_rng(0)
    conv = Conv2d(weight=rng.random((5, 1, 1, 1)).astype("f4"), bias=np.arange(5, dtype="f4") / 9)
    per_neuron = LIF(
        tau_s=2e-3, r=1.0, v_leak=0.0, v_threshold=rng.uniform(1, 2, (5, 2, 2)), v_reset=0.0
    )
    core = build(
        _qnet([(1, 2, 2), (5, 2, 2)], [[conv]], neuron=per_neuron), Settings(banks=4)
    ).cores[0]
    kinds = {t.name: (t.per, t.words.shape) for t in core.tables}
    assert kinds == {
        "threshold": ("neuron", (8, 4)),
        "bias": ("channel", (2, 4)),
        "decay": ("core", (1, 1)),
        "v_reset": ("core", (1, 1)),
    }
