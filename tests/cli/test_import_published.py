"""``snn-deploy import --format``: files in the layouts of published codes become tickets that
compute what their modules compute, and everything that does not fit is said.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from spikingjelly.activation_based import functional
from torch import nn

import snn_deploy
from snn_deploy.errors import UsageError
from snn_deploy.tickets.qcfs import QCFS
from tests.cli.helpers import listing, run_cli

ARCH = """
from spikingjelly.activation_based import neuron
from torch import nn, zeros
from snn_deploy.tickets.models.layers import TimeSequential
from snn_deploy.tickets.qcfs import QCFS

def net():
    lif = lambda: neuron.LIFNode(tau=4/3)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), lif(),
                         nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), lif(),
                         nn.Flatten(), nn.Linear(144, 5), lif()), zeros(1, 1, 6, 6)

def swapped():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.b, self.a = nn.Linear(4, 4), nn.Linear(4, 4)
            self.lif = neuron.LIFNode()
        def forward(self, x):
            return self.lif(self.b(self.a(x)))
    return Net(), zeros(1, 4)

def qcfs():
    block = TimeSequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), QCFS(), nn.AvgPool2d(2))
    return TimeSequential(block, TimeSequential(nn.Flatten(), nn.Linear(12, 4))), zeros(1, 1, 6, 6)
"""
HOW = ("--arch", "arch.py:net", "--dt", 1e-3)


def built(name: str) -> nn.Module:
    """Return the module of a factory in ARCH."""
    space: dict = {}
    exec(ARCH, space)
    return space[name]()[0].eval()


def trained() -> nn.Module:
    """Return the net with weights and statistics as after training, and 70 % zeros."""
    torch.manual_seed(3)
    net = built("net")
    for part in net:
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
            part.weight.data.uniform_(0.8, 1.6)
    for name, weight in net.named_parameters():
        if weight.ndim == 1 and "bias" in name:
            weight.data.uniform_(0, 0.8)
        if "weight" in name and weight.ndim > 1:
            weight.data.mul_(8).mul_(torch.rand_like(weight) < 0.3)
    return net


def masks_of(net: nn.Module) -> list[np.ndarray]:
    """Return the masks as that code dumps them: floats, batch norm among them as ones."""
    return [
        (p.detach() != 0).float().numpy() if p.ndim > 1 else np.ones(p.shape, np.float32)
        for name, p in net.named_parameters()
        if "weight" in name
    ]


def spikes_of(net: nn.Module, x: np.ndarray) -> np.ndarray:
    """Return (samples, steps, classes) of the module's own forward, step by step."""
    functional.reset_net(net)
    with torch.no_grad():
        return torch.stack([net(s) for s in torch.tensor(x).transpose(0, 1)], 1).numpy()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arch.py").write_text(ARCH)
    rng = np.random.default_rng(0)
    np.savez("x.npz", x=(rng.random((6, 8, 1, 6, 6)) < 0.4).astype("f4"))
    return tmp_path


def dump(value: object, path: str = "masks.pkl") -> None:
    """Write a plain pickle."""
    with open(path, "wb") as file:
        pickle.dump(value, file)


def imported(*arguments: object) -> dict:
    """Import with the net's architecture and return the report."""
    ran = run_cli("import", *arguments, "--json", "-")
    assert ran.code == 0, ran.err
    return ran.json


def assert_computes(net: nn.Module, model: str = "out.pt") -> None:
    """Run the file on the cpu target and compare every output spike with the module's."""
    ran = run_cli("run", model, "-t", "cpu", "-i", "x.npz", "--trace", "trace.npz", "--force")
    assert ran.code == 0, ran.err
    expected = spikes_of(net, np.load("x.npz")["x"])
    found = np.load("trace.npz")["8"]
    assert 0.02 < expected.mean() < 0.98
    np.testing.assert_array_equal(found, expected)


def fails(code: int, *arguments: object) -> dict:
    """Import, which must fail, print no traceback and write nothing; return the error."""
    before = listing(Path.cwd())
    ran = run_cli("import", *arguments, "--json", "-")
    assert ran.code == code, ran.err
    assert listing(Path.cwd()) == before
    return json.loads(ran.out)["error"]


