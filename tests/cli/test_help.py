"""Help, the command table, suggestions, and what a bare ``--help`` loads."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import click
import pytest

from snn_deploy.cli.main import COMMANDS
from tests.cli.helpers import run_cli

HEAVY = ("torch", "numpy", "scipy", "h5py", "numba", "nir", "rich", "jinja2", "norse")
SUBCOMMANDS = [("targets", "list"), ("targets", "show"), ("targets", "ops")]


def _loaded_by(*arguments: str) -> set[str]:
    code = (
        "import json, sys\n"
        "from snn_deploy.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as stop:\n    assert stop.code == 0, stop.code\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in json.loads(ran.stderr.splitlines()[-1])}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["export", "--help"]])
def test_help_loads_no_library(arguments):
    assert not _loaded_by(*arguments) & set(HEAVY)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name):
    command = import_module(f"snn_deploy.cli.{name.replace('-', '_')}_command").command
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.get_short_help_str(limit=100) == COMMANDS[name]


@pytest.mark.parametrize("path", [[name] for name in COMMANDS] + [list(p) for p in SUBCOMMANDS])
def test_every_command_explains_itself(path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    ran = run_cli(*path, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: snn-deploy {' '.join(path)} ")
    assert "Options:" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    assert ran.err == ""


def test_help_lists_commands_and_exit_codes():
    ran = run_cli("--help")
    assert ran.code == 0
    for name, text in COMMANDS.items():
        assert any(line.split(None, 1) == [name, text] for line in ran.out.splitlines())
    words = " ".join(ran.out.split())
    assert "5 does not fit, 6 mismatch, 7 missing dependency" in words


def test_without_a_command_help_is_shown():
    ran = run_cli()
    assert ran.code == 2
    assert "Commands:" in ran.err + ran.out


def test_version():
    from snn_deploy import __version__

    assert run_cli("--version").out == f"snn-deploy, version {__version__}\n"


def test_a_near_command_is_suggested():
    ran = run_cli("exprot", "model.pt")
    assert ran.code == 2
    assert "No such command 'exprot'. Did you mean 'export'?" in ran.err


def test_a_near_option_is_suggested():
    ran = run_cli("run", "model.pt", "--sample", "3")
    assert ran.code == 2
    assert "--samples" in ran.err


def test_control_characters_in_a_command_are_escaped():
    ran = run_cli("ex\x1b[31mport")
    assert ran.code == 2
    assert "\x1b" not in ran.err


def test_a_closed_pipe_is_no_error():
    code = "from snn_deploy.cli.main import main; main(['targets', 'show', 'loihi1'])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    assert process.wait() == 0
