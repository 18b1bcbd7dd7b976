"""A spiking transformer of standard parts: attention by AND and sums, tokens on a grid.

The input's last channel is the keep channel: the first pixel of each kept patch is 1, all others
0 (see ``tickets/patches.py``). Every token layer, a convolution with batch norm, gives exactly 0
where a token was dropped, its bias included, so that a dropped token never spikes.

``Spikformer.deployed`` returns the same network as populations and projections alone: batch norms
folded, biases as weights from a ``keep`` population, AND as Threshold(1.5) of a sum.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_deploy.errors import UsageError
from snn_deploy.tickets.lif import LIF
from snn_deploy.tickets.models.layers import TimeSequential, linear
from snn_deploy.tickets.models.spikformer_parts import And, Keep, PatchLayer, Spread, TokenLayer
from snn_deploy.tickets.patches import Patches

# Neurons of the perceptron's hidden layer per channel.
RATIO = 2
# The mask of a channel spikes while about so large a share of the tokens agrees.
AGREEMENT = 1 / 40


class Spikformer(nn.Module):  # type: ignore[misc]
    """Spike-driven transformer (Yao et al., NeurIPS 2023) on binary spikes.

    A stem projects patches to tokens (the conv projection module), blocks mix them, and a head
    reads them. patch, padding: of the stem's first convolution, whose windows do not
    overlap. neuron: LIF's arguments.
    """

    takes_steps = True

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        width: int,
        blocks: int,
        patch: int,
        padding: tuple[int, int],
        neuron: dict[str, Any],
    ) -> None:
        super().__init__()
        channels, *size = input_shape
        self.classes, self.neuron = classes, neuron
        self.width, self.patch, self.padding = width, patch, padding
        self.grid = grid = cast(
            tuple[int, int],
            tuple((n + 2 * p) // patch for n, p in zip(size, padding, strict=True)),
        )
        self.keep = Keep(channels, patch, padding, neuron["dt_s"])
        self.stem = Stem(channels - 1, width, patch, padding, neuron)
        self.blocks = nn.ModuleList(Block(width, grid, neuron) for _ in range(blocks))
        self.head = head(width, grid, classes, neuron)
        # A current one standard deviation above its mean makes a neuron at rest spike.
        spread = neuron["v_threshold"] * neuron["tau_s"] / neuron["dt_s"]
        for part in self.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.constant_(part.weight, spread)

    def forward(self, x: Tensor) -> Tensor:
        """Return the head's spikes (steps, batch, classes) for (steps, batch, C + 1, H, W)."""
        keep = self.keep(x)
        tokens = self.stem(x, keep)
        for block in self.blocks:
            tokens = block(tokens, keep)
        spikes: Tensor = self.head(tokens)
        return spikes

    def token_counts(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return how often each channel of each token of the stem spikes, computed in inference.

        x: (n, steps, C + 1, H, W). Returns (n, width, rows, columns).
        """
        weight, was_training = self.head.fc.weight, self.training
        batch = torch.from_numpy(np.array(x)).movedim(1, 0).to(weight)
        self.eval()
        with torch.no_grad():
            counts = self.stem(batch, self.keep(batch)).sum(0)
        self.train(was_training)
        found: NDArray[Any] = counts.cpu().numpy()
        return found

    def deployed(self) -> Spikformer:
        """Return the same network in inference, of nothing but neurons and synapses."""
        model: Spikformer = copy.deepcopy(self).eval()
        _deploy(model)
        model.to(dtype=self.head.fc.weight.dtype)
        return model


class ProjectionNet(nn.Module):  # type: ignore[misc]
    """A transformer's own stem before a head of its own: what finds the stem's connection ticket.

    The stem is shared, so that what is found stays in ``model``; the head is dropped afterwards.
    """

    takes_steps = True

    def __init__(self, model: Spikformer) -> None:
        super().__init__()
        self.keep, self.stem = model.keep, model.stem
        self.head = head(model.width, model.grid, model.classes, model.neuron)

    def forward(self, x: Tensor) -> Tensor:
        """Return the head's spikes (steps, batch, classes) for (steps, batch, C + 1, H, W)."""
        spikes: Tensor = self.head(self.stem(x, self.keep(x)))
        return spikes


def _deploy(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, TokenLayer | And | Spread | Keep):
            setattr(module, name, child.deployed())
        else:
            _deploy(child)


def head(width: int, grid: tuple[int, int], classes: int, neuron: dict[str, Any]) -> TimeSequential:
    """Return the layers from tokens to classes, which are read by spike count.

    Every token has weights of its own: nothing before them knows where a token lies.
    """
    return TimeSequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc=linear(width * grid[0] * grid[1], classes),
            lif=LIF(**neuron),
        )
    )


