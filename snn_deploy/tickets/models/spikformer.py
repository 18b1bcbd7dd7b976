"""A spiking transformer of standard parts: attention by AND and sums, tokens on a grid.

The input's last channel is the keep channel: the first pixel of each kept patch is 1, all others
0 (see ``tickets/patches.py``). Every token layer, a convolution with batch norm, gives exactly 0
where a token was dropped, its bias included, so that a dropped token never spikes.

``Spikformer.deployed`` returns the same network as populations and projections alone: batch norms
folded, biases as weights from a ``keep`` population, AND as Threshold(1.5) of a sum. Each part
below knows its deployed form; all else is shared.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, cast

import torch
from torch import Tensor, nn

from snn_deploy.errors import UsageError
from snn_deploy.tickets.lif import LIF
from snn_deploy.tickets.models.layers import TimeSequential, linear
from snn_deploy.tickets.threshold import Threshold

# Neurons of the perceptron's hidden layer per channel.
RATIO = 2
# The mask of a channel spikes once about so many tokens agree, as a share.
AGREEMENT = 1 / 16


class Spikformer(nn.Module):  # type: ignore[misc]
    """Spike-driven transformer (Yao et al., NeurIPS 2023) on binary spikes.

    A stem projects patches to tokens (the conv projection module), blocks mix them, and a head
    reads their mean. patch, padding: of the stem's first convolution, whose windows do not
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
        self.patch, self.padding = patch, padding
        grid = cast(
            tuple[int, int],
            tuple((n + 2 * p) // patch for n, p in zip(size, padding, strict=True)),
        )
        self.keep = Keep(channels, patch, padding, neuron["dt_s"])
        self.stem = Stem(channels - 1, width, patch, padding, neuron)
        self.blocks = nn.ModuleList(Block(width, grid, neuron) for _ in range(blocks))
        self.head = head(width, classes, neuron)

    def forward(self, x: Tensor) -> Tensor:
        """Return the head's spikes (steps, batch, classes) for (steps, batch, C + 1, H, W)."""
        keep = self.keep(x)
        tokens = self.stem(x, keep)
        for block in self.blocks:
            tokens = block(tokens, keep)
        spikes: Tensor = self.head(tokens)
        return spikes

    def deployed(self) -> Spikformer:
        """Return the same network in inference, of nothing but neurons and synapses."""
        model = copy.deepcopy(self).eval()
        _deploy(model)
        return model


def _deploy(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, TokenLayer | And | Spread | Keep):
            setattr(module, name, child.deployed())
        else:
            _deploy(child)


def head(width: int, classes: int, neuron: dict[str, Any]) -> TimeSequential:
    """Return the layers from tokens to classes, which are read by spike count."""
    return TimeSequential(
        OrderedDict(
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=linear(width, classes),
            lif=LIF(**neuron),
        )
    )


class TokenLayer(nn.Module):  # type: ignore[misc]
    """A convolution with batch norm; exactly 0 at dropped tokens."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        patch: int = 1,
        padding: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.main = TimeSequential(
            OrderedDict(
                conv=nn.Conv2d(inputs, outputs, patch, patch, padding, bias=False),
                bn=nn.BatchNorm2d(outputs),
            )
        )

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """Return currents (steps, batch, outputs, rows, columns) of x and the keep plane."""
        currents: Tensor = self.main(x) * keep
        return currents

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the convolution that has the batch norm in it."""
        conv, norm = self.main.conv, self.main.bn
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        bias = norm.bias - scale * norm.running_mean
        return (conv.weight * scale[:, None, None, None]).detach(), bias.detach()

    def deployed(self) -> nn.Module:
        """Return the layer whose bias comes from the keep population."""
        return FoldedLayer(*self.folded())


class PatchLayer(TokenLayer):
    """The token layer that reads the input: its bias comes from the keep channel's pixels."""

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """Return currents; the keep channel itself has no weights."""
        return super().forward(x[..., :-1, :, :], keep)

    def deployed(self) -> nn.Module:
        """Return one convolution of all channels, whose keep channel delivers the bias."""
        weight, bias = self.folded()
        conv = self.main.conv
        outputs, _, *kernel = weight.shape
        from_keep = weight.new_zeros(outputs, 1, *kernel)
        from_keep[:, 0, conv.padding[0], conv.padding[1]] = bias
        return FoldedPatches(torch.cat([weight, from_keep], dim=1), conv.padding)


class FoldedLayer(nn.Module):  # type: ignore[misc]
    """What a TokenLayer is on hardware: two 1x1 convolutions, one from the keep population."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.main = TimeSequential(OrderedDict(conv=_convolution(weight)))
        self.bias = TimeSequential(OrderedDict(conv=_convolution(bias[:, None, None, None])))

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """Return the sum of both currents."""
        currents: Tensor = self.main(x) + self.bias(keep)
        return currents


class FoldedPatches(nn.Module):  # type: ignore[misc]
    """What a PatchLayer is on hardware."""

    def __init__(self, weight: Tensor, padding: tuple[int, int]) -> None:
        super().__init__()
        patch = weight.shape[-1]
        conv = _convolution(weight, stride=patch, padding=padding)
        self.main = TimeSequential(OrderedDict(conv=conv))

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """Return the currents of all channels, the keep channel among them."""
        currents: Tensor = self.main(x)
        return currents


class Keep(nn.Module):  # type: ignore[misc]
    """The keep plane (steps, batch, 1, rows, columns): 1 at kept tokens."""

    def __init__(self, channels: int, patch: int, padding: tuple[int, int], dt_s: float) -> None:
        super().__init__()
        self.channels, self.patch, self.padding, self.dt_s = channels, patch, padding, dt_s

    def forward(self, x: Tensor) -> Tensor:
        """Return the first pixel of each patch in the last channel."""
        return x[..., -1:, :: self.patch, :: self.patch]

    def deployed(self) -> nn.Module:
        """Return a population that spikes as those pixels do."""
        weight = torch.zeros(1, self.channels, self.patch, self.patch)
        weight[0, -1, self.padding[0], self.padding[1]] = 1
        pick = _fixed(weight, stride=self.patch, padding=self.padding)
        return TimeSequential(OrderedDict(pick=pick, neuron=Threshold(0.5, dt_s=self.dt_s)))


class And(nn.Module):  # type: ignore[misc]
    """Both of two spikes; as a product, which has exact gradients."""

    def __init__(self, dt_s: float) -> None:
        super().__init__()
        self.dt_s = dt_s

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a * b."""
        return a * b

    def deployed(self) -> nn.Module:
        """Return a comparator of the sum."""
        return ThresholdAnd(self.dt_s)


class ThresholdAnd(nn.Module):  # type: ignore[misc]
    """What an And is on hardware."""

    def __init__(self, dt_s: float) -> None:
        super().__init__()
        self.neuron = Threshold(1.5, dt_s=dt_s)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return where both a and b spike."""
        spikes: Tensor = self.neuron(a + b)
        return spikes


class Spread(nn.Module):  # type: ignore[misc]
    """One value per channel to every token of the grid."""

    def __init__(self, channels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.channels, self.grid = channels, grid

    def forward(self, mask: Tensor) -> Tensor:
        """Return (steps, batch, channels, rows, columns) of (steps, batch, channels, 1, 1)."""
        return mask.expand(*mask.shape[:-2], *self.grid)

    def deployed(self) -> nn.Module:
        """Return a full-padding convolution of ones, one kernel per channel."""
        padding = (self.grid[0] - 1, self.grid[1] - 1)
        # The nir package reads grouped convolutions wrongly, and refuses their files.
        square = self.grid[0] == self.grid[1]
        groups = 1 if square else self.channels
        own = torch.eye(self.channels) if square else torch.ones(self.channels, 1)
        weight = own[:, :, None, None].expand(-1, -1, *self.grid).contiguous()
        ones = _fixed(weight, padding=padding, groups=groups)
        return TimeSequential(OrderedDict(ones=ones))


def _convolution(weight: Tensor, **how: Any) -> nn.Conv2d:
    outputs, inputs, *kernel = weight.shape
    conv = nn.Conv2d(inputs, outputs, tuple(kernel), bias=False, dtype=weight.dtype, **how)
    conv.weight.data.copy_(weight)
    return conv


def _fixed(weight: Tensor, groups: int = 1, **how: Any) -> nn.Conv2d:
    """Return a convolution whose weights are no parameter: nothing in it is learned."""
    outputs, inputs, *kernel = weight.shape
    conv = nn.Conv2d(inputs * groups, outputs, tuple(kernel), groups=groups, bias=False, **how)
    del conv.weight
    conv.register_buffer("weight", weight)
    return conv


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
        # Without a divisor of its own, a mean's rounding could move a sum across a threshold.
        self.sum = TimeSequential(OrderedDict(pool=nn.AvgPool2d(grid, divisor_override=1)))
        share = max(1.0, AGREEMENT * grid[0] * grid[1])
        self.mask = LIF(**{**neuron, "v_threshold": share * neuron["v_threshold"]})
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
    patch = 2 if min(input_shape[1:]) < 16 else 4
    missing = [-n % patch for n in input_shape[1:]]
    if any(n % 2 for n in missing):
        raise UsageError(
            f"patches of {patch} x {patch} pixels do not tile these samples",
            used=f"input shape {tuple(input_shape)}",
            hint="pad the samples by a row or a column",
        )
    padding = (missing[0] // 2, missing[1] // 2)
    return Spikformer(
        input_shape,
        classes,
        width=hidden[0],
        blocks=hidden[1],
        patch=patch,
        padding=padding,
        neuron=neuron,
    )
