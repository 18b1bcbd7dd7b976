"""Quantization: grids, thresholds, registers, biases, reports, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.arithmetics import ARITHMETICS, FPGA, LOIHI
from snn_deploy.engine.event import EventEngine
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.ir import (
    Coding,
    Conv2d,
    Dense,
    Diagonal,
    Identity,
    Integrator,
    Pool2d,
    Readout,
    Relay,
    Source,
    Threshold,
)
from snn_deploy.ir.synapses import learned_nonzeros, weights_of
from snn_deploy.passes.pipeline import fold
from snn_deploy.passes.quantize import quantize
from snn_deploy.passes.reach import reach
from snn_deploy.passes.scale import weight_grid
from tests.builders import (
    KINDS,
    cuba,
    grid,
    integrate_and_fire,
    leaky,
    lif,
    mlp,
    network,
    population,
    projection,
    row,
    spikes,
)

both = pytest.mark.parametrize("arithmetic", [LOIHI, FPGA], ids=lambda a: a.name)


def real(seed, *shape):
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def one(weight, neuron=None, bias=None):
    weight = np.asarray(weight, np.float32)
    return row((weight.shape[1],), Dense(weight=weight, bias=bias), neuron or lif())


def integers(qnet, at=0):
    """Return (integer weights, the population's integers) of a projection."""
    p = qnet.network.projections[at]
    learned = next(s for s in p.synapses if weights_of(s) is not None)
    return weights_of(learned), qnet.populations[p.post]


# Grids.


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("sign", ["mixed", "excitatory", "inhibitory"])
def test_weights_lie_on_lavas_grid(bits, sign):
    weight = real(1, 9, 8)
    weight = {"mixed": weight, "excitatory": abs(weight), "inhibitory": -abs(weight)}[sign]
    values, _ = integers(quantize(one(weight), LOIHI, bits=bits))
    # What Lava's own rule leaves of them: floor to the precision, within the mode's range.
    drop = 8 - bits + (sign == "mixed")
    np.testing.assert_array_equal((abs(values) >> drop) << drop, abs(values))
    low, high = {"mixed": (-256, 255), "excitatory": (0, 255), "inhibitory": (-255, 0)}[sign]
    assert low <= values.min()
    assert values.max() <= high
    assert abs(values).max() == 256 - (1 << drop)
    assert values.dtype == np.int32


@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_lie_on_the_symmetric_grid(bits):
    values, _ = integers(quantize(one(real(1, 9, 8)), FPGA, bits=bits))
    assert abs(values).max() == (1 << (bits - 1)) - 1
    assert weight_grid(FPGA, bits, mixed=True) == weight_grid(FPGA, bits, mixed=False)


@pytest.mark.parametrize(
    ("sign", "values"),
    [("mixed", [-128, 0, 128]), ("excitatory", [0, 128]), ("inhibitory", [-128, 0])],
)
def test_one_bit_holds_one_magnitude(sign, values):
    weight = real(1, 9, 8)
    weight = {"mixed": weight, "excitatory": abs(weight), "inhibitory": -abs(weight)}[sign]
    qnet = quantize(one(weight), LOIHI, bits=1)
    integer, q = integers(qnet)
    assert np.unique(integer).tolist() == values
    level = 128 / q.scale
    np.testing.assert_array_equal(integer != 0, abs(weight) > level / 2)
    (report,) = qnet.tensors
    assert report.bits == 1
    assert report.nonzeros_after == np.count_nonzero(integer)


@both
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_a_grid_of_few_magnitudes_has_the_least_squared_error(arithmetic, bits):
    weight = np.random.default_rng(3).laplace(0, 0.3, (12, 10)).astype(np.float32)
    _, q = integers(quantize(one(weight), arithmetic, bits=bits))
    step, top = weight_grid(arithmetic, bits, mixed=True)

    def error(largest):
        rounded = np.clip(np.rint(weight / largest * (top // step)), -top // step, top // step)
        return float(np.sum((weight - rounded * largest / (top // step)) ** 2))

    furthest = float(abs(weight).max())
    others = [error(share * furthest) for share in np.linspace(0.05, 1.2, 1000)]
    assert error(top / q.scale) < min(others) * 1.05
    assert error(top / q.scale) < 0.95 * error(furthest)


@both
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_weights_that_lie_on_their_grid_stay_where_they_are(arithmetic, bits):
    step, top = weight_grid(arithmetic, bits, mixed=True)
    whole = np.random.default_rng(3).integers(-(top // step), top // step + 1, (200, 400))
    made = (whole * 0.0371).astype(np.float32)
    values, _ = integers(quantize(one(made), arithmetic, bits=bits))
    np.testing.assert_array_equal(values, whole * step)


@pytest.mark.parametrize(
    ("arithmetic", "bits", "fewest"), [(LOIHI, 0, 1), (LOIHI, 9, 1), (FPGA, 1, 2), (FPGA, 9, 2)]
)
def test_other_widths_are_refused(arithmetic, bits, fewest):
    with pytest.raises(InputError) as caught:
        quantize(one(real(1, 3, 3)), arithmetic, bits=bits)
    assert caught.value.message == f"{arithmetic.name} stores weights of {fewest} to 8 bits"
    assert caught.value.used == f"--bits {bits}"
    assert caught.value.hint == f"choose --bits {fewest} to --bits 8"


@both
@pytest.mark.parametrize("bits", [8, 3])
def test_masks_survive(arithmetic, bits):
    rng = np.random.default_rng(2)
    weight = real(2, 20, 30) * (rng.random((20, 30)) < 0.3)
    kernel = real(3, 4, 2, 3, 3) * (rng.random((4, 2, 3, 3)) < 0.3)
    for net in (one(weight), row((2, 6, 6), Conv2d(weight=kernel.astype("f4")), lif())):
        before = weights_of(net.projections[0].synapses[0])
        values, _ = integers(quantize(net, arithmetic, bits=bits))
        assert not np.any(values[before == 0])
        assert np.all((values == 0) | (np.sign(values) == np.sign(before)))


# The report.


@both
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_the_report_tells_the_error_of_every_tensor(arithmetic, bits):
    weight = real(4, 12, 15)
    weight[abs(weight) < 0.05] = 0
    qnet = quantize(fold(one(weight)), arithmetic, bits=bits)
    values, q = integers(qnet)
    (report,) = qnet.tensors
    error = [
        abs(float(i) / q.scale - float(w)) for i, w in zip(values.flat, weight.flat, strict=True)
    ]
    assert (report.projection, report.bits, report.scale) == ("w1", bits, q.scale)
    assert report.max_error == pytest.approx(max(error), rel=1e-12)
    assert report.rms_error == pytest.approx(np.sqrt(np.mean(np.square(error))), rel=1e-12)
    assert report.max_abs == float(abs(weight).max())
    assert report.nonzeros_before == np.count_nonzero(weight)
    assert report.nonzeros_after == np.count_nonzero(values)
    assert report.size == 180
    step, _ = weight_grid(arithmetic, bits, mixed=True)
    if bits > 4:  # at 4 and fewer, the largest weights may meet the grid's end
        assert report.max_error <= 0.5 * step / q.scale * (1 + 1e-9)
    ideal = np.rint(weight.astype(np.float64) * q.scale / step) * step
    assert report.saturated == np.count_nonzero(ideal != values)
    assert (report.saturated > 0) == (bits <= 4)
    assert bits > 2 or report.nonzeros_after < report.nonzeros_before


def test_a_sparse_tensor_reports_its_full_size():
    weight = np.zeros((10, 10), np.float32)
    weight[3, 4] = 0.7
    (report,) = quantize(fold(one(weight)), LOIHI).tensors
    assert (report.size, report.nonzeros_before) == (100, 1)


# Thresholds.


@both
@pytest.mark.parametrize("neuron", ["if", "threshold"])
def test_on_the_grid_integer_spikes_equal_float_spikes(arithmetic, neuron):
    # Sums are exact multiples of the unit, so v > threshold holds for floor(threshold) as well,
    # ties and thresholds between two multiples included.
    fired = ties = 0
    for seed, fine in ((0, False), (1, False), (2, True), (3, True)):
        rng = np.random.default_rng(seed)
        threshold = np.array([0.5, 0.375, 0.4, 0.51, 1.0, 0.99, 0.7])
        made = (
            Threshold(threshold=threshold)
            if neuron == "threshold"
            else integrate_and_fire(threshold)
        )
        net = row((9,), Dense(weight=grid(rng, 7, 9, fine=fine) / 2), made)
        x = spikes(rng, 6, 8, (9,), 0.2)
        floats = EventEngine(net).run(x, "states")
        ints = FixedEngine(quantize(net, arithmetic)).run(x, "states")
        np.testing.assert_array_equal(floats.output, ints.output)
        fired += floats.output.sum()
        ties += np.count_nonzero(floats.states["n1"]["v"] == threshold)
    assert fired > 100
    assert ties >= 5


@both
def test_small_integers_keep_their_own_unit(arithmetic):
    values, q = integers(quantize(one([[3.0, -2.0], [1.0, 0.0]], lif(threshold=2.0)), arithmetic))
    unit = 2 if arithmetic is LOIHI else 1
    assert values.tolist() == [[3 * unit, -2 * unit], [unit, 0]]
    assert q.scale == unit


@both
def test_a_bias_between_two_units_asks_for_a_finer_one(arithmetic):
    bias = np.array([0.3, -0.6], np.float32)
    values, q = integers(quantize(one([[3.0, -2.0], [1.0, 0.0]], bias=bias), arithmetic))
    assert values.tolist() == [[v * int(q.scale) for v in r] for r in [[3, -2], [1, 0]]]
    assert q.scale > 40
    unit = q.scale * (1 << q.shift) / (1 << arithmetic.bias_shift)
    np.testing.assert_allclose(q.bias / unit, bias, atol=0.5 / unit)


@both
def test_a_grid_of_64ths_stays_exact(arithmetic):
    weight = np.array([[5, -40], [1, 17]], np.float32) / 64
    qnet = quantize(one(weight), arithmetic)
    values, q = integers(qnet)
    np.testing.assert_array_equal(values / q.scale, weight)
    assert qnet.tensors[0].max_error == 0


@both
def test_threshold_is_the_floor_of_the_scaled_one(arithmetic):
    threshold = np.random.default_rng(5).uniform(0.2, 2, 6)
    _, q = integers(quantize(one(real(5, 6, 4), lif(8, threshold=threshold)), arithmetic))
    unit = q.scale * (1 << q.shift) / (1 << arithmetic.threshold_shift)
    assert q.threshold.tolist() == [int(np.floor(t * 8 * unit)) for t in threshold]


# Registers.


def test_biases_are_rounded_and_leaks_added():
    weight, bias = real(6, 5, 4), real(7, 5)
    neuron = lif(4, v_leak=0.125, r=0.5)
    _, q = integers(quantize(one(weight, neuron, bias), LOIHI))
    wanted = (bias + 0.125 / 0.5) * q.scale
    assert q.bias.tolist() == np.rint(wanted).astype(int).tolist()


def test_a_bias_of_zeros_is_none():
    assert quantize(one(real(6, 3, 4), None, np.zeros(3)), LOIHI).populations["n1"].bias is None
    quantize(one(real(6, 3, 4), cuba(), np.zeros(3)), LOIHI)


@both
def test_threshold_and_bias_bound_the_scale_apart(arithmetic):
    # A small bias must not shrink a large threshold's resolution.
    weight = real(8, 6, 5) / 10
    alone = quantize(one(weight, lif(threshold=1.0)), arithmetic).populations["n1"]
    bias = np.full(6, 0.01, np.float32)
    biased = quantize(one(weight, lif(threshold=1.0), bias), arithmetic).populations["n1"]
    assert (alone.scale, alone.shift) == (biased.scale, biased.shift)


@pytest.mark.filterwarnings("ignore:.*every weight rounds to zero")
@both
@pytest.mark.parametrize("what", ["threshold", "bias"])
def test_what_is_large_shrinks_the_scale_until_it_fits(arithmetic, what):
    weight = real(9, 4, 4) / 1000
    neuron = lif(threshold=50.0 if what == "threshold" else 0.5)
    bias = np.array([90.0, -90, 0, 1], np.float32) if what == "bias" else None
    values, q = integers(quantize(one(weight, neuron, bias), arithmetic))
    register = q.threshold if what == "threshold" else q.bias
    width = arithmetic.threshold_bits if what == "threshold" else arithmetic.bias_bits - 1
    shift = arithmetic.threshold_shift if what == "threshold" else arithmetic.bias_shift
    state = int(abs(register).max()) << shift
    assert abs(register).max() < 1 << width
    assert state <= arithmetic.state_max >> 3
    assert state > 0.9 * min(arithmetic.state_max >> 3, ((1 << width) - 1) << shift)
    assert abs(values).max() < 64  # resolution is what it costs, and the report says so


@both
def test_a_negative_threshold_does_not_fit(arithmetic):
    net = replace(one(real(1, 3, 3), lif(threshold=[0.5, -0.25, 1.0])), source=Source(path="m.pt"))
    with pytest.raises(UnsupportedError) as caught:
        quantize(net, arithmetic)
    assert caught.value.message == "a threshold does not fit its register"
    assert caught.value.where == "m.pt -> n1"
    top = (1 << arithmetic.threshold_bits) - 1
    assert caught.value.used.startswith("-")
    assert caught.value.used.endswith(f"range 0..{top:,}")
    assert "rescale the layer" in caught.value.hint


@pytest.mark.parametrize(("v_reset", "fits"), [(-32768, True), (-32769, False)])
def test_a_reset_value_just_fits_the_state_or_just_does_not(v_reset, fits):
    weight = np.array([[127.0, -127.0]])
    neuron = integrate_and_fire(threshold=1000.0, v_reset=float(v_reset) / 4)
    arithmetic = replace(FPGA, shift_bits=(2, 2))
    if fits:
        q = quantize(one(weight, neuron), arithmetic).populations["n1"]
        assert int(q.v_reset) == v_reset
        return
    with pytest.raises(UnsupportedError) as caught:
        quantize(one(weight, neuron), arithmetic)
    assert caught.value.message == "the v_reset lies outside the membrane's range"
    assert caught.value.used == "-32,769..-32,769 of -32,768..32,767"
    assert caught.value.hint == "reset to a value between the leak and the threshold"


@pytest.mark.filterwarnings("ignore:.*every weight rounds to zero")
@pytest.mark.parametrize(
    ("tau", "code"), [(1, 4096), (2, 2048), (4 / 3, 3072), (3, 1365), (8, 512), (10_000, 0)]
)
def test_decays_are_codes_of_4096(tau, code):
    for arithmetic in (LOIHI, FPGA):
        q = quantize(one(real(1, 3, 3), lif(tau)), arithmetic).populations["n1"]
        assert int(q.decay_v) == code
        assert int(q.decay_u) == 4096
    q = quantize(mlp(np.random.default_rng(0), 3, 3, neuron=cuba(tau, 2), bias=False), LOIHI)
    assert int(q.populations["n1"].decay_u) == code


def test_parameters_per_neuron_and_per_channel():
    rng = np.random.default_rng(1)
    neuron = lif([2.0, 4.0], threshold=[0.25, 0.5])
    net = row((1, 4, 4), Conv2d(weight=grid(rng, 2, 1, 3, 3) / 3), neuron)
    q = quantize(net, LOIHI).populations["n1"]
    assert q.decay_v.tolist() == [2048] * 4 + [1024] * 4
    assert q.threshold.shape == (8,)
    assert q.threshold[4:].tolist() == [q.threshold[4]] * 4
    # Equal values are stored once.
    assert (
        quantize(one(real(1, 3, 3), lif(threshold=[0.5] * 3)), LOIHI)
        .populations["n1"]
        .threshold.shape
        == ()
    )


# Helpers.


@both
def test_a_pool_alone_is_in_whole_numbers(arithmetic):
    pool = Pool2d(kind="avg", kernel=(2, 2), stride=(2, 2))
    net = fold(row((1, 4, 4), pool, integrate_and_fire(threshold=0.7)))
    qnet = quantize(net, arithmetic)
    (only,) = qnet.network.projections
    scale = only.synapses[-1].scale
    assert scale.dtype == np.int32
    q = qnet.populations["n1"]
    assert int(scale) == q.scale / 4
    x = spikes(np.random.default_rng(0), 5, 10, (1, 4, 4))
    np.testing.assert_array_equal(EventEngine(net).run(x).output, FixedEngine(qnet).run(x).output)


def test_a_scale_per_neuron_becomes_whole_numbers():
    scale = np.array([0.5, -0.25, 0.125])
    net = fold(row((3,), Diagonal(scale=scale), integrate_and_fire(threshold=0.3)))
    qnet = quantize(net, LOIHI)
    (only,) = qnet.network.projections
    (made,) = only.synapses
    np.testing.assert_array_equal(made.scale / qnet.populations["n1"].scale, scale)


def test_two_scales_in_a_row_are_refused():
    per_neuron = Diagonal(scale=np.array([0.5, 0.25]))
    net = fold(row((2,), per_neuron, Diagonal(scale=np.array(0.5)), lif()))
    with pytest.raises(UnsupportedError, match="several scales follow each other") as caught:
        quantize(net, LOIHI)
    assert (caught.value.where, caught.value.hint) == ("w1", "multiply them into one Scale")


def test_fan_ins_share_one_scale():
    net = KINDS["skip"](np.random.default_rng(0))
    for arithmetic in (LOIHI, FPGA):
        qnet = quantize(net, arithmetic)
        for name in ("b", "out"):
            scales = {r.scale for r in qnet.tensors if r.projection.endswith(f"-{name}")}
            assert scales == {qnet.populations[name].scale}


# What has no form.

#: Integers of a target that takes spikes alone and keeps no synaptic current.
PLAIN = replace(FPGA, name="plain", analogue=(), current=False)

REFUSED = {
    "injected": (
        ("fpga",),
        lambda: replace(one(real(1, 3, 3)), coding=Coding(kind="direct", steps=4)),
        "the fpga integers have no form of analogue input called bias",
        "input",
        "--analogue graded",
    ),
    "direct": (
        ("plain",),
        lambda: replace(one(real(1, 3, 3)), coding=Coding(kind="direct", steps=4)),
        "integers take spikes, and this network takes analogue input",
        "input",
        "train with --coding rate, or run it with --target cpu in float",
    ),
    "bias into a current": (
        ("loihi", "fpga"),
        lambda: one(real(1, 3, 3), cuba(), real(2, 3)),
        "a bias into a neuron with a synaptic current has no register on this target",
        "n1",
        "train the layer without bias, or use LIF neurons",
    ),
    "current": (
        ("plain",),
        lambda: one(real(1, 3, 3), cuba()),
        "plain has no synaptic-current state (CubaLIF, CubaLI)",
        "n1",
        "use LIF neurons, or --target loihi",
    ),
    "gain": (
        ("loihi", "fpga"),
        lambda: one(real(1, 3, 3), lif(r=-1.0)),
        "a neuron gain (r or w_in) is zero or negative",
        "n1",
        "fold its sign into the weights",
    ),
    "plain sums": (
        ("loihi", "fpga"),
        lambda: KINDS["sums"](np.random.default_rng(0)),
        "the network ends in plain sums, which no spiking target outputs",
        "n1",
        "end it in a spiking or a leaky-integrator population",
    ),
    "two layers": (
        ("loihi", "fpga"),
        lambda: row((3,), Dense(weight=real(1, 3, 3)), Dense(weight=real(2, 3, 3)), lif()),
        "two learned layers follow each other without a neuron between them",
        "w1",
        "merge them into one layer, or put a neuron between them",
    ),
}


@pytest.mark.parametrize(
    ("case", "name"), [(case, name) for case, entry in REFUSED.items() for name in entry[0]]
)
def test_what_has_no_form_is_refused_with_its_place(case, name):
    _, make, message, where, hint = REFUSED[case]
    with pytest.raises(UnsupportedError) as caught:
        quantize(make(), (ARITHMETICS | {"plain": PLAIN})[name], analogue="bias")
    assert message in caught.value.message
    assert (caught.value.where, caught.value.hint) == (where, hint)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(("name", "most"), [("loihi", 62), ("fpga", 62)])
def test_a_delay_just_fits_or_just_does_not(name, most):
    def made(delay):
        return network(
            [population("in", (3,), Relay()), population("out", (3,), lif())],
            [projection("in", "out", Dense(weight=real(1, 3, 3)), delay_steps=delay)],
        )

    quantize(made(most), ARITHMETICS[name])
    with pytest.raises(UnsupportedError) as caught:
        quantize(made(most + 1), ARITHMETICS[name])
    assert caught.value.message == f"{name} delays by at most {most} steps"
    assert caught.value.used == f"{most + 1} of {most} steps"
    assert caught.value.where == "in-out"
    assert caught.value.hint == "shorten the delay, or insert a relay population"


def test_a_leaky_integrator_has_no_threshold():
    net = row(
        (4,),
        Dense(weight=real(1, 3, 4)),
        leaky(4),
        readout=KINDS["li"](np.random.default_rng(0)).readout,
    )
    q = quantize(net, LOIHI).populations["n1"]
    assert q.threshold is None
    assert q.reset == "none"


def test_a_layer_without_a_weight_left_still_has_its_bias():
    net = fold(one(np.zeros((3, 4)), lif(threshold=0.2), np.array([0.3, 0.5, -1], np.float32)))
    qnet = quantize(net, LOIHI)
    assert learned_nonzeros(qnet.network.projections[0].synapses[0]) == 0
    x = np.zeros((1, 12, 4), np.uint8)
    floats, ints = EventEngine(net).run(x), FixedEngine(qnet).run(x)
    np.testing.assert_array_equal(floats.output, ints.output)
    assert floats.output[0].sum(axis=0).tolist() == ints.output[0].sum(axis=0).tolist()
    assert floats.output.sum() > 10


# What integers must not do silently.


@both
def test_a_hidden_population_that_does_not_spike_is_refused(arithmetic):
    rng = np.random.default_rng(0)
    layers = Dense(weight=grid(rng, 4, 6)), leaky(), Dense(weight=grid(rng, 3, 4)), lif()
    net = replace(row((6,), *layers), source=Source(path="m.pt"))
    with pytest.raises(UnsupportedError) as caught:
        quantize(net, arithmetic)
    expected = "n1 does not spike, and only spikes travel between integer populations"
    assert caught.value.message == expected
    assert caught.value.where == "m.pt -> w2"
    assert caught.value.hint == (
        "put a spiking population between them, or use --target cpu in float"
    )


@both
@pytest.mark.parametrize("kind", ["last", "max", "mean"])
def test_membranes_of_unlike_gains_are_compared_in_one_unit(arithmetic, kind):
    rng = np.random.default_rng(1)
    net = row(
        (20,),
        Dense(weight=rng.normal(0, 0.3, (4, 20)).astype(np.float32)),
        leaky(np.array([2.0, 4.0, 8.0, 16.0])),
        readout=Readout(kind=kind),
    )
    x = spikes(rng, 200, 15, (20,))
    real = EventEngine(net).run(x)
    trace = FixedEngine(quantize(net, arithmetic)).run(x)
    agree = np.mean(net.readout.predict(trace.output) == net.readout.predict(real.output))
    assert agree > 0.95
    ratio = trace.output[:, -1] / real.output[:, -1]
    assert np.median(abs(ratio / np.median(ratio) - 1)) < 0.02


def test_membranes_of_one_gain_stay_integers():
    rng = np.random.default_rng(2)
    net = row((6,), Dense(weight=grid(rng, 4, 6)), leaky(), readout=Readout(kind="last"))
    trace = FixedEngine(quantize(net, LOIHI)).run(spikes(rng, 2, 5, (6,)), "states")
    assert trace.output.dtype.kind == "i"
    assert np.array_equal(trace.output, trace.states["n1"]["v"])


@both
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "neuron", [leaky(2), leaky(16), Integrator(r=np.array(1000.0))], ids=["2", "16", "for ever"]
)
@pytest.mark.parametrize("fan_in", [10, 400])
def test_an_integrating_readout_has_room(arithmetic, bias, neuron, fan_in):
    rng = np.random.default_rng(3)
    weight = rng.normal(0, 0.3, (10, fan_in)).astype(np.float32)
    bias = rng.normal(0, 0.1, 10).astype(np.float32) if bias else None
    net = row((fan_in,), Dense(weight=weight, bias=bias), neuron, readout=Readout(kind="max"))
    x = spikes(rng, 60, 20, (fan_in,), rate=0.2)
    trace = FixedEngine(quantize(net, arithmetic)).run(x)
    predicted = net.readout.predict(trace.output)
    assert trace.overflows == {"saturated": 0, "wrapped": 0}
    assert np.mean(predicted == net.readout.predict(EventEngine(net).run(x).output)) > 0.9


@pytest.mark.parametrize("reset", ["value", "subtract"])
@pytest.mark.parametrize("tau", [2, 16])
@pytest.mark.parametrize("threshold", [0.01, 0.1, 1.0])
def test_a_low_threshold_leaves_room_for_the_sums(threshold, tau, reset):
    rng = np.random.default_rng(4)
    net = one(rng.normal(0, 0.3, (20, 400)), lif(tau, threshold=threshold, reset=reset))
    x = spikes(rng, 20, 20, (400,), rate=0.2)
    ours = FixedEngine(quantize(net, FPGA)).run(x, "spikes")
    a, b = (t.spikes["n1"] != 0 for t in (EventEngine(net).run(x, "spikes"), ours))
    assert ours.overflows["saturated"] == 0
    assert np.count_nonzero(a & b) > 0.85 * np.count_nonzero(a | b) > 0


def relayed(threshold):
    return network(
        [population("in", (4,), Relay()), population("out", (4,), lif(threshold=threshold))],
        [
            projection("in", "out", Dense(weight=real(5, 4, 4))),
            projection("in", "out", Identity(), name="skip", origin="skip"),
        ],
    )


@both
def test_a_relays_weight_stays_whole_and_in_proportion(arithmetic):
    q = quantize(relayed(300.0), arithmetic)
    skip = next(p for p in q.network.projections if p.name == "skip")
    assert q.populations["out"].scale == float(skip.synapses[0].scale)


@both
def test_a_relay_that_rounds_to_zero_is_refused(arithmetic):
    net = replace(relayed(1e6), source=Source(path="m.pt"))
    with (
        pytest.warns(SnnDeployWarning, match="in-out: every weight rounds to zero"),
        pytest.raises(UnsupportedError) as caught,
    ):
        quantize(net, arithmetic)
    assert caught.value.message == "a connection of fixed weight rounds to zero"
    assert caught.value.where == "m.pt -> skip"
    assert caught.value.hint == (
        "a threshold or bias of its neurons is too large for it: rescale the layer"
    )


def test_the_expected_reach_by_hand():
    # Four inputs of weight 1 and a state that holds two steps: a mean of 0.25 x 4 x 2, and four
    # deviations of sqrt(0.1875 x 4 x 2).
    ones = Dense(weight=np.ones((1, 4), np.float32))
    net = row((4,), ones, leaky(), readout=Readout(kind="last"))
    population = net.population("n1")
    found = reach(net, population, net.step_of("n1"), np.zeros(1))
    assert found == pytest.approx(2 + 4 * np.sqrt(1.5))
    # A bias moves the mean, and what spikes climbs for one step only, from its threshold.
    moved = reach(net, population, net.step_of("n1"), np.full(1, 3.0))
    assert moved == pytest.approx(found + 6)
    spiking = row((4,), ones, lif(threshold=0.5))
    one_step = reach(spiking, spiking.population("n1"), spiking.step_of("n1"), np.zeros(1))
    assert one_step == pytest.approx(1 + 1 + 4 * np.sqrt(0.75))


def test_a_kernels_reach_is_that_of_its_matrix():
    rng = np.random.default_rng(6)
    weight = grid(rng, 3, 2, 1, 1)
    shape = (2, 2, 2)
    conv = row(shape, Conv2d(weight=weight), lif())
    full = np.einsum("oi,yxuv->oyxiuv", weight[:, :, 0, 0], np.eye(4).reshape(2, 2, 2, 2))
    dense = row(shape, Dense(weight=full.reshape(12, 8).astype(np.float32)), lif())
    a, b = (reach(n, n.population("n1"), n.step_of("n1"), np.zeros(12)) for n in (conv, dense))
    assert a == pytest.approx(b)
