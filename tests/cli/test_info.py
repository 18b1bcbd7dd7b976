"""``inspect``, ``targets``, ``doctor``, ``setup``."""

from __future__ import annotations

import pytest

from snn_deploy.backends.fpga import tools
from snn_deploy.backends.loihi import environment
from snn_deploy.device.load import names
from tests.cli.helpers import run_cli


def test_inspect_shows_layers_and_sparsity(here):
    ran = run_cli("inspect", "mlp.pt", "--json", "-")
    assert ran.code == 0
    first, second = ran.json["projections"]
    assert (first["projection"], first["pre"], first["post"]) == ("fc1", "input", "lif1")
    assert 0 < first["nonzeros"] < first["weights"] == 96
    assert second["weights"] == 24
    text = run_cli("inspect", "mlp.pt").out
    assert f"{first['nonzeros']} of 96" in text
    assert "v_threshold 1" in text


def test_inspect_before_and_after_folding(here):
    assert "BatchNorm" in run_cli("inspect", "conv.pt").out
    assert "BatchNorm" not in run_cli("inspect", "conv.pt", "--folded").out


@pytest.mark.parametrize("arithmetic", ["loihi", "fpga"])
def test_inspect_shows_integers(here, arithmetic):
    ran = run_cli("inspect", "conv.pt", "--arithmetic", arithmetic, "--bits", "6")
    assert ran.code == 0
    assert f"In {arithmetic} integers" in ran.out
    assert "threshold" in ran.out


def test_targets_list_names_packages_and_judges():
    ran = run_cli("targets", "list", "--json", "-")
    assert ran.code == 0
    targets = {t["target"]: t for t in ran.json["targets"]}
    assert list(targets)[:3] == ["cpu", "loihi", "fpga"]
    assert targets["loihi"]["judge"] == "lava"
    assert targets["fpga"]["judge"] == "rtl"
    assert {targets[n]["package"] for n in ("cpu", "loihi", "fpga")} == {"snn-deploy"}
    assert {d["device"] for d in ran.json["devices"]} >= set(names())


@pytest.mark.parametrize("device", names())
def test_every_value_of_a_device_has_unit_kind_and_source(device):
    ran = run_cli("targets", "show", device, "--json", "-")
    assert ran.code == 0
    for value in ran.json["values"]:
        assert value["unit"]
        assert value["kind"]
        assert value["source"]
    assert all(price["sources"] for price in ran.json["prices"])
    text = run_cli("targets", "show", device).out
    assert text.startswith(f"{device}: ")
    assert "Sources" in text


@pytest.mark.parametrize("target", ["cpu", "loihi", "fpga"])
def test_ops(target):
    ran = run_cli("targets", "ops", target, "--json", "-")
    assert ran.code == 0
    assert len(ran.json["ops"]) >= 3


def test_ops_lists_a_targets_settings():
    assert "--set banks=N" in run_cli("targets", "ops", "fpga").out


def test_doctor_without_lava(tmp_path, monkeypatch):
    monkeypatch.setenv(environment.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(environment.PYTHON_VARIABLE, raising=False)
    ran = run_cli("doctor", "--json", "-")
    assert ran.code == 0
    parts = {p["part"]: p for p in ran.json["parts"]}
    assert parts["lava"]["version"] == "missing"
    assert "snn-deploy setup loihi" in parts["lava"]["for"]
    assert parts["numpy"]["version"][0].isdigit()
    assert ran.json["facts"]["cache"] == str(tmp_path / "cache")


def test_doctor_with_a_broken_lava(tmp_path, monkeypatch):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no lava here >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv(environment.PYTHON_VARIABLE, str(broken))
    ran = run_cli("doctor")
    assert ran.code == 0
    assert "no lava here" in " ".join(ran.out.split())


def test_doctor_names_a_missing_package_and_its_command(monkeypatch):
    from snn_deploy.report import doctor

    real = doctor.version

    def version(name):
        if name == "norse":
            raise doctor.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor, "version", version)
    parts = {p["part"]: p for p in run_cli("doctor", "--json", "-").json["parts"]}
    assert parts["norse"]["version"] == "missing"
    assert "pip install 'snn-deploy[train]'" in parts["norse"]["for"]


