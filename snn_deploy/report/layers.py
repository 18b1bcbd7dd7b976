"""Operations, memory and energy, layer by layer and event by event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snn_deploy import units
from snn_deploy.ir.events import Events
from snn_deploy.ir.network import Network
from snn_deploy.report.analyse import Outcome
from snn_deploy.report.model import Bar, Chart, Item, Section, Table, Text

_OPERATIONS = {
    "synops_dense": "dense",
    "synops_event": "event",
    "synops_effective": "effective",
    "synops_quantized": "quantized",
    "synops_helper": "helper",
    "macs": "MACs",
}
_COSTS = {"neuron_updates": "updates", "spikes": "spikes", "cycles": "cycles"}


def layers(network: Network) -> list[tuple[str, tuple[str, ...]]]:
    """Return (label, places counted there) per population, in order of computation."""
    rows = []
    for population in network.computing():
        fan_in = tuple(p.name for p in network.into(population.name))
        label = f"{'+'.join(fan_in)} > {population.name}" if fan_in else population.name
        rows.append((label, (*fan_in, population.name)))
    return rows


def layer_records(outcome: Outcome) -> list[dict[str, Any]]:
    """Return one record of raw values per layer and sample: the main table of run and compare.

    What costs energy outside a layer (links of a network on chip, static power) has a record of
    its own, so that the records' energies add up to the total.
    """
    memory: dict[str, int] = {}
    for item in outcome.usage.items:
        memory[item.where] = memory.get(item.where, 0) + item.bits
    network = outcome.program.real
    found = [(name, (name,)) for name in network.inputs] + layers(network)
    known = {place for _, places in found for place in places}
    outside = [(p, (p,)) for p in (*outcome.budget.places, *memory) if p not in known]
    records = []
    for label, places in (*found, *dict.fromkeys(outside)):
        record: dict[str, Any] = {"target": outcome.target.name, "layer": label}
        for name in (*_OPERATIONS, *_COSTS):
            count = _per_layer(outcome.events, places, name)
            record[name] = None if count is None else count / outcome.samples
        record["memory_bits"] = sum(memory.get(p, 0) for p in places)
        energies = [outcome.budget.places[p] for p in places if p in outcome.budget.places]
        priced = [e.nominal_pj for e in energies if e is not None]
        record["energy_pj"] = sum(priced) if len(priced) == len(energies) else None
        records.append(record)
    return records


def _per_layer(events: Events, places: Sequence[str], name: str) -> int | None:
    found = [events[p, name] for p in places if (p, name) in events]
    return sum(found) if found else None


def cell(value: float | None) -> str:
    """Return a count as a table shows it."""
    return "-" if value is None else units.count(value)


def layer_tables(outcome: Outcome) -> tuple[Table, Table]:
    """Return synaptic operations per layer, and updates, spikes, memory and energy per layer."""
    records = layer_records(outcome)
    total = outcome.budget.total
    energies = ["-" if r["energy_pj"] == 0 else _energy(r["energy_pj"]) for r in records]
    sizes = [r["memory_bits"] for r in records]
    operations = _table(
        records,
        _OPERATIONS,
        ("synops_effective",),
        note="synaptic operations per sample: dense counts all connections in every step, event "
        "spikes x fan-out, effective spikes x nonzero fan-out",
    )
    costs = _table(
        records,
        _COSTS,
        ("spikes",),
        more={
            "memory": [units.bits(n) if n else "-" for n in sizes]
            + [units.bits(outcome.usage.bits())],
            "energy": [*energies, _energy(None if total is None else total.nominal_pj)],
        },
        note="per sample"
        + ("; layers may work at the same time, see latency" if _has_cycles(records) else ""),
    )
    return operations, costs


def _has_cycles(records: Sequence[dict[str, Any]]) -> bool:
    return any(record["cycles"] for record in records)


def _energy(value_pj: float | None) -> str:
    return "n/a" if value_pj is None else units.energy(value_pj)


def _table(
    records: Sequence[dict[str, Any]],
    names: dict[str, str],
    always: Sequence[str],
    more: dict[str, list[str]] | None = None,
    note: str = "",
) -> Table:
    """Return a table of the columns that hold anything, with their sums in the last row."""
    more = more or {}
    shown = [k for k in names if k in always or any(r[k] for r in records)]
    kept = [i for i, r in enumerate(records) if more or any(r[k] is not None for k in shown)]
    rows = []
    for i in kept:
        cells = [cell(records[i][k]) for k in shown]
        rows.append((records[i]["layer"], *cells, *(column[i] for column in more.values())))
    totals = [cell(sum(r[k] or 0 for r in records)) for k in shown]
    rows.append(("total", *totals, *(column[-1] for column in more.values())))
    return Table(
        title="",
        columns=("layer", *(names[k] for k in shown), *more),
        rows=tuple(rows),
        align="l" + "r" * (len(shown) + len(more)),
        total=True,
        note=note,
    )


def _by_event(outcome: Outcome) -> dict[str, tuple[float, float | None]]:
    """Return (count, picojoules) per sample of every charged event; None without a price."""
    found: dict[str, tuple[float, float | None]] = {}
    for line in outcome.budget.lines:
        count, pj = found.get(line.event, (0.0, 0.0))
        more = None if line.per_sample is None else line.per_sample.nominal_pj
        found[line.event] = (
            count + line.count_per_sample,
            None if pj is None or more is None else pj + more,
        )
    return found


def energy_table(outcome: Outcome) -> Table:
    """Return every charged event with its count, price and energy per sample."""
    rows = []
    for event, (count, pj) in _by_event(outcome).items():
        found = outcome.program.device.prices.get(event)
        each = "no price" if found is None else f"{found.nominal_pj:.4g} pJ"
        kind = "-" if found is None else found.kind
        static = outcome.program.device.static_power
        if event == "static_power" and static is not None:
            each, kind = f"{static.value} {static.unit}", static.kind
            rows.append((event, units.seconds(count), each, _energy(pj), kind))
            continue
        rows.append((event, cell(count), each, _energy(pj), kind))
    return Table(
        title="",
        columns=("event", "per sample", "price each", "energy", "kind"),
        rows=tuple(rows),
        align="lrrrl",
    )


def energy_chart(outcome: Outcome) -> Chart:
    """Return where the energy of one target goes, event by event."""
    bars = [
        Bar(label=event, value=pj, text=_energy(pj))
        for event, (_, pj) in _by_event(outcome).items()
    ]
    return Chart(title="Energy per sample by event", unit="pJ", bars=tuple(bars))


def sources_section(outcomes: Sequence[Outcome]) -> Section:
    """Return where prices come from and what totals leave out."""
    items: list[Item] = []
    for outcome in outcomes:
        budget = outcome.budget
        lines = [("source", s) for s in budget.sources] + [("excludes", e) for e in budget.excludes]
        lines += [("not counted", n) for n in budget.not_counted if n != "macs"]
        items.append(Text(title=budget.label, lines=tuple(lines)))
    return Section(title="Sources and what is left out", items=tuple(items), detail=True)
