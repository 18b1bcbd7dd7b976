"""A comparator without memory as a module: what turns sums of spikes back into spikes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from snn_deploy.bridges.spike import Spike


class Threshold(nn.Module):  # type: ignore[misc]
    """Spikes 1 where the input is above ``threshold``, strictly; dt_s: the network's step.

    On spikes, 0.5 of a sum is their OR and 1.5 of the sum of two their AND. Backwards it has the
    ATan surrogate's derivative.
    """

    takes_steps = True

    def __init__(self, threshold: float, *, dt_s: float, alpha: float = 2.0) -> None:
        super().__init__()
        self.threshold, self.dt_s, self.alpha = threshold, dt_s, alpha

    def forward(self, x: Tensor) -> Tensor:
        """Return spikes of ``x``'s shape, 0 or 1."""
        spikes: Tensor = Spike.apply(x - self.threshold, self.alpha)
        return spikes

    def ticket_node(self) -> dict[str, Any]:
        """Return the node of the ticket format."""
        return {"op": "Threshold", "dt_s": self.dt_s, "threshold": self.threshold}

    def extra_repr(self) -> str:
        """Return the constant that ``print(module)`` shows."""
        return f"threshold={self.threshold}"
