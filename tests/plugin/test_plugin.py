"""A target in a package of its own: installed by pip, used by every command, nothing touched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import snn_deploy
from tests import tickets

SOURCE = Path(__file__).parent / "example_target"
PACKAGE = Path(snn_deploy.__file__).parent


@dataclass(frozen=True)
class Place:
    """A folder with a model and data, and the folders whose packages Python sees there."""

    folder: Path
    packages: tuple[Path, ...]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (*self.packages, PACKAGE.parent))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "80",
        }
        return subprocess.run(
            [sys.executable, "-m", "snn_deploy", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def json(self, *arguments: str) -> dict:
        ran = self.run(*arguments, "--json", "-")
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)


def _digest() -> str:
    whole = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            whole.update(str(path).encode() + path.read_bytes())
    return whole.hexdigest()


@pytest.fixture(scope="module")
def untouched():
    before = _digest()
    yield
    assert _digest() == before, "the package changed while the plugin was installed and used"


@pytest.fixture(scope="module")
def installed(tmp_path_factory, untouched) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("plugin")
    source, target = folder / "source", folder / "packages"
    shutil.copytree(SOURCE, source)
    pip = [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    made = subprocess.run(
        [*pip, *offline, str(source)], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return target


@pytest.fixture
def place(installed, tmp_path) -> Place:
    tickets.save(tmp_path / "mlp.pt", tickets.mlp_content())
    tickets.save_data(tmp_path / "mlp.npz")
    return Place(tmp_path, (installed,))


def test_it_is_listed_with_its_package_and_device(place):
    data = place.json("targets", "list")
    found = {t["target"]: t for t in data["targets"]}
    assert list(found) == ["cpu", "loihi", "fpga", "example"]
    assert found["example"]["package"] == "snn-deploy-example-target"
    assert found["example"]["device"] == "table-chip"
    assert "table-chip" in {d["device"] for d in data["devices"]}
    ran = place.run("targets", "list")
    assert "example" in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 80


def test_without_the_package_it_is_not_there(tmp_path):
    data = Place(tmp_path, ()).json("targets", "list")
    assert "example" not in {t["target"] for t in data["targets"]}


def test_its_device_is_shown(place):
    data = place.json("targets", "show", "table-chip")
    assert {p["event"] for p in data["prices"]} == {"synops_effective", "example:lookups"}


def test_it_runs_and_its_own_events_are_priced(place):
    result = place.json("run", "mlp.pt", "-t", "example", "-i", "mlp.npz")["result"]
    lookups = sum(e["total"] for e in result["events"] if e["event"] == "example:lookups")
    operations = sum(e["total"] for e in result["events"] if e["event"] == "synops_effective")
    assert lookups == 12 * 6 * 11
    expected = (5 * lookups + 2 * operations) / result["samples"]
    assert result["energy"]["total"]["nominal_pj"] == pytest.approx(expected)
    cpu = place.json("run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz")["result"]
    assert result["predictions"] == cpu["predictions"]


def test_it_is_compared(place):
    data = place.json("compare", "mlp.pt", "-i", "mlp.npz", "--targets", "cpu,example")
    assert [t["target"] for t in data["targets"]] == ["cpu", "example"]
    assert data["ranking"][0]["ranked"] is False
    ran = place.run("compare", "mlp.pt", "-i", "mlp.npz", "--targets", "cpu,example")
    assert max(map(len, ran.stdout.splitlines())) <= 80


def test_it_exports(place):
    ran = place.run("export", "mlp.pt", "-t", "cpu", "-t", "example", "-o", "out")
    assert ran.returncode == 0, ran.stderr
    out = place.folder / "out"
    assert json.loads((out / "example" / "tables.json").read_text()) == {"lif1": 8, "lif2": 3}
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["targets"]["example"]["device"] == "table-chip"
    assert "example/tables.json" in manifest["files"]


def test_it_verifies_as_model_only(place):
    ran = place.run("verify", "mlp.pt", "-t", "example", "-i", "mlp.npz")
    assert ran.returncode == 0, ran.stderr
    assert "model only" in ran.stdout


def test_its_device_is_among_those_that_fit_judges(place):
    assert place.json("fit", "mlp.pt")["devices"]["table-chip"]["fits"] is True
    tickets.save(place.folder / "wide.pt", tickets.mlp_content((12, 80, 3)))
    ran = place.run("fit", "wide.pt", "-d", "table-chip")
    assert ran.returncode == 5
    assert "83 of 64 entries" in ran.stderr


# ---------------------------------------------------------------- packages that are in the way


def _package(folder: Path, name: str, entry: str) -> Path:
    """Write the metadata of an installed package with one target."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[snn_deploy.targets]\n{entry}\n")
    return folder


def test_two_packages_with_one_name_are_an_error(tmp_path):
    other = _package(tmp_path / "other", "impostor", "cpu = impostor:Cpu")
    ran = Place(tmp_path, (other,)).run("targets", "list")
    assert ran.returncode == 4
    assert "two packages provide a target called 'cpu'" in ran.stderr
    assert "impostor" in ran.stderr
    assert "uninstall one of them" in ran.stderr


def test_a_broken_plugin_breaks_nothing_else(tmp_path):
    broken = _package(tmp_path / "broken", "brittle", "glass = brittle_not_there:Glass")
    place = Place(tmp_path, (broken,))
    tickets.save(tmp_path / "mlp.pt", tickets.mlp_content())
    tickets.save_data(tmp_path / "mlp.npz")
    data = place.json("targets", "list")
    (glass,) = (t for t in data["targets"] if t["target"] == "glass")
    assert "cannot be loaded" in glass["title"]
    assert place.json("run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz")["ok"]
    assert place.json("fit", "mlp.pt")["ok"]
    ran = place.run("run", "mlp.pt", "-t", "glass", "-i", "mlp.npz")
    assert ran.returncode == 4
    assert "target 'glass' cannot be loaded" in ran.stderr
    assert "brittle" in ran.stderr
    assert "reinstall or update" in ran.stderr