def test_doctor_shows_the_fpga_tools(tmp_path, monkeypatch):
    monkeypatch.setattr(tools, "_packaged", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in tools.NAMES:
        monkeypatch.delenv(tools.variable(name), raising=False)
    own = tmp_path / "own"
    own.write_text("#!/bin/sh\necho Yosys 0.50\n")
    own.chmod(0o755)
    monkeypatch.setenv("SNN_DEPLOY_YOSYS", str(own))
    monkeypatch.setenv("SNN_DEPLOY_VERILATOR", str(tmp_path / "none"))
    parts = {p["part"]: p for p in run_cli("doctor", "--json", "-").json["parts"]}
    assert parts["yosys"]["version"] == "0.50"
    assert parts["yosys"]["for"] == f"synthesis, {own}"
    assert parts["verilator"]["version"] == "broken"
    assert "unset SNN_DEPLOY_VERILATOR" in parts["verilator"]["for"]
    assert parts["nextpnr-ecp5"]["version"] == "missing"
    assert tools.INSTALL in parts["nextpnr-ecp5"]["for"]
    assert "sudo apt install g++ make" in parts["make"]["for"]


def test_setup_returns_what_is_there(tmp_path, monkeypatch):
    found = environment.LavaEnvironment(
        python=tmp_path / "python", versions={"lava-nc": "0.10.0"}, chosen_by="cache"
    )
    monkeypatch.setattr(environment, "setup", lambda *_: found)
    ran = run_cli("setup", "loihi", "--json", "-")
    assert ran.code == 0
    assert ran.json["versions"] == {"lava-nc": "0.10.0"}
    ran = run_cli("setup", "loihi")
    assert ran.out.startswith("loihi is ready\n")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "is not a Python interpreter"),
        ("#!/bin/sh\necho 3 9\n", "Lava does not run on Python 3.9"),
    ],
)
def test_setup_with_an_unfit_interpreter(tmp_path, monkeypatch, content, text):
    monkeypatch.setenv(environment.CACHE_VARIABLE, str(tmp_path / "cache"))
    python = tmp_path / "python"
    if content is not None:
        python.write_text(content)
        python.chmod(0o755)
    ran = run_cli("setup", "loihi", "--python", python)
    assert ran.code == 7
    assert text in ran.err
    assert "3.10 to 3.13" in ran.err
    assert not (tmp_path / "cache").exists()


def test_setup_knows_one_target():
    ran = run_cli("setup", "fpga")
    assert ran.code == 2
    assert "loihi" in ran.err


def test_inspect_shows_the_load_of_elements(here):
    ran = run_cli("inspect", "mlp.pt", "--elements", "4", "--json", "-")
    assert ran.code == 0
    load = ran.json["load"]
    assert load["work"] + load["idle"] == 4 * load["cycles"]
    assert load["work"] == sum(p["nonzeros"] for p in ran.json["projections"])
    first, second = load["layers"]
    assert (first["name"], first["channels"], first["ceiling"]) == ("fc1", 8, 1)
    assert second["ceiling"] == pytest.approx(2 / 3)
    assert load["utilisation"] == first["utilisation"]
    text = run_cli("inspect", "mlp.pt", "--elements", "4").out
    assert "Load of 4 processing elements" in text
    assert f"{second['utilisation']:.3f} of 0.667" in text
    assert "load" not in run_cli("inspect", "mlp.pt", "--json", "-").json
    few = run_cli("inspect", "mlp.pt", "--elements", "64", "--json", "-")
    assert few.json["load"]["utilisation"] is None
    text = run_cli("inspect", "mlp.pt", "--elements", "64").out
    assert text.split("all ")[1].splitlines()[0].endswith(" -")
    assert run_cli("inspect", "mlp.pt", "--elements", "0").code == 2
