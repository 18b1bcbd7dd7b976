"""What every renderer says in words, so that nothing rests on colour or length alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from snn_deploy import units
from snn_deploy.report.model import Bar, Chart

# Labels of the tones of a Text.
TONES: Mapping[str, str] = MappingProxyType(
    {"good": "ok", "bad": "problem", "unsure": "unsure", "plain": ""}
)


def drawable(bar: Bar) -> bool:
    """Return whether the bar has a finite value."""
    return bar.value is not None and math.isfinite(bar.value)


def reach(chart: Chart) -> float:
    """Return the largest finite value, end of an interval or sum of parts, at least 0."""
    ends = [0.0]
    for bar in chart.bars:
        found = (bar.value, bar.high, sum(value for _, value in bar.parts))
        ends += [end for end in found if end is not None and math.isfinite(end)]
    return max(ends)


def part_numbers(chart: Chart) -> dict[str, int]:
    """Return a number per label of a part: the same in every bar of the chart."""
    labels = (label for bar in chart.bars for label, _ in bar.parts)
    return {label: i for i, label in enumerate(dict.fromkeys(labels))}


def bar_text(bar: Bar, unit: str) -> str:
    """Return what stands beside a bar.

    Its text, with its interval unless the text tells it; or ``n/a`` and why.
    """
    if bar.value is None:
        return bar.text if bar.text.startswith("n/a") else f"n/a: {bar.text or 'not known'}"
    text = bar.text or units.amount(bar.value, unit)
    if bar.low is None or bar.high is None:
        return text
    low, high = units.amount(bar.low, unit), units.amount(bar.high, unit)
    return text if low in text and high in text else f"{text} ({low} to {high})"


def chart_title(chart: Chart) -> str:
    """Return the title, with the unit where the values are printed without one."""
    if not chart.unit or chart.unit in units.PRINTED:
        return chart.title
    return f"{chart.title} ({chart.unit})"
