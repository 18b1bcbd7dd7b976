"""Chips as meshes of tiles and cores: inline SVG for a page, signs for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator

from markupsafe import Markup, escape

from snn_deploy.errors import printable
from snn_deploy.report.model import Mesh

SIGNS = "0 to 9 in tenths, # more than there is, . free"
_CORE = 20  # side of a core, in units of the drawing
_EDGE = 3  # between cores, and from the edge of a tile
_GAP = 6  # between tiles
_TITLE = 18  # height of a chip's title
_STEPS = 10


def core_class(share: float) -> str:
    """Return the class that colours a core by how full it is."""
    return "over" if share > 1 else f"u{math.floor(_STEPS * share)}"


def legend() -> tuple[tuple[str, str], ...]:
    """Return (class, what it says)."""
    tenths = tuple((f"u{n}", f"{100 * n // _STEPS} %") for n in (0, 5, _STEPS))
    return (("free", "free"), *tenths, ("over", "more than there is"))


def _chips(mesh: Mesh) -> int:
    return 1 + max((core.chip for core in mesh.cores), default=0)


def mesh_svg(mesh: Mesh) -> Markup:
    """Return the drawing, of any width; each core says in words what it holds."""
    across = math.ceil(math.sqrt(mesh.per_tile))
    down = math.ceil(mesh.per_tile / across)
    wide = across * (_CORE + _EDGE) + _EDGE + _GAP
    high = down * (_CORE + _EDGE) + _EDGE + _GAP
    chips = _chips(mesh)
    tall = mesh.rows * high + _TITLE
    held = {(c.chip, c.column, c.row, c.place): c for c in mesh.cores}
    shapes = []
    for chip in range(chips):
        top = chip * tall
        title = f"chip {chip}" if chips > 1 else "row and column of tiles from 0, 0 at the top left"
        shapes.append(f'<text x="0" y="{top + _TITLE - 6}">{title}</text>')
        for row in range(mesh.rows):
            for column in range(mesh.columns):
                x, y = column * wide, top + _TITLE + row * high
                shapes.append(_rect("tile", x, y, wide - _GAP, high - _GAP, ""))
                for place in range(mesh.per_tile):
                    core = held.get((chip, column, row, place))
                    shapes.append(
                        _rect(
                            f"core {'free' if core is None else core_class(core.share)}",
                            x + _EDGE + place % across * (_CORE + _EDGE),
                            y + _EDGE + place // across * (_CORE + _EDGE),
                            _CORE,
                            _CORE,
                            "" if core is None else core.text,
                        )
                    )
    width, height = mesh.columns * wide - _GAP, chips * tall - _GAP
    label = escape(printable(f"{mesh.title}: {len(mesh.cores)} cores"))
    # No wider than drawn at twice its units: a chip of few columns must not fill the page.
    return Markup(
        f'<svg class="mesh" viewBox="-1 -1 {width + 2} {height + 2}" role="img" '
        f'style="max-width: {2 * width}px" aria-label="{label}">{"".join(shapes)}</svg>'
    )


def _rect(name: str, x: int, y: int, width: int, height: int, said: str) -> str:
    place = f'class="{name}" x="{x}" y="{y}" width="{width}" height="{height}" rx="2"'
    if not said:
        return f"<rect {place}/>"
    return f"<rect {place}><title>{escape(printable(said))}</title></rect>"


def mesh_lines(mesh: Mesh, width: int) -> Iterator[str]:
    """Yield the lines of a terminal, tiles apart from each other; several chips one by one."""
    chips = _chips(mesh)
    held = {(c.chip, c.column, c.row, c.place): c for c in mesh.cores}
    # Tiles that do not fit beside each other go on the next line.
    fit = max(1, (width - 2) // (mesh.per_tile + 1))
    for chip in range(chips):
        if chips > 1:
            yield f"  chip {chip}"
        for row in range(mesh.rows):
            tiles = [
                "".join(_sign(held.get((chip, column, row, p))) for p in range(mesh.per_tile))
                for column in range(mesh.columns)
            ]
            for first in range(0, len(tiles), fit):
                yield "  " + " ".join(tiles[first : first + fit])


def _sign(core: object) -> str:
    share = getattr(core, "share", None)
    if share is None:
        return "."
    return "#" if share > 1 else str(min(9, math.floor(_STEPS * share)))
