"""The reports of ``targets list``, ``targets show`` and ``targets ops``."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from snn_deploy.backends.base import Target
from snn_deploy.backends.registry import registered, target
from snn_deploy.device.load import load, names
from snn_deploy.device.model import Device, Value
from snn_deploy.errors import SnnDeployError, UnsupportedError
from snn_deploy.report.model import Report, Section, Table, Text


def usable_targets() -> tuple[Target, ...]:
    """Return the targets that load; of one that does not, ``targets list`` says why."""
    found = []
    for entry in registered():
        with contextlib.suppress(UnsupportedError):
            found.append(target(entry.name))
    return tuple(found)


def target_settings(made: Target) -> Mapping[str, tuple[str, int, int]]:
    """Return a target's own settings: name -> (what it is, least, most).

    A target that has any declares them in an attribute ``settings``.
    """
    found: Mapping[str, tuple[str, int, int]] = getattr(made, "settings", {})
    return found


def plugin_devices() -> tuple[Device, ...]:
    """Return the devices that plugins bring: their targets' default devices that are files."""
    paths = (t.default_device for t in usable_targets() if t.default_device not in names())
    found = {device.name: device for device in map(load, paths)}
    return tuple(found[name] for name in sorted(found))


def device_named(name: str) -> Device:
    """Return a shipped device, a plugin's or that of a file; UsageError where there is none."""
    if name not in names():
        for device in plugin_devices():
            if device.name == name:
                return device
    return load(name)


def list_report() -> Report:
    """Return targets and devices."""
    targets: list[dict[str, str | None]] = []
    for entry in registered():
        record: dict[str, str | None] = {"target": entry.name, "package": entry.package}
        try:
            made = target(entry.name)
        except SnnDeployError as error:
            record |= {"title": error.message, "family": None, "judge": None, "device": None}
        else:
            judge = made.oracle()
            device = device_named(made.default_device).name
            record |= {
                "title": made.title,
                "family": made.family,
                "judge": judge.name if judge else None,
                "device": device,
            }
        targets.append(record)
    devices = [*(load(name) for name in names()), *plugin_devices()]
    table = Table(
        title="",
        columns=("target", "title", "device", "checked by", "package"),
        rows=tuple(
            tuple(t[key] or "-" for key in ("target", "title", "device", "judge", "package"))
            for t in targets
        ),
        align="lllll",
    )
    shown = Table(
        title="",
        columns=("device", "family", "title"),
        rows=tuple((d.name, d.family, d.title) for d in devices),
        align="lll",
        note="every device serves fit; a target lowers for those of its own family",
    )
    return Report(
        command="targets list",
        title="targets and devices",
        sections=(
            Section(title="Targets", items=(table,)),
            Section(title="Devices", items=(shown,)),
        ),
        data={
            "targets": targets,
            "devices": [
                {"device": d.name, "family": d.family, "title": d.title, "fit_only": d.fit_only}
                for d in devices
            ],
        },
        rows=tuple(targets),
    )


def _amount(value: Value) -> str:
    if isinstance(value.value, tuple):
        return ", ".join(f"{v:,}" for v in value.value)
    return f"{value.value:,}"


def device_report(name: str) -> Report:
    """Return every value of a device, with unit, kind and source."""
    device = device_named(name)
    values = {**device.limits, **device.timing}
    rows = [(key, _amount(v), v.unit, v.kind, v.source) for key, v in values.items()]
    prices = []
    for price in device.prices.values():
        interval = "" if price.low_pj is None else f" ({price.low_pj:g}..{price.high_pj:g})"
        prices.append(
            (
                price.event,
                f"{price.nominal_pj:g}{interval}",
                price.unit,
                price.kind,
                ", ".join(price.sources),
            )
        )
    sections = [
        Section(
            title="Limits and timing",
            items=(
                Table(
                    title="",
                    columns=("name", "value", "unit", "kind", "source"),
                    rows=tuple(rows),
                    align="lrlll",
                ),
            ),
        )
    ]
    if prices:
        sections.append(
            Section(
                title="Energy per event",
                items=(
                    Table(
                        title="",
                        columns=("event", "price", "unit", "kind", "source"),
                        rows=tuple(prices),
                        align="lrlll",
                    ),
                ),
            )
        )
    lines = [(key, str(source)) for key, source in device.sources.items()]
    sections.append(Section(title="Sources", items=(Text(lines=tuple(lines)),)))
    notes = [("note", n) for n in device.notes] + [("excludes", e) for e in device.excludes]
    notes += [("unknown", f"{key}: {why}") for key, why in device.unknown.items()]
    if notes:
        sections.append(Section(title="Notes", items=(Text(lines=tuple(notes)),)))
    data: dict[str, Any] = {
        "device": device.name,
        "title": device.title,
        "family": device.family,
        "values": [
            {"name": k, "value": v.value, "unit": v.unit, "kind": v.kind, "source": v.source}
            for k, v in values.items()
        ],
        "prices": [
            {
                "event": p.event,
                "low_pj": p.low_pj,
                "nominal_pj": p.nominal_pj,
                "high_pj": p.high_pj,
                "kind": p.kind,
                "sources": list(p.sources),
            }
            for p in device.prices.values()
        ],
        "unknown": dict(device.unknown),
    }
    return Report(
        command="targets show",
        title=f"{device.name}: {device.title}",
        sections=tuple(sections),
        data=data,
        rows=tuple(data["values"]),
    )


def ops_report(name: str) -> Report:
    """Return what a target can lower."""
    made = target(name)
    rows = [*made.constraints()]
    for name, (what, least, most) in target_settings(made).items():
        rows.append((f"--set {name}=N", f"{what}; {least} to {most}"))
    return Report(
        command="targets ops",
        title=f"{made.title}: what can be lowered",
        sections=(
            Section(
                title="",
                items=(Table(title="", columns=("what", "rule"), rows=tuple(rows), align="ll"),),
            ),
        ),
        data={"target": name, "ops": [{"what": a, "rule": b} for a, b in rows]},
        rows=tuple({"what": a, "rule": b} for a, b in rows),
    )
