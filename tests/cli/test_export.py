"""``export``: artifacts, NIR, manifest, the same bytes for the same input, masks kept."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
from contextlib import contextmanager

import nir
import numpy as np
import pytest

from snn_deploy._version import __version__
from snn_deploy.frontends.load import load_model
from snn_deploy.io.ticket import read_ticket
from tests import tickets
from tests.cli.helpers import listing, run_cli

ALL = ("-t", "cpu", "-t", "loihi", "-t", "fpga")
MODELS = ["mlp", "conv"]


@pytest.mark.parametrize("model", MODELS)
def test_artifacts_of_every_target(here, model):
    ran = run_cli("export", f"{model}.pt", *ALL, "-o", "out")
    assert ran.code == 0, ran.err
    files = set(listing(here / "out"))
    assert {f"{model}.nir", "report.json", "manifest.json", f"cpu/{model}.npz"} <= files
    assert {f"loihi/{model}.net", "loihi/cores.json", "fpga/config.json"} <= files
    assert any(name.startswith("fpga/engine00.weights") for name in files)
    assert all(f"out/{line}" in ran.out for line in (f"{model}.nir", "report.json"))
    # Nothing half-written is left beside the folder.
    assert not [p for p in here.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("model", MODELS)
def test_the_nir_package_reads_the_graph(here, model):
    assert run_cli("export", f"{model}.pt", "-t", "cpu", "-o", "out").code == 0
    graph = nir.read(here / "out" / f"{model}.nir")
    weights = [n.weight for n in graph.nodes.values() if hasattr(n, "weight")]
    network = load_model(here / "out" / f"{model}.nir")
    assert len(weights) == len(network.projections)
    assert network.dt_s == 1e-3
    assert (network.coding.kind, network.coding.steps, network.coding.seed) == ("rate", 6, 3)


@pytest.mark.parametrize("model", MODELS)
def test_the_exported_graph_computes_the_same(here, model):
    assert run_cli("export", f"{model}.pt", "-t", "cpu", "-o", "out").code == 0
    run = ("-t", "cpu", "-i", f"{model}.npz", "--json", "-")
    ticket = run_cli("run", f"{model}.pt", *run).json["result"]
    graph = run_cli("run", f"out/{model}.nir", *run).json["result"]
    assert graph["predictions"] == ticket["predictions"]
    total = lambda r, e: sum(x["total"] for x in r["events"] if x["event"] == e)
    for event in ("spikes", "synops_effective"):
        assert total(graph, event) == total(ticket, event)


def test_the_manifest_holds_true_hashes(here):
    assert run_cli("export", "mlp.pt", *ALL, "-o", "out").code == 0
    manifest = json.loads((here / "out" / "manifest.json").read_text())
    found = {n: c for n, c in listing(here / "out").items() if n != "manifest.json"}
    assert manifest["files"] == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in found.items()
    }
    assert manifest["tool"] == f"snn-deploy {__version__}"
    assert manifest["input"] == {
        "file": "mlp.pt",
        "sha256": hashlib.sha256((here / "mlp.pt").read_bytes()).hexdigest(),
    }
    assert manifest["targets"]["loihi"]["device"] == "loihi1"
    assert manifest["targets"]["loihi"]["arithmetic"] == "loihi"
    assert manifest["targets"]["cpu"]["arithmetic"] is None


@pytest.mark.parametrize("model", MODELS)
def test_the_same_input_gives_the_same_bytes(here, model):
    (here / "elsewhere").mkdir()
    shutil.copy(here / f"{model}.pt", here / "elsewhere")
    assert run_cli("export", f"{model}.pt", *ALL, "-o", "a").code == 0
    assert run_cli("export", f"elsewhere/{model}.pt", *ALL, "-o", "b").code == 0
    assert listing(here / "a") == listing(here / "b")


@pytest.mark.parametrize("model", MODELS)
def test_no_nonzeros_beyond_the_ticket(here, model):
    assert run_cli("export", f"{model}.pt", *ALL, "-o", "out").code == 0
    ticket = read_ticket(here / f"{model}.pt")
    kept = {
        key: int(np.count_nonzero(ticket.masks.get(key, value)))
        for key, value in ticket.state.items()
        if key.endswith("weight") and value.ndim > 1
    }
    graph = nir.read(here / "out" / f"{model}.nir")
    written = [
        int(np.count_nonzero(n.weight))
        for n in graph.nodes.values()
        if getattr(n, "weight", None) is not None and n.weight.ndim > 1
    ]
    assert sorted(written) == sorted(kept.values())
    report = json.loads((here / "out" / "report.json").read_text())
    for target in report["targets"]:
        for layer in target["quantization"] or ():
            assert layer["nonzeros_after"] <= layer["nonzeros_before"]
    before = [x["nonzeros_before"] for x in report["targets"][1]["quantization"]]
    assert sorted(before) == sorted(kept.values())


def test_quantization_of_every_layer_is_shown(here):
    ran = run_cli("export", "mlp.pt", "-t", "loihi", "-o", "out", "--csv", "layers.csv")
    assert ran.code == 0
    assert "max error" in ran.out
    assert "saturated" in ran.out
    assert (here / "layers.csv").read_text().count("fc1") == 1


def test_the_folder_is_named_after_the_model(here):
    assert run_cli("export", "mlp.pt", "-t", "cpu", "-q").code == 0
    assert (here / "mlp-export" / "mlp.nir").is_file()


def test_fewer_bits_lose_more(here):
    errors = []
    for bits in (8, 4):
        ran = run_cli("export", "mlp.pt", "-t", "fpga", "--bits", bits, "-o", f"b{bits}", "-q")
        assert ran.code == 0, ran.err
        report = json.loads((here / f"b{bits}" / "report.json").read_text())
        layers = report["targets"][0]["quantization"]
        assert {layer["bits"] for layer in layers} == {bits}
        errors.append(max(layer["max_error"] for layer in layers))
    assert errors[1] > 4 * errors[0]


def test_subtract_reset_warns_about_other_readers(here):
    def subtract(content):
        for node in content["graph"]["nodes"]:
            if node["op"] == "LIF":
                node["reset"] = "subtract"

    tickets.save(here / "soft.pt", tickets.mlp_content(), subtract)
    ran = run_cli("export", "soft.pt", "-t", "fpga", "-o", "out")
    assert ran.code == 0
    assert ran.err.startswith("warning: ")
    assert "reset" in ran.err


def test_an_existing_folder_is_refused_before_the_work(here, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the model was loaded")

    (here / "out").mkdir()
    (here / "out" / "notes.txt").write_text("mine")
    monkeypatch.setattr("snn_deploy.frontends.load.load_model", never)
    ran = run_cli("export", "mlp.pt", "-t", "cpu", "-o", "out")
    assert ran.code == 10
    assert "error: out exists already" in ran.err
    assert "--force" in ran.err
    assert set(listing(here / "out")) == {"notes.txt"}


def test_force_replaces_our_folder_and_never_another(here):
    assert run_cli("export", "mlp.pt", *ALL, "-o", "out").code == 0
    assert run_cli("export", "mlp.pt", "-t", "cpu", "-o", "out", "--force").code == 0
    assert not (here / "out" / "fpga").exists()
    (here / "mine").mkdir()
    (here / "mine" / "notes.txt").write_text("mine")
    ran = run_cli("export", "mlp.pt", "-t", "cpu", "-o", "mine", "--force")
    assert ran.code == 10
    assert "refusing to replace mine: it holds no manifest.json" in ran.err
    assert set(listing(here / "mine")) == {"notes.txt"}


def test_one_device_for_several_targets_is_refused(here):
    ran = run_cli("export", "mlp.pt", *ALL, "-d", "loihi1", "-o", "out")
    assert ran.code == 2
    assert "export one target at a time with --device" in ran.err


def test_a_device_of_another_family_is_refused(here):
    ran = run_cli("export", "mlp.pt", "-t", "fpga", "-d", "loihi1", "-o", "out")
    assert ran.code == 2
    assert "loihi1 is of family 'loihi', target fpga lowers for 'fpga'" in ran.err
    assert "default ecp5-25f" in ran.err


def test_a_missing_parent_is_named(here):
    ran = run_cli("export", "mlp.pt", "-t", "cpu", "-o", "no/such/out")
    assert ran.code == 10
    assert "there is no folder no/such" in ran.err


def test_a_file_in_the_way(here):
    (here / "out").write_text("a file")
    ran = run_cli("export", "mlp.pt", "-t", "cpu", "-o", "out", "--force")
    assert ran.code == 10
    assert "out is a file, not a folder" in ran.err
    assert (here / "out").read_text() == "a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(here):
    (here / "locked").mkdir(mode=0o555)
    ran = run_cli("export", "mlp.pt", "-t", "cpu", "-o", "locked/out")
    assert ran.code == 10
    assert "the folder locked is read-only" in ran.err
    assert not listing(here / "locked")


def test_a_read_only_folder_is_refused_before_the_work(here, monkeypatch):
    real = os.access
    deny = lambda path, mode: not str(path).endswith("locked") and real(path, mode)
    monkeypatch.setattr(os, "access", deny)
    (here / "locked").mkdir()
    ran = run_cli("export", "missing.pt", "-t", "cpu", "-o", "locked/out")
    assert ran.code == 10
    assert "cannot write locked/out: the folder locked is read-only" in ran.err


def test_a_read_only_file_system(here, monkeypatch):
    import errno

    def mkdir(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    before = listing(here)
    monkeypatch.setattr(os, "mkdir", mkdir)
    ran = run_cli("export", "mlp.pt", "-t", "cpu", "-o", "out")
    assert ran.code == 10
    assert "this file system is read-only; choose another folder" in ran.err
    assert listing(here) == before


@contextmanager
def file_size_limit(limit: int):
    """Let no file grow beyond ``limit`` bytes: the nearest to a full disk without one."""
    import signal

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_that_cannot_grow_leaves_nothing(here):
    before = listing(here)
    with file_size_limit(2000):
        ran = run_cli("export", "mlp.pt", *ALL, "-o", "out")
    assert ran.code == 10
    assert ran.err.startswith("error: cannot write ")
    assert "out/mlp.nir: File too large" in ran.err
    assert ".part" not in ran.err
    assert "hint" in ran.err
    assert listing(here) == before


@pytest.mark.parametrize("failing", range(0, 12, 3))
def test_a_full_disk_at_any_file_leaves_the_earlier_results(here, monkeypatch, failing):
    import errno

    assert run_cli("export", "mlp.pt", *ALL, "-o", "out").code == 0
    before = listing(here)
    calls = iter(range(1000))
    real = os.fsync

    def fsync(descriptor):
        if next(calls) >= failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    ran = run_cli("export", "mlp.pt", *ALL, "-o", "out", "--force")
    assert ran.code == 10
    assert "No space left on device" in ran.err
    assert "free some disk space" in ran.err
    assert ".part" not in ran.err
    assert listing(here) == before


def test_an_interrupt_while_writing_leaves_nothing(here, monkeypatch):
    from snn_deploy.backends.fpga.target import FpgaTarget

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(FpgaTarget, "write", interrupted)
    before = listing(here)
    assert run_cli("export", "mlp.pt", *ALL, "-o", "out").code == 130
    assert listing(here) == before


def test_map_writes_where_every_neuron_lies(here):
    ran = run_cli("export", "mlp.pt", *ALL, "-o", "out", "--map", "map.json", "-v")
    assert ran.code == 0, ran.err
    document = json.loads((here / "map.json").read_text())
    assert document == json.loads((here / "out" / "loihi" / "cores.json").read_text())
    assert (document["schema"], document["device"]) == (1, "loihi1")
    assert document["totals"]["neurons"] == 11 and document["totals"]["cores"] == 1
    assert "Cores of loihi1" in ran.out and "Core by core on loihi1" in ran.out
    assert "wrote map.json" in ran.err
    again = run_cli("export", "mlp.pt", "-t", "loihi", "-o", "other", "--map", "map.json")
    assert again.code == 10 and "map.json exists already" in again.err


def test_split_puts_a_layer_on_several_cores(here):
    ran = run_cli("export", "mlp.pt", "-t", "loihi", "-o", "out", "--split", "fc1=3", "--json", "-")
    assert ran.code == 0, ran.err
    assert ran.json["targets"][0]["cores"]["cores"] == 3
    document = json.loads((here / "out" / "loihi" / "cores.json").read_text())
    assert len(document["populations"]["lif1"]["cores"]) == 3


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        (("-t", "loihi", "--split", "fc9=2"), "no layer is called 'fc9'", "did you mean --split"),
        (("-t", "loihi", "--split", "fc1=99"), "fc1 cannot lie on 99 cores", "N from 1 to 8"),
        (("-t", "loihi", "--split", "fc1"), "'fc1' is not LAYER=N with N from 1", ""),
        (("-t", "loihi", "--split", "fc1=0"), "'fc1=0' is not LAYER=N with N from 1", ""),
        (("-t", "cpu", "--split", "fc1=2"), "--split is for targets that map", "--target loihi"),
        (("-t", "fpga", "--map", "m.json"), "--map is for targets that map", "leave --map out"),
    ],
)
def test_what_cannot_be_split_or_mapped(here, options, message, hint):
    ran = run_cli("export", "mlp.pt", "-o", "out", *options)
    assert ran.code == 2
    assert message in ran.err and hint in ran.err
    assert not (here / "out").exists()
