"""The netlist that synthesis makes of a design, as Verilog that a simulator takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from snn_deploy.backends.fpga import tools
from snn_deploy.backends.fpga.design import Design
from snn_deploy.backends.fpga.parts import part_named
from snn_deploy.errors import UnsupportedError
from snn_deploy.io.files import PathLike, write_text

SCRIPT, NETLIST, LOG = "netlist.ys", "netlist.v", "netlist.log"
# Yosys's models of ECP5's and Xilinx's block memories have ports and no behaviour.
FAMILIES = ("ice40",)


def write_netlist(
    design: Design,
    part: str,
    *,
    work: PathLike,
    timeout_s: float,
    report: Callable[[str], None] = tools.no_report,
) -> tuple[Path, Path]:
    """Map a design to a part's cells and return the netlist and the cells' own models.

    Both are Verilog; together they simulate what the part would do, at the design's ports. part:
    an iCE40, the family whose cells Yosys has models for, block memories included. work: receives
    the design's files, script, netlist and log. Raises what ``synthesize`` raises but FitError,
    and UnsupportedError for a part of another family.
    """
    target = part_named(part)
    if target.family not in FAMILIES:
        raise UnsupportedError(
            f"the cells of {part} cannot be simulated: no open models of its block memories",
            hint="simulate the netlist for ice40hx8k: the design is the same",
        )
    yosys = tools.require("yosys")
    models = tools.shared_file(yosys, f"{target.family}/cells_sim.v")
    folder = Path(work).absolute()
    lines = [
        *design.script(),
        f"{target.synth} {target.flat} -top {design.top}",
        f"write_verilog -noattr {NETLIST}",
        "",
    ]
    design.copy(folder)
    write_text(folder / SCRIPT, "\n".join(lines), force=True)
    report(f"{design.top} on {part}: running {yosys}")
    arguments = ("-q", "-l", LOG, "-s", SCRIPT)
    tools.run(yosys, arguments, cwd=folder, timeout_s=timeout_s, report=report)
    return folder / NETLIST, models
