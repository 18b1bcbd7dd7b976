"""Bars as inline SVG. Lengths are shares of the width, so that a page may be of any width."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from snn_deploy.report.model import Bar
from snn_deploy.report.words import drawable

HEIGHT = 16
# Colours that the page's style gives to parts; more parts begin again at the first.
PART_COLORS = 8
# Half the height of a whisker's ends, in pixels.
_WHISKER = 5


def part_class(index: int) -> str:
    """Return the class that colours the part and its entry in the list below the bar."""
    return f"part{index % PART_COLORS}"


def bar_svg(bar: Bar, top: float, numbers: Mapping[str, int]) -> Markup:
    """Return one bar, ``top`` being the full width; "" for a bar without a finite value.

    numbers: of the parts' labels, for their colours. Parts are stacked; a line with two ends
    shows the interval. The page says all of it in words too, so the drawing is hidden from
    those who have the page read to them.
    """
    if not drawable(bar) or bar.value is None:
        return Markup("")
    shapes = []
    if bar.parts:
        start = 0.0
        for label, value in bar.parts:
            shapes.append(_rect(part_class(numbers[label]), start, start + value, top))
            start += value
    else:
        shapes.append(_rect("whole", 0.0, bar.value, top))
    if bar.low is not None and bar.high is not None:
        shapes.append(_whisker(bar.low, bar.high, top))
    return Markup(
        f'<svg class="bar" width="100%" height="{HEIGHT}" aria-hidden="true" focusable="false">'
        f"{''.join(shapes)}</svg>"
    )


def _share(value: float, top: float) -> float:
    return min(100.0, max(0.0, 100 * value / top)) if top > 0 else 0.0


def _rect(name: str, start: float, end: float, top: float) -> str:
    left, right = _share(start, top), _share(end, top)
    return (
        f'<rect class="{name}" x="{left:.2f}%" y="1" width="{max(0.0, right - left):.2f}%" '
        f'height="{HEIGHT - 2}"/>'
    )


def _whisker(low: float, high: float, top: float) -> str:
    left, right, middle = _share(low, top), _share(high, top), HEIGHT / 2
    upper, lower = middle - _WHISKER, middle + _WHISKER
    lines = (
        (left, middle, right, middle),
        (left, upper, left, lower),
        (right, upper, right, lower),
    )
    return "".join(
        f'<line class="whisker" x1="{a:.2f}%" y1="{b:g}" x2="{c:.2f}%" y2="{d:g}"/>'
        for a, b, c, d in lines
    )
