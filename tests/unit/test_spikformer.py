"""The spiking transformer: what deploys is what was trained, and dropped tokens are silent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import snn_deploy  # noqa: E402
from snn_deploy.backends.prepare import prepare  # noqa: E402
from snn_deploy.backends.registry import target as find_target  # noqa: E402
from snn_deploy.backends.verify import verify  # noqa: E402
from snn_deploy.engine.count import Counter  # noqa: E402
from snn_deploy.engine.event import EventEngine  # noqa: E402
from snn_deploy.errors import UsageError  # noqa: E402
from snn_deploy.frontends.load import LoadOptions, NirOptions  # noqa: E402
from snn_deploy.io.nir_read import read_nir  # noqa: E402
from snn_deploy.ir.network import Coding  # noqa: E402
from snn_deploy.ir.synapses import weights_of  # noqa: E402
from snn_deploy.tickets import pruning  # noqa: E402
from snn_deploy.tickets.arch import module_from_arch  # noqa: E402
from snn_deploy.tickets.models.build import build  # noqa: E402
from snn_deploy.tickets.models.spikformer import ProjectionNet  # noqa: E402
from tests.spikformers import SHAPE, STEPS, samples, small, spikes_of  # noqa: E402

HELPERS = {"agree", "attend", "sum", "spread", "pick"}


def network(model):
    example = torch.zeros(1, *SHAPE)
    return snn_deploy.fold(snn_deploy.from_torch(model.deployed(), example))


def frames(x):
    return np.ascontiguousarray(x.movedim(0, 1).numpy().astype(np.uint8))


def test_what_deploys_spikes_as_what_was_trained():
    model = small(hidden=(8, 2)).double()
    x, _ = samples(model, 16, 1)
    trained, deployed = spikes_of(model, x.double()), spikes_of(model.deployed(), x.double())
    found = EventEngine(network(model)).run(frames(x), "spikes").spikes
    lifs = [name for name in trained if "lif" in name or name.endswith("mask")]
    assert len(lifs) == 2 + 2 * 7 + 1
    for name in lifs:
        assert 0 < trained[name].mean() < 1, name
        assert torch.equal(trained[name], deployed[name]), name
        ours = torch.from_numpy(found[name]).movedim(0, 1)
        assert torch.equal(trained[name].reshape(ours.shape), ours.double()), name
    assert set(deployed) - set(trained) == {
        "keep.neuron",
        *(f"blocks.{i}.{part}.neuron" for i in (0, 1) for part in ("agree", "attend")),
    }


def test_training_reaches_every_weight_and_the_keep_plane_hides_dropped_tokens():
    model = small()
    x, kept = samples(model, 8, 2)
    model.train()
    model(x).sum().backward()
    for name, weight in pruning.prunable(model).items():
        assert weight.grad.abs().sum() > 0, name
    model.eval()
    for name, spikes in spikes_of(model, x).items():
        if spikes.shape[-2:] == kept.shape[-2:]:
            assert not spikes.movedim(2, -1)[:, ~kept].any(), name
    # What a dropped patch would have shown changes nothing: its pixels are never sent.
    assert not x.movedim(2, -1)[:, ~kept.repeat_interleave(2, 1).repeat_interleave(2, 2)].any()


def test_dropped_tokens_cost_nothing():
    model = small()
    net = network(model)
    empty = frames(samples(model, 4, 3, share=0.0)[0])
    trace = EventEngine(net).run(empty, "spikes")
    events = Counter(net).count(trace)
    assert not any(s.any() for s in trace.spikes.values())
    done = [
        n for (_, event), n in events.items() if event.startswith("synops") and "dense" not in event
    ]
    assert done
    assert not any(done)


def test_operations_fall_with_the_tokens():
    model = small()
    net = network(model)
    token_layers = [p.name for p in net.projections if not p.helper and p.name != "head.fc"]
    counted = {}
    for share in (1.0, 0.5):
        events = Counter(net).count(
            EventEngine(net).run(frames(samples(model, 64, 4, share=share)[0]), "spikes")
        )
        stem = [p for p in token_layers if p.startswith("stem")]
        counted[share] = sum(events[p, "synops_effective"] for p in stem)
    # The stem sees each token alone, so its work is that of the tokens that are left.
    kept = float(samples(model, 64, 4, share=0.5)[1].float().mean())
    assert counted[0.5] / counted[1.0] == pytest.approx(kept, abs=0.05)


def test_structure_counts_as_helpers_and_what_was_learned_does_not():
    net = network(small())
    for p in net.projections:
        parts = set(p.name.split("."))
        structural = bool(parts & HELPERS) or "-" in p.name
        assert p.helper == structural, p.name
    by_name = {p.name: p for p in net.projections}
    assert net.population("blocks.0.agree.neuron").neuron.threshold == 1.5
    assert net.population("keep.neuron").neuron.threshold == 0.5
    assert by_name["stem.lif2-blocks.0.lif_attention"].helper
    token_layers = (p for p in net.projections if not p.helper and p.name != "head.fc")
    assert all(s.bias is None for p in token_layers for s in p.synapses)


@pytest.mark.parametrize("target_name", ["cpu", "fpga", "loihi"])
def test_every_target_runs_it(target_name):
    model = small()
    target = find_target(target_name)
    program = prepare(network(model), target)
    verdict = verify(target, program, frames(samples(model, 3, 5)[0]), None, None)
    assert verdict.equal
    if verdict.fidelity is not None:
        assert verdict.fidelity.equal_spikes > 0.8


# The nir package refuses what spreads a mask over a grid that is not square; we read it.
@pytest.mark.filterwarnings("ignore:.*the nir package infers a wrong shape")
@pytest.mark.parametrize("shape", [SHAPE, (2, 8, 12)])
def test_a_round_trip_through_nir(shape, tmp_path):
    model = small(shape=shape)
    net = snn_deploy.fold(snn_deploy.from_torch(model.deployed(), torch.zeros(1, *shape)))
    snn_deploy.save_nir(net, tmp_path / "m.nir")
    again = snn_deploy.fold(read_nir(tmp_path / "m.nir"))
    assert [(p.name, p.helper) for p in again.projections] == [
        (p.name, p.helper) for p in net.projections
    ]
    x = frames(samples(model, 16, 6, shape=shape)[0])
    first, second = EventEngine(net).run(x, "spikes"), EventEngine(again).run(x, "spikes")
    assert first.output.any()
    for name, spikes in first.spikes.items():
        assert np.array_equal(spikes, second.spikes[name]), name


def test_the_nir_package_reads_what_a_square_grid_gives(tmp_path):
    nir = pytest.importorskip("nir")
    snn_deploy.save_nir(network(small()), tmp_path / "m.nir")
    kinds = [type(node).__name__ for node in nir.read(tmp_path / "m.nir").nodes.values()]
    assert {"Conv2d", "LIF", "Threshold", "SumPool2d"} <= set(kinds)


def test_masks_of_training_stay():
    model = small()
    masks = pruning.global_magnitude(pruning.prunable(model), 0.5)
    with torch.no_grad():
        for name, weight in pruning.prunable(model).items():
            weight.mul_(masks[name])
    net = network(model)
    for name, mask in masks.items():
        projection = next(p for p in net.projections if f"{p.name}.weight" == name)
        (weight,) = [w for w in map(weights_of, projection.synapses) if w is not None]
        if weight.ndim == 4:  # the keep channel, where there is one, comes last
            weight = weight[:, : mask.shape[1]]
        assert np.count_nonzero(weight) == int(mask.sum()), name


def test_the_stem_has_a_head_of_its_own_for_its_connection_ticket():
    model = small()
    alone = ProjectionNet(model)
    x, _ = samples(model, 2, 7)
    assert alone(x).shape == (STEPS, 2, 4)
    shared = {n for n, p in alone.named_parameters() if any(p is q for q in model.parameters())}
    assert shared == {n for n, _ in alone.named_parameters() if n.startswith("stem.")}


@pytest.mark.parametrize(
    ("shape", "patch", "padding", "grid"),
    [
        ((2, 8, 8), 2, (0, 0), (4, 4)),
        ((2, 28, 28), 4, (0, 0), (7, 7)),
        ((3, 34, 34), 4, (1, 1), (9, 9)),
        ((4, 32, 32), 4, (0, 0), (8, 8)),
    ],
)
def test_patches_by_size(shape, patch, padding, grid):
    model = build("spikformer-tiny", shape, 10, hidden=(4, 1))
    assert (model.patch, model.padding, model.grid) == (patch, padding, grid)
    assert model(torch.zeros(1, 2, *shape)).shape == (1, 2, 10)


@pytest.mark.parametrize(
    ("shape", "hidden", "message", "hint"),
    [
        ((64,), (8, 1), "the last channel the keep channel", "with_keep_channel"),
        ((1, 8, 8), (8, 1), "the last channel the keep channel", "with_keep_channel"),
        ((2, 8, 8), (8,), "takes two sizes", "hidden=(64, 2)"),
        ((2, 27, 28), (8, 1), "do not tile", "pad the samples"),
    ],
)
def test_what_makes_no_transformer(shape, hidden, message, hint):
    with pytest.raises(UsageError, match=message) as caught:
        build("spikformer-tiny", shape, 4, hidden=hidden)
    assert hint in caught.value.hint


def test_a_state_dict_of_a_transformer_is_read_as_it_is_deployed(tmp_path):
    model = build("spikformer-tiny", (2, 8, 8), 10, hidden=(8, 1)).eval()
    torch.save(model.state_dict(), tmp_path / "m.pt")
    nir = NirOptions(coding=Coding(kind="rate", steps=4))
    options = LoadOptions(
        arch="spikformer-tiny", input_shape=(2, 8, 8), resolve=module_from_arch, nir=nir
    )
    found = snn_deploy.load_model(tmp_path / "m.pt", options)
    assert found.population("stem.lif2").shape == (8, 4, 4)
    with pytest.raises(UsageError, match="do not tell the size of its images"):
        snn_deploy.load_model(tmp_path / "m.pt", replace(options, input_shape=None))
