"""The neuron of networks trained with quantised activations (QCFS) and run as spiking ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from snn_deploy.errors import UsageError


class QCFS(nn.Module):  # type: ignore[misc]
    """Integrate-and-fire population whose spikes are worth its threshold.

    v starts at half the threshold; v = v + I; a spike where v > vthr; then v is lowered by vthr.
    ``forward`` takes currents (steps, batch, ...) and returns 0 or vthr. vthr: the learned
    threshold, one value, under the name that the published code stores it by. dt_s: seconds.
    Folding moves the amplitude into the layer behind. Raises UsageError.
    """

    takes_steps = True

    def __init__(self, *, vthr: float = 8.0, dt_s: float = 1e-3) -> None:
        super().__init__()
        if not 0 < vthr < float("inf") or not 0 < dt_s < float("inf"):
            raise UsageError(
                "a threshold and a step must be positive",
                used=f"vthr = {vthr:g}, dt_s = {dt_s:g}",
                hint="the threshold that training starts from, and seconds",
            )
        self.vthr = nn.Parameter(torch.tensor([vthr]))
        self.dt_s = dt_s

    def forward(self, current: Tensor) -> Tensor:
        """Return 0 or vthr for each step and neuron, from the start."""
        v = torch.full_like(current[0], 0.5) * self.vthr
        spikes = []
        for step in current:
            v = v + step
            z = (v > self.vthr) * self.vthr
            v = v - z
            spikes.append(z)
        return torch.stack(spikes)

    def ticket_node(self) -> dict[str, Any]:
        """Return the node of the ticket format."""
        vthr = float(self.vthr.detach())
        return {
            "op": "IF",
            "dt_s": self.dt_s,
            "r": 1.0,
            "r_unit": "per-step",
            "v_threshold": vthr,
            "v_reset": 0.0,
            "reset": "subtract",
            "reset_amount": vthr,
            "v_init": vthr / 2,
            "amplitude": vthr,
        }
