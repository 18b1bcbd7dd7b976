"""A spiking transformer on Loihi: Lava against our integer engine, with dropped tokens."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import snn_deploy  # noqa: E402
from snn_deploy.backends.loihi.oracle import LavaOracle  # noqa: E402
from snn_deploy.backends.loihi.target import LoihiTarget  # noqa: E402
from snn_deploy.backends.prepare import prepare  # noqa: E402
from snn_deploy.backends.verify import verify  # noqa: E402
from tests.spikformers import SHAPE, samples, small  # noqa: E402


@pytest.mark.usefixtures("lava")
def test_lava_repeats_every_spike():
    model = small()
    net = snn_deploy.fold(snn_deploy.from_torch(model.deployed(), torch.zeros(1, *SHAPE)))
    program = prepare(net, LoihiTarget())
    x, kept = samples(model, 3, 8)
    assert 0 < kept.float().mean() < 1
    verdict = verify(
        LoihiTarget(),
        program,
        np.ascontiguousarray(x.movedim(0, 1).numpy().astype(np.uint8)),
        oracle=LavaOracle(),
    )
    assert verdict.proof is not None
    assert verdict.proof.equal
    assert verdict.equal
