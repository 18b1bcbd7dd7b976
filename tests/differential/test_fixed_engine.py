"""The integer engine against plain Python integers, one neuron and one entry at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.arithmetics import FPGA, LOIHI
from snn_deploy.engine.fixed import FixedEngine, decay, wrap
from snn_deploy.engine.reference import apply
from snn_deploy.errors import InputError
from snn_deploy.ir import Dense, QNetwork, QPopulation, Readout, schedule
from snn_deploy.passes.pipeline import fold
from snn_deploy.passes.quantize import quantize
from tests.builders import KINDS, conv_net, grid, leaky, lif, mlp, row, spikes

# The model. Weights are read off by sending unit vectors through the reference's operators.


def entries(net, projection):
    """Return, per post neuron, [(pre neuron, weight)] in the order of events."""
    shape = net.population(projection.pre).shape
    columns = []
    for i in range(int(np.prod(shape))):
        value = np.zeros(shape)
        value.reshape(-1)[i] = 1
        for synapse in projection.synapses:
            value = apply(synapse, value)
        columns.append(value.reshape(-1))
    table = np.stack(columns, axis=1)
    return [[(i, int(w)) for i, w in enumerate(line) if w] for line in table]


def ints(value, n):
    return [int(x) for x in np.broadcast_to(0 if value is None else value, (n,))]


def lose(value, code, a):
    product = value * ((1 << a.decay_bits) - code)
    return product >> a.decay_bits if product >= 0 else -(-product >> a.decay_bits)


class Model:
    def __init__(self, qnet):
        self.qnet, self.seen = qnet, Counter()
        self.fan_in = {p.name: entries(qnet.network, p) for p in qnet.network.projections}

    def clip(self, value):
        a = self.qnet.arithmetic
        inside = min(max(value, a.state_min), a.state_max)
        self.seen["saturated"] += inside != value
        return inside

    def wrap(self, value):
        half = 1 << (self.qnet.arithmetic.state_bits - 1)
        if value > half:
            self.seen["wrapped"] += 1
            return value - 2 * half
        if value <= -half:
            self.seen["wrapped"] += 1
            return value + 2 * half
        return value

    def run(self, x):
        """Return population -> {"z", "u", "v"} of one sample (steps, n)."""
        net, a, plan = self.qnet.network, self.qnet.arithmetic, schedule(self.qnet.network)
        past = {p.name: [] for p in net.populations}
        state = {p.name: [[0] * p.size for _ in "uv"] for p in net.computing()}
        out = {p.name: {"z": [], "u": [], "v": []} for p in net.computing()}
        for t in range(len(x)):
            for name in plan.order:
                if name in net.inputs:
                    past[name].append([int(s) for s in x[t].reshape(-1)])
                    continue
                q, (u, v) = self.qnet.populations[name], state[name]
                size = len(u)
                rows = [ints(p, size) for p in (q.decay_u, q.decay_v, q.bias, q.v_reset)]
                amounts = ints(q.reset_amount, size)
                never = (1 << a.threshold_bits) - 1
                tops = ints(never if q.threshold is None else q.threshold, size)
                fired = []
                for i, (du, dv, bias, v_reset) in enumerate(zip(*rows, strict=True)):
                    arriving = []
                    for p in net.into(name):
                        late = int(p.delay_steps) + plan.feedback[p.name]
                        if t >= late:
                            values = past[p.pre][t - late]
                            arriving += [w for j, w in self.fan_in[p.name][i] if values[j]]
                    u[i] = self.wrap(lose(u[i], du, a) + (sum(arriving) << q.shift))
                    v[i] = self.clip(lose(v[i], dv, a) + u[i] + (bias << a.bias_shift))
                    top = tops[i] << a.threshold_shift
                    self.seen["ties"] += v[i] == top
                    fires = v[i] > top
                    if fires:
                        v[i] = self.clip(v[i] - amounts[i]) if q.reset == "subtract" else v_reset
                    self.seen["negative decay"] += (
                        v[i] < 0 and (v[i] * dv) % (1 << a.decay_bits) > 0
                    )
                    fired.append(int(fires) if q.threshold is not None else v[i])
                past[name].append(fired)
                for key, values in (("z", fired), ("u", u), ("v", v)):
                    out[name][key].append(list(values))
        return {n: {k: np.array(s) for k, s in d.items()} for n, d in out.items()}


def compare(qnet, x):
    """Return what the model met on the way; fails where the engine differs, on either path."""
    model = Model(qnet)
    expected = [model.run(sample) for sample in x]
    fired = 0
    for compile_from in (0, np.inf):
        trace = FixedEngine(qnet, compile_from=compile_from).run(x, "states")
        for sample, populations in enumerate(expected):
            for name, values in populations.items():
                flat = lambda a: a[sample].reshape(len(x[sample]), -1)  # noqa: B023
                np.testing.assert_array_equal(flat(trace.spikes[name]), values["z"], name)
                for variable, states in trace.states[name].items():
                    where = f"{name} {variable}"
                    np.testing.assert_array_equal(flat(states), values[variable], where)
                fired += np.count_nonzero(values["z"])
        assert trace.overflows == {k: model.seen[k] for k in ("saturated", "wrapped")}
    assert fired > 0
    return model.seen


SUPPORTED = {
    "loihi": ("mlp", "mlp slow", "if", "threshold", "per neuron", "per channel", "li", "conv"),
    "fpga": ("mlp", "subtract", "amount", "leak and reset", "if", "li", "conv", "conv dilated"),
}
MORE = ("conv1d", "pools", "skip", "recurrent", "forced feedback")


@pytest.mark.parametrize("arithmetic", [LOIHI, FPGA], ids=lambda a: a.name)
@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_networks_run_as_plain_integers(arithmetic, bits):
    for kind in (*SUPPORTED[arithmetic.name], *MORE):
        rng = np.random.default_rng(5)
        qnet = quantize(fold(KINDS[kind](rng)), arithmetic, bits=bits)
        compare(qnet, spikes(rng, 2, 8, qnet.network.input_population.shape, 0.5))


@pytest.mark.parametrize("arithmetic", [LOIHI, FPGA], ids=lambda a: a.name)
def test_cuba_keeps_its_current(arithmetic):
    rng = np.random.default_rng(6)
    for kind, how in (("cuba", {"bias": False}), ("cuba li", {})):
        net = mlp(rng, 8, 7, 5, neuron=KINDS["cuba"](rng).populations[1].neuron, **how)
        net = KINDS[kind](rng) if kind == "cuba li" else net
        qnet = quantize(net, arithmetic)
        assert compare(qnet, spikes(rng, 2, 12, net.input_population.shape))["negative decay"] > 0


def by_hand(rng, arithmetic, sizes=(10, 9, 6), **changes):
    """Return a QNetwork of random integers that quantization would never choose."""
    real = mlp(rng, *sizes, bias=False)
    top = (1 << arithmetic.decay_bits) + 1
    populations, projections = {}, []
    for p, projection in zip(real.computing(), real.projections, strict=True):
        shape = projection.synapses[0].weight.shape
        weight = rng.integers(-127, 128, shape).astype(np.int32)
        projections.append(replace(projection, synapses=(Dense(weight=weight),)))
        unit = 1 << arithmetic.threshold_shift
        values = {
            "scale": 1.0,
            "shift": arithmetic.shift_bits[0],
            "decay_u": rng.integers(0, top, p.size),
            "decay_v": rng.integers(0, top, p.size),
            "threshold": rng.integers(0, max(2, arithmetic.state_max // (2 * unit)), p.size),
            "bias": rng.integers(-40, 41, p.size),
            "reset": "value",
            "v_reset": np.zeros((), np.int64),
            "reset_amount": rng.integers(0, 200, p.size),
        }
        populations[p.name] = QPopulation(name=p.name, **(values | changes))
    return QNetwork(
        network=replace(real, projections=tuple(projections)),
        arithmetic=arithmetic,
        populations=populations,
        tensors=(),
        real=real,
    )


SMALL_FPGA = replace(FPGA, state_bits=16, state_min=-1000, state_max=999, shift_bits=(0, 0))
SMALL_LOIHI = replace(LOIHI, state_bits=16, state_min=-(1 << 14) + 1, state_max=(1 << 14) - 1)


@pytest.mark.parametrize("reset", ["value", "subtract"])
@pytest.mark.parametrize("v_reset", [0, -200])
def test_the_membrane_saturates_once_after_an_exact_sum(reset, v_reset):
    seen = Counter()
    for seed in range(4):
        rng = np.random.default_rng(seed)
        qnet = by_hand(rng, SMALL_FPGA, reset=reset, v_reset=np.int64(v_reset))
        seen += compare(qnet, spikes(rng, 3, 12, (10,), 0.6))
    assert seen["saturated"] > 50
    assert seen["negative decay"] > 100


def test_the_order_of_events_and_of_fan_ins_does_not_matter():
    rng = np.random.default_rng(1)
    qnet = quantize(KINDS["skip"](rng), SMALL_FPGA)
    heavy = tuple(
        replace(p, synapses=(Dense(weight=rng.integers(-127, 128, s.shape).astype(np.int32)),))
        for p in qnet.network.projections
        for s in (p.synapses[0].weight,)
    )
    qnet = replace(qnet, network=replace(qnet.network, projections=heavy))
    x = spikes(rng, 6, 12, (6,), 0.8)
    compare(qnet, x)
    turned = replace(qnet, network=replace(qnet.network, projections=heavy[::-1]))
    a, b = FixedEngine(qnet).run(x, "states"), FixedEngine(turned).run(x, "states")
    assert all(np.array_equal(a.states[n]["v"], b.states[n]["v"]) for n in a.states)
    # Weights that cancel: a register of sums that saturated on the way would not return.
    weight = np.array([[127] * 40 + [-127] * 40], np.int32)
    cancelling = by_hand(rng, SMALL_FPGA, (80, 1), bias=None, decay_v=np.int64(0))
    edge = replace(cancelling.network.projections[0], synapses=(Dense(weight=weight),))
    cancelling = replace(cancelling, network=replace(cancelling.network, projections=(edge,)))
    trace = FixedEngine(cancelling).run(np.ones((1, 3, 80), np.uint8), "states")
    assert not trace.states["n1"]["v"].any()


def test_current_wraps_and_membrane_saturates():
    seen = Counter()
    for seed in range(4):
        rng = np.random.default_rng(seed)
        seen += compare(by_hand(rng, SMALL_LOIHI), spikes(rng, 3, 15, (10,), 0.6))
    assert min(seen["wrapped"], seen["saturated"], seen["negative decay"]) > 20


def test_negative_states_decay_toward_zero():
    state = np.array([-4097, -4096, -1, 0, 1, 4096, 4097])
    assert decay(state, np.int64(1), FPGA).tolist() == [-4095, -4095, 0, 0, 0, 4095, 4095]
    assert decay(state, np.int64(4096), FPGA).tolist() == [0] * 7
    assert decay(state, np.int64(0), FPGA).tolist() == state.tolist()


@pytest.mark.parametrize("arithmetic", [LOIHI, FPGA], ids=lambda a: a.name)
def test_ties_do_not_fire(arithmetic):
    rng = np.random.default_rng(2)
    weight = rng.integers(-3, 4, (20, 10)).astype(np.float32)
    qnet = quantize(row((10,), Dense(weight=weight), lif(threshold=1.0)), arithmetic)
    assert compare(qnet, spikes(rng, 5, 12, (10,)))["ties"] > 20


def test_a_silent_population_still_meets_the_largest_threshold():
    # As in Lava, where a leaky integrator is a LIF whose threshold is out of reach, almost.
    weight = np.ones((3, 10), np.float32)
    net = row((10,), Dense(weight=weight), leaky(), readout=Readout(kind="last"))
    qnet = quantize(net, LOIHI)
    (population,) = qnet.populations.values()
    changed = replace(population, shift=19, decay_v=np.int64(0))  # 10 << 19, kept for ever
    qnet = replace(qnet, populations={population.name: changed})
    x = np.ones((1, 6, 10), np.uint8)
    compare(qnet, x)
    v = FixedEngine(qnet).run(x, "states").states["n1"]["v"][0, :, 0]
    assert v.tolist() == [5242880, 0, 5242880, 0, 5242880, 0]


def test_samples_and_batches_do_not_matter():
    rng = np.random.default_rng(8)
    qnet = quantize(conv_net(rng), FPGA)
    x = spikes(rng, 4, 8, (2, 8, 8))
    engine = FixedEngine(qnet)
    together = engine.run(x).output
    for i in range(4):
        np.testing.assert_array_equal(engine.run(x[i : i + 1]).output[0], together[i])


def test_analogue_input_is_refused():
    qnet = quantize(row((3,), Dense(weight=grid(np.random.default_rng(0), 2, 3)), lif()), LOIHI)
    with pytest.raises(InputError, match="loihi integers take spikes") as caught:
        FixedEngine(qnet).run(np.full((1, 2, 3), 0.5))
    assert caught.value.hint == "encode x first: with rate coding, or as events of 0 and 1"


def test_the_current_wraps_just_beyond_its_ends():
    # (-2^(bits-1), 2^(bits-1)]: Lava's range includes the upper end, not the lower.
    values = np.array([2047, 2048, 2049, -2047, -2048, -2049])
    assert wrap(values, 12).tolist() == [2047, 2048, -2047, -2047, 2048, 2047]
