"""Bring your own model: a module of yours becomes a ticket, in two ways.

    python examples/bring_your_own_model.py            # writes own.pt and weights.pt
    snn-deploy inspect own.pt
    snn-deploy inspect weights.pt --arch examples/bring_your_own_model.py:make

The module describes one time step. Its neurons are `snn_deploy.tickets.lif.LIF`, norse's
`LIFBoxCell`, or any module with a `ticket_node()` method.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from snn_deploy import save_ticket
from snn_deploy.tickets.lif import LIF


class Net(nn.Module):
    """A residual convolutional net for 8x8 images, written the usual way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding="same", bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.lif1 = LIF(tau_s=2e-3, dt_s=1e-3)
        self.conv2 = nn.Conv2d(8, 8, 3, padding="same")
        self.lif2 = LIF(tau_s=2e-3, dt_s=1e-3)
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(8 * 4 * 4, 10)
        self.lif3 = LIF(tau_s=2e-3, dt_s=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output's spikes of one step, (batch, 10)."""
        spikes = self.lif1(self.norm1(self.conv1(x)))
        spikes = self.lif2(self.conv2(spikes) + spikes)  # currents add up before the neuron
        return self.lif3(self.head(self.pool(spikes).flatten(1)))


def make() -> tuple[Net, Tensor]:
    """Return the module and an example of one step's input: what --arch FILE.py:make calls."""
    return Net(), torch.zeros(1, 1, 8, 8)


def main() -> None:
    """Write both files; in your script the training stands where the pruning is here."""
    parser = argparse.ArgumentParser(description="write own.pt and weights.pt")
    parser.add_argument("--folder", type=Path, default=Path())
    folder: Path = parser.parse_args().folder

    torch.manual_seed(0)
    model, example = make()
    for layer in (model.conv1, model.conv2, model.head):
        prune.l1_unstructured(layer, "weight", amount=0.9)

    # 1. A ticket: the graph, the weights and the masks in one file. Masks may also be given
    #    as masks={"conv1": mask, ...}; without any, the zeros of a weight are its mask.
    coding = {"kind": "rate", "steps": 16, "seed": 0}
    save_ticket(model, folder / "own.pt", example_input=example, coding=coding, force=True)

    # 2. A plain state_dict: the weights only, and --arch names the code that builds the module.
    torch.save(model.state_dict(), folder / "weights.pt")
    print(f"wrote {folder / 'own.pt'} and {folder / 'weights.pt'}")


if __name__ == "__main__":
    main()
