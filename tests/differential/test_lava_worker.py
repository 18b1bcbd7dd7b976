"""Lava against a scalar model written here from its documented equations, bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from snn_deploy.backends.loihi import environment
from snn_deploy.backends.loihi.job import (
    ConvJob,
    DenseJob,
    JobInput,
    JobPopulation,
    LavaJob,
    SparseJob,
)
from snn_deploy.backends.loihi.process import JobResult, run_job

LIMIT_S = 120.0


# The model: plain Python integers, no pipeline, one neuron at a time.


def shift_toward_zero(value: int, bits: int) -> int:
    return value >> bits if value >= 0 else -(-value >> bits)


def step_neuron(u: int, v: int, a: int, du: int, dv: int, vth: int, bias: int):
    u = shift_toward_zero(u * (4096 - (du + 1)), 12) + (a << 6)
    if u > 2**23:
        u -= 2**24
    elif u <= -(2**23):
        u += 2**24
    v = shift_toward_zero(v * (4096 - dv), 12) + u + bias
    v = min(max(v, -(2**23) + 1), 2**23 - 1)
    spike = v > vth << 6
    return u, 0 if spike else v, int(spike)


def dense_input(weight: np.ndarray, exponent: int, spikes: list[int]) -> list[int]:
    sums = [sum(int(w) for w, s in zip(row, spikes, strict=True) if s) for row in weight]
    return [a << exponent if exponent > 0 else a >> -exponent for a in sums]


def conv_input(edge: ConvJob, pre: tuple[int, ...], post: tuple[int, ...], spikes) -> list[int]:
    image = np.asarray(spikes).reshape(pre)
    outputs, per_group, kernel_h, kernel_w = edge.weight.shape
    result = []
    for o in range(post[0]):
        group = o // (outputs // edge.groups)
        for y in range(post[1]):
            for x in range(post[2]):
                total = 0
                for i in range(per_group):
                    for j in range(kernel_h):
                        for k in range(kernel_w):
                            row = y * edge.stride[0] - edge.padding[0] + j * edge.dilation[0]
                            column = x * edge.stride[1] - edge.padding[1] + k * edge.dilation[1]
                            if 0 <= row < pre[1] and 0 <= column < pre[2]:
                                channel = group * per_group + i
                                total += int(edge.weight[o, i, j, k]) * image[channel, row, column]
                result.append(int(total))
    return result


def per_neuron(value, n: int) -> list[int]:
    return [int(x) for x in np.broadcast_to(0 if value is None else value, (n,))]


def model(job: LavaJob) -> dict[str, dict[str, np.ndarray]]:
    shapes = {p.name: p.shape for p in (*job.inputs, *job.populations)}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    out = {
        p.name: {k: np.zeros((job.samples, job.steps, sizes[p.name]), int) for k in ("s", "u", "v")}
        for p in job.populations
    }
    for sample in range(job.samples):
        state = {p.name: ([0] * sizes[p.name], [0] * sizes[p.name]) for p in job.populations}
        for step in range(job.steps):
            spikes = {i.name: [int(s) for s in i.spikes[sample, step]] for i in job.inputs}
            for p in sorted(job.populations, key=lambda p: p.depth):
                n = sizes[p.name]
                total = [0] * n
                for edge in (e for e in job.projections if e.post == p.name):
                    if isinstance(edge, ConvJob):
                        a = conv_input(edge, shapes[edge.pre], p.shape, spikes[edge.pre])
                    else:
                        sparse = isinstance(edge, SparseJob)
                        weight = edge.weight.to_dense() if sparse else edge.weight
                        a = dense_input(weight, edge.weight_exp, spikes[edge.pre])
                    total = [x + y for x, y in zip(total, a, strict=True)]
                parameters = [per_neuron(x, n) for x in (p.du, p.dv, p.vth, p.bias)]
                u, v = state[p.name]
                fired = []
                for i in range(n):
                    du, dv, vth, bias = (x[i] for x in parameters)
                    u[i], v[i], s = step_neuron(
                        u[i], v[i], total[i], du, dv, vth, bias << p.bias_exp
                    )
                    fired.append(s)
                spikes[p.name] = fired
                for kind, values in (("s", fired), ("u", u), ("v", v)):
                    out[p.name][kind][sample, step] = values
    return out


def check(job: LavaJob, lava: environment.LavaEnvironment) -> JobResult:
    result = run_job(job, timeout_s=LIMIT_S, environment=lava)
    expected = model(job)
    assert set(result.recordings) == set(expected)
    for name, recording in result.recordings.items():
        np.testing.assert_array_equal(recording.u, expected[name]["u"], err_msg=f"{name} u")
        np.testing.assert_array_equal(recording.v, expected[name]["v"], err_msg=f"{name} v")
        np.testing.assert_array_equal(recording.spikes, expected[name]["s"], err_msg=name)
        assert recording.spikes.dtype == np.uint8
    return result


def spikes(rng, samples: int, steps: int, n: int, rate: float = 0.3) -> np.ndarray:
    return (rng.random((samples, steps, n)) < rate).astype(np.uint8)


def weights(rng, shape: tuple[int, ...], mode: str = "mixed") -> np.ndarray:
    if mode == "mixed":
        return rng.integers(-100, 128, shape) * 2
    w = rng.integers(0, 256, shape) * (rng.random(shape) < 0.5)
    return w if mode == "excitatory" else -w


@pytest.mark.parametrize("mode", ["mixed", "excitatory", "inhibitory"])
@pytest.mark.parametrize("exponent", [-3, 0, 2])
def test_one_dense_layer(lava, mode, exponent):
    rng = np.random.default_rng(11)
    check(
        LavaJob(
            inputs=(JobInput(name="in", shape=(9,), spikes=spikes(rng, 2, 12, 9)),),
            populations=(
                JobPopulation(
                    name="a",
                    shape=(6,),
                    depth=1,
                    du=np.array([-1, 0, 100, 1023, 4000, 4095]),
                    dv=np.array([0, 1, 4096, 409, 2048, 4095]),
                    vth=np.array([0, 1, 60, 200, 500, 131071]),
                    bias=np.array([7, -7, 0, 300, 4095, -4096]),
                ),
            ),
            projections=(
                DenseJob(
                    pre="in", post="a", weight=weights(rng, (6, 9), mode), weight_exp=exponent
                ),
            ),
        ),
        lava,
    )


def test_extreme_weights_reach_the_neurons_unchanged(lava):
    rng = np.random.default_rng(12)
    excitatory = np.array([[255, 1, 0], [254, 3, 128]])
    mixed = np.array([[254, -256, 2], [-2, 0, -254]])
    check(
        LavaJob(
            inputs=(JobInput(name="in", shape=(3,), spikes=spikes(rng, 1, 10, 3, 0.5)),),
            populations=tuple(
                JobPopulation(name=name, shape=(2,), depth=1, du=4095, dv=0, vth=900)
                for name in ("plus", "minus", "both", "zero")
            ),
            projections=(
                DenseJob(pre="in", post="plus", weight=excitatory),
                DenseJob(pre="in", post="minus", weight=-excitatory),
                DenseJob(pre="in", post="both", weight=mixed),
                DenseJob(pre="in", post="zero", weight=np.zeros((2, 3), int)),
            ),
        ),
        lava,
    )


def test_deep_biased_network_starts_and_resets_cleanly(lava):
    # Biases alone make every layer fire: any step integrated too early or too late shows.
    rng = np.random.default_rng(13)
    depth, n = 4, 5
    names = [f"l{d}" for d in range(depth + 1)]
    for steps, samples in ((1, 4), (3, 5), (7, 2)):
        check(
            LavaJob(
                inputs=(JobInput(name="l0", shape=(n,), spikes=spikes(rng, samples, steps, n)),),
                populations=tuple(
                    JobPopulation(
                        name=names[d],
                        shape=(n,),
                        depth=d,
                        du=2000,
                        dv=300,
                        vth=100,
                        bias=rng.integers(0, 90, n),
                    )
                    for d in range(1, depth + 1)
                ),
                projections=tuple(
                    DenseJob(pre=names[d], post=names[d + 1], weight=weights(rng, (n, n)))
                    for d in range(depth)
                ),
            ),
            lava,
        )


def test_a_sample_alone_equals_the_sample_in_a_pipeline(lava):
    rng = np.random.default_rng(14)
    x = spikes(rng, 3, 6, 8)
    w1, w2 = weights(rng, (7, 8)), weights(rng, (4, 7))

    def job(data: np.ndarray) -> LavaJob:
        return LavaJob(
            inputs=(JobInput(name="in", shape=(8,), spikes=data),),
            populations=(
                JobPopulation(name="a", shape=(7,), depth=1, du=900, dv=90, vth=150, bias=20),
                JobPopulation(name="b", shape=(4,), depth=2, du=900, dv=90, vth=150, bias=30),
            ),
            projections=(
                DenseJob(pre="in", post="a", weight=w1),
                DenseJob(pre="a", post="b", weight=w2),
            ),
        )

    together = run_job(job(x), timeout_s=LIMIT_S, environment=lava)
    alone = run_job(job(x[2:]), timeout_s=LIMIT_S, environment=lava)
    for name in ("a", "b"):
        for kind in ("spikes", "u", "v"):
            np.testing.assert_array_equal(
                getattr(together.recordings[name], kind)[2],
                getattr(alone.recordings[name], kind)[0],
            )
    assert together.recordings["b"].spikes.any()


def test_current_wraps_and_membrane_saturates(lava):
    # u never decays and takes the largest input: it crosses 2^23 and comes back negative.
    ones = np.ones((1, 60, 16), np.uint8)
    result = check(
        LavaJob(
            inputs=(JobInput(name="in", shape=(16,), spikes=ones),),
            populations=(
                JobPopulation(name="up", shape=(1,), depth=1, du=-1, dv=4096, vth=131071),
                JobPopulation(name="down", shape=(1,), depth=1, du=-1, dv=0, vth=131071),
            ),
            projections=(
                DenseJob(pre="in", post="up", weight=np.full((1, 16), 255), weight_exp=2),
                DenseJob(pre="in", post="down", weight=np.full((1, 16), -255), weight_exp=2),
            ),
        ),
        lava,
    )
    up, down = result.recordings["up"], result.recordings["down"]
    assert up.u.max() > 0 > up.u.min()
    assert down.u.max() > 0 > down.u.min()
    assert down.v.min() == -(2**23) + 1


def test_threshold_is_strict_at_an_exact_tie(lava):
    result = check(
        LavaJob(
            inputs=(JobInput(name="in", shape=(1,), spikes=np.ones((1, 3, 1), np.uint8)),),
            populations=(
                JobPopulation(
                    name="a", shape=(3,), depth=1, du=4095, dv=4096, vth=np.array([99, 100, 101])
                ),
            ),
            projections=(DenseJob(pre="in", post="a", weight=np.full((3, 1), 100)),),
        ),
        lava,
    )
    assert result.recordings["a"].spikes[0].tolist() == [[1, 0, 0]] * 3


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [
        ((1, 1), (1, 1), (1, 1), 1),
        ((2, 1), (0, 2), (1, 1), 1),
        ((1, 3), (2, 0), (2, 1), 2),
        ((2, 2), (1, 0), (1, 2), 4),
    ],
)
def test_convolution_of_a_non_square_image(lava, stride, padding, dilation, groups):
    rng = np.random.default_rng(15)
    pre, kernel, outputs = (4, 7, 9), (3, 2), 8
    post = (
        outputs,
        *(
            (pre[1 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
            for i in (0, 1)
        ),
    )
    n = math.prod(post)
    # Odd weights and both ends of the range: a convolution is not floored to even.
    weight = rng.integers(-256, 256, (outputs, 4 // groups, *kernel))
    check(
        LavaJob(
            inputs=(JobInput(name="in", shape=pre, spikes=spikes(rng, 2, 4, math.prod(pre))),),
            populations=(
                JobPopulation(
                    name="a",
                    shape=post,
                    depth=1,
                    du=3000,
                    dv=500,
                    vth=rng.integers(50, 400, n),
                    bias=rng.integers(-30, 60, n),
                ),
            ),
            projections=(
                ConvJob(
                    pre="in",
                    post="a",
                    weight=weight,
                    stride=stride,
                    padding=padding,
                    dilation=dilation,
                    groups=groups,
                ),
            ),
        ),
        lava,
    )


def test_convolutions_then_dense_flatten_in_c_order(lava):
    rng = np.random.default_rng(16)
    check(
        LavaJob(
            inputs=(JobInput(name="in", shape=(1, 6, 5), spikes=spikes(rng, 2, 5, 30)),),
            populations=(
                JobPopulation(name="c1", shape=(3, 6, 5), depth=1, du=4095, dv=400, vth=120),
                JobPopulation(
                    name="c2", shape=(4, 2, 2), depth=2, du=4095, dv=400, vth=120, bias=9
                ),
                JobPopulation(name="d", shape=(5,), depth=3, du=1000, dv=400, vth=90),
                # Back to an image, so that both directions of the order are used.
                JobPopulation(name="e", shape=(2, 3, 4), depth=4, du=1000, dv=400, vth=90),
            ),
            projections=(
                ConvJob(pre="in", post="c1", weight=weights(rng, (3, 1, 3, 3)), padding=(1, 1)),
                ConvJob(pre="c1", post="c2", weight=weights(rng, (4, 3, 3, 2)), stride=(2, 2)),
                DenseJob(pre="c2", post="d", weight=weights(rng, (5, 16))),
                DenseJob(pre="d", post="e", weight=weights(rng, (24, 5))),
            ),
        ),
        lava,
    )


def test_more_groups_and_wider_images_than_int8(lava):
    # A sum pool of 130 channels, one group each, and an image of more than 127 columns.
    rng = np.random.default_rng(17)
    check(
        LavaJob(
            inputs=(
                JobInput(name="deep", shape=(130, 2, 2), spikes=spikes(rng, 1, 3, 520)),
                JobInput(name="wide", shape=(1, 1, 140), spikes=spikes(rng, 1, 3, 140)),
            ),
            populations=(
                JobPopulation(name="pool", shape=(130, 1, 1), depth=1, du=4095, dv=4096, vth=1),
                JobPopulation(name="line", shape=(1, 1, 138), depth=1, du=4095, dv=9, vth=70),
                JobPopulation(name="out", shape=(2,), depth=2, du=4095, dv=9, vth=70),
            ),
            projections=(
                ConvJob(
                    pre="deep",
                    post="pool",
                    weight=np.ones((130, 1, 2, 2), int),
                    stride=(2, 2),
                    groups=130,
                ),
                ConvJob(pre="wide", post="line", weight=weights(rng, (1, 1, 1, 3))),
                DenseJob(pre="pool", post="out", weight=weights(rng, (2, 130))),
                DenseJob(pre="line", post="out", weight=weights(rng, (2, 138))),
            ),
        ),
        lava,
    )


def test_skip_connection_padded_by_a_delay(lava):
    rng = np.random.default_rng(18)
    check(
        LavaJob(
            inputs=(JobInput(name="in", shape=(6,), spikes=spikes(rng, 3, 4, 6)),),
            populations=tuple(
                JobPopulation(name=f"l{d}", shape=(4,), depth=d, du=2500, dv=200, vth=110, bias=25)
                for d in (1, 2, 3)
            ),
            projections=(
                DenseJob(pre="in", post="l1", weight=weights(rng, (4, 6))),
                DenseJob(pre="l1", post="l2", weight=weights(rng, (4, 4))),
                DenseJob(pre="l2", post="l3", weight=weights(rng, (4, 4))),
                DenseJob(pre="in", post="l3", weight=weights(rng, (4, 6)), weight_exp=1, delay=2),
            ),
        ),
        lava,
    )


def test_spikes_alone_can_be_recorded(lava):
    rng = np.random.default_rng(19)
    job = LavaJob(
        inputs=(JobInput(name="in", shape=(3,), spikes=spikes(rng, 2, 5, 3)),),
        populations=(JobPopulation(name="a", shape=(2,), depth=1, du=4095, dv=9, vth=70),),
        projections=(DenseJob(pre="in", post="a", weight=weights(rng, (2, 3))),),
        record="spikes",
    )
    result = run_job(job, timeout_s=LIMIT_S, environment=lava)
    assert result.recordings["a"].u is None
    assert result.recordings["a"].v is None
    np.testing.assert_array_equal(result.recordings["a"].spikes, model(job)["a"]["s"])
    assert result.run_steps == 2 * 5 + 1
    assert result.cpu_s > 0 and result.run_s > 0
    assert result.versions["lava-nc"] == "0.10.0"
