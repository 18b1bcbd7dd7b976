"""Synthesis without its tools: what they are told, what they say, and what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snn_deploy.backends.fpga import synth, tools
from snn_deploy.backends.fpga.design import Design, constant
from snn_deploy.backends.fpga.parts import PARTS, Cells, count, part_named, total
from snn_deploy.backends.fpga.placement import check_counted, check_placed, mapped, timing, uses
from snn_deploy.backends.fpga.synth import synthesize
from snn_deploy.backends.fpga.synthesis import (
    CriticalPath,
    ModuleCells,
    Placement,
    Synthesis,
    Use,
)
from snn_deploy.device import load
from snn_deploy.errors import (
    ExternalToolError,
    FitError,
    InputError,
    MissingDependencyError,
    OutputError,
    UnsupportedError,
    UsageError,
)
from snn_deploy.io.cache import CACHE_VARIABLE
from snn_deploy.units import count as counted

SMALL, LARGE = PARTS["ecp5-25f"], PARTS["ecp5-85f"]


def packed(**used: int) -> str:
    """Return what nextpnr prints about a packed design on the 25F."""
    limits = {"TRELLIS_COMB": 24288, "TRELLIS_FF": 24288, "DP16KD": 56, "TRELLIS_IO": 197}
    lines = [
        "Info: Logic utilisation before packing:",
        "Info:     Total LUT4s:     99999/24288   411%",
        "Info: Device utilisation:",
        "Info: \t             EHXPLLL:       0/      2     0%",
        *(
            f"Info: \t{k:>20}:{v:>8}/{limits[k]:>7}{100 * v // limits[k]:>6}%"
            for k, v in used.items()
        ),
    ]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- cells


def test_what_cells_amount_to():
    cells = {"LUT4": 10, "CCU2C": 3, "TRELLIS_DPR16X4": 2, "PFUMX": 4, "TRELLIS_FF": 7, "DP16KD": 5}
    assert count(SMALL, cells) == Cells(
        luts=10 + 6 + 12, carry_luts=6, memory_luts=12, ffs=7, block_rams=5
    )
    cells = {"SB_LUT4": 3, "SB_CARRY": 9, "SB_DFFESR": 2, "SB_DFF": 1, "SB_RAM40_4KNR": 1}
    assert count(PARTS["ice40up5k"], cells) == Cells(luts=3, ffs=3, block_rams=1)
    cells = {"SB_SPRAM256KA": 2, "SB_MAC16": 1}
    assert count(PARTS["ice40up5k"], cells) == Cells(large_rams=2, dsps=1)
    cells = {"LUT6": 2, "INV": 1, "RAM32M": 1, "SRL16E": 1, "FDRE": 4, "RAMB18E1": 3, "CARRY4": 1}
    assert count(PARTS["zynq-7020"], cells) == Cells(luts=8, memory_luts=5, ffs=4, block_rams=1.5)
    assert total([(Cells(luts=1, ffs=2), 3), (Cells(block_rams=0.5), 1)]) == Cells(
        luts=3, ffs=6, block_rams=0.5
    )


def test_a_cell_that_is_not_known_is_not_left_out():
    with pytest.raises(UnsupportedError, match=r"not counted: EHXPLLL, OTHER") as caught:
        count(SMALL, {"LUT4": 1, "OTHER": 1, "EHXPLLL": 2})
    assert caught.value.where == "ecp5-25f"
    assert "vendor primitives" in str(caught.value.hint)


def test_modules_with_other_parameters_are_one_row():
    statistics = {
        "modules": {
            "\\top": {"num_cells_by_type": {"$paramod\\bank\\W=s32'1": 2, "pair": 3, "LUT4": 1}},
            "\\pair": {"num_cells_by_type": {"$paramod$0a1b\\bank": 2}},
            "$paramod\\bank\\W=s32'1": {"num_cells_by_type": {"LUT4": 10}},
            "$paramod$0a1b\\bank": {"num_cells_by_type": {"LUT4": 100, "TRELLIS_FF": 1}},
            "\\unused": {"num_cells_by_type": {"LUT4": 1000}},
        }
    }
    assert mapped(statistics, "top", SMALL) == (
        ModuleCells(name="bank", instances=8, cells=Cells(luts=620, ffs=6)),
        ModuleCells(name="pair", instances=3, cells=Cells()),
        ModuleCells(name="top", instances=1, cells=Cells(luts=1)),
    )


@pytest.mark.parametrize("name", PARTS)
def test_every_part_has_a_device_file_with_its_limits(name):
    device = load(name)
    assert device.family == "fpga"
    for key, limit in PARTS[name].limits.items():
        assert hasattr(Cells(), key)
        assert device.limit(limit) >= 0


def test_an_unknown_part():
    with pytest.raises(UsageError, match="cannot synthesize for 'ecp5-25'") as caught:
        part_named("ecp5-25")
    assert "ecp5-25f, ecp5-45f" in str(caught.value.hint)


# ---------------------------------------------------------------- what fits


def test_what_nextpnr_says_is_used():
    assert uses(packed(TRELLIS_COMB=118, DP16KD=1, TRELLIS_FF=0)) == (
        Use(name="LUT4", used=118, available=24288),
        Use(name="block RAM", used=1, available=56),
    )


def test_everything_that_is_short_is_named():
    output = packed(TRELLIS_COMB=24289, TRELLIS_FF=20000, DP16KD=60)
    cells = Cells(luts=24289, ffs=20000, block_rams=60)
    with pytest.raises(FitError) as caught:
        check_placed(SMALL, "top", cells, output)
    error = caught.value
    assert error.exit_code == 5
    assert error.message == (
        "top does not fit ecp5-25f: it needs 1 more LUT4 and 4 more block RAMs"
    )
    assert error.used == "24,289 of 24,288 LUT4s (100.004 %); 60 of 56 block RAMs (107.1 %)"
    assert error.hint == "ecp5-45f has enough, by count"
    check_placed(SMALL, "top", cells, packed(TRELLIS_COMB=24288, TRELLIS_FF=24288, DP16KD=56))


@pytest.mark.parametrize(
    ("blocks", "enough"), [(108, "ecp5-45f"), (109, "ecp5-85f"), (208, "ecp5-85f")]
)
def test_the_next_part_that_has_enough(blocks, enough):
    with pytest.raises(FitError) as caught:
        check_placed(SMALL, "top", Cells(block_rams=blocks), packed(DP16KD=blocks))
    assert caught.value.hint == f"{enough} has enough, by count"


@pytest.mark.parametrize("part", [SMALL, LARGE])
def test_no_part_has_enough(part):
    with pytest.raises(FitError) as caught:
        check_counted(part, "top", Cells(block_rams=209))
    assert caught.value.hint == (
        "no larger part of this family has enough: make the design smaller"
    )


@pytest.mark.parametrize(
    "words",
    [
        "ERROR: Unable to find legal placement for all cells, design is probably at its limit.",
        "ERROR: Unable to place cell 'x', no BELs remaining to implement cell type 'DP16KD'",
    ],
)
def test_a_full_part_without_a_placement(words):
    output = packed(TRELLIS_COMB=23000, DP16KD=55) + words
    with pytest.raises(FitError, match="each of its cells has room") as caught:
        check_placed(SMALL, "top", Cells(luts=23000, block_rams=55), output)
    assert caught.value.used == "55 of 56 block RAMs (98.2 %) at most"
    assert caught.value.hint == "ecp5-45f has enough, by count"


@pytest.mark.parametrize("key", ["luts", "ffs", "block_rams", "dsps"])
def test_a_part_that_is_only_counted_just_fits_and_just_fails(key):
    part = PARTS["zynq-7020"]
    limit = int(load("zynq-7020").limit(part.limits[key]))
    check_counted(part, "top", Cells(**{key: limit}))
    more = limit + 0.5 if key == "block_rams" else limit + 1
    with pytest.raises(FitError) as caught:
        check_counted(part, "top", Cells(**{key: more}))
    assert f"{counted(limit + 1)} of {counted(limit)}" in str(caught.value.used)


def test_the_slowest_clock_and_its_path():
    def path(start: str, *delays: float, clocks: tuple[str, str] = ("posedge a", "posedge a")):
        kinds = ["clk-to-q", *["logic"] * (len(delays) - 2), "setup"]
        segments = [
            {"delay": d, "type": k, "from": {"cell": start}, "to": {"cell": "end"}}
            for d, k in zip(delays, kinds, strict=True)
        ]
        return {"from": clocks[0], "to": clocks[1], "path": segments}

    report = {
        "fmax": {"a": {"achieved": 80.0}, "b": {"achieved": 70.5}},
        "critical_paths": [
            path("s1", 1.0, 2.0, 0.5),
            path("s2", 1.0, 2.0, 2.0, 0.5),
            path("s3", 9.0, 9.0, clocks=("<async>", "<async>")),
            path("s4", 9.0, 9.0, clocks=("<async>", "posedge a")),
        ],
    }
    longest = CriticalPath(start="s2", end="end", delay_ns=5.5, levels=2)
    assert timing(report) == (70.5, longest)
    assert timing({"fmax": {}, "critical_paths": []}) == (None, None)


# ---------------------------------------------------------------- what the tools are told


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "32'sb" + "101".zfill(32)),
        (-1, "32'sb" + "1" * 32),
        (1 << 31, "33'sb01" + "0" * 31),
        ("a", "8'b01100001"),
        ("", "8'b00000000"),
        (True, "32'sb" + "1".zfill(32)),
    ],
)
def test_parameters_are_constants(value, text):
    assert constant(value) == text


@pytest.fixture
def sources(tmp_path, monkeypatch) -> Path:
    """A folder with one source; the cache is beside it and the tools are stand-ins."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    stand_in(monkeypatch, tmp_path, "yosys", "exit 0")
    stand_in(monkeypatch, tmp_path, "nextpnr-ecp5", "exit 0")
    (tmp_path / "top.sv").write_text("module top; endmodule\n")
    return tmp_path


