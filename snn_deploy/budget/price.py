"""Energy: counted events times a device's prices. The only place with joules.

Events overlap (every effective synop is also a dense one), so a target says which of them are
the work that costs energy: ``charged``. A charged event that was counted and has no price makes
the total unavailable, never smaller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from snn_deploy.device import BASES, KINDS, Device, Price
from snn_deploy.errors import UsageError
from snn_deploy.ir.events import EVENT_NAMES, Events
from snn_deploy.units import PJ_PER_J, energy

STATIC = "static_power"
# One synaptic operation under several definitions: charging two of them would charge it twice.
SAME_WORK = frozenset({"synops_dense", "synops_event", "synops_effective", "synops_quantized"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Picojoules; low and high are None unless every price in it has an interval."""

    low_pj: float | None
    nominal_pj: float
    high_pj: float | None

    def __add__(self, other: Energy) -> Energy:
        low = None if self.low_pj is None or other.low_pj is None else self.low_pj + other.low_pj
        high = (
            None if self.high_pj is None or other.high_pj is None else self.high_pj + other.high_pj
        )
        return Energy(low_pj=low, nominal_pj=self.nominal_pj + other.nominal_pj, high_pj=high)

    def times(self, factor: float) -> Energy:
        """Return the energy of ``factor`` such events."""
        return Energy(
            low_pj=None if self.low_pj is None else self.low_pj * factor,
            nominal_pj=self.nominal_pj * factor,
            high_pj=None if self.high_pj is None else self.high_pj * factor,
        )

    @property
    def has_interval(self) -> bool:
        """Whether several sources bound it."""
        return self.low_pj is not None and self.high_pj is not None

    def __str__(self) -> str:
        if self.low_pj is None or self.high_pj is None:
            return energy(self.nominal_pj)
        return f"{energy(self.nominal_pj)} ({energy(self.low_pj)} to {energy(self.high_pj)})"

    def as_dict(self) -> dict[str, float | None]:
        """Return low, nominal and high for JSON."""
        return {
            "low_pj": self.low_pj,
            "nominal_pj": self.nominal_pj,
            "high_pj": self.high_pj,
        }


