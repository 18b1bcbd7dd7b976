"""Weights stored as a seed and a mask: the same bits when read, a bit of the file per weight."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from snn_deploy.errors import InputError  # noqa: E402
from snn_deploy.frontends.load import load_model  # noqa: E402
from snn_deploy.frontends.rewrite import rewrite_ticket  # noqa: E402
from snn_deploy.frontends.state import save_ticket  # noqa: E402
from snn_deploy.io import seeded as module  # noqa: E402
from snn_deploy.io.seeded import Seeded, packed  # noqa: E402
from snn_deploy.io.ticket import network_of, parse_ticket, read_ticket  # noqa: E402
from snn_deploy.io.torch_zip import read_torch_zip  # noqa: E402
from snn_deploy.ir.network import Source  # noqa: E402
from snn_deploy.ir.text import to_text  # noqa: E402
from snn_deploy.tickets import loop, trainer  # noqa: E402
from snn_deploy.tickets.lif import LIF  # noqa: E402
from snn_deploy.tickets.trainer import TrainConfig, train  # noqa: E402
from tests.tickets import mlp_content  # noqa: E402

TINY = {
    "method": "connection", "epochs": 2, "sparsity": 0.5, "limit": 128, "steps": 4,
}  # fmt: skip
X = torch.zeros(1, 6)
ENTRY = Seeded(seed=(7, 0), shape=(5, 6), scale=float(np.float32(0.3)))


def bits(value) -> np.ndarray:
    return np.ascontiguousarray(value).view(np.uint8)


@pytest.mark.parametrize("arch", ["mlp", "conv", "recurrent"])
@pytest.mark.parametrize("binary", [False, True])
def test_a_connection_ticket_is_read_back_bit_for_bit(tmp_path, monkeypatch, arch, binary):
    def both(model, path, *, seeded, **options):
        save_ticket(model, tmp_path / "full.pt", **options)
        return save_ticket(model, path, seeded=seeded, **options)

    monkeypatch.setattr(trainer, "save_ticket", both)
    hidden = {"mlp": (512, 512), "conv": (64, 128), "recurrent": (256,)}[arch]
    params = {"binary": binary}
    path = train(
        TrainConfig(out=tmp_path / "m.pt", arch=arch, hidden=hidden, params=params, **TINY)
    ).path
    short, full = read_ticket(path), read_ticket(tmp_path / "full.pt")
    assert short.state.keys() == full.state.keys()
    assert short.masks.keys() == full.masks.keys()
    for key in full.state:
        assert np.array_equal(bits(short.state[key]), bits(full.state[key])), key
    for key in full.masks:
        assert np.array_equal(short.masks[key], full.masks[key])
    network, other = network_of(short), network_of(full)
    assert to_text(network) == to_text(other)
    assert network.projections == other.projections
    content = read_torch_zip(path)
    weights = [key for key, value in full.state.items() if value.ndim > 1]
    assert sorted(content["seeded"]) == sorted(weights)
    size = sum(full.state[key].size for key in weights)
    rest = sum(value.nbytes for key, value in full.state.items() if key not in weights)
    assert path.stat().st_size < size / 8 + rest + 12_000
    assert (tmp_path / "full.pt").stat().st_size > 4 * size


def test_after_rounding_the_weights_themselves_are_stored(tmp_path):
    from snn_deploy.backends.arithmetics import ARITHMETICS

    config = TrainConfig(
        out=tmp_path / "m.pt", hidden=(16,), qat=ARITHMETICS["loihi"], qat_epochs=1, **TINY
    )
    content = read_torch_zip(train(config).path)
    assert "seeded" not in content
    assert content["version"] == 1
    assert content["state"]["fc1.weight"].shape == (16, 64)


def test_weights_that_a_ticket_holds_in_another_form_are_stored_themselves(tmp_path):
    config = TrainConfig(out=tmp_path / "m.pt", arch="spikformer-tiny", hidden=(8, 1), **TINY)
    content = read_torch_zip(train(config).path)
    assert "seeded" not in content


def test_an_interrupt_after_the_training_loses_no_seed(tmp_path):
    def stop(progress: loop.Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    whole = read_torch_zip(train(TrainConfig(out=tmp_path / "w.pt", hidden=(16,), **TINY)).path)
    config = TrainConfig(out=tmp_path / "m.pt", hidden=(16,), **TINY)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=stop)
    again = read_torch_zip(train(replace(config, resume=True)).path)
    assert again["seeded"] == whole["seeded"]
    assert all(np.array_equal(again["masks"][k], whole["masks"][k]) for k in whole["masks"])


def test_more_weights_than_a_reader_makes_are_stored_themselves(tmp_path, monkeypatch):
    from snn_deploy.tickets.methods import one_run

    size = 64 * 16 + 16 * 10
    for most, stored in ((size, "seeded"), (size - 1, "state")):
        monkeypatch.setattr(one_run, "MAX_WEIGHTS", most)
        config = TrainConfig(out=tmp_path / f"{stored}.pt", hidden=(16,), **TINY)
        assert "fc1.weight" in read_torch_zip(train(config).path)[stored]


def seeded_net() -> torch.nn.Sequential:
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), LIF())
    mask = torch.arange(30).reshape(5, 6) % 3 == 0
    with torch.no_grad():
        model[0].weight.copy_(torch.where(mask, torch.from_numpy(ENTRY.weights()), 0.0))
    return model


def test_a_module_of_ones_own_and_another_readout_for_its_ticket(tmp_path):
    options = {"example_input": X, "coding": {"kind": "direct", "steps": 2}}
    path = save_ticket(seeded_net(), tmp_path / "m.pt", seeded={"0.weight": ENTRY}, **options)
    content = torch.load(path, weights_only=True)
    assert content["version"] == 2
    assert "0.weight" not in content["state"]
    assert content["masks"]["0.weight"].tolist() == [0b10010010, 0b01001001, 0b00100100, 0b10010000]
    network = load_model(path)
    rewrite_ticket(replace(network, readout=replace(network.readout, cutoff=(1.0, 2.0))),
                   tmp_path / "n.pt")  # fmt: skip
    assert load_model(tmp_path / "n.pt").projections == network.projections
    assert torch.load(tmp_path / "n.pt", weights_only=True)["seeded"] == content["seeded"]


@pytest.mark.parametrize(
    ("name", "entry", "message", "hint"),
    [
        ("0.weight", replace(ENTRY, scale=0.5), "not what its seed stands for", "leave it out"),
        ("0.weight", replace(ENTRY, sign=True), "not what its seed stands for", "leave it out"),
        ("0.weight", replace(ENTRY, scale=0.1), "a scale is a float32 number", "save_ticket"),
        ("0.weight", replace(ENTRY, shape=(5, 7)), "its mask as bits", "packbits"),
        ("1.weight", ENTRY, "there is no weight called '1.weight'", "weights: 0.weight"),
        ("0.bias", ENTRY, "there is no weight called '0.bias'", "weights: 0.weight"),
    ],
)
def test_what_no_seed_gives_is_not_saved(tmp_path, name, entry, message, hint):
    with pytest.raises(InputError, match=message) as caught:
        save_ticket(seeded_net(), tmp_path / "m.pt", example_input=X, seeded={name: entry})
    assert caught.value.where == f"seeded -> {name}"
    assert hint in caught.value.hint
    assert not list(tmp_path.iterdir())


def content():
    """Return a ticket whose fc1, 8 x 12, is a seed."""
    made = mlp_content()
    turn = lambda d: {k: np.asarray(v) for k, v in d.items()}
    made = {**made, "version": 2, "state": turn(made["state"]), "masks": turn(made["masks"])}
    del made["state"]["fc1.weight"]
    made["masks"]["fc1.weight"] = packed(made["masks"]["fc1.weight"])
    made["seeded"] = {"fc1.weight": {"seed": [1], "shape": [8, 12], "scale": 0.5, "sign": False}}
    return made


def test_a_seeded_tensor_is_its_numbers_where_the_mask_is():
    made = content()
    ticket = parse_ticket(made, Source())
    mask = np.unpackbits(made["masks"]["fc1.weight"]).astype(bool).reshape(8, 12)
    numbers = np.where(mask, module.uniform([1], (8, 12)) * np.float32(0.5), np.float32(0))
    assert np.array_equal(bits(ticket.state["fc1.weight"]), bits(numbers))
    assert np.array_equal(ticket.masks["fc1.weight"], mask)
    assert not ticket.state["fc1.weight"].flags.writeable
    made["seeded"]["fc1.weight"]["sign"] = True
    signs = parse_ticket(made, Source()).state["fc1.weight"]
    assert np.array_equal(signs, np.sign(numbers) * np.float32(0.5))


HUGE = [[1 << 62, 1 << 62], [1 << 200], [MAX := module.MAX_WEIGHTS + 1]]
SEED, SHAPE = "a seed is a short list", "a shape is a list of positive whole numbers"
SCALE, SIGN = "a scale is a float32 number", "sign is true or false"
FIELDS = [
    *(
        ("seed", v, SEED, "0 to 2")
        for v in ([], [-1], [1 << 64], [1.0], [True], "1", None, [0] * 9)
    ),
    *(("shape", v, SHAPE, "such as") for v in ([], [0, 4], [-8, -12], [8, [12]], 96, [True, 96])),
    ("shape", [1] * 33, SHAPE, "such as"),
    *(("shape", v, "more weights than this release makes", "leave seeded out") for v in HUGE),
    ("shape", [8, 13], "its mask as bits", "packbits"),
    *(("scale", v, SCALE, "save_ticket") for v in (0.1, 1, 1e39, float("inf"), float("nan"), "1")),
    *(("sign", v, SIGN, "save_ticket") for v in (0, 1, None)),
]


@pytest.mark.parametrize(("field", "value", "message", "hint"), FIELDS)
def test_a_malformed_seed_is_refused_with_its_place(field, value, message, hint):
    made = content()
    made["seeded"]["fc1.weight"][field] = value
    refused(made, message, hint)


def refused(made, message, hint, where="seeded -> fc1.weight"):
    with pytest.raises(InputError) as caught:
        parse_ticket(made, Source())
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("mask", "message", "hint"),
    [
        (None, "its mask as bits", "packbits"),
        (np.zeros(11, np.uint8), "its mask as bits", "packbits"),
        (np.zeros((8, 12), bool), "its mask as bits", "packbits"),
        (np.zeros(12, np.int8), "its mask as bits", "packbits"),
    ],
)
def test_a_mask_that_is_not_bits_is_refused(mask, message, hint):
    made = content()
    del made["masks"]["fc1.weight"]
    if mask is not None:
        made["masks"]["fc1.weight"] = mask
    refused(made, message, hint)


def test_bits_beyond_the_weights_are_refused():
    made = content()
    made["seeded"]["fc1.weight"]["shape"] = [5, 19]
    made["masks"]["fc1.weight"] = np.full(12, 255, np.uint8)
    refused(made, "bits beyond its last weight", "write it again")


def test_other_malformed_parts_are_refused():
    made = content()
    del made["seeded"]["fc1.weight"]["sign"]
    refused(made, "seed, shape, scale and sign", "save_ticket")
    made = content()
    made["seeded"]["fc1.weight"] = [1, [8, 12], 0.5, False]
    refused(made, "seed, shape, scale and sign", "save_ticket")
    made = content()
    made["state"]["fc1.weight"] = np.ones((8, 12), np.float32)
    refused(made, "stored twice", "save_ticket")
    for value in (None, [], {1: 2}):
        refused({**content(), "seeded": value}, "not a dict of seeded tensors", "save_ticket", None)


def test_all_seeds_together_are_bounded(monkeypatch):
    made = content()
    del made["state"]["fc2.weight"]
    made["masks"]["fc2.weight"] = packed(made["masks"]["fc2.weight"])
    made["seeded"]["fc2.weight"] = {"seed": [2], "shape": [3, 8], "scale": 1.0, "sign": True}
    monkeypatch.setattr(module, "MAX_WEIGHTS", 120)
    assert parse_ticket(made, Source()).state["fc2.weight"].shape == (3, 8)
    monkeypatch.setattr(module, "MAX_WEIGHTS", 119)
    refused(made, "more weights than this release makes", "leave", "seeded -> fc2.weight")
