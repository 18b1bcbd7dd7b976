"""The compiled path of the integer engine against the numpy path, on random networks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from snn_deploy.backends.arithmetics import FPGA, LOIHI
from snn_deploy.engine import kernel
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.engine.kernel import LANES, LARGEST_WEIGHT
from snn_deploy.ir import Coding, Csr, Dense, QNetwork, QPopulation, Readout, Relay
from snn_deploy.ir.arrays import same
from tests.builders import leaky, lif, network, population, projection, row, spikes
from tests.property.loihi_networks import draw, engine_of, program_of

RECORDS = ("output", "spikes", "states")


def both(qnet: QNetwork, x, record: str = "states"):
    """Return the trace that both paths give; fails where they differ or one was not taken."""
    compiled, plain = (FixedEngine(qnet, compile_from=least) for least in (0, np.inf))
    shape = (x if not isinstance(x, dict) else next(iter(x.values()))).shape
    assert compiled.compiles(*shape[:2])
    assert not plain.compiles(*shape[:2])
    ours, theirs = compiled.run(x, record), plain.run(x, record)
    for part in ("output", "counts", "spikes", "states", "overflows", "samples", "steps"):
        left, right = getattr(ours, part), getattr(theirs, part)
        assert same_values(left, right), part
    return ours


def same_values(a, b) -> bool:
    if isinstance(b, dict):
        return a.keys() == b.keys() and all(same_values(a[k], b[k]) for k in b)
    return same(a, b)


def integers(rng, arithmetic, sizes, delays=0, **changes) -> QNetwork:
    """Return a network with every kind of edge between populations of ``sizes``.

    Two projections into each population, one of them sparse; a loop; delays per synapse.
    """
    populations = [population("in", (sizes[0],), Relay())]
    populations += [population(f"p{i}", (n,), lif()) for i, n in enumerate(sizes[1:])]
    projections = []
    for i in range(1, len(sizes)):
        dense = rng.integers(-127, 128, (sizes[i], sizes[i - 1])).astype(np.int32)
        thin = dense * (rng.random(dense.shape) < 0.04)
        late = rng.integers(0, delays + 1, dense.shape) if delays else 0
        pre, post = populations[i - 1].name, populations[i].name
        projections.append(projection(pre, post, Dense(weight=dense)))
        sparse = projection(pre, post, Csr.from_dense(thin), name=f"{post} thin")
        projections.append(replace(sparse, delay_steps=late))
    if delays:
        last = populations[-1]
        back = rng.integers(-127, 128, (sizes[1], sizes[-1])).astype(np.int32)
        projections.append(projection(last.name, "p0", Dense(weight=back), name="back"))
    real = network(populations, projections)
    top = 1 << arithmetic.decay_bits
    unit = 1 << arithmetic.threshold_shift
    quantized = {}
    for p in real.computing():
        values = {
            "scale": 1.0,
            "shift": arithmetic.shift_bits[0],
            "decay_u": rng.integers(0, top + 1, p.size),
            "decay_v": rng.integers(0, top + 1, p.size),
            "threshold": rng.integers(0, arithmetic.state_max // (2 * unit), p.size),
            "bias": rng.integers(-40, 41, p.size),
            "reset": "value",
            "v_reset": rng.integers(-100, 100, p.size),
            "v_init": rng.integers(-100, 100, p.size),
            "reset_amount": rng.integers(0, 200, p.size),
        }
        quantized[p.name] = QPopulation(name=p.name, **(values | changes))
    return QNetwork(
        network=real, arithmetic=arithmetic, populations=quantized, tensors=(), real=real
    )


#: Registers so narrow that they overflow all the time.
NARROW = (
    replace(LOIHI, state_bits=16, state_min=-(1 << 14) + 1, state_max=(1 << 14) - 1),
    replace(FPGA, state_bits=12, state_min=-256, state_max=255, shift_bits=(0, 0)),
)


@pytest.mark.parametrize("arithmetic", [LOIHI, FPGA, *NARROW], ids=lambda a: a.name)
@pytest.mark.parametrize("reset", ["value", "subtract"])
def test_random_integers(arithmetic, reset):
    seen = Counter()
    for seed, sizes in enumerate([(10, 9, 6), (16, 33, 5), (100, 40, 17), (7, 1, 32)]):
        rng = np.random.default_rng(seed)
        for delays, record in product((0, 3), RECORDS):
            qnet = integers(rng, arithmetic, sizes, delays, reset=reset)
            trace = both(qnet, spikes(rng, 3, 11, sizes[:1], rng.random()), record)
            seen += trace.overflows
            seen["fired"] += int(trace.counts["p1"].sum())
    assert seen["fired"] > 0
    if arithmetic in NARROW:
        assert seen["saturated"] > 100
        assert seen["wrapped"] > 100


def test_random_networks_of_every_kind():
    taken = 0
    for seed in range(60):
        net, x = draw(seed, waits=seed % 3 > 0)
        qnet = engine_of(program_of(net, seed)).qnet
        if FixedEngine(qnet, compile_from=0).compiles(3, 9):
            taken += 1
            both(qnet, x, RECORDS[seed % 3])
    assert taken > 25


def test_more_samples_than_run_at_once_and_more_spikes_than_a_byte_counts():
    rng = np.random.default_rng(6)
    qnet = integers(rng, LOIHI, (10, 9, 6), threshold=np.int64(0), bias=np.int64(99))
    trace = both(qnet, np.ones((19, 300, 10), np.uint8))
    assert trace.counts["in"].tolist() == [19 * 300] * 10
    assert trace.counts["p0"].max() > 1000


def test_full_registers_of_loihi_wrap_and_saturate():
    rng = np.random.default_rng(0)
    weight = np.full((20, 100), 254, np.int32) * rng.choice([-1, 1], (20, 1))
    qnet = integers(rng, LOIHI, (100, 20), decay_u=np.int64(0), decay_v=np.int64(0))
    edges = (replace(qnet.network.projections[0], synapses=(Dense(weight=weight),)),)
    qnet = replace(qnet, network=replace(qnet.network, projections=edges))
    overflows = both(qnet, np.ones((2, 40, 100), np.uint8)).overflows
    assert min(overflows.values()) > 40


def test_any_binary_type_and_layout_of_input():
    rng = np.random.default_rng(1)
    qnet = integers(rng, LOIHI, (13, 6))
    x = spikes(rng, 4, 9, (13,))
    expected = both(qnet, x).counts
    frozen = x.copy()
    frozen.flags.writeable = False
    turned = np.asfortranarray(x)
    unaligned = np.zeros(x.size + 1, np.uint8)[1:].reshape(x.shape)
    unaligned[...] = x
    for same_x in (x.astype(bool), x.astype(np.float32), x.astype(int), frozen, turned, unaligned):
        assert same_values(both(qnet, same_x).counts, expected)


def test_membranes_are_read_and_recorded():
    rng = np.random.default_rng(2)
    for kind, record in product(("last", "max"), RECORDS):
        net = row(
            (9,),
            Dense(weight=rng.integers(-60, 61, (5, 9)).astype(np.int32)),
            lif(),
            Dense(weight=rng.integers(-60, 61, (3, 5)).astype(np.int32)),
            leaky(),
            readout=Readout(kind=kind),
        )
        populations = {
            p.name: QPopulation(
                name=p.name,
                scale=1.0,
                shift=6,
                decay_u=np.int64(4096),
                decay_v=np.int64(900),
                threshold=np.int64(20) if p.name == "n1" else None,
                bias=None,
                reset="value" if p.name == "n1" else "none",
                v_reset=np.int64(0),
                reset_amount=np.int64(0),
            )
            for p in net.computing()
        }
        qnet = QNetwork(
            network=net, arithmetic=LOIHI, populations=populations, tensors=(), real=net
        )
        trace = both(qnet, spikes(rng, 3, 12, (9,)), record)
        assert trace.output.any()


def test_what_the_compiled_path_leaves_to_numpy():
    rng = np.random.default_rng(3)

    def taken(qnet, steps=5) -> bool:
        return FixedEngine(qnet, compile_from=0).compiles(1, steps)

    good = integers(rng, LOIHI, (10, 9, 6))
    assert taken(good)
    # A membrane that travels on, analogue input.
    silent = replace(good.populations["p0"], threshold=None)
    assert not taken(replace(good, populations={**good.populations, "p0": silent}))
    assert not taken(replace(good, real=replace(good.real, coding=Coding(kind="direct", steps=5))))
    # Numbers beyond the loops' registers.
    for field, value in (
        ("v_reset", LOIHI.state_max + 1),
        ("v_init", LOIHI.state_min - 1),
        ("decay_v", -1),
        ("reset_amount", 1 << 31),
        ("bias", 1 << 26),
        ("threshold", 1 << 26),
        ("shift", 20),
    ):
        changed = value if field == "shift" else np.int64(value)
        odd = replace(good.populations["p1"], **{field: changed})
        assert not taken(replace(good, populations={**good.populations, "p1": odd})), field
    for weight, fits in ((LARGEST_WEIGHT, True), (LARGEST_WEIGHT + 1, False), (0.5, False)):
        heavy = np.full((6, 9), weight, np.float64 if weight == 0.5 else np.int32)
        last = replace(good.network.projections[-2], synapses=(Dense(weight=heavy),))
        edges = (*good.network.projections[:-2], last)
        assert taken(replace(good, network=replace(good.network, projections=edges))) is fits
    # A current that is fed more than a turn of its register in a step grows; for how long?
    wide = integers(rng, replace(LOIHI, state_bits=12, state_min=-2047, state_max=2047), (99, 30))
    assert taken(wide, steps=5)
    assert not taken(wide, steps=5000)


def test_small_work_stays_with_numpy():
    rng = np.random.default_rng(4)
    engine = FixedEngine(integers(rng, LOIHI, (10, 9, 6)))
    assert not engine.compiles(10, 10)
    assert engine.compiles(1_000_000, 100)


def test_largest_weights_add_up_without_overflow():
    # Eight rows at once make at most eight times the largest weight, in 16 bits.
    rng = np.random.default_rng(5)
    qnet = integers(rng, replace(LOIHI, threshold_bits=24), (LANES * 2, 20))
    for sign in (-1, 1):
        weight = np.full((20, LANES * 2), sign * LARGEST_WEIGHT, np.int32)
        edge = replace(qnet.network.projections[0], synapses=(Dense(weight=weight),))
        changed = replace(qnet, network=replace(qnet.network, projections=(edge,)))
        assert kernel.LARGEST_WEIGHT * kernel.AT_ONCE < 1 << 15
        both(changed, np.ones((1, 3, LANES * 2), np.uint8))
