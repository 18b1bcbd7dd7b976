"""The exported ``.net`` file, loaded and run by lava-dl's own netx, against the integer engine."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.base import Program
from snn_deploy.backends.loihi import environment, netx_job, netx_oracle
from snn_deploy.backends.loihi.netx_oracle import NetxOracle
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.backends.verify import verify
from snn_deploy.engine.compare import Comparison, compare
from snn_deploy.errors import ExternalToolError, UnsupportedError
from snn_deploy.ir import LIF, Conv2d, Csr, Dense, Network, Pool2d, Readout, Threshold
from snn_deploy.passes.pipeline import fold
from tests import builders, tickets
from tests.builders import grid, lif, row
from tests.cli.helpers import run_cli
from tests.requirements import require_tool

TARGET = LoihiTarget()


@pytest.fixture(scope="module")
def netx() -> NetxOracle:
    found = environment.find()
    available = found is not None and "lava-dl" in found.versions
    require_tool("lava", available, f"run: {environment.SETUP_COMMAND}")
    return NetxOracle(timeout_s=120.0)


def lowered(network: Network) -> Program:
    return prepare(fold(network), TARGET)


def data(network: Network, samples: int = 3, steps: int = 8) -> np.ndarray:
    rng = np.random.default_rng(31)
    return builders.spikes(rng, samples, steps, network.shapes[network.inputs[0]])


def deep(rng: np.random.Generator) -> Network:
    """Return five layers whose biases alone make them fire: a step too many or too few shows."""
    parts: list[Dense | LIF] = []
    for _ in range(5):
        bias = rng.integers(2, 9, 6).astype(np.float32) / 8
        parts += [Dense(weight=grid(rng, 6, 6), bias=bias), lif()]
    return row((6,), *parts)


def images(rng: np.random.Generator) -> Network:
    """Return conv, max pool, sum pool fused into a grouped conv, dense; a layer with per-neuron
    biases and thresholds; all on images that are not square."""
    shape = (4, 7, 9)
    thresholds = rng.integers(1, 5, shape) / 4
    return row(
        (2, 7, 9),
        Conv2d(weight=grid(rng, 4, 2, 3, 3), bias=grid(rng, 4) / 4, padding=(1, 1, 1, 1)),
        lif([2.0] * 4),
        Conv2d(weight=grid(rng, 4, 2, 3, 1), padding=(1, 1, 0, 0), groups=2),
        lif(4, threshold=thresholds, v_leak=rng.integers(-2, 3, shape) / 32),
        Pool2d(kind="max", kernel=(2, 2), stride=(2, 2)),
        Conv2d(weight=grid(rng, 4, 4, 2, 2), bias=grid(rng, 4) / 4, padding=(1, 1, 0, 0)),
        lif(),
        Pool2d(kind="avg", kernel=(2, 1), stride=(2, 1)),
        Conv2d(weight=grid(rng, 5, 4, 2, 2), dilation=(1, 2)),
        lif(threshold=0.25),
        Dense(weight=grid(rng, 7, 5), bias=grid(rng, 7) / 4),
        lif(),
        Dense(weight=grid(rng, 3, 7)),
        lif(),
    )


def many_groups(rng: np.random.Generator) -> Network:
    """Return a sum pool of more channels than netx's groups, which are int8, can count."""
    return row(
        (130, 2, 4),
        Pool2d(kind="sum", kernel=(2, 2), stride=(2, 2)),
        Threshold(threshold=np.array(1.5)),
        Dense(weight=grid(rng, 3, 260), bias=grid(rng, 3)),
        lif(),
    )


def membrane(rng: np.random.Generator) -> Network:
    return row(
        (6,),
        Dense(weight=grid(rng, 5, 6), bias=grid(rng, 5)),
        lif(),
        Dense(weight=grid(rng, 3, 5), bias=grid(rng, 3)),
        builders.leaky(),
        readout=Readout(kind="max"),
    )


def check_equal(network: Network, x: np.ndarray, netx: NetxOracle) -> None:
    program = lowered(network)
    verdict = verify(TARGET, program, x, None, netx)
    proof = verdict.proof
    assert proof is not None
    assert "did not record" not in proof.note
    assert not any(proof.mismatches.values()), str(proof.first)
    assert (
        proof.values["u"]
        == proof.values["v"]
        == sum(p.size * x.shape[0] * x.shape[1] for p in program.real.computing())
    )


@pytest.mark.parametrize("make", [images, many_groups, membrane, builders.conv_net])
def test_netx_computes_what_the_engine_does(netx, make):
    network = make(np.random.default_rng(32))
    check_equal(network, data(network), netx)


@pytest.mark.parametrize("kind", ["per neuron", "cuba li"])
def test_netx_runs_every_neuron_kind(netx, kind):
    network = builders.KINDS[kind](np.random.default_rng(33))
    check_equal(network, data(network), netx)


@pytest.mark.parametrize(("samples", "steps"), [(4, 1), (3, 3)])
def test_layers_start_and_reset_with_their_sample(netx, samples, steps):
    network = deep(np.random.default_rng(34))
    x = data(network, samples, steps)
    trace = TARGET.run(lowered(network), x, "spikes")
    assert min(int(s.sum()) for s in trace.spikes.values()) > 0
    check_equal(network, x, netx)


def test_the_file_that_ran_is_the_file_that_is_written(tmp_path):
    network = images(np.random.default_rng(35))
    program = lowered(network)
    names = TARGET.write(program, tmp_path, "model")
    assert "model.net" in names
    job = netx_job.netx_job(program.payload, data(network))
    assert (tmp_path / "model.net").read_bytes() == job.net


