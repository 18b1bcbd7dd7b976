"""Order of evaluation within a step, and which edges take a step.

Feed-forward edges act within the step. Inside a strongly connected component an edge that
does not lead further from the inputs (breadth-first distance) takes one step; ``feedback``
names further such edges. Nothing depends on names or on the order in a file.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from graphlib import TopologicalSorter

from snn_deploy.ir.network import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """order: population names so that within-step edges go forward. feedback: per projection
    name, 1 where it carries the previous step's spikes. depth: longest within-step path.
    """

    order: tuple[str, ...]
    feedback: dict[str, int]
    depth: dict[str, int]


def schedule(network: Network) -> Schedule:
    """Return the evaluation order. There always is one: along the edges of a component that do
    not wait the distance grows, so no loop consists of them alone.
    """
    successors: dict[str, list[str]] = {p.name: [] for p in network.populations}
    for projection in network.projections:
        successors[projection.pre].append(projection.post)
    distance = _distances(successors, network.inputs)
    component = _components(successors)
    forced = set(network.feedback)
    feedback: dict[str, int] = {}
    sorter: TopologicalSorter[str] = TopologicalSorter({p.name: () for p in network.populations})
    for projection in network.projections:
        pre, post = projection.pre, projection.post
        back = (pre, post) in forced or (
            component[pre] == component[post] and distance.get(post, 0) <= distance.get(pre, 0)
        )
        feedback[projection.name] = int(back)
        if not back:
            sorter.add(post, pre)
    # static_order's ties follow set order of names: fix them by file position and depth.
    depth: dict[str, int] = {}
    for name in sorter.static_order():
        before = [depth[p.pre] + 1 for p in network.into(name) if not feedback[p.name]]
        depth[name] = max(before, default=0)
    position = {p.name: i for i, p in enumerate(network.populations)}
    order = sorted(depth, key=lambda name: (depth[name], position[name]))
    return Schedule(order=tuple(order), feedback=feedback, depth=depth)


def _distances(successors: dict[str, list[str]], inputs: tuple[str, ...]) -> dict[str, int]:
    distance = dict.fromkeys(inputs, 0)
    queue = deque(inputs)
    while queue:
        name = queue.popleft()
        for after in successors[name]:
            if after not in distance:
                distance[after] = distance[name] + 1
                queue.append(after)
    return distance


def _components(successors: dict[str, list[str]]) -> dict[str, int]:
    """Return each node's strongly connected component (Kosaraju's two passes, no recursion)."""
    order: list[str] = []
    seen: set[str] = set()
    for root in successors:
        stack = [(root, iter(successors[root]))] if root not in seen else []
        seen.add(root)
        while stack:
            node, rest = stack[-1]
            after = next((n for n in rest if n not in seen), None)
            if after is None:
                order.append(node)
                stack.pop()
            else:
                seen.add(after)
                stack.append((after, iter(successors[after])))
    reverse: dict[str, list[str]] = {name: [] for name in successors}
    for name, after_list in successors.items():
        for after in after_list:
            reverse[after].append(name)
    component: dict[str, int] = {}
    for index, root in enumerate(reversed(order)):
        todo = [root] if root not in component else []
        while todo:
            node = todo.pop()
            if node not in component:
                component[node] = index
                todo.extend(n for n in reverse[node] if n not in component)
    return component
