"""The patch ticket: the patches of each sample that a transformer is shown.

A transformer of ours reads samples with one channel more, the keep channel: 1 at one pixel of
each kept patch, 0 elsewhere. Patches do not overlap. A dropped patch is all zeros, its keep pixel
too, so that nothing of it is ever sent and its token stays silent.

Patches are ranked by what the stem (the conv projection module), sparse as it is, makes of them:
the score of a patch is how far its token's spike counts lie from those of an empty patch, summed
over the channels; of equal scores, the patch that comes first in reading order wins. The paper
(arXiv 2311.12060) does not say how its embedding scores patches, so this score is our choice: it
needs no training of its own, and an empty patch, whose token spikes by its bias alone, has 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from snn_deploy.errors import InputError, UsageError
from snn_deploy.io.inputs import encode
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Coding, Network

if TYPE_CHECKING:
    from snn_deploy.io.ticket import Ticket

# (n, steps, C + 1, H, W) of encoded samples -> (n, width, rows, columns) spikes of their tokens
Counts = Callable[[Array], Array]
BATCH = 256


class Transformer(Protocol):
    """What is asked of a network in training, see ``models.spikformer.Spikformer``."""

    patch: int
    padding: tuple[int, int]

    def token_counts(self, x: Array) -> Array:
        """Return how often each channel of each token of the stem spikes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """Where the patches of a sample lie: ``patch`` pixels square, from ``padding`` (rows, columns)
    outside of it.
    """

    patch: int
    padding: tuple[int, int] = (0, 0)

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the rows and columns of tokens of samples (..., H, W)."""
        rows, columns = (
            (size + 2 * p) // self.patch for size, p in zip(shape[-2:], self.padding, strict=True)
        )
        return rows, columns

    def with_keep_channel(self, x: Array, kept: Array | None = None) -> Array:
        """Return samples with the keep channel behind the others, dropped patches all zeros.

        x: images (n, C, H, W) or frames (n, steps, C, H, W). kept: (n, rows, columns), True where
        a patch stays (None: all stay). The result has x's type.
        """
        rows, columns = self.grid(x.shape)
        kept = np.ones((len(x), rows, columns), bool) if kept is None else np.asarray(kept, bool)
        result = np.zeros((*x.shape[:-3], x.shape[-3] + 1, *x.shape[-2:]), x.dtype)
        # One mask for all steps and channels of a sample.
        ahead = (len(x), *(1,) * (x.ndim - 3))
        pixels = kept.repeat(self.patch, axis=1).repeat(self.patch, axis=2)
        top, left = self.padding
        pixels = pixels[:, top : top + x.shape[-2], left : left + x.shape[-1]]
        result[..., :-1, :, :] = x * pixels.reshape(*ahead, *pixels.shape[1:])
        result[..., -1, :: self.patch, :: self.patch] = kept.reshape(*ahead[:-1], rows, columns)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Ranks and drops patches; coding: how samples become spikes, as the network will see them."""

    patches: Patches
    counts: Counts
    coding: Coding

    def scores(self, x: Array) -> Array:
        """Return a score per patch, (n, rows, columns), of samples without a keep channel."""
        if self.coding.gain != 1:
            raise UsageError(
                "a keep channel passes the coding as it is, so the gain must be 1",
                used=f"gain {self.coding.gain:g}",
                hint="scale the samples instead",
            )
        parts = []
        for start in range(0, len(x), BATCH):
            part = x[start : start + BATCH]
            part = self.patches.with_keep_channel(np.concatenate([part, np.zeros_like(part[:1])]))
            counts = self.counts(encode(part, self.coding, start)).astype(np.int64)
            parts.append(np.abs(counts[:-1] - counts[-1:]).sum(1))
        return np.concatenate(parts)

    def kept(self, x: Array, share: float) -> Array:
        """Return which patches stay, (n, rows, columns): the best ``share`` of each sample's.

        share: above 0, at most 1; the number is rounded, and at least one stays.
        """
        if not 0 < share <= 1:
            raise UsageError(
                "the share of patches to keep lies above 0, and is 1 at most",
                used=f"{share:g}",
                hint="0.7 drops three in ten",
            )
        scores = self.scores(x)
        flat = scores.reshape(len(scores), -1)
        number = max(1, round(share * flat.shape[1]))
        best = np.argsort(-flat, axis=1, kind="stable")[:, :number]
        kept = np.zeros(flat.shape, bool)
        np.put_along_axis(kept, best, True, axis=1)
        return kept.reshape(scores.shape)

    def keep_patches(self, x: Array, share: float) -> Array:
        """Return samples with their keep channel, all but the best patches dropped."""
        return self.patches.with_keep_channel(x, self.kept(x, share))