def stand_in(monkeypatch, folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f'#!/bin/sh\ncase "$1" in --version) echo 0.99; exit 0;; esac\n{text}\n')
    path.chmod(0o755)
    monkeypatch.setenv(tools.variable(name), str(path))


def go(folder: Path, **options):
    """Synthesize for the 25F; ``sources`` and ``images`` are the design's, others options."""
    given = {"sources": [folder / "top.sv"]}
    given |= {key: options.pop(key) for key in ("sources", "images") if key in options}
    options = {"work": folder / "work", **options}
    return synthesize(Design(top="top", **given), "ecp5-25f", **options)


STATISTICS = json.dumps({"modules": {"\\top": {"num_cells_by_type": {"LUT4": 4}}}})
WARNING = "top.sv:1: Warning: twice"
MAPS = f"printf '%s' '{STATISTICS}' >cells.json; echo '{WARNING}'; echo '{WARNING}'"
TIMING = json.dumps({"fmax": {"clk": {"achieved": 80.5}}, "critical_paths": []})


def test_a_result_is_kept_and_read_back(sources, monkeypatch):
    stand_in(monkeypatch, sources, "yosys", MAPS)
    stand_in(
        monkeypatch,
        sources,
        "nextpnr-ecp5",
        f"echo \"$@\" >told; echo 'Info:   DP16KD:  1/  56   1%'; echo '{TIMING}' >timing.json",
    )
    said: list[str] = []
    found = go(sources, clock_mhz=62.5, seed=7, report=said.append)
    assert found == Synthesis(
        part="ecp5-25f",
        top="top",
        lut_inputs=4,
        cells=Cells(luts=4),
        modules=(),
        placement=Placement(
            uses=(Use(name="block RAM", used=1, available=56),),
            fmax_mhz=80.5,
            critical_path=None,
            clock_mhz=62.5,
            seed=7,
            pins=True,
        ),
        warnings=(WARNING,),
        tools=("yosys 0.99 (SNN_DEPLOY_YOSYS)", "nextpnr-ecp5 0.99 (SNN_DEPLOY_NEXTPNR_ECP5)"),
        seconds={},
    )
    assert said == [
        "top on ecp5-25f: running yosys 0.99 (SNN_DEPLOY_YOSYS)",
        "top on ecp5-25f: running nextpnr-ecp5 0.99 (SNN_DEPLOY_NEXTPNR_ECP5)",
    ]
    told = (sources / "work" / "told").read_text().split()
    assert told[told.index("--freq") + 1] == "62.5" and told[told.index("--seed") + 1] == "7"
    assert "--25k" in told and "--timing-allow-fail" in told
    stand_in(monkeypatch, sources, "yosys", "exit 1")
    assert go(sources, clock_mhz=62.5, seed=7) == found
    assert found.fmax_mhz == 80.5
    assert Synthesis.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_a_hanging_tool(sources, monkeypatch):
    stand_in(monkeypatch, sources, "yosys", "echo reading; while :; do :; done")
    with pytest.raises(ExternalToolError, match="yosys exceeded 1 s") as caught:
        go(sources, timeout_s=1.0)
    assert caught.value.used == "yosys's last words: reading"


