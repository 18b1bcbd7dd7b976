"""verify: the independent simulator against our engine, and our integers against the floats.

The first answer is a proof on the samples that ran: bit for bit, or within the oracle's stated
tolerance. The second is a measurement. Where no independent simulator ran, it says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from snn_deploy.backends.base import Oracle, Program, Target
from snn_deploy.engine.compare import Comparison, Mismatch, compare
from snn_deploy.engine.loop import Inputs
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network
from snn_deploy.ir.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """Integers against the trained float network: shares of 1, and accuracy where labelled."""

    equal_spikes: float
    equal_predictions: float
    accuracy_float: float | None
    accuracy_integer: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stops:
    """Samples that stopped before the last step, and those that stopped elsewhere in the judge."""

    early: int
    different: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Both answers.

    proof: None where no independent simulator ran. lowering: our engine on the program's own
    numbers against our engine on the network that it was lowered from. All steps are compared,
    those after an early stop too; stops: None without a cutoff.
    """

    proof: Comparison | None
    lowering: Comparison
    fidelity: Fidelity | None
    stops: Stops | None = None

    @property
    def equal(self) -> bool:
        """Whether every comparison that ran found no difference."""
        same_stops = self.stops is None or not self.stops.different
        return same_stops and self.lowering.equal and (self.proof is None or self.proof.equal)

    @property
    def first(self) -> Mismatch | None:
        """The first mismatch of the proof, else of the lowering."""
        if self.proof is not None and self.proof.first is not None:
            return self.proof.first
        return self.lowering.first


def engine_trace(program: Program, x: Inputs) -> Trace:
    """Return our un-pipelined engine's trace of the network that the program was made from."""
    from snn_deploy.engine.event import EventEngine
    from snn_deploy.engine.fixed import FixedEngine

    if program.qnet is None:
        return EventEngine(program.real).run(x, "states")
    return FixedEngine(program.qnet).run(x, "states")


def verify(
    target: Target,
    program: Program,
    x: Inputs,
    labels: Array | None = None,
    oracle: Oracle | None = None,
) -> Verdict:
    """Return both answers for encoded samples x (samples, steps, *input shape).

    x: one array per input name where there are several.
    oracle: the independent simulator, None for "model only".
    """
    from snn_deploy.engine.event import EventEngine

    network = program.real
    ours = engine_trace(program, x)
    own = "integer engine" if program.qnet is not None else "float engine"
    lowered = target.run(program, x, "states")
    lowering = compare(network, lowered, ours, names=(f"{target.name} program", own), tolerance=0.0)
    proof, judged = None, lowered
    if oracle is not None:
        judged = oracle.run(program, x)
        # The float engine runs the program; the oracle, the network that it stands for.
        mine = lowered if program.qnet is None else replace(ours, machine=lowered.machine)
        proof = compare(
            network, judged, mine, names=(oracle.version(), own), tolerance=oracle.tolerance
        )
    fidelity = None
    if program.qnet is not None:
        real = EventEngine(network).run(x, "spikes")
        fidelity = _fidelity(network, real, ours, labels)
    stops = None
    if network.readout.cutoff is not None:
        steps = network.readout.stop_steps(ours.output)
        other = network.readout.stop_steps(judged.output)
        stops = Stops(early=int(np.sum(steps < ours.steps)), different=int(np.sum(steps != other)))
    return Verdict(proof=proof, lowering=lowering, fidelity=fidelity, stops=stops)


def _fidelity(network: Network, real: Trace, ours: Trace, labels: Array | None) -> Fidelity:
    same = total = 0
    for population in network.computing():
        if network.step_of(population.name).threshold is None:
            continue
        a, b = real.spikes[population.name], ours.spikes[population.name]
        # Of all spikes that either fired, the share that both did: silence is not agreement.
        same += int(np.count_nonzero((a != 0) & (b != 0)))
        total += int(np.count_nonzero((a != 0) | (b != 0)))
    float_class = network.readout.predict(real.output)
    int_class = network.readout.predict(ours.output)
    return Fidelity(
        equal_spikes=same / total if total else 1.0,
        equal_predictions=float(np.mean(float_class == int_class)),
        accuracy_float=_accuracy(float_class, labels),
        accuracy_integer=_accuracy(int_class, labels),
    )


def _accuracy(classes: Array, labels: Array | None) -> float | None:
    return None if labels is None else float(np.mean(classes == labels))
