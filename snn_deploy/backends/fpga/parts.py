"""The FPGA parts that can be synthesized for: tools' options, and what their cells amount to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from snn_deploy.errors import UnsupportedError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """What a netlist amounts to, in the part's own kinds of cells.

    luts: look-up tables of the part's size (4 or 6 inputs), with carry_luts, those that make
    carry chains (on ECP5; elsewhere a chain has logic of its own), and memory_luts, those used as
    memory. block_rams: a half block is 0.5. large_rams: the 256 Kbit single-port memories of
    iCE40 UltraPlus.
    """

    luts: int = 0
    carry_luts: int = 0
    memory_luts: int = 0
    ffs: int = 0
    block_rams: float = 0
    large_rams: int = 0
    dsps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part; ``name`` is that of its device file.

    lut_inputs: of its look-up tables. synth: the Yosys command; flat and hierarchical: its options
    for merging the modules and for keeping them apart. place: the tool that places it, "" if none
    does, and its options. limits: the device file's keys of ``Cells``' fields.
    """

    name: str
    family: str
    lut_inputs: int
    synth: str
    place: str
    options: tuple[str, ...]
    limits: Mapping[str, str]
    flat: str = ""
    hierarchical: str = "-noflatten"


_LATTICE_LIMITS = {"luts": "lut4", "ffs": "ff", "block_rams": "block_ram", "dsps": "dsp"}


def _ecp5(size: int, package: str) -> Part:
    return Part(
        name=f"ecp5-{size}f",
        family="ecp5",
        lut_inputs=4,
        synth="synth_ecp5",
        place="nextpnr-ecp5",
        options=(f"--{size}k", "--package", package, "--speed", "6"),
        limits=_LATTICE_LIMITS,
    )


def _ice40(name: str, package: str, synth: str) -> Part:
    return Part(
        name=f"ice40{name}",
        family="ice40",
        lut_inputs=4,
        synth=synth,
        place="nextpnr-ice40",
        options=(f"--{name}", "--package", package, "--pcf-allow-unconstrained"),
        limits=_LATTICE_LIMITS,
    )


# Of each family the smallest first. The packages are the ones with the most pins that the whole
# family, or the part, has.
PARTS: Mapping[str, Part] = {
    part.name: part
    for part in (
        _ecp5(25, "CABGA381"),
        _ecp5(45, "CABGA381"),
        _ecp5(85, "CABGA381"),
        _ice40("up5k", "sg48", "synth_ice40 -dsp -spram"),
        _ice40("hx8k", "ct256", "synth_ice40"),
        Part(
            name="zynq-7020",
            family="xc7",
            lut_inputs=6,
            synth="synth_xilinx -family xc7 -noiopad",
            place="",
            options=(),
            limits={**_LATTICE_LIMITS, "luts": "lut6"},
            flat="-flatten",
            hierarchical="",
        ),
    )
}
# What nextpnr calls the cells of a part, and what a message calls them.
PLACED_TITLES: Mapping[str, str] = {
    "TRELLIS_COMB": "LUT4",
    "TRELLIS_FF": "FF",
    "TRELLIS_RAMW": "distributed RAM",
    "DP16KD": "block RAM",
    "MULT18X18D": "DSP",
    "TRELLIS_IO": "pin",
    "ICESTORM_LC": "logic cell",
    "ICESTORM_RAM": "block RAM",
    "ICESTORM_SPRAM": "large RAM",
    "ICESTORM_DSP": "DSP",
    "SB_IO": "pin",
}
TITLES: Mapping[str, str] = {
    "luts": "LUT",
    "ffs": "FF",
    "block_rams": "block RAM",
    "large_rams": "large RAM",
    "dsps": "DSP",
}
PINS = "pin"

_LUT = Cells(luts=1)
_FF = Cells(ffs=1)
_RAM = Cells(block_rams=1)
_DSP = Cells(dsps=1)
_FREE = Cells()


