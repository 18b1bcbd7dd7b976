"""Samples side by side in one Lava run, against one after the other, and sparse synapses."""

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
from snn_deploy.backends.loihi.process import run_job
from snn_deploy.ir.synapses import Csr
from tests.differential.test_lava_worker import LIMIT_S, check, spikes, weights


def skip_job(rng, samples: int) -> LavaJob:
    """in -> a -> b with in -> b delayed: dense, sparse, every parameter per neuron or shared."""
    thinned = weights(rng, (5, 7)) * (rng.random((5, 7)) < 0.5)
    thinned[4] = 0  # the last row is empty
    return LavaJob(
        inputs=(JobInput(name="in", shape=(9,), spikes=spikes(rng, samples, 6, 9)),),
        populations=(
            JobPopulation(
                name="a",
                shape=(7,),
                depth=1,
                du=rng.integers(-1, 4096, 7),
                dv=rng.integers(0, 4097, 7),
                vth=rng.integers(0, 300, 7),
                bias=rng.integers(-50, 90, 7),
            ),
            JobPopulation(name="b", shape=(5,), depth=2, du=800, dv=90, vth=120, bias=20),
        ),
        projections=(
            DenseJob(pre="in", post="a", weight=weights(rng, (7, 9)), weight_exp=-1),
            SparseJob(pre="a", post="b", weight=Csr.from_dense(thinned), weight_exp=1),
            SparseJob(
                pre="in",
                post="b",
                weight=Csr.from_dense(weights(rng, (5, 9), "inhibitory")),
                delay=1,
            ),
        ),
    )


def image_job(rng, samples: int) -> LavaJob:
    """Convolutions with odd weights of both signs, then dense out of an image and back into one."""
    return LavaJob(
        inputs=(JobInput(name="in", shape=(2, 5, 4), spikes=spikes(rng, samples, 4, 40)),),
        populations=(
            JobPopulation(name="c", shape=(3, 5, 2), depth=1, du=4095, dv=400, vth=200),
            JobPopulation(name="d", shape=(6,), depth=2, du=1000, dv=400, vth=90),
            JobPopulation(name="e", shape=(2, 3, 4), depth=3, du=1000, dv=400, vth=90),
        ),
        projections=(
            ConvJob(
                pre="in",
                post="c",
                weight=rng.integers(-256, 256, (3, 2, 3, 2)),
                stride=(1, 2),
                padding=(1, 0),
            ),
            SparseJob(pre="c", post="d", weight=Csr.from_dense(weights(rng, (6, 30)))),
            SparseJob(pre="d", post="e", weight=Csr.from_dense(weights(rng, (24, 6)))),
        ),
    )


def same_recordings(a, b) -> None:
    assert a.recordings.keys() == b.recordings.keys()
    for name, recording in a.recordings.items():
        for kind in ("spikes", "u", "v"):
            left, right = getattr(recording, kind), getattr(b.recordings[name], kind)
            np.testing.assert_array_equal(left, right, err_msg=f"{name} {kind}")
        assert recording.spikes.any()


@pytest.mark.parametrize("make", [skip_job, image_job])
def test_samples_side_by_side_are_those_one_after_the_other(lava, make):
    job = make(np.random.default_rng(3), 5)
    alone = run_job(job, timeout_s=LIMIT_S, environment=lava)
    for copies in (2, 9):  # three rows, the last one not full; and one row
        beside = run_job(replace(job, side_by_side=copies), timeout_s=LIMIT_S, environment=lava)
        same_recordings(alone, beside)
        depth = max(p.depth for p in job.populations)
        assert beside.run_steps == job.steps * (3 if copies == 2 else 1) + depth


def test_side_by_side_against_plain_integers(lava):
    check(replace(skip_job(np.random.default_rng(4), 3), side_by_side=3), lava)


def test_odd_weights_of_both_signs_stay_what_they_are_in_free_synapses(lava):
    rng = np.random.default_rng(5)
    weight = np.array([[255, -256, 3], [-255, 1, -1]])
    job = LavaJob(
        inputs=(JobInput(name="in", shape=(3,), spikes=spikes(rng, 1, 10, 3, 0.5)),),
        populations=(JobPopulation(name="a", shape=(2,), depth=1, du=4095, dv=0, vth=900),),
        projections=(SparseJob(pre="in", post="a", weight=Csr.from_dense(weight), free=True),),
    )
    check(job, lava)


def test_the_output_alone_can_be_recorded(lava):
    job = replace(skip_job(np.random.default_rng(3), 4), record="spikes")
    everything = run_job(job, timeout_s=LIMIT_S, environment=lava)
    output = replace(job, recorded=("b",), side_by_side=4)
    result = run_job(output, timeout_s=LIMIT_S, environment=lava)
    assert list(result.recordings) == ["b"]
    np.testing.assert_array_equal(result.recordings["b"].spikes, everything.recordings["b"].spikes)
