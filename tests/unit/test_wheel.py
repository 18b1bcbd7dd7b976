"""The wheel is complete: built, installed into a clean environment, used from another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests import tickets

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
import snn_deploy
from snn_deploy.backends.loihi.environment import WORKER
from snn_deploy.device.load import names
print(json.dumps([snn_deploy.__file__, str(WORKER), WORKER.is_file(), names()]))
"""


def _call(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _done(*command: object, cwd: Path) -> str:
    ran = _call(*command, cwd=cwd)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    pip = (sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", folder)
    _done(*pip, ROOT, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel; what it depends on is seen where it is installed."""
    folder = tmp_path_factory.mktemp("clean") / "env"
    _done(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin" / "python"
    offline = ("--no-deps", "--no-index", "--disable-pip-version-check")
    pip = (sys.executable, "-m", "pip", "--python", python, "install", *offline, wheel)
    _done(*pip, cwd=folder.parent)
    purelib = Path(
        _done(
            python, "-c", "import site; print(site.getsitepackages()[0])", cwd=folder.parent
        ).strip()
    )
    # A folder named in a .pth file is searched, but the .pth files in it are not obeyed: an
    # editable installation of this package stays out.
    paths = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (purelib / "dependencies.pth").write_text("".join(f"{path}\n" for path in paths))
    return folder


def test_the_wheel_holds_everything_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
        entry_points = next(n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert "loihi = snn_deploy.backends.loihi.target" in archive.read(entry_points).decode()
    package = {
        str(p.relative_to(ROOT))
        for p in (ROOT / "snn_deploy").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    devices = {f"snn_deploy/_targets/{p.name}" for p in (ROOT / "targets").glob("*.toml")}
    devices |= {f"snn_deploy/_targets/rtl/{p.name}" for p in (ROOT / "targets/rtl").iterdir()}
    assert names == package | devices
    assert "snn_deploy/py.typed" in names
    assert any(n.startswith("snn_deploy/report/templates/") for n in names)
    assert "snn_deploy/backends/loihi/lava_worker/worker.py" in names


def test_the_clean_environment_uses_the_wheel(environment, tmp_path):
    answer = _done(environment / "bin" / "python", "-c", SCRIPT, cwd=tmp_path)
    package, worker, there, devices = json.loads(answer)
    assert Path(package).is_relative_to(environment)
    assert Path(worker).is_relative_to(environment)
    assert there
    assert devices == sorted(p.stem for p in (ROOT / "targets").glob("*.toml"))


def test_it_lists_targets_and_exports_for_all_of_them(environment, tmp_path):
    command = environment / "bin" / "snn-deploy"
    listed = json.loads(_done(command, "targets", "list", "--json", "-", cwd=tmp_path))
    assert [t["target"] for t in listed["targets"]][:3] == ["cpu", "loihi", "fpga"]
    for make, name, shape in (
        (tickets.mlp_content, "mlp", (12,)),
        (tickets.conv_content, "conv", (1, 6, 6)),
    ):
        tickets.save(tmp_path / f"{name}.pt", make())
        tickets.save_data(tmp_path / f"{name}.npz", shape)
        targets = [word for t in ("cpu", "loihi", "fpga") for word in ("-t", t)]
        _done(command, "export", f"{name}.pt", *targets, cwd=tmp_path)
        assert (tmp_path / f"{name}-export" / "manifest.json").is_file()
        report = ("--html", f"{name}.html", "--json", f"{name}.json")
        _done(command, "compare", f"{name}.pt", "-i", f"{name}.npz", *report, cwd=tmp_path)
        assert "<html" in (tmp_path / f"{name}.html").read_text()


def test_it_runs_as_a_module(environment, tmp_path):
    python = environment / "bin" / "python"
    assert _done(python, "-m", "snn_deploy", "--version", cwd=tmp_path).startswith("snn-deploy")
