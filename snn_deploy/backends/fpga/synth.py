"""Synthesis, place and route: what a design takes of an FPGA part, and how fast it runs.

Yosys maps the design to the part's cells; nextpnr places and routes it on ECP5 and iCE40. Equal
sources, images, parameters and tools give the same result, which is kept in the user's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snn_deploy.backends.fpga import tools
from snn_deploy.backends.fpga.design import Design
from snn_deploy.backends.fpga.parts import Part, part_named, total
from snn_deploy.backends.fpga.placement import check_counted, check_placed, mapped, timing, uses
from snn_deploy.backends.fpga.synthesis import Placement, Synthesis
from snn_deploy.errors import ExternalToolError, InputError, OutputError
from snn_deploy.io.cache import cache_folder
from snn_deploy.io.files import (
    PathLike,
    read_limited,
    write_json,
    write_text,
)
from snn_deploy.io.programs import Ended

TIMEOUT_S = 3600.0
SCRIPT, NETLIST, STATISTICS, TIMING = "synth.ys", "netlist.json", "cells.json", "timing.json"
SYNTH_LOG, PLACE_LOG = "yosys.log", "nextpnr.log"
# Part of what a kept result is filed under: raise it when results come to mean something else.
SCHEMA = 1
_RESULT_BYTES = 1 << 24
_WARNING = "Warning: "


def synthesize(
    design: Design,
    part: str,
    *,
    work: PathLike,
    clock_mhz: float | None = None,
    seed: int = 1,
    place: bool = True,
    pins: bool = True,
    clock: str = "clk",
    flatten: bool = True,
    timeout_s: float = TIMEOUT_S,
    report: Callable[[str], None] = tools.no_report,
) -> Synthesis:
    """Synthesize a design for a part and, where a tool can, place and route it there.

    part: one of ``parts.PARTS``. work: a folder, made where missing; it receives the design's
    files, script, netlist and logs, in place of earlier ones, and nothing if the result is known.
    clock_mhz: the frequency to aim at; a design that misses it is still a result. seed: of the
    placer. place: False stops after Yosys. pins: False places a block of a larger design, with
    ``clock`` as its only pin. flatten: False maps every module apart and fills ``modules``; nothing
    is optimized across their borders then, and all figures are larger (Yosys 0.23 cannot: its
    statistics are malformed). timeout_s: of each tool. report: told each step in one line.

    Raises UsageError (an unknown part, names that clash), InputError (a file that is not there),
    MissingDependencyError, ExternalToolError (a tool's own words), OutputError, and FitError: what
    is short, by how much, and the next part of the family that has enough.
    """
    target = part_named(part)
    flow = _Flow(
        design=design,
        part=target,
        script=_script(design, target, None if pins else clock, flatten),
        yosys=tools.require("yosys"),
        placer=tools.require(target.place) if place and target.place else None,
        clock_mhz=clock_mhz,
        seed=seed,
        pins=pins,
        timeout_s=timeout_s,
        report=report,
    )
    key = flow.key()
    if (kept := _kept(key)) is not None:
        report(f"{design.top} on {target.name}: known from an earlier synthesis")
        return kept
    folder = Path(work).absolute()
    design.copy(folder)
    result = flow.map(folder)
    if flow.placer is None:
        check_counted(target, design.top, result.cells)
    else:
        result = flow.place(flow.placer, folder, result)
    if flatten:
        result = replace(result, modules=())
    _keep(key, result)
    return result


def _script(design: Design, part: Part, only_pin: str | None, flatten: bool) -> str:
    lines = [
        *design.script(),
        f"{part.synth} {part.flat if flatten else part.hierarchical} -top {design.top}",
        f"tee -q -o {STATISTICS} stat -json -top {design.top}",
        *(() if flatten else ("flatten",)),
    ]
    if only_pin is not None:
        # Nothing is optimized after this: the logic that these ports drive and read stays.
        lines += [
            f"select -assert-count 1 i:{only_pin}",
            f"delete -input i:* i:{only_pin} %d",
            "delete -output o:*",
        ]
    return "\n".join([*lines, f"write_json {NETLIST}", ""])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flow:
    """One design, the part, the tools and what they are told."""

    design: Design
    part: Part
    script: str
    yosys: tools.Tool
    placer: tools.Tool | None
    clock_mhz: float | None
    seed: int
    pins: bool
    timeout_s: float
    report: Callable[[str], None]

    @property
    def options(self) -> tuple[str, ...]:
        """Return the placer's command line."""
        files = ("--json", NETLIST, "--report", TIMING)
        frequency = () if self.clock_mhz is None else ("--freq", f"{self.clock_mhz:g}")
        seed = ("--seed", str(self.seed))
        return (*self.part.options, *files, *seed, *frequency, "--timing-allow-fail")

    def key(self) -> str:
        """Return a digest of everything that the result depends on; InputError without a file."""
        facts = [
            SCHEMA,
            self.part.name,
            self.script,
            str(self.yosys),
            None if self.placer is None else [str(self.placer), *self.options],
            self.design.digests(),
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def map(self, folder: Path) -> Synthesis:
        """Run Yosys and return what the design amounts to."""
        arguments = ("-q", "-l", SYNTH_LOG, "-s", SCRIPT)
        write_text(folder / SCRIPT, self.script, force=True)
        ended = self._run(self.yosys, arguments, folder, check=True)
        modules = mapped(_read(self.yosys, folder / STATISTICS), self.design.top, self.part)
        warnings = (line.strip() for line in ended.output.splitlines() if _WARNING in line)
        return Synthesis(
            part=self.part.name,
            top=self.design.top,
            lut_inputs=self.part.lut_inputs,
            cells=total((module.cells, 1) for module in modules),
            modules=modules,
            placement=None,
            warnings=tuple(dict.fromkeys(warnings)),
            tools=(str(self.yosys),),
            seconds={self.yosys.name: ended.wall_s},
        )

    def place(self, placer: tools.Tool, folder: Path, result: Synthesis) -> Synthesis:
        """Run nextpnr on what ``map`` left and return the result with its placement."""
        ended = self._run(placer, self.options, folder, check=False)
        write_text(folder / PLACE_LOG, ended.output, force=True)
        if ended.code:
            check_placed(self.part, self.design.top, result.cells, ended.output)
            raise tools.failed(placer, self.options, folder, ended)
        fmax_mhz, path = timing(_read(placer, folder / TIMING))
        return replace(
            result,
            placement=Placement(
                uses=uses(ended.output),
                fmax_mhz=fmax_mhz,
                critical_path=path,
                clock_mhz=self.clock_mhz,
                seed=self.seed,
                pins=self.pins,
            ),
            tools=(*result.tools, str(placer)),
            seconds={**result.seconds, placer.name: ended.wall_s},
        )

    def _run(
        self, tool: tools.Tool, arguments: Sequence[str], folder: Path, *, check: bool
    ) -> Ended:
        self.report(f"{self.design.top} on {self.part.name}: running {tool}")
        return tools.run(
            tool,
            arguments,
            cwd=folder,
            timeout_s=self.timeout_s,
            report=self.report,
            check=check,
        )


def _read(tool: tools.Tool, path: Path) -> Any:
    """Return what a tool wrote as JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ExternalToolError(
            f"{tool.name} ended without a result: {error}",
            where=str(path),
            hint=f"try another version of it: {tool} left none",
        ) from error


def _result(key: str) -> Path:
    return cache_folder() / "synthesis" / f"{key}.json"


def _kept(key: str) -> Synthesis | None:
    """Return an earlier result; one that cannot be read is made again."""
    try:
        return Synthesis.from_dict(json.loads(read_limited(_result(key), _RESULT_BYTES)))
    except (InputError, ValueError, TypeError, KeyError):
        return None


def _keep(key: str, result: Synthesis) -> None:
    """Keep a result where the cache can be written: elsewhere it is made again each time."""
    path = _result(key)
    with contextlib.suppress(OSError, OutputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result.as_dict(), force=True)
