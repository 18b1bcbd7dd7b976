"""Bring your own model: a module of yours becomes a ticket, in two ways.

    python examples/bring_your_own_model.py     # some 10 s; own.pt, weights.pt, own.npz
    snn-deploy verify own.pt --target loihi --input own.npz
    snn-deploy compare own.pt --input own.npz
    snn-deploy inspect weights.pt --arch examples/bring_your_own_model.py:make

The module describes one time step. Its neurons are norse's `LIFBoxCell`, as here,
`snn_deploy.tickets.lif.LIF`, or any module with a `ticket_node()` method.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from norse.torch.functional.lif_box import LIFBoxParameters
from norse.torch.module.lif_box import LIFBoxCell
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.utils import prune

from snn_deploy import save_ticket

STEPS = 16


def lif() -> LIFBoxCell:
    """Return neurons that halve their membrane in each step of 1 ms."""
    parameters = LIFBoxParameters(tau_mem_inv=torch.tensor(500.0), v_th=torch.tensor(1.0))
    return LIFBoxCell(parameters, dt=1e-3)


class Net(nn.Module):
    """A residual convolutional net for 8x8 images, written the usual way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding="same", bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.lif1 = lif()
        self.conv2 = nn.Conv2d(8, 8, 3, padding="same")
        self.lif2 = lif()
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Linear(8 * 4 * 4, 10)
        self.lif3 = lif()

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the output's spikes of one step, (batch, 10), and the neurons' state."""
        s1, s2, s3 = (None, None, None) if state is None else state
        z, s1 = self.lif1(self.norm1(self.conv1(x)), s1)
        z, s2 = self.lif2(self.conv2(z) + z, s2)  # currents add up before the neuron
        z, s3 = self.lif3(self.head(self.pool(z).flatten(1)), s3)
        return z, (s1, s2, s3)


def make() -> tuple[Net, Tensor]:
    """Return the module and an example of one step's input: what --arch FILE.py:make calls."""
    return Net(), torch.zeros(1, 1, 8, 8)


def counts(model: Net, x: Tensor) -> Tensor:
    """Return the output's spike counts for rate-coded images."""
    state, total = None, torch.zeros(len(x), 10)
    for _ in range(STEPS):
        spikes, state = model((torch.rand_like(x) < x).float(), state)
        total = total + spikes
    return total


def train(model: Net, x: Tensor, y: Tensor, epochs: int) -> None:
    """Train by surrogate gradients, the usual way."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(counts(model, x[batch]), y[batch]).backward()
            optimizer.step()


def main() -> None:
    """Train, prune, and write the model in both ways, and test images to run it on."""
    parser = argparse.ArgumentParser(description="write own.pt, weights.pt and own.npz")
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--epochs", type=int, default=8, help="before and after the pruning")
    options = parser.parse_args()
    folder: Path = options.folder

    torch.manual_seed(0)
    digits = load_digits()
    order = torch.randperm(len(digits.target))
    x = torch.tensor(digits.images / 16, dtype=torch.float32)[order, None]
    y = torch.tensor(digits.target)[order]
    model, example = make()
    train(model, x[:1400], y[:1400], options.epochs)
    for layer, share in ((model.conv1, 0.3), (model.conv2, 0.8), (model.head, 0.8)):
        prune.l1_unstructured(layer, "weight", amount=share)
    train(model, x[:1400], y[:1400], options.epochs)
    model.eval()
    with torch.no_grad():
        right = (counts(model, x[1400:]).argmax(1) == y[1400:]).float().mean()
    print(f"accuracy in PyTorch: {100 * right:.1f} %")

    # 1. A ticket: the graph, the weights and the masks in one file. Masks may also be given
    #    as masks={"conv1": mask, ...}; without any, the zeros of a weight are its mask.
    coding = {"kind": "rate", "steps": STEPS, "seed": 0}
    save_ticket(model, folder / "own.pt", example_input=example, coding=coding, force=True)

    # 2. A plain state_dict: the weights only, and --arch names the code that builds the module.
    torch.save(model.state_dict(), folder / "weights.pt")

    # Images in 0..1 for rate coding, (samples, 1, 8, 8), and their labels.
    np.savez(folder / "own.npz", x=x[1400:].numpy(), y=y[1400:].numpy())
    print(f"wrote own.pt, weights.pt and own.npz in {folder.resolve()}")


if __name__ == "__main__":
    main()
