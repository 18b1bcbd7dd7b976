"""What the spiking transformer is made of; each part knows the form in which it deploys."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from snn_deploy.tickets.models.layers import TimeSequential
from snn_deploy.tickets.threshold import Threshold


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
