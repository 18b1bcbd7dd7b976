"""Cores in reports: the section, the drawing, and the signs of a terminal."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from snn_deploy.backends.base import Options
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.device.load import load
from snn_deploy.passes.pipeline import fold
from snn_deploy.report.cores import cores_sections
from snn_deploy.report.html import html_text
from snn_deploy.report.mesh import core_class, mesh_lines, mesh_svg
from snn_deploy.report.model import Mesh, MeshCore, Report
from snn_deploy.report.terminal import render
from tests.builders import mlp

MESH = Mesh(
    title="Tiles & cores",
    columns=8,
    rows=4,
    per_tile=4,
    cores=(
        MeshCore(chip=0, column=0, row=0, place=0, share=0.34, text="core 0: a"),
        MeshCore(chip=0, column=7, row=3, place=3, share=1.0, text="core 127: <b>\x1b[31m"),
        MeshCore(chip=1, column=1, row=0, place=2, share=1.5, text="core 134: c"),
    ),
    note="shares",
)


def document(device: str, *sizes: int, **options):
    net = fold(mlp(np.random.default_rng(0), *sizes, density=0.5))
    target = LoihiTarget()
    return target.usage(prepare(net, target, Options(device=load(device), **options))).cores


def report(sections) -> Report:
    return Report(command="run", title="cores", sections=tuple(sections), data={})


def test_the_colour_of_a_core_is_how_full_it_is():
    shares = (0.0, 0.09, 0.1, 0.55, 0.999, 1.0, 1.001)
    assert [core_class(s) for s in shares] == ["u0", "u0", "u1", "u5", "u9", "u10", "over"]


def test_the_drawing_has_every_core_of_every_chip_and_escapes_what_it_says():
    svg = str(mesh_svg(MESH))
    assert svg.count('class="tile"') == 2 * 32
    assert svg.count('class="core free"') == 2 * 128 - 3
    assert svg.count('class="core u3"') == svg.count('class="core u10"') == 1
    assert svg.count('class="core over"') == 1
    assert "core 127: &lt;b&gt;\\x1b[31m" in svg and "<b>" not in svg
    assert "chip 0" in svg and "chip 1" in svg
    assert 'aria-label="Tiles &amp; cores: 3 cores"' in svg
    found = re.search(r'class="core u3" x="(\d+)" y="(\d+)" width="(\d+)"', svg)
    assert found is not None and found.groups() == ("3", "21", "20")
    # Nothing lies outside of the drawing, or on another core.
    box = re.search(r'viewBox="-1 -1 (\d+) (\d+)"', svg)
    assert box is not None
    places = re.findall(r'class="core \w+" x="(\d+)" y="(\d+)"', svg)
    assert len(set(places)) == 256
    assert all(int(x) + 20 < int(box[1]) and int(y) + 20 < int(box[2]) for x, y in places)


def test_a_terminal_shows_tenths():
    lines = list(mesh_lines(MESH, 80))
    assert lines[0] == "  chip 0" and lines[5] == "  chip 1"
    assert lines[1] == "  3... .... .... .... .... .... .... ...."
    assert lines[4] == "  .... .... .... .... .... .... .... ...9"
    assert lines[6] == "  .... ..#. .... .... .... .... .... ...."
    assert all(len(line) <= 22 for line in mesh_lines(MESH, 22))


def test_few_cores_are_shown_at_once_and_many_as_a_detail():
    few = cores_sections(document("loihi1", 5, 6, 4), "loihi1")
    text = render(report(few))
    assert "Cores of loihi1" in text and "1 on 1 chip" in text and "n1 n2" in text
    assert "Core by core" not in text
    many = cores_sections(document("loihi1", 5, 30, 4, splits={"w1": 9}), "loihi1")
    text = render(report(many))
    assert "The 6 fullest cores" in text and "9 on 1 chip" in text
    detail = render(report(many), detail=True)
    assert len(re.findall(r"^ +\d+ +n1\[", detail, re.MULTILINE)) == 6 + 9
    assert max(map(len, detail.splitlines())) <= 80
    page = html_text(report(many))
    assert page.count('class="core u') == 9 and "more than there is" in page


def test_without_tiles_the_drawing_says_so():
    sections = cores_sections(document("loihi2", 5, 30, 4, splits={"w1": 20}), "loihi2")
    text = render(report(sections), detail=True)
    assert "Cores, without places: no tiles are public" in text
    assert "shared cores" in text
    mesh = next(item for item in sections[1].items if isinstance(item, Mesh))
    assert (mesh.columns, mesh.rows, mesh.per_tile) == (16, 2, 1)
    assert str(mesh_svg(replace(mesh, title="x"))).count('class="core u') == 20
