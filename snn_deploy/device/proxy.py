"""Prices of one device for another that has none: marked as a proxy, never as its own."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from snn_deploy.device.model import Device
from snn_deploy.errors import UsageError


def with_proxy_prices(device: Device, other: Device) -> Device:
    """Return ``device`` with the prices of ``other`` for events that it has no price for.

    Each is of kind "proxy" and says where it is from. Raises UsageError where the two devices'
    prices would not have the same basis, or ``other`` has none that ``device`` lacks.
    """
    if device.basis and other.basis and device.basis != other.basis:
        raise UsageError(
            f"prices of {other.name} do not go with those of {device.name}",
            used=f"{other.basis} against {device.basis}",
            hint="choose a device whose prices have the same basis: snn-deploy targets show NAME",
        )
    lent = {
        event: replace(
            price,
            kind="proxy",
            conditions="; ".join(filter(None, (f"price of {other.name}", price.conditions))),
            sources=tuple(f"{other.name}-{source}" for source in price.sources),
        )
        for event, price in other.prices.items()
        if event not in device.prices
    }
    if not lent:
        raise UsageError(
            f"{other.name} has no price that {device.name} lacks",
            hint=f"leave --proxy-prices out, or: snn-deploy targets show {other.name}",
        )
    cited = {source for price in lent.values() for source in price.sources}
    sources = {
        f"{other.name}-{key}": source
        for key, source in other.sources.items()
        if f"{other.name}-{key}" in cited
    }
    return replace(
        device,
        basis=device.basis or other.basis,
        priced_as=other.name,
        prices={**device.prices, **lent},
        sources={**device.sources, **sources},
        notes=(*device.notes, f"Prices are those of {other.name}: a proxy, not this chip's."),
        excludes=tuple(dict.fromkeys((*device.excludes, *other.excludes))),
        unknown={key: why for key, why in device.unknown.items() if key not in lent},
        sha256=hashlib.sha256(f"{device.sha256} {other.sha256}".encode()).hexdigest(),
    )
