"""Bad models and data: an exit code, a place and a hint, and nothing written."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from snn_deploy.backends.loihi import environment
from tests import tickets
from tests.cli.helpers import listing, run_cli


def fails(code, *texts, args):
    """Run a command that must fail with ``code``, say ``texts``, and write nothing."""
    from pathlib import Path

    before = listing(Path.cwd())
    ran = run_cli(*args)
    assert ran.code == code, ran.err or ran.out
    assert ran.out == ""
    assert ran.err.startswith(("error: ", "warning: ", "Usage: "))
    for text in texts:
        assert text in " ".join(ran.err.split()), ran.err
    assert "Traceback" not in ran.err
    assert listing(Path.cwd()) == before
    return ran


def run_of(model, data="mlp.npz", target="cpu"):
    return ("run", model, "-t", target, "-i", data)


# ---------------------------------------------------------------- the model's file


def test_a_missing_model_suggests_a_near_name(here):
    fails(3, "no such file", "where mip.pt", "did you mean mlp.pt?", args=run_of("mip.pt"))


def test_a_folder_as_model(here):
    (here / "model.pt").mkdir()
    fails(3, "a folder", args=run_of("model.pt"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.pt", b""),
        ("garbage.pt", bytes(range(256)) * 8),
        ("text.pt", b"import torch\n"),
        ("half.pt", None),
    ],
)
def test_broken_files(here, name, content):
    whole = (here / "mlp.pt").read_bytes()
    (here / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    fails(3, f"where {name}", "hint", args=run_of(name))


@pytest.mark.parametrize("suffix", [".nir", ".safetensors"])
def test_broken_files_of_other_kinds(here, suffix):
    (here / f"x{suffix}").write_bytes(b"not at all" * 9)
    args = (*run_of(f"x{suffix}"), "--dt", "1e-3")
    fails(3, f"x{suffix}", "hint", args=args)


def test_a_pickled_module_gets_the_lines_that_save_it_again(here):
    torch.save(torch.nn.Sequential(torch.nn.Linear(12, 3)), here / "module.pt")
    ran = fails(4, "where module.pt", "torch.save(", "state_dict()", args=run_of("module.pt"))
    assert "weights_only=False" in ran.err


def test_a_net_file(here):
    (here / "x.net").write_bytes(b"\x89HDF\r\n\x1a\n")
    fails(3, "x.net", "hint", args=run_of("x.net"))


def test_an_unknown_suffix(here):
    (here / "model.h5").write_bytes(b"keras")
    fails(3, "model.h5 is not a model file", ".pt, .pth, .nir, .net", args=run_of("model.h5"))


# ---------------------------------------------------------------- what a ticket says


def edited(here, change):
    return tickets.save(here / "edited.pt", tickets.mlp_content(), change).name


def test_nan_weights_are_located(here):
    def change(content):
        content["state"]["fc2.weight"][1, 2] = float("nan")

    model = edited(here, change)
    fails(3, "NaN", "where edited.pt -> fc2", "1 of 24", "hint", args=run_of(model))


def test_zero_steps(here):
    def change(content):
        content["graph"]["coding"]["steps"] = 0

    model = edited(here, change)
    fails(3, "the coding has no time steps", "steps = 0", "at least 1", args=run_of(model))
    fails(2, "x>=1", args=(*run_of("mlp.pt"), "--steps", "0"))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda c: c["state"].pop("fc2.weight"), "fc2"),
        (lambda c: c["state"].update({"fc2.weight": torch.ones(3, 9)}), "masks -> fc2.weight"),
        (lambda c: c["masks"].update({"fc9.weight": torch.ones(2)}), "masks -> fc9.weight"),
        (lambda c: c["graph"]["nodes"][2].update(tau_s=-1.0), "lif1"),
        (lambda c: c["graph"]["nodes"][2].update(op="Sigmoid"), "lif1"),
        (lambda c: c["graph"]["edges"].append(["fc1", "nowhere"]), "edited.pt"),
        (lambda c: c["graph"].pop("nodes"), "edited.pt"),
        (lambda c: c["graph"].update(dt_s="soon"), "edited.pt"),
        (lambda c: c.update(version=99), "edited.pt"),
    ],
)
def test_malformed_tickets_are_located(here, change, place):
    model = edited(here, change)
    before = listing(here)
    ran = run_cli(*run_of(model))
    assert ran.code in (3, 4), ran.err
    assert ran.err.startswith("error: ")
    assert "edited.pt" in ran.err
    assert place in ran.err
    assert listing(here) == before


def test_control_characters_in_names_are_escaped(here):
    def change(content):
        content["graph"]["nodes"][1]["name"] = "fc\x1b[31m1"
        content["graph"]["edges"][:2] = [["input", "fc\x1b[31m1"], ["fc\x1b[31m1", "lif1"]]

    model = edited(here, change)
    ran = run_cli("inspect", model, "-v")
    assert ran.code == 0, ran.err
    assert "\x1b" not in ran.out
    assert "fc\\x1b[31m1" in ran.out
    tickets.save(here / "nan.pt", tickets.mlp_content(), lambda c: (change(c), _nan(c)))
    ran = run_cli("inspect", "nan.pt")
    assert ran.code == 3
    assert "\x1b" not in ran.err


def _nan(content):
    content["state"]["fc1.weight"][0, 0] = float("nan")


def _direct(content):
    content["graph"]["coding"] = {"kind": "direct", "steps": 4, "seed": 0, "gain": 1.0}


def test_direct_coding_on_the_accelerator_is_graded_alone(here):
    model = edited(here, _direct)
    injected = (*run_of(model, target="fpga"), "--analogue", "bias")
    wanted = ("no form of analogue input called bias", "where edited.pt", "hint", "graded")
    fails(4, *wanted, args=injected)
    assert run_cli(*run_of(model)).code == 0
    ran = run_cli(*run_of(model, target="fpga"))
    assert ran.code == 0
    assert "carry whole numbers" in ran.out
    assert run_cli("export", model, "-t", "fpga", "-o", "out").code == 0
    assert run_cli(*run_of(model, target="fpga"), "--coding", "rate").code == 0


def test_direct_coding_on_loihi_is_injected_or_graded(here):
    model = edited(here, _direct)
    assert run_cli(*run_of(model, target="loihi")).code == 0
    graded = (*run_of(model, target="loihi"), "--analogue", "graded")
    fails(4, "the spikes of loihi1 carry no values", "--analogue bias", args=graded)


# ---------------------------------------------------------------- plain state_dicts


@pytest.fixture
def state_dict(here):
    state = {"fc1.weight": torch.ones(8, 12), "fc1.bias": torch.zeros(8)}
    torch.save(state, here / "state.pt")
    return "state.pt"


FACTORY = """
import torch
def net():
    {body}
