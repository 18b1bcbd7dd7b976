"""How the text of an option becomes a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from snn_deploy.ir.network import Readout


def shape(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Return 1,28,28 or 1x28x28 as numbers."""
    if value is None:
        return None
    parts = value.replace("x", ",").split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{value!r} is not a shape such as 1,28,28")
    return tuple(int(part) for part in parts)


def readout(_: click.Context, __: click.Parameter, value: str | None) -> Readout | None:
    """Return a readout by its kind, vote:10 with its classes."""
    if value is None:
        return None
    from snn_deploy.ir.network import MEMBRANE_READOUTS, Readout

    kind, _sign, groups = value.partition(":")
    if kind == "vote" and groups.isdecimal() and int(groups) > 0:
        return Readout(kind="vote", groups=int(groups))
    if groups or kind not in ("count", *MEMBRANE_READOUTS):
        raise click.BadParameter(
            f"{value!r} is not count, vote:CLASSES, {', '.join(MEMBRANE_READOUTS)}"
        )
    return Readout(kind=kind)  # type: ignore[arg-type]


def settings(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> dict[str, int] | None:
    """Return NAME=N, any number of times, by name."""
    found: dict[str, int] = {}
    for text in values:
        name, _sign, number = text.partition("=")
        if not number.strip().isdecimal():
            raise click.BadParameter(f"{text!r} is not NAME=N with a whole number, as in banks=4")
        found[name.strip()] = int(number)
    return found or None


def splits(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, int] | None:
    """Return layer -> cores at least of ``LAYER=N`` values."""
    found: dict[str, int] = {}
    for text in values:
        name, _sign, number = text.rpartition("=")
        if not name.strip() or not number.strip().isdecimal() or int(number) < 1:
            raise click.BadParameter(f"{text!r} is not LAYER=N with N from 1, as in fc2=2")
        found[name.strip()] = int(number)
    return found or None


def feedback(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Return PRE->POST, any number of times, as pairs."""
    pairs = []
    for text in values:
        pre, sign, post = text.partition("->")
        if not sign or not pre.strip() or not post.strip():
            raise click.BadParameter(f"{text!r} is not PRE->POST, as in 'lif2->lif1'")
        pairs.append((pre.strip(), post.strip()))
    return tuple(pairs)


def renames(
    _: click.Context, __: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    """Return FROM=TO, any number of times, as pairs; TO may be empty."""
    pairs = []
    for text in values:
        old, sign, new = (part.strip() for part in text.partition("="))
        if not sign or not old:
            raise click.BadParameter(f"{text!r} is not FROM=TO, as in features.0=conv1")
        pairs.append((old, new))
    return tuple(pairs)
