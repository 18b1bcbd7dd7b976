"""Tickets of CIFAR-10 and DVS128 Gesture run on their test sets as they were trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import snn_deploy
from snn_deploy.engine.event import EventEngine
from snn_deploy.io.inputs import encode, read_inputs
from snn_deploy.tickets.samples import save_test_set
from snn_deploy.tickets.trainer import TrainConfig, train
from tests.unit.test_cifar10 import python_version
from tests.unit.test_dvs128 import folder_of, packet


def busy(folder: Path) -> Path:
    """Write recordings of four gestures each, with events wherever the gesture's class says."""
    rng = np.random.default_rng(0)
    recordings = {}
    for name in ("user01_led", "user02_led"):
        parts = [
            np.stack(
                [
                    rng.integers(0, 40, 2000) + 20 * label,
                    rng.integers(0, 128, 2000),
                    rng.integers(0, 2, 2000),
                    np.sort(rng.integers(0, 6_000_000, 2000)) + 6_000_000 * label,
                ],
                1,
            )
            for label in range(4)
        ]
        table = "".join(
            f"{label + 1},{6_000_000 * label},{6_000_000 * (label + 1)}\n" for label in range(4)
        )
        recordings[name] = (packet(np.concatenate(parts).tolist()), table)
    return folder_of(folder, recordings)


@pytest.mark.parametrize(
    ("arch", "hidden", "data", "make", "shape", "kind"),
    [
        ("resnet19", (4,), "cifar10", python_version, (3, 32, 32), "direct"),
        ("mlp", (16,), "dvs128", busy, (2, 32, 32), "events"),
    ],
)
def test_a_ticket_runs_on_its_test_set(tmp_path, arch, hidden, data, make, shape, kind):
    config = TrainConfig(
        out=tmp_path / "m.pt", arch=arch, data=data, data_dir=make(tmp_path / "data"),
        sparsity=0.25, rounds=1, epochs=8, round_epochs=1, steps=4, hidden=hidden, batch_size=4,
        lr=1e-2,
    )  # fmt: skip
    result = train(config)
    assert result.sparsity == pytest.approx(0.25, abs=1e-3)
    network = snn_deploy.load_model(result.path)
    assert network.coding.kind == kind
    save_test_set(config, tmp_path / "x.npz")
    samples = read_inputs(tmp_path / "x.npz", shape)
    trace = EventEngine(snn_deploy.fold(network)).run(encode(samples, network.coding), "spikes")
    guess = network.readout.predict(trace.output)
    assert np.mean(guess == samples.y) == result.ticket_accuracy
    assert 0 < trace.output.mean() < 1
