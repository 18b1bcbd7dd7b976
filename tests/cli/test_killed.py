"""The command line, killed while Lava runs or while it writes: its output is whole or not there."""

from __future__ import annotations

import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from snn_deploy.errors import EXIT_INTERRUPT
from tests.cli.helpers import listing
from tests.held_case import Case

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and /dev/shm")
RUNNING, READING = "recordings are half full", "the results are half read"
WRITING = "the output is half written"


def test_a_killed_verify_leaves_no_output(here, lava, tmp_path):
    before = listing(here)
    output = str(here / "out.json")
    verify = ["verify", str(here / "mlp.pt"), "-t", "loihi", "-i", str(here / "mlp.npz")]
    kills = [
        (RUNNING, "parent", signal.SIGKILL),
        (RUNNING, "worker", signal.SIGKILL),
        (READING, "parent", signal.SIGTERM),
        (READING, "parent", signal.SIGINT),
        (WRITING, "parent", signal.SIGKILL),
    ]

    def run(i: int) -> tuple[int, str, str]:
        moment, victim, number = kills[i]
        case = Case(tmp_path / str(i), lava, moment, [*verify, "--json", output])
        return case.kill(victim, number, job=moment != WRITING)

    with ThreadPoolExecutor(3) as pool:
        ends = list(pool.map(run, range(len(kills))))
    assert [code for code, _, _ in ends] == [-9, 9, -15, EXIT_INTERRUPT, -9], ends
    assert "the Lava worker was killed by SIGKILL" in ends[1][2]
    assert listing(here) == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_earlier_output_survives_a_killed_command(here, lava, tmp_path, number):
    (here / "out.json").write_text("earlier")
    before = listing(here)
    command = ["inspect", str(here / "mlp.pt"), "--json", str(here / "out.json"), "--force"]
    case = Case(tmp_path / "case", lava, WRITING, command)
    code, _, err = case.kill("parent", number, job=False)
    assert code == (EXIT_INTERRUPT if number == signal.SIGINT else -number), err
    assert listing(here) == before
