"""Many Lava jobs as one, with few processes: what runs alike becomes one population.

Lava's cost lies in its processes, not in neurons. Populations of equal depth and kind stand side
by side, and the synapses between two such groups are one block matrix with a delay per weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from snn_deploy.backends.loihi.batch import copied
from snn_deploy.backends.loihi.job import JobInput, JobPopulation, LavaJob, SparseJob
from snn_deploy.backends.loihi.process import JobResult
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.synapses import Csr

Place = tuple[str, int, int]  # group, first neuron, last neuron + 1


def fused(jobs: Sequence[LavaJob]) -> tuple[LavaJob, list[dict[str, Place]]]:
    """Return one job, and for each of ``jobs`` where its nodes are in it."""
    flat = [copied(job, 1) for job in jobs]
    nodes: dict[str, list[Any]] = {}
    places: list[dict[str, Place]] = []
    sizes: dict[str, int] = {}
    for job in flat:
        places.append({})
        for node in (*job.inputs, *job.populations):
            group, size = _group(node), node.shape[0]
            first = sizes.get(group, 0)
            places[-1][node.name] = (group, first, first + size)
            sizes[group] = first + size
            nodes.setdefault(group, []).append(node)
    made = {name: _joined(name, members) for name, members in nodes.items()}
    return (
        LavaJob(
            inputs=tuple(n for n in made.values() if isinstance(n, JobInput)),
            populations=tuple(n for n in made.values() if isinstance(n, JobPopulation)),
            projections=_edges(flat, places, sizes),
            gap=max(job.gap for job in jobs),
        ),
        places,
    )


def recordings(result: JobResult, places: Mapping[str, Place], name: str) -> dict[str, Array]:
    """Return a population's spikes, u and v, each (samples, steps, n)."""
    group, first, last = places[name]
    recorded = result.recordings[group]
    return {kind: getattr(recorded, kind)[:, :, first:last] for kind in ("spikes", "u", "v")}


def _group(node: JobInput | JobPopulation) -> str:
    if isinstance(node, JobInput):
        return "graded" if node.graded else "spikes"
    kind = node.reset if node.programmed else "native"
    fed = "injected" if node.currents is not None else "biased"
    return f"{kind} {fed} {node.depth}"


def _joined(name: str, members: list[Any]) -> JobInput | JobPopulation:
    size = sum(node.shape[0] for node in members)
    if isinstance(members[0], JobInput):
        spikes = np.concatenate([node.spikes for node in members], axis=2)
        return replace(members[0], name=name, shape=(size,), spikes=spikes)
    changes: dict[str, Any] = {
        field: np.concatenate([_each(getattr(node, field), node.shape) for node in members])
        for field in ("du", "dv", "vth", "bias", "v_reset", "reset_amount", "v_init")
    }
    if members[0].currents is not None:
        changes["currents"] = np.concatenate([node.currents for node in members], axis=2)
    return replace(members[0], name=name, shape=(size,), **changes)


def _each(value: Any, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(0 if value is None else value, shape)


def _edges(
    jobs: Sequence[LavaJob], places: Sequence[Mapping[str, Place]], sizes: Mapping[str, int]
) -> tuple[SparseJob, ...]:
    parts: dict[tuple[str, str, int, bool], list[tuple[Array, ...]]] = {}
    for job, place in zip(jobs, places, strict=True):
        for edge in job.projections:
            assert isinstance(edge, SparseJob)
            (pre, left, _), (post, top, _) = place[edge.pre], place[edge.post]
            rows = np.repeat(np.arange(edge.weight.shape[0]), np.diff(edge.weight.indptr))
            delay = np.broadcast_to(edge.delay, edge.weight.data.shape)
            entry = (rows + top, edge.weight.indices + left, edge.weight.data, delay)
            parts.setdefault((pre, post, edge.weight_exp, edge.graded), []).append(entry)
    made = []
    for (pre, post, exponent, graded), entries in parts.items():
        rows, columns, data, delays = (np.concatenate(v) for v in zip(*entries, strict=True))
        order = np.lexsort((columns, rows))
        counts = np.bincount(rows, minlength=sizes[post])
        weight = Csr(
            indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            indices=columns[order].astype(np.int32),
            data=data[order],
            shape=(sizes[post], sizes[pre]),
        )
        made.append(
            SparseJob(
                pre=pre,
                post=post,
                weight=weight,
                weight_exp=exponent,
                delay=delays[order],
                free=True,
                graded=graded,
            )
        )
    return tuple(made)
