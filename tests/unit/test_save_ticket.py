"""save_ticket, plain state_dicts with their architecture, and masks in all their forms."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402

from snn_deploy.errors import InputError, OutputError, UnsupportedError, UsageError  # noqa: E402
from snn_deploy.frontends.state import (  # noqa: E402
    module_from_file,
    save_ticket,
    ticket_content,
    ticket_from_state,
)
from snn_deploy.io.ticket import network_of, read_ticket  # noqa: E402
from snn_deploy.ir.network import Readout, Source  # noqa: E402
from snn_deploy.tickets.arch import module_from_arch  # noqa: E402
from snn_deploy.tickets.lif import LIF  # noqa: E402
from snn_deploy.tickets.models.build import build  # noqa: E402

X = torch.zeros(1, 6)


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), LIF(), nn.Linear(5, 2, bias=False), LIF())


@pytest.mark.parametrize(
    "readout",
    [
        {"kind": "count", "cutoff": [3, 2.5, float("inf")]},
        {"cutoff": np.array([3, 2.5, np.inf], np.float32)},
        {"cutoff": (3, 2.5, None)},
        Readout(cutoff=(3.0, 2.5, float("inf"))),
    ],
)
def test_a_cutoff_table_is_carried(tmp_path, readout):
    path = save_ticket(net(), tmp_path / "m.pt", example_input=X, readout=readout)
    assert torch.load(path, weights_only=True)["graph"]["readout"]["cutoff"] == [3.0, 2.5, None]
    assert network_of(read_ticket(path)).readout == Readout(cutoff=(3.0, 2.5, float("inf")))


def test_a_cutoff_that_is_no_table_is_not_saved(tmp_path):
    for cutoff in (3, [1, "2"], [True]):
        with pytest.raises(InputError, match="a cutoff must be a list of thresholds"):
            save_ticket(net(), tmp_path / "m.pt", example_input=X, readout={"cutoff": cutoff})
    assert not (tmp_path / "m.pt").exists()


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {k: v.detach().numpy().copy() for k, v in module.state_dict().items()}


def test_a_ticket_on_disk_reads_back_with_our_own_reader(tmp_path):
    module = build("conv", (1, 8, 8), 10, hidden=(3, 4))
    path = save_ticket(
        module,
        tmp_path / "m.pt",
        example_input=torch.zeros(1, 1, 8, 8),
        coding={"kind": "rate", "steps": 8, "seed": 3},
        readout={"kind": "vote", "groups": 5},
        meta={"accuracy": 0.5},
    )
    ticket = read_ticket(path)
    assert set(ticket.state) == set(module.state_dict())
    for key, value in module.state_dict().items():
        np.testing.assert_array_equal(ticket.state[key], value.numpy())
    network = network_of(ticket)
    assert network.readout.groups == 5
    assert network.coding.seed == 3
    assert network.dt_s == 1e-3
    assert ticket.meta == {"accuracy": 0.5}
    content = torch.load(path, weights_only=True)
    assert content["format"] == "snn-deploy/ticket"
    assert content["version"] == 1


def test_the_same_module_gives_the_same_bytes(tmp_path):
    for name in ("a.pt", "b.pt"):
        save_ticket(net(), tmp_path / name, example_input=X)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_an_existing_file_is_kept_without_force(tmp_path):
    path = tmp_path / "m.pt"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="--force"):
        save_ticket(net(), path, example_input=X)
    assert path.read_bytes() == b"mine"
    save_ticket(net(), path, example_input=X, force=True)
    assert list(tmp_path.iterdir()) == [path]
    assert len(path.read_bytes()) > 100


def test_without_masks_the_zeros_are_the_mask():
    module = net()
    with torch.no_grad():
        module[0].weight[:, ::2] = 0
    content = ticket_content(module, example_input=X)
    assert set(content["masks"]) == {"0.weight", "2.weight"}
    assert torch.equal(content["masks"]["0.weight"], module[0].weight != 0)
    assert content["masks"]["0.weight"].sum() == 15


@pytest.mark.parametrize("name", ["0.weight", "0"])
@pytest.mark.parametrize("kind", [torch.bool, torch.float32, np.int64], ids=str)
def test_given_masks_by_parameter_or_module_name(name, kind):
    module = net()
    mask = torch.ones(5, 6, dtype=torch.bool)
    mask[1] = False
    given = mask.numpy().astype(kind) if kind is np.int64 else mask.to(kind)
    content = ticket_content(module, example_input=X, masks={name: given})
    assert torch.equal(content["masks"]["0.weight"], mask)
    assert torch.equal(content["state"]["0.weight"], module[0].weight.detach() * mask)
    assert content["masks"]["2.weight"].all()
    assert (module[0].weight[1] != 0).all()  # the module itself is left alone


def test_masks_always_agree_with_the_nonzeros():
    module = net()
    with torch.no_grad():
        module[0].weight[0, 0] = 0
    content = ticket_content(module, example_input=X, masks={"0": torch.ones(5, 6)})
    assert not content["masks"]["0.weight"][0, 0]
    assert content["masks"]["0.weight"].sum() == 29


def test_one_mask_serves_all_uses_of_shared_weights():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight
            self.la, self.lb = LIF(), LIF()

        def forward(self, x):
            return self.lb(self.b(self.la(self.a(x))))

    mask = torch.zeros(4, 4)
    mask[0] = 1
    content = ticket_content(Tied(), example_input=torch.zeros(1, 4), masks={"a.weight": mask})
    assert torch.count_nonzero(content["state"]["a.weight"]) == 4
    assert torch.count_nonzero(content["state"]["b.weight"]) == 4


@pytest.mark.parametrize(
    ("masks", "where", "words"),
    [
        ({"0": torch.ones(6, 5)}, "0", r"\[6, 5\], expected \[5, 6\]"),
        ({"0": torch.full((5, 6), 0.5)}, "0", "0 and 1 only.*30 of 30"),
        ({"2": torch.full((2, 5), float("nan"))}, "2", "0 and 1 only"),
        ({"0.weigth": torch.ones(5, 6)}, "0.weigth", "did you mean '0.weight'"),
        ({"0.bias": torch.ones(5)}, "0.bias", "no weight called '0.bias'"),
    ],
    ids=["shape", "scores", "nan", "typo", "bias"],
)
def test_masks_that_do_not_fit(masks, where, words):
    with pytest.raises(InputError, match=f"(?s){words}") as caught:
        ticket_content(net(), example_input=X, masks=masks)
    assert caught.value.where == f"masks -> {where}"


@pytest.mark.parametrize("key", ["0.weight", "0.bias"])
def test_nan_is_refused_and_nothing_is_written(tmp_path, key):
    module = net()
    with torch.no_grad():
        dict(module.named_parameters())[key].view(-1)[0] = float("nan")
    with pytest.raises(InputError, match="smaller learning rate") as caught:
        save_ticket(module, tmp_path / "m.pt", example_input=X)
    assert caught.value.where == key
    assert list(tmp_path.iterdir()) == []


def test_meta_is_json_and_half_precision_becomes_float32():
    with pytest.raises(UsageError, match="meta is not JSON"):
        ticket_content(net(), example_input=X, meta={"weights": torch.ones(2)})
    module = net().to(torch.bfloat16)
    content = ticket_content(module, example_input=X.to(torch.bfloat16))
    assert content["state"]["0.weight"].dtype == torch.float32
    assert torch.equal(content["state"]["0.weight"], module[0].weight.detach().float())


def test_torch_prune_is_merged_with_its_masks():
    module = net()
    prune.l1_unstructured(module[0], "weight", amount=20)
    prune.random_unstructured(module[2], "weight", amount=3)
    content = ticket_content(module, example_input=X)
    assert content["masks"]["0.weight"].sum() == 10
    assert torch.equal(content["masks"]["0.weight"], module[0].weight_mask.bool())
    assert torch.equal(content["state"]["0.weight"], module[0].weight.detach())
    # The same as a plain state_dict, into a module that was never pruned.
    ticket = ticket_from_state(arrays(module), net(seed=1), example_input=X)
    np.testing.assert_array_equal(ticket.masks["0.weight"], module[0].weight_mask.numpy() == 1)
    np.testing.assert_array_equal(ticket.state["0.weight"], module[0].weight.detach().numpy())


def test_a_parametrized_weight_is_refused():
    module = net()
    parametrizations.weight_norm(module[0])
    with pytest.raises(UnsupportedError, match="remove_parametrizations") as caught:
        ticket_content(module, example_input=X)
    assert caught.value.where == "0"


def test_a_plain_state_dict_into_its_module():
    saved = net(seed=1)
    ticket = ticket_from_state(
        arrays(saved), net(seed=2), example_input=X, coding="rate", source=Source(path="w.pt")
    )
    np.testing.assert_array_equal(ticket.state["2.weight"], saved[2].weight.detach().numpy())
    assert ticket.source.path == "w.pt"
    assert network_of(ticket).coding.kind == "rate"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("0.bias"), "missing 0.bias; unexpected none"),
        (lambda s: s.update(extra=np.zeros(2)), "missing none; unexpected extra"),
        (lambda s: s.update({"0.bias": np.zeros(7)}), r"0.bias \[7\], expected \[5\]"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_every_key_must_match(change, words):
    state = arrays(net())
    change(state)
    with pytest.raises(InputError, match=words) as caught:
        ticket_from_state(state, net(), example_input=X, source=Source(path="w.pt"))
    assert caught.value.where == "w.pt"
    assert caught.value.hint


def test_a_wrapped_state_dict_gets_the_right_hint():
    state = {f"module.{k}": v for k, v in arrays(net()).items()}
    with pytest.raises(InputError, match=r"strip the prefix 'module.'"):
        ticket_from_state(state, net(), example_input=X)


@pytest.mark.parametrize("arch", ["mlp", "conv", "recurrent"])
def test_built_in_architectures_take_their_sizes_from_the_state_dict(arch):
    shape = (2, 8, 8) if arch == "conv" else (9,)
    module = build(arch, shape, 7, hidden=(5, 3))
    state = arrays(module)
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    rebuilt, example = module_from_arch(arch, state)
    assert example.shape == (1, *shape)
    ticket = ticket_from_state(state, rebuilt, example_input=example)
    assert network_of(ticket).output_population.shape == (7,)
    with pytest.raises(InputError, match=r"FILE.py:FACTORY"):
        module_from_arch(arch, {"some.weight": np.zeros((2, 2))})


ARCH = """
import torch
from torch import nn
from neighbour import WIDTH
from snn_deploy.tickets.lif import LIF
def make():
    return nn.Sequential(nn.Linear(6, WIDTH), LIF()), torch.zeros(1, 6)