@pytest.mark.parametrize("wrapper", ["", "state_dict", "model_state_dict", "model", "net"])
def test_plain_state_dicts_alone_and_in_checkpoints(here, wrapper):
    net = trained()
    state = net.state_dict()
    torch.save({wrapper: state, "epoch": 3, "best_acc": 0.9} if wrapper else state, "w.pth.tar")
    found = imported("w.pth.tar", "-o", "out.pt", "--format", "plain", *HOW)
    zeros = sum(int((p == 0).sum()) for n, p in net.named_parameters() if p.ndim > 1)
    assert found["weights"] - found["nonzeros"] == zeros
    assert found["model"]["nonzeros"] == found["nonzeros"], "folding batch norm keeps zeros"
    assert [layer["shape"] for layer in found["layers"]] == [[4, 1, 3, 3], [4, 4, 3, 3], [5, 144]]
    note = f"the state_dict stands under {wrapper!r}; not used: epoch, best_acc"
    assert (note in found["notes"]) == bool(wrapper)
    assert_computes(net)


def test_safetensors_and_graphs(here):
    net = trained()
    save_file(net.state_dict(), "w.safetensors")
    imported("w.safetensors", "-o", "out.nir", "--format", "gradr", *HOW)
    assert_computes(net, "out.nir")


def test_a_report_for_people(here):
    torch.save(trained().state_dict(), "w.pt")
    ran = run_cli("import", "w.pt", "-o", "out.pt", "--format", "plain", *HOW)
    assert ran.code == 0, ran.err
    for text in ("7.weight", "5x144", "all", "as stored, before batch norm", "out.pt"):
        assert text in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_lth_masks_by_their_order(here, protocol):
    net = trained()
    masks = masks_of(net)
    dense = {
        k: torch.where(v == 0, 0.3, v) if v.ndim > 1 else v for k, v in net.state_dict().items()
    }
    torch.save(dense, "initial_state_dict.pth.tar")
    with open("masks.pkl", "wb") as file:
        pickle.dump(masks, file, protocol)
    found = imported(
        "initial_state_dict.pth.tar",
        "-o",
        "out.pt",
        "--format",
        "lth",
        "--masks",
        "masks.pkl",
        *HOW,
    )
    kept = int(sum(m.sum() for m in masks if m.ndim > 1))
    assert found["nonzeros"] == kept == found["model"]["nonzeros"]
    removed = found["weights"] - kept
    assert f"{removed:,} weights of the file are removed by the masks" in found["notes"]
    assert_computes(net)


def test_lth_where_masks_and_zeros_disagree(here):
    net = trained()
    masks = masks_of(net)
    fc = net[7].weight.data
    kept = fc.nonzero()
    fc[tuple(kept[0])], fc[tuple(kept[1])] = 0, 1e-7
    torch.save(net.state_dict(), "w.pt")
    masks[-1][tuple(kept[2])] = 0
    dump(masks)
    ran = run_cli("import", "w.pt", "-o", "out.pt", "--format", "lth", "--masks", "masks.pkl", *HOW,
                  "--json", "-")  # fmt: skip
    assert ran.code == 0, ran.err
    assert "warning: 7.weight: the mask removes 1 weights that are alive" in ran.err
    assert "the file and the masks may be of different rounds" in ran.err
    assert ran.json["notes"] == [
        "1 weights of the file are removed by the masks",
        "1 weights that the masks keep are zero in the file, and count as removed",
        "1 weights are kept that are below 1e-06, which that code takes for pruned",
    ]
    assert ran.json["nonzeros"] == sum(int(m.sum()) for m in masks if m.ndim > 1) - 1


def _lth(change, here):
    net = trained()
    masks = masks_of(net)
    change(masks)
    torch.save(net.state_dict(), "w.pt")
    dump(masks)
    return fails(3, "w.pt", "-o", "out.pt", "--format", "lth", "--masks", "masks.pkl", *HOW)


