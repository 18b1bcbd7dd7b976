"""What synthesis, place and route say of a target's hardware, beside the estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snn_deploy.report.model import Section, Table, Text

if TYPE_CHECKING:
    from snn_deploy.backends.fpga.synthesis import Synthesis
    from snn_deploy.device.model import Device
    from snn_deploy.device.usage import Usage

#: Figure of Cells: (title, the device's limit, the resource of the estimate).
_ROWS = {
    "luts": ("LUT", ("lut4", "lut6"), ""),
    "ffs": ("flip-flops", ("ff",), ""),
    "block_rams": ("block RAM", ("block_ram",), "block RAM"),
    "dsps": ("DSP", ("dsp",), ""),
}


def synthesis_section(usage: Usage, device: Device, made: Synthesis) -> Section:
    """Return the section of one synthesized design."""
    estimates = {r.name: r.used for r in usage.resources}
    rows = []
    for name, (title, keys, resource) in _ROWS.items():
        used = getattr(made.cells, name)
        limit = next((device.limit(k) for k in keys if k in device.limits), None)
        estimate = estimates.get(resource)
        off = "-" if estimate is None or not used else f"{100 * (estimate / used - 1):+.0f} %"
        rows.append(
            (
                title,
                "-" if estimate is None else f"{estimate:,}",
                f"{used:,g}",
                off,
                "-" if limit is None else f"{int(limit):,}",
            )
        )
    table = Table(
        title="",
        columns=("resource", "estimate", "synthesis", "deviation", "device"),
        rows=tuple(rows),
        align="lrrrr",
    )
    lines = [("tools", ", ".join(made.tools))]
    if made.fmax_mhz is not None:
        lines.insert(0, ("clock", f"up to {made.fmax_mhz:.1f} MHz after place and route"))
    return Section(title=f"Synthesis for {made.part}", items=(table, Text(lines=tuple(lines))))
