"""Where a network lies on the cores of a device, from the mapping that its usage carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snn_deploy import units
from snn_deploy.report.model import Mesh, MeshCore, Section, Table, Text

_SHOWN = 6
_LOOSE_COLUMNS = 16  # cores in a row where no tiles are known
_WORDS = {
    "neurons": "neurons",
    "synapses": "synapses",
    "synapse_bits": "memory",
    "in_axons": "axons in",
    "out_axons": "axons out",
    "compartment_configs": "compartment configurations",
    "threshold_configs": "threshold configurations",
    "synapse_formats": "synapse formats",
}

_WORK = {
    "neuron_updates": "updates",
    "spikes": "spikes",
    "synops_dense": "dense",
    "synops_event": "event",
    "synops_quantized": "quantized",
    "synops_helper": "helper",
    "packets": "packets",
    "hops": "hops",
}


def cores_sections(cores: Mapping[str, Any], device: str) -> list[Section]:
    """Return how full the cores are, and, as a detail, every core."""
    found = cores["cores"]
    shares = {core["core"]: _fullest(core["used"], cores["limits"]) for core in found}
    fullest = sorted(found, key=lambda core: (-shares[core["core"]][0], core["core"]))
    short = len(found) <= _SHOWN
    sections = [
        Section(
            title=f"Cores of {device}",
            items=(
                _facts(cores, [share for share, _ in shares.values()]),
                _table(found if short else fullest[:_SHOWN], cores, shares, short=short),
            ),
        )
    ]
    mesh = _mesh(cores, shares)
    items = (mesh,) if short else (mesh, _table(found, cores, shares, short=True))
    return [*sections, Section(title=f"Core by core on {device}", items=items, detail=True)]


def work_section(work: Mapping[int, Mapping[str, int]], samples: int) -> Section:
    """Return, as a detail, what every core does per sample."""
    names = [name for name in _WORK if any(name in core for core in work.values())]
    table = Table(
        title="",
        columns=("core", *(_WORK[name] for name in names)),
        rows=tuple(
            (str(core), *(units.count(done.get(name, 0) / samples) for name in names))
            for core, done in sorted(work.items())
        ),
        align="r" * (1 + len(names)),
        note="operations where their synapses are, packets and hops where they are sent; what "
        "the host sends is not among them",
    )
    return Section(title="Work per sample, core by core", items=(table,), detail=True)


def _fullest(used: Mapping[str, int], limits: Mapping[str, int]) -> tuple[float, str]:
    """Return the largest share of a limit, and of which."""
    found = [(used[name] / most, name) for name, most in limits.items() if most]
    share, name = max(found, key=lambda pair: pair[0], default=(0.0, ""))
    return share, _WORDS.get(name, name)


def _facts(cores: Mapping[str, Any], shares: list[float]) -> Text:
    totals = cores["totals"]
    chips = totals["chips"]
    taken = f"{totals['cores']:,} on {chips:,} chip{'s' * (chips > 1)}"
    shared = sum(len({s["population"] for s in core["slices"]}) > 1 for core in cores["cores"])
    carried = [name for name, s in cores["synapses"].items() if s["axons"] == "population"]
    lines = [
        ("cores", taken),
        ("fullest limit", f"{units.percent(sum(shares) / len(shares))} on average"),
        ("neurons", f"{totals['neurons'] / totals['cores']:,.0f} per core"),
        ("memory", f"{units.bits(totals['synapse_bits'])} of synapses"),
    ]
    if shared:
        lines.append(("shared cores", f"{shared:,} hold several populations"))
    if carried:
        lines.append(("population axons", f"carry {', '.join(carried)}"))
    return Text(lines=tuple(lines))


def _table(
    chosen: list[Any],
    cores: Mapping[str, Any],
    shares: Mapping[int, tuple[float, str]],
    *,
    short: bool,
) -> Table:
    most = cores["limits"].get("synapse_bits")
    rows = []
    for core in chosen:
        used = core["used"]
        bits = used["synapse_bits"]
        rows.append(
            (
                str(core["core"]),
                held(core, cores["populations"]),
                f"{used['neurons']:,}",
                units.bits(bits) if not most else f"{bits:,} ({units.percent(bits / most)})",
                f"{used['in_axons']:,}",
                f"{used['out_axons']:,}",
                shares[core["core"]][1],
            )
        )
    return Table(
        title="" if short else f"The {len(chosen)} fullest cores",
        columns=("core", "holds", "neurons", "bits", "in", "out", "fullest"),
        rows=tuple(rows),
        align="rlrrrrl",
        note="bits: of synapse memory; in, out: axons; fullest: the limit that is nearest",
    )


def held(core: Mapping[str, Any], populations: Mapping[str, Any]) -> str:
    """Return what a core holds: each population, with the part of it in brackets."""
    parts = []
    for part in core["slices"]:
        channels, height, width = populations[part["population"]]["shape"]
        whole = ((0, channels), (0, height), (0, width))
        found = (part["channels"], part["rows"], part["columns"])
        ranges = [
            "" if tuple(span) == full else f"{span[0]}:{span[1]}"
            for span, full in zip(found, whole, strict=True)
        ]
        if height == width == 1:
            ranges = ranges[:1]
        said = ",".join(r or ":" for r in ranges)
        parts.append(part["population"] + (f"[{said}]" if any(ranges) else ""))
    return " ".join(parts)


def _mesh(cores: Mapping[str, Any], shares: Mapping[int, tuple[float, str]]) -> Mesh:
    tiled = cores["mesh"] is not None
    drawn = []
    for number, core in enumerate(cores["cores"]):
        row, column = divmod(number, _LOOSE_COLUMNS)
        if tiled:
            column, row = core["position"]
        share, what = shares[core["core"]]
        label = f"core {core['core']}: {held(core, cores['populations'])}"
        drawn.append(
            MeshCore(
                chip=core["chip"] if tiled else 0,
                column=column,
                row=row,
                place=core["place"] if tiled else 0,
                share=share,
                text=f"{label}; {units.percent(share)} of {what}" if what else label,
            )
        )
    columns, rows = cores["mesh"] or (_LOOSE_COLUMNS, -(-len(drawn) // _LOOSE_COLUMNS))
    return Mesh(
        title="Tiles and cores" if tiled else "Cores, without places: no tiles are public",
        columns=columns,
        rows=rows,
        per_tile=cores["cores_per_tile"] if tiled else 1,
        cores=tuple(drawn),
        note="how much of its fullest limit each core uses",
    )
