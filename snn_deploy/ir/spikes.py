"""Spikes as sorted (time, id) events, and the trace of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.events import Events
from snn_deploy.ir.synapses import Shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spikes:
    """Address events of one sample: ``time`` and ``id`` int64, sorted by (time, id).

    shape: of the population, id counts in C order. steps: length in steps.
    """

    time: Array
    id: Array
    shape: Shape
    steps: int

    @classmethod
    def from_dense(cls, dense: Array) -> Spikes:
        """Return the events of a 0/1 array (steps, *shape)."""
        time, neuron = np.nonzero(dense.reshape(len(dense), -1))
        return cls(
            time=adopt(time.astype(np.int64)),
            id=adopt(neuron.astype(np.int64)),
            shape=tuple(dense.shape[1:]),
            steps=len(dense),
        )

    def to_dense(self) -> Array:
        """Return the uint8 array (steps, *shape)."""
        dense = np.zeros((self.steps, math.prod(self.shape)), np.uint8)
        dense[self.time, self.id] = 1
        return dense.reshape(self.steps, *self.shape)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """What a run of a batch of samples left behind.

    output: the readout's values of the output population, (samples, steps, n): spikes, or the
    membrane for a membrane readout. counts: per population, int64 (n,), spikes summed over
    samples and steps. spikes: per population uint8 (samples, steps, *shape), where recorded
    (analogue values of a Relay as float64). states: population -> variable ("v" after reset,
    "u") -> (samples, steps, *shape), where recorded. timing: per sample figures by name
    ("cycles"). samples and steps: what ran.
    """

    output: Array
    counts: Mapping[str, Array]
    samples: int
    steps: int
    spikes: Mapping[str, Array] = field(default_factory=dict)
    states: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    events: Events = field(default_factory=Events)
    timing: Mapping[str, Array] = field(default_factory=dict)