def _memory(luts: int) -> Cells:
    return Cells(luts=luts, memory_luts=luts)


_ECP5: Mapping[str, Cells] = {
    "LUT4": _LUT,
    "CCU2C": Cells(luts=2, carry_luts=2),
    "TRELLIS_DPR16X4": _memory(6),  # four hold the bits, two drive the write port
    "TRELLIS_FF": _FF,
    "DP16KD": _RAM,
    "PDPW16KD": _RAM,
    "MULT18X18D": _DSP,
    **dict.fromkeys(("PFUMX", "L6MUX21", "ALU54B"), _FREE),
}
_ICE40: Mapping[str, Cells] = {
    "SB_LUT4": _LUT,
    "SB_MAC16": _DSP,
    "SB_SPRAM256KA": Cells(large_rams=1),
    **{
        f"SB_DFF{edge}{enable}{reset}": _FF
        for edge in ("", "N")
        for enable in ("", "E")
        for reset in ("", "R", "S", "SR", "SS")
    },
    **{f"SB_RAM40_4K{edges}": _RAM for edges in ("", "NR", "NW", "NRNW")},
    **dict.fromkeys(("SB_CARRY", "SB_GB", "SB_GB_IO", "SB_IO"), _FREE),
}
_XC7: Mapping[str, Cells] = {
    **dict.fromkeys(("LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "INV"), _LUT),
    **{f"FD{kind}{edge}": _FF for kind in ("RE", "SE", "CE", "PE") for edge in ("", "_1")},
    **dict.fromkeys(("SRL16E", "SRLC16E", "SRLC32E", "RAM32X1S", "RAM64X1S"), _memory(1)),
    **dict.fromkeys(("RAM32X1D", "RAM64X1D", "RAM128X1S"), _memory(2)),
    **dict.fromkeys(("RAM32M", "RAM64M", "RAM128X1D", "RAM256X1S"), _memory(4)),
    "RAMB36E1": _RAM,
    "RAMB18E1": Cells(block_rams=0.5),
    "DSP48E1": _DSP,
    **dict.fromkeys(("CARRY4", "MUXF7", "MUXF8", "BUFG", "GND", "VCC"), _FREE),
}
# Not a cell: where a merged module was. Yosys leaves it for debuggers.
_NOTES = {"$scopeinfo": _FREE}
_COSTS: Mapping[str, Mapping[str, Cells]] = {"ecp5": _ECP5, "ice40": _ICE40, "xc7": _XC7}


def part_named(name: str) -> Part:
    """Return one of ``PARTS``; UsageError names them."""
    if name in PARTS:
        return PARTS[name]
    raise UsageError(f"cannot synthesize for {name!r}", hint=f"one of: {', '.join(PARTS)}")


def larger(part: Part) -> Iterable[Part]:
    """Return the larger parts of the same family, the next one first."""
    names = list(PARTS)
    after = names[names.index(part.name) + 1 :]
    return (PARTS[name] for name in after if PARTS[name].family == part.family)


def count(part: Part, cells: Mapping[str, int]) -> Cells:
    """Return what the cells of a netlist, by type, amount to.

    UnsupportedError if there is a type whose cost is not known: nothing is left out silently.
    """
    costs = {**_COSTS[part.family], **_NOTES}
    unknown = sorted(set(cells) - set(costs))
    if unknown:
        raise UnsupportedError(
            f"cells of types that are not counted: {', '.join(unknown)}",
            where=part.name,
            hint="instantiate no vendor primitives of these types",
        )
    return total((costs[kind], number) for kind, number in cells.items())


def total(parts: Iterable[tuple[Cells, int]]) -> Cells:
    """Return the sum of parts, each so many times."""
    found = list(parts)
    return Cells(
        **{f.name: sum(getattr(one, f.name) * n for one, n in found) for f in fields(Cells)}
    )
