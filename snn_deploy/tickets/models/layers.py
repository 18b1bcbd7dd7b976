"""What the networks that ``train`` offers are made of.

Layers without state see all steps at once as one batch (steps * batch, ...): one matrix product
or convolution for the whole sample, then each LIF scans over the steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snn_deploy.errors import UsageError
from snn_deploy.tickets import fast_layers, fused


class TimeSequential(nn.Sequential):  # type: ignore[misc]
    """``nn.Sequential`` over (steps, batch, ...): what ``takes_steps`` sees steps (LIF, other
    sequences, blocks of your own), every other layer one big batch.
    """

    takes_steps = True
    # The frontends read this mark: forward applies the children in order, nothing else.
    time_batched = True

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer's output, (steps, batch, ...)."""
        steps, batch = x.shape[:2]
        layers = list(self)
        while layers:
            layer, taken = layers[0], fused.length(layers, x)
            if taken:
                x = fused.apply(layers[:taken], x)
            elif getattr(layer, "takes_steps", False):
                x = layer(x)
            else:
                x = fast_layers.apply(layer, x.flatten(0, 1)).unflatten(0, (steps, batch))
            del layers[: max(1, taken)]
        return x


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a layer whose currents reach a threshold of 1 from sparse unit spikes."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.mul_(3.0)
    return layer


def width_of_images(
    arch: str, input_shape: tuple[int, ...], hidden: tuple[int, ...], smallest: int
) -> int:
    """Return the one width in ``hidden``; UsageError where the samples are too small for ``arch``.

    smallest: the fewest rows and columns that its pools and strides leave something of.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        raise UsageError(
            f"{arch} needs samples of shape (C, H, W), H and W of {smallest} or more",
            used=f"input shape {tuple(input_shape)}",
            hint="use --arch conv for smaller images, --arch mlp for flat samples",
        )
    if len(hidden) != 1 or hidden[0] < 1:
        raise UsageError(
            f"{arch} takes one width, the channels of its first convolution",
            used=f"hidden {tuple(hidden)}",
            hint="hidden=(64,) is the published size; all other widths are its multiples",
        )
    return hidden[0]
