"""A cutoff table for a trained model: calibrated on training samples, looked at on test samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_deploy.io.values import cutoff_json
from snn_deploy.ir.network import Readout
from snn_deploy.passes.cutoff import calibrate, effect
from snn_deploy.tickets import loop
from snn_deploy.tickets.regulariser import DROPOUT, calibration_outputs

EPSILON = 0.01
SAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutoff:
    """A table, and what it does on the test data: steps per sample, accuracies 0..1."""

    epsilon: float
    table: tuple[float, ...]
    mean_steps: float
    steps: int
    accuracy: float
    accuracy_stopped: float

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values; a threshold of infinity is null."""
        return {**asdict(self), "table": cutoff_json(self.table)}


def calibrated(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: loop.Recipe,
    *,
    epsilon: float,
    seed: int,
    inputs: NDArray[np.generic],
    labels: NDArray[np.int64],
) -> Cutoff:
    """Return the table of the first 10,000 training samples, run with lost spikes as published.

    x, y: as in ``loop.Run``; inputs, labels: test data as in ``loop.evaluate``. Raises InputError
    for a run of one step.
    """
    seen = loop.evaluation_input(x[:SAMPLES].numpy(), recipe, loop.stream_seed(seed, "cutoff"))
    outputs = calibration_outputs(model, seen, dropout=DROPOUT, seed=seed)
    table = calibrate(outputs, y[:SAMPLES].numpy(), Readout(), epsilon).table
    tested = calibration_outputs(model, inputs, dropout=0.0, seed=seed)
    found = effect(tested, labels, Readout(cutoff=table))
    return Cutoff(
        epsilon=epsilon,
        table=table,
        mean_steps=float(np.mean(found.steps)),
        steps=found.total_steps,
        accuracy=found.accuracy,
        accuracy_stopped=found.accuracy_stopped,
    )
