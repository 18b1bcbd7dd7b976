"""A job that Lava would wrap, floor or hang on is refused with the place named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.loihi.job import (
    ConvJob,
    DenseJob,
    JobInput,
    JobPopulation,
    LavaJob,
    SparseJob,
)
from snn_deploy.backends.loihi.job_check import check_job
from snn_deploy.errors import InputError, SnnDeployError, UnsupportedError
from snn_deploy.ir.synapses import Csr


def job() -> LavaJob:
    """in (3) -> a (2) -> b (2), with in -> b delayed by one step."""
    return LavaJob(
        inputs=(JobInput(name="in", shape=(3,), spikes=np.zeros((2, 4, 3), np.uint8)),),
        populations=(
            JobPopulation(name="a", shape=(2,), depth=1, du=4095, dv=100, vth=64, bias=3),
            JobPopulation(name="b", shape=(2,), depth=2, du=-1, dv=4096, vth=0),
        ),
        projections=(
            DenseJob(pre="in", post="a", weight=np.array([[2, -2, 4], [0, 6, -8]])),
            DenseJob(pre="a", post="b", weight=np.array([[1, 255], [3, 0]])),
            DenseJob(pre="in", post="b", weight=-np.array([[1, 255, 0], [3, 0, 5]]), delay=1),
        ),
    )


def with_population(index: int = 0, **changes) -> LavaJob:
    populations = list(job().populations)
    populations[index] = replace(populations[index], **changes)
    return replace(job(), populations=tuple(populations))


def with_projection(index: int = 0, **changes) -> LavaJob:
    projections = list(job().projections)
    projections[index] = replace(projections[index], **changes)
    return replace(job(), projections=tuple(projections))


def with_input(**changes) -> LavaJob:
    return replace(job(), inputs=(replace(job().inputs[0], **changes),))


def image_job(post=(4, 3, 4), pre=(2, 5, 6), **changes) -> LavaJob:
    edge = ConvJob(pre="in", post="c", weight=np.full((4, 2, 3, 3), 255))
    return LavaJob(
        inputs=(JobInput(name="in", shape=pre, spikes=np.zeros((1, 1, np.prod(pre)), np.uint8)),),
        populations=(JobPopulation(name="c", shape=post, depth=1, du=0, dv=0, vth=1),),
        projections=(replace(edge, **changes),),
    )


def refused(bad: LavaJob, kind: type[SnnDeployError]) -> SnnDeployError:
    with pytest.raises(kind) as caught:
        check_job(bad)
    return caught.value


def test_good_jobs_pass_and_know_their_length():
    check_job(job())
    check_job(image_job())
    assert job().run_steps == 2 * 4 + 2


@pytest.mark.parametrize(
    ("field", "label", "low", "high"),
    [
        ("du", "current decay du", -1, 4095),
        ("dv", "membrane decay dv", 0, 4096),
        ("vth", "threshold vth", 0, 131071),
        ("bias", "bias", -4096, 4095),
        ("bias_exp", "bias exponent", 0, 7),
    ],
)
def test_neuron_parameters_at_and_beyond_their_limits(field, label, low, high):
    for just_fits in (low, high):
        check_job(with_population(**{field: just_fits}))
    for beyond in (low - 1, high + 1):
        error = refused(with_population(**{field: beyond}), UnsupportedError)
        assert error.message == f"{label} outside Loihi's range"
        assert error.where == "a"
        assert error.used == f"{beyond}, allowed {low} to {high}"


def test_neuron_parameters_per_neuron():
    check_job(with_population(vth=np.array([1, 131071]), du=np.array([-1, 4095])))
    error = refused(with_population(vth=np.array([1, 131072])), UnsupportedError)
    assert error.used == "1 to 131072, allowed 0 to 131071"
    error = refused(with_population(vth=np.array([1, 2, 3])), InputError)
    assert error.used == "shape (3,) for 2 neurons"
    error = refused(with_population(dv=np.array([0.5, 0.5])), InputError)
    assert error.message == "membrane decay dv must be integers"
    refused(with_population(dv=0.5), InputError)
    refused(with_population(bias_exp=np.array([6, 6])), InputError)


@pytest.mark.parametrize(
    ("index", "good", "bad", "mode"),
    [
        (0, [[-256, 254, 0], [2, 4, 6]], [[-258, 254, 0], [2, 4, 6]], "mixed-sign"),
        (0, [[-256, 254, 0], [2, 4, 6]], [[-256, 256, 0], [2, 4, 6]], "mixed-sign"),
        (1, [[0, 255], [1, 2]], [[0, 256], [1, 2]], "excitatory"),
        (1, [[0, -255], [-1, -2]], [[0, -256], [-1, -2]], "inhibitory"),
    ],
)
def test_dense_weights_at_and_beyond_what_lava_keeps(index, good, bad, mode):
    check_job(with_projection(index, weight=np.array(good)))
    error = refused(with_projection(index, weight=np.array(bad)), UnsupportedError)
    assert error.message == f"{mode} weight outside Loihi's range"
    assert error.where == ("in -> a" if index == 0 else "a -> b")


def test_odd_weights_of_both_signs_are_refused():
    bad = with_projection(weight=np.array([[1, -2, 3], [0, 2, 2]]))
    error = refused(bad, UnsupportedError)
    assert error.used == "2 odd weights"
    assert error.hint == "quantize this layer in steps of 2"


def test_weights_of_another_shape_or_kind():
    error = refused(with_projection(weight=np.ones((3, 2), int)), InputError)
    assert error.used == "(3, 2), expected (2, 3)"
    refused(with_projection(weight=np.ones((2, 3))), InputError)


@pytest.mark.parametrize("exponent", [-8, 8])
def test_weight_exponent_beyond_its_limits(exponent):
    check_job(with_projection(weight_exp=7 if exponent > 0 else -7))
    error = refused(with_projection(weight_exp=exponent), UnsupportedError)
    assert error.message == "weight exponent outside Loihi's range"


def test_delays_at_and_beyond_their_limits():
    far = replace(job().populations[1], depth=64)
    base = replace(job(), populations=(replace(job().populations[0], depth=63), far))
    edges = (replace(job().projections[0], delay=62), job().projections[1])
    check_job(replace(base, projections=edges))
    edges = (*edges, replace(job().projections[2], delay=63))
    error = refused(replace(base, projections=edges), UnsupportedError)
    assert error.message == "delay outside Loihi's range"
    assert error.where == "in -> b"
    assert error.used == "63, allowed 0 to 62"


@pytest.mark.parametrize("delay", [0, 2])
def test_fan_ins_that_arrive_at_different_steps(delay):
    error = refused(with_projection(2, delay=delay), UnsupportedError)
    assert error.where == "in -> b"
    assert error.used == f"arrive {1 + delay} steps after the input, expected 2"
    assert error.hint == "pad the shorter path with a delay or a relay population"


def test_a_loop_is_refused():
    loop = DenseJob(pre="b", post="a", weight=np.ones((2, 2), int))
    bad = replace(job(), projections=(*job().projections, loop))
    assert refused(bad, UnsupportedError).where == "b -> a"


def test_input_spikes():
    error = refused(with_input(spikes=np.full((2, 4, 3), 2, np.uint8)), InputError)
    assert error.message == "input spikes must be uint8 of 0 and 1"
    refused(with_input(spikes=np.zeros((2, 4, 3))), InputError)
    refused(with_input(spikes=np.zeros((2, 4, 5), np.uint8)), InputError)
    refused(with_input(spikes=np.zeros((4, 3), np.uint8)), InputError)
    for samples, steps in ((0, 4), (2, 0)):
        error = refused(with_input(spikes=np.zeros((samples, steps, 3), np.uint8)), InputError)
        assert error.used == f"{samples} samples, {steps} steps"


def test_inputs_of_different_length():
    second = JobInput(name="in2", shape=(1,), spikes=np.zeros((2, 5, 1), np.uint8))
    edge = DenseJob(pre="in2", post="a", weight=np.ones((2, 1), int))
    bad = replace(job(), inputs=(*job().inputs, second), projections=(*job().projections, edge))
    assert refused(bad, InputError).where == "in2"


def test_names_and_parts():
    assert refused(with_population(1, name="a"), InputError).where == "a"
    assert refused(with_projection(pre="none"), InputError).where == "none -> a"
    assert refused(with_projection(post="in"), InputError).where == "in -> in"
    refused(replace(job(), populations=(), projections=()), InputError)
    refused(with_population(depth=-1), InputError)
    refused(with_population(shape=(1, 2)), UnsupportedError)


def test_a_gap_lets_spikes_of_a_sample_act_later():
    loop = DenseJob(pre="b", post="b", weight=np.ones((2, 2), int), delay=2)
    looped = replace(job(), projections=(*job().projections, loop))
    assert refused(looped, UnsupportedError).where == "b -> b"
    check_job(replace(looped, gap=3))
    error = refused(replace(looped, gap=2), UnsupportedError)
    assert error.used == "arrive 5 steps after the input, expected 2 to 4"
    assert replace(looped, gap=3).run_steps == 2 * 4 + 3 + 2


def test_delays_per_stored_weight():
    weight = Csr.from_dense(np.array([[2, 0], [3, 4]]))
    edge = SparseJob(pre="a", post="b", weight=weight, delay=np.array([0, 1, 3]))
    late = replace(job(), projections=(*job().projections, edge), gap=3)
    check_job(late)
    refused(replace(late, gap=2), UnsupportedError)
    wrong = replace(edge, delay=np.array([0, 1]))
    error = refused(replace(late, projections=(*job().projections, wrong)), InputError)
    assert error.message == "delays are one for all synapses, or one per stored weight"
    assert (error.where, error.used) == ("a -> b", "shape (2,)")


def test_injected_currents_are_what_lava_keeps():
    good = np.full((2, 4, 2), 32767, np.int32)
    check_job(with_population(currents=good))
    error = refused(with_population(currents=good + 1), UnsupportedError)
    assert error.message == "injected current outside Loihi's range"
    assert error.used == "32768, allowed -32768 to 32767"
    error = refused(with_population(currents=good[:1]), InputError)
    assert error.message == "currents must be (samples, steps, n)"
    assert error.used == "(1, 4, 2), expected (2, 4, 2)"


def test_programmed_resets_stay_within_the_membrane():
    top = (1 << 23) - 1
    for name, good, bad in (
        ("v_reset", -top, -top - 1),
        ("reset_amount", top, -1),
        ("v_init", np.array([0, top]), np.array([0, top + 1])),
    ):
        check_job(with_population(**{name: good}))
        refused(with_population(**{name: bad}), UnsupportedError)
    assert with_population(v_reset=-1).populations[0].programmed
    assert with_population(reset="subtract").populations[0].programmed
    assert not job().populations[0].programmed


def test_graded_spikes_count_towards_the_largest_sum(monkeypatch):
    monkeypatch.setattr("snn_deploy.backends.loihi.job_check.MAX_INPUT", 1536)
    values = np.zeros((2, 4, 3), np.int32)
    values[0, 0, 0] = -5
    graded = with_input(spikes=values, graded=True)
    check_job(graded)  # a -> b: 256 at most, and in -> b: as much, five times
    refused(with_input(spikes=values * 2, graded=True), UnsupportedError)
    refused(with_input(spikes=values), InputError)


def test_an_input_sum_at_and_beyond_32_bits():
    def wide(n: int) -> LavaJob:
        return LavaJob(
            inputs=(JobInput(name="in", shape=(n,), spikes=np.zeros((1, 1, n), np.uint8)),),
            populations=(JobPopulation(name="a", shape=(1,), depth=1, du=0, dv=0, vth=1),),
            projections=(DenseJob(pre="in", post="a", weight=np.full((1, n), 128), weight_exp=7),),
        )

    check_job(wide(1023))
    error = refused(wide(1024), UnsupportedError)
    assert error.where == "a"
    assert error.used == "up to 16777216 of 16777215"


def test_convolution_geometry():
    error = refused(image_job(post=(4, 4, 4)), InputError)
    assert error.used == "(4, 3, 4)"
    assert error.where == "in -> c"
    assert refused(image_job(groups=2), InputError).message == "channels and groups disagree"
    refused(image_job(weight=np.ones((4, 2, 3), int)), InputError)
    refused(image_job(stride=(0, 1)), UnsupportedError)
    refused(image_job(padding=(0, -1)), UnsupportedError)
    check_job(image_job(post=(4, 257, 4), padding=(127, 0)))
    error = refused(image_job(post=(4, 259, 4), padding=(128, 0)), UnsupportedError)
    assert error.message == "kernel, stride, padding and dilation must each fit Lava's int8"


def test_convolution_weights_at_and_beyond_their_limits():
    for value in (-256, 255):
        check_job(image_job(weight=np.full((4, 2, 3, 3), value)))
    for value in (-257, 256):
        error = refused(image_job(weight=np.full((4, 2, 3, 3), value)), UnsupportedError)
        assert error.used == f"{value}, allowed -256 to 255"


def test_a_kernel_larger_than_the_image():
    refused(image_job(weight=np.ones((4, 2, 7, 3), int)), InputError)


def sparse(weight: list[list[int]], **changes) -> LavaJob:
    edge = SparseJob(pre="in", post="a", weight=Csr.from_dense(np.array(weight)))
    return replace(job(), projections=(replace(edge, **changes), *job().projections[1:]))


def test_sparse_weights_have_the_limits_of_dense_ones():
    check_job(sparse([[-256, 254, 0], [0, 0, 0]]))
    check_job(sparse([[0, 0, 0], [0, 0, 0]]))
    error = refused(sparse([[-256, 3, 0], [0, 0, 0]]), UnsupportedError)
    assert error.message == "mixed-sign weights must be even: Lava floors odd ones to 8 bits"
    assert (error.used, error.hint) == ("1 odd weights", "quantize this layer in steps of 2")
    assert error.where == "in -> a"
    error = refused(sparse([[0, 256, 0], [0, 0, 1]]), UnsupportedError)
    assert error.used == "1 to 256, allowed 0 to 255"
    error = refused(sparse([[1, 2]]), InputError)
    assert error.message == "weights must be (n_post, n_pre)"
    assert error.used == "(1, 2), expected (2, 3)"


def test_free_sparse_weights_have_the_limits_of_a_convolution():
    check_job(sparse([[-256, 255, 0], [0, 3, 0]], free=True))
    error = refused(sparse([[-257, 255, 0], [0, 3, 0]], free=True), UnsupportedError)
    assert error.message == "convolution weight outside Loihi's range"


def test_the_drive_of_sparse_rows_is_bounded(monkeypatch):
    monkeypatch.setattr("snn_deploy.backends.loihi.job_check.MAX_INPUT", 1000)
    check_job(sparse([[250, -254, 250], [0, 0, 0]], weight_exp=1))
    error = refused(sparse([[0, 0, 0], [252, -254, 250]], weight_exp=1), UnsupportedError)
    assert error.used == "up to 1004 of 1000"


def test_what_is_recorded_exists_and_samples_run():
    assert replace(job(), recorded=("b",)).names == ("b",)
    error = refused(replace(job(), recorded=("in",)), InputError)
    assert error.message == "a population that is to be recorded does not exist"
    assert error.where == "in"
    error = refused(replace(job(), side_by_side=0), InputError)
    assert error.message == "at least one sample runs at a time"
    assert error.used == "0"
