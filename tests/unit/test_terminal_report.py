from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from snn_deploy import units
from snn_deploy.report.layout import cells, fold, table_lines
from snn_deploy.report.model import Bar, Chart, Report, Section, Table, Text
from snn_deploy.report.terminal import render
from tests.unit import report_samples as samples

WIDTHS = (40, 60, 80, 100, 120)


def one(item: Table | Chart | Text, **options: object) -> str:
    """Return what is printed below the title."""
    sections = (Section(title="", items=(item,)),)
    report = Report(command="run", title="t", sections=sections, data={})
    return render(report, **options).split("\n", 2)[2]  # type: ignore[arg-type]


def test_golden(golden: Callable[[str, str], None]) -> None:
    golden("report_80.txt", render(samples.full(), width=80, detail=True))


def test_golden_wide(golden: Callable[[str, str], None]) -> None:
    golden("report_120.txt", render(samples.full(), width=120, detail=True))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("make", [samples.full, samples.hostile])
def test_no_line_is_too_long(make: Callable[[], Report], width: int) -> None:
    lines = render(make(), width=width, detail=True).splitlines()
    assert max(map(cells, lines)) <= width
    assert not [line for line in lines if line != line.rstrip()]


@pytest.mark.parametrize("columns", [1, 2, 9, 26, 40])
@pytest.mark.parametrize("name", ["fc", "x" * 200, "a few words " * 20])
@pytest.mark.parametrize("cell", ["3.5", "1,234,567.8", "9" * 90])
def test_tables_fit_and_lose_nothing(columns: int, name: str, cell: str) -> None:
    table = Table(
        title="",
        columns=("layer", *(f"count {i}" for i in range(columns))),
        rows=((name, *(cell,) * columns), ("total", *("7",) * columns)),
        align="l" + "r" * columns,
        total=True,
    )
    lines = [line for line, _ in table_lines(table, 80)]
    assert max(map(cells, lines)) <= 80
    text = "\n".join(lines)
    if len(cell) < 40:
        assert text.split().count(cell) == columns
        for i in range(columns):
            assert re.search(rf"\b{i}\b", text)
    else:
        assert text.count("9") >= 90 * columns
    repeated = text.count("layer")
    assert text.count("x") == name.count("x") * repeated
    assert text.count("words") == name.count("words") * repeated
    assert text.count("total") == repeated


def test_numbers_stand_whole_on_a_line() -> None:
    text = one(samples.COMPARISON)
    for row in samples.COMPARISON.rows:
        (line,) = [line for line in text.splitlines() if line.startswith(row[0])]
        assert re.split(r"  +", line) == list(row)


def test_wide_tables_are_divided_and_repeat_the_first_column() -> None:
    lines = one(samples.WIDE).splitlines()
    assert len([line for line in lines if line.lstrip().startswith("layer")]) == 3
    fc = [line.split()[1:] for line in lines if line.lstrip().startswith("fc")]
    assert [cell for line in fc for cell in line] == [str(i) for i in range(11)]


def test_long_names_are_folded_not_cut() -> None:
    table = Table(title="", columns=("layer", "n"), rows=((samples.LONG * 2, "12"),), align="lr")
    body = one(table).splitlines()[2:]
    assert "".join(line.split()[0] for line in body) == samples.LONG * 2
    assert body[0].split()[1] == "12"


def test_a_table_without_rows_shows_its_columns() -> None:
    assert one(Table(title="", columns=("a", "b"), rows=(), align="lr")) == "  a   b\n  ─────\n"


def test_detail_is_left_out_unless_asked_for() -> None:
    assert "Sources" not in render(samples.full())
    assert "Sources" in render(samples.full(), detail=True)


def test_control_characters_become_visible() -> None:
    text = render(samples.hostile())
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    assert r"a\x1b[31mred\x00\r\nline" in text


def test_colour_adds_escape_sequences_and_nothing_else() -> None:
    colored = render(samples.full(), color=True, detail=True)
    assert "\x1b[1;31mlowering [problem]\x1b[0m" in colored
    assert "\x1b[32mproof [ok]\x1b[0m" in colored
    plain = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert plain == render(samples.full(), detail=True)


def test_chart_with_intervals_absent_values_and_zero() -> None:
    assert one(samples.ENERGY) == (
        "Energy per sample\n"
        "  cpu         #                             174 nJ\n"
        "  loihi       #################|---------|  2.31 uJ (2.29 uJ to 3.5 uJ)\n"
        "  fpga        |####----|                    593 nJ (100 nJ to 1.2 uJ)\n"
        "  other chip  n/a: no price for packets on this chip\n"
        "  idle                                      0 J\n"
        "  architecture energies are not ranked against a chip's\n"
    )


def test_parts_are_drawn_in_their_share_and_named_with_their_values() -> None:
    lines = one(samples.MEMORY).splitlines()
    assert lines[1].split() == ["cpu", "#" * 22 + "=" * 6, "9.766", "KiB"]
    assert lines[2].strip() == "# weights 7.812 KiB, = state 1.953 KiB"
    assert lines[3].split() == ["fpga", "=" * 8 + "+" * 6, "4.883", "KiB"]
    assert lines[4].strip() == "= state 2.93 KiB, + indices 1.953 KiB, # weights 1 bit"


def test_bar_of_an_infinite_value_is_not_drawn() -> None:
    chart = Chart(
        title="t",
        unit="x",
        bars=(Bar(label="a", value=float("inf"), text="endless"), Bar(label="b", value=2.0)),
    )
    lines = one(chart).splitlines()
    assert lines[1] == "  a  endless"
    assert lines[2].split() == ["b", "#" * 28, "2"]


def test_facts_with_long_labels_keep_the_column() -> None:
    text = one(Text(lines=(("a", "first"), ("l" * 40, "second"), ("", "alone"))))
    assert text == f"  a  first\n  {'l' * 40}\n     second\n  alone\n"


def test_wide_and_combining_characters_are_counted_as_a_terminal_does() -> None:
    assert cells("層1") == 3
    assert cells("e\u0301") == 1
    assert fold("層層層層 b", 4) == ["層層", "層層", "b"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0 %"),
        (1, "100.0 %"),
        (0.5, "50.0 %"),
        (0.9996, "99.96 %"),
        (1_048_577 / 1_048_576, "100.0001 %"),
        (0.0001, "0.01 %"),
        (1 - 1e-15, "100.0 %"),
    ],
)
def test_percent_never_rounds_to_all_or_nothing(value: float, text: str) -> None:
    assert units.percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.04, "0.04"), (0.5, "0.5"), (12.34, "12.3"), (1e6, "1,000,000")],
)
def test_count_shows_what_is_rare(value: float, text: str) -> None:
    assert units.count(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (8 * 1024, "bits", "1 KiB"),
        (1500.0, "pJ", "1.5 nJ"),
        (2.5e9, "s", "2.5 Gs"),
        (0.001, "s", "1 ms"),
        (4096, "operations", "4,096"),
    ],
)
def test_amounts(value: float, unit: str, text: str) -> None:
    assert units.amount(value, unit) == text
