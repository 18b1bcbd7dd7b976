from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from snn_deploy import _version
from snn_deploy.report import html
from snn_deploy.report.html import html_text, target_cards
from snn_deploy.report.model import Chart, Report, Section, Table, Text
from tests.unit import report_samples as samples

_VOID = {"meta", "link", "rect", "line", "br"}
_RESOURCES = {"src", "href", "srcset", "data", "action", "poster", "xlink:href", "background"}


class Page(HTMLParser):
    """Elements, attributes and texts of a page; fails where elements do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)
        if tag in ("th", "td"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("th", "td"):
            self.cells[-1] += data
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def full() -> Page:
    return Page(html_text(samples.full()))


@pytest.fixture(scope="module")
def hostile() -> str:
    return html_text(samples.hostile())


def test_same_report_same_bytes_also_from_a_new_template() -> None:
    first = html_text(samples.full())
    html._template.cache_clear()
    assert html_text(samples.full()) == first
    assert first.startswith("<!doctype html>\n")
    assert first.endswith("</html>\n")


def test_every_cell_of_every_table_is_on_the_page_in_order(full: Page) -> None:
    expected = []
    for section in samples.full().sections:
        for item in section.items:
            if isinstance(item, Table):
                expected += [*item.columns, *(cell for row in item.rows for cell in row)]
    assert full.cells == expected


def test_columns_align_as_the_table_says() -> None:
    table = Table(title="", columns=("a", "b"), rows=(("x", "1"), ("y", "2")), align="lr")
    report = Report(
        command="run", title="t", sections=(Section(title="", items=(table,)),), data={}
    )
    page = Page(html_text(report))
    classes = [a["class"] for tag, a in page.elements if tag in ("th", "td")]
    assert classes == ["l", "r"] * 3
    assert page.having("tfoot") == []


def test_all_other_text_is_on_the_page(full: Page) -> None:
    report = samples.full()
    assert report.title in full.text
    for section in report.sections:
        assert section.title in full.text
        for item in section.items:
            assert item.title in full.text
            if isinstance(item, Table | Chart):
                assert item.note in full.text
            if isinstance(item, Text):
                for label, value in item.lines:
                    assert label in full.text
                    assert value in full.text


def test_tones_are_words_not_only_colours(full: Page) -> None:
    assert "proof ok spikes 0 mismatches" in full.text
    assert "lowering problem first" in full.text
    assert "unsure ranking not ranked" in full.text


@pytest.mark.parametrize(
    "said",
    [
        "174 nJ",
        "2.31 uJ (2.29 uJ to 3.5 uJ)",
        "593 nJ (100 nJ to 1.2 uJ)",
        "other chip n/a: no price for packets on this chip",
        "idle 0 J",
        "weights 7.812 KiB state 1.953 KiB",
        "indices 1.953 KiB weights 1 bit",
        "Operations (operations) dense 6,759,424",
    ],
)
def test_values_of_charts_are_text(full: Page, said: str) -> None:
    assert said in full.text


def test_an_interval_that_the_text_tells_is_not_told_twice(full: Page) -> None:
    assert full.text.count("100 nJ to 1.2 uJ") == 1


def test_bars_are_as_long_as_their_values(full: Page) -> None:
    # Energy: the longest is the upper end 3.5 uJ of loihi's interval; 2.31 / 3.5 = 66 %.
    widths = [a["width"] for a in full.having("rect") if a["class"] == "whole"]
    assert widths == ["4.97%", "66.00%", "16.94%", "0.00%", "100.00%", "0.00%"]
    ends = [(a["x1"], a["x2"]) for a in full.having("line")]
    assert ends[0] == ("65.43%", "100.00%")
    assert ends[3] == ("2.86%", "34.29%")
    assert len(ends) == 6


def test_a_part_has_the_same_colour_in_every_bar_and_beside_its_label(full: Page) -> None:
    drawn = [a for a in full.having("rect") if str(a["class"]).startswith("part")]
    assert [(a["class"], a["x"], a["width"]) for a in drawn] == [
        ("part0", "0.00%", "80.00%"),
        ("part1", "80.00%", "20.00%"),
        ("part1", "0.00%", "30.00%"),
        ("part2", "30.00%", "20.00%"),
        ("part0", "50.00%", "0.00%"),
    ]
    assert [a["class"] for a in full.having("i")] == ["part0", "part1", "part1", "part2", "part0"]


def test_neighbouring_facts_share_their_label(full: Page) -> None:
    assert "source first second" in full.text


def test_the_contents_link_to_the_sections(full: Page) -> None:
    links = [a["href"] for a in full.having("a")]
    assert links == ["#s1", "#s2", "#s3", "#s4", "#s5"]
    assert [a["id"] for a in full.having("section") if "id" in a] == [
        "s1",
        "s2",
        "s3",
        "s4",
        "s5",
    ]


def test_a_short_report_has_no_contents() -> None:
    sections = tuple(Section(title=f"part {i}", items=()) for i in range(4))
    page = Page(html_text(Report(command="fit", title="t", sections=sections, data={})))
    assert page.having("nav") == []
    assert len(page.having("section")) == 4


def test_headline_figures(full: Page) -> None:
    assert "3,082 nonzero weights 2,128 of 21,280 sparsity 90.0 %" in full.text
    assert (
        "loihi accuracy 91.2 % energy per sample 2.31 uJ simulated, chip prices "
        "mismatches 3 against Lava 0.10.0" in full.text
    )
    assert (
        "fpga energy per sample n/a ecp5-25f has no price for packets mismatches 0 model only"
        in full.text
    )


def test_headlines_of_run_and_verify() -> None:
    (card,) = target_cards({"result": samples.DATA["targets"][0]})  # type: ignore[index]
    assert [f.value for f in card.figures] == ["91.2 %", "2.31 uJ"]
    (card,) = target_cards({"target": "loihi", "verdict": samples.DATA["verdicts"]["loihi"]})  # type: ignore[index]
    assert (card.title, [f.value for f in card.figures]) == ("loihi", ["3"])


@pytest.mark.parametrize(
    "data",
    [{}, {"model": "a.pt"}, {"targets": [{"target": "cpu", "title": "CPU"}]}, {"targets": ["cpu"]}],
)
def test_reports_without_figures_have_no_headline(data: dict[str, object]) -> None:
    page = Page(html_text(Report(command="targets", title="t", sections=(), data=data)))
    assert page.having("dl") == []


def test_footer_names_the_tool_and_its_version(full: Page) -> None:
    assert f"Written by snn-deploy {_version.__version__}, report schema 1." in full.text


def test_hostile_names_stay_text(hostile: str) -> None:
    page = Page(hostile)
    assert page.having("script") == []
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert "<script>alert('x')</script>" in page.text
    assert '" onmouseover="alert(1)' in page.text


def test_template_syntax_in_names_is_not_run(hostile: str) -> None:
    assert "{{7*7}}" in hostile
    assert "{% raw %}" in hostile
    assert "49" not in Page(hostile).text


def test_control_characters_become_visible(hostile: str) -> None:
    assert not [c for c in hostile if not c.isprintable() and c != "\n"]
    text = Page(hostile).text
    for shown in (r"a\x1b[31mred\x00\r\nline", r"right\u202eleft", r"zero\u200bwidth"):
        assert shown in text


@pytest.mark.parametrize("make", [samples.full, samples.hostile])
def test_the_page_asks_for_nothing_from_elsewhere(make: object) -> None:
    text = html_text(make())  # type: ignore[operator]
    page = Page(text)
    for tag, attributes in page.elements:
        for name in _RESOURCES & attributes.keys():
            assert re.fullmatch(r"#s\d+|data:,", str(attributes[name])), (tag, attributes)
        assert tag not in {"script", "img", "iframe", "object", "embed", "form", "base", "use"}
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    assert "//" not in style
    (policy,) = [a["content"] for a in page.having("meta") if "http-equiv" in a]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_the_style_knows_dark_narrow_and_printed_pages() -> None:
    text = html_text(samples.full())
    for condition in ("(prefers-color-scheme: dark)", "(max-width: 40rem)", "print"):
        assert f"@media {condition} {{" in text
    assert Page(text).having("meta")[2]["content"] == "width=device-width, initial-scale=1"
