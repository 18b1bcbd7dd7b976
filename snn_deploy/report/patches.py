"""The report of ``select-patches``."""

from __future__ import annotations

from pathlib import Path

from snn_deploy import units
from snn_deploy.report.model import Report, Section, Text


def patches_report(out: Path | str, *, samples: int, kept: float, tokens: int) -> Report:
    """Return the report; kept: patches left per sample, of ``tokens``."""
    share = units.percent(kept / tokens)
    lines = (
        ("patches", f"{kept:g} of {tokens} kept per sample ({share})"),
        ("samples", f"{samples:,}"),
        ("file", str(out)),
    )
    return Report(
        command="select-patches",
        title=f"select-patches {out}",
        sections=(Section(title="", items=(Text(lines=lines),)),),
        data={"file": str(out), "samples": samples, "kept": kept, "patches": tokens},
    )
