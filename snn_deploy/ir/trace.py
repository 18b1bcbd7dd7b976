"""The trace of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from snn_deploy.ir.arrays import Array
from snn_deploy.ir.events import Events


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """What a run of a batch of samples left behind.

    output: the readout's values of the output population, (samples, steps, n): spikes, or the
    membrane for a membrane readout; several outputs stand side by side in their order. counts: per
    population, int64 (n,), spikes summed over samples and steps. spikes: per population uint8
    (samples, steps, *shape), where recorded (analogue values of a Relay as float64). states:
    population -> variable ("v" after reset, "u") -> (samples, steps, *shape), where recorded.
    timing: per sample figures by name ("cycles"). samples and steps: what ran. overflows: integer
    states that were "saturated" at the end of their range or "wrapped" around it; empty for floats
    and where nobody watched.
    """

    output: Array
    counts: Mapping[str, Array]
    samples: int
    steps: int
    spikes: Mapping[str, Array] = field(default_factory=dict)
    states: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    events: Events = field(default_factory=Events)
    timing: Mapping[str, Array] = field(default_factory=dict)
    overflows: Mapping[str, int] = field(default_factory=dict)
