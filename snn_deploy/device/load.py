"""Find and read device files: those shipped with the package, and the user's own."""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import os
import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from snn_deploy.device.model import BASES, FAMILIES, Device, Source, Value
from snn_deploy.device.schema import (
    NAME,
    PRICE_KEYS,
    SCHEMA,
    SOURCE_KEYS,
    VALUE_KEYS,
    Table,
    known_source,
    near,
    read_price,
    read_source,
    read_value,
)
from snn_deploy.errors import DeviceError, UsageError

MAX_BYTES = 256 * 1024
TOP_KEYS = (
    "schema",
    "name",
    "title",
    "family",
    "inherits",
    "fit_only",
    "basis",
    "notes",
    "excludes",
    "sources",
    "limits",
    "timing",
    "prices",
    "static_power",
    "unknown",
)
T = TypeVar("T")


def _folder() -> Traversable:
    """Return ``targets/``: package data in a wheel, beside the package in a source checkout."""
    shipped = importlib.resources.files("snn_deploy").joinpath("_targets")
    if shipped.is_dir():
        return shipped
    checkout = Path(__file__).resolve().parents[2] / "targets"
    if checkout.is_dir():
        return checkout
    raise AssertionError("the device files are missing from the installation")


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of the shipped devices, sorted."""
    files = (entry.name for entry in _folder().iterdir())
    return tuple(sorted(name[: -len(".toml")] for name in files if name.endswith(".toml")))


def load(name_or_path: str | os.PathLike[str]) -> Device:
    """Return a shipped device by name, or the one that a TOML file describes.

    A text that ends in ``.toml`` or has a path separator is a path. Raises UsageError for a
    name or file that does not exist, DeviceError (``file -> table.key``) for a bad file.
    """
    text = os.fspath(name_or_path)
    if text.endswith(".toml") or os.sep in text or "/" in text:
        path = Path(text)
        if not path.is_file():
            raise UsageError(
                f"there is no device file {text!r}",
                hint=f"a path to a .toml file, or one of {', '.join(names())}",
            )
        return _device(_read(path, text), text)
    if text not in names():
        known = f"known devices: {', '.join(names())}"
        guess = near(text, names())
        raise UsageError(f"unknown device {text!r}", hint=f"{guess} {known}" if guess else known)
    return _shipped(text)


@functools.cache
def _shipped(name: str) -> Device:
    file = f"{name}.toml"
    return _device(_read(_folder().joinpath(file), file), file)


def _read(path: Traversable, shown: str) -> bytes:
    """Return a file's bytes; DeviceError where it cannot be read or is too large."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise DeviceError(
            f"cannot read the device file: {error.strerror or error}", where=shown
        ) from None
    if len(content) > MAX_BYTES:
        raise DeviceError(
            "the device file is too large",
            where=shown,
            used=f"more than {MAX_BYTES:,} bytes",
            hint="a device description takes a few kilobytes; is this the right file?",
        )
    return content


def _parse(content: bytes, shown: str) -> Table:
    try:
        data: dict[str, Any] = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DeviceError(
            f"not a TOML file: {error}", where=shown, hint="see a shipped file in targets/"
        ) from None
    table = Table(data, file=shown, at="", known=TOP_KEYS)
    schema = table.data.get("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        raise table.error(
            f"schema is {schema!r}, this version reads {SCHEMA}",
            key="schema",
            hint=f"write schema = {SCHEMA} in the first line",
        )
    return table


def _device(content: bytes, shown: str) -> Device:
    table = _parse(content, shown)
    if "inherits" not in table:
        return _build(table, content, None)
    name = table.text("inherits")
    if name not in names():
        raise table.error(
            f"inherits from {name!r}, which is not a shipped device",
            key="inherits",
            hint=near(name, names()) or f"known devices: {', '.join(names())}",
        )
    base_file = f"{name}.toml"
    base_content = _read(_folder().joinpath(base_file), base_file)
    base_table = _parse(base_content, base_file)
    if "inherits" in base_table:
        raise table.error(
            f"inherits from {name!r}, which itself inherits: one level is the most",
            key="inherits",
            hint=f"inherit from {base_table.text('inherits')!r} and repeat what {name} changes",
        )
    return _build(table, content + base_content, _build(base_table, base_content, None))


def _build(table: Table, content: bytes, base: Device | None) -> Device:
    """Return the device of a parsed file, laid over the one it inherits from."""
    name = table.text("name")
    if not NAME.fullmatch(name):
        raise table.error(
            f"name is {name!r}", key="name", hint="lower-case letters, digits, '.', '_' and '-'"
        )
    own_sources = {
        key: read_source(inner) for key, inner in table.tables("sources", SOURCE_KEYS).items()
    }
    sources: dict[str, Source] = {**(base.sources if base else {}), **own_sources}
    limits = {k: read_value(t, sources) for k, t in table.tables("limits", VALUE_KEYS).items()}
    timing = {k: read_value(t, sources) for k, t in table.tables("timing", VALUE_KEYS).items()}
    prices = {k: read_price(t, k, sources) for k, t in table.tables("prices", PRICE_KEYS).items()}
    unknown = table.named_texts("unknown")
    own_static = _static(table, sources)
    given = limits.keys() | timing.keys() | prices.keys()
    given |= {"static_power"} if own_static else set()
    for key in unknown.keys() & given:
        raise table.error("is given a value and listed as unknown", key=f"unknown.{key}")
    static = own_static
    if base and not own_static and "static_power" not in unknown:
        static = base.static_power
    all_prices = _over(base.prices if base else {}, prices, unknown)
    basis = table.choice("basis", BASES, base.basis if base else "")
    if (all_prices or static) and not basis:
        raise table.error(
            "prices need a basis", key="basis", hint=f"basis = one of {', '.join(BASES)}"
        )
    all_limits = _over(base.limits if base else {}, limits, unknown)
    all_timing = _over(base.timing if base else {}, timing, unknown)
    cited = {v.source for v in (*all_limits.values(), *all_timing.values())}
    cited |= {source for price in all_prices.values() for source in price.sources}
    cited |= {static.source} if static else set()
    return Device(
        name=name,
        title=table.text("title"),
        family=table.choice("family", FAMILIES, base.family if base else None),
        fit_only=table.flag("fit_only", base.fit_only if base else False),
        basis=basis,
        limits=MappingProxyType(all_limits),
        timing=MappingProxyType(all_timing),
        prices=MappingProxyType(all_prices),
        static_power=static,
        sources=MappingProxyType(
            {k: s for k, s in sources.items() if k in cited or k in own_sources}
        ),
        notes=(base.notes if base else ()) + table.texts("notes"),
        excludes=(base.excludes if base else ()) + table.texts("excludes"),
        unknown=MappingProxyType(_over(base.unknown if base else {}, unknown, given)),
        path=table.file,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _static(table: Table, sources: dict[str, Source]) -> Value | None:
    if "static_power" not in table:
        return None
    inner = Table(table.data["static_power"], file=table.file, at="static_power", known=VALUE_KEYS)
    inner.choice("unit", ("W",))
    if isinstance(inner.data.get("value"), list):
        raise inner.error("'value' must be one number", key="value")
    known_source(inner, inner.text("source"), sources, "source")
    return read_value(inner, sources)


def _over(base: Any, own: dict[str, T], gone: Any) -> dict[str, T]:
    """Return the base's entries without those that are ``gone``, overlaid with one's own."""
    return {**{key: item for key, item in base.items() if key not in gone}, **own}
