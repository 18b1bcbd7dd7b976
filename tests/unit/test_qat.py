"""Quantization-aware fine-tuning: what training sees is what quantize stores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from snn_deploy.backends.arithmetics import ARITHMETICS, FPGA, LOIHI  # noqa: E402
from snn_deploy.engine.fixed import FixedEngine  # noqa: E402
from snn_deploy.errors import InputError, UsageError  # noqa: E402
from snn_deploy.frontends.state import network_from_module  # noqa: E402
from snn_deploy.io.ticket import network_of, read_ticket  # noqa: E402
from snn_deploy.ir.synapses import Csr, weights_of  # noqa: E402
from snn_deploy.passes.pipeline import fold  # noqa: E402
from snn_deploy.passes.quantize import quantize  # noqa: E402
from snn_deploy.passes.scale import learned_of  # noqa: E402
from snn_deploy.tickets import loop, qat  # noqa: E402
from snn_deploy.tickets.data import load as datasets  # noqa: E402
from snn_deploy.tickets.models.build import build  # noqa: E402
from snn_deploy.tickets.qat import Grid, OnGrid, same_integers  # noqa: E402
from snn_deploy.tickets.trainer import TrainConfig, checkpoint_path, resolved, train  # noqa: E402

TINY = {
    "epochs": 3, "round_epochs": 2, "rewind_epoch": 1, "rounds": 1, "sparsity": 0.7,
    "limit": 96, "steps": 4, "hidden": (12, 8),
}  # fmt: skip
CODING = {"kind": "rate", "steps": 6, "seed": 0, "gain": 1.0}
GRIDS = [("mlp", LOIHI, 8), ("mlp", LOIHI, 1), ("conv", LOIHI, 3), ("conv", FPGA, 4)]
grids = pytest.mark.parametrize(
    ("arch", "arithmetic", "bits"), GRIDS, ids=lambda v: getattr(v, "name", v)
)
grids_and_loops = pytest.mark.parametrize(
    ("arch", "arithmetic", "bits"),
    [*GRIDS, ("recurrent", LOIHI, 4)],
    ids=lambda v: getattr(v, "name", v),
)


def tiny(out: Path, **changes) -> TrainConfig:
    return TrainConfig(out=out, **(TINY | changes))


def shape_of(arch):
    return (1, 8, 8) if arch == "conv" else (64,)


def lively(arch, *, tau_s=2e-3):
    """Return a model in which every layer spikes, with batch-norm statistics of some training."""
    torch.manual_seed(0)
    model = build(arch, shape_of(arch), 10, hidden=(12, 8), tau_s=tau_s, v_threshold=0.3)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if "bn" in name and value.is_floating_point():
                value += torch.rand(value.shape) - 0.5
            elif value.is_floating_point():
                value *= tau_s / 1e-3
    return model


def view_of(model, arch, grid, coding=CODING):
    return OnGrid(model, grid, example_input=torch.zeros(1, *shape_of(arch)), coding=coding)


def integers_of(model, arch, grid):
    example = torch.zeros(1, *shape_of(arch))
    network = fold(network_from_module(model, example_input=example, coding=CODING))
    return quantize(network, grid.arithmetic, bits=grid.bits)


def dense(synapse):
    if not isinstance(synapse, Csr):
        return weights_of(synapse)
    made = np.zeros(synapse.shape, synapse.data.dtype)
    made[np.repeat(np.arange(synapse.shape[0]), np.diff(synapse.indptr)), synapse.indices] = (
        synapse.data
    )
    return made


@grids_and_loops
def test_a_ticket_holds_weights_that_quantize_to_the_integers_of_training(
    tmp_path, arch, arithmetic, bits, monkeypatch
):
    views = []
    real = OnGrid.settle
    monkeypatch.setattr(OnGrid, "settle", lambda self: views.append(real(self)) or views[-1])
    config = tiny(tmp_path / "m.pt", arch=arch, qat=arithmetic, bits=bits)
    result = train(config)
    ticket = read_ticket(result.path)
    network = fold(network_of(ticket))
    qnet = quantize(network, arithmetic, bits=bits)
    (seen,) = views
    for ours, theirs in zip(seen.network.projections, qnet.network.projections, strict=True):
        np.testing.assert_array_equal(dense(learned_of(ours)), dense(learned_of(theirs)))
        a, b = seen.populations[ours.post], qnet.populations[theirs.post]
        assert (a.threshold, a.decay_v) == (b.threshold, b.decay_v)
        np.testing.assert_array_equal(a.bias, b.bias)
    for report in qnet.tensors:
        assert report.max_error < 1e-6 * report.max_abs
        assert report.saturated == 0
        assert report.nonzeros_after == report.nonzeros_before
    # Masks hold, and what rounding made zero counts as removed.
    for key, mask in ticket.masks.items():
        np.testing.assert_array_equal(ticket.state[key] != 0, mask)
    kept = sum(int(m.sum()) for m in ticket.masks.values())
    assert result.nonzeros == kept <= round(0.3 * result.weights)
    assert result.sparsity == pytest.approx(1 - kept / result.weights)
    assert ticket.meta["qat"] == {
        "target": arithmetic.name,
        "bits": bits,
        "epochs": 2,
        "accuracy_before": result.qat.accuracy_before,
        "accuracy": result.qat.accuracy,
    }
    assert ticket.meta["settings"]["qat"] == arithmetic.name
    # The accuracy in integers is the engine's on the test data.
    settings = resolved(config)
    recipe = loop.Recipe(
        steps=4, coding="rate", gain=1.0, lr=settings.lr, batch_size=64, weight_decay=0.0
    )
    data = datasets.load("digits")
    x = loop.evaluation_input(data.x_test.reshape(-1, *shape_of(arch)), recipe, 0)
    guess = network.readout.predict(FixedEngine(qnet).run(x).output)
    assert result.qat.accuracy == np.mean(guess == data.y_test)


@grids
def test_the_forward_pass_holds_the_integers(arch, arithmetic, bits):
    model, grid = lively(arch), Grid(arithmetic=arithmetic, bits=bits)
    qnet = integers_of(model, arch, grid)
    view = view_of(model, arch, grid)
    given = view.parameters(view.quantized())
    state = model.state_dict()
    folded = dict(zip([p.origin for p in qnet.network.projections], qnet.network.projections,
                      strict=True))  # fmt: skip
    assert len(given) == 2 * len(folded)
    for name, projection in folded.items():
        scale = qnet.populations[projection.post].scale
        factor = 0.25 if (arch, name) in (("conv", "conv2"), ("conv", "fc")) else 1.0
        if name.startswith("conv"):
            bn = name.replace("conv", "bn")
            share = state[f"{bn}.weight"] / torch.sqrt(state[f"{bn}.running_var"] + 1e-5)
            factor = factor * share.numpy().reshape(-1, 1, 1, 1)
        values = given[f"{name}.weight"].numpy() * factor * scale
        np.testing.assert_allclose(values, dense(learned_of(projection)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("arithmetic", [LOIHI, FPGA], ids=lambda a: a.name)
@pytest.mark.parametrize("arch", ["mlp", "conv", "recurrent"])
@pytest.mark.parametrize("bits", [8, 3])
def test_without_memory_the_forward_pass_spikes_as_the_integers_do(arch, arithmetic, bits):
    # tau = dt: no decay is rounded, so spikes are equal one by one.
    model = lively(arch, tau_s=1e-3)
    view = view_of(model, arch, Grid(arithmetic=arithmetic, bits=bits))
    x = np.random.default_rng(1).random((20, 6, *shape_of(arch))) < 0.4
    with torch.no_grad():
        ours = view(torch.from_numpy(x.swapaxes(0, 1).astype(np.float32))).numpy()
    theirs = FixedEngine(view.quantized()).run(x.astype(np.uint8)).output
    np.testing.assert_array_equal(ours.swapaxes(0, 1), theirs)
    assert 0.05 < theirs.mean() < 0.5


@pytest.mark.parametrize("arithmetic", [LOIHI, FPGA], ids=lambda a: a.name)
@pytest.mark.parametrize(("tau_s", "least"), [(2e-3, 0.9995), (3.3e-3, 0.999), (1.0, 0.998)])
def test_with_a_decay_it_spikes_nearly_as_the_integers_do(arithmetic, tau_s, least):
    model = lively("mlp", tau_s=tau_s)
    view = view_of(model, "mlp", Grid(arithmetic=arithmetic, bits=8))
    x = np.random.default_rng(2).random((40, 12, 64)) < 0.4
    with torch.no_grad():
        ours = view(torch.from_numpy(x.swapaxes(0, 1).astype(np.float32))).numpy()
    theirs = FixedEngine(view.quantized()).run(x.astype(np.uint8)).output
    assert np.mean(ours.swapaxes(0, 1) == theirs) >= least
    assert 0.1 < theirs.mean() < 0.5


def test_gradients_pass_the_rounding_and_the_model_is_left_alone():
    model = lively("conv")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    view = view_of(model, "conv", Grid(arithmetic=LOIHI, bits=4))
    x = (torch.rand(6, 10, 1, 8, 8, generator=torch.Generator().manual_seed(3)) < 0.4).float()
    view(x).sum().backward()
    gradients = {k: p.grad for k, p in model.named_parameters()}
    frozen = {"bn1.weight", "bn2.weight"}
    assert {k for k, g in gradients.items() if g is None} == frozen
    assert all(bool((g != 0).any()) for k, g in gradients.items() if k not in frozen)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_fine_tuning_recovers_what_few_bits_lose(tmp_path):
    config = {"epochs": 15, "limit": 600, "hidden": (32, 16), "qat_epochs": 12}
    result = train(tiny(tmp_path / "m.pt", **config, qat=LOIHI, bits=2))
    lost = result.rounds[-1].accuracy - result.qat.accuracy_before
    assert lost > 0.08
    assert result.qat.accuracy > result.qat.accuracy_before + 0.3 * lost


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_resume_and_seed_give_the_same_weights(tmp_path, arch):
    options = {"arch": arch, "qat": LOIHI, "bits": 4, "qat_epochs": 3}
    whole = train(tiny(tmp_path / "a.pt", **options))
    seen = []

    def interrupt(progress):
        seen.append(progress)
        if (progress.phase, progress.epoch) == ("qat", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny(tmp_path / "b.pt", **options), progress=interrupt)
    assert checkpoint_path(tmp_path / "b.pt").exists()
    assert not (tmp_path / "b.pt").exists()
    assert [(p.phase, p.done, p.total) for p in seen][-3:] == [
        ("round 1/1", 6, 9),
        ("qat", 7, 9),
        ("qat", 8, 9),
    ]
    with pytest.raises(InputError, match="other settings") as caught:
        train(tiny(tmp_path / "b.pt", **options | {"qat": FPGA}, resume=True))
    assert "qat: 'loihi' then, 'fpga' now" in caught.value.used
    resumed = train(tiny(tmp_path / "b.pt", **options, resume=True))
    a, b = read_ticket(whole.path).state, read_ticket(resumed.path).state
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert whole.qat == resumed.qat


def test_without_pruning_the_dense_network_is_fine_tuned(tmp_path):
    result = train(tiny(tmp_path / "m.pt", sparsity=0.0, rounds=None, qat=FPGA))
    assert (result.qat.bits, result.qat.epochs) == (8, 2)
    qnet = quantize(fold(network_of(read_ticket(result.path))), FPGA)
    assert all(r.max_error < 1e-6 * r.max_abs for r in qnet.tensors)


@pytest.mark.parametrize(
    ("changes", "error", "message", "hint"),
    [
        ({"bits": 4}, UsageError, "weight bits and their epochs belong to", "--qat loihi or"),
        ({"qat_epochs": 4}, UsageError, "weight bits and their epochs belong", "--qat fpga"),
        ({"qat": LOIHI, "qat_epochs": 0}, UsageError, "qat_epochs must be positive", ""),
        ({"qat": LOIHI, "bits": 9}, InputError, "loihi stores weights of 1 to 8 bits", "--bits 1"),
        ({"qat": FPGA, "bits": 1}, InputError, "fpga stores weights of 2 to 8 bits", "--bits 2"),
    ],
)
def test_what_has_no_integers_is_refused_before_training(tmp_path, changes, error, message, hint):
    def never(_):
        raise AssertionError("it trained")

    with pytest.raises(error) as caught:
        train(tiny(tmp_path / "m.pt", **changes), progress=never)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_currents_that_the_host_adds_up_keep_their_weights_in_float(tmp_path):
    result = train(tiny(tmp_path / "m.pt", qat=LOIHI, bits=3, coding="direct"))
    qnet = quantize(fold(network_of(read_ticket(result.path))), LOIHI, bits=3)
    assert [r.projection for r in qnet.tensors] == ["fc2", "fc3"]
    assert all(r.max_error < 1e-6 * r.max_abs for r in qnet.tensors)
    first = read_ticket(result.path).state["fc1.weight"]
    assert len(np.unique(first)) > 50
    # They are trained all the same.
    model = lively("mlp")
    view = view_of(model, "mlp", Grid(arithmetic=LOIHI, bits=3), CODING | {"kind": "direct"})
    view(torch.rand(6, 10, 64, generator=torch.Generator().manual_seed(3))).sum().backward()
    assert all(bool((p.grad != 0).any()) for p in model.parameters())


def test_weights_behind_values_that_events_carry_are_on_the_grid_too(tmp_path):
    result = train(tiny(tmp_path / "m.pt", qat=FPGA, bits=4, coding="direct"))
    qnet = quantize(fold(network_of(read_ticket(result.path))), FPGA, bits=4)
    assert qnet.levels["input"] > 1
    assert [r.projection for r in qnet.tensors] == ["fc1", "fc2", "fc3"]
    assert all(r.max_error < 1e-6 * r.max_abs for r in qnet.tensors)
    assert len(np.unique(read_ticket(result.path).state["fc1.weight"])) <= 15


def test_weights_that_do_not_settle_are_told(monkeypatch):
    monkeypatch.setattr(qat, "same_integers", lambda *_: False)
    view = view_of(lively("mlp"), "mlp", Grid(arithmetic=ARITHMETICS["loihi"], bits=4))
    with pytest.raises(InputError) as caught:
        view.settle()
    assert caught.value.message == "the weights do not settle on the integers' grid"
    assert caught.value.used == "4 bits, 10 roundings"
    assert caught.value.hint == "use more bits, or a smaller learning rate"


def test_a_scale_that_its_state_bounds_settles_too():
    # Little headroom: the scale follows the weights' sums, which rounding changes.
    narrow = replace(LOIHI, state_max=1 << 14, state_min=-(1 << 14))
    model, grid = lively("mlp"), Grid(arithmetic=narrow, bits=8)
    view = view_of(model, "mlp", grid)
    settled = view.settle()
    assert any(r.saturated == 0 and r.scale < 0.9 * 254 / r.max_abs for r in settled.tensors)
    assert same_integers(settled, view.quantized())
    np.testing.assert_array_equal(
        dense(learned_of(integers_of(model, "mlp", grid).network.projections[0])),
        dense(learned_of(settled.network.projections[0])),
    )
