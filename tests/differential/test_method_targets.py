"""Every method's ticket runs on every target: equal to its judge bit for bit, and compared."""

from __future__ import annotations

import numpy as np
import pytest

from snn_deploy.io.ticket import read_ticket
from tests.cli.helpers import run_cli

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from snn_deploy.tickets.config import TrainConfig
from snn_deploy.tickets.methods.catalog import METHODS
from snn_deploy.tickets.samples import save_test_set
from snn_deploy.tickets.trainer import train

SETTINGS = {
    "data": "digits", "epochs": 4, "round_epochs": 2, "rewind_epoch": 1, "rounds": 2,
    "sparsity": 0.8, "limit": 600, "steps": 8, "hidden": (32, 16), "batch_size": 32,
}  # fmt: skip
TRANSFORMER = {"arch": "spikformer-tiny", "hidden": (12, 1), "sparsity": 0.5, "steps": 5}
OWN = {
    "gradr": {"params": {"prior": 0.3}},
    "connection": {"sparsity": 0.5},
    "patch": TRANSFORMER,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a ticket of every method, and test samples."""
    made = tmp_path_factory.mktemp("methods")
    for method in METHODS:
        own = OWN.get(method, {})
        if method == "reinit":
            own = {"masks_from": made / "imp.pt"}
        config = TrainConfig(out=made / f"{method}.pt", method=method, **(SETTINGS | own))
        train(config)
        save_test_set(config, made / f"{method}.npz")
    return made


@pytest.mark.parametrize("method", METHODS)
def test_integers_agree_with_lava_and_the_cycle_model_with_the_engine(folder, lava, method):
    model, samples = folder / f"{method}.pt", folder / f"{method}.npz"
    judged = {}
    for target in ("cpu", "loihi", "fpga"):
        ran = run_cli("verify", model, "-t", target, "-i", samples, "-n", 6, "--json", "-")
        assert ran.code == 0, ran.err
        verdict = ran.json["verdict"]
        assert verdict["equal"] is True
        judged[target] = verdict["proof"]
    assert judged["loihi"]["judge"].startswith("lava-nc ")
    assert not any(judged["loihi"]["mismatches"].values())
    assert sum(judged["loihi"]["values"].values()) > 1000


@pytest.mark.parametrize("method", METHODS)
def test_it_is_exported_and_compared_everywhere(folder, tmp_path, method):
    model, samples = folder / f"{method}.pt", folder / f"{method}.npz"
    ran = run_cli(
        "compare", model, "--targets", "cpu,loihi,fpga", "-i", samples, "-n", 100, "--json", "-"
    )
    assert ran.code == 0, ran.err
    ticket = read_ticket(model)
    rows = ran.json["targets"]
    assert [row["target"] for row in rows] == ["cpu", "loihi", "fpga"]
    accuracy = [row["accuracy"] for row in rows]
    # Weights are rounded on two of them; the ticket's own accuracy is over 450 samples.
    assert accuracy[0] == pytest.approx(ticket.meta["ticket_accuracy"], abs=0.15)
    assert np.ptp(accuracy) <= 0.1
    for target in ("cpu", "loihi", "fpga"):
        out = tmp_path / target
        ran = run_cli("export", model, "-t", target, "-o", out, "-q")
        assert ran.code == 0, ran.err
        assert (out / "report.json").is_file()
