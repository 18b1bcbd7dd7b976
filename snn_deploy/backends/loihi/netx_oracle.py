"""lava-dl's netx as the judge: it loads the ``.net`` file that export writes, and Lava runs it."""

from __future__ import annotations

from snn_deploy.backends.base import Program
from snn_deploy.backends.loihi.job_check import check_job
from snn_deploy.backends.loihi.netx_job import netx_job
from snn_deploy.backends.loihi.oracle import DEFAULT_TIMEOUT_S, job_of, trace_of
from snn_deploy.backends.loihi.program import LoihiProgram
from snn_deploy.engine.loop import Inputs, only_input
from snn_deploy.errors import MissingDependencyError
from snn_deploy.ir.trace import Trace


class NetxOracle:
    """Runs a Loihi program's ``.net`` file in netx, in a child process.

    netx decides shapes, kernels, exponents, biases and resets from the file alone; Lava's own
    neuron models run what it builds, so every layer's spikes, u and v are recorded.
    """

    name = "netx"
    tolerance = 0.0

    def __init__(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.timeout_s = timeout_s

    def version(self) -> str:
        """Return lava-dl's version, Lava's and Python's; MissingDependencyError without them."""
        from snn_deploy.backends.loihi.environment import LAVA_DL, SETUP_COMMAND, require

        found = require()
        versions = found.versions
        if "lava-dl" not in versions:
            raise MissingDependencyError(
                "Lava's environment has no lava-dl, which netx is part of",
                where=str(found.python),
                hint=f"{SETUP_COMMAND} --force"
                if found.chosen_by == "cache"
                else f"{found.python} -m pip install --no-deps --ignore-requires-python {LAVA_DL}",
            )
        return (
            f"netx of lava-dl {versions['lava-dl']}, lava-nc {versions['lava-nc']} "
            f"on Python {versions['python']}"
        )

    def run(self, program: Program, x: Inputs) -> Trace:
        """Return netx's u, v and spikes of every population, aligned sample by sample.

        Raises UnsupportedError, located, where netx would not run the program as it is.
        """
        from snn_deploy.backends.loihi.process import run_job

        loihi: LoihiProgram = program.payload
        job = netx_job(loihi, only_input(program.real, x))
        check_job(job_of(program, x))  # the limits of Lava's models hold here too
        return trace_of(program, x, run_job(job, timeout_s=self.timeout_s))
