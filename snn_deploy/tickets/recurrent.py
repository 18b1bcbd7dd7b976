"""A leaky integrate-and-fire population whose own spikes of the step before feed it too.

    I_t = x_t + W z_{t-1},   z_0 = 0

and v and z as in ``lif``. Backwards, the gradient flows through W as through any layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from snn_deploy.tickets.lif import LIF


class RecurrentLIF(LIF):
    """A LIF of ``units`` neurons with learned weights among them, of one step's delay.

    units: the population is flat. recurrent: the layer from its spikes to its currents, without
    bias. Everything else as in LIF; ``forward`` takes currents (steps, batch, units).
    """

    def __init__(self, units: int, **neuron: Any) -> None:
        super().__init__(**neuron)
        self.recurrent = nn.Linear(units, units, bias=False)

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes (steps, batch, units), 0 or 1, from rest."""
        spikes: list[Tensor] = []
        charged: list[Tensor] = []
        v: Tensor | None = None
        for x in current:
            charged.append(self._charged(x + self.recurrent(spikes[-1]) if spikes else x, v))
            z, v = self._fired(charged[-1])
            spikes.append(z)
        stacked = torch.stack(spikes)
        if self.watch is not None:
            self.watch(self, stacked, torch.stack(charged) - self.v_threshold)
        return stacked

    def ticket_node(self) -> dict[str, Any]:
        """Return LIF's node, and which layer leads the spikes back."""
        return {**super().ticket_node(), "recurrent": "recurrent"}
