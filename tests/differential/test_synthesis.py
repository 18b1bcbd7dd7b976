"""Small designs through Yosys and nextpnr: the figures are those of what was written."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from snn_deploy.backends.fpga import synth, tools
from snn_deploy.backends.fpga.design import Design
from snn_deploy.backends.fpga.parts import Cells
from snn_deploy.backends.fpga.synth import synthesize
from snn_deploy.errors import ExternalToolError, FitError
from snn_deploy.io.cache import cache_folder

# A counter, a block memory with contents, a small one, a product.
SMALL = """\
`include "widths.svh"
module small #(parameter CONTENTS = "", parameter int WIDTH = 1) (
    input logic clk, input logic write, input logic [9:0] address,
    input logic [17:0] value, output logic [17:0] word, output logic [7:0] little,
    output logic [`COUNT-1:0] count, output logic [31:0] product
);
  logic [17:0] memory[1024];
  logic [7:0] table_[16];
  logic [15:0] left, right;
  initial $readmemh(CONTENTS, memory);
  always_ff @(posedge clk) begin
    word <= memory[address];
    if (write) memory[address] <= value;
    if (write) table_[address[3:0]] <= value[7:0];
    if (write) count <= '0;
    else count <= count + 1'b1;
    {left, right} <= {left[15-WIDTH:0], right, value[WIDTH-1:0]};
    product <= left * right;
  end
  assign little = table_[address[7:4]];
endmodule
"""
BIG = """\
module big #(parameter int BLOCKS = 60) (
    input logic clk, input logic write, input logic [9:0] address,
    input logic [17:0] value, output logic [17:0] word
);
  logic [17:0] chain[BLOCKS+1];
  assign chain[0] = value;
  assign word = chain[BLOCKS];
  for (genvar i = 0; i < BLOCKS; i++) begin : each
    logic [17:0] memory[1024];
    always_ff @(posedge clk) begin
      chain[i+1] <= memory[address];
      if (write) memory[address] <= chain[i];
    end
  end
endmodule
"""
TREE = """\
module leaf #(parameter int WIDTH = 4) (
    input logic clk, input logic [WIDTH-1:0] d, output logic [WIDTH-1:0] q
);
  always_ff @(posedge clk) q <= d;
endmodule
module pair (input logic clk, input logic [7:0] d, output logic [7:0] q);
  leaf #(4) low (clk, d[3:0], q[3:0]);
  leaf #(4) high (clk, d[7:4], q[7:4]);
endmodule
module tree (input logic clk, input logic [21:0] d, output logic [21:0] q);
  pair one (clk, d[7:0], q[7:0]);
  pair two (clk, d[15:8], q[15:8]);
  leaf #(5) three (clk, d[20:16], q[20:16]);
  always_ff @(posedge clk) q[21] <= d[21];
