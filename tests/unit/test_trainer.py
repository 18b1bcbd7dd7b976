"""Training, pruning rounds, checkpoints and data sets, all in seconds."""

from __future__ import annotations

import gzip
import struct
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from snn_deploy.errors import InputError, OutputError, UsageError  # noqa: E402
from snn_deploy.io.inputs import encode  # noqa: E402
from snn_deploy.io.ticket import network_of, read_ticket  # noqa: E402
from snn_deploy.ir.network import Coding  # noqa: E402
from snn_deploy.tickets import loop  # noqa: E402
from snn_deploy.tickets.data import load as data  # noqa: E402
from snn_deploy.tickets.data.digits import stratified_split  # noqa: E402
from snn_deploy.tickets.data.mnist import MNIST_FILES  # noqa: E402
from snn_deploy.tickets.lif import LIF  # noqa: E402
from snn_deploy.tickets.models.build import ARCHITECTURES, FLAT  # noqa: E402
from snn_deploy.tickets.trainer import (  # noqa: E402
    TrainConfig,
    checkpoint_path,
    device_of,
    resolved,
    train,
)

TINY = {
    "epochs": 3,
    "round_epochs": 2,
    "rewind_epoch": 1,
    "rounds": 2,
    "sparsity": 0.75,
    "limit": 96,
    "steps": 4,
    "hidden": (24, 16),
}


def tiny(out: Path, **changes) -> TrainConfig:
    return TrainConfig(out=out, **(TINY | changes))


def weights(path: Path) -> dict[str, np.ndarray]:
    return dict(read_ticket(path).state)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


