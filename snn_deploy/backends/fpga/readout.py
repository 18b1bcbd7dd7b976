"""The unit that reads predictions in hardware."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from snn_deploy.backends.fpga.program import ReadoutUnit
from snn_deploy.ir.network import MEMBRANE_READOUTS, per_neuron
from snn_deploy.ir.quantized import QNetwork

#: Steps that scores can hold; the bits of a step's number allow as many.
STEP_BITS = 12


def readout_unit(qnet: QNetwork) -> ReadoutUnit | None:
    """Return the unit for a network's readout; None where the host has to read.

    The host reads several outputs, and membranes whose neurons have different gains.
    """
    real = qnet.real
    if len(real.outputs) != 1:
        return None
    name, readout = real.outputs[0], real.readout
    shape = real.shapes[name]
    neurons = int(np.prod(shape))
    membrane = readout.kind in MEMBRANE_READOUTS
    if membrane:
        step = real.step_of(name)
        gain = per_neuron(step.gain_u, shape) * per_neuron(step.gain_v, shape)
        if not bool(np.all(gain == gain[0])):
            return None
    group = neurons // (readout.groups or 1) if readout.kind == "vote" else 1
    largest = STEP_BITS
    kind: Literal["count", "mean", "max", "last"] = "count"
    if readout.kind == "last" or readout.kind == "max" or readout.kind == "mean":
        kind = readout.kind
        largest = qnet.arithmetic.state_max.bit_length() + (STEP_BITS if kind == "mean" else 0)
    bits = largest + (group - 1).bit_length() + 1
    first, last = readout.window or (0, (1 << STEP_BITS) - 1)
    never = (1 << (bits - 1)) - 1
    thresholds = None
    if readout.cutoff is not None:
        # A whole lead is above a threshold where it is above the threshold's floor.
        thresholds = tuple(
            never if math.isinf(t) else min(never, math.floor(t)) for t in readout.cutoff
        )
    return ReadoutUnit(
        population=name,
        kind=kind,
        neurons=neurons,
        group=group,
        first=first,
        last=last,
        thresholds=thresholds,
        bits=bits,
    )
