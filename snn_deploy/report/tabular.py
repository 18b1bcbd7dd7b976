"""A Report for programs: JSON of its data, CSV of its rows."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from typing import Any

from snn_deploy.errors import OutputError, printable
from snn_deploy.report.model import Report

# What a spreadsheet takes for the beginning of a formula, the full-width forms included.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def json_text(report: Report) -> str:
    """Return the report's JSON document: ASCII, keys sorted, indented by two, newline at its end.

    Raises OutputError for NaN and infinities, which JSON cannot hold.
    """
    document = report.as_json()
    _refuse_not_finite(document, "JSON")
    text = json.dumps(document, sort_keys=True, indent=2, allow_nan=False)
    # DEL is the one control character that is ASCII and that json.dumps lets through.
    return text.replace("\x7f", "\\u007f") + "\n"


def csv_text(report: Report) -> str:
    """Return ``report.rows`` as CSV (RFC 4180), one header line, "" where there are no rows.

    Columns in the order in which rows first name them. None and absent values are empty, numbers
    are unrounded, truth values ``true`` and ``false``, lists JSON. Text comes from files that
    nobody vouches for: control characters are escaped, and what a spreadsheet would run as a
    formula gets an apostrophe in front. Raises OutputError for NaN and infinities.
    """
    names = list(dict.fromkeys(name for row in report.rows for name in row))
    if not names:
        return ""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow([_text(name) for name in names])
    for number, row in enumerate(report.rows):
        _refuse_not_finite(dict(row), f"row {number + 1}")
        writer.writerow([_cell(row.get(name)) for name in names])
    return buffer.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    return _text(json.dumps(value, sort_keys=True, allow_nan=False))


def _text(value: str) -> str:
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _refuse_not_finite(value: object, what: str) -> None:
    for place, number in _numbers(value, ""):
        if not math.isfinite(number):
            raise OutputError(
                f"{what} cannot hold {number}",
                where=place.lstrip("."),
                hint="look for a division by zero in what was measured",
            )


def _numbers(value: object, place: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield place, value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _numbers(child, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for i, child in enumerate(value):
            yield from _numbers(child, f"{place}[{i}]")
