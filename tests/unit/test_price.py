"""Energy: counts times prices, totals that refuse, and what may be ranked."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType

import pytest

from snn_deploy.budget import Budget, Energy, price, ranking
from snn_deploy.device import Device, Price, Source, Value, load
from snn_deploy.errors import UsageError
from snn_deploy.ir.events import Events


def toy_price(
    event: str,
    nominal: float,
    interval: tuple[float, float] | None = None,
    kind: str = "simulated",
) -> Price:
    low, high = interval or (None, None)
    return Price(
        event=event,
        low_pj=low,
        nominal_pj=nominal,
        high_pj=high,
        unit="pJ",
        sources=("a", "b"),
        kind=kind,
    )


def toy(*prices: Price, static_w: float | None = None, basis: str = "chip") -> Device:
    static = None
    if static_w is not None:
        static = Value(value=static_w, unit="W", source="c", kind="measured")
    return Device(
        name="toy",
        title="Toy",
        family="loihi",
        fit_only=False,
        basis=basis,
        limits=MappingProxyType({}),
        timing=MappingProxyType({}),
        prices=MappingProxyType({p.event: p for p in prices}),
        static_power=static,
        sources=MappingProxyType(
            {k: Source(title=f"Source {k}", ref="table 1") for k in ("a", "b", "c")}
        ),
        notes=(),
        excludes=("the host",),
        unknown=MappingProxyType({}),
        path="toy.toml",
        sha256="0" * 64,
    )


SYNOP = toy_price("synops_quantized", 20.0, (10.0, 30.0))
UPDATE = toy_price("neuron_updates", 5.0, (4.0, 8.0))
EVENTS = Events(
    {
        ("fc1", "synops_quantized"): 100,
        ("fc1", "synops_dense"): 10_000,
        ("lif1", "neuron_updates"): 40,
        ("fc2", "synops_quantized"): 20,
    }
)
CHARGED = ("synops_quantized", "neuron_updates")


def test_lines_places_and_total_are_per_sample() -> None:
    budget = price(EVENTS, toy(SYNOP, UPDATE), charged=CHARGED, samples=10)
    assert [(x.where, x.event, x.count_per_sample) for x in budget.lines] == [
        ("fc1", "synops_quantized", 10.0),
        ("lif1", "neuron_updates", 4.0),
        ("fc2", "synops_quantized", 2.0),
    ]
    assert budget.places == {
        "fc1": Energy(low_pj=100.0, nominal_pj=200.0, high_pj=300.0),
        "lif1": Energy(low_pj=16.0, nominal_pj=20.0, high_pj=32.0),
        "fc2": Energy(low_pj=20.0, nominal_pj=40.0, high_pj=60.0),
    }
    assert budget.total == Energy(low_pj=136.0, nominal_pj=260.0, high_pj=392.0)
    assert budget.unavailable_reason is None and budget.kind == "simulated"
    assert str(budget.total) == "260 pJ (136 pJ to 392 pJ)"
    assert budget.sources == ("Source a, table 1", "Source b, table 1")


def test_events_that_are_not_charged_cost_nothing() -> None:
    less = Events({key: n for key, n in EVENTS.items() if key[1] != "synops_dense"})
    with_dense = price(EVENTS, toy(SYNOP, UPDATE), charged=CHARGED, samples=1)
    without = price(less, toy(SYNOP, UPDATE), charged=CHARGED, samples=1)
    assert with_dense.total == without.total


def test_a_charged_event_without_a_price_makes_the_total_unavailable() -> None:
    events = EVENTS + Events({("fc1", "hops"): 1, ("fc1", "packets"): 2})
    budget = price(events, toy(SYNOP, UPDATE), charged=(*CHARGED, "packets", "hops"), samples=1)
    assert budget.total is None
    assert budget.unavailable_reason == "toy has no price for hops and packets"
    assert budget.places["fc1"] is None and budget.places["fc2"] is not None
    unpriced = [x for x in budget.lines if x.each is None]
    assert {x.event for x in unpriced} == {"hops", "packets"}
    assert all(x.per_sample is None for x in unpriced)


def test_a_charged_event_that_never_happened_needs_no_price_but_is_named() -> None:
    events = EVENTS + Events({("fc1", "hops"): 0})
    budget = price(events, toy(SYNOP, UPDATE), charged=(*CHARGED, "hops", "macs"), samples=1)
    assert budget.total is not None
    assert budget.not_counted == ("macs",)


def test_one_price_without_an_interval_leaves_the_total_without_one() -> None:
    device = toy(SYNOP, toy_price("neuron_updates", 5.0))
    budget = price(EVENTS, device, charged=CHARGED, samples=10)
    assert budget.total == Energy(low_pj=None, nominal_pj=260.0, high_pj=None)
    assert budget.without_interval == ("neuron_updates",)
    assert str(budget.total) == "260 pJ"


@pytest.mark.parametrize(
    ("kinds", "weakest"),
    [
        (("measured", "simulated"), "simulated"),
        (("estimated", "simulated"), "estimated"),
        (("proxy", "measured"), "proxy"),
        (("measured", "measured"), "measured"),
    ],
)
def test_the_total_is_of_the_weakest_kind(kinds: tuple[str, str], weakest: str) -> None:
    device = toy(replace(SYNOP, kind=kinds[0]), replace(UPDATE, kind=kinds[1]))
    assert price(EVENTS, device, charged=CHARGED, samples=1).kind == weakest


def test_an_unused_price_does_not_weaken_the_kind() -> None:
    device = toy(SYNOP, UPDATE, toy_price("hops", 1.0, kind="proxy"))
    assert price(EVENTS, device, charged=(*CHARGED, "hops"), samples=1).kind == "simulated"


def test_static_power_counts_only_where_the_device_has_one() -> None:
    without = price(EVENTS, toy(SYNOP, UPDATE), charged=CHARGED, samples=10, duration_s=1.0)
    assert without.excludes == ("the host", "static power")
    device = toy(SYNOP, UPDATE, static_w=2.0)
    budget = price(EVENTS, device, charged=CHARGED, samples=10, duration_s=1e-6)
    assert budget.total is not None
    assert budget.total.nominal_pj == pytest.approx(260.0 + 2.0 * 1e-7 * 1e12)
    assert budget.places["device"] is not None
    assert "static power" not in budget.excludes and "static_power" in budget.without_interval
    assert "Source c, table 1" in budget.sources
    unknown_time = price(EVENTS, device, charged=CHARGED, samples=10)
    assert unknown_time.total is None
    assert unknown_time.unavailable_reason == ("toy has a static power, but the time is not known")


def test_a_device_that_already_names_static_power_is_not_repeated() -> None:
    budget = price(EVENTS, load("loihi1"), charged=CHARGED, samples=1)
    assert sum("static power" in text for text in budget.excludes) == 1


def test_bad_arguments() -> None:
    device = toy(SYNOP, UPDATE)
    with pytest.raises(UsageError, match="at least one sample"):
        price(EVENTS, device, charged=CHARGED, samples=0)
    with pytest.raises(UsageError, match="finite and not negative"):
        price(EVENTS, device, charged=CHARGED, samples=1, duration_s=-1.0)
    with pytest.raises(UsageError, match="finite and not negative"):
        price(EVENTS, device, charged=CHARGED, samples=1, duration_s=float("nan"))
    with pytest.raises(ValueError, match="charged twice: synops_effective, synops_quantized"):
        price(EVENTS, device, charged=("synops_effective", "synops_quantized"), samples=1)
    with pytest.raises(ValueError, match="charged twice"):
        price(EVENTS, device, charged=("hops", "hops"), samples=1)
    with pytest.raises(ValueError, match="unknown event 'spike'"):
        price(EVENTS, device, charged=("spike",), samples=1)


def test_plugin_events_are_priced() -> None:
    events = Events({("fc1", "mychip:fetch"): 6})
    device = toy(toy_price("mychip:fetch", 2.0, (1.0, 3.0)))
    budget = price(events, device, charged=("mychip:fetch",), samples=2)
    assert budget.total == Energy(low_pj=3.0, nominal_pj=6.0, high_pj=9.0)


def test_shipped_loihi_charges_active_updates_once() -> None:
    """100 updates of which 10 spiked: 90 at 52 pJ and 10 at 81 pJ."""
    events = Events({("l", "neuron_updates"): 100, ("l", "neuron_updates_active"): 10})
    budget = price(
        events,
        load("loihi1"),
        charged=("neuron_updates", "neuron_updates_active"),
        samples=1,
    )
    assert budget.total is not None
    assert budget.total.nominal_pj == pytest.approx(90 * 52 + 10 * 81)
    assert budget.total.has_interval and budget.kind == "simulated"


def test_shipped_cpu_accumulates_and_multiplies() -> None:
    events = Events({("l", "synops_effective"): 10, ("l", "macs"): 10})
    budget = price(events, load("cpu45"), charged=("synops_effective", "macs"), samples=1)
    assert budget.total is not None
    assert budget.total.nominal_pj == pytest.approx(10 * 0.9 + 10 * 4.6)
    assert any("memory" in text for text in budget.excludes)


def test_shipped_fpga_charges_memory_by_the_bit() -> None:
    events = Events({("l", "weight_read_bits"): 64})
    budget = price(events, load("ecp5-25f"), charged=("weight_read_bits",), samples=1)
    assert budget.total is not None and budget.total.nominal_pj == 10.0
    assert budget.kind == "proxy" and budget.basis == "architecture"


def test_json_is_plain() -> None:
    events = EVENTS + Events({("fc1", "hops"): 1})
    budget = price(events, toy(SYNOP, UPDATE), charged=(*CHARGED, "hops"), samples=1)
    document = json.loads(json.dumps(budget.as_dict()))
    assert document["total"] is None and "hops" in document["unavailable_reason"]
    assert document["places"]["fc2"] == {"low_pj": 200, "nominal_pj": 400, "high_pj": 600}
    assert document["lines"][0]["each"]["nominal_pj"] == 20.0


def budget_of(label: str, low: float | None, high: float | None, **changes: object) -> Budget:
    """Return a budget of one event with the interval given."""
    interval = None if low is None or high is None else (low, high)
    nominal = 10.0 if interval is None else (interval[0] + interval[1]) / 2
    device = toy(toy_price("hops", nominal, interval))
    made = price(Events({("l", "hops"): 1}), device, charged=("hops",), samples=1, label=label)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_ranked_when_intervals_are_apart() -> None:
    (note,) = ranking([budget_of("a", 5.0, 6.0), budget_of("b", 1.0, 2.0)])
    assert note.ranked and note.lower == "b"
    assert note.reason == "b needs less: at most 2 pJ, a at least 5 pJ (simulated)"
    (note,) = ranking(
        [budget_of("a", 5.0, 6.0), budget_of("b", 1.0, 2.0, excludes=("static power",))]
    )
    assert note.ranked and note.reason.endswith("what the two leave out differs")


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (
            budget_of("a", 1.0, 3.0),
            budget_of("b", 3.0, 5.0),
            "the intervals overlap: a 2 pJ (1 pJ to 3 pJ), b 4 pJ (3 pJ to 5 pJ)",
        ),
        (
            budget_of("a", None, None),
            budget_of("b", 3.0, 5.0),
            "a has no interval: a single figure for hops",
        ),
        (
            budget_of("a", 1.0, 2.0, kind="estimated"),
            budget_of("b", 3.0, 5.0),
            "a is estimated, b is simulated: different kinds are not ranked",
        ),
        (
            budget_of("a", 1.0, 2.0, basis="architecture"),
            budget_of("b", 3.0, 5.0),
            "a is energy of operations in a process node, no particular chip, "
            "b is energy of one chip: the two are never ranked",
        ),
        (
            budget_of("a", 1.0, 2.0),
            budget_of("b", 3.0, 5.0, total=None, unavailable_reason="toy has no price for x"),
            "b has no total: toy has no price for x",
        ),
        (
            budget_of("a", 1.0, 2.0),
            budget_of("b", 0.0, 0.0, kind=None),
            "b has no priced work",
        ),
    ],
)
def test_not_ranked_and_why(a: Budget, b: Budget, reason: str) -> None:
    (note,) = ranking([a, b])
    assert not note.ranked and note.lower is None
    assert note.reason == reason
    assert note.as_dict()["first"] == "a"


def test_every_pair_of_the_shipped_targets_is_refused() -> None:
    """45 nm architecture energy is never ranked against a chip, nor its estimates and proxies."""
    events = Events(
        {("l", "synops_effective"): 9, ("l", "synops_quantized"): 9, ("l", "neuron_updates"): 9}
    )
    budgets = [
        price(events, load("cpu45"), charged=("synops_effective", "neuron_updates"), samples=1),
        price(events, load("loihi1"), charged=("synops_quantized", "neuron_updates"), samples=1),
        price(events, load("ecp5-25f"), charged=("synops_quantized", "neuron_updates"), samples=1),
    ]
    notes = ranking(budgets)
    assert [(n.first, n.second) for n in notes] == [
        ("cpu45", "loihi1"),
        ("cpu45", "ecp5-25f"),
        ("loihi1", "ecp5-25f"),
    ]
    assert not any(note.ranked for note in notes)
    assert "never ranked" in notes[0].reason and "never ranked" in notes[2].reason
    assert "different kinds" in notes[1].reason
