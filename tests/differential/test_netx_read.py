"""lava-dl's .net files: what they hold, exactly, against published results, Lava and our writer."""

from __future__ import annotations

import gzip
import io
from dataclasses import replace

import h5py
import numpy as np
import pytest

from snn_deploy.backends.arithmetics import ARITHMETICS
from snn_deploy.backends.loihi import environment
from snn_deploy.backends.loihi.job import JobInput
from snn_deploy.backends.loihi.netx_job import NetxJob, net_file, netx_job
from snn_deploy.backends.loihi.oracle import LavaOracle, trace_of
from snn_deploy.backends.loihi.process import run_job
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.backends.verify import verify
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.errors import InputError, UnsupportedError, UsageError
from snn_deploy.frontends.load import load_model
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.io.netx_read import GRID, NetxOptions, read_netx
from snn_deploy.io.nir_read import read_nir
from snn_deploy.io.nir_write import nir_bytes
from snn_deploy.ir import IF, LIF, CubaLIF, Grid, Integrator
from snn_deploy.passes.pipeline import fold
from snn_deploy.passes.quantize import quantize
from tests.builders import DATA, KINDS, conv_net, spikes
from tests.cli.helpers import run_cli
from tests.requirements import require_tool

LOIHI = ARITHMETICS["loihi"]
KNOWN = NetxOptions(dt_s=1e-3)


def real(name):
    path = DATA / "lava" / name
    if not path.exists():
        pytest.skip("the shared test data is not here")
    return path


# Published results.


def test_a_trained_network_reads_and_lava_agrees(lava):
    net = fold(read_netx(real("trained_mnist_network.net"), KNOWN))
    assert [p.shape for p in net.populations] == [(784,), (128,), (64,), (10,)]
    target = LoihiTarget()
    program = prepare(net, target)
    for population in net.computing():
        q = program.qnet.populations[population.name]
        assert (q.scale, q.shift, int(q.threshold), int(q.decay_u), int(q.decay_v)) == (
            1.0, 6, 64, 410, 410,
        )  # fmt: skip
    x = spikes(np.random.default_rng(0), 3, 12, (784,), 0.15)
    verdict = verify(target, program, x, None, LavaOracle())
    assert verdict.proof.mismatches == {"spikes": 0, "u": 0, "v": 0}
    assert FixedEngine(program.qnet).run(x).counts["layer0"].sum() > 50


@pytest.fixture(scope="module")
def netx():
    found = environment.find()
    available = found is not None and "lava-dl" in found.versions
    require_tool("lava", available, f"run: {environment.SETUP_COMMAND}")


def digits(count, steps):
    """Return MNIST test images as the trained network's author encodes them: a neuron per pixel
    that adds its grey value and fires above 1."""
    path = DATA / "mnist" / "t10k-images-idx3-ubyte.gz"
    if not path.exists():
        pytest.skip("the shared test data is not here")
    with gzip.open(path) as file:
        images = np.frombuffer(file.read(16 + count * 784), np.uint8, offset=16).reshape(-1, 784)
    v, spikes = np.zeros(images.shape), []
    for _ in range(steps):
        v = v + images / 255
        spikes.append(v > 1)
        v[spikes[-1]] = 0
    return np.stack(spikes, 1).astype(np.uint8)


def test_netx_runs_the_trained_network_as_we_do(netx):
    """The published file itself, in lava-dl's own netx, on digits."""
    path = real("trained_mnist_network.net")
    program = prepare(fold(read_netx(path, KNOWN)), LoihiTarget())
    x = digits(4, 16)
    job = replace(netx_job(program.payload, x), net=path.read_bytes())
    theirs = trace_of(program, x, run_job(job, timeout_s=120.0))
    ours = FixedEngine(program.qnet).run(x, "states")
    for name in ("layer0", "layer1", "layer2"):
        np.testing.assert_array_equal(ours.spikes[name], theirs.spikes[name])
        for state in ("u", "v"):
            np.testing.assert_array_equal(ours.states[name][state], theirs.states[name][state])
    assert ours.spikes["layer2"].sum() > 20


# Our own writer.


