"""Samples side by side: one Lava run of a network that holds a copy per sample.

Lava has no batch axis, and its cost per step lies in messages between processes. Copies of
the network share those: every matrix becomes block-diagonal, every population ``side_by_side``
times as large. Images become flat, and convolutions the sparse matrices that they are.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from snn_deploy.backends.loihi.job import (
    ConvJob,
    DenseJob,
    JobInput,
    JobPopulation,
    LavaJob,
    SparseJob,
)
from snn_deploy.backends.loihi.program import integer_csr
from snn_deploy.ir.arrays import adopt
from snn_deploy.ir.synapses import Conv2d, Csr

if TYPE_CHECKING:
    from snn_deploy.backends.loihi.job import IntArray
    from snn_deploy.ir.arrays import Array


def side_by_side(job: LavaJob) -> LavaJob:
    """Return the job whose one sample is ``job.side_by_side`` of ``job``'s, or ``job`` itself.

    Samples that the last row lacks are silent ones.
    """
    return job if job.side_by_side == 1 else copied(job, min(job.side_by_side, job.samples))


def copied(job: LavaJob, copies: int) -> LavaJob:
    """Return ``job`` with flat populations of ``copies`` networks and sparse synapses alone."""
    shapes = {source.name: source.shape for source in job.inputs}
    shapes |= {population.name: population.shape for population in job.populations}
    return replace(
        job,
        side_by_side=1,
        inputs=tuple(_input(source, copies) for source in job.inputs),
        populations=tuple(_population(p, copies) for p in job.populations),
        projections=tuple(
            replace(
                sparse, weight=_blocks(sparse.weight, copies), delay=_tiled(sparse.delay, copies)
            )
            for sparse in (_sparse(p, shapes) for p in job.projections)
        ),
    )


def one_by_one(recorded: Array, job: LavaJob) -> Array:
    """Return what ``side_by_side(job)`` recorded, (rows, steps, copies * n), by ``job``'s samples.

    The result is (samples, steps, n).
    """
    if job.side_by_side == 1:
        return recorded
    rows, steps, _ = recorded.shape
    copies = min(job.side_by_side, job.samples)
    apart = recorded.reshape(rows, steps, copies, -1).swapaxes(1, 2)
    return adopt(apart.reshape(rows * copies, steps, -1)[: job.samples])


def _beside(values: Array, copies: int) -> Array:
    """Return (samples, steps, n) as (rows, steps, copies * n)."""
    samples, steps, n = values.shape
    rows = math.ceil(samples / copies)
    full = np.zeros((rows * copies, steps, n), values.dtype)
    full[:samples] = values
    return full.reshape(rows, copies, steps, n).swapaxes(1, 2).reshape(rows, steps, copies * n)


def _tiled(value: int | IntArray, copies: int) -> int | IntArray:
    return np.tile(value, copies) if np.ndim(value) else value


def _input(source: JobInput, copies: int) -> JobInput:
    spikes = _beside(source.spikes, copies)
    return replace(source, shape=(spikes.shape[2],), spikes=spikes)


def _population(population: JobPopulation, copies: int) -> JobPopulation:
    currents = population.currents
    return replace(
        population,
        shape=(copies * math.prod(population.shape),),
        du=_tiled(population.du, copies),
        dv=_tiled(population.dv, copies),
        vth=_tiled(population.vth, copies),
        bias=None if population.bias is None else _tiled(population.bias, copies),
        currents=None if currents is None else _beside(currents, copies),
        v_reset=_tiled(population.v_reset, copies),
        reset_amount=_tiled(population.reset_amount, copies),
        v_init=_tiled(population.v_init, copies),
    )


def _sparse(
    projection: DenseJob | SparseJob | ConvJob, shapes: dict[str, tuple[int, ...]]
) -> SparseJob:
    if isinstance(projection, SparseJob):
        return projection
    if isinstance(projection, DenseJob):
        return SparseJob(
            pre=projection.pre,
            post=projection.post,
            weight=Csr.from_dense(projection.weight),
            weight_exp=projection.weight_exp,
            delay=projection.delay,
            graded=projection.graded,
        )
    from snn_deploy.engine.operators import matrix

    top, left = projection.padding
    operator = Conv2d(
        weight=projection.weight,
        stride=projection.stride,
        padding=(top, top, left, left),
        dilation=projection.dilation,
        groups=projection.groups,
    )
    weight = integer_csr(matrix(operator, shapes[projection.pre]))
    return SparseJob(
        pre=projection.pre,
        post=projection.post,
        weight=weight,
        weight_exp=projection.weight_exp,
        free=True,
        graded=projection.graded,
    )


def _blocks(weight: Csr, copies: int) -> Csr:
    """Return the block-diagonal matrix of ``copies`` times ``weight``."""
    rows, columns = weight.shape
    stored = weight.data.size
    nth = np.arange(copies)[:, None]
    return Csr(
        indptr=adopt(np.append(weight.indptr[:-1] + nth * stored, copies * stored)),
        indices=adopt((weight.indices + (nth * columns).astype(np.int32)).reshape(-1)),
        data=adopt(np.tile(weight.data, copies)),
        shape=(copies * rows, copies * columns),
    )
