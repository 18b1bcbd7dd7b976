"""Early stop: of a run over all steps, what had been done when each sample stopped.

A sample's steps do not depend on what happens after its stop, so all steps run at once, the stop
is found from the output, and what counts is cut there. The definitions stand in
docs/counting.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from snn_deploy.ir.arrays import Array
from snn_deploy.ir.events import Events
from snn_deploy.ir.network import Network
from snn_deploy.ir.trace import Stop, Trace, spikes_until

PLACE = "early stop"  # where the host's work is counted


def in_step(network: Network, trace: Trace, extra: Mapping[str, int]) -> Trace:
    """Return ``trace`` (with spikes, events and timing of all steps) until its samples stop.

    extra: by population, the steps that it has run beyond the output's when the output finishes
    the step of the stop; negative where it runs behind. No population runs more steps than there
    is input for. Events and timing are the caller's to fill in.
    """
    stops = network.readout.stop_steps(trace.output)
    ran = {
        name: np.clip(stops + extra.get(name, 0), 0, trace.steps).astype(np.int64)
        for name in trace.counts
    }
    return until(trace, stops, ran)


def until(
    trace: Trace, stops: Array, ran: Mapping[str, Array], arrived: Mapping[str, Array] | None = None
) -> Trace:
    """Return ``trace`` until its stops, without events and timing; fields as in ir.trace.Stop."""
    return replace(
        trace,
        counts={name: spikes_until(trace.spikes[name], ran[name]) for name in trace.counts},
        events=Events(),
        timing={},
        stop=Stop(
            steps=stops,
            ran=ran,
            arrived=arrived or {},
            whole=replace(trace, output=trace.output[:1], spikes={}, states={}),
        ),
    )


def step_statistics(steps: Array) -> dict[str, float]:
    """Return mean, median and 95th percentile of the steps (samples,) that samples took.

    The percentile is the fewest steps within which 95 % of the samples have stopped.
    """
    return {
        "mean": float(np.mean(steps)),
        "median": float(np.median(steps)),
        "p95": float(np.percentile(steps, 95, method="inverted_cdf")),
    }


def host_operations(network: Network, trace: Trace) -> Events:
    """Return what the host does to stop samples early, nothing where none may.

    After every step it reads each output neuron's count, finds the largest score (classes - 1
    comparisons) and the second largest (classes - 2), and compares their gap with the threshold.
    """
    if trace.stop is None:
        return Events()
    read = trace.output.shape[2]
    classes = network.readout.groups if network.readout.kind == "vote" else read
    assert classes is not None
    each = read + (classes - 1) + (classes - 2) + 1
    return Events({(PLACE, "host_ops"): each * int(trace.stop.steps.sum())})
