"""The hardware has no warnings: no width that does not fit, no latch, no unconnected pin."""

from __future__ import annotations

from pathlib import Path

import pytest

from snn_deploy.backends.fpga import tools
from snn_deploy.backends.fpga.artifacts import SOURCES, TOP, write_sources
from tests.differential.test_rtl import CASES
from tests.rtl_cases import case

#: Warnings that a module gives for what its parameters switch off, and nothing else.
WAIVED = {
    "UNUSEDSIGNAL": "what a feature that is off would read, and what only a monitor reads",
    "PINCONNECTEMPTY": "the value of an event that is a spike",
}
PATIENCE_S = 120.0


def _lint(verilator: tools.Tool, folder: Path, *options: str) -> list[str]:
    """Return the warnings and errors."""
    waived = [f"-Wno-{name}" for name in WAIVED]
    arguments = ["--lint-only", "-Wall", *waived, "--top-module", "accelerator", *options]
    arguments += [TOP, *SOURCES]
    ended = tools.run(verilator, arguments, cwd=folder, timeout_s=PATIENCE_S, check=False)
    assert (ended.code == 0) == ("%" not in ended.output)
    return [line for line in ended.output.splitlines() if line.startswith("%")]


@pytest.mark.parametrize("monitor", [True, False], ids=["monitored", "bare"])
@pytest.mark.parametrize("name", CASES)
def test_no_warnings(name, monitor, verilator, tmp_path):
    family, seed, settings, *_ = CASES[name]
    write_sources(case(family, seed, settings).program().payload, tmp_path)
    assert _lint(verilator, tmp_path, *["-DMONITOR"] * monitor) == []


def test_a_width_that_does_not_fit_is_a_warning(verilator, tmp_path):
    family, seed, settings, *_ = CASES["mean membrane"]
    write_sources(case(family, seed, settings).program().payload, tmp_path)
    neuron = tmp_path / "neuron.sv"
    wide = neuron.read_text().replace("VB'(toward_zero >>> DECAY)", "toward_zero >>> DECAY")
    neuron.write_text(wide)
    assert any("WIDTHTRUNC" in line for line in _lint(verilator, tmp_path))