def test_lth_lists_that_do_not_fit(here):
    error = _lth(lambda m: m.pop(), here)
    assert error["message"] == (
        "the list has another number of masks than the architecture has weights"
    )
    assert error["used"].startswith("4 masks, 5 weights: 0.weight, 1.weight")
    assert error["hint"].startswith("one mask per parameter called weight, batch norm included")
    error = _lth(lambda m: m.reverse(), here)
    assert error["message"] == "the mask has another shape than its weight"
    assert error["where"] == "masks.pkl -> 0 (0.weight)"
    error = _lth(lambda m: m[1].__setitem__(2, 0), here)
    assert error["message"].startswith("the mask of a batch norm removes values")
    assert error["where"] == "masks.pkl -> 1 (1.weight)"
    assert error["used"] == "1 of 4 removed"
    assert error["hint"].startswith("check that the list belongs to this architecture")
    error = _lth(lambda m: m[0].__setitem__((0, 0, 0, 0), 0.5), here)
    assert error["message"] == "a mask holds 0 and 1 only"


def test_lth_layers_in_another_order(here):
    state = {f"{n}.{p}": torch.ones(4, 4) if p == "weight" else torch.ones(4)
             for n in "ab" for p in ("weight", "bias")}  # fmt: skip
    dump([np.ones((4, 4), "f4")] * 2)
    torch.save(state, "w.pt")
    how = ("--format", "lth", "--masks", "masks.pkl", "--arch", "arch.py:swapped", "--dt", 1e-3)
    error = fails(3, "w.pt", "-o", "out.pt", *how)
    assert error["message"] == "the architecture has its weights in another order than the file"
    assert error["used"] == "b.weight where the file has a.weight"
    assert error["hint"].startswith("create the layers in the file's order")


def test_gradr_counts_what_that_code_takes_for_zero(here):
    net = trained()
    net[7].weight.data[0, 0] = 1e-12
    torch.save(net.state_dict(), "w.pkl")
    found = imported("w.pkl", "-o", "out.pt", "--format", "gradr", *HOW)
    assert found["notes"] == [
        "1 weights are kept that are below 1e-10, which that code takes for pruned"
    ]
    assert_computes(net)


def test_gradr_files_that_hold_no_network(here):
    optimizer = torch.optim.Adam(trained().parameters())
    torch.save(optimizer.state_dict(), "optim_w.pkl")
    error = fails(3, "optim_w.pkl", "-o", "out.pt", "--format", "gradr", *HOW)
    assert error["message"] == "this is the state of an optimizer, not of a network"
    assert error["hint"].startswith("give the file with the weights: torch.save(net.state_dict()")
    torch.save(torch.ones(3, 4), "fc.2.weight-theta-0.pkl")
    error = fails(3, "fc.2.weight-theta-0.pkl", "-o", "out.pt", "--format", "gradr", *HOW)
    assert error["used"] == "one tensor of shape [3, 4]"
    assert (
        "alone or under one of the keys state_dict, model_state_dict, model, net" in error["hint"]
    )
    torch.save({"model": net_state(), "net": net_state()}, "two.pt")
    error = fails(3, "two.pt", "-o", "out.pt", "--format", "plain", *HOW)
    assert error["message"] == "the file holds several state_dicts"
    assert error["used"] == "under 'model', 'net'"
    assert error["hint"].startswith("save the one to import alone")


def net_state() -> dict[str, torch.Tensor]:
    """Return the trained net's state_dict."""
    return dict(trained().state_dict())


@pytest.mark.parametrize("by_layer", [False, True])
def test_stds_thresholds_what_is_stored(here, by_layer):
    torch.manual_seed(0)
    net = trained()
    for part in (net[0], net[3], net[7]):
        part.weight.data.normal_(0, 0.6)
    torch.save({"model": net.state_dict(), "optimizer": {}}, "checkpoint_latest.pth")
    by = {"0": 0.25, "3.weight": 0.5, "7": 0} if by_layer else dict.fromkeys(("0", "3", "7"), 0.5)
    (here / "d.json").write_text(json.dumps(by))
    given = "d.json" if by_layer else 0.5
    found = imported(
        "checkpoint_latest.pth", "-o", "out.pt", "--format", "stds", "--threshold", given, *HOW
    )
    for name, d in by.items():
        weight = net[int(name[0])].weight.data
        weight.copy_(torch.sign(weight) * torch.relu(weight.abs() - d))
    nonzeros = sum(int((net[i].weight != 0).sum()) for i in (0, 3, 7))
    assert found["nonzeros"] == nonzeros == found["model"]["nonzeros"]
    assert (found["sparsity"] > 0.5) != by_layer
    assert_computes(net)


