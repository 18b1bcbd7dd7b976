"""By how many steps each population runs late, and what delays make every path arrive in time.

A spike takes one step per synapse, so a population of depth d computes step k at step k + d. An
edge that brings the spikes of step k - s to step k (s: its delay, plus one for a feedback edge)
needs depth(post) >= depth(pre) + 1 - s; what is left over becomes a delay of the synapse.
"""

from __future__ import annotations

import numpy as np

from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.network import Network, Projection
from snn_deploy.ir.schedule import schedule


def depths(network: Network) -> dict[str, int]:
    """Return the smallest depth of every population, inputs 0.

    Raises UnsupportedError, located, for a loop whose delays are shorter than its hops.
    """
    least = shortest(network)
    depth = {p.name: 0 for p in network.populations}
    came_by: dict[str, Projection] = {}
    late: Projection | None = None
    for _ in range(len(depth) + 1):
        late = None
        for projection in network.projections:
            needed = depth[projection.pre] + 1 - least[projection.name]
            if needed > depth[projection.post]:
                depth[projection.post] = needed
                came_by[projection.post] = late = projection
        if late is None:
            return depth
    assert late is not None
    raise _loop_error(network, _loop(came_by, late.post), least)


def shortest(network: Network) -> dict[str, int]:
    """Return, by projection, the steps that its fastest connection waits, feedback included."""
    back = schedule(network).feedback
    return {p.name: int(np.min(p.delay_steps)) + back[p.name] for p in network.projections}


def _loop(came_by: dict[str, Projection], start: str) -> list[Projection]:
    """Return the edges of a loop that lies before ``start`` on the longest path, in order."""
    here, seen = start, set()
    while here not in seen:
        seen.add(here)
        here = came_by[here].pre
    edges = [came_by[here]]
    while edges[-1].pre != here:
        edges.append(came_by[edges[-1].pre])
    return edges[::-1]


def _loop_error(
    network: Network, loop: list[Projection], least: dict[str, int]
) -> UnsupportedError:
    hops, total = len(loop), sum(least[p.name] for p in loop)
    back = schedule(network).feedback
    last = next((p for p in reversed(loop) if back[p.name]), loop[-1])
    more = hops - total
    names = " -> ".join([*(p.pre for p in loop), loop[-1].post])
    needed = least[last.name] + more
    return UnsupportedError(
        "a loop is shorter than its hops: every synapse takes a step on Loihi",
        where=network.where(last.name),
        used=f"{names}: {hops} hops, and {total} step{'s' * (total != 1)} until it acts again",
        hint=f"let {last.pre} -> {last.post} take {needed} steps instead of {least[last.name]} "
        f"(a Delay of {more} step{'s' * (more != 1)} on that edge) and train it so",
    )
