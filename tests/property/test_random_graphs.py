"""Random graphs of all primitives: files read back equal, engines equal their equations."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snn_deploy.engine.event import EventEngine
from snn_deploy.engine.reference import run_reference
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.io.nir_read import read_nir
from snn_deploy.io.nir_write import nir_bytes
from snn_deploy.ir import Network, schedule
from snn_deploy.ir.arrays import Array
from snn_deploy.passes.pipeline import fold
from tests.property.graphs import euler, networks, waits_in

REPEATABLE = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def inputs(network: Network, seed: int, samples: int, steps: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        name: (rng.random((samples, steps, *network.shapes[name])) < 0.5).astype(np.uint8)
        for name in network.inputs
    }


@settings(REPEATABLE, max_examples=300)
@given(networks())
def test_what_is_written_reads_back_equal(network: Network) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", SnnDeployWarning)
        path = Path(folder) / "a.nir"
        path.write_bytes(nir_bytes(network))
        back = read_nir(path)
    assert back == network
    assert schedule(back) == schedule(network)


@settings(REPEATABLE, max_examples=300)
@given(networks())
def test_the_rule_of_feedback_is_the_one_that_is_documented(network: Network) -> None:
    assert schedule(network).feedback == waits_in(network)


def test_engines_equal_the_equations() -> None:
    fired = 0

    @settings(REPEATABLE, max_examples=200)
    @given(networks(), st.integers(0, 2**32 - 1))
    def equal(network: Network, seed: int) -> None:
        nonlocal fired
        x = inputs(network, seed, 2, 10)
        fast = EventEngine(fold(network)).run(x, "states")
        for sample in range(2):
            one = {name: values[sample] for name, values in x.items()}
            expected = euler(network, one)
            obvious = run_reference(network, one)
            for name, traces in expected.items():
                spiking = network.step_of(name).threshold is not None
                np.testing.assert_array_equal(obvious[name]["z"], traces["z"])
                np.testing.assert_array_equal(obvious[name]["v"], traces["v"])
                if spiking:
                    np.testing.assert_array_equal(fast.spikes[name][sample], traces["z"])
                    fired += int(traces["z"].sum())
                np.testing.assert_allclose(
                    fast.states[name]["v"][sample], traces["v"], rtol=0, atol=1e-12
                )

    equal()
    assert fired > 10_000