def bare():
    return nn.Sequential(nn.Linear(6, WIDTH), LIF())
def fails():
    raise RuntimeError("no such size")
def number():
    return 3
"""


def test_an_architecture_file_of_ones_own(tmp_path):
    (tmp_path / "neighbour.py").write_text("WIDTH = 4\n")
    file = tmp_path / "arch.py"
    file.write_text(ARCH)
    module, example = module_from_arch(f"{file}:make")
    assert module[0].out_features == 4
    assert example.shape == (1, 6)
    assert module_from_arch(f"{file}:bare", input_shape=(6,))[1].shape == (1, 6)
    assert module_from_file(f"{file}:bare")[1] is None
    with pytest.raises(UsageError, match=r"return .module, example_input."):
        module_from_arch(f"{file}:bare")
    for name, words in (("fails", "no such size"), ("number", "returned int"), ("x", "bare")):
        with pytest.raises(InputError, match=words):
            module_from_arch(f"{file}:{name}")
    with pytest.raises(InputError, match="no such architecture file"):
        module_from_arch(f"{tmp_path / 'none.py'}:make")
    for spec in ("resnet", f"{file}", "arch.txt:make"):
        with pytest.raises(UsageError, match=r"FILE.py:FACTORY"):
            module_from_arch(spec)