@pytest.mark.parametrize("kind", ["mlp", "threshold", "conv", "per neuron"])
def test_what_is_written_reads_back_with_the_same_integers(tmp_path, kind):
    rng = np.random.default_rng(1)
    net = conv_net(rng) if kind == "conv" else KINDS[kind](rng)
    program = prepare(fold(net), LoihiTarget())
    path = tmp_path / "a.net"
    path.write_bytes(net_file(program.payload))
    back = fold(read_netx(path, KNOWN))
    assert back.grid == GRID
    again = quantize(back, LOIHI)
    x = spikes(rng, 3, 12, net.input_population.shape, 0.6)
    written, read = program.qnet.populations, again.populations
    assert len(written) == len(read)
    for one, other in zip(written.values(), read.values(), strict=True):
        for field in ("decay_u", "decay_v", "threshold", "bias"):
            a, b = getattr(one, field), getattr(other, field)
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_array_equal(*np.broadcast_arrays(a.ravel(), b.ravel()))
    ours, theirs = (FixedEngine(q).run(x, "states") for q in (program.qnet, again))
    assert ours.output.any()
    np.testing.assert_array_equal(ours.output, theirs.output)
    for one, other in zip(written, read, strict=True):
        for state in ("u", "v"):
            np.testing.assert_array_equal(ours.states[one][state], theirs.states[other][state])


def test_a_grid_survives_nir(tmp_path):
    path = tmp_path / "a.nir"
    net = fold(read_netx(real("trained_mnist_network.net"), KNOWN))
    path.write_bytes(nir_bytes(net))
    back = read_nir(path)
    assert back.grid == Grid(arithmetic="loihi", scale=1.0, shift=6)
    x = spikes(np.random.default_rng(1), 2, 10, (784,), 0.15)
    a, b = (FixedEngine(quantize(fold(n), LOIHI)).run(x, "states") for n in (net, back))
    assert a.spikes["layer0"].any()
    np.testing.assert_array_equal(a.states["layer2"]["v"], b.states["layer2"]["v"])


# Files by hand.

NEURON = {"type": "CUBA", "iDecay": 1024, "vDecay": 512, "vThMant": 10}


def net(path, *layers, simulation=None):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for i, layer in enumerate(layers):
            fill(file.create_group(f"layer/{i}"), layer)
        if simulation:
            fill(file.create_group("simulation"), simulation)
    path.write_bytes(buffer.getvalue())
    return path


def fill(group, content):
    for key, value in content.items():
        if isinstance(value, dict):
            fill(group.create_group(key), value)
        elif isinstance(value, str):
            group.create_dataset(key, (1,), "S10", [value.encode()])
        else:
            group[key] = value


def dense(weight, neuron=NEURON, **more):
    weight = np.asarray(weight)
    layer = {"type": "dense", "shape": [weight.shape[0]], "weight": weight, **more}
    return layer if neuron is None else {**layer, "neuron": neuron}


W = np.array([[2, -4, 6], [8, 10, -12]])


def lava_dl(layers, x):
    """Return v (samples, steps, n) of one dense layer by Lava's published LIF equations."""
    samples, steps, _ = x.shape
    u = v = np.zeros((samples, layers["weight"].shape[0]), np.int64)
    seen = []
    neuron, bias = layers["neuron"], np.asarray(layers.get("bias", 0))
    for t in range(steps):
        lost = lambda state, decay: np.sign(state) * ((np.abs(state) * (4096 - decay)) >> 12)
        u = lost(u, neuron["iDecay"]) + ((x[:, t] @ layers["weight"].T) << 6)
        v = lost(v, neuron["vDecay"]) + u + (bias << 6)
        v = np.where(v > neuron["vThMant"] << 6, 0, v)
        seen.append(v)
    return np.stack(seen, 1)


@pytest.mark.parametrize(
    ("neuron", "kind"),
    [
        (NEURON, CubaLIF),
        ({**NEURON, "iDecay": 4096}, LIF),
        ({**NEURON, "iDecay": 4096, "vDecay": 0}, IF),
        ({**NEURON, "vDecay": 4096}, CubaLIF),
    ],
)
@pytest.mark.parametrize("bias", [None, [3, -2]])
def test_neurons_and_biases_follow_lavas_equations(tmp_path, neuron, kind, bias):
    layer = dense(W, neuron, **({} if bias is None else {"bias": np.array(bias)}))
    network = read_netx(net(tmp_path / "a.net", layer), KNOWN)
    assert isinstance(network.population("layer0").neuron, kind)
    x = spikes(np.random.default_rng(0), 4, 20, (3,), 0.5).astype(np.int64)
    trace = FixedEngine(quantize(fold(network), LOIHI)).run(x, "states")
    np.testing.assert_array_equal(trace.states["layer0"]["v"], lava_dl(layer, x))
    assert trace.output.any()


