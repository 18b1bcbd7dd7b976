"""The published networks: their sizes, small ones trained and deployed, what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import snn_deploy  # noqa: E402
from snn_deploy.backends.prepare import prepare  # noqa: E402
from snn_deploy.backends.registry import target as find_target  # noqa: E402
from snn_deploy.backends.verify import verify  # noqa: E402
from snn_deploy.engine.event import EventEngine  # noqa: E402
from snn_deploy.errors import UsageError  # noqa: E402
from snn_deploy.frontends.state import ticket_from_state  # noqa: E402
from snn_deploy.io.ticket import network_of, read_ticket  # noqa: E402
from snn_deploy.ir.check import chain_shapes  # noqa: E402
from snn_deploy.ir.network import Network  # noqa: E402
from snn_deploy.ir.synapses import LEARNED, Conv2d, weights_of  # noqa: E402
from snn_deploy.tickets import pruning  # noqa: E402
from snn_deploy.tickets.arch import module_from_arch  # noqa: E402
from snn_deploy.tickets.lif import LIF  # noqa: E402
from snn_deploy.tickets.models.build import PUBLISHED, build  # noqa: E402

# Small images that leave something of every pool and stride, and a small width.
SMALL = {"vgg9": (1, 9, 8), "vgg16": (2, 16, 18), "resnet19": (3, 8, 12)}
STEPS, BATCH, CLASSES = 4, 12, 4


def small(arch: str, **changes) -> nn.Module:
    torch.manual_seed(0)
    return build(arch, SMALL[arch], CLASSES, **({"hidden": (4,), "v_threshold": 0.3} | changes))


def spikes_for(arch: str) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    return (torch.rand(STEPS, BATCH, *SMALL[arch], generator=draw) < 0.4).float()


def step_of_training(model: nn.Module, x: torch.Tensor) -> None:
    """One step on labels, then enough batches for the batch norms' statistics to settle."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    labels = torch.arange(BATCH) % CLASSES
    nn.functional.cross_entropy(model(x).sum(0), labels).backward()
    optimizer.step()
    with torch.no_grad():
        for _ in range(30):
            model(x)
    model.eval()


def macs_by_projection(net: Network) -> dict[str, int]:
    """Return the learned products of one step, those with padding included."""
    found: dict[str, int] = {}
    for projection in net.projections:
        shapes = chain_shapes(net, projection)
        for synapse, shape in zip(projection.synapses, shapes[1:], strict=True):
            if isinstance(synapse, LEARNED):
                places = math.prod(shape[1:]) if isinstance(synapse, Conv2d) else 1
                found[projection.name] = weights_of(synapse).size * places
    return found


@pytest.mark.parametrize(
    ("arch", "weights", "macs"),
    [
        ("vgg16", 14_715_584, 313.2),
        ("resnet19", 12_619_968, 555.6),
        # Published is the number of weights alone, as 2.26 million.
        ("vgg9", 2_259_904, 191.0),
    ],
)
def test_sizes_are_the_published_ones(arch, weights, macs):
    model = build(arch, (3, 32, 32), 10).eval()
    assert sum(p.numel() for p in pruning.prunable(model).values()) == weights
    net = snn_deploy.fold(snn_deploy.from_torch(model, torch.zeros(1, 3, 32, 32)))
    by_projection = macs_by_projection(net)
    assert round(sum(by_projection.values()) / 1e6, 1) == macs
    assert round(by_projection["conv1"] / 1e6, 2) == 1.77
    learned = [w for p in net.projections if not p.helper for w in map(weights_of, p.synapses)]
    assert sum(w.size for w in learned if w is not None) == weights
    assert net.output_population.shape == (10,)


def test_layers_that_give_the_names():
    kinds = {
        arch: [type(m).__name__ for m in build(arch, (3, 32, 32), 10, hidden=(2,)).modules()]
        for arch in PUBLISHED
    }
    assert (kinds["vgg9"].count("Conv2d"), kinds["vgg9"].count("Linear")) == (7, 2)
    assert (kinds["vgg16"].count("Conv2d"), kinds["vgg16"].count("Linear")) == (13, 1)
    # 17 convolutions and two linear layers, beside the three of the shortcuts.
    assert (kinds["resnet19"].count("Conv2d"), kinds["resnet19"].count("Linear")) == (17 + 3, 2)


@pytest.mark.parametrize("arch", PUBLISHED)
def test_neurons_are_the_papers(arch):
    lifs = [m for m in build(arch, (3, 32, 32), 10, hidden=(2,), dt_s=2e-3).modules()
            if isinstance(m, LIF)]  # fmt: skip
    assert lifs
    for lif in lifs:
        keep, gain, offset = lif.coefficients()
        assert (keep, gain, offset) == (pytest.approx(0.25), pytest.approx(0.75), 0.0)
        assert (lif.v_threshold, lif.reset, lif.v_reset) == (1.0, "value", 0.0)


