"""crosscheck: one network in every framework that can express it, spike for spike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from snn_deploy.bridges.peer import Peer
from snn_deploy.bridges.peers import NAMES, peer
from snn_deploy.engine.compare import Comparison, Mismatch, compare
from snn_deploy.engine.loop import Inputs
from snn_deploy.errors import MissingDependencyError, UnsupportedError
from snn_deploy.ir.network import Network, fitted
from snn_deploy.ir.trace import Trace

#: Recorded values of one variable that are held at a time: 8 bytes each, in several copies.
_VALUES = 2**24


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerResult:
    """What one framework made of the network.

    version: "" where it is not installed. comparison: None where it did not run, and then reason,
    where and hint say why. spikes: fired by the framework in all compared populations. silent:
    populations that spiked neither there nor here; hidden: those whose membrane it does not show.
    margin: how far from its threshold the membrane is where the first spike differs, None where
    none does or nobody shows it. latency_steps: what it declares.
    """

    name: str
    version: str
    comparison: Comparison | None = None
    spikes: int = 0
    silent: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    margin: float | None = None
    latency_steps: int = 0
    reason: str = ""
    where: str = ""
    hint: str = ""

    @property
    def installed(self) -> bool:
        """Whether the framework is there."""
        return bool(self.version)

    @property
    def rounding(self) -> bool:
        """Whether the first spike that differs stands within the tolerance of its threshold."""
        return (
            self.comparison is not None
            and self.margin is not None
            and self.margin <= self.comparison.tolerance
        )


def crosscheck(
    network: Network, x: Inputs, with_: Sequence[str] | None = None
) -> tuple[PeerResult, ...]:
    """Return what each framework made of ``network`` on encoded samples.

    x: (samples, steps, *input shape), or one array per input name. with_: frameworks, all by
    default. The network is folded first. A framework that is absent or cannot express the network
    is a result, not an error. Raises UsageError for an unknown framework.
    """
    from snn_deploy.passes.pipeline import fold

    network = fold(network)
    ready: dict[str, Peer] = {}
    results: dict[str, PeerResult] = {}
    for one in [peer(name) for name in (with_ or NAMES)]:
        try:
            results[one.name] = PeerResult(
                name=one.name, version=one.version(), latency_steps=one.latency_steps
            )
            ready[one.name] = one
        except MissingDependencyError as error:
            results[one.name] = PeerResult(
                name=one.name, version="", reason="not installed", hint=error.hint or ""
            )
    if ready:
        _run_all(network, x, ready, results)
    return tuple(results.values())


def _run_all(
    network: Network, x: Inputs, ready: dict[str, Peer], results: dict[str, PeerResult]
) -> None:
    """Fill in results, a few samples at a time."""
    from snn_deploy.engine.event import EventEngine

    engine = EventEngine(network)
    for first, some in _portions(network, x):
        ours = engine.run(some, "states")
        for name, one in list(ready.items()):
            try:
                theirs = one.run(network, some)
            except UnsupportedError as error:
                results[name] = PeerResult(
                    name=name,
                    version=results[name].version,
                    reason=error.message,
                    where=error.where or "",
                    hint=error.hint or "",
                )
                del ready[name]
                continue
            results[name] = _with(results[name], network, theirs, ours, first, one.tolerance)


def _portions(network: Network, x: Inputs) -> Iterator[tuple[int, Inputs]]:
    """Yield (index of the first sample, samples), as many as fit _VALUES."""
    array = next(iter(x.values())) if isinstance(x, Mapping) else x
    samples, steps = array.shape[:2]
    neurons = sum(p.size for p in network.populations)
    count = max(1, _VALUES // max(1, steps * neurons))
    for first in range(0, samples, count):
        if isinstance(x, Mapping):
            yield first, {name: values[first : first + count] for name, values in x.items()}
        else:
            yield first, x[first : first + count]


def _with(
    result: PeerResult, network: Network, theirs: Trace, ours: Trace, first: int, tolerance: float
) -> PeerResult:
    """Return ``result`` with the samples from ``first`` on compared as well."""
    names = (result.version, "float engine")
    comparison = compare(network, theirs, ours, names=names, tolerance=tolerance)
    found, margin = comparison.first, None
    if found is not None:
        margin = _margin(network, theirs, ours, found)
        found = replace(found, sample=found.sample + first)
    fired, silent, hidden = 0, [], []
    for population in network.computing():
        name = population.name
        if "v" not in theirs.states.get(name, {}):
            hidden.append(name)
        if network.step_of(name).threshold is None:
            continue
        fired += int(np.count_nonzero(theirs.spikes[name]))
        if not (np.any(theirs.spikes[name]) or np.any(ours.spikes[name])):
            silent.append(name)
    before = result.comparison
    if before is not None:
        comparison = replace(
            comparison,
            samples=before.samples + comparison.samples,
            values={k: v + before.values[k] for k, v in comparison.values.items()},
            mismatches={k: v + before.mismatches[k] for k, v in comparison.mismatches.items()},
        )
        if before.first is not None:
            found, margin = before.first, result.margin
        silent = [name for name in silent if name in result.silent]
    return replace(
        result,
        comparison=replace(comparison, first=found, note=""),
        spikes=result.spikes + fired,
        silent=tuple(silent),
        hidden=tuple(hidden),
        margin=margin,
    )


def _margin(network: Network, theirs: Trace, ours: Trace, first: Mismatch) -> float | None:
    """Return how far v is from the threshold, of whoever did not fire: no reset has moved it."""
    if first.variable != "spikes":
        return None
    name = first.population
    quiet = theirs if first.judge == 0 else ours
    v = quiet.states.get(name, {}).get("v")
    if v is None:
        return None
    threshold = network.step_of(name).threshold
    assert threshold is not None
    shape = network.shapes[name]
    level = np.broadcast_to(fitted(threshold, shape), shape).reshape(-1)[first.neuron]
    value = np.asarray(v[first.sample, first.step]).reshape(-1)[first.neuron]
    return float(abs(value - level))
