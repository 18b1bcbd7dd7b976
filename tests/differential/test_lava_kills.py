"""Kills the worker, Lava's processes and their parent at each moment of a job's life.

A moment is what has happened, not a time: the process that comes to it is held there until the
kill is done. Afterwards there is no process, shared memory or file of the job.
"""

from __future__ import annotations

import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.held_case import Case

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and /dev/shm")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

# Each moment, in the order of a job's life, with who lives then besides parent and worker.
NOBODY, MAIN, NODES = (), ("main",), ("main", "node")
MOMENTS = {
    "the worker is starting": NOBODY,
    "the worker has no folder yet": NOBODY,
    "the folder is made": NOBODY,
    "the job is half written": NOBODY,
    "the job is handed over": NOBODY,
    "lava's process is forked": MAIN,
    "lava.pid is written": MAIN,
    "lava is being imported": MAIN,
    "lava is imported": MAIN,
    "nodes are forked": NODES,
    "all nodes are there": NODES,
    "recordings are half full": NODES,
    "the results are written": MAIN,
    "lava has ended": NOBODY,
    "the outcome is told": NOBODY,
    "the results are half read": NOBODY,
}
WORDS = {
    "worker": "the Lava worker was killed by SIGKILL",
    "main": "Lava failed: Lava's main process was killed by SIGKILL",
    "node": "Lava failed: one of Lava's processes was killed by signal 9",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_nothing_is_left_of_a_job_killed_when(lava, tmp_path, moment):
    victims = [("parent", number) for number in SIGNALS]
    victims += [(victim, signal.SIGKILL) for victim in ("worker", *MOMENTS[moment])]

    def run(victim: str, number: int) -> tuple[int, str, str]:
        return Case(tmp_path / f"{victim} {number}", lava, moment).kill(victim, number)

    with ThreadPoolExecutor(3) as pool:
        ends = list(pool.map(lambda pair: run(*pair), victims))
    told = list(MOMENTS).index(moment) >= list(MOMENTS).index("the outcome is told")
    for (victim, number), (code, out, err) in zip(victims, ends, strict=True):
        if victim == "parent":
            assert code == -number, err
        elif told:  # the results were there, and are whole
            assert (code, out) == (0, "(1, 40, 2)\n"), err
        else:
            assert (code, out) == (9, f"{WORDS[victim]}\n"), err


def test_a_stopped_worker_is_killed_at_the_time_limit(lava, tmp_path):
    case = Case(tmp_path, lava, "recordings are half full", limit_s=15.0)
    code, out, err = case.kill("worker", signal.SIGSTOP)
    assert (code, out) == (9, "Lava exceeded 15 s and was stopped\n"), err


def test_a_worker_asked_to_stop_says_so(lava, tmp_path):
    case = Case(tmp_path, lava, "recordings are half full")
    code, out, err = case.kill("worker", signal.SIGTERM)
    assert (code, out) == (9, "Lava failed: stopped\n"), err
