"""Graphs that others published: in every framework at once, and against published traces."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import snn_deploy
from snn_deploy.bridges.peers import NAMES
from snn_deploy.engine.event import EventEngine
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.io.nir_read import NirOptions, read_nir
from tests.builders import DATA

OPEN = NirOptions(dt_s=1e-4, reset="value", if_r="per-step")


def real(name):
    path = DATA / "nir" / name
    if not path.exists():
        pytest.skip("the shared test data is not here")
    return path


def graph(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SnnDeployWarning)
        return snn_deploy.fold(read_nir(real(name), OPEN))


@pytest.mark.parametrize(
    ("name", "rate", "steps", "least"),
    [
        ("cnn_sinabs.nir", 0.1, 8, 10_000),
        ("braille_noDelay_bias_zero.nir", 0.2, 60, 400),
        ("lif_norse.nir", 0.5, 300, 100),
        ("lif_rockpool.nir", 0.5, 300, 100),
        ("two_lif_neurons.nir", 0.5, 200, 5),
    ],
)
def test_a_published_graph_gives_the_same_spikes_everywhere(name, rate, steps, least):
    net = graph(name)
    rng = np.random.default_rng(0)
    x = (rng.random((4, steps, *net.input_population.shape)) < rate).astype(np.uint8)
    results = snn_deploy.crosscheck(net, x)
    assert [r.name for r in results] == list(NAMES)
    for result in results:
        assert result.comparison is not None, (result.name, result.reason)
        assert not any(result.comparison.mismatches.values()), result.comparison.first
        assert result.spikes >= least


@pytest.mark.parametrize(
    ("trace", "late"),
    [
        ("lif_exact", 0),
        ("lif_norse", 0),
        ("lif_snntorch", 0),
        ("lif_lava_cpu_float", 1),
        ("lif_lava_cpu_fixed", 1),
    ],
)
def test_every_published_trace_of_the_single_neuron(trace, late):
    """Lava's two are one step late: it declares one step per synapse layer."""
    rows = np.loadtxt(real(f"traces/{trace}.csv"), delimiter=",")
    net = graph("lif_norse.nir")
    ours = EventEngine(net).run(rows[None, :, :1], "states")
    spikes = ours.output[0, :, 0]
    assert spikes.sum() == 4
    np.testing.assert_array_equal(spikes[: len(rows) - late], rows[late:, 2])
    if trace in ("lif_norse", "lif_lava_cpu_float"):  # recorded after the reset, in float32
        v = ours.states["1"]["v"][0, : len(rows) - late, 0]
        np.testing.assert_allclose(v, rows[late:, 1], atol=1e-7)