def by_hand(kind, rng):
    """Return a file's layers, and its input's shape."""

    def weights(*shape):
        return rng.integers(-20, 21, shape) * 2

    last = dense(weights(4, 6), bias=rng.integers(-3, 9, 4))
    if kind == "delays":
        return [dense(weights(6, 5), delay=rng.integers(0, 4, (6, 5))), last], (5,)
    if kind == "delays per output":
        return [dense(weights(6, 6), delay=rng.integers(0, 4, 6)), last], (6,)
    if kind == "recurrent":
        first = {**dense(weights(6, 5)), "type": "dense_rec", "weight_rec": weights(6, 6)}
        return [first, last], (5,)
    conv = {**CONV, "shape": [2, 3, 2], "weight": weights(2, 1, 2, 3), "stride": np.array([1, 2])}
    conv["bias"] = rng.integers(0, 5, (2, 3, 2))
    conv["neuron"] = {**NEURON, "vThMant": rng.integers(5, 30, (2, 3, 2))}
    image = {"type": "input", "shape": [1, 4, 5]}
    flat = {"type": "flatten", "shape": [12]}
    return [image, conv, flat, dense(weights(4, 12))], (1, 4, 5)


@pytest.mark.parametrize("kind", ["delays", "delays per output", "recurrent", "image"])
def test_netx_reads_the_same_from_files_by_hand(netx, tmp_path, kind):
    rng = np.random.default_rng(7)
    layers, shape = by_hand(kind, rng)
    path = net(tmp_path / "a.net", *layers)
    qnet = quantize(fold(read_netx(path, KNOWN)), LOIHI)
    # One sample: what is still on its way through a delay would reach the next one in netx.
    x = spikes(rng, 1, 25, shape, 0.3)
    names = tuple(p.name for p in qnet.network.computing())
    source = JobInput(name="input", shape=shape, spikes=x.reshape(1, 25, -1).astype(np.uint8))
    job = NetxJob(net=path.read_bytes(), names=names, source=source)
    theirs = run_job(job, timeout_s=120.0).recordings
    ours = FixedEngine(qnet).run(x, "states")
    for name in names:
        assert ours.spikes[name].any()
        mine = (ours.spikes[name], ours.states[name]["u"], ours.states[name]["v"])
        judge = (theirs[name].spikes, theirs[name].u, theirs[name].v)
        for a, b in zip(mine, judge, strict=True):
            np.testing.assert_array_equal(a.reshape(b.shape), b)


@pytest.mark.parametrize("decay", [410, 1, 4095, [5, 410, 2048, 3000]])
def test_an_integer_keeps_its_value_on_the_way_into_the_state(tmp_path, decay):
    """1 + 2e-16 in place of 1 would carry a sum that equals the threshold beyond it."""
    decays = np.array(decay)
    neuron = {**NEURON, "iDecay": decays, "vDecay": decays}
    made = read_netx(net(tmp_path / "a.net", dense(np.ones((4, 3)), neuron)), KNOWN)
    step = made.step_of(made.outputs[0])
    assert np.all(step.gain_u == 1)
    assert np.all(step.gain_v == 1)
    np.testing.assert_allclose(step.keep_v, 1 - decays / 4096, rtol=0, atol=1e-15)


def test_a_layer_without_neurons_only_adds_up(tmp_path):
    network = read_netx(net(tmp_path / "a.net", dense(W, None)), KNOWN)
    assert isinstance(network.population("layer0").neuron, Integrator)


def test_recurrence_delays_and_the_time_step(tmp_path):
    layer = {**dense(W), "type": "dense_rec", "weight_rec": np.array([[0, 2], [4, 0]])}
    late = dense([[2, 4]], delay=np.array([1, 3]))
    network = read_netx(net(tmp_path / "a.net", layer, late, simulation={"Ts": 2}))
    assert network.dt_s == 2e-3
    back = next(p for p in network.projections if p.pre == p.post)
    assert back.synapses[0].weight.tolist() == [[0, 2], [4, 0]]
    assert network.into("layer1")[0].delay_steps.tolist() == [[1, 3]]
    per_output = dense(W, delay=np.array([0, 2]))
    network = read_netx(net(tmp_path / "b.net", per_output), KNOWN)
    assert network.projections[0].delay_steps.tolist() == [[0], [2]]
    with pytest.warns(SnnDeployWarning, match="delays beyond 62 steps are cut"):
        network = read_netx(net(tmp_path / "c.net", dense(W, delay=np.array(99))), KNOWN)
    assert network.projections[0].delay_steps == 62


