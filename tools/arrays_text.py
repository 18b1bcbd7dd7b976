"""The words and tables of docs/arrays.md, from the rows of arrays.py."""

from __future__ import annotations

from typing import Any

from uticket_table import Network as Published
from uticket_table import fitted_ratio

Row = dict[str, Any]


def tables(rows: list[Row]) -> dict[str, str]:
    """Return every table as Markdown, by name; without those that have no rows."""
    found = {"cycles": _cycles(rows), "waits": _waits(rows), "loas": _loas(rows)}
    found |= {"memory": _memory(rows), "parts": _parts(rows)}
    balanced = [row for row in rows if row["table"] == "balance"]
    return found | ({"balance": _balance(rows, balanced)} if balanced else {})


def _table(heads: str, lines: list[list[str]]) -> str:
    """Return a Markdown table; heads: "a | b"."""
    columns = heads.count("|") + 1
    return "\n".join(
        [f"| {heads} |", f"|{'---|' + '---:|' * (columns - 1)}"]
        + [f"| {' | '.join(line)} |" for line in lines]
    )


def _name(row: Row) -> str:
    sparsity = "" if row["sparsity"] is None else f" {100 * row['sparsity']:g} %"
    words = (row["data"], row["arch"], "" if row["method"] == "imp" else row["method"])
    return f"{' '.join(word for word in words if word)}{sparsity}, T = {row['steps']}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _cycles(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        locked, once = row["lockstep"], row["update_cycles"]
        each = once * row["steps"]
        lines.append(
            [
                _name(row),
                _percent(row["accuracy"]),
                f"{row['accumulates']:,.0f}",
                f"{locked['gates wave']['cycles'] + each:,.0f}",
                f"{locked['skips wave']['cycles'] + each:,.0f}",
                f"{row['loas']['plain']['stepwise_cycles'] + each:,.0f}",
                f"{row['loas']['plain']['cycles'] + once:,.0f}",
                f"{row['ours']['cycles']:,.0f}",
                f"{row['ours']['pipelined_cycles']:,.0f}",
            ]
        )
    heads = "ticket | correct % | accumulates | lockstep, gates | lockstep, skips "
    return _table(heads + "| join by steps | LoAS | ours | ours, pipelined", lines)


def _waits(rows: list[Row]) -> str:
    kinds = [f"{how} {waits}" for how in ("gates", "skips") for waits in ("wave", "layer", "event")]
    lines = [
        [_name(row), _percent(row["mean_utilisation"])]
        + [
            f"{row['lockstep'][k]['cycles']:,.0f} ({_percent(row['lockstep'][k]['utilisation'])})"
            for k in kinds
        ]
        for row in rows
    ]
    return _table("ticket | mean of waves % | " + " | ".join(kinds), lines)


def _loas(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        plain, fast, dropped = (row["loas"][k] for k in ("plain", "two_fast_sums", "dropped"))
        per_match = plain["corrections"] / plain["matches"] if plain["matches"] else 0.0
        lines.append(
            [
                _name(row),
                *(_percent(v) for v in (plain["spike_sparsity"], plain["silent"])),
                _percent(dropped["silent"]),
                f"{_percent(row['accuracy'])} -> {_percent(dropped['accuracy'])}",
                f"{plain['cycles']:,.0f}",
                f"{plain['stepwise_cycles'] / plain['cycles']:.2f}",
                f"{plain['cycles'] / dropped['cycles']:.2f}",
                f"{plain['cycles'] / fast['cycles']:.2f}",
                f"{per_match:.2f}",
                _percent(plain["utilisation"]),
            ]
        )
    heads = "ticket | no spike % | silent % | silent, dropped % | correct % | cycles "
    heads += "| faster than by steps | faster, dropped | laggy costs | corrections a match | busy %"
    return _table(heads, lines)


def _memory(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        plain, dropped = row["loas"]["plain"], row["loas"]["dropped"]
        lines.append(
            [
                _name(row),
                f"{plain['map_bits']:,}",
                f"{plain['coordinate_bits']:,.0f}",
                f"{plain['packed_bits']:,.0f}",
                f"{plain['packed_bits'] / plain['map_bits']:.2f}",
                f"{dropped['packed_bits']:,.0f}",
                f"{plain['weight_bits']:,}",
            ]
        )
    heads = "ticket | a bit per step | list of spikes | packed | of a bit per step "
    return _table(heads + "| packed, dropped | weights", lines)


def _parts(rows: list[Row]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["ours"]["parts"]))
    lines = [
        [_name(row), *(f"{row['ours']['parts'].get(name, 0.0):,.0f}" for name in names)]
        for row in rows
    ]
    return _table(" | ".join(["ticket", *names]), lines)


def _balance(rows: list[Row], balanced: list[Row]) -> str:
    ratio, lines = fitted_ratio(), []
    for row in balanced:
        same = ("data", "arch", "sparsity", "steps")
        before = next(r for r in rows if r["method"] == "imp" and all(r[k] == row[k] for k in same))
        for waits in ("wave", "layer"):
            pair = [r["lockstep"][f"gates {waits}"] for r in (before, row)]
            energy = [_published(one).energy(ratio) for one in pair]
            lines.append(
                [
                    f"{_name(before)}, {waits}",
                    " -> ".join(_percent(r["accuracy"]) for r in (before, row)),
                    " -> ".join(_percent(one["utilisation"]) for one in pair),
                    " -> ".join(f"{one['work']:,.0f}" for one in pair),
                    " -> ".join(f"{one['cycles']:,.0f}" for one in pair),
                    f"{100 * (1 - pair[1]['cycles'] / pair[0]['cycles']):.1f}",
                    f"{100 * (1 - energy[1] / energy[0]):.1f}",
                ]
            )
    heads = "ticket, waits | correct % | utilisation % | work | cycles | cycles cut % "
    return _table(heads + "| energy cut %", lines)


def _published(one: Row) -> Published:
    return Published(work=one["work"], idle=one["idle"], spike_sparsity=one["spike_sparsity"] or 0)