def test_stds_without_or_with_odd_thresholds(here):
    torch.save(net_state(), "w.pt")
    how = ("w.pt", "-o", "out.pt", "--format", "stds", *HOW)
    error = fails(2, *how)
    assert "without their threshold the network would be dense" in error["message"]
    assert error["hint"].startswith("--threshold D, the width that training ended with")
    for odd in (0, -1, "nan"):
        assert "greater than 0" in fails(2, *how, "--threshold", odd)["hint"]
    error = fails(2, *how, "--threshold", "much")
    assert error["message"] == "'much' is no threshold"
    assert "that ends in .json" in error["hint"]
    error = fails(3, *how, "--threshold", 1e6)
    assert error["message"] == "no weight of 0.weight is above the threshold"
    assert "threshold 1e+06" in error["used"]
    assert error["hint"] == "the last threshold of the training, not that of another run"
    (here / "d.json").write_text('{"0": 0.1, "9": 1}')
    error = fails(3, *how, "--threshold", "d.json")
    assert error["used"] == "without a threshold 3.weight, 7.weight; unknown 9"
    assert error["hint"].startswith("one number for every weight, 0 for what was not")
    (here / "d.json").write_text('{"0": 0.1, "3": -1, "7": 0}')
    error = fails(2, *how, "--threshold", "d.json")
    assert error["message"] == "3: -1.0 is no threshold"
    (here / "d.json").write_text('{"0": 0.1, "3": %s, "7": 0}' % ("9" * 5000))
    assert fails(2, *how, "--threshold", "d.json")["message"] == "3: inf is no threshold"
    (here / "d.json").write_text("[1]")
    error = fails(3, *how, "--threshold", "d.json")
    assert error["message"] == "the file of thresholds is no JSON object of numbers"
    assert error["hint"].startswith('{"conv1": 0.5')


class Wrapper(nn.Module):
    """A layer inside of the cutoff code's wrapper: its own threshold is stored and never used."""

    def __init__(self, module: nn.Module | None) -> None:
        super().__init__()
        self.vthr = nn.Parameter(torch.tensor([8.0]), requires_grad=False)
        self.module = module


class Neuron(nn.Module):
    """The cutoff code's neuron, as far as a state_dict sees it."""

    def __init__(self, vthr: float) -> None:
        super().__init__()
        self.vthr = nn.Parameter(torch.tensor([vthr]))


def nested(vthr: float = 0.7) -> nn.Module:
    """Return a module whose state_dict has the names of the cutoff code's."""
    torch.manual_seed(1)
    pool = Wrapper(Wrapper(nn.AvgPool2d(2)))
    block = nn.Sequential(Wrapper(nn.Conv2d(1, 3, 3)), nn.BatchNorm2d(3), Neuron(vthr), pool)
    head = nn.Sequential(Wrapper(Wrapper(nn.Flatten())), Wrapper(nn.Linear(12, 4)))
    return nn.Sequential(block, head, Wrapper(None))


CUTOFF = ("--format", "cutoff", "--arch", "arch.py:qcfs", "--readout", "mean")


@pytest.mark.parametrize("parallel", [False, True])
def test_cutoff_wrappers_come_off_and_amplitudes_fold(here, parallel):
    saved = nested()
    state = saved.state_dict()
    state["0.0.module.weight"][:, :, 1] = 0
    torch.save({f"module.{k}": v for k, v in state.items()} if parallel else state, "w.pth")
    found = imported("w.pth", "-o", "out.pt", *CUTOFF, "--coding", "direct", "--steps", 8)
    assert (
        "7 thresholds of wrappers around layers are left out: nothing uses them" in found["notes"]
    )
    assert "4 wrappers (module.) are taken out of the names" in found["notes"]
    assert ("DataParallel's prefix module. is taken off every name" in found["notes"]) == parallel
    net = built("qcfs")
    net[0][0].load_state_dict(saved[0][0].module.state_dict())
    net[0][1].load_state_dict(saved[0][1].state_dict())
    net[0][2].load_state_dict(saved[0][2].state_dict())
    net[1][1].load_state_dict(saved[1][1].module.state_dict())
    x = np.random.default_rng(1).random((5, 1, 6, 6)).astype("f4")
    np.savez("still.npz", x=x)
    ran = run_cli("run", "out.pt", "-t", "cpu", "-i", "still.npz", "--trace", "t.npz")
    assert ran.code == 0, ran.err
    with torch.no_grad():
        steps = torch.tensor(x).expand(8, *x.shape)
        spikes = net[0][2](net[0][1](net[0][0](steps.flatten(0, 1))).unflatten(0, (8, 5)))
        summed = net(steps).mean(0).numpy()
    trace = np.load("t.npz")
    np.testing.assert_array_equal(trace["0.2"], (spikes > 0).float().transpose(0, 1).numpy())
    assert 0.05 < trace["0.2"].mean() < 0.95
    network = snn_deploy.fold(snn_deploy.load_model("out.pt"))
    assert network.population("0.2").neuron.v_init == pytest.approx(0.35)
    np.testing.assert_allclose(trace["output"].mean(1), summed, rtol=1e-4, atol=1e-6)


