"""The pipeline from a network as read to one that every engine and backend takes.

A pass gets a valid Network and leaves a valid one; ``fold`` checks after each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snn_deploy.ir.check import check
from snn_deploy.ir.network import Network
from snn_deploy.passes.fold import (
    drop_identities,
    fold_batch_norm,
    fold_scales,
    lower_max_pool,
    sparsify,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One rewriting; ``run`` keeps what the network computes, exactly or up to rounding."""

    name: str
    run: Callable[[Network], Network]


PIPELINE: tuple[Pass, ...] = (
    Pass(name="drop-identities", run=drop_identities),
    Pass(name="lower-max-pool", run=lower_max_pool),
    Pass(name="fold-batch-norm", run=fold_batch_norm),
    Pass(name="fold-scales", run=fold_scales),
    Pass(name="sparsify", run=sparsify),
)


def fold(network: Network) -> Network:
    """Return the network after the whole pipeline; raises located errors for what cannot fold."""
    check(network)
    for step in PIPELINE:
        network = check(step.run(network))
    return check(network, folded=True)
