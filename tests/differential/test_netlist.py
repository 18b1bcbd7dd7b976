"""The netlist after synthesis does in Verilator what the source does."""

from __future__ import annotations

import re
import subprocess

import pytest

from snn_deploy.backends.fpga import tools
from snn_deploy.backends.fpga.design import Design
from snn_deploy.backends.fpga.netlist import write_netlist
from snn_deploy.errors import ExternalToolError, MissingDependencyError, UnsupportedError

SOURCE = """\
module table_sum (
    input logic clk, input logic clear, input logic write, input logic [7:0] address,
    input logic [7:0] value, output logic [7:0] word, output logic [11:0] sum
);
  logic [7:0] memory[256];
  initial $readmemh("table.hex", memory);
  always_ff @(posedge clk) begin
    word <= memory[address];
    if (write) memory[address] <= value;
    if (clear) sum <= '0;
    else sum <= sum + 12'(word);
  end
endmodule
"""
BOTH = """\
module both (
    input logic clk, input logic clear, input logic write, input logic [7:0] address,
    input logic [7:0] value, output logic [19:0] source, output logic [19:0] netlist
);
  table_sum one (.*, .word(source[7:0]), .sum(source[19:8]));
  mapped two (.*, .word(netlist[7:0]), .sum(netlist[19:8]));
endmodule
"""
BENCH = """\
#include "Vboth.h"
#include <cstdint>
#include <cstdio>
int main() {
  VerilatedContext context;
  Vboth top{&context};
  uint32_t state = 1;
  auto next = [&](uint32_t bits) { state = state * 1664525u + 1013904223u;
                                   return (state >> 8) & ((1u << bits) - 1u); };
  for (int cycle = 0; cycle < 2000; ++cycle) {
    top.clear = cycle < 2 || next(6) == 0;
    top.write = cycle > 500 && next(1);  // first the contents, then what was written
    top.address = next(8);
    top.value = next(8);
    for (int edge = 0; edge < 2; ++edge) { top.clk = edge; top.eval(); }
    if (cycle > 2) std::printf("%u %u\\n", unsigned(top.source), unsigned(top.netlist));
  }
  return 0;
}
"""
PATIENCE_S = 300.0


@pytest.fixture
def design(tmp_path) -> Design:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "table_sum.sv").write_text(SOURCE)
    (folder / "table.hex").write_text("".join(f"{(i * 151 + 7) % 256:02x}\n" for i in range(256)))
    return Design(top="table_sum", sources=[folder / "table_sum.sv"], images=[folder / "table.hex"])


def test_the_netlist_does_what_the_source_does(yosys, verilator, design, tmp_path):
    work = tmp_path / "work"
    netlist, models = write_netlist(design, "ice40up5k", work=work, timeout_s=PATIENCE_S)
    text = netlist.read_text()
    assert text.count("SB_RAM40_4K") == 1 and "SB_LUT4" in text
    mapped, renamed = re.subn(r"\bmodule \\?table_sum\b", "module mapped", text)
    assert renamed == 1
    (work / "mapped.v").write_text(mapped)
    (work / "both.sv").write_text(BOTH)
    (work / "bench.cpp").write_text(BENCH)
    words = "--cc --exe --build -Mdir made --top-module both -Wno-fatal -Wno-lint"
    flags = ["-Wno-TIMESCALEMOD", "-CFLAGS", "-O0 -DVL_TIME_CONTEXT"]
    files = ["table_sum.sv", "both.sv", "mapped.v", str(models), "bench.cpp"]
    tools.run(verilator, [*words.split(), *flags, *files], cwd=work, timeout_s=PATIENCE_S)
    bench = [work / "made" / "Vboth"]
    ran = subprocess.run(bench, cwd=work, capture_output=True, check=True, text=True)
    source, result = zip(*(line.split() for line in ran.stdout.splitlines()), strict=True)
    assert result == source
    assert len(source) == 1997 and len(set(source)) > 1000


def test_cells_without_models(design, tmp_path):
    with pytest.raises(UnsupportedError, match="cells of ecp5-25f cannot be simulated") as caught:
        write_netlist(design, "ecp5-25f", work=tmp_path, timeout_s=1)
    assert "ice40hx8k" in str(caught.value.hint)


def test_a_yosys_without_its_models(tmp_path):
    bare = tools.Tool(
        name="yosys", version="0.50", command=(str(tmp_path / "bin" / "yosys"),), origin="PATH"
    )
    with pytest.raises(MissingDependencyError, match=r"has no ice40/cells_sim\.v") as caught:
        tools.shared_file(bare, "ice40/cells_sim.v")
    assert caught.value.hint == tools.INSTALL
    models = tmp_path / "share" / "yosys" / "ice40" / "cells_sim.v"
    models.parent.mkdir(parents=True)
    models.touch()
    assert tools.shared_file(bare, "ice40/cells_sim.v") == models.resolve()


def test_verilator_says_what_is_wrong(verilator, tmp_path):
    (tmp_path / "wrong.sv").write_text("module wrong;\n  nonsense\nendmodule\n")
    with pytest.raises(ExternalToolError, match="verilator ended with exit code 1") as caught:
        tools.run(verilator, ["--lint-only", "wrong.sv"], cwd=tmp_path, timeout_s=PATIENCE_S)
    assert "%Error: wrong.sv:3" in str(caught.value.used)
