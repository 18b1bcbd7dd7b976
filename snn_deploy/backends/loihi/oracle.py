"""Lava as the judge: its own fixed-point process models run what the program says."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from snn_deploy.backends.base import Program
from snn_deploy.backends.loihi.job import (
    ConvJob,
    JobInput,
    JobPopulation,
    LavaJob,
    SparseJob,
)
from snn_deploy.backends.loihi.program import (
    LoihiPopulation,
    LoihiProgram,
    LoihiSynapses,
    lava_form,
)
from snn_deploy.engine.host import Host, graded_input
from snn_deploy.engine.loop import Inputs, by_input
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import MEMBRANE_READOUTS
from snn_deploy.ir.synapses import Conv2d, Csr, Shape
from snn_deploy.ir.trace import Trace

if TYPE_CHECKING:
    from snn_deploy.backends.loihi.process import JobResult

DEFAULT_TIMEOUT_S = 600.0
_MOST_STORED = 4_000_000  # weights of all copies of the network in one Lava run


def job_of(program: Program, x: Inputs) -> LavaJob:
    """Return the Lava job for samples (samples, steps, *input shape), by input where several."""
    loihi: LoihiProgram = program.payload
    qnet = program.qnet
    assert qnet is not None
    currents = Host(qnet).currents(x)
    values = graded_input(qnet, x) if qnet.levels else by_input(qnet.network, x)
    fed = {s.pre for s in loihi.synapses}
    job = LavaJob(
        inputs=tuple(
            _input(name, qnet.network.shapes[name], values[name], graded=bool(qnet.levels))
            for name in qnet.network.inputs
            if name in fed
        ),
        populations=tuple(_population(p, currents.get(p.name)) for p in loihi.populations),
        projections=tuple(_projection(s) for s in loihi.synapses),
        gap=_longest_wait(loihi),
    )
    return replace(job, side_by_side=_copies(loihi, job.samples))


def _longest_wait(program: LoihiProgram) -> int:
    """Return by how many of its steps a spike may act late: delays and loops of the network."""
    late = {p.name: p.depth for p in program.populations}
    return max(
        (
            int(np.max(s.delay_steps, initial=0)) + 1 + late.get(s.pre, 0) - late[s.post]
            for s in program.synapses
        ),
        default=0,
    )


def _input(name: str, shape: Shape, values: Array, *, graded: bool) -> JobInput:
    flat: Any = np.ascontiguousarray(
        values.reshape(*values.shape[:2], -1), dtype=np.int32 if graded else np.uint8
    )
    return JobInput(name=name, shape=_layout(shape), spikes=flat, graded=graded)


def _population(population: LoihiPopulation, currents: Array | None) -> JobPopulation:
    return JobPopulation(
        name=population.name,
        shape=_layout(population.shape),
        depth=population.depth,
        du=population.du,
        dv=population.dv,
        vth=population.vth,
        bias=population.bias,
        currents=None if currents is None else currents.astype(np.int32),
        reset=population.reset,
        v_reset=population.v_reset,
        reset_amount=population.reset_amount,
        v_init=population.v_init,
    )


def _copies(program: LoihiProgram, samples: int) -> int:
    """Return how many samples run side by side: as many as keep Lava's matrices small."""
    from snn_deploy.engine.operators import nonzero_fan_out

    stored = sum(
        int(nonzero_fan_out(s.operator, s.in_shape).sum())
        if isinstance(s.operator, Conv2d)
        else s.operator.data.size
        for s in program.synapses
    )
    return max(1, min(samples, _MOST_STORED // max(stored, 1)))


def _layout(shape: Shape) -> Shape:
    """Return a shape that Lava has a layout of: (C, 1, L) for (C, L)."""
    if len(shape) == 2:
        return (shape[0], 1, shape[1])
    return shape if len(shape) in (1, 3) else (math.prod(shape),)


def _projection(synapses: LoihiSynapses) -> SparseJob | ConvJob:
    operator = lava_form(synapses)
    ends: dict[str, Any] = {
        "pre": synapses.pre,
        "post": synapses.post,
        "graded": synapses.payload_bits > 0,
    }
    if isinstance(operator, Csr):
        return SparseJob(
            weight=operator,
            weight_exp=synapses.exponent,
            delay=synapses.delay_steps,
            free=isinstance(synapses.operator, Conv2d),
            **ends,
        )
    return ConvJob(
        weight=operator.weight,
        weight_exp=synapses.exponent,
        stride=operator.stride,
        padding=(operator.padding[0], operator.padding[2]),
        dilation=operator.dilation,
        groups=operator.groups,
        **ends,
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

    def run(self, program: Program, x: Inputs) -> Trace:
        """Return Lava's u, v and spikes of every population, aligned sample by sample."""
        from snn_deploy.backends.loihi.process import run_job

        return trace_of(program, x, run_job(job_of(program, x), timeout_s=self.timeout_s))


def trace_of(program: Program, x: Inputs, result: JobResult) -> Trace:
    """Return what Lava recorded for samples ``x`` as a trace of the program."""
    loihi: LoihiProgram = program.payload
    assert program.qnet is not None
    given = by_input(loihi.network, x)
    samples, steps = next(iter(given.values())).shape[:2]
    spikes: dict[str, Array] = dict(given)
    states: dict[str, dict[str, Array]] = {}
    for population in loihi.populations:
        record = result.recordings[population.name]
        shape = (samples, steps, *population.shape)
        spikes[population.name] = record.spikes.reshape(shape)
        assert record.u is not None
        assert record.v is not None
        states[population.name] = {
            "u": record.u.reshape(shape),
            "v": record.v.reshape(shape),
        }
    membrane = loihi.network.readout.kind in MEMBRANE_READOUTS
    read = [states[n]["v"] if membrane else spikes[n] for n in loihi.network.outputs]
    output = np.concatenate([values.reshape(samples, steps, -1) for values in read], axis=2)
    return Trace(
        output=program.qnet.readout_values(output),
        counts={n: np.count_nonzero(s, axis=(0, 1)).reshape(-1) for n, s in spikes.items()},
        samples=samples,
        steps=steps,
        spikes=spikes,
        states=states,
    )