CONV = {
    "type": "conv", "shape": [2, 3, 4], "weight": np.ones((2, 1, 2, 2)), "stride": 1, "padding": 0,
    "dilation": 1, "groups": 1, "neuron": NEURON,
}  # fmt: skip
INPUT = {"type": "input", "shape": [1, 4, 5]}


def test_images_keep_their_axes(tmp_path):
    weight = np.arange(8).reshape(2, 1, 2, 2) * 2
    thresholds = np.arange(24).reshape(4, 3, 2) + 1  # stored (W, H, C)
    conv = {**CONV, "weight": weight, "bias": np.array([1, -1])}
    conv["neuron"] = {**NEURON, "iDecay": 4096, "vThMant": thresholds}
    flat = {"type": "flatten", "shape": [24]}
    network = read_netx(net(tmp_path / "a.net", INPUT, conv, flat, dense(np.ones((2, 24)))), KNOWN)
    first = network.projections[0].synapses[0]
    np.testing.assert_array_equal(first.weight, weight)
    assert first.bias.tolist() == [1, -1]
    neuron = network.population("layer1").neuron
    np.testing.assert_array_equal(neuron.v_threshold, thresholds.transpose(2, 1, 0))
    assert network.coding.kind == "events"


def changed(**changes):
    return [dense(W, {**NEURON, **changes})]


