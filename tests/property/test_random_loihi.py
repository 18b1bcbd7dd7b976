"""The integer engine against Lava on random networks: every u, v and spike of every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from snn_deploy.backends.base import Program
from snn_deploy.backends.loihi.job_check import check_job
from snn_deploy.backends.loihi.oracle import job_of
from snn_deploy.backends.loihi.process import run_job
from snn_deploy.ir.arrays import Array
from tests.property.fused_jobs import fused, recordings
from tests.property.loihi_networks import STEPS, draw, engine_of, joined, program_of

LIMIT_S = 300.0


def programs(seeds: range, *, waits: bool) -> list[tuple[Program, dict[str, Array]]]:
    made = []
    for seed in seeds:
        network, x = draw(seed, waits=waits)
        made.append((program_of(network, seed), x))
    return made


def compare(
    program: Program,
    x: Mapping[str, Array],
    recorded: Callable[[str], Mapping[str, Array]],
    what: str,
) -> tuple[int, dict[str, int]]:
    """Compare one network; returns the spikes of its neurons and the engine's overflows."""
    ours = engine_of(program).run(x, "states")
    fired = 0
    for population in program.payload.populations:
        name = population.name
        theirs = recorded(name)
        for variable in ("u", "v"):
            mine = ours.states[name][variable]
            np.testing.assert_array_equal(
                theirs[variable], mine.reshape(*mine.shape[:2], -1), err_msg=f"{what} {name}"
            )
        if program.qnet.populations[name].threshold is not None:
            mine = ours.spikes[name]
            np.testing.assert_array_equal(
                theirs["spikes"], mine.reshape(*mine.shape[:2], -1), err_msg=f"{what} {name}"
            )
            fired += int(mine.sum())
    return fired, dict(ours.overflows)


@pytest.mark.filterwarnings("ignore:.*every weight rounds to zero")
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("batch", range(3))
def test_random_networks_run_in_lava_as_in_integers(lava, batch, waits):
    drawn = programs(range(batch * 90, batch * 90 + 90), waits=waits)
    jobs = [job_of(program, x) for program, x in drawn]
    for job in jobs:
        check_job(job)
    whole, places = fused(jobs)
    result = run_job(whole, timeout_s=LIMIT_S, environment=lava)
    fired, overflows = 0, {"saturated": 0, "wrapped": 0}
    for i, (program, x) in enumerate(drawn):
        what = f"seed {batch * 90 + i}"
        spikes, over = compare(
            program, x, lambda name, i=i: recordings(result, places[i], name), what
        )
        fired += spikes
        overflows = {name: n + over[name] for name, n in overflows.items()}
    assert fired > 10_000
    assert min(overflows.values()) > 100
    assert (whole.gap > 0) == waits


@pytest.mark.filterwarnings("ignore:.*every weight rounds to zero")
@pytest.mark.parametrize("waits", [False, True])
def test_random_networks_run_on_processes_of_their_own(lava, waits):
    """With Lava's dense, sparse and convolution processes as the program would use them."""
    drawn = programs(range(1000, 1012), waits=waits)
    result = run_job(joined(drawn), timeout_s=LIMIT_S, environment=lava)
    for i, (program, x) in enumerate(drawn):

        def recorded(name: str, i: int = i) -> Mapping[str, Array]:
            found = result.recordings[f"{i}/{name}"]
            return {kind: getattr(found, kind) for kind in ("spikes", "u", "v")}

        compare(program, x, recorded, f"seed {1000 + i}")
    assert result.run_steps >= 3 * STEPS