def tokens_kept(x: Array) -> float:
    """Return the tokens kept per sample, on average, of images or frames with a keep channel."""
    samples: Array = x[..., -1, :, :]
    if samples.ndim == 4:
        samples = samples[:, 0]
    return float(np.count_nonzero(samples)) / len(x)


def selector_of(model: Transformer, coding: Coding) -> Selector:
    """Return the selector of a network in training; it computes as in inference."""
    return Selector(
        patches=Patches(patch=model.patch, padding=model.padding),
        counts=model.token_counts,
        coding=coding,
    )


def selector_of_ticket(ticket: Ticket) -> Selector:
    """Return the selector of a ticket whose meta names its patches, see ``patch_meta``.

    It runs the ticket's stem alone. Raises InputError.
    """
    from snn_deploy.io.ticket import network_of
    from snn_deploy.passes.pipeline import fold

    patches, tokens = _of_meta(ticket)
    network = fold(network_of(ticket))
    if tokens not in network.shapes:
        raise InputError(
            "the ticket's tokens are of a population that it does not have",
            where=f"{ticket.source.path} -> meta -> patches",
            used=tokens,
            hint="train it again, or save it with patches.patch_meta(model)",
        )
    return Selector(patches=patches, counts=_engine_counts(network, tokens), coding=network.coding)


def patch_meta(model: Transformer) -> dict[str, Any]:
    """Return what a ticket's meta holds under "patches", so that patches can be selected for it."""
    return {"patch": model.patch, "padding": list(model.padding), "tokens": "stem.lif2"}


def _of_meta(ticket: Ticket) -> tuple[Patches, str]:
    found = ticket.meta.get("patches")
    try:
        assert isinstance(found, Mapping)
        patch, (top, left), tokens = found["patch"], found["padding"], found["tokens"]
        whole = all(type(n) is int for n in (patch, top, left)) and isinstance(tokens, str)
        assert whole
        assert 1 <= patch <= 1024
        assert 0 <= min(top, left) <= max(top, left) < patch
    except (AssertionError, KeyError, TypeError, ValueError):
        raise InputError(
            "the ticket does not say how its samples divide into patches",
            where=ticket.source.path,
            hint="patches are selected for a spikformer-tiny ticket; save one of your own with "
            "meta={'patches': patches.patch_meta(model)}",
        ) from None
    return Patches(patch=patch, padding=(top, left)), tokens


def _engine_counts(network: Network, tokens: str) -> Counts:
    from snn_deploy.engine.event import EventEngine

    engine, shape = EventEngine(_up_to(network, tokens)), network.shapes[tokens]

    def counts(x: Array) -> Array:
        summed: Array = engine.run(x, "spikes").output.sum(1)
        return summed.reshape(len(x), *shape)

    return counts


def _up_to(network: Network, name: str) -> Network:
    """Return the part of a network that leads to population ``name``, its output."""
    needed, waiting = set(network.inputs), [name]
    while waiting:
        here = waiting.pop()
        needed.add(here)
        waiting += [p.pre for p in network.into(here) if p.pre not in needed]
    return replace(
        network,
        populations=tuple(p for p in network.populations if p.name in needed),
        projections=tuple(p for p in network.projections if p.post in needed),
        outputs=(name,),
    )
