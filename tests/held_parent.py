"""Runs a job, or the command line, in a process that is held at a moment, and then killed.

``python -m tests.held_parent CONTROL PYTHON [snn-deploy's arguments]``
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import numpy as np

from snn_deploy.backends.loihi import process
from snn_deploy.backends.loihi.environment import LavaEnvironment
from snn_deploy.backends.loihi.job import DenseJob, JobInput, JobPopulation, LavaJob
from snn_deploy.errors import ExternalToolError
from snn_deploy.io import files
from tests import held


def main(control: Path, python: Path, arguments: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    held.before(Path, "mkdir", control, "the worker has no folder yet")
    held.before(process, "_write_job", control, "the folder is made")
    held.after(process, "_write_spikes", control, "the job is half written")
    held.before(process, "_read_result", control, "the outcome is told")
    held.before(np, "load", control, "the results are half read", calls=2)
    held.before(files.os, "fsync", control, "the output is half written")
    if arguments:
        from snn_deploy.cli.main import main as command_line

        command_line(arguments)
    job = LavaJob(
        inputs=(JobInput(name="in", shape=(2,), spikes=np.ones((1, 40, 2), np.uint8)),),
        populations=(JobPopulation(name="a", shape=(2,), depth=1, du=4095, dv=9, vth=70),),
        projections=(DenseJob(pre="in", post="a", weight=np.full((2, 2), 4)),),
    )
    lava = LavaEnvironment(python=python, versions={}, chosen_by="test")
    limit_s = float((control / "limit_s").read_text())
    try:
        result = process.run_job(job, timeout_s=limit_s, environment=lava)
    except ExternalToolError as error:
        print(error.message)
        return error.exit_code
    print(result.recordings["a"].spikes.shape)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
