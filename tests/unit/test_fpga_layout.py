"""Banks and memory images of the FPGA target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.arithmetics import FPGA
from snn_deploy.backends.fpga.decode import decode, rows_of_entries
from snn_deploy.backends.fpga.layout import Settings, balance, build
from snn_deploy.backends.fpga.pack import VALUE_BITS, FieldLimits, bits, signed_bits
from snn_deploy.backends.fpga.program import Banks, Pooling, Window
from snn_deploy.engine.operators import chain_matrix
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir import (
    LIF,
    Coding,
    Conv2d,
    Csr,
    CubaLIF,
    Dense,
    Network,
    Pool2d,
    Population,
    Projection,
    Relay,
)
from snn_deploy.ir.network import per_neuron
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


def _engine(qnet, settings, **options):
    return build(qnet, settings, **options).engines[0]


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
    loud = np.zeros((8, 2), np.float32)
    loud[[0, 2, 4, 6], 1] = 1  # only these hear input 1
    loud[:, 0] = 1
    qnet = _qnet([(2,), (8,), (1,)], [[Dense(weight=loud)], _ones(1, 8, np.s_[:, :])])
    expected = {"in": np.array([0, 9]), "p0": np.ones(8)}
    first, last = build(qnet, Settings(banks=2), expected=expected).engines
    perm = first.layers[0].layout.perm
    assert np.bincount(perm[[0, 2, 4, 6]] % 2, minlength=2).tolist() == [2, 2]
    assert last.layers[0].layout.perm.tolist() == [0]


def test_the_output_keeps_its_order_for_the_readout_unit():
    weight = np.ones((6, 4), np.float32)
    weight[::2] = 0
    weight[::2, 0] = 1
    qnet = _qnet([(4,), (6,), (6,)], [[Dense(weight=weight)], _ones(6, 6, np.s_[::2, :])])
    first, last = build(qnet, Settings(banks=2)).engines
    assert first.layers[0].layout.perm.tolist() != list(range(6))
    assert last.layers[0].layout.perm.tolist() == list(range(6))


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


@pytest.mark.parametrize("banks", [1, 2, 8])
@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("engines", [0, 2])
def test_decoded_images_equal_the_quantized_network(banks, free, bits, engines):
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
    settings = Settings(banks=banks, dense_rows=free, bitmap_rows=free, engines=engines)
    program = build(qnet, settings)
    assert len(program.engines) == (engines or 4)
    _equal_when_decoded(qnet, program)
    formats = {engine.format for engine in program.engines}
    assert formats == {"csr"} if not free else "dense" in formats or engines
    # What is stored is what is not zero, once: kernels are not unrolled.
    for engine in program.engines:
        if engine.format != "dense":
            synapses = [
                s
                for layer in engine.layers
                for p in qnet.network.into(layer.population)
                for s in p.synapses
                if not isinstance(s, Pool2d)
            ]
            stored = [s.data if isinstance(s, Csr) else s.weight for s in synapses]
            wanted = sum(int(np.count_nonzero(weights)) for weights in stored)
            assert len(rows_of_entries(engine)[0]) == wanted


def _equal_when_decoded(qnet, program):
    found = decode(program, qnet)
    for before, after in zip(qnet.network.projections, found.network.projections, strict=True):
        wanted = chain_matrix(qnet.network, before)
        assert (wanted != chain_matrix(found.network, after)).nnz == 0
        assert wanted.nnz > 0
        assert np.array_equal(before.delay_steps, after.delay_steps)
    zero = np.int64(0)
    for name, q in qnet.populations.items():
        got, shape = found.populations[name], qnet.network.population(name).shape
        assert (got.shift, got.reset) == (q.shift, q.reset)
        for field in ("threshold", "decay_u", "decay_v", "v_reset", "reset_amount", "v_init"):
            wanted = per_neuron(getattr(q, field), shape)
            assert np.array_equal(per_neuron(getattr(got, field), shape), wanted), (name, field)
        wanted = per_neuron(zero if q.bias is None else q.bias, shape)
        assert np.array_equal(got.bias, wanted), name


def test_delays_loops_and_currents_come_back_too():
    rng = np.random.default_rng(3)
    slow = CubaLIF(
        tau_syn_s=2e-3, tau_mem_s=3e-3, r=1.0, v_leak=0.0, v_threshold=0.5, v_reset=0.0, w_in=1.0
    )
    sparse = lambda *s: (rng.normal(0, 1, s) * (rng.random(s) < 0.4)).astype("f4")
    net = _net([(6,), (9,), (4,)], [[Dense(weight=sparse(9, 6))], [Dense(weight=sparse(4, 9))]])
    hidden = replace(net.populations[1], neuron=slow)
    loop = Projection(name="loop", pre="p0", post="p0", synapses=(Dense(weight=sparse(9, 9)),))
    late = replace(net.projections[1], delay_steps=3)
    net = replace(
        net,
        populations=(net.populations[0], hidden, net.populations[2]),
        projections=(net.projections[0], loop, late),
    )
    qnet = quantize(fold(net), FPGA)
    program = build(qnet, Settings(banks=2))
    _equal_when_decoded(qnet, program)
    hears = program.layer("p0")[1]
    assert [(s.projection, s.delay) for s in hears.segments] == [("j0", 0), ("loop", 1)]
    assert [s.delay for s in program.layer("p1")[1].segments] == [3]
    assert hears.current and hears.leak and not program.layer("p1")[1].current


def test_a_delay_per_synapse_is_a_segment_per_delay():
    weight = np.array([[1, 2, 0], [3, 0, 4]], np.float32)
    net = _net([(3,), (2,)], [[Dense(weight=weight)]])
    delays = np.array([[0, 2, 0], [2, 0, 5]])
    net = replace(net, projections=(replace(net.projections[0], delay_steps=delays),))
    qnet = quantize(fold(net), FPGA)
    program = build(qnet, Settings(banks=1))
    segments = program.engines[0].segments
    assert [(s.projection, s.delay) for s in segments] == [("j0", 0), ("j0", 2), ("j0", 5)]
    assert program.edges[0].delay == 5 and program.edges[0].steps == 8
    scale = qnet.populations["p0"].scale
    found = decode(program, qnet).network
    assert [p.delay_steps for p in found.projections] == [0, 2, 5]
    dense = [chain_matrix(found, p).toarray() / scale for p in found.projections]
    wanted = [[[1, 0, 0], [0, 0, 0]], [[0, 2, 0], [3, 0, 0]], [[0, 0, 0], [0, 0, 4]]]
    assert np.allclose(dense, wanted, atol=0.02)


@pytest.mark.parametrize(
    ("density", "settings", "form"),
    [
        (1.0, {}, "dense"),
        (1.0, {"dense_rows": False}, "bitmap"),
        (1.0, {"dense_rows": False, "bitmap_rows": False}, "csr"),
        (0.5, {}, "bitmap"),
        (0.5, {"bitmap_rows": False}, "csr"),
        (0.02, {}, "csr"),
    ],
)
def test_rows_have_the_format_that_takes_the_fewest_bits(density, settings, form):
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((64, 16)) < density, 0.3, 0).astype(np.float32)
    qnet = _qnet([(16,), (64,)], [[Dense(weight=weight)]])
    engine = _engine(qnet, Settings(banks=2, **settings))
    assert engine.format == form
    names = {"csr": "indices", "bitmap": "bitmaps", "dense": "no indices"}
    assert engine.choice.startswith(f"rows with {names[form]}: ")
    pointers = 0 if form == "dense" else engine.rows * engine.widths.pointer
    stored = 2 * (engine.depth * engine.entry_bits + pointers)
    assert f"{names[form]}: {stored:,} bits" in engine.choice
    sizes = [int(n.split()[0].replace(",", "")) for n in engine.choice.split(": ")[1:]]
    assert sizes == sorted(sizes) and sizes[0] == stored
    assert (engine.bitmaps is not None) == (form == "bitmap")
    assert engine.widths.index == (0 if form != "csr" else 5)


def test_full_rows_of_two_layers_on_an_engine_need_pointers():
    chains = [_ones(16, 16, np.s_[:, :]), _ones(16, 16, np.s_[:, :])]
    qnet = _qnet([(16,), (16,), (16,)], chains)
    assert {e.format for e in build(qnet, Settings(banks=2)).engines} == {"dense"}
    assert _engine(qnet, Settings(banks=2, engines=1)).format == "bitmap"


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
    first, second = program.engines[0].segments
    assert first.taps == 9 and not first.composite
    assert second.map is None and second.composite
    _equal_when_decoded(qnet, program)


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
    settings = Settings(banks=1, dense_rows=False, bitmap_rows=False)
    if message is None:
        assert _engine(qnet, settings, limits=limits).rows == 4
        return
    with pytest.raises(UnsupportedError, match=message) as caught:
        build(qnet, settings, limits=limits)
    assert caught.value.where == "node0"
    assert caught.value.hint is not None and "banks" in caught.value.hint
    assert caught.value.used is not None and " of " in caught.value.used


@pytest.mark.parametrize(("rows", "fits"), [(16, True), (17, False)])
def test_weight_memory_depth_limit(rows, fits):
    qnet = _qnet([(rows,), (1,)], [_ones(1, rows, np.s_[:, :])])
    settings, limits = Settings(banks=1, dense_rows=False, bitmap_rows=False), FieldLimits(start=4)
    if fits:
        engine = _engine(qnet, settings, limits=limits)
        assert (engine.depth, engine.widths.start) == (16, 4)
        return
    with pytest.raises(UnsupportedError, match="deeper than the pointer's start field") as caught:
        build(qnet, settings, limits=limits)
    assert caught.value.used == "17 of 16 words in one bank"
    assert caught.value.hint == "prune the layer, or spread it over more banks: --set banks=N"


@pytest.mark.parametrize(("limit", "fits"), [(8, True), (7, False)])
def test_weight_width_limit(limit, fits):
    weight = np.array([[1.0, -0.3]], np.float32)  # becomes 127 and -38
    qnet = _qnet([(2,), (1,)], [[Dense(weight=weight)]])
    settings = Settings(banks=1, dense_rows=False, bitmap_rows=False)
    if fits:
        assert _engine(qnet, settings, limits=FieldLimits(weight=limit)).widths.weight == 8
        return
    with pytest.raises(UnsupportedError, match="wider than the weight field") as caught:
        build(qnet, settings, limits=FieldLimits(weight=limit))
    assert (caught.value.where, caught.value.used) == ("node0", "8 of 7 bits")


def _summed(n, **changes):
    """Return n weights of 127 into one neuron."""
    qnet = _qnet([(n,), (1,)], [[Dense(weight=np.full((1, n), 0.9, np.float32))]])
    assert qnet.network.projections[0].synapses[0].weight.tolist() == [[127] * n]
    q = replace(qnet.populations["p0"], **changes)
    return replace(qnet, populations={"p0": q})


@pytest.mark.parametrize(("n", "fits"), [(8, True), (9, False)])
def test_an_accumulator_holds_the_largest_sum_or_the_layer_is_refused(n, fits):
    qnet, limits = _summed(n, shift=2), FieldLimits(sum=13)  # 8 * 127 needs 11 bits, then 2 more
    if fits:
        engine = _engine(qnet, Settings(), limits=limits)
        assert (engine.layers[0].sum_most, engine.widths.sum, engine.widths.current) == (
            8 * 127, 11, 13,
        )  # fmt: skip
        return
    with pytest.raises(UnsupportedError, match="wider than an accumulator") as caught:
        build(qnet, Settings(), limits=limits)
    assert (caught.value.where, caught.value.used) == ("node0", "14 of 13 bits")
    assert caught.value.hint == "prune the layer, or use fewer weight bits: --bits N"


def test_an_engine_keeps_the_widest_sum_of_each_of_its_layers_not_of_all():
    chains = [_ones(2, 8, np.s_[:, :]), _ones(1, 2, np.s_[:, :])]
    qnet = _qnet([(8,), (2,), (1,)], chains)
    shifts = {"p0": 0, "p1": 2}  # 8 below 16 stays, 2 below 4 becomes 8
    changed = {n: replace(qnet.populations[n], shift=s) for n, s in shifts.items()}
    engine = _engine(replace(qnet, populations=changed), Settings(engines=1))
    assert [x.sum_most for x in engine.layers] == [8, 2]
    assert (engine.widths.sum, engine.widths.current) == (5, 5)


def test_sums_count_pools_kernels_and_values():
    rng = np.random.default_rng(0)
    weight = rng.integers(-3, 4, (3, 2, 2, 2)).astype("f4")
    pool = Pool2d(kind="sum", kernel=(2, 2), stride=(2, 2))
    qnet = _qnet([(2, 8, 8), (3, 3, 3)], [[pool, Conv2d(weight=weight)]])
    (projection,) = qnet.network.projections
    most = abs(chain_matrix(qnet.network, projection)).sum(axis=1).max()
    assert _engine(qnet, Settings(banks=2)).layers[0].sum_most == most
    net = replace(_net([(4,), (2,)], [_ones(2, 4, np.s_[:, :])]), coding=Coding(kind="direct"))
    qnet = quantize(fold(net), FPGA, analogue="graded")
    engine = _engine(qnet, Settings(banks=2))
    weight = np.abs(qnet.network.projections[0].synapses[0].weight).sum(axis=1).max()
    assert engine.layers[0].sum_most == weight << (VALUE_BITS - 1)
    assert engine.widths.value == VALUE_BITS


# 127 in every step, of which lost / 4096 goes: 127 * 4096 / lost must stay below 2^23 - 1.
@pytest.mark.parametrize(("lost", "fits"), [(64, True), (63, False)])
def test_a_current_that_can_leave_its_register_is_refused(lost, fits):
    qnet = _summed(1, decay_u=np.array(lost), shift=10)
    limits = FieldLimits(sum=32)
    assert ((127 << 10) * 4096 / lost <= 2**23 - 1) == fits
    if fits:
        assert _engine(qnet, Settings(), limits=limits).layers[0].current
        return
    with pytest.raises(UnsupportedError, match="current can grow beyond its register") as caught:
        build(qnet, Settings(), limits=limits)
    assert caught.value.where == "node0"
    assert caught.value.used == f"{(127 << 10) * 4096 / lost:,.0f} of 8,388,607"
    assert caught.value.hint == (
        "prune the layer, use fewer weight bits (--bits N), or a shorter synaptic time constant"
    )


@pytest.mark.parametrize(
    ("top", "plain", "twos"), [(0, 1, 2), (1, 1, 2), (2, 2, 3), (7, 3, 4), (8, 4, 5)]
)
def test_widths_of_numbers(top, plain, twos):
    assert bits(top) == plain
    assert signed_bits(0, top) == twos
    assert signed_bits(-top - 1, 0) == twos


def test_widths_follow_the_content():
    weight = np.zeros((9, 5), np.float32)
    weight[:, 2] = 3.0  # small integers stay what they are: 3 needs 3 bits with its sign
    qnet = _qnet([(5,), (9,)], [[Dense(weight=weight)]])
    widths = _engine(qnet, Settings(banks=2, dense_rows=False, bitmap_rows=False)).widths
    assert (widths.index, widths.weight, widths.start, widths.length) == (3, 3, 3, 3)


@pytest.mark.parametrize(("v_reset", "fits"), [(-32768, True), (-32769, False)])
def test_a_reset_value_must_fit_the_state(v_reset, fits):
    qnet = _qnet([(2,), (2,)], [_ones(2, 2, np.s_[:, :])])
    q = replace(qnet.populations["p0"], v_reset=np.array(v_reset))
    qnet = replace(qnet, populations={"p0": q})
    if fits:
        assert _engine(qnet, Settings()).layers[0].table("reset").words.tolist() == [[v_reset]]
        return
    with pytest.raises(UnsupportedError, match="reset does not fit its register") as caught:
        build(qnet, Settings())
    assert caught.value.used == "-32,769, range -32,768..32,767"
    assert caught.value.where == "node0" and caught.value.hint


def test_parameters_take_one_word_a_word_per_slot_or_per_address():
    rng = np.random.default_rng(0)
    conv = Conv2d(weight=rng.random((5, 1, 1, 1)).astype("f4"), bias=np.arange(5, dtype="f4") / 9)
    per_neuron_ = LIF(
        tau_s=2e-3, r=1.0, v_leak=0.0, v_threshold=rng.uniform(1, 2, (5, 2, 2)), v_reset=0.0
    )
    qnet = _qnet([(1, 2, 2), (5, 2, 2)], [[conv]], neuron=per_neuron_)
    layer = _engine(qnet, Settings(banks=4)).layers[0]
    assert {t.name: (t.per, t.words.shape) for t in layer.tables} == {
        "threshold": ("word", (8, 4)),
        "bias": ("slot", (2, 4)),
        "keep_u": ("layer", (1, 1)),
        "keep_v": ("layer", (1, 1)),
        "reset": ("layer", (1, 1)),
        "start": ("layer", (1, 1)),
    }
