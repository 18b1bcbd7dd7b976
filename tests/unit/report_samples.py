"""Reports made by hand for the tests of renderers."""

from __future__ import annotations

from snn_deploy.report.model import Bar, Chart, Report, Section, Table, Text

LONG = "encoder.stages.3.residual_block.12." + "depthwise_separable_convolution_" * 2 + "end"
HOSTILE = (
    "<script>alert('x')</script>",
    "{{7*7}}",
    "{% raw %}",
    '" onmouseover="alert(1)',
    "a\x1b[31mred\x00\r\nline",
    "right\u202eleft",
    "zero\u200bwidth",
)

OPERATIONS = Table(
    title="",
    columns=("layer", "dense", "event", "effective", "memory"),
    rows=(
        ("conv1 > lif1", "123,904", "44,180", "28,016", "17.25 KiB"),
        ("fc > lif2", "81,920", "566.2", "283.1", "9.18 KiB"),
        ("total", "205,824", "44,746", "28,299", "26.43 KiB"),
    ),
    align="lrrrr",
    total=True,
    note="per sample; dense, event and effective are synaptic operations",
)
COMPARISON = Table(
    title="Three targets",
    columns=(
        "target",
        "accuracy",
        "effective",
        "quantized",
        "memory",
        "latency",
        "energy",
        "mismatches",
    ),
    rows=(
        ("cpu", "91.5 %", "42,546", "-", "106.7 KiB", "8 steps", "174 nJ", "0"),
        ("loihi", "91.2 %", "42,530", "42,530", "142.3 KiB", "11 steps", "2.31 uJ", "0"),
        ("fpga", "91.0 %", "42,543", "42,543", "15.77 KiB", "176 us", "593 nJ", "0 (model)"),
    ),
    align="lrrrrrrr",
)
WIDE = Table(
    title="Eleven columns of numbers",
    columns=("layer", *(f"long column {i}" for i in range(11))),
    rows=(
        (LONG, *(f"1,234,{567 + i}.5" for i in range(11))),
        ("fc", *(f"{i}" for i in range(11))),
        ("total", *(f"1,234,{567 + 2 * i}.5" for i in range(11))),
    ),
    align="l" + "r" * 11,
    total=True,
)
PROSE = Table(
    title="",
    columns=("what", "rule"),
    rows=(
        ("Conv2d", "stride 1 to 4, symmetric padding, dilation 1, one group or one per channel"),
        ("BatchNorm", "folded into the layer before it"),
    ),
    align="ll",
)
ENERGY = Chart(
    title="Energy per sample",
    unit="pJ",
    bars=(
        Bar(label="cpu", value=174e3, text="174 nJ"),
        Bar(label="loihi", value=2.31e6, low=2.29e6, high=3.5e6, text="2.31 uJ"),
        Bar(label="fpga", value=593e3, low=1e5, high=1.2e6, text="593 nJ (100 nJ to 1.2 uJ)"),
        Bar(label="other chip", value=None, text="no price for packets on this chip"),
        Bar(label="idle", value=0.0, text="0 J"),
    ),
    note="architecture energies are not ranked against a chip's",
)
MEMORY = Chart(
    title="Memory by what it holds",
    unit="bits",
    bars=(
        Bar(
            label="cpu",
            value=80_000.0,
            text="9.766 KiB",
            parts=(("weights", 64_000.0), ("state", 16_000.0)),
        ),
        Bar(
            label="fpga",
            value=40_000.0,
            text="4.883 KiB",
            parts=(("state", 24_000.0), ("indices", 15_999.0), ("weights", 1.0)),
        ),
    ),
)
STEPS = Chart(
    title="Operations",
    unit="operations",
    bars=(Bar(label="dense", value=6759424.0), Bar(label=LONG, value=1.0)),
)

DATA = {
    "model": {
        "path": "digits.pt",
        "sha256": "9ceb45247cc24e42" * 4,
        "format": "ticket",
        "neurons": 3082,
        "weights": 21280,
        "nonzeros": 2128,
        "sparsity": 0.9,
    },
    "targets": [
        {
            "target": "loihi",
            "accuracy": 0.9125,
            "energy": {
                "total": {"low_pj": 2.29e6, "nominal_pj": 2.31e6, "high_pj": 3.5e6},
                "kind": "simulated",
                "basis": "chip",
                "unavailable_reason": None,
            },
        },
        {
            "target": "fpga",
            "accuracy": None,
            "energy": {
                "total": None,
                "kind": None,
                "basis": "architecture",
                "unavailable_reason": "ecp5-25f has no price for packets",
            },
        },
    ],
    "verdicts": {
        "loihi": {"proof": {"judge": "Lava 0.10.0", "mismatches": {"spikes": 0, "v": 3}}},
        "fpga": {"proof": None, "lowering": {"judge": "", "mismatches": {"spikes": 0}}},
    },
}
ROWS = (
    {"target": "cpu", "layer": "conv1 > lif1", "spikes": 818.5, "energy_pj": None, "fits": True},
    {"target": "cpu", "layer": 'fc, "last"', "spikes": 0, "energy_pj": 0.1, "shape": [10]},
)


def full() -> Report:
    """Return a report with everything that the model can hold."""
    return Report(
        command="compare",
        title="one ticket on three targets",
        sections=(
            Section(
                title="",
                items=(
                    Text(
                        lines=(
                            ("model", "digits.pt (ticket)"),
                            ("network", "3,082 neurons, 2,128 of 21,280 weights nonzero"),
                            ("", "Nothing here ran on hardware."),
                        )
                    ),
                    COMPARISON,
                ),
            ),
            Section(title="Per layer", items=(OPERATIONS,)),
            Section(title="Charts", items=(ENERGY, MEMORY, STEPS)),
            Section(
                title="How it went",
                items=(
                    Text(title="proof", lines=(("spikes", "0 mismatches"),), tone="good"),
                    Text(title="lowering", lines=(("first", "fc, v of neuron 3"),), tone="bad"),
                    Text(lines=(("ranking", "not ranked"),), tone="unsure"),
                ),
            ),
            Section(title="Rules", items=(PROSE,)),
            Section(
                title="Sources",
                items=(
                    WIDE,
                    Text(
                        title="cpu on cpu45",
                        lines=(("source", "first"), ("source", "second"), (LONG, "value")),
                    ),
                ),
                detail=True,
            ),
        ),
        data=DATA,
        rows=ROWS,
    )


def hostile() -> Report:
    """Return a report that holds hostile text wherever it can hold text."""
    a, b, c, d, e, f, g = HOSTILE
    everything = " ".join(HOSTILE)
    table = Table(
        title=everything,
        columns=HOSTILE,
        rows=(HOSTILE, HOSTILE),
        align="lrlrlrl",
        total=True,
        note=everything,
    )
    chart = Chart(
        title=everything,
        unit=d,
        bars=(
            Bar(label=a, value=1.0, text=b, parts=tuple((x, 0.1) for x in HOSTILE)),
            Bar(label=everything, value=None, text=everything),
        ),
        note=everything,
    )
    text = Text(
        title=everything,
        lines=(*((x, x) for x in HOSTILE), ("", everything), (c, f)),
        tone="bad",
    )
    sections = tuple(Section(title=x, items=(table, chart, text)) for x in HOSTILE)
    card = {
        "target": e,
        "accuracy": 0.5,
        "energy": {"total": None, "unavailable_reason": everything},
    }
    return Report(
        command=g,
        title=everything,
        sections=sections,
        data={
            "model": {"path": everything, "format": d, "sha256": a, "neurons": 1},
            "targets": [card],
        },
        rows=({"name": everything},),
    )
