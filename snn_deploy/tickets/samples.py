"""The test samples of a training data set, as the ``.npz`` that every command reads."""

from __future__ import annotations

from pathlib import Path

from snn_deploy.io.npz import save_npz
from snn_deploy.io.ticket import read_ticket
from snn_deploy.tickets.config import TrainConfig, arranged, data_of, resolved
from snn_deploy.tickets.patches import selector_of_ticket


def save_test_set(config: TrainConfig, path: Path | str, force: bool = False) -> int:
    """Write ``x`` and labels ``y``; returns the number of samples.

    x: (samples, *input shape), 0..1, or for recordings (samples, steps, *input shape), 0 or 1. Of a
    patch ticket, which must be there, the patches that it drops are 0.
    """
    config = resolved(config)
    data = data_of(config)
    x = arranged(data.x_test, config)
    if config.method == "patch":  # as the trained stem ranks them
        selector = selector_of_ticket(read_ticket(config.out))
        x = selector.keep_patches(data.x_test, config.params["patches"])
    save_npz(path, {"x": x, "y": data.y_test}, force)
    return len(x)
