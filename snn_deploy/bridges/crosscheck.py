"""crosscheck: one network in every framework that can express it, spike for spike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from snn_deploy.bridges.peers import NAMES, peer
from snn_deploy.engine.compare import Comparison, compare
from snn_deploy.engine.loop import Inputs
from snn_deploy.errors import MissingDependencyError, UnsupportedError
from snn_deploy.ir.network import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerResult:
    """What one framework made of the network.

    version: "" where it is not installed. comparison: None where it did not run, and then reason
    and hint say why. spikes: fired by the framework in all compared populations. latency_steps:
    what it declares.
    """

    name: str
    version: str
    comparison: Comparison | None = None
    spikes: int = 0
    latency_steps: int = 0
    reason: str = ""
    where: str = ""
    hint: str = ""

    @property
    def installed(self) -> bool:
        """Whether the framework is there."""
        return bool(self.version)


def crosscheck(
    network: Network, x: Inputs, with_: Sequence[str] | None = None
) -> tuple[PeerResult, ...]:
    """Return what each framework made of ``network`` (folded) on encoded samples.

    x: (samples, steps, *input shape), or one array per input name. with_: frameworks, all by
    default. A framework that is absent or cannot express the network is a result, not an error.
    Raises UsageError for an unknown framework.
    """
    from snn_deploy.engine.event import EventEngine

    peers = [peer(name) for name in (with_ or NAMES)]
    ours = EventEngine(network).run(x, "states")
    results = []
    for one in peers:
        try:
            version = one.version()
        except MissingDependencyError as error:
            results.append(
                PeerResult(name=one.name, version="", reason="not installed", hint=error.hint or "")
            )
            continue
        try:
            theirs = one.run(network, x)
        except UnsupportedError as error:
            results.append(
                PeerResult(
                    name=one.name,
                    version=version,
                    reason=error.message,
                    where=error.where or "",
                    hint=error.hint or "",
                )
            )
            continue
        comparison = compare(
            network, theirs, ours, names=(version, "float engine"), tolerance=one.tolerance
        )
        fired = sum(
            int((theirs.spikes[p.name] != 0).sum())
            for p in network.computing()
            if network.step_of(p.name).threshold is not None and p.name in theirs.spikes
        )
        results.append(
            PeerResult(
                name=one.name,
                version=version,
                comparison=comparison,
                spikes=fired,
                latency_steps=one.latency_steps,
            )
        )
    return tuple(results)
