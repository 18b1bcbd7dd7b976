"""Render a Report as one HTML file: no scripts, no resources from anywhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from snn_deploy import units
from snn_deploy._version import __version__
from snn_deploy.errors import printable
from snn_deploy.report import words
from snn_deploy.report.mesh import legend, mesh_svg
from snn_deploy.report.model import SCHEMA, Chart, Item, Mesh, Report, Table, Text
from snn_deploy.report.svg import bar_svg, part_class

if TYPE_CHECKING:
    from jinja2 import Template

# With more titled sections than this a page has a table of contents.
_CONTENTS_FROM = 5
_IDENTITY = ("path", "format", "sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A headline figure: note says what it rests on."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The headline figures of one target."""

    title: str
    figures: tuple[Figure, ...]


def html_text(report: Report) -> str:
    """Return the whole report as HTML, the detailed sections too; the same report, the same text.

    Names are escaped twice over: control characters become visible, markup becomes text.
    """
    titled = [section for section in report.sections if section.title]
    text: str = _template().render(
        report=report,
        model={key: str(_model(report.data).get(key) or "") for key in _IDENTITY},
        figures=model_figures(report.data),
        cards=target_cards(report.data),
        contents=titled if len(titled) >= _CONTENTS_FROM else (),
        tool=f"snn-deploy {__version__}",
        schema=SCHEMA,
    )
    return text


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["kind"] = _kind
    environment.filters["blocks"] = _blocks
    environment.globals.update(
        tones=words.TONES,
        amount=units.amount,
        bar_text=words.bar_text,
        chart_title=words.chart_title,
        drawable=words.drawable,
        reach=words.reach,
        bar_svg=bar_svg,
        part_class=part_class,
        mesh_svg=mesh_svg,
        mesh_legend=legend,
        part_numbers=words.part_numbers,
    )
    source = files("snn_deploy.report").joinpath("templates/report.html.j2")
    return environment.from_string(source.read_text(encoding="utf-8"))


def _visible(value: object) -> object:
    """Escape control characters in everything that the template prints but our own drawings."""
    return value if isinstance(value, Markup) else printable(value)


def _kind(item: Item) -> str:
    return {Table: "table", Chart: "chart", Text: "text", Mesh: "mesh"}[type(item)]


def _blocks(lines: Sequence[tuple[str, str]]) -> list[list[tuple[str, list[str]]]]:
    """Return lists of (label, values), each a list of facts or one run of paragraphs.

    Neighbours with the same label belong together.
    """
    blocks: list[list[tuple[str, list[str]]]] = []
    for label, value in lines:
        if blocks and blocks[-1][-1][0] == label:
            blocks[-1][-1][1].append(value)
        elif blocks and blocks[-1][-1][0] and label:
            blocks[-1].append((label, [value]))
        else:
            blocks.append([(label, [value])])
    return blocks


def _model(data: Mapping[str, Any]) -> Mapping[str, Any]:
    model = data.get("model")
    return model if isinstance(model, Mapping) else {}


def model_figures(data: Mapping[str, Any]) -> tuple[Figure, ...]:
    """Return what a report's data say of its network, in figures; empty where it has none."""
    model, found = _model(data), []
    if _number(model.get("neurons")):
        found.append(Figure(label="neurons", value=units.count(model["neurons"])))
    if _number(model.get("nonzeros")) and _number(model.get("weights")):
        found.append(
            Figure(
                label="nonzero weights",
                value=units.count(model["nonzeros"]),
                note=f"of {units.count(model['weights'])}",
            )
        )
    if _number(model.get("sparsity")):
        found.append(Figure(label="sparsity", value=units.percent(model["sparsity"])))
    return tuple(found)


def target_cards(data: Mapping[str, Any]) -> tuple[Card, ...]:
    """Return accuracy, energy and mismatches of every target that a report's data speak of."""
    outcomes: Sequence[Any] = data.get("targets", ())
    if isinstance(data.get("result"), Mapping):
        outcomes = (data["result"],)
    verdicts = data.get("verdicts", {})
    if isinstance(data.get("verdict"), Mapping):
        outcomes = ({"target": data.get("target", "")},)
        verdicts = {data.get("target", ""): data["verdict"]}
    cards = []
    for outcome in outcomes:
        if not isinstance(outcome, Mapping):
            continue
        figures = (
            *_accuracy(outcome.get("accuracy")),
            *_energy(outcome.get("energy")),
            *_mismatches(verdicts.get(outcome.get("target"))),
        )
        if figures:
            cards.append(Card(title=str(outcome.get("target", "")), figures=figures))
    return tuple(cards)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _accuracy(value: Any) -> tuple[Figure, ...]:
    return (Figure(label="accuracy", value=units.percent(value)),) if _number(value) else ()


def _energy(energy: Any) -> tuple[Figure, ...]:
    if not isinstance(energy, Mapping):
        return ()
    total = energy.get("total")
    if total is None:
        why = energy.get("unavailable_reason") or ""
        return (Figure(label="energy per sample", value="n/a", note=why),)
    value = units.energy(total["nominal_pj"])
    basis = f"{energy['basis']} prices" if energy.get("basis") else ""
    note = ", ".join(filter(None, (energy.get("kind"), basis)))
    return (Figure(label="energy per sample", value=value, note=note),)


def _mismatches(verdict: Any) -> tuple[Figure, ...]:
    if not isinstance(verdict, Mapping):
        return ()
    proof = verdict.get("proof")
    compared = proof or verdict.get("lowering") or {}
    number = sum(compared.get("mismatches", {}).values())
    note = f"against {compared.get('judge', '')}" if proof else "model only"
    return (Figure(label="mismatches", value=units.count(number), note=note),)