BAD = {
    "no layers": ([], InputError, "group 'layer' is missing", ""),
    "pool": ([{"type": "pool"}], UnsupportedError, "netx does not load it", "layer/0"),
    "unknown": ([{"type": "magic"}], InputError, "layer type 'magic' is not known", "layer/0"),
    "type of numbers": (
        [{**dense(W), "type": np.arange(2)}], InputError, "type is not a text", "layer/0",
    ),
    "neuron type of numbers": (
        changed(type=np.arange(2)), InputError, "type is not a text", "layer/0",
    ),
    "sdnn": (changed(type="SDNN"), UnsupportedError, "type 'SDNN'", "layer/0"),
    "graded": (
        changed(gradedSpike=True), UnsupportedError, "carry a value", "layer/0",
    ),
    "fraction": ([dense(W + 0.5)], InputError, "not whole numbers", "layer/0"),
    "nan": ([dense(W * np.nan)], InputError, "weight is not finite", "layer/0"),
    "decay": (changed(iDecay=5000), InputError, "outside 0..4096", "neuron/iDecay"),
    "no decay": (
        changed(iDecay=0), UnsupportedError, "never decays", "neuron/iDecay",
    ),
    "cuba without leak": (
        changed(vDecay=0), UnsupportedError, "without leak behind", "neuron/vDecay",
    ),
    "threshold": (changed(vThMant=-1), InputError, "negative", "neuron/vThMant"),
    "no threshold": (
        [dense(W, {"type": "CUBA", "iDecay": 1, "vDecay": 0})], InputError, "no vThMant",
        "layer/0",
    ),
    "shape": ([dense(W, shape=[5])], InputError, "for 5 neurons", "layer/0"),
    "bias": ([dense(W, bias=np.ones(7))], InputError, "bias of shape (7,)", "layer/0"),
    "delay": ([dense(W, delay=np.ones(7))], InputError, "delays of shape (7,)", "layer/0"),
    "conv first": ([CONV], InputError, "nothing says how large its input is", "layer/0"),
    "conv shape": (
        [INPUT, {**CONV, "shape": [2, 9, 9]}], InputError, "its convolution gives (2, 3, 4)",
        "layer/1",
    ),
    "text": (changed(iDecay="x"), InputError, "is not a number", "layer/0"),
    "bias without neurons": (
        [dense(W, None, bias=np.ones(2))], UnsupportedError, "adds it once", "layer/0 -> bias",
    ),
    "conv delay": (
        [INPUT, {**CONV, "delay": np.array(1)}], UnsupportedError, "netx drops them",
        "layer/1 -> delay",
    ),
    "recurrent delay": (
        [{**dense(W), "type": "dense_rec", "weight_rec": np.eye(2), "delay": np.array(1)}],
        UnsupportedError, "at another scale", "layer/0 -> delay",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_located(tmp_path, case):
    layers, kind, message, where = BAD[case]
    path = net(tmp_path / "a.net", *layers)
    with pytest.raises(kind) as caught:
        read_netx(path, KNOWN)
    assert message in caught.value.message
    assert caught.value.hint
    assert caught.value.where.startswith(str(path))
    assert where in caught.value.where


def test_a_file_without_a_time_step_asks_for_one(tmp_path):
    with pytest.raises(UsageError, match="does not say how long one is") as caught:
        read_netx(net(tmp_path / "a.net", dense(W)))
    assert "--dt SECONDS" in caught.value.hint


def test_odd_weights_of_both_signs_have_no_place_on_loihi(tmp_path):
    network = fold(read_netx(net(tmp_path / "a.net", dense(W + 1)), KNOWN))
    with pytest.raises(UnsupportedError, match="none that loihi stores in 8 bits") as caught:
        quantize(network, LOIHI)
    assert "even on Loihi" in caught.value.hint
    assert caught.value.where.endswith("layer0")
    with pytest.raises(UnsupportedError, match="stores in 4 bits"):
        quantize(fold(read_netx(net(tmp_path / "b.net", dense(W)), KNOWN)), LOIHI, bits=4)
    least = dense(np.full((2, 3), -256))  # two's complement is for weights of both signs
    with pytest.raises(UnsupportedError, match="none that loihi stores in 8 bits") as caught:
        quantize(fold(read_netx(net(tmp_path / "d.net", least), KNOWN)), LOIHI)
    assert caught.value.used.startswith("-256, and 5 more; steps of 1 up to 255")
    # Other arithmetics choose their own scale.
    assert (
        quantize(
            fold(read_netx(net(tmp_path / "c.net", dense(W, {**NEURON, "iDecay": 4096})), KNOWN)),
            ARITHMETICS["fpga"],
        )
        .tensors[0]
        .nonzeros_after
        == 6
    )


def test_the_command_line_takes_net_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net(tmp_path / "a.net", dense(W, {**NEURON, "iDecay": 4096}))
    np.savez("x.npz", x=spikes(np.random.default_rng(0), 3, 8, (3,)), y=np.array([0, 1, 0]))
    ran = run_cli("run", "a.net", "-t", "loihi", "-i", "x.npz", "--dt", "1e-3")
    assert ran.code == 0, ran.err
    assert "a.net (netx)" in ran.out
    ran = run_cli("inspect", "a.net")
    assert ran.code == 2
    assert "--dt SECONDS" in ran.err
    ran = run_cli("inspect", "a.net", "--dt", "1e-3", "--reset", "subtract")
    assert ran.code == 2
    assert "--reset is for NIR graphs" in ran.err


def test_direct_input_runs_in_integers_and_is_injected_on_the_chip(tmp_path):
    layer = {"type": "input", "shape": [3], "weight": 3, "bias": 2, "neuron": NEURON}
    path = net(tmp_path / "a.net", layer, dense(W), simulation={"Ts": 1, "tSample": 9})
    network = fold(load_model(path))
    assert (network.coding.kind, network.coding.steps) == ("direct", 9)
    engine = FixedEngine(quantize(network, LOIHI))
    assert engine.run(np.full((1, 9, 3), 5)).counts["layer0"].sum() > 0
    with pytest.raises(InputError, match="take whole numbers") as caught:
        engine.run(np.full((1, 9, 3), 0.5))
    assert "round x first" in caught.value.hint
    assert prepare(network, LoihiTarget()).payload.population("layer0").injected


def test_analogue_integers_enter_past_the_current_as_in_netx(tmp_path, monkeypatch):
    """netx sets the input neurons' bias, so that iDecay has nothing to act on."""
    monkeypatch.chdir(tmp_path)
    layer = {"type": "input", "shape": [3], "weight": 3, "bias": 2, "neuron": NEURON}
    net(tmp_path / "a.net", layer, dense(W), simulation={"Ts": 1})
    x = np.random.default_rng(0).integers(-1, 4, (2, 9, 3))
    v = np.zeros((2, 3), np.int64)
    expected = []
    for t in range(9):
        v = np.sign(v) * ((np.abs(v) * (4096 - NEURON["vDecay"])) >> 12) + ((x[:, t] * 3 + 2) << 6)
        expected.append(v > NEURON["vThMant"] << 6)
        v = np.where(expected[-1], 0, v)
    assert np.any(expected)
    np.savez("x.npz", x=x)
    ran = run_cli(
        "run", "a.net", "-t", "cpu", "--arithmetic", "loihi", "-i", "x.npz", "--trace", "out.npz"
    )
    assert ran.code == 0, ran.err
    assert "loihi's integers" in ran.out
    np.testing.assert_array_equal(np.load("out.npz")["layer0"], np.stack(expected, 1))
