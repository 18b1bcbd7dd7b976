from __future__ import annotations

import csv
import io
import json

import pytest

from snn_deploy.errors import OutputError
from snn_deploy.report.model import Report
from snn_deploy.report.tabular import csv_text, json_text
from tests.unit import report_samples as samples


def report(*rows: dict[str, object], **data: object) -> Report:
    return Report(command="run", title="t", sections=(), data=data, rows=rows)


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def test_csv_of_all_kinds_of_values() -> None:
    assert csv_text(samples.full()) == (
        "target,layer,spikes,energy_pj,fits,shape\r\n"
        "cpu,conv1 > lif1,818.5,,true,\r\n"
        'cpu,"fc, ""last""",0,0.1,,[10]\r\n'
    )


def test_numbers_read_back_as_they_were() -> None:
    values = [0.1 + 0.2, 1e-300, -2.5, 10**20, 0]
    cells = read(csv_text(report(*({"n": v} for v in values))))[1:]
    assert [float(c) for (c,) in cells] == values


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", " ="]
)
def test_text_that_a_spreadsheet_would_run_is_disarmed(start: str) -> None:
    name = f"{start}1+cmd|' /C calc'!A0"
    head, row = read(csv_text(report({name: name, "n": -1.5})))
    assert head == [f"'{name}", "n"]
    assert row == [f"'{name}", "-1.5"]


@pytest.mark.parametrize("name", ["\t=1", "\r=1", "\n=1", "a\x00b", "\x1b[31m"])
def test_control_characters_are_escaped(name: str) -> None:
    ((cell,),) = read(csv_text(report({"name": name})))[1:]
    assert cell.isprintable()
    assert cell.startswith(("\\", "a\\x00b"))


def test_harmless_text_stays_as_it_is() -> None:
    name = "conv1 > lif1, a=b 'quoted' \u00e9"
    assert read(csv_text(report({"name": name}))) == [["name"], [name]]


def test_no_rows_no_text() -> None:
    assert csv_text(report()) == ""


def test_json_is_the_documented_document() -> None:
    text = json_text(samples.full())
    document = json.loads(text)
    assert document["schema"] == 1
    assert document["ok"] is True
    assert document["command"] == "compare"
    assert document["targets"][0]["accuracy"] == 0.9125
    assert text.endswith("}\n")
    assert list(document) == sorted(document)


def test_json_is_printable_ascii_and_reads_back() -> None:
    name = "a\x7f\x9b\u202e\x1b[31m\u00e9"
    text = json_text(report(name=name))
    assert text.isascii()
    assert all(c.isprintable() or c == "\n" for c in text)
    assert json.loads(text)["name"] == name


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_json_cannot_hold_is_refused_and_located(bad: float) -> None:
    with pytest.raises(OutputError, match="cannot hold") as found:
        json_text(report(layers=[{"spikes": 1.0}, {"spikes": bad}]))
    assert found.value.where == "layers[1].spikes"
    assert found.value.exit_code == 10
    with pytest.raises(OutputError, match="row 2 cannot hold") as found:
        csv_text(report({"spikes": 1.0}, {"spikes": bad}))
    assert found.value.where == "spikes"
    assert found.value.hint
