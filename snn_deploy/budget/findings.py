"""Does it fit: every resource against the device's limit, all findings, never only the first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from snn_deploy.device import Device, Lever, Number, Resource, Usage
from snn_deploy.device.usage import within
from snn_deploy.errors import DeviceError, FitError, UsageError
from snn_deploy.units import percent

Severity = Literal["fits", "exceeds", "unknown limit"]
SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One resource at one place against its limit.

    used, limit, allowed, excess: in ``unit``. allowed: the limit less the margin. excess: what
    is over ``allowed``, 0 where it fits. share: used / limit. contributors: the largest three.
    reason: why the limit is unknown. limit, allowed and share are None for an unknown limit.
    """

    severity: Severity
    device: str
    name: str
    where: str
    used: int
    limit: Number | None
    allowed: int | None
    excess: int
    share: float | None
    unit: str
    limit_key: str
    contributors: tuple[tuple[str, int], ...]
    reason: str | None
    hint: str | None

    def __str__(self) -> str:
        place = f"{self.name} on {self.where}"
        if self.limit is None or self.share is None:
            return f"{place}: {self.used:,} {self.unit}, limit unknown ({self.reason})"
        text = f"{place}: {self.used:,} of {self.limit:,} {self.unit} ({percent(self.share)})"
        if self.severity == "exceeds":
            over = f"{self.excess:,} {self.unit} too many"
            text += f", {over}" if self.used > self.limit else f", {over} with the margin"
        return text

    def as_dict(self) -> dict[str, object]:
        """Return the fields for JSON."""
        return {
            "severity": self.severity,
            "device": self.device,
            "name": self.name,
            "where": self.where,
            "used": self.used,
            "limit": self.limit,
            "allowed": self.allowed,
            "excess": self.excess,
            "share": self.share,
            "unit": self.unit,
            "limit_key": self.limit_key,
            "contributors": [list(pair) for pair in self.contributors],
            "reason": self.reason,
            "hint": self.hint,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A verdict on one device: fits is None where nothing exceeds but a limit is unknown.

    tightest: the finding with the largest share of its limit, None without a known limit.
    excludes: what the usage left out, so that "fits" is not read as more than it says. cores:
    where the network lies, of a usage that says it.
    """

    device: str
    fits: bool | None
    findings: tuple[Finding, ...]
    exceeds: tuple[Finding, ...]
    unknown: tuple[Finding, ...]
    tightest: Finding | None
    excludes: tuple[str, ...] = ()
    cores: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        if self.fits is False:
            names = ", ".join(dict.fromkeys(f.name for f in self.exceeds))
            return f"{self.device}: does not fit ({names})"
        if self.fits is None:
            names = ", ".join(dict.fromkeys(f.name for f in self.unknown))
            return f"{self.device}: cannot be decided (limit unknown: {names})"
        if self.tightest is None or self.tightest.share is None:
            return f"{self.device}: fits"
        return f"{self.device}: fits ({self.tightest.name} at {percent(self.tightest.share)})"

    def as_dict(self) -> dict[str, object]:
        """Return the fields for JSON."""
        return {
            "device": self.device,
            "fits": self.fits,
            "text": str(self),
            "findings": [finding.as_dict() for finding in self.findings],
            "not_checked": list(self.excludes),
        }


def findings(usage: Usage, device: Device, margin: float = 0.0) -> tuple[Finding, ...]:
    """Return a finding for every resource, in the order of ``usage``.

    margin: share of each limit to keep free, 0 <= margin < 1. Raises UsageError for another
    margin, DeviceError where a limit is in another unit than the resource.
    """
    if not 0 <= margin < 1:
        raise UsageError(
            "the margin is a share of the limit, at least 0 and less than 100 %",
            used=percent(margin),
            hint="--margin 10%",
        )
    return tuple(_finding(resource, device, margin) for resource in usage.resources)


def _finding(resource: Resource, device: Device, margin: float) -> Finding:
    largest = tuple(sorted(resource.contributors, key=lambda pair: -pair[1])[:SHOWN])
    found = device.limits.get(resource.limit_key)
    if found is None:
        reason = device.unknown.get(resource.limit_key, "the device file does not state it")
        return _known(resource, device, "unknown limit", largest, reason=reason)
    place = f"{device.path} -> limits.{resource.limit_key}"
    if found.unit != resource.unit or isinstance(found.value, tuple):
        raise DeviceError(
            f"{resource.name} are counted in {resource.unit}",
            where=place,
            used=f"the limit is in {found.unit}",
            hint=f'write the limit as one number with unit = "{resource.unit}"',
        )
    allowed = within(found.value, margin)
    excess = max(0, resource.used - allowed)
    return _known(
        resource,
        device,
        "exceeds" if excess else "fits",
        largest,
        limit=found.value,
        allowed=allowed,
        excess=excess,
        hint=_hint(resource, excess, margin) if excess else None,
    )


def _known(
    resource: Resource,
    device: Device,
    severity: Severity,
    largest: tuple[tuple[str, int], ...],
    *,
    limit: Number | None = None,
    allowed: int | None = None,
    excess: int = 0,
    reason: str | None = None,
    hint: str | None = None,
) -> Finding:
    share = None if limit is None else (resource.used / limit if limit else math.inf)
    if limit == 0 and resource.used == 0:
        share = 0.0
    return Finding(
        severity=severity,
        device=device.name,
        name=resource.name,
        where=resource.where,
        used=resource.used,
        limit=limit,
        allowed=allowed,
        excess=excess,
        share=share,
        unit=resource.unit,
        limit_key=resource.limit_key,
        contributors=largest,
        reason=reason,
        hint=hint,
    )


def _hint(resource: Resource, excess: int, margin: float) -> str:
    """Return the remedies: one lever that suffices, the target's own, and a larger device."""
    amounts = dict(resource.contributors)
    remedies = []
    for lever in sorted(resource.levers, key=lambda lv: -amounts.get(lv.where, 0)):
        text = _pull(lever, amounts.get(lever.where, 0) - excess)
        if text is not None:
            remedies.append(text)
            break
    if resource.levers and not remedies:
        remedies.append("no single layer frees enough: prune several, or train a smaller network")
    remedies += resource.hints
    # Whole numbers: the limit that just holds the use, margin included.
    need = math.ceil(resource.used / (1 - margin) - 1e-9)
    remedies.append(
        f"choose a device with at least {need:,} {resource.unit} ({resource.limit_key})"
    )
    return ", or ".join(remedies)


def _pull(lever: Lever, allowed: float) -> str | None:
    """Return what the lever must be set to so that its place uses ``allowed``, None if nothing."""
    count = lever.fitting(allowed)
    if count < 1 or count >= lever.count:
        return None
    if lever.unit == "bits per weight":
        return f"use --bits {count}" if count >= 2 else None
    if lever.unit == "neurons":
        return f"make {lever.where} at most {count:,} neurons"
    return f"prune {lever.where} to at most {count:,} nonzeros"


def verdict(found: tuple[Finding, ...], device: str = "", excludes: tuple[str, ...] = ()) -> Fit:
    """Return the verdict over all findings of one device; excludes: what was not checked."""
    exceeds = tuple(f for f in found if f.severity == "exceeds")
    unknown = tuple(f for f in found if f.severity == "unknown limit")
    fits = False if exceeds else (None if unknown else True)
    shares = [f for f in found if f.share is not None]
    return Fit(
        device=device or (found[0].device if found else ""),
        fits=fits,
        findings=found,
        exceeds=exceeds,
        unknown=unknown,
        tightest=max(shares, key=lambda f: f.share or 0.0, default=None),
        excludes=excludes,
    )


def smallest_fitting(fits: Mapping[str, Fit]) -> str | None:
    """Return the device that fits most tightly, None where none is known to fit.

    Devices of several families have no common size, so the smallest is the one of which the
    network fills the largest share of its scarcest resource. Ties go to the first.
    """
    best: tuple[float, str] | None = None
    for name, fit in fits.items():
        share = fit.tightest.share if fit.tightest and fit.tightest.share is not None else 0.0
        if fit.fits is True and (best is None or share > best[0]):
            best = (share, name)
    return None if best is None else best[1]


def fit_error(fit: Fit, where: str | None = None) -> FitError:
    """Return the error for a named device that the network does not fit.

    where: the file, or ``file -> node``. The message is about the finding with the largest
    share; further limits that are exceeded are named.
    """
    worst = max(fit.exceeds, key=lambda f: f.share or 0.0)
    who = worst.contributors[0][0] if worst.contributors else "the network"
    what = worst.name if worst.unit in worst.name else f"{worst.unit} of {worst.name}"
    message = f"{who} needs {worst.excess:,} {what} more than {worst.where} of {fit.device} holds"
    others = [f for f in fit.exceeds if f is not worst]
    if others:
        listed = "; ".join(str(f) for f in others[:SHOWN])
        rest = f"; and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        message += f" (also exceeded: {listed}{rest})"
    assert worst.limit is not None and worst.share is not None and worst.allowed is not None
    used = f"{worst.used:,} of {worst.limit:,} {worst.unit} ({percent(worst.share)})"
    if worst.allowed < worst.limit:
        used += f", {worst.allowed:,} with the margin"
    return FitError(message, where=where, used=f"{used} on {worst.where}", hint=worst.hint)
