"""What the networks that ``train`` offers are made of.

Layers without state see all steps at once as one batch (steps * batch, ...): one matrix product
or convolution for the whole sample, then each LIF scans over the steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
        for layer in self:
            if getattr(layer, "takes_steps", False):
                x = layer(x)
            else:
                x = layer(x.flatten(0, 1)).unflatten(0, (steps, batch))
        return x


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a layer whose currents reach a threshold of 1 from sparse unit spikes."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.mul_(3.0)
    return layer
