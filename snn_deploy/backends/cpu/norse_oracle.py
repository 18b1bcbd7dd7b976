"""norse as the judge of the float engine: its neuron equations, torch's layers, float64."""

from __future__ import annotations

from snn_deploy.backends.base import Program
from snn_deploy.bridges.peers import peer
from snn_deploy.engine.loop import Inputs
from snn_deploy.ir.trace import Trace


class NorseOracle:
    """Runs a folded Network in norse, step by step, all samples at once.

    Neurons that norse has no equation for are refused by name.
    """

    name = "norse"
    tolerance = 1e-9

    def version(self) -> str:
        """Return norse's version and torch's; MissingDependencyError without them."""
        return peer("norse").version()

    def run(self, program: Program, x: Inputs) -> Trace:
        """Return norse's spikes and v of every population."""
        return peer("norse").run(program.real, x)