def test_a_crashing_placer(sources, monkeypatch):
    stand_in(monkeypatch, sources, "yosys", MAPS)
    stand_in(monkeypatch, sources, "nextpnr-ecp5", "echo 'ERROR: all wrong'; kill -SEGV $$")
    with pytest.raises(ExternalToolError, match="nextpnr-ecp5 was killed by SIGSEGV") as caught:
        go(sources)
    assert caught.value.used == "nextpnr-ecp5's last words: ERROR: all wrong"
    assert (sources / "work" / synth.PLACE_LOG).read_text() == "ERROR: all wrong\n"
    assert not (sources / "cache" / "synthesis").exists()


def test_a_tool_that_leaves_no_result(sources):
    with pytest.raises(ExternalToolError, match="yosys ended without a result") as caught:
        go(sources)
    assert caught.value.where == str(sources / "work" / synth.STATISTICS)
    assert "try another version" in str(caught.value.hint)


def test_a_missing_tool(sources, monkeypatch):
    monkeypatch.delenv("SNN_DEPLOY_NEXTPNR_ECP5")
    monkeypatch.setattr(tools, "_packaged", lambda _: None)
    monkeypatch.setenv("PATH", str(sources / "nothing"))
    with pytest.raises(MissingDependencyError, match="nextpnr-ecp5 is not installed") as caught:
        go(sources)
    assert caught.value.hint == "pip install 'snn-deploy[fpga]'"


def test_files_that_cannot_be_used(sources):
    with pytest.raises(UsageError, match="nothing to synthesize") as caught:
        go(sources, sources=[sources / "only.svh"])
    assert "SystemVerilog" in str(caught.value.hint)
    with pytest.raises(InputError, match=r"there is no file .*absent\.hex"):
        go(sources, images=[sources / "absent.hex"])
    other = sources / "other" / "top.sv"
    with pytest.raises(UsageError, match=r"two files are called top\.sv") as caught:
        go(sources, images=[other])
    assert str(other) in str(caught.value.where) and "rename one" in str(caught.value.hint)
    with pytest.raises(UsageError, match="cannot read a file called") as caught:
        go(sources, images=[sources / 'a"b.hex'])
    assert caught.value.hint == "rename it"


def test_a_folder_that_cannot_be_made(sources):
    (sources / "file").touch()
    with pytest.raises(OutputError, match="cannot write") as caught:
        go(sources, work=sources / "file" / "work")
    assert caught.value.hint
