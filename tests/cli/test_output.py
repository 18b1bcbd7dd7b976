"""``--json``, ``--csv``, ``--html``, ``--force``, ``-q``: where results go."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from snn_deploy.cli.main import SCHEMA
from snn_deploy.report import model
from tests.cli.helpers import listing, run_cli


def test_failures_and_reports_have_one_schema():
    assert model.SCHEMA == SCHEMA


def test_json_on_stdout_is_alone(here):
    ran = run_cli("run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz", "--json", "-")
    assert ran.code == 0
    assert ran.json["schema"] == SCHEMA
    assert ran.json["ok"] is True
    assert ran.json["command"] == "run"
    assert re.fullmatch(r"snn-deploy \d\S*", ran.json["tool"])
    assert ran.json["result"]["samples"] == 12


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["run", "missing.pt", "-t", "cpu", "-i", "mlp.npz"], 3, "bad-input"),
        (["run", "mlp.pt", "-t", "gpu", "-i", "mlp.npz"], 2, "usage"),
        (["run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz", "--steps", "0"], 2, "usage"),
        (["frobnicate"], 2, "usage"),
        (["targets", "show", "loihi9"], 2, "usage"),
    ],
)
@pytest.mark.parametrize("form", [["--json", "-"], ["--json=-"]])
def test_json_on_stdout_is_alone_on_failure_too(here, arguments, code, kind, form):
    ran = run_cli(*arguments, *form)
    assert ran.code == code
    assert ran.json["schema"] == SCHEMA
    assert ran.json["ok"] is False
    assert ran.json["error"]["kind"] == kind
    assert ran.json["error"]["exit_code"] == code
    assert ran.json["error"]["message"] in " ".join(ran.err.split())


def test_a_bug_says_so_and_what_to_send(here, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("\x1b[31mboom")

    monkeypatch.setattr("snn_deploy.frontends.load.load_model", broken)
    ran = run_cli("inspect", "mlp.pt", "--json", "-")
    assert ran.code == 1
    assert ran.json["error"] == {
        "kind": "bug",
        "exit_code": 1,
        "message": "RuntimeError: \\x1b[31mboom",
    }
    assert "This is a bug in snn-deploy" in ran.err
    assert "snn-deploy doctor" in ran.err
    assert "Traceback" in ran.err


def test_an_interrupt_ends_with_130(here, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("snn_deploy.report.analyse.run", interrupted)
    before = listing(here)
    ran = run_cli("run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz", "--json", "-")
    assert ran.code == 130
    assert ran.json["error"]["kind"] == "interrupted"
    assert ran.err.strip() == "interrupted"
    assert listing(here) == before


def test_files_of_all_kinds(here):
    ran = run_cli(
        *("run", "mlp.pt", "-t", "fpga", "-i", "mlp.npz"),
        *("--json", "r.json", "--csv", "r.csv", "--html", "r.html"),
    )
    assert ran.code == 0
    assert ran.out.startswith("run on FPGA accelerator")
    for name in ("r.json", "r.csv", "r.html"):
        assert f"wrote {name}\n" in ran.err
    document = json.loads((here / "r.json").read_text())
    rows = list(csv.DictReader(io.StringIO((here / "r.csv").read_text())))
    assert len(rows) == len(document["result"]["layers"])
    assert rows[1]["layer"] == "fc1 > lif1"
    assert float(rows[1]["synops_effective"]) == pytest.approx(
        document["result"]["layers"][1]["synops_effective"]
    )
    page = (here / "r.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "fc1 &gt; lif1" in page


def test_quiet_prints_nothing(here):
    ran = run_cli("run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz", "-q", "--csv", "r.csv")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert (here / "r.csv").is_file()


def test_verbose_adds_the_details(here):
    plain = run_cli("run", "mlp.pt", "-t", "fpga", "-i", "mlp.npz")
    detailed = run_cli("run", "mlp.pt", "-t", "fpga", "-i", "mlp.npz", "-v")
    assert "Confusion" not in plain.out
    assert "Confusion" in detailed.out
    assert "Horowitz" in detailed.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "mlp.pt", "-t", "loihi", "-i", "mlp.npz", "-v"],
        ["run", "conv.pt", "-t", "fpga", "-i", "conv.npz", "-v"],
        ["compare", "conv.pt", "-i", "conv.npz", "-v"],
        ["export", "conv.pt", "-t", "loihi", "-t", "fpga"],
        ["fit", "mlp.pt", "-v"],
        ["inspect", "conv.pt", "--arithmetic", "loihi", "-v"],
        ["targets", "list"],
        ["targets", "show", "loihi1"],
        ["targets", "ops", "loihi"],
        ["doctor"],
    ],
)
def test_reports_fit_80_columns(here, arguments):
    ran = run_cli(*arguments)
    assert ran.code == 0, ran.err
    assert max(map(len, ran.out.splitlines())) <= 80


@pytest.mark.parametrize("option", ["--json", "--csv", "--html", "--trace"])
def test_an_existing_file_is_refused_before_the_work(here, monkeypatch, option):
    def never(*_, **__):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("snn_deploy.frontends.load.load_model", never)
    (here / "old").write_text("precious")
    ran = run_cli("run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz", option, "old")
    assert ran.code == 10
    assert "error: old exists already" in ran.err
    assert "add --force to replace it" in ran.err
    assert (here / "old").read_text() == "precious"


def test_force_replaces(here):
    (here / "r.json").write_text("old")
    ran = run_cli("inspect", "mlp.pt", "--json", "r.json", "--force")
    assert ran.code == 0
    assert json.loads((here / "r.json").read_text())["command"] == "inspect"


def test_an_input_is_never_overwritten(here):
    before = listing(here)
    ran = run_cli("inspect", "mlp.pt", "--json", "./mlp.pt", "--force")
    assert ran.code == 2
    assert "mlp.pt is an input, it will not be overwritten" in ran.err
    assert listing(here) == before


def test_two_outputs_of_one_name_are_refused(here):
    ran = run_cli("inspect", "mlp.pt", "--json", "r", "--csv", "r")
    assert ran.code == 2
    assert "r is named for two outputs" in ran.err


def test_a_missing_output_folder_is_named(here):
    ran = run_cli("inspect", "mlp.pt", "--json", "none/r.json")
    assert ran.code == 10
    assert "there is no folder none" in ran.err
    assert "mkdir -p none" in ran.err


def test_colours_and_bars_are_for_terminals_and_no_color_wins(here, monkeypatch):
    arguments = ("run", "mlp.pt", "-t", "cpu", "-i", "mlp.npz")
    plain = run_cli(*arguments)
    assert "\x1b" not in plain.out + plain.err
    coloured = run_cli(*arguments, terminal=True)
    assert "\x1b[" in coloured.out
    assert "running on cpu" in coloured.err
    assert run_cli(*arguments, "--no-progress", terminal=True).err == ""
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1m" not in run_cli(*arguments, terminal=True).out
