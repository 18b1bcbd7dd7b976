"""The integer engine against Lava on random networks: every u, v and spike, many networks a run."""

from __future__ import annotations

import numpy as np
import pytest

from snn_deploy.backends.loihi.process import run_job
from tests.property.loihi_networks import SAMPLES, STEPS, draw, engine_of, joined, program_of

BATCHES, NETWORKS = 21, 25
LIMIT_S = 300.0


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_networks_run_in_lava_as_in_integers(lava, batch):
    programs = []
    for seed in range(batch * NETWORKS, (batch + 1) * NETWORKS):
        network, x = draw(seed, waits=batch % 3 > 0)
        programs.append((program_of(network, seed), x))
    result = run_job(joined(programs), timeout_s=LIMIT_S, environment=lava)
    fired = 0
    overflows = {"saturated": 0, "wrapped": 0}
    for i, (program, x) in enumerate(programs):
        ours = engine_of(program).run(x, "states")
        overflows = {name: n + ours.overflows[name] for name, n in overflows.items()}
        for population in program.payload.populations:
            theirs = result.recordings[f"{i}/{population.name}"]
            what = f"seed {batch * NETWORKS + i}, {population.name}"
            for variable in ("u", "v"):
                np.testing.assert_array_equal(
                    getattr(theirs, variable),
                    ours.states[population.name][variable].reshape(SAMPLES, STEPS, -1),
                    err_msg=f"{what}, {variable}",
                )
            if program.qnet.populations[population.name].threshold is not None:
                mine = ours.spikes[population.name].reshape(SAMPLES, STEPS, -1)
                np.testing.assert_array_equal(theirs.spikes, mine, err_msg=what)
                fired += int(mine.sum())
    assert fired > 1000
    assert min(overflows.values()) > 0