class Stem(nn.Module):  # type: ignore[misc]
    """The conv projection module: patches to tokens in two layers."""

    def __init__(
        self,
        channels: int,
        width: int,
        patch: int,
        padding: tuple[int, int],
        neuron: dict[str, Any],
    ) -> None:
        super().__init__()
        middle = max(1, width // 2)
        self.patches = PatchLayer(channels, middle, patch, padding)
        self.lif1 = LIF(**neuron)
        self.project = TokenLayer(middle, width)
        self.lif2 = LIF(**neuron)
        self.frozen = False

    def train(self, mode: bool = True) -> Stem:
        """Set the mode as usual; a frozen stem computes as in inference and learns nothing."""
        super().train(mode and not self.frozen)
        return self

    def freeze(self) -> None:
        """Leave the stem as it is from now on."""
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """Return the tokens' spikes (steps, batch, width, rows, columns)."""
        patches = self.lif1(self.patches(x, keep))
        tokens: Tensor = self.lif2(self.project(patches, keep))
        return tokens


class Block(nn.Module):  # type: ignore[misc]
    """Attention and perceptron, each with its input added to the current of its last neuron."""

    def __init__(self, width: int, grid: tuple[int, int], neuron: dict[str, Any]) -> None:
        super().__init__()
        for name in ("q", "k", "v"):
            setattr(self, name, TokenLayer(width, width))
            setattr(self, f"lif_{name}", LIF(**neuron))
        self.agree = And(neuron["dt_s"])
        # A mean's rounding could move a sum across a threshold.
        self.sum = TimeSequential(OrderedDict(pool=nn.AvgPool2d(grid, divisor_override=1)))
        # Sums are whole numbers, whatever the currents elsewhere are scaled to.
        self.mask = LIF(**{**neuron, "v_threshold": AGREEMENT * grid[0] * grid[1]})
        self.spread = Spread(width, grid)
        self.attend = And(neuron["dt_s"])
        self.project = TokenLayer(width, width)
        self.lif_attention = LIF(**neuron)
        self.expand = TokenLayer(width, RATIO * width)
        self.lif_hidden = LIF(**neuron)
        self.contract = TokenLayer(RATIO * width, width)
        self.lif_out = LIF(**neuron)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """Return the block's spikes, of the shape of its input's."""
        q = self.lif_q(self.q(x, keep))
        k = self.lif_k(self.k(x, keep))
        v = self.lif_v(self.v(x, keep))
        mask = self.mask(self.sum(self.agree(q, k)))
        attended = self.attend(self.spread(mask), v)
        x = self.lif_attention(self.project(attended, keep) + x)
        hidden = self.lif_hidden(self.expand(x, keep))
        out: Tensor = self.lif_out(self.contract(hidden, keep) + x)
        return out


def spikformer(
    input_shape: tuple[int, ...], classes: int, hidden: tuple[int, ...], neuron: dict[str, Any]
) -> Spikformer:
    """Return a spiking transformer for samples of shape (C + 1, H, W), the keep channel last.

    hidden: (width, blocks). Patches of 2 x 2 pixels below 16 rows or columns, else 4 x 4; where
    they do not divide the image, as with 34, it is padded alike on both sides. Raises UsageError.
    """
    if len(input_shape) != 3 or input_shape[0] < 2 or min(input_shape[1:]) < 4:
        raise UsageError(
            "a transformer needs samples of shape (C + 1, H, W), the last channel the keep "
            "channel, H and W of 4 or more",
            used=f"input shape {tuple(input_shape)}",
            hint="snn_deploy.tickets.patches.with_keep_channel adds the channel",
        )
    if len(hidden) != 2 or min(hidden) < 1:
        raise UsageError(
            "a transformer takes two sizes, its width and its number of blocks",
            used=f"hidden {tuple(hidden)}",
            hint="such as hidden=(64, 2)",
        )
    patches = patches_of(input_shape)
    return Spikformer(
        input_shape,
        classes,
        width=hidden[0],
        blocks=hidden[1],
        patch=patches.patch,
        padding=patches.padding,
        neuron=neuron,
    )


def patches_of(shape: tuple[int, ...]) -> Patches:
    """Return where the patches of samples (..., H, W) lie, see ``spikformer``; UsageError."""
    patch = 2 if min(shape[-2:]) < 16 else 4
    missing = [-n % patch for n in shape[-2:]]
    if any(n % 2 for n in missing):
        raise UsageError(
            f"patches of {patch} x {patch} pixels do not tile these samples",
            used=f"samples of {shape[-2]} x {shape[-1]} pixels",
            hint="pad the samples by a row or a column",
        )
    return Patches(patch=patch, padding=(missing[0] // 2, missing[1] // 2))