def _change(net: bytes, path: str, index: tuple[int, ...], step: int) -> bytes:
    import h5py

    buffer = io.BytesIO(net)
    with h5py.File(buffer, "r+") as file:
        file[path][index] = file[path][index] + step
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("path", "index", "population"),
    [
        ("layer/1/weight", (1, 0, 1, 2, 0), "n1"),
        ("layer/3/bias", (2,), "n2"),
        ("layer/3/neuron/vDecay", (), "n2"),
    ],
)
def test_a_changed_file_is_noticed(netx, monkeypatch, path, index, population):
    rng = np.random.default_rng(36)
    network = row(
        (2, 5, 4),
        Conv2d(weight=grid(rng, 3, 2, 3, 3), bias=np.full(3, 0.25, np.float32)),
        lif(),
        Dense(weight=grid(rng, 4, 18), bias=np.full(4, 0.25, np.float32)),
        lif(8, threshold=0.25),
    )
    real = netx_oracle.netx_job

    def changed(program, x):
        job = real(program, x)
        return replace(job, net=_change(job.net, path, index, 4))

    monkeypatch.setattr(netx_oracle, "netx_job", changed)
    verdict = verify(TARGET, lowered(network), data(network), None, netx)
    assert not verdict.equal
    assert verdict.first is not None
    assert verdict.first.population == population


def _with_weights(weight: np.ndarray) -> Program:
    """Return a dense program with biases and these integer weights in its first layer."""
    rng = np.random.default_rng(37)
    program = lowered(builders.mlp(rng, weight.shape[1], weight.shape[0], 3))
    first, *rest = program.payload.synapses
    operator = Csr.from_dense(weight.astype(np.int32))
    synapses = (replace(first, operator=operator), *rest)
    return replace(program, payload=replace(program.payload, synapses=synapses))


def _against_engine(program: Program, x: np.ndarray, netx: NetxOracle) -> Comparison:
    ours = TARGET.run(program, x, "states")
    names = ("netx", "integer engine")
    return compare(program.real, netx.run(program, x), ours, names=names, tolerance=0.0)


ZERO = np.zeros((3, 4), int)
POWER = np.array([[-128, -6, 0, -2], [-4, -128, -2, 0], [0, -2, -128, -6]])
EIGHT_BITS = np.array([[-255, -7, 0, -3], [-5, -129, -1, 0], [0, -1, -201, -9]])


@pytest.mark.parametrize(
    ("weight", "text"),
    [(ZERO, "all zero"), (POWER, "power of two"), (EIGHT_BITS, "all 8 bits")],
    ids=["zero", "power", "eight bits"],
)
def test_weights_that_netx_gets_wrong_are_refused(netx, monkeypatch, weight, text):
    program = _with_weights(weight)
    with pytest.raises(UnsupportedError, match=text) as caught:
        netx_job.net_file(program.payload)
    assert caught.value.where == "w1"
    assert "--on lava" in str(caught.value.hint)
    monkeypatch.setattr(netx_job, "_check_dense", lambda *_: None)
    x = np.ones((2, 5, 4), np.uint8)
    if weight is ZERO:
        with pytest.raises(ExternalToolError, match="infinity"):
            netx.run(program, x)
    else:
        assert not _against_engine(program, x, netx).equal


@pytest.mark.parametrize(
    "weight",
    [
        EIGHT_BITS - 1 * (EIGHT_BITS == 0),
        POWER + 2 * (POWER == -128),
        EIGHT_BITS // 2 * 2 * (EIGHT_BITS != -255),
        -EIGHT_BITS,
        POWER * np.array([1, -1, 1, 1]),
    ],
    ids=["no zeros", "no power", "even", "positive", "mixed"],
)
def test_weights_of_other_signs_are_not_refused(netx, weight):
    program = _with_weights(weight)
    found = _against_engine(program, np.ones((2, 5, 4), np.uint8), netx)
    assert found.equal, str(found.first)


def test_a_convolution_behind_a_dense_layer_is_refused():
    rng = np.random.default_rng(38)
    uneven = Conv2d(weight=grid(rng, 2, 1, 3, 3), padding=(1, 0, 1, 0))
    after = Conv2d(weight=grid(rng, 2, 2, 2, 2))
    program = lowered(row((1, 5, 5), uneven, lif(), after, lif()))
    with pytest.raises(UnsupportedError, match="back to an image") as caught:
        netx_job.net_file(program.payload)
    assert caught.value.where == "w2"


def test_the_command_line_runs_netx(netx, tmp_path):
    model = tickets.save(tmp_path / "conv.pt", tickets.conv_content())
    samples = tickets.save_data(tmp_path / "conv.npz", (1, 6, 6), samples=4)
    options = ("run", model, "-t", "loihi", "-i", samples, "--json", "-")
    own, ran = run_cli(*options), run_cli(*options, "--on", "netx")
    assert ran.code == 0, ran.err
    judged, ours = ran.json["result"], own.json["result"]
    assert judged["ran_on"].startswith("netx of lava-dl 0.6.0")
    assert judged["predictions"] == ours["predictions"]
    assert judged["events"] == ours["events"]


def test_what_a_judge_did_not_record_is_left_out_and_named():
    network = fold(builders.mlp(np.random.default_rng(39), 6, 5, 4))
    program = prepare(network, TARGET)
    ours = TARGET.run(program, data(network), "states")
    judge = replace(ours, spikes={"n2": ours.spikes["n2"]}, states={})
    found = compare(program.real, judge, ours, names=("judge", "engine"), tolerance=0.0)
    assert found.equal
    assert dict(found.values) == {"spikes": ours.spikes["n2"].size}
    assert found.note == "judge did not record n1, u and v of n2"
