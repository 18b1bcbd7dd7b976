"""The schema of a device file: typed readers of one TOML table, each error with its place."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from snn_deploy.device.model import KINDS, VALUE_KINDS, Number, Price, Source, Value
from snn_deploy.errors import DeviceError, printable
from snn_deploy.ir.events import EVENT_NAMES

SCHEMA = 1
MAX_NUMBER = 1e18
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
KEY = re.compile(r"[a-z0-9][a-z0-9_:.-]{0,79}")


def near(word: str, known: Iterable[str]) -> str | None:
    """Return "did you mean ..." for the nearest known words, or None."""
    found = difflib.get_close_matches(word, list(known), n=2, cutoff=0.6)
    return f"did you mean {' or '.join(repr(w) for w in found)}?" if found else None


class Table:
    """One table of a device file; it knows where it stands and refuses what it does not know.

    Every problem is a DeviceError with ``file -> table.key``.
    """

    def __init__(self, data: object, *, file: str, at: str, known: Iterable[str] = ()) -> None:
        self.file = file
        self.at = at
        if not isinstance(data, dict):
            raise self.error("must be a table", hint=f"[{at}] with key = value lines")
        self.data: dict[str, Any] = data
        self.known = tuple(known)
        for key in data:
            if self.known and key not in self.known:
                raise self.error(
                    f"unknown key {key!r}",
                    key=key,
                    hint=near(key, self.known) or f"known keys: {', '.join(self.known)}",
                )

    def error(self, message: str, *, key: str = "", hint: str | None = None) -> DeviceError:
        """Return a DeviceError at this table or at one of its keys."""
        place = ".".join(part for part in (self.at, key) if part)
        return DeviceError(message, where=f"{self.file} -> {place}", hint=hint)

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def _get(self, key: str, hint: str | None) -> object:
        if key not in self.data:
            raise self.error(f"{key!r} is missing", key=key, hint=hint)
        return self.data[key]

    def text(self, key: str, default: str | None = None, *, hint: str | None = None) -> str:
        """Return a string; an empty one only where the default is empty."""
        if default is not None and key not in self.data:
            return default
        found = self._get(key, hint)
        if not isinstance(found, str) or (not found.strip() and default != ""):
            raise self.error(f"{key!r} must be a text, not empty", key=key, hint=hint)
        return printable(found)

    def choice(self, key: str, allowed: Iterable[str], default: str | None = None) -> str:
        """Return one of the allowed words."""
        allowed = tuple(allowed)
        hint = f"one of {', '.join(allowed)}"
        found = self.text(key, default, hint=hint)
        if found not in allowed and found != default:
            raise self.error(f"{key!r} is {found!r}", key=key, hint=near(found, allowed) or hint)
        return found

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        found = self.data.get(key, default)
        if not isinstance(found, bool):
            raise self.error(f"{key!r} must be true or false", key=key)
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings, () where absent."""
        found = self.data.get(key, [])
        if not isinstance(found, list) or not all(isinstance(t, str) and t.strip() for t in found):
            raise self.error(f"{key!r} must be a list of texts", key=key)
        return tuple(printable(t) for t in found)

    def number(self, key: str) -> Number:
        """Return a finite number, not negative."""
        return self._checked(self._get(key, None), key)

    def numbers(self, key: str) -> Number | tuple[Number, ...]:
        """Return a number, or a list of them as a tuple."""
        found = self._get(key, None)
        if isinstance(found, list):
            if not found:
                raise self.error(f"{key!r} is an empty list", key=key)
            return tuple(self._checked(item, key) for item in found)
        return self._checked(found, key)

    def _checked(self, found: object, key: str) -> Number:
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self.error(f"{key!r} must be a number", key=key, hint="without quotes")
        if isinstance(found, float) and not math.isfinite(found):
            raise self.error(f"{key!r} must be finite", key=key)
        if found < 0:
            raise self.error(f"{key!r} must not be negative", key=key)
        if found > MAX_NUMBER:
            raise self.error(
                f"{key!r} is larger than {MAX_NUMBER:g}", key=key, hint="check the unit"
            )
        return found

    def tables(self, key: str, known: Iterable[str]) -> dict[str, Table]:
        """Return the named tables inside ``key``, {} where absent."""
        outer = Table(self.data.get(key, {}), file=self.file, at=key)
        for name in outer.data:
            if not KEY.fullmatch(name):
                raise outer.error("a name has lower-case letters, digits and _ only", key=name)
        return {
            name: Table(data, file=self.file, at=f"{key}.{name}", known=known)
            for name, data in outer.data.items()
        }

    def named_texts(self, key: str) -> dict[str, str]:
        """Return the name -> text entries inside ``key``, {} where absent."""
        outer = Table(self.data.get(key, {}), file=self.file, at=key)
        return {name: outer.text(name) for name in outer.data}


SOURCE_KEYS = ("title", "doi", "ref")
VALUE_KEYS = ("value", "unit", "source", "kind", "conditions")
PRICE_KEYS = ("nominal_pj", "low_pj", "high_pj", "unit", "sources", "kind", "conditions")


def read_source(table: Table) -> Source:
    """Return a source; it needs a title, and a DOI or a reference."""
    source = Source(title=table.text("title"), doi=table.text("doi", ""), ref=table.text("ref", ""))
    if not (source.doi or source.ref):
        raise table.error("a source needs 'doi' or 'ref'", hint='ref = "section 2.3, table 4", say')
    return source


def known_source(table: Table, name: str, sources: Mapping[str, Source], key: str) -> str:
    """Return ``name`` if the file defines it as a source."""
    if name not in sources:
        raise table.error(
            f"source {name!r} is not defined",
            key=key,
            hint=near(name, sources) or f"add [sources.{name}] with a title and a doi or ref",
        )
    return name


def read_value(table: Table, sources: Mapping[str, Source]) -> Value:
    """Return a value; unit, source and kind are required."""
    return Value(
        value=table.numbers("value"),
        unit=table.text("unit", hint='what the number counts, as in unit = "bits"'),
        source=known_source(
            table,
            table.text("source", hint="a number without a source does not ship"),
            sources,
            "source",
        ),
        kind=table.choice("kind", VALUE_KINDS),
        conditions=table.text("conditions", ""),
    )


def read_price(table: Table, event: str, sources: Mapping[str, Source]) -> Price:
    """Return a price; an interval needs two sources and low <= nominal <= high."""
    if event not in EVENT_NAMES and ":" not in event:
        raise table.error(
            f"{event!r} is not an event",
            hint=near(event, EVENT_NAMES) or "a plugin's events are called 'plugin:event'",
        )
    unit = table.choice("unit", ("pJ",))
    cited = table.texts("sources")
    if not cited:
        raise table.error("'sources' is missing", key="sources", hint='sources = ["id"]')
    for name in cited:
        known_source(table, name, sources, "sources")
    nominal = float(table.number("nominal_pj"))
    ends = [float(table.number(k)) if k in table else None for k in ("low_pj", "high_pj")]
    low, high = ends
    if (low is None) != (high is None):
        raise table.error("an interval has both 'low_pj' and 'high_pj'")
    if low is not None and high is not None:
        if len(set(cited)) < 2:
            raise table.error(
                "an interval needs two sources", key="sources", hint="drop low_pj and high_pj"
            )
        if not low <= nominal <= high:
            raise table.error("low_pj <= nominal_pj <= high_pj does not hold")
    return Price(
        event=event,
        low_pj=low,
        nominal_pj=nominal,
        high_pj=high,
        unit=unit,
        sources=cited,
        kind=table.choice("kind", KINDS),
        conditions=table.text("conditions", ""),
    )
