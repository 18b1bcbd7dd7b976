"""Lava's environment is found, made once, made again when half-made, and never half-used."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from snn_deploy.backends.loihi import environment
from snn_deploy.errors import ExternalToolError, MissingDependencyError, OutputError
from snn_deploy.io.cache import CACHE_VARIABLE, cache_folder
from snn_deploy.io.programs import locked

VERSIONS = {"python": "3.11.7", "lava-nc": "0.10.0"}


class FakePrograms:
    """Stands for the interpreter, venv, pip and the worker; remembers what was called."""

    def __init__(self, version: str = "3 11") -> None:
        self.version = version
        self.calls: list[list[str]] = []
        self.failing: dict[str, str] = {}

    def __call__(self, command, limit_s):
        words = [str(word) for word in command]
        self.calls.append(words)
        for key, text in self.failing.items():
            if key in words:
                return subprocess.CompletedProcess(words, 1, "", text)
        if "venv" in words:
            python = Path(words[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()
        output = ""
        if "-c" in words:
            output = self.version
        elif "--version" in words:
            output = json.dumps(VERSIONS)
        return subprocess.CompletedProcess(words, 0, output, "")

    def installs(self) -> list[list[str]]:
        return [c[c.index("install") + 2 :] for c in self.calls if "install" in c]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "the cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    monkeypatch.delenv(environment.PYTHON_VARIABLE, raising=False)
    return folder


@pytest.fixture
def programs(monkeypatch) -> FakePrograms:
    fake = FakePrograms()
    monkeypatch.setattr(environment, "_run", fake)
    return fake


def test_cache_folder_follows_the_variables(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_folder() == tmp_path / "xdg" / "snn-deploy"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "snn-deploy"


def test_nothing_set_up(cache):
    assert environment.find() is None
    with pytest.raises(MissingDependencyError) as caught:
        environment.require()
    assert caught.value.hint == "run: snn-deploy setup loihi"
    assert caught.value.exit_code == 7
    assert not cache.exists()


def test_set_up_on_a_newer_python_goes_around_lavas_pins(cache, programs):
    said: list[str] = []
    made = environment.setup(report=said.append)
    assert made.python == cache / "lava-3.11" / "bin" / "python"
    assert made.versions == VERSIONS
    assert environment.find() == made == environment.require()
    assert programs.installs() == [
        list(environment.DEPENDENCIES),
        ["--no-deps", "--ignore-requires-python", "lava-nc==0.10.0", "lava-dl==0.6.0"],
    ]
    assert [line.split()[0] for line in said] == ["making", "installing", "installing", "importing"]


def test_set_up_on_3_10_takes_lava_as_it_is(cache, programs):
    programs.version = "3 10"
    environment.setup(python=Path("/elsewhere/python3.10"))
    assert programs.calls[0][0] == "/elsewhere/python3.10"
    assert programs.installs() == [
        ["lava-nc==0.10.0", "h5py>=3.7,<4"],
        ["--no-deps", "lava-dl==0.6.0"],
    ]


def test_a_second_set_up_reuses_the_first_unless_forced(cache, programs):
    made = environment.setup()
    before = len(programs.calls)
    assert environment.setup() == made
    assert len(programs.calls) == before + 1  # the interpreter's version, nothing else
    environment.setup(force=True)
    assert len(programs.installs()) == 4


def test_the_environment_set_up_last_is_taken(cache, programs):
    first = environment.setup()
    programs.version = "3 10"
    second = environment.setup()
    assert environment.find() == second
    programs.version = "3 11"
    environment.setup()
    assert environment.find() == first


@pytest.mark.parametrize("failing", ["install", "--version"])
def test_a_half_made_environment_is_not_found_and_made_again(cache, programs, failing):
    programs.failing[failing] = "Collecting x\nERROR: No matching distribution\nhelp text"
    with pytest.raises(ExternalToolError) as caught:
        environment.setup()
    assert "ERROR: No matching distribution" in caught.value.message
    assert "help text" not in caught.value.message
    assert caught.value.hint
    assert environment.find() is None
    leftover = cache / "lava-3.11" / "leftover"
    leftover.touch()
    programs.failing.clear()
    assert environment.setup() == environment.find()
    assert not leftover.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2, "versions": {}}', '{"schema": 1}'])
def test_a_broken_marker_counts_as_none(cache, programs, text):
    made = environment.setup()
    (made.python.parents[1] / environment.MARKER).write_text(text)
    assert environment.find() is None


def test_a_marker_without_its_interpreter_counts_as_none(cache, programs):
    environment.setup().python.unlink()
    assert environment.find() is None


def test_a_missing_venv_module(cache, programs):
    programs.failing["venv"] = "The virtual environment was not created: ensurepip is missing"
    with pytest.raises(MissingDependencyError, match="ensurepip is missing") as caught:
        environment.setup()
    assert "sudo apt install python3.11-venv" in str(caught.value.hint)


@pytest.mark.parametrize("version", ["3 9", "3 14"])
def test_an_unfit_python(cache, programs, version):
    programs.version = version
    with pytest.raises(MissingDependencyError, match="Lava does not run on Python 3") as caught:
        environment.setup()
    assert caught.value.hint == "snn-deploy setup loihi --python PATH, with a Python 3.10 to 3.13"
    assert not cache.exists()


def test_what_is_no_python(cache, tmp_path):
    with pytest.raises(MissingDependencyError, match="is not a Python interpreter"):
        environment.setup(python=tmp_path / "none")
    with pytest.raises(MissingDependencyError, match="is not a Python interpreter"):
        environment.setup(python=Path("/bin/echo"))


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch, programs):
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(OutputError) as caught:
        environment.setup()
    assert CACHE_VARIABLE in str(caught.value.hint)


def test_the_variable_names_any_interpreter(cache, programs, monkeypatch):
    environment._probe_chosen.cache_clear()
    monkeypatch.setenv(environment.PYTHON_VARIABLE, "/elsewhere/lava/bin/python")
    found = environment.require()
    assert found.python == Path("/elsewhere/lava/bin/python")
    assert found.chosen_by == environment.PYTHON_VARIABLE
    environment._probe_chosen.cache_clear()


def test_the_variable_names_an_interpreter_without_lava(cache, monkeypatch):
    monkeypatch.setenv(environment.PYTHON_VARIABLE, sys.executable)
    with pytest.raises(MissingDependencyError, match="No module named 'lava'") as caught:
        environment.find()
    assert caught.value.hint == "unset SNN_DEPLOY_LAVA_PYTHON and run: snn-deploy setup loihi"


def _hold_lock(path: Path, held, release) -> None:
    with locked(path, lambda _: None, "waiting"):
        held.set()
        release.wait(30)


def test_parallel_set_ups_wait_for_each_other(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    path = tmp_path / "lock"
    other = context.Process(target=_hold_lock, args=(path, held, release))
    other.start()
    assert held.wait(30)

    def report(line: str) -> None:
        said.append(line)
        release.set()  # only once we wait does the other one let go

    said: list[str] = []
    with locked(path, report, "waiting for the other"):
        other.join(30)
        assert other.exitcode == 0
    assert said == ["waiting for the other"]