class Interrupt:
    """A progress callback that presses Ctrl-C after so many epochs."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, progress: loop.Progress) -> None:
        if progress.done == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("arch", ["mlp", "conv", "recurrent"])
def test_a_ticket_has_exactly_the_sparsity_asked_for(tmp_path, arch):
    seen = []
    result = train(tiny(tmp_path / "m.pt", arch=arch, hidden=(8, 8)), progress=seen.append)
    ticket = read_ticket(result.path)
    masks = ticket.masks
    total = sum(m.size for m in masks.values())
    assert result.nonzeros == round(0.25 * total) == sum(int(m.sum()) for m in masks.values())
    for key, mask in masks.items():
        assert np.array_equal(ticket.state[key] != 0, mask)
    assert [r.sparsity for r in result.rounds] == pytest.approx([0, 0.5, 0.75], abs=0.01)
    assert ticket.meta["ticket_accuracy"] == result.ticket_accuracy
    assert ticket.meta["seed"] == 0
    assert ticket.meta["versions"]["torch"] == torch.__version__
    network = network_of(ticket)
    assert network.coding == Coding(kind="rate", steps=4, seed=0, gain=1.0)
    assert [(p.phase, p.epoch, p.epochs) for p in seen] == [
        ("dense", 1, 3),
        ("dense", 2, 3),
        ("dense", 3, 3),
        ("round 1/2", 1, 2),
        ("round 1/2", 2, 2),
        ("round 2/2", 1, 3),
        ("round 2/2", 2, 3),
        ("round 2/2", 3, 3),
    ]
    assert [p.done for p in seen] == list(range(1, 9))
    assert {p.total for p in seen} == {8}
    assert seen[0].sparsity == 0
    assert seen[-1].sparsity == result.sparsity
    assert all(p.loss > 0 and 0 <= p.accuracy <= 1 for p in seen)
    assert [f.name for f in tmp_path.iterdir()] == ["m.pt"]


def test_convolutions_are_pruned_by_magnitude_within_their_layer(tmp_path):
    masks = {}
    for name, changes in (
        ("default", {}), ("adaptive", {"layer_adaptive": True}), ("all", {"layer_adaptive": False})
    ):  # fmt: skip
        config = tiny(tmp_path / f"{name}.pt", arch="conv", hidden=(8, 8), **changes)
        masks[name] = dict(read_ticket(train(config).path).masks)
    assert same(masks["default"], masks["adaptive"])
    assert not same(masks["default"], masks["all"])


def test_the_seed_decides_everything(tmp_path):
    threads, noise = torch.get_num_threads(), torch.get_rng_state()
    a = train(tiny(tmp_path / "a.pt"))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), noise)
    torch.rand(7)
    b = train(tiny(tmp_path / "b.pt"))
    c = train(tiny(tmp_path / "c.pt", seed=1))
    assert same(weights(a.path), weights(b.path))
    assert not same(weights(a.path), weights(c.path))
    assert a.rounds == b.rounds


@pytest.mark.parametrize("arch", ["mlp", "conv", "recurrent"])
@pytest.mark.parametrize(
    "stop_at", [1, 3, 4, 6], ids=["in-dense", "after-dense", "in-round-1", "in-round-2"]
)
def test_resume_gives_the_weights_of_an_uninterrupted_run(tmp_path, arch, stop_at):
    plain = train(tiny(tmp_path / "plain.pt", arch=arch, hidden=(8, 8)))
    config = tiny(tmp_path / "m.pt", arch=arch, hidden=(8, 8))
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=Interrupt(stop_at))
    checkpoint = checkpoint_path(config.out)
    assert checkpoint.is_file()
    assert not Path(config.out).exists()
    seen = []
    resumed = train(replace(config, resume=True), progress=seen.append)
    assert [p.done for p in seen] == list(range(stop_at + 1, 9))
    assert same(weights(plain.path), weights(resumed.path))
    assert plain.rounds == resumed.rounds
    assert not checkpoint.exists()


def test_before_the_first_epoch_there_is_nothing_to_resume(tmp_path):
    with pytest.raises(InputError, match="nothing to resume"):
        train(tiny(tmp_path / "m.pt", resume=True))


def test_a_checkpoint_of_other_settings_or_broken(tmp_path):
    config = tiny(tmp_path / "m.pt")
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=Interrupt(4))
    with pytest.raises(InputError, match=r"lr: 0.01 then, 0.02 now") as caught:
        train(replace(config, resume=True, lr=0.02))
    assert "seed" not in (caught.value.used or "")
    checkpoint = checkpoint_path(config.out)
    whole = checkpoint.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"PK\x03\x04" + bytes(100)):
        checkpoint.write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            train(replace(config, resume=True))
    torch.save({"format": "else"}, checkpoint)
    with pytest.raises(InputError, match="damaged"):
        train(replace(config, resume=True))


def test_a_pickle_is_not_run_as_a_checkpoint(tmp_path):
    import os
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    config = tiny(tmp_path / "m.pt", resume=True)
    torch.save({"format": "snn-deploy/train-checkpoint", "x": Evil()}, checkpoint_path(config.out))
    with pytest.raises(InputError, match="damaged"):
        train(config)
    checkpoint_path(config.out).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="damaged"):
        train(config)
    assert not (tmp_path / "owned").exists()


def test_what_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "m.pt").write_bytes(b"mine")
    with pytest.raises(OutputError, match="--force"):
        train(tiny(tmp_path / "m.pt"), progress=Interrupt(1))
    with pytest.raises(OutputError, match="create the folder"):
        train(tiny(tmp_path / "none" / "m.pt"), progress=Interrupt(1))
    assert (tmp_path / "m.pt").read_bytes() == b"mine"
    train(tiny(tmp_path / "m.pt", force=True, sparsity=0.0, rounds=None))
    assert network_of(read_ticket(tmp_path / "m.pt")).dt_s == 1e-3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "magic"}, "unknown method.*imp"),
        ({"params": {"prior": 1}}, "method imp has no parameter 'prior'.*it has none"),
        ({"method": "rigl", "params": {"deth": 1}}, "no parameter 'deth'.*death=0.3"),
        ({"method": "rigl", "params": {"death": "much"}}, "death = much.*a number.*0.3"),
        ({"method": "connection", "params": {"binary": 2}}, "true or false"),
        ({"method": "snip", "params": {"samples": "1.5"}}, "whole number"),
        ({"method": "gradr", "sparsity": 0.3}, "at least one half"),
        ({"method": "ndsnn", "params": {"death": "2"}}, "death <= 1"),
        ({"method": "stds", "params": {"schedule": "cubic"}}, "sine or linear"),
        ({"method": "random", "params": {"layout": "odd"}}, "layer, global or erk"),
        ({"method": "eb", "params": {"fifo": 1}}, "fifo = 1.*2 or more"),
        ({"epsilon": 1.0}, "not a share of wrong stops"),
        ({"rate_penalty": 0.0}, "rate_penalty must be positive"),
        ({"method": "reinit"}, "masks of another ticket.*--masks-from"),
        ({"masks_from": "other.pt"}, "finds its own masks.*reinit and random"),
        ({"device": "quantum"}, "no device 'quantum'.*--compute-on cpu"),
        ({"arch": "vgg"}, "mlp, conv, recurrent"),
        ({"coding": "phase"}, "rate or direct"),
        ({"coding": "events"}, "digits is not trained with coding 'events'.*rate or direct"),
        ({"data": "nmnist", "coding": "rate"}, "nmnist is not trained with coding 'rate'.*events"),
        ({"shift": 1}, "rows of pixels, which cannot be moved.*shift = 1.*arch='conv'"),
        ({"shift": -1}, "shift must not be negative.*shift = -1"),
        ({"dt_s": 0.0}, "dt_s must be positive"),
        ({"steps": 0}, "steps must be positive"),
        ({"lr": -1.0}, "lr must be positive"),
        ({"sparsity": 1.0}, "below 1"),
        ({"rounds": 0}, "at least one pruning round"),
        ({"rewind_epoch": 4}, "an epoch of the dense training"),
        ({"data": "cifar"}, "digits, mnist, nmnist"),
        ({"data": "mnist"}, "--data-dir.*idx3"),
        ({"data": "nmnist"}, "--data-dir.*Train/0.*train1K.txt"),
        ({"sparsity": 0.9999}, "cannot be reached"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, changes, words):
    with pytest.raises(UsageError, match=f"(?s){words}"):
        train(tiny(tmp_path / "m.pt", **changes), progress=Interrupt(1))
    assert list(tmp_path.iterdir()) == []


def test_defaults_follow_the_architecture(tmp_path):
    for arch in ARCHITECTURES:
        for name in data.DATASETS:
            config = resolved(TrainConfig(out=tmp_path / "m.pt", arch=arch, data=name))
            given = {k: v for k, v in asdict(config).items() if v is None}
            optional = {"data_dir", "limit", "qat", "bits", "qat_epochs", "masks_from", "device"}
            optional |= {"rate_penalty", "epsilon"}
            assert set(given) <= optional
            assert config.rounds
            assert config.rounds >= (4 if name == "digits" else 2)
            recorded = name in data.EVENTS
            images = "direct" if name == "cifar10" else "rate"
            assert config.coding == ("events" if recorded else images)
            assert config.dt_s == (data.EVENTS[name] / config.steps if recorded else 1e-3)
            assert recorded or arch not in FLAT or config.shift == 0
    halves = resolved(TrainConfig(out=tmp_path / "m.pt", data="nmnist", steps=40))
    assert halves.dt_s == 0.0075


def test_direct_coding_trains_and_is_declared(tmp_path):
    result = train(tiny(tmp_path / "m.pt", coding="direct"))
    assert network_of(read_ticket(result.path)).coding.kind == "direct"


def test_evaluation_sees_the_spikes_that_every_target_sees():
    recipe = loop.Recipe(steps=3, coding="rate", gain=0.5, lr=1e-2, batch_size=8, weight_decay=0.0)
    x = np.linspace(0, 1, 20, dtype=np.float32).reshape(2, 10)
    expected = encode(x, Coding(kind="rate", steps=3, seed=7, gain=0.5))
    assert np.array_equal(loop.evaluation_input(x, recipe, 7), expected)


def test_accuracy_breaks_ties_towards_the_lowest_class():
    class Same(torch.nn.Module):
        def forward(self, x):
            return torch.ones(x.shape[0], x.shape[1], 3)

    inputs = np.zeros((4, 2, 5), np.uint8)
    assert loop.evaluate(Same(), inputs, np.array([0, 1, 2, 0])) == 0.5


def test_training_reduces_the_loss_and_learns(tmp_path):
    seen = []
    changes = {"epochs": 8, "round_epochs": 4, "limit": 600, "steps": 8, "hidden": (64,)}
    result = train(tiny(tmp_path / "m.pt", **changes), progress=seen.append)
    assert seen[7].loss < 0.5 * seen[0].loss
    assert result.dense_accuracy > 0.6


def test_the_digits_split_is_stratified_disjoint_and_fixed():
    digits, again = data.load("digits"), data.load("digits")
    assert digits.x_train.shape == (1347, 1, 8, 8)
    assert digits.x_test.shape == (450, 1, 8, 8)
    assert np.array_equal(digits.x_test, again.x_test)
    assert digits.x_train.min() == 0
    assert digits.x_train.max() == 1
    shares = np.bincount(digits.y_test) / np.bincount(
        np.concatenate([digits.y_train, digits.y_test])
    )
    assert np.all(np.abs(shares - 0.25) < 0.01)
    train_part, test_part = stratified_split(digits.y_train, 0.3, 1)
    assert not set(train_part) & set(test_part)
    assert len(train_part) + len(test_part) == 1347


def idx(array: np.ndarray, magic: int | None = None) -> bytes:
    head = struct.pack(">I", 0x0800 + array.ndim if magic is None else magic)
    return gzip.compress(head + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


def mnist_folder(folder: Path) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for part, count in (("train", 30), ("test", 10)):
        images = rng.integers(0, 256, (count, 8, 8)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        files[MNIST_FILES[f"x_{part}"]] = idx(images)
        files[MNIST_FILES[f"y_{part}"]] = idx(labels)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return files


def test_mnist_from_a_folder(tmp_path):
    mnist_folder(tmp_path)
    loaded = data.load("mnist", tmp_path)
    assert loaded.x_train.shape == (30, 1, 8, 8)
    assert loaded.y_test.tolist() == list(range(10))
    assert loaded.x_train.max() <= 1
    assert loaded.classes == 10
    result = train(tiny(tmp_path / "m.pt", data="mnist", data_dir=tmp_path))
    assert result.sparsity == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("y_train", idx(np.zeros(29, np.uint8)), "differ in number.*30 images, 29 labels"),
        ("y_test", idx(np.full(10, 77, np.uint8)), "not a digit.*label 77"),
        ("x_train", idx(np.zeros((30, 8, 8), np.uint8), magic=0x0D03), "magic 00000d03"),
        ("x_train", idx(np.zeros(30, np.uint8)), "3 axes"),
        ("x_train", b"not gzip", "cannot be unpacked"),
        ("x_train", b"", "too short"),
        ("x_test", gzip.compress(struct.pack(">4I", 0x803, 10, 8, 8)), "0 of 640 bytes"),
        ("x_test", gzip.compress(struct.pack(">4I", 0x803, 1, 1, 1) + bytes(9)), "more of 1"),
        ("x_test", gzip.compress(struct.pack(">4I", 0x803, 2**31, 99, 99)), "too much data"),
        ("x_test", idx(np.zeros((10, 4, 4), np.uint8)), "differ in size"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,  # gzip holds the time of day
)
def test_broken_idx_files_are_named(tmp_path, name, content, words):
    mnist_folder(tmp_path)
    (tmp_path / MNIST_FILES[name]).write_bytes(content)
    with pytest.raises(InputError, match=f"(?s){words}"):
        data.load("mnist", tmp_path)


def test_truncated_gzip_and_missing_files(tmp_path):
    files = mnist_folder(tmp_path)
    name = MNIST_FILES["x_train"]
    (tmp_path / name).write_bytes(files[name][:-20])
    with pytest.raises(InputError, match="cannot be unpacked"):
        data.load("mnist", tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"missing: {name}"):
        data.load("mnist", tmp_path)
    with pytest.raises(InputError, match=r"(?s)does not exist.*t10k-labels") as caught:
        data.load("mnist", tmp_path / "none")
    assert caught.value.hint


def test_mixed_precision_trains_layers_in_bfloat16_and_neurons_in_float32(tmp_path, monkeypatch):
    seen = set()
    real = LIF.forward

    def forward(self, current):
        spikes = real(self, current)
        seen.add((current.dtype, spikes.dtype))
        return spikes

    monkeypatch.setattr(LIF, "forward", forward)
    result = train(tiny(tmp_path / "m.pt", amp=True, limit=600, epochs=6, device="cpu"))
    assert (torch.bfloat16, torch.float32) in seen
    assert {spikes for _, spikes in seen} == {torch.float32}
    assert result.ticket_accuracy > 0.3
    assert {v.dtype for v in read_ticket(result.path).state.values()} == {np.dtype(np.float32)}


def test_a_gpu_is_taken_when_there_is_one(tmp_path, monkeypatch):
    config = tiny(tmp_path / "m.pt")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(config).type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(config).type == "cuda"
    assert device_of(replace(config, device="cpu")).type == "cpu"