"""


def test_a_state_dict_without_its_module(here, state_dict):
    fails(3, "a state_dict holds weights", "--arch FILE.py:FACTORY", args=run_of(state_dict))


@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_a_state_dict_of_another_module(here, state_dict, arch):
    state = {"layer.kernel": torch.ones(3, 3)}
    torch.save(state, here / "other.pt")
    args = (*run_of("other.pt"), "--arch", arch)
    fails(3, f"not one of the {arch} architecture", "layer.kernel", args=args)


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ("return torch.nn.Sequential(torch.nn.Linear(12, 3)), torch.zeros(1, 12)", 3, "fc1.weight"),
        ("raise RuntimeError('mine')", 3, "mine"),
        ("import sys; sys.exit(0)", 3, "net.py"),
        ("return 5", 2, "net.py"),
    ],
)
def test_factories_that_do_not_fit(here, state_dict, body, code, text):
    (here / "net.py").write_text(FACTORY.format(body=body))
    ran = run_cli(*run_of(state_dict), "--arch", "net.py:net")
    assert ran.code in {2, 3, 4}, ran.err
    assert ran.err.startswith("error: ")
    assert text in ran.err


@pytest.mark.parametrize(
    ("arch", "text"),
    [
        ("resnet", "FILE.py:FACTORY"),
        ("none.py:net", "none.py"),
        ("net.py:other", "other"),
    ],
)
def test_architectures_that_are_not_there(here, state_dict, arch, text):
    (here / "net.py").write_text(FACTORY.format(body="return None"))
    ran = run_cli(*run_of(state_dict), "--arch", arch)
    assert ran.code in (2, 3), ran.err
    assert text in ran.err
    assert ran.err.startswith("error: ")


def test_a_ticket_needs_no_architecture(here):
    fails(2, "a ticket brings its own architecture", args=(*run_of("mlp.pt"), "--arch", "mlp"))


def test_without_torch_arch_says_how_to_get_it(here, state_dict, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "snn_deploy.tickets.arch", None)
    args = (*run_of(state_dict), "--arch", "mlp")
    fails(7, "pip install 'snn-deploy[train]'", args=args)


@pytest.mark.parametrize("shape", ["0,2", "a", "-1", "1,,2", "²"])
def test_input_shapes_that_are_none(here, shape):
    ran = run_cli(*run_of("mlp.pt"), f"--input-shape={shape}")
    assert ran.code == 2
    assert "is not a shape such as 1,28,28" in ran.err


@pytest.mark.parametrize("dt", ["0", "-1", "nan", "inf"])
def test_time_steps_that_are_none(here, dt):
    ran = run_cli(*run_of("mlp.pt"), f"--dt={dt}")
    assert ran.code == 2
    assert "is not a time step" in ran.err


# ---------------------------------------------------------------- the data


def data(here, **arrays):
    np.savez(here / "bad.npz", **arrays)
    return "bad.npz"


GOOD_X = np.full((4, 12), 0.5, np.float32)


@pytest.mark.parametrize(
    ("arrays", "texts"),
    [
        (
            {"x": np.zeros((4, 9))},
            ["x has shape (4, 9), but the model's input is (12,)", "bad.npz"],
        ),
        ({"x": np.zeros((4, 3, 4))}, ["save x.reshape(len(x), 12)"]),
        ({"x": np.zeros((0, 12))}, ["x holds no samples"]),
        ({"x": np.zeros((4, 0, 12))}, ["x has 0 steps"]),
        ({"x": np.full((4, 12), np.nan)}, ["x[0, 0] is nan", "nan_to_num"]),
        ({"x": GOOD_X * 9}, ["rate coding needs values in 0..1", "x / x.max()"]),
        ({"x": np.zeros((4, 5, 12))}, ["5 steps", "6", "--steps 5"]),
        ({"x": GOOD_X, "y": np.arange(3)}, ["y has shape (3,), but x has 4 samples"]),
        ({"x": GOOD_X, "y": np.arange(4)}, ["y[3] is 3, classes 0..2", "bad.npz -> y"]),
        ({"x": GOOD_X, "y": -np.arange(4)}, ["label y[1] is -1"]),
        ({"x": GOOD_X, "y": np.zeros(4)}, ["labels must be integers", "astype"]),
        ({"images": GOOD_X}, ["bad.npz", "images"]),
        ({"x": np.array([None])}, ["bad.npz"]),
    ],
)
@pytest.mark.parametrize("command", ["run", "verify", "compare"])
def test_data_that_does_not_fit(here, arrays, texts, command):
    name = data(here, **arrays)
    args = (command, "mlp.pt", "-i", name)
    args += () if command == "compare" else ("-t", "fpga")
    fails(3, *texts, "hint", args=args)


def test_data_of_another_kind(here):
    np.save(here / "x.npy", GOOD_X)
    fails(3, "x.npy", args=run_of("mlp.pt", "x.npy"))
    fails(3, "mlp.pt", args=run_of("mlp.pt", "mlp.pt"))


def test_missing_data_suggests_a_near_name(here):
    fails(3, "there is no file mpl.npz", "did you mean mlp.npz?", args=run_of("mlp.pt", "mpl.npz"))


@pytest.mark.parametrize("samples", ["0", "-3", "some"])
def test_sample_counts_that_are_none(here, samples):
    ran = run_cli(*run_of("mlp.pt"), "--samples", samples)
    assert ran.code == 2
    assert "--samples" in ran.err


# ---------------------------------------------------------------- tools


@pytest.fixture
def no_lava(here, monkeypatch):
    monkeypatch.setenv(environment.CACHE_VARIABLE, str(here / "cache"))
    monkeypatch.delenv(environment.PYTHON_VARIABLE, raising=False)


@pytest.mark.parametrize(
    "args",
    [
        (*run_of("mlp.pt", target="loihi"), "--on", "lava"),
        ("verify", "mlp.pt", "-t", "loihi", "-i", "mlp.npz"),
    ],
)
def test_without_lava(no_lava, args):
    fails(7, "Lava's environment is not set up", "run: snn-deploy setup loihi", args=args)


def test_without_lava_the_rest_works(no_lava):
    assert run_cli(*run_of("mlp.pt", target="loihi")).code == 0
    assert run_cli("export", "mlp.pt", "-t", "loihi", "-o", "out").code == 0


def test_a_full_disk_under_a_trace(here, monkeypatch):
    import errno
    import os

    def fsync(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    args = (*run_of("mlp.pt"), "--trace", "t.npz")
    fails(10, "cannot write t.npz", "free some disk space", args=args)


def test_a_model_that_changes_nothing_is_left_alone(here):
    shutil.copy(here / "mlp.pt", here / "copy.pt")
    assert run_cli(*run_of("copy.pt")).code == 0
    assert (here / "copy.pt").read_bytes() == (here / "mlp.pt").read_bytes()
