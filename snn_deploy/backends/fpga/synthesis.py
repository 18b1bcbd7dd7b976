"""What synthesis, place and route find out about a design."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from snn_deploy.backends.fpga.parts import Cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a placed design takes of one kind of the part's cells, by the placer's own count."""

    name: str
    used: int
    available: int

    @property
    def share(self) -> float:
        """Return the used share; above 1 where the part has too few."""
        return self.used / self.available if self.available else float(self.used > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalPath:
    """The slowest path from clock edge to clock edge.

    start, end: the cells, named after the nets of the source. levels: of logic between them.
    """

    start: str
    end: str
    delay_ns: float
    levels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A placed and routed design.

    uses: the kinds of cells that it uses. fmax_mhz: of its slowest clock; None if there is no
    path from flip-flop to flip-flop. clock_mhz: what was aimed at, None for the placer's default.
    pins: whether its ports had pins.
    """

    uses: tuple[Use, ...]
    fmax_mhz: float | None
    critical_path: CriticalPath | None
    clock_mhz: float | None
    seed: int
    pins: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCells:
    """What the instances of one module amount to together, the modules inside them apart."""

    name: str
    instances: int
    cells: Cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesis:
    """A design on a part: cells after mapping, and what place and route made of them.

    lut_inputs: of the part's look-up tables, 4 or 6: counts of one cannot be compared with the
    other's. modules: by name, if the hierarchy was kept. placement: None if no tool placed it.
    warnings: Yosys's, each once. tools: name, version and origin. seconds: each tool's wall time
    when it ran, whether in this process or earlier; never compared.
    """

    part: str
    top: str
    lut_inputs: int
    cells: Cells
    modules: tuple[ModuleCells, ...]
    placement: Placement | None
    warnings: tuple[str, ...]
    tools: tuple[str, ...]
    seconds: Mapping[str, float] = field(compare=False, hash=False)

    @property
    def fmax_mhz(self) -> float | None:
        """Return the highest clock frequency in MHz, None where it is not known."""
        return None if self.placement is None else self.placement.fmax_mhz

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "seconds": dict(self.seconds)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Synthesis:
        """Return what ``as_dict`` gave; TypeError or KeyError if it is not such a thing."""
        placement = data["placement"]
        if placement is not None:
            path = placement["critical_path"]
            placement = Placement(
                **{
                    **placement,
                    "uses": tuple(Use(**use) for use in placement["uses"]),
                    "critical_path": None if path is None else CriticalPath(**path),
                }
            )
        return cls(
            **{
                **data,
                "cells": Cells(**data["cells"]),
                "modules": tuple(
                    ModuleCells(**{**module, "cells": Cells(**module["cells"])})
                    for module in data["modules"]
                ),
                "placement": placement,
                "warnings": tuple(data["warnings"]),
                "tools": tuple(data["tools"]),
            }
        )
