"""Which engine runs which layers, and in what order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snn_deploy.backends.fpga.plan import Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Populations in order of evaluation, and what feeds them."""

    names: tuple[str, ...]
    plans: Mapping[str, Sequence[Geometry]]
    inputs: tuple[str, ...]


def engines_of(
    names: Sequence[str], work: Mapping[str, float], engines: int
) -> tuple[tuple[str, ...], ...]:
    """Return the layers of each engine: successive ones, so that the largest work is least.

    engines: how many at most, 0 for one per layer.
    """
    if engines == 0 or engines >= len(names):
        return tuple((name,) for name in names)
    # best[k][i]: the least largest work of the first i layers on k engines, and the last cut.
    total = [0.0]
    for name in names:
        total.append(total[-1] + work[name])
    best = [[(total[i], 0) for i in range(len(names) + 1)]]
    for k in range(1, engines):
        row = [(0.0, 0)] * (k + 1)
        for i in range(k + 1, len(names) + 1):
            cuts = ((max(best[k - 1][c][0], total[i] - total[c]), c) for c in range(k, i))
            row.append(min(cuts))
        best.append(row)
    groups: list[tuple[str, ...]] = []
    end = len(names)
    for k in range(engines - 1, -1, -1):
        begin = best[k][end][1] if k else 0
        groups.append(tuple(names[begin:end]))
        end = begin
    return tuple(reversed(groups))


def skews(order: Order, group: Sequence[str]) -> dict[str, int]:
    """Return by how many steps each layer of an engine lags behind its first.

    A layer that reads another one of the same engine lags a step, and so need not wait for its
    sweep. In a network with loops none lags: a step needs all of the one before.
    """
    at = {name: i for i, name in enumerate(order.names)}
    looped = any(
        at.get(plan.pre, -1) >= at[name] for name in order.names for plan in order.plans[name]
    )
    if looped:
        return dict.fromkeys(group, 0)
    found: dict[str, int] = {}
    lag = 0
    for name in group:
        behind = [found[p.pre] + 1 for p in order.plans[name] if p.pre in found]
        # Layers run in order within a step: none is ahead of the one before it.
        lag = found[name] = max([lag, *behind])
    return found
