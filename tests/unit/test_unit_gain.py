"""Neurons that add their whole input add exactly it: ties at the threshold depend on it."""

from __future__ import annotations

import numpy as np
import pytest

from snn_deploy.ir.unit_gain import unit_gain


@pytest.mark.parametrize("dt_s", [1e-3, 1e-4, 1.0])
def test_the_gain_is_one_and_the_decay_what_was_asked(dt_s):
    shares = np.concatenate([np.arange(1, 4097) / 4096, 1 - np.float32([0.8, 0.9, 0.95, 0.97])])
    tau, gain = unit_gain(shares, dt_s)
    a = dt_s / tau
    # The quotients as they come miss 1 for every seventh share.
    assert np.mean(a * gain == 1) > 0.993
    assert np.all((a * gain == 1)[-4:])
    np.testing.assert_allclose(1 - a, 1 - shares, rtol=0, atol=2.0**-51)
    np.testing.assert_allclose(a * gain, 1, rtol=4e-16)


def test_a_state_that_loses_nothing_has_no_time_constant():
    tau, gain = unit_gain(np.array([0.5, 0.0]), 1e-3)
    assert np.isinf(tau).tolist() == [False, True]
    assert np.isinf(gain).tolist() == [False, True]
    assert (tau[0], gain[0]) == (2e-3, 2.0)