def test_cutoff_names_that_do_not_fit_list_both_sides(here):
    torch.save(nested().state_dict(), "w.pth")
    how = ("w.pth", "-o", "out.pt", "--format", "cutoff", "--arch", "arch.py:net", "--dt", 1e-3)
    error = fails(3, *how)
    assert error["message"] == "the file's keys are not those of the architecture"
    assert error["used"].startswith("missing 0.bias, 0.weight, 1.bias,")
    assert "; unexpected 0.0.bias, 0.0.weight, 0.1.bias" in error["used"]
    assert "use snn_deploy.tickets.qcfs.QCFS" in error["hint"]
    torch.save({f"layer{k}": v for k, v in net_state().items() if k[0] == "7"}
               | {k: v for k, v in net_state().items() if k[0] != "7"}, "w.pth")  # fmt: skip
    error = fails(3, *how)
    assert error["used"] == "missing 7.bias, 7.weight; unexpected layer7.bias, layer7.weight"
    assert error["hint"] == "if they are the same layer: --rename layer7=7"
    imported(*how, "--rename", "layer7=7")
    assert_computes(trained())
    (here / "out.pt").unlink()
    torch.save({"what": torch.ones(2)}, "w.pth")
    assert fails(3, *how)["hint"].startswith("--rename FROM=TO, or let the factory build")


def test_names_of_a_file_cannot_paint_the_terminal(here):
    torch.save({"net": net_state(), "\x1b[31m": 1}, "w.pt")
    ran = run_cli("import", "w.pt", "-o", "out.pt", "--format", "plain", *HOW)
    assert ran.code == 0, ran.err
    assert "\x1b" not in ran.out
    assert "not used: \\x1b[31m" in ran.out


def test_renaming(here):
    torch.save({f"model.{k}": v for k, v in net_state().items()}, "w.pt")
    how = ("w.pt", "-o", "out.pt", "--format", "plain", *HOW)
    imported(*how, "--rename", "model=")
    assert_computes(trained())
    error = fails(2, *how, "--force", "--rename", "mod=")
    assert error["message"] == "--rename mod= fits no name in the file"
    assert error["used"].startswith("model.0.weight, ")
    assert error["hint"] == "FROM is a whole name, or a leading part of names that ends at a dot"
    error = fails(3, *how, "--force", "--rename", "model.0=model.3")
    assert error["message"] == "two tensors would both be called 'model.3.weight'"
    assert error["used"] == "model.0.weight and model.3.weight"
    assert error["hint"] == "rename one of them otherwise: --rename FROM=TO"
    assert "is not FROM=TO" in run_cli("import", *how, "--rename", "model").err


def test_a_gain_per_time_step_is_refused(here):
    torch.save({**net_state(), "1.p": torch.linspace(0.5, 2, 4).reshape(4, 1, 1, 1, 1)}, "w.pt")
    error = fails(4, "w.pt", "-o", "out.pt", "--format", "cutoff", *HOW)
    assert error["message"].startswith("a batch norm with a gain per time step (TEBN)")
    assert error["where"] == "w.pt -> 1.p"
    assert error["used"] == "4 gains, 0.5 to 2"
    assert error["hint"] == "train with an ordinary batch norm, which folds into the weights"


