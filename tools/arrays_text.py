"""The words and tables of docs/arrays.md, from the rows of arrays.py."""

from __future__ import annotations

import textwrap
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
                f"{_gain(row):.2f}",
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


def page(rows: list[Row]) -> str:
    """Return docs/arrays.md."""
    shown = tables(rows)
    digits = [r for r in rows if (r["data"], r["arch"], r["method"]) == ("digits", "mlp", "imp")]
    falling = [r for r in digits if r["steps"] == 4]
    mnist = " --mnist FOLDER" if any(r["data"] == "mnist" for r in rows) else ""
    return f"""# The arrays of the papers, beside ours

    python tools/arrays.py --work FOLDER{mnist} --write

Two accelerators of the literature as cycle models, in `snn_deploy/backends/fpga/arrays/`, on
the tickets and spikes that our own accelerator runs (`--set banks=16`). All three have 16
elements and the same integer weights. `python tools/arrays.py --ticket MODEL --input X.npz`
does the same with yours.

- `lockstep`, after SATA and u-Ticket (Yin et al. 2024). Output channels are dealt to elements,
  which wait for the slowest after each wave of 16 channels (as in u-Ticket's published code),
  after each layer (as in [uticket.md](uticket.md)), or after each input. It *gates*, as
  published: every nonzero weight takes a cycle in every step, and only the adder's energy
  depends on the spike. Or it *skips*: only spikes take cycles.
- `loas`, after LoAS (Yin et al., MICRO 2024). The spikes of all T steps of a neuron are one
  word; neurons that never spike are silent and have none; bitmasks of inputs and weights are
  joined; each match is added as if the input spiked in all steps, and corrected where it did
  not.

What the sources leave open is chosen, and listed in the modules' docstrings. In the tests both
equal slow machines written apart from them, and the join's corrected sums are the currents of
every step, exactly.

## Cycles per sample
{rows[0]["samples"]} test samples. MLPs of 64-256-128-10 (digits) and 784-256-128-10 neurons
(MNIST, trained on 2,000 images), conv of 32 and 64 channels, trained by `imp` at T steps of
rate-coded input. Correct: in integers. Accumulates: spikes x nonzero weights.

{shown["cycles"]}

{_fall(falling)}

What a comparison of these columns must keep in mind:
- The arrays' operands are there when they are needed. Ours counts pointers, queues, drain and
  sweep (next table).
- An element of LoAS has T + 1 accumulators and two prefix sums, so that a cycle may do T
  accumulates; one of the others has one adder. Area and clock are not compared.
- The lockstep array that skips finds each element's next spike with a weight at no cost. Where
  it waits for each input, all elements take the same spike, as ours do, but without queues.
- LoAS starts when a sample's last step has come, and neither stops early nor runs feedback;
  the others work step by step. "Join by steps" is its join on one step at a time.
- "Ours" is one engine for all layers, one after the other, as the arrays; "pipelined" is one
  engine per layer.

Our cycles by part, over all layers (names as in `timing`):

{shown["parts"]}

## The lockstep array: who waits
Cycles without neuron updates, and utilisation in percent over the layers that fill the
elements. "Mean of waves" is u-Ticket's published average, of masks: each wave's utilisation
(with the mean load rounded up), averaged over a layer's waves, and then over layers.

{shown["waits"]}

{_utilisation(falling)}

{_balanced(shown)}
## LoAS: silence and packing
No spike: of all neurons and steps that come into layers; silent: neurons without a spike in
any step. Dropped: hidden neurons that spike once in a sample send nothing on; that is run
through the whole float network, without the fine-tuning that the paper adds. Faster than by
steps: than the same join, one step at a time. Laggy costs: cycles against those with a second
fast prefix sum. Busy: cycles of elements that add a match.

{shown["loas"]}

Published, with T = 4 (the artifact's Table II), no spike / silent / silent, dropped: AlexNet
81.2 / 71.3 / 76.7, VGG16 82.3 / 74.1 / 79.6, ResNet19 68.7 / 59.6 / 66.1 %.

{_steps(digits)}

The laggy prefix sum takes 8 cycles for each line of 128 bits with a match. The paper finds
almost no penalty. With few matches a line, as here, it does not hide behind them in our model.

Bits of one sample's spikes that come into layers, and of the weights as bitmasks, pointers and
8-bit values:

{shown["memory"]}

Packing pays against one bit per step where the words of silent neurons are more than a mask
bit for every neuron and a pointer per line.
"""


def _gain(row: Row) -> float:
    plain = row["loas"]["plain"]
    return float(plain["stepwise_cycles"] / plain["cycles"])


def _fall(falling: list[Row]) -> str:
    first, last = falling[0], falling[-1]

    def times(*path: str) -> str:
        before, after = first, last
        for name in path:
            before, after = before[name], after[name]
        return f"{before / after:.1f} times"

    return _filled(
        "The arrays' columns include neuron updates, 16 a cycle: in every step for the lockstep "
        "array and the join by steps, once for all steps for LoAS. On the digits' MLP, from "
        f"{100 * first['sparsity']:g} to {100 * last['sparsity']:g} % sparsity, accumulates fall "
        f"{times('accumulates')}; cycles without those updates fall "
        f"{times('lockstep', 'gates wave', 'cycles')} on the lockstep array that gates, "
        f"{times('lockstep', 'skips wave', 'cycles')} on the one that skips and "
        f"{times('loas', 'plain', 'cycles')} on LoAS; ours, all counted, "
        f"{times('ours', 'cycles')}."
    )


def _utilisation(falling: list[Row]) -> str:
    first, last = falling[0], falling[-1]
    return _filled(
        f"On the digits' MLP, from {100 * first['sparsity']:g} to {100 * last['sparsity']:g} % "
        f"sparsity, the mean of waves falls from {_percent(first['mean_utilisation'])} to "
        f"{_percent(last['mean_utilisation'])} %. u-Ticket reports 27 to 59 % for tickets by "
        "magnitude at about 98 %."
    )


def _steps(digits: list[Row]) -> str:
    longer = sorted((r for r in digits if r["sparsity"] == 0.95), key=lambda r: r["steps"])
    silent = ", ".join(
        f"{_percent(r['loas']['plain']['silent'])} % at T = {r['steps']}" for r in longer
    )
    gains = ", ".join(f"{_gain(r):.2f}" for r in longer)
    return _filled(
        f"With more steps fewer neurons stay silent: at 95 % sparsity, {silent}. The join of all "
        f"steps is faster than the join by steps, at these T, {gains} times."
    )


def _filled(text: str) -> str:
    return textwrap.fill(text, 96)


def _balanced(shown: dict[str, str]) -> str:
    if "balance" not in shown:
        return ""
    return f"""### Balanced tickets
`imp` -> `uticket` at the same sparsity, on the array that gates. Energy by the paper's formula
with the ratio fitted to its table ([uticket.md](uticket.md)). Our `uticket` balances the
elements' sums over a layer; the published code balances each wave.

{shown["balance"]}
"""
