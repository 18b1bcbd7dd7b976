"""Lava as the judge: its own fixed-point process models run what the program says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from snn_deploy.backends.base import Program
from snn_deploy.backends.loihi.job import (
    ConvJob,
    DenseJob,
    JobInput,
    JobPopulation,
    LavaJob,
)
from snn_deploy.backends.loihi.program import LoihiProgram, LoihiSynapses, delay_table, lava_form
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import MEMBRANE_READOUTS
from snn_deploy.ir.synapses import Csr, Shape
from snn_deploy.ir.trace import Trace

if TYPE_CHECKING:
    from snn_deploy.backends.loihi.process import JobResult

DEFAULT_TIMEOUT_S = 600.0


def job_of(program: LoihiProgram, x: Array) -> LavaJob:
    """Return the Lava job for spikes (samples, steps, *input shape)."""
    name = program.network.inputs[0]
    shape = _layout(program.network.shapes[name])
    spikes = np.ascontiguousarray(x.reshape(*x.shape[:2], -1), dtype=np.uint8)
    return LavaJob(
        inputs=(JobInput(name=name, shape=shape, spikes=spikes),),
        populations=tuple(
            JobPopulation(
                name=p.name,
                shape=_layout(p.shape),
                depth=p.depth,
                du=p.du,
                dv=p.dv,
                vth=p.vth,
                bias=p.bias,
            )
            for p in program.populations
        ),
        projections=tuple(_projection(s) for s in program.synapses),
    )


def _layout(shape: Shape) -> Shape:
    """Return a shape that Lava has a layout of: (C, 1, L) for (C, L)."""
    if len(shape) == 2:
        return (shape[0], 1, shape[1])
    return shape if len(shape) in (1, 3) else (math.prod(shape),)


def _projection(synapses: LoihiSynapses) -> DenseJob | ConvJob:
    operator = lava_form(synapses)
    if isinstance(operator, Csr):
        return DenseJob(
            pre=synapses.pre,
            post=synapses.post,
            weight=operator.to_dense(),
            delay=delay_table(synapses),
        )
    return ConvJob(
        pre=synapses.pre,
        post=synapses.post,
        weight=operator.weight,
        stride=operator.stride,
        padding=(operator.padding[0], operator.padding[2]),
        dilation=operator.dilation,
        groups=operator.groups,
    )


class LavaOracle:
    """Runs a Loihi program in Lava's simulator, in a child process."""

    name = "lava"
    tolerance = 0.0

    def __init__(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self.timeout_s = timeout_s

    def version(self) -> str:
        """Return Lava's version and Python's; MissingDependencyError without Lava."""
        from snn_deploy.backends.loihi.environment import require

        versions = require().versions
        return f"lava-nc {versions['lava-nc']} on Python {versions['python']}"

    def run(self, program: Program, x: Array) -> Trace:
        """Return Lava's u, v and spikes of every population, aligned sample by sample."""
        from snn_deploy.backends.loihi.process import run_job

        job = job_of(program.payload, x)
        return trace_of(program, x, run_job(job, timeout_s=self.timeout_s))


def trace_of(program: Program, x: Array, result: JobResult) -> Trace:
    """Return what Lava recorded for spikes ``x`` as a trace of the program."""
    loihi: LoihiProgram = program.payload
    assert program.qnet is not None
    lead = tuple(x.shape[:2])
    spikes: dict[str, Array] = {}
    states: dict[str, dict[str, Array]] = {}
    for population in loihi.populations:
        record = result.recordings[population.name]
        shape = (*lead, *population.shape)
        spikes[population.name] = record.spikes.reshape(shape)
        assert record.u is not None
        assert record.v is not None
        states[population.name] = {
            "u": record.u.reshape(shape),
            "v": record.v.reshape(shape),
        }
    output = loihi.network.output_population.name
    membrane = loihi.network.readout.kind in MEMBRANE_READOUTS
    values = states[output]["v"] if membrane else spikes[output]
    return Trace(
        output=program.qnet.readout_values(values.reshape(*lead, -1)),
        counts={
            n: np.count_nonzero(s, axis=(0, 1)).reshape(-1)
            for n, s in {loihi.network.inputs[0]: x, **spikes}.items()
        },
        samples=lead[0],
        steps=lead[1],
        spikes=spikes,
        states=states,
    )
