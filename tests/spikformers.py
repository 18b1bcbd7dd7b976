"""A small transformer whose batch norms have seen data, and its input, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from snn_deploy.tickets.models.build import build
from snn_deploy.tickets.models.spikformer import Spikformer

SHAPE = (3, 8, 8)  # two channels and the keep channel: 4 x 4 tokens
STEPS = 5


def small(hidden: tuple[int, int] = (8, 1), shape: tuple[int, ...] = SHAPE) -> Spikformer:
    """Return one with biases everywhere, in inference."""
    torch.manual_seed(0)
    model = build("spikformer-tiny", shape, 4, hidden=hidden)
    assert isinstance(model, Spikformer)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(part.bias, mean=1.0, std=0.5)
    with torch.no_grad():
        model.head.fc.weight.abs_().mul_(0.6)
        for seed in range(20):
            model(samples(model, 16, seed, shape=shape)[0])
    return model.eval()


def samples(
    model: Spikformer, n: int, seed: int, share: float = 0.7, shape: tuple[int, ...] = SHAPE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return spikes (steps, n, C + 1, H, W), and which tokens are kept, (n, rows, columns)."""
    import numpy as np

    from snn_deploy.tickets.patches import Patches

    rng = np.random.default_rng(seed)
    pixels = (rng.random((n, STEPS, shape[0] - 1, *shape[1:])) < 0.4).astype(np.float32)
    kept = rng.random((n, *model.grid)) < share
    x = Patches(patch=model.patch, padding=model.padding).with_keep_channel(pixels, kept)
    return torch.from_numpy(x).movedim(1, 0), torch.from_numpy(kept)


def spikes_of(model: torch.nn.Module, x: torch.Tensor) -> Mapping[str, Any]:
    """Return every population's spikes, (steps, n, ...), by its path."""
    seen: dict[str, Any] = {}
    hooks = [
        part.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
        for name, part in model.named_modules()
        if hasattr(part, "ticket_node")
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return seen