@pytest.mark.parametrize("legacy", [False, True])
def test_whole_modules_are_refused_with_the_lines_that_save_them_again(here, legacy):
    torch.save(nn.Sequential(nn.Linear(2, 2)), "net.pkl", _use_new_zipfile_serialization=not legacy)
    error = fails(4, "net.pkl", "-o", "out.pt", "--format", "gradr", *HOW)
    assert "torch.save(m.state_dict(), 'weights.pt')" in error["hint"]
    assert "weights_only=False" in error["hint"]
    assert ("old file format" if legacy else "is code, not data") in error["message"]


def test_files_that_ask_to_run_something_run_nothing(here):
    class Attack:
        def __reduce__(self):
            import os

            return os.system, ("touch canary",)

    torch.save(net_state(), "w.pt")
    dump([np.ones((4, 1, 3, 3)), Attack()])
    error = fails(3, "w.pt", "-o", "out.pt", "--format", "lth", "--masks", "masks.pkl", *HOW)
    assert "this may be an attack, nothing was run" in error["message"]
    assert error["where"] == "masks.pkl"
    torch.save({"0.weight": Attack()}, "evil.pth.tar")
    dump({"0.weight": Attack()}, "evil.pkl")
    for name in ("evil.pth.tar", "evil.pkl"):
        error = fails(3, name, "-o", "out.pt", "--format", "gradr", *HOW)
        assert error["hint"]
    assert not (here / "canary").exists()


def test_options_of_another_format(here):
    torch.save(net_state(), "w.pt")
    how = ("w.pt", "-o", "out.pt", *HOW)
    error = fails(2, *how)
    assert "does not say where its zeros are" in error["message"]
    assert error["hint"].startswith("--format plain|lth|gradr|stds|cutoff; NIR graphs")
    error = fails(2, *how, "--format", "plain", "--masks", "m.pkl")
    assert error["message"].startswith("format plain has no list of masks")
    assert error["hint"] == "leave --masks out, or use --format lth"
    error = fails(2, *how, "--format", "lth")
    assert error["message"] == "format lth keeps its masks in a file of their own"
    assert error["hint"].startswith("--masks mask_NONZERO.pkl")
    error = fails(2, *how, "--format", "gradr", "--threshold", 1)
    assert error["message"].startswith("format gradr has no threshold")
    assert error["hint"] == "leave --threshold out, or use --format stds"
    error = fails(2, *how, "--format", "plain", "--percentile", 9)
    assert error["message"] == "--percentile is not for format plain"
    assert error["hint"].startswith("leave --percentile out; snn-deploy import --help")
    error = fails(2, "w.pt", "-o", "out.h5", "--format", "plain", *HOW)
    assert error["message"] == "out.h5 does not end in .pt or .nir"
    assert error["hint"].startswith("a checkpoint becomes a ticket (.pt) or a graph")
    error = fails(2, *how, "--format", "onnx")
    assert error["message"] == "w.pt is not of format onnx"
    assert error["hint"].startswith("an .onnx file has format onnx")
    error = fails(3, "w.pt", "-o", "out.pt", "--format", "plain")
    assert error["message"] == "a state_dict holds weights without an architecture"
    error = fails(3, "v.pt", "-o", "out.pt", "--format", "plain")
    assert error["hint"] == "did you mean w.pt?"
    imported(*how, "--format", "plain")
    error = fails(2, "out.pt", "-o", "again.pt", "--format", "plain", *HOW)
    assert error["message"] == "the file is a ticket already, not a checkpoint"
    assert error["hint"].startswith("every command reads it as it is")


def test_a_dense_file_is_said_to_be_one(here):
    torch.save({k: v + 1 for k, v in net_state().items()}, "w.pt")
    ran = run_cli("import", "w.pt", "-o", "out.pt", "--format", "gradr", *HOW)
    assert ran.code == 0, ran.err
    assert "warning: no weight is zero: the network is dense" in ran.err


def test_a_quantised_neuron_needs_a_threshold():
    with pytest.raises(UsageError) as caught:
        QCFS(vthr=0)
    assert caught.value.used == "vthr = 0, dt_s = 0.001"
    assert caught.value.hint == "the threshold that training starts from, and seconds"