endmodule
"""
IMAGE = [(i * 40503 + 77) % (1 << 18) for i in range(1024)]
COUNT = 12


@pytest.fixture(scope="module")
def design(yosys, tmp_path_factory) -> Path:
    """A folder, with a space in its name, that holds the sources."""
    folder = tmp_path_factory.mktemp("my designs")
    (folder / "small.sv").write_text(SMALL)
    (folder / "widths.svh").write_text(f"`define COUNT {COUNT}\n")
    (folder / "image.hex").write_text("".join(f"{word:05x}\n" for word in IMAGE))
    (folder / "big.sv").write_text(BIG)
    (folder / "tree.sv").write_text(TREE)
    return folder


def small(design: Path, part: str, work: Path, **options):
    hardware = Design(
        top="small",
        sources=[design / "widths.svh", design / "small.sv"],
        images=[design / "image.hex"],
        parameters={"CONTENTS": "image.hex", "WIDTH": 2},
    )
    return synthesize(hardware, part, work=work, **options)


def one_file(folder: Path, top: str, **parameters: int) -> Design:
    return Design(top=top, sources=[folder / f"{top}.sv"], parameters=parameters)


@pytest.fixture(scope="module")
def work(design) -> Path:
    return design / "made here"


@pytest.fixture(scope="module")
def on_ecp5(design, work):
    return small(design, "ecp5-25f", work, clock_mhz=100.0, seed=3)


def test_cells_on_ecp5(on_ecp5, work):
    cells = on_ecp5.cells
    assert (cells.block_rams, cells.dsps, cells.memory_luts, cells.large_rams) == (1, 1, 12, 0)
    # The product's register may be the multiplier's own, the word's the memory's.
    assert COUNT + 32 <= cells.ffs <= COUNT + 32 + 32 + 18
    # nextpnr counts the same netlist before it packs it.
    log = (work / synth.PLACE_LOG).read_text()
    counts = {name: int(n) for name, n in re.findall(r"^Info:\s+(\S.*):\s+(\d+)/", log, re.M)}
    assert cells.luts == counts["Total LUT4s"]
    assert cells.carry_luts == counts["carry LUTs"] > 0
    assert cells.memory_luts == counts["RAM LUTs"] + counts["RAMW LUTs"]
    assert cells.ffs == counts["Total DFFs"]
    assert on_ecp5.lut_inputs == 4 and on_ecp5.modules == ()


def test_placement_on_ecp5(on_ecp5):
    placement = on_ecp5.placement
    used = {use.name: (use.used, use.available) for use in placement.uses}
    assert used["block RAM"] == (1, 56)
    assert used["DSP"] == (1, 28)
    assert used["pin"] == (2 + 10 + 18 + 18 + 8 + COUNT + 32, 197)
    assert used["FF"] == (on_ecp5.cells.ffs, 24288)
    assert used["LUT4"][0] >= on_ecp5.cells.luts
    assert (placement.clock_mhz, placement.seed, placement.pins) == (100.0, 3, True)
    assert on_ecp5.fmax_mhz == pytest.approx(1000 / placement.critical_path.delay_ns)
    assert 20 < on_ecp5.fmax_mhz < 1000
    assert placement.critical_path.start and placement.critical_path.end


def test_the_contents_of_memories_reach_the_netlist(on_ecp5, work):
    modules = json.loads((work / synth.NETLIST).read_text())["modules"]
    (memory,) = (c for c in modules["small"]["cells"].values() if c["type"] == "DP16KD")
    words = [v for k, v in memory["parameters"].items() if k.startswith("INITVAL_")]
    assert sum(word.count("1") for word in words) == sum(word.bit_count() for word in IMAGE)


def test_the_tools_are_named_and_times_do_not_count(on_ecp5):
    assert on_ecp5.tools == (str(tools.require("yosys")), str(tools.require("nextpnr-ecp5")))
    assert set(on_ecp5.seconds) == {"yosys", "nextpnr-ecp5"}
    assert on_ecp5 == dataclasses.replace(on_ecp5, seconds={})


def test_an_equal_design_is_not_synthesized_again(design, on_ecp5, tmp_path, monkeypatch):
    def ran(*_, **__):
        raise AssertionError("a tool ran")

    monkeypatch.setattr(tools, "run", ran)
    said: list[str] = []
    options = {"clock_mhz": 100.0, "seed": 3}
    again = small(design, "ecp5-25f", tmp_path / "new", report=said.append, **options)
    assert again == on_ecp5
    assert said == ["small on ecp5-25f: known from an earlier synthesis"]
    assert not (tmp_path / "new").exists()
    for other in ({"clock_mhz": 90.0, "seed": 3}, {"clock_mhz": 100.0, "seed": 4}):
        with pytest.raises(AssertionError):
            small(design, "ecp5-25f", tmp_path / "new", **other)
    (tmp_path / "image.hex").write_text("0\n" * 1024)
    for name in ("widths.svh", "small.sv"):
        (tmp_path / name).write_bytes((design / name).read_bytes())
    with pytest.raises(AssertionError):
        small(tmp_path, "ecp5-25f", tmp_path / "new", **options)
    for kept in (cache_folder() / "synthesis").iterdir():
        kept.write_text("{}")
    with pytest.raises(AssertionError):
        small(design, "ecp5-25f", tmp_path / "new", **options)


def test_a_block_without_pins_on_ice40(design, tmp_path):
    found = small(design, "ice40up5k", tmp_path / "none", pins=False)
    used = {use.name: use.used for use in found.placement.uses}
    assert used["pin"] == 1  # the clock
    assert used["block RAM"] == found.cells.block_rams == 5  # 1,024 x 18 in blocks of 256 x 16
    assert used["DSP"] == found.cells.dsps == 1
    assert used["logic cell"] >= max(found.cells.luts, found.cells.ffs)
    assert found.fmax_mhz is not None and not found.placement.pins


def test_a_design_with_too_many_ports(design, tmp_path):
    with pytest.raises(FitError) as caught:
        synthesize(one_file(design, "tree"), "ice40up5k", work=tmp_path)
    assert caught.value.message == "tree does not fit ice40up5k: it needs 6 more pins"
    assert caught.value.used == "45 of 39 pins (115.4 %)"
    assert caught.value.hint == "give it fewer ports, or place it as a block without pins"


def test_a_part_that_no_tool_places_for(design, tmp_path):
    found = small(design, "zynq-7020", tmp_path)
    assert found.placement is None and found.fmax_mhz is None
    assert (found.lut_inputs, found.cells.block_rams, found.cells.dsps) == (6, 0.5, 1)
    assert found.cells.memory_luts > 0
    assert len(found.tools) == 1


def test_a_design_that_is_too_big(design, tmp_path):
    with pytest.raises(FitError) as caught:
        synthesize(one_file(design, "big"), "ecp5-25f", work=tmp_path)
    error = caught.value
    assert error.message == "big does not fit ecp5-25f: it needs 4 more block RAMs"
    assert error.used == "60 of 56 block RAMs (107.1 %)"
    assert error.hint == "ecp5-45f has enough, by count"


def test_a_design_that_just_fits(design, tmp_path):
    hardware = one_file(design, "big", BLOCKS=56)
    found = synthesize(hardware, "ecp5-25f", work=tmp_path, place=False)
    assert found.cells.block_rams == 56 and found.placement is None


def test_modules_apart(design, tmp_path):
    found = synthesize(
        one_file(design, "tree"), "ecp5-25f", work=tmp_path, place=False, flatten=False
    )
    modules = {module.name: (module.instances, module.cells) for module in found.modules}
    assert modules == {
        "leaf": (5, Cells(ffs=4 * 4 + 5)),
        "pair": (2, Cells()),
        "tree": (1, Cells(ffs=1)),
    }
    assert found.cells == Cells(ffs=22)


def test_yosys_says_what_is_wrong_with_a_design(design, tmp_path):
    hardware = Design(
        top="small",
        sources=[design / "widths.svh", design / "small.sv"],
        parameters={"CONTENTS": "absent.hex"},
    )
    with pytest.raises(ExternalToolError, match="yosys ended with exit code 1") as caught:
        synthesize(hardware, "ecp5-25f", work=tmp_path / "w")
    assert "Can not open file `absent.hex`" in str(caught.value.used)
    assert caught.value.where == str(tmp_path / "w")
    assert str(caught.value.hint).endswith("-q -l yosys.log -s synth.ys")
    (tmp_path / "wrong.sv").write_text("module wrong (input logic clk);\n  nonsense\nendmodule\n")
    with pytest.raises(ExternalToolError) as caught:
        synthesize(one_file(tmp_path, "wrong"), "ecp5-25f", work=tmp_path / "w")
    assert "wrong.sv:3: ERROR: syntax error" in str(caught.value.used)
