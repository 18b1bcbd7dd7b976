"""Units in one place: names carry them (``_s``, ``_pj``, ``_bits``), these functions print them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

BITS_PER_BYTE = 8
PJ_PER_J = 1e12

_SI = (
    (1e-12, "p"),
    (1e-9, "n"),
    (1e-6, "u"),
    (1e-3, "m"),
    (1.0, ""),
    (1e3, "k"),
    (1e6, "M"),
    (1e9, "G"),
    (1e12, "T"),
)
_MOST_DECIMALS = 6


def si(value: float, unit: str) -> str:
    """Return ``value`` with three significant digits and an SI prefix: ``si(2.5e-5, "s")``."""
    if value == 0:
        return f"0 {unit}"
    factor, prefix = _SI[0]
    for candidate, name in _SI:
        if abs(value) >= candidate * 0.9995:
            factor, prefix = candidate, name
    return f"{value / factor:.3g} {prefix}{unit}"


def seconds(value_s: float) -> str:
    """Return a duration, such as ``1.5 ms``."""
    return si(value_s, "s")


def energy(value_pj: float) -> str:
    """Return an energy given in picojoules, such as ``1.5 nJ``."""
    return si(value_pj / PJ_PER_J, "J")


def bits(value_bits: float) -> str:
    """Return a memory size given in bits, in bytes where it has at least one."""
    if value_bits < BITS_PER_BYTE:
        return f"{value_bits:.0f} bit"
    size = value_bits / BITS_PER_BYTE
    for name in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {name}"
        size /= 1024
    return f"{size:.4g} GiB"


def count(value: float) -> str:
    """Return a count with thousands separators.

    A fraction keeps one decimal below 1,000, and two significant digits below 0.1, so that
    what happens seldom is not shown as never.
    """
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2g}" if abs(value) < 0.1 else f"{value:,.1f}"


def percent(share: float) -> str:
    """Return a share of 1 as a percentage with one decimal.

    It has more where it would otherwise show 0 or 100 % for what is not quite that.
    """
    for decimals in range(1, _MOST_DECIMALS + 1):
        text = f"{100 * share:.{decimals}f}"
        if share in (0, 1) or float(text) not in (0, 100):
            return f"{text} %"
    return f"{100 * share:.1f} %"


# Units that ``amount`` prints in multiples of its own choice; others are counts.
PRINTED: Mapping[str, Callable[[float], str]] = MappingProxyType(
    {"bits": bits, "pJ": energy, "s": seconds}
)


def amount(value: float, unit: str) -> str:
    """Return a value in ``unit`` ("bits", "pJ", "s"), or a bare count in any other."""
    return PRINTED.get(unit, count)(value)
