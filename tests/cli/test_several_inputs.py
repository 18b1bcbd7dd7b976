"""Networks with several inputs and outputs, from files: one array per input in the .npz."""

from __future__ import annotations

import numpy as np
import pytest

from snn_deploy.io.nir_write import nir_bytes
from snn_deploy.ir import Coding, Dense, Relay
from tests.builders import grid, lif, network, population, projection
from tests.cli.helpers import run_cli


@pytest.fixture
def model(here):
    rng = np.random.default_rng(21)
    net = network(
        [
            population("left", (4,), Relay()),
            population("right", (3,), Relay()),
            population("a", (5,), lif()),
            population("b", (2,), lif(threshold=0.3)),
            population("c", (3,), lif(threshold=0.3)),
        ],
        [
            projection("left", "a", Dense(weight=grid(rng, 5, 4))),
            projection("right", "a", Dense(weight=grid(rng, 5, 3))),
            projection("a", "b", Dense(weight=grid(rng, 2, 5))),
            projection("right", "c", Dense(weight=grid(rng, 3, 3))),
        ],
        inputs=("left", "right"),
        outputs=("b", "c"),
        coding=Coding(kind="rate", steps=8, seed=3),
    )
    (here / "two.nir").write_bytes(nir_bytes(net))
    arrays = {"left": rng.random((6, 4)), "right": rng.random((6, 3)), "y": np.arange(6) % 5}
    np.savez(here / "two.npz", **arrays)
    return arrays


def test_they_run_alike_on_cpu_and_loihi(here, model):
    rans = [
        run_cli("run", "two.nir", "-t", name, "-i", "two.npz", "--json", "-").json
        for name in ("cpu", "loihi")
    ]
    for data in rans:
        assert data["result"]["samples"] == 6
        assert max(data["result"]["predictions"]) >= 2  # of b's two and c's three neurons
    assert rans[0]["result"]["predictions"] == rans[1]["result"]["predictions"]


def test_the_two_inputs_are_drawn_apart(here, model):
    same = np.full((1, 3), 0.5)
    np.savez(here / "same.npz", left=np.full((1, 4), 0.5), right=same)
    ran = run_cli("run", "two.nir", "-t", "cpu", "-i", "same.npz", "--trace", "t.npz")
    assert ran.code == 0
    with np.load(here / "t.npz") as trace:
        assert not np.array_equal(trace["left"][0, :, :3], trace["right"][0])


def test_lava_agrees(lava, here, model):
    ran = run_cli("verify", "two.nir", "-t", "loihi", "-i", "two.npz")
    assert ran.code == 0
    assert "verify loihi: 0 mismatches" in ran.out


def test_samples_of_all_inputs_calibrate(here, model):
    arguments = ("run", "two.nir", "-t", "loihi", "-i", "two.npz", "--calibrate", "two.npz", "-v")
    ran = run_cli(*arguments)
    assert ran.code == 0, ran.err
    assert "states have room for the calibration samples" in " ".join(ran.out.split())


def test_an_input_without_an_array_is_named(here, model):
    np.savez(here / "one.npz", left=model["left"])
    ran = run_cli("run", "two.nir", "-t", "cpu", "-i", "one.npz")
    assert ran.code == 3
    assert "the model has 2 inputs, and there is no array for 'right'" in ran.err
    assert "hint   save one array per input: left, right" in ran.err


def test_inputs_of_unlike_length_are_refused(here, model):
    np.savez(here / "unlike.npz", left=model["left"], right=model["right"][:2])
    ran = run_cli("run", "two.nir", "-t", "cpu", "-i", "unlike.npz")
    assert ran.code == 3
    assert "the inputs have different numbers of samples or steps" in ran.err
    assert "unlike.npz -> right" in ran.err


def test_a_target_with_one_input_says_so(here, model):
    ran = run_cli("run", "two.nir", "-t", "fpga", "-i", "two.npz")
    assert ran.code == 3
    assert "the network has 2 inputs, one is needed here" in ran.err