@pytest.mark.parametrize("arch", PUBLISHED)
def test_a_small_one_trains_and_the_engine_repeats_every_spike(arch, tmp_path):
    model, x = small(arch), spikes_for(arch)
    before = {name: p.detach().clone() for name, p in pruning.prunable(model).items()}
    step_of_training(model, x)
    for name, weight in pruning.prunable(model).items():
        assert not torch.equal(weight, before[name]), name  # a gradient reaches every layer
    example = torch.zeros(1, *SMALL[arch])
    path = snn_deploy.save_ticket(model, tmp_path / "m.pt", example_input=example)
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, LIF):
            module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        model.double()(x.double())
    net = snn_deploy.fold(network_of(read_ticket(path)))
    found = EventEngine(net).run(x.movedim(0, 1).numpy(), "spikes").spikes
    assert len(seen) > 8
    for name, spikes in seen.items():
        assert np.array_equal(found[name], spikes.movedim(0, 1).numpy()), name
        assert 0 < spikes.mean() < 1, name


@pytest.mark.parametrize("target_name", ["fpga", "loihi"])
@pytest.mark.parametrize("arch", PUBLISHED)
def test_a_small_one_runs_in_integers(arch, target_name):
    model, x = small(arch), spikes_for(arch)
    step_of_training(model, x)
    net = snn_deploy.from_torch(model, torch.zeros(1, *SMALL[arch]), coding="events")
    target = find_target(target_name)
    program = prepare(snn_deploy.fold(net), target)
    verdict = verify(target, program, x.movedim(0, 1)[:3].numpy().astype(np.uint8), None, None)
    assert verdict.equal
    assert verdict.fidelity is not None
    assert verdict.fidelity.equal_spikes > 0.5


def test_residual_spikes_are_unit_currents_into_the_neuron():
    model = small("resnet19")
    net = snn_deploy.fold(snn_deploy.from_torch(model.eval(), torch.zeros(1, *SMALL["resnet19"])))
    into = {p.pre: p.synapses for p in net.into("block1_2.lif2")}
    assert set(into) == {"block1_2.main.lif1", "block1_1.lif2"}
    assert [type(s).__name__ for s in into["block1_1.lif2"]] == ["Identity"]
    changed = {p.pre: p.synapses for p in net.into("block2_1.lif2")}
    assert changed["block1_3.lif2"][0].weight.shape == (16, 8, 1, 1)


@pytest.mark.parametrize(
    ("arch", "shape", "layer", "features"),
    [
        ("vgg9", (1, 8, 8), "fc1", 8 * 1 * 1),
        ("vgg9", (1, 28, 28), "fc1", 8 * 3 * 3),
        ("vgg9", (2, 34, 34), "fc1", 8 * 4 * 4),
        ("vgg16", (1, 28, 28), "fc", 16 * 1 * 1),
        ("vgg16", (3, 32, 40), "fc", 16 * 1 * 1),
        ("vgg16", (2, 64, 96), "fc", 16 * 2 * 3),
        ("resnet19", (1, 28, 28), "fc1", 16),
    ],
)
def test_images_of_other_sizes(arch, shape, layer, features):
    model = build(arch, shape, 10, hidden=(2,))
    assert getattr(model, layer).in_features == features
    assert model(torch.zeros(2, 1, *shape)).shape == (2, 1, 10)


@pytest.mark.parametrize(
    ("arch", "shape", "smallest"),
    [("vgg9", (1, 8, 7), 8), ("vgg16", (1, 15, 40), 16), ("resnet19", (64,), 8)],
)
def test_samples_that_are_too_small(arch, shape, smallest):
    with pytest.raises(UsageError, match=f"{arch} .* H and W of {smallest} or more") as caught:
        build(arch, shape, 10)
    assert str(shape) in caught.value.used
    assert "--arch conv" in caught.value.hint


@pytest.mark.parametrize("hidden", [(), (8, 16), (0,)])
def test_widths_that_make_no_sense(hidden):
    with pytest.raises(UsageError, match="resnet19 takes one width") as caught:
        build("resnet19", (3, 32, 32), 10, hidden=hidden)
    assert str(hidden) in caught.value.used
    assert "hidden=(64,)" in caught.value.hint


@pytest.mark.parametrize("arch", PUBLISHED)
def test_a_state_dict_finds_its_network(arch):
    shape = (2, 16, 16)
    state = {k: v.numpy() for k, v in build(arch, shape, 7, hidden=(3,)).state_dict().items()}
    if arch != "vgg9":
        with pytest.raises(UsageError, match=f"{arch} do not tell the size") as caught:
            module_from_arch(arch, state)
        assert "--input-shape" in caught.value.hint
    rebuilt, example = module_from_arch(arch, state, None if arch == "vgg9" else shape)
    assert example.shape == (1, *shape)
    ticket = ticket_from_state(state, rebuilt, example_input=example)
    assert network_of(ticket).output_population.shape == (7,)