ZERO = Energy(low_pj=0.0, nominal_pj=0.0, high_pj=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One charged event at one place, per sample. each and per_sample: None without a price."""

    where: str
    event: str
    count_per_sample: float
    each: Energy | None
    per_sample: Energy | None
    kind: str | None

    def as_dict(self) -> dict[str, object]:
        """Return the fields for JSON."""
        return {
            "where": self.where,
            "event": self.event,
            "count_per_sample": self.count_per_sample,
            "each": None if self.each is None else self.each.as_dict(),
            "per_sample": None if self.per_sample is None else self.per_sample.as_dict(),
            "kind": self.kind,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Energy per sample on one device.

    total: None where ``unavailable_reason`` says why. places: the same per place. kind: the
    weakest kind among the prices used, None where none was. not_counted: charged events that
    the run did not count anywhere. without_interval: priced events with one figure each.
    """

    label: str
    device: str
    title: str
    basis: str
    samples: int
    charged: tuple[str, ...]
    lines: tuple[Line, ...]
    places: Mapping[str, Energy | None]
    total: Energy | None
    unavailable_reason: str | None
    kind: str | None
    sources: tuple[str, ...]
    excludes: tuple[str, ...]
    not_counted: tuple[str, ...]
    without_interval: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Return the fields for JSON."""
        return {
            "label": self.label,
            "device": self.device,
            "title": self.title,
            "basis": self.basis,
            "samples": self.samples,
            "charged": list(self.charged),
            "lines": [line.as_dict() for line in self.lines],
            "places": {k: None if e is None else e.as_dict() for k, e in self.places.items()},
            "total": None if self.total is None else self.total.as_dict(),
            "unavailable_reason": self.unavailable_reason,
            "kind": self.kind,
            "sources": list(self.sources),
            "excludes": list(self.excludes),
            "not_counted": list(self.not_counted),
            "without_interval": list(self.without_interval),
        }


def price(
    events: Events,
    device: Device,
    *,
    charged: tuple[str, ...],
    samples: int,
    duration_s: float | None = None,
    label: str = "",
) -> Budget:
    """Return the energy per sample of ``events``, which are totals over ``samples`` samples.

    charged: the events that cost energy on the target, each once. duration_s: of all samples
    together; needed where the device has a static power. label: as printed, by default the
    device's name. Raises UsageError for samples < 1 or a negative duration, ValueError for a
    ``charged`` that would charge work twice.
    """
    _check(charged, samples, duration_s)
    lines = [
        _line(where, event, n / samples, device.prices.get(event))
        for (where, event), n in events.items()
        if event in charged and n > 0
    ]
    reasons = []
    unpriced = sorted({line.event for line in lines if line.each is None})
    if unpriced:
        reasons.append(f"{device.name} has no price for {_and(unpriced)}")
    excludes = device.excludes
    if device.static_power is None:
        if not any("static power" in text for text in excludes):
            excludes = (*excludes, "static power")
    elif duration_s is None:
        reasons.append(f"{device.name} has a static power, but the time is not known")
    else:
        lines.append(_static_line(device, duration_s / samples))
    used = [line for line in lines if line.each is not None]
    cited = _cited(device, {line.event for line in used})
    kinds = {line.kind for line in used if line.kind is not None}
    places: dict[str, Energy | None] = {}
    for line in lines:
        places[line.where] = _plus(places.get(line.where, ZERO), line.per_sample)
    total: Energy | None = None
    if not reasons:
        total = ZERO
        for line in used:
            total = _plus(total, line.per_sample)
    return Budget(
        label=label or device.name,
        device=device.name,
        title=device.title,
        basis=device.basis,
        samples=samples,
        charged=charged,
        lines=tuple(lines),
        places=places,
        total=total,
        unavailable_reason="; ".join(reasons) or None,
        kind=max(kinds, key=_strength) if kinds else None,
        sources=cited,
        excludes=excludes,
        not_counted=tuple(event for event in charged if not events.has(event)),
        without_interval=tuple(
            dict.fromkeys(x.event for x in used if x.each and not x.each.has_interval)
        ),
    )


def _check(charged: tuple[str, ...], samples: int, duration_s: float | None) -> None:
    if samples < 1:
        raise UsageError("energy per sample needs at least one sample", used=f"{samples} samples")
    if duration_s is not None and not 0 <= duration_s < float("inf"):
        raise UsageError("a duration is finite and not negative", used=f"{duration_s:g} s")
    for event in charged:
        if event not in EVENT_NAMES and ":" not in event:
            raise ValueError(f"unknown event {event!r} is charged")
    twice = sorted(SAME_WORK.intersection(charged))
    if len(set(charged)) < len(charged) or len(twice) > 1:
        raise ValueError(f"the same work is charged twice: {', '.join(twice or charged)}")


def _strength(kind: str) -> int:
    # A static power may be "specified", which is stronger than any kind of price.
    return KINDS.index(kind) if kind in KINDS else -1


def _line(where: str, event: str, per_sample: float, found: Price | None) -> Line:
    each = (
        None
        if found is None
        else Energy(low_pj=found.low_pj, nominal_pj=found.nominal_pj, high_pj=found.high_pj)
    )
    return Line(
        where=where,
        event=event,
        count_per_sample=per_sample,
        each=each,
        per_sample=None if each is None else each.times(per_sample),
        kind=None if found is None else found.kind,
    )


def _static_line(device: Device, seconds_per_sample: float) -> Line:
    """Return the static power as a line whose count is in seconds and each in pJ per second."""
    value = device.static_power
    assert value is not None and not isinstance(value.value, tuple)
    each = Energy(low_pj=None, nominal_pj=value.value * PJ_PER_J, high_pj=None)
    return Line(
        where="device",
        event=STATIC,
        count_per_sample=seconds_per_sample,
        each=each,
        per_sample=each.times(seconds_per_sample),
        kind=value.kind,
    )


def _cited(device: Device, events: set[str]) -> tuple[str, ...]:
    ids = [s for event in events if event in device.prices for s in device.prices[event].sources]
    if STATIC in events and device.static_power is not None:
        ids.append(device.static_power.source)
    return tuple(str(source) for key, source in device.sources.items() if key in ids)


def _plus(a: Energy | None, b: Energy | None) -> Energy | None:
    return None if a is None or b is None else a + b


def _and(words: Iterable[str]) -> str:
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankNote:
    """Whether two budgets may be put in order. lower: the label that needs less, if ranked."""

    first: str
    second: str
    ranked: bool
    lower: str | None
    reason: str

    def as_dict(self) -> dict[str, object]:
        """Return the fields for JSON."""
        return {
            "first": self.first,
            "second": self.second,
            "ranked": self.ranked,
            "lower": self.lower,
            "reason": self.reason,
        }


def ranking(budgets: Sequence[Budget]) -> tuple[RankNote, ...]:
    """Return for each pair whether it may be ranked, and why or why not.

    Two budgets are ranked only if both have a total and an interval, their prices describe the
    same thing (architecture or chip) and are of the same kind, and the intervals do not overlap.
    """
    return tuple(_rank(a, b) for a, b in combinations(budgets, 2))


def _rank(a: Budget, b: Budget) -> RankNote:
    reason = _obstacle(a, b)
    if reason is not None:
        return RankNote(first=a.label, second=b.label, ranked=False, lower=None, reason=reason)
    assert a.total is not None and b.total is not None
    less, more = (a, b) if a.total.nominal_pj <= b.total.nominal_pj else (b, a)
    assert less.total is not None and more.total is not None
    less_high, more_low = less.total.high_pj, more.total.low_pj
    assert less_high is not None and more_low is not None
    if less_high >= more_low:
        reason = f"the intervals overlap: {a.label} {a.total}, {b.label} {b.total}"
        return RankNote(first=a.label, second=b.label, ranked=False, lower=None, reason=reason)
    reason = (
        f"{less.label} needs less: at most {energy(less_high)}, "
        f"{more.label} at least {energy(more_low)} ({less.kind})"
    )
    if set(a.excludes) != set(b.excludes):
        reason += "; what the two leave out differs"
    return RankNote(first=a.label, second=b.label, ranked=True, lower=less.label, reason=reason)


def _obstacle(a: Budget, b: Budget) -> str | None:
    for budget in (a, b):
        if budget.total is None:
            return f"{budget.label} has no total: {budget.unavailable_reason}"
        if budget.kind is None:
            return f"{budget.label} has no priced work"
    if a.basis != b.basis:
        return (
            f"{a.label} is {BASES[a.basis]}, {b.label} is {BASES[b.basis]}: "
            "the two are never ranked"
        )
    if a.kind != b.kind:
        return f"{a.label} is {a.kind}, {b.label} is {b.kind}: different kinds are not ranked"
    for budget in (a, b):
        if budget.without_interval:
            one = _and(budget.without_interval)
            return f"{budget.label} has no interval: a single figure for {one}"
    return None
