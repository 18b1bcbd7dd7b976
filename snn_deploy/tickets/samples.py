"""The test samples of a training data set, as the ``.npz`` that every command reads."""

from __future__ import annotations

import math
from pathlib import Path

from snn_deploy.io.npz import save_npz
from snn_deploy.tickets import data as datasets
from snn_deploy.tickets.trainer import TrainConfig


def save_test_set(config: TrainConfig, path: Path | str, force: bool = False) -> int:
    """Write ``x`` (samples, *input shape), 0..1, and ``y``; returns the number of samples."""
    data = datasets.load(config.data, config.data_dir)
    shape = data.image_shape if config.arch == "conv" else (math.prod(data.image_shape),)
    x = data.x_test.reshape(-1, *shape)
    save_npz(path, {"x": x, "y": data.y_test}, force)
    return len(x)
