"""For an early stop: the spike-rate regulariser (RCS), and outputs to calibrate a cutoff on.

The regulariser rewards rates that from the first steps on point where they point in the last
ones, so that an early decision is the final one:

    r_t = z_t + ReLU(v_t) / v_threshold      v_t: the membrane before its reset
    r_d = mean of r_t over the last floor(0.3 T) steps, at least one, detached
    penalty = 1 / (mean over t of cos(r_t, r_d) + 1e-5)

per sample and population; then the largest of the batch, of the samples that are decided right
over those last steps; then the mean over the populations. A sample that leaves a population without
any rate r_d counts 0 there.

Source: Wu et al., "Optimising event-driven spiking neural network with regularisation and
cutoff" (arXiv 2301.09522) and its code, whose slice of the last floor(0.3 T) = 0 steps is the
whole run where T <= 3.
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_deploy.errors import UsageError
from snn_deploy.tickets.lif import LIF
from snn_deploy.tickets.loop import EVAL_BATCH

ALPHA = 0.002  # weight of the penalty in the loss
DROPOUT = 0.3  # of spikes, while a cutoff is calibrated
_EPS = 1e-5


def last_steps(steps: int) -> int:
    """Return over how many last steps the final rates are taken."""
    return max(1, math.floor(0.3 * steps))


class Rates:
    """Collects the rates r_t of every LIF in ``model`` during forward passes, for the penalty.

        with Rates(model) as rates:
            out = model(x)                      # (steps, batch, classes)
            loss = cross_entropy(out.sum(0), y) + ALPHA * rates.penalty(out, y)

    The penalty may also be taken after the block. Forward passes without gradients are not
    collected. Only LIF's own ``forward`` is watched, not
    ``LIF.step``. Raises UsageError for a model without LIF, a threshold that is not positive, or a
    model that is being watched already.
    """

    def __init__(self, model: nn.Module) -> None:
        self._populations = _populations(model)
        for lif in self._populations:
            lowest = float(torch.as_tensor(lif.v_threshold).min())
            if not lowest > 0:
                raise UsageError(
                    "rates are counted in thresholds, and one of these is not positive",
                    used=f"v_threshold = {lowest:g}",
                    hint="train with thresholds above 0",
                )
        self._rates: list[Tensor] = []

    def __enter__(self) -> Self:
        if any(lif.watch is not None for lif in self._populations):
            raise UsageError(
                "the rates of this model are being collected already",
                hint="use one `with Rates(model)` at a time",
            )
        for lif in self._populations:
            lif.watch = self._collect
        self._rates.clear()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for lif in self._populations:
            lif.watch = None

    def _collect(self, lif: LIF, spikes: Tensor, distance: Tensor) -> None:
        if torch.is_grad_enabled():
            membrane = torch.relu(distance + lif.v_threshold)
            self._rates.append((spikes + membrane / lif.v_threshold).flatten(2))

    def penalty(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return the penalty of the forward passes since the last one, a scalar with gradients.

        outputs: (steps, batch, classes), what the classes are decided by; labels: (batch,). It is
        0 where no sample is decided right. Raises UsageError where nothing was collected.
        """
        rates, self._rates = self._rates, []
        if not rates:
            raise UsageError(
                "no forward pass was collected",
                hint="call the model inside `with Rates(model)`, with gradients, for each penalty",
            )
        last = last_steps(len(outputs))
        right = outputs.detach()[-last:].sum(0).argmax(-1) == labels
        worst = [torch.where(right, _penalties(r, last), 0.0).max() for r in rates]
        return torch.stack(worst).mean()


class RatePenalty:
    """The penalty times ``alpha`` as a term of a training run's loss, see ``loop.Penalty``."""

    def __init__(self, alpha: float = ALPHA) -> None:
        self.alpha = alpha
        self._rates: Rates | None = None

    def watch(self, model: nn.Module) -> Rates:
        """Return the context in which the model's rates are collected."""
        self._rates = Rates(model)
        return self._rates

    def __call__(self, output: Tensor, labels: Tensor) -> Tensor:
        """Return the term for the forward pass watched last; output: (steps, batch, classes)."""
        assert self._rates is not None
        return self.alpha * self._rates.penalty(output, labels)


def _penalties(rates: Tensor, last: int) -> Tensor:
    """Return (batch,) of rates (steps, batch, neurons)."""
    final = rates.detach()[-last:].mean(0)
    # The small sum under the root keeps the gradient finite where nothing is active.
    norm, final_norm = ((r.square().sum(-1) + _EPS).sqrt() for r in (rates, final))
    cosine = (rates * final).sum(-1) / (norm * final_norm)
    # Without any final rate there is no direction to turn to, and 1 / _EPS would drown the rest.
    return torch.where(final.any(-1), 1 / (cosine.mean(0) + _EPS), 0.0)


def _populations(model: nn.Module) -> list[LIF]:
    found = [part for part in model.modules() if isinstance(part, LIF)]
    if not found:
        raise UsageError(
            "the model has no LIF of snn_deploy.tickets.lif",
            where=type(model).__name__,
            hint="build it from these layers: only their membranes and spikes can be reached",
        )
    return found


@torch.no_grad()  # type: ignore[untyped-decorator]
def calibration_outputs(
    model: nn.Module, inputs: NDArray[Any], *, dropout: float = DROPOUT, seed: int
) -> NDArray[np.float32]:
    """Return (n, steps, classes) of a model some of whose spikes are lost, to calibrate a cutoff.

    inputs: (n, steps, ...), encoded. dropout: chance that a spike is lost, in every step anew and
    for every population but the last that runs, whose spikes are the output; those that are left
    weigh 1 / (1 - dropout), as in nn.Dropout. The spikes lost follow from ``seed``. The model
    runs in evaluation mode, and is left as it was. Raises UsageError for another dropout than 0
    to less than 1, or a model without LIF.
    """
    if not 0 <= dropout < 1:
        raise UsageError(
            f"dropout {dropout:g} is not a chance of losing spikes",
            hint="0 for none, 0.3 as published, less than 1",
        )
    generator = torch.Generator().manual_seed(seed)
    calls, output = 0, 0

    def lose(module: nn.Module, args: Any, spikes: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        if not output or calls == output:
            return None
        kept = torch.rand(spikes.shape, generator=generator) >= dropout
        return spikes * kept.to(spikes) / (1 - dropout)

    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def outputs(part: NDArray[Any]) -> NDArray[np.float32]:
        nonlocal calls
        calls = 0
        x = np.ascontiguousarray(part.swapaxes(0, 1)).astype(np.float32)
        values = model(torch.from_numpy(x).to(device)).transpose(0, 1)
        return np.asarray(values.cpu().numpy(), np.float32)

    was_training = model.training
    hooks = [lif.register_forward_hook(lose) for lif in _populations(model)]
    model.eval()
    try:
        outputs(inputs[:1])  # counts the populations that run
        output = calls
        parts = [outputs(inputs[i : i + EVAL_BATCH]) for i in range(0, len(inputs), EVAL_BATCH)]
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return np.concatenate(parts)
