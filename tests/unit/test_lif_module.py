"""Our LIF module against norse, against a hand-written loop, and against autograd."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from snn_deploy.errors import UsageError  # noqa: E402
from snn_deploy.ir.neurons import LIF as IrLif  # noqa: E402
from snn_deploy.tickets.lif import LIF  # noqa: E402


def currents(steps: int = 40, batch: int = 3, neurons: int = 50, seed: int = 0):
    """Currents on a grid of 1/64: with powers of two as factors, no sum is ever rounded."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.randint(-64, 256, (steps, batch, neurons), generator=generator)
    return grid.to(torch.float64) / 64


@pytest.mark.parametrize("reset", ["value", "subtract"])
def test_equals_norse_lif_box_exactly(reset):
    norse = pytest.importorskip("norse.torch.functional.lif_box")
    resets = pytest.importorskip("norse.torch.functional.reset")
    dt_s, tau_s = 0.25, 2.0  # dt / tau = 1/8 is exact
    p = norse.LIFBoxParameters(
        tau_mem_inv=torch.tensor(1 / tau_s, dtype=torch.float64),
        v_th=torch.tensor(0.75, dtype=torch.float64),
        v_reset=torch.tensor(-0.25, dtype=torch.float64),
        reset_method=getattr(resets, f"reset_{reset}"),
    )
    ours = LIF(tau_s=tau_s, dt_s=dt_s, v_threshold=0.75, v_reset=-0.25, reset=reset)
    x = currents()[:12]  # 12 steps of 1/8 keep every value within float64
    state = norse.LIFBoxFeedForwardState(v=torch.zeros_like(x[0]))
    v, spikes = None, []
    for current in x:
        expected, state = norse.lif_box_feed_forward_step(current, state, p, dt_s)
        z, v = ours.step(current, v)
        assert torch.equal(z, expected)
        assert torch.equal(v, state.v)
        spikes.append(expected)
    scanned = ours(x)
    assert torch.equal(scanned, torch.stack(spikes))
    assert 0.02 < scanned.mean() < 0.5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tau_s": 4 / 3, "dt_s": 1.0},
        {"v_reset": 0.3, "v_leak": 0.2, "r": 1.7},
        {"reset": "subtract", "reset_amount": 0.8, "v_threshold": 1.1},
        {"tau_s": 1e-3, "dt_s": 1e-3},
        {"v_threshold": torch.linspace(0.5, 1.5, 50, dtype=torch.float64)},
    ],
    ids=["default", "tau-4/3", "leak", "subtract", "memoryless", "per-neuron"],
)
def test_equals_the_equation_written_out(options):
    lif = LIF(**options)
    full = {"tau_s": 2e-3, "dt_s": 1e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 1.0} | options
    x = currents()
    v = torch.zeros_like(x[0])
    expected = []
    for current in x:
        gain = full["dt_s"] / full["tau_s"]
        v = (1 - gain) * v + gain * (full["v_leak"] + full["r"] * current)
        z = (v > full["v_threshold"]).double()
        if options.get("reset") == "subtract":
            v = v - z * options["reset_amount"]
        else:
            v = torch.where(z.bool(), torch.as_tensor(options.get("v_reset", 0.0)).double(), v)
        expected.append(z)
    assert torch.equal(lif(x), torch.stack(expected))
    assert lif(x).sum() > 0


def test_the_threshold_is_strict():
    lif = LIF(tau_s=1.0, dt_s=1.0)
    x = torch.tensor([[1.0], [torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))]])
    assert lif(x).flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("options", [{}, {"reset": "subtract"}, {"v_reset": 0.5, "r": 0.7}])
def test_the_scan_has_the_gradient_of_single_steps(options):
    lif = LIF(**options)
    x = currents(steps=12)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    (lif(a) * weight).sum().backward()
    v, spikes = None, []
    for current in b:
        z, v = lif.step(current, v)
        spikes.append(z)
    (torch.stack(spikes) * weight).sum().backward()
    assert a.grad.abs().sum() > 0
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12)


def test_the_surrogate_is_the_derivative_of_atan():
    lif = LIF(tau_s=1.0, dt_s=1.0, alpha=3.0)
    x = torch.linspace(-1, 3, 41, dtype=torch.float64).reshape(1, -1).requires_grad_()
    lif(x).sum().backward()
    distance = (x.detach() - 1).requires_grad_()
    torch.atan(torch.pi / 2 * 3.0 * distance).div(torch.pi).sum().backward()
    torch.testing.assert_close(x.grad, distance.grad)


def test_coefficients_are_those_of_the_engines():
    lif = LIF(tau_s=7e-3, dt_s=1e-3, r=1.3, v_leak=0.1)
    step = IrLif(tau_s=7e-3, r=1.3, v_leak=0.1, v_threshold=1.0, v_reset=0.0).step(1e-3)
    assert lif.coefficients() == (float(step.keep_v), float(step.gain_v), float(step.offset))


def test_tensors_become_buffers_and_numbers_stay_numbers():
    lif = LIF(v_threshold=torch.ones(4), v_reset=0.25)
    assert set(lif.state_dict()) == {"v_threshold"}
    node = lif.ticket_node()
    assert node["op"] == "LIF"
    assert node["v_reset"] == 0.25
    assert node["v_threshold"] is lif.v_threshold
    assert "v_threshold" not in lif.extra_repr()
    assert "tau_s=0.002" in repr(lif)


@pytest.mark.parametrize(
    ("options", "hint"),
    [({"dt_s": 0.0}, "tau_s = 2"), ({"dt_s": 3e-3}, "tau_s = 2"), ({"reset": "zero"}, "subtract")],
)
def test_senseless_constants_are_refused(options, hint):
    with pytest.raises(UsageError, match=hint):
        LIF(**options)
