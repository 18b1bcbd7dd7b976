"""Lava as its authors ship it, on Python 3.10, against Lava with our start-up patch."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from snn_deploy.backends.base import Options
from snn_deploy.backends.loihi import environment
from snn_deploy.backends.loihi.oracle import job_of
from snn_deploy.backends.loihi.process import run_job
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.io.cache import CACHE_VARIABLE, cache_folder
from snn_deploy.ir import Coding
from snn_deploy.passes.pipeline import fold
from tests.builders import conv_net, spikes


def python_310() -> Path | None:
    """Return an interpreter of 3.10: SNN_DEPLOY_PYTHON310, one on PATH, or one of pyenv's."""
    named = os.environ.get("SNN_DEPLOY_PYTHON310")
    pyenv = sorted(Path.home().glob(".pyenv/versions/3.10.*/bin/python"))
    for candidate in (named, "python3.10", *pyenv):
        if candidate is None:
            continue
        test = [str(candidate), "-c", "import sys, venv; print(sys.version_info[:2] == (3, 10))"]
        try:
            answer = subprocess.run(test, capture_output=True, text=True, timeout=30, check=False)
        except OSError:
            continue
        if answer.stdout.strip() == "True":
            shown = [str(candidate), "-c", "import sys; print(sys.executable)"]
            return Path(subprocess.check_output(shown, text=True).strip())
    return None


@pytest.mark.slow
def test_the_patched_lava_computes_what_the_unmodified_one_does(lava, monkeypatch):
    if lava.versions["python"].startswith("3.10"):
        pytest.skip("the environment at hand is the unmodified one")
    base = python_310()
    if base is None:
        pytest.skip("no Python 3.10 here: set SNN_DEPLOY_PYTHON310")
    # A cache of its own, kept for the next run: `find` must not meet this environment elsewhere.
    monkeypatch.setenv(CACHE_VARIABLE, str(cache_folder() / "unmodified"))
    unmodified = environment.setup(base)
    assert unmodified.versions["numpy"].startswith("1.")
    rng = np.random.default_rng(5)
    network = fold(conv_net(rng, coding=Coding(kind="rate", steps=8)))
    target = LoihiTarget()
    program = prepare(network, target, Options())
    x = spikes(rng, 4, 8, network.input_population.shape, 0.4)
    job = job_of(program, x)
    results = [run_job(job, timeout_s=300, environment=e) for e in (lava, unmodified)]
    fired = 0
    for name, first in results[0].recordings.items():
        second = results[1].recordings[name]
        for a, b in ((first.spikes, second.spikes), (first.u, second.u), (first.v, second.v)):
            assert a is not None
            np.testing.assert_array_equal(a, b)
        fired += int(first.spikes.sum())
    assert fired > 100
