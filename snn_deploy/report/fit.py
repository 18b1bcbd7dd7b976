"""Whether a network fits devices: each family's own usage against each device's limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from snn_deploy import units
from snn_deploy.backends.base import Options
from snn_deploy.backends.prepare import prepare
from snn_deploy.budget.findings import Finding, Fit, findings, verdict
from snn_deploy.budget.memory import microcontroller_usage
from snn_deploy.device.load import names
from snn_deploy.device.model import Device
from snn_deploy.device.usage import Usage
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.network import Network
from snn_deploy.passes.quantize import quantize
from snn_deploy.report.cores import cores_sections
from snn_deploy.report.model import Item, Report, Section, Table, Text
from snn_deploy.report.network import network_facts, network_text
from snn_deploy.report.targets import device_named, plugin_devices, usable_targets

_SHOWN = 4


def fits(
    network: Network, devices: Sequence[str] = (), *, margin: float = 0.0, bits: int | None = None
) -> tuple[dict[str, tuple[str, Fit]], dict[str, str]]:
    """Return device name -> (title, verdict) for the named devices, or all that have limits, and
    device name -> why the network cannot be lowered for it.

    For a device that was named the UnsupportedError stands.
    """
    found: dict[str, tuple[str, Fit]] = {}
    left_out: dict[str, str] = {}
    every = (*names(), *(d.name for d in plugin_devices()))
    for name in devices or every:
        device = device_named(name)
        if not devices and not device.limits:
            continue
        try:
            usage = usage_on(network, device, margin=margin, bits=bits)
        except UnsupportedError as error:
            if devices:
                raise
            left_out[device.name] = (
                f"{error.message}; {error.hint}" if error.hint else error.message
            )
            continue
        checked = verdict(findings(usage, device, margin), device.name, usage.excludes)
        found[device.name] = (device.title, replace(checked, cores=usage.cores))
    return found, left_out


def usage_on(
    network: Network, device: Device, *, margin: float = 0.0, bits: int | None = None
) -> Usage:
    """Return what ``network`` uses of ``device``; UnsupportedError for an unknown family."""
    if device.family == "microcontroller":
        from snn_deploy.backends.arithmetics import FPGA, LOIHI

        # The 16-bit membrane of a small integer engine, or two 32-bit states for CubaLIF.
        current = any(p.neuron.step(network.dt_s).has_current for p in network.computing())
        return microcontroller_usage(
            quantize(network, LOIHI if current else FPGA, bits=bits), device, margin
        )
    able = [backend for backend in usable_targets() if backend.family == device.family]
    # Of two targets of one family, the one that brought the device knows it best.
    able.sort(key=lambda backend: device_named(backend.default_device).name != device.name)
    if able:
        options = Options(bits=bits, device=device, margin=margin)
        return able[0].usage(prepare(network, able[0], options))
    raise UnsupportedError(
        f"no target lowers for the family {device.family!r}",
        where=device.name,
        hint="snn-deploy targets list",
    )


def fit_report(
    network: Network,
    fits: Mapping[str, tuple[str, Fit]],
    left_out: Mapping[str, str] | None = None,
    margin: float = 0.0,
) -> Report:
    """Return the report of ``fit``: device name -> (title, verdict), and who was left out."""
    rows, records = [], []
    items: list[Item] = []
    for name, (title, fit) in fits.items():
        answer = {True: "fits", False: "does not fit", None: "not decided"}[fit.fits]
        tight = fit.tightest
        share = "-" if tight is None or tight.share is None else units.percent(tight.share)
        rows.append((name, answer, share, _what(tight)))
        records += [{"device": name, "fits": fit.fits, **f.as_dict()} for f in fit.findings]
        items += _reasons(f"{name}: {title}", fit)
    reasons: dict[str, list[str]] = {}
    for name, why in (left_out or {}).items():
        rows.append((name, "cannot be lowered", "-", "-"))
        reasons.setdefault(why, []).append(name)
    for why, who in reasons.items():
        items.append(Text(title=", ".join(who), lines=(("reason", why),), tone="bad"))
    free = (("margin", f"{100 * margin:g} % of each limit stays free"),) if margin else ()
    table = Table(
        title="",
        columns=("device", "verdict", "fullest", "of what"),
        rows=tuple(rows),
        align="llrl",
        note="fullest: the resource of which the largest share of the limit is used",
    )
    sections = [Section(title="", items=(Text(lines=network_text(network).lines + free), table))]
    if items:
        sections.append(Section(title="Why", items=tuple(items)))
    for name, (_, fit) in fits.items():
        if fit.cores is not None:
            sections += cores_sections(fit.cores, name)
    unchecked: dict[tuple[str, ...], list[str]] = {}
    for name, (_, fit) in fits.items():
        if fit.excludes:
            unchecked.setdefault(fit.excludes, []).append(name)
    if unchecked:
        lines = tuple((", ".join(who), "; ".join(what)) for what, who in unchecked.items())
        sections.append(Section(title="Not checked", items=(Text(lines=lines),)))
    return Report(
        command="fit",
        title=f"fit {network.source.path}",
        sections=tuple(sections),
        data={
            "model": network_facts(network),
            "margin": margin,
            "devices": {name: fit.as_dict() for name, (_, fit) in fits.items()},
            "left_out": dict(left_out or {}),
        },
        rows=tuple(records),
    )


def _what(tight: Finding | None) -> str:
    if tight is None:
        return "-"
    return tight.name if tight.where in tight.name else f"{tight.name}, {tight.where}"


def _reasons(title: str, fit: Fit) -> list[Item]:
    """Return what is exceeded, or which limits are unknown."""
    if fit.exceeds:
        lines: list[tuple[str, str]] = []
        for finding in fit.exceeds[:_SHOWN]:
            lines += [("exceeds", str(finding)), ("hint", finding.hint or "")]
        if len(fit.exceeds) > _SHOWN:
            lines.append(("", f"and {len(fit.exceeds) - _SHOWN} more, listed in --json"))
        return [Text(title=title, lines=tuple(x for x in lines if x[1]), tone="bad")]
    unknown = list(dict.fromkeys(f"{f.name}: {f.reason}" for f in fit.unknown))
    if not unknown:
        return []
    shown = tuple(("unknown", reason) for reason in unknown[:_SHOWN])
    return [Text(title=title, lines=shown, tone="unsure")]
