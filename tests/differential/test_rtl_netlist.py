"""The netlist after synthesis, of a small accelerator, does in Verilator what its RTL does."""

from __future__ import annotations

import numpy as np

from snn_deploy.backends.arithmetics import FPGA
from snn_deploy.backends.fpga.artifacts import SOURCES, TOP, write_images, write_sources
from snn_deploy.backends.fpga.design import Design
from snn_deploy.backends.fpga.layout import Settings, build
from snn_deploy.backends.fpga.netlist import write_netlist
from snn_deploy.backends.fpga.simulate import files, simulate
from snn_deploy.passes.quantize import quantize
from tests.builders import lif, mlp, spikes

PATIENCE_S = 600.0


def test_the_netlist_sweeps_and_counts_as_the_rtl(yosys, verilator, tmp_path):
    rng = np.random.default_rng(1)
    net = mlp(rng, 6, 5, neuron=lif(4, threshold=0.25))
    program = build(quantize(net, FPGA), Settings(banks=2, fifo_depth=2))
    design = tmp_path / "design"
    design.mkdir()
    write_sources(program, design)
    write_images(program, design)
    # The monitor's ports stay ports of the netlist.
    top = design / TOP
    top.write_text(f"`define MONITOR\n{top.read_text()}")
    netlist, models = write_netlist(
        Design(
            top="accelerator",
            sources=[design / name for name in (*SOURCES, TOP)],
            images=sorted(design.glob("*.hex")),
        ),
        "ice40hx8k",
        work=tmp_path / "work",
        timeout_s=PATIENCE_S,
    )
    text = netlist.read_text()
    assert "SB_LUT4" in text and "SB_DFF" in text
    assert "module bank" not in text  # the hierarchy is gone: this is another description

    def mapped(_):
        found = dict.fromkeys(SOURCES, b"")
        return {**files(program), **found, TOP: models.read_bytes() + text.encode()}

    x = spikes(rng, 3, 5, (6,), 0.5)
    expected = simulate(program, x, 100_000)
    found = simulate(program, x, 100_000, files=mapped)
    assert len(expected.jobs) >= 3 * 5 * 4
    assert np.array_equal(found.jobs, expected.jobs)
    assert np.array_equal(found.words, expected.words)
