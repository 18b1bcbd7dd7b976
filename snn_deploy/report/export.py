"""Export: a model as standard NIR and, per target, as the artifacts that it loads.

The folder appears whole or not at all; the same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn_deploy import units
from snn_deploy._version import __version__
from snn_deploy.backends.base import Program, Target
from snn_deploy.budget.findings import findings, verdict
from snn_deploy.io.files import new_folder, safe_name, sha256_file, write_bytes, write_json
from snn_deploy.io.nir_write import nir_bytes
from snn_deploy.ir.network import Network
from snn_deploy.report.cores import cores_sections
from snn_deploy.report.model import Report, Section, Table, Text
from snn_deploy.report.network import network_facts, network_text
from snn_deploy.report.synthesis import synthesis_section
from snn_deploy.report.tensors import neuron_data, quantization_section, tensor_data

if TYPE_CHECKING:
    from snn_deploy.backends.fpga.synthesis import Synthesis

MANIFEST = "manifest.json"


def default_folder(model: Path | str) -> Path:
    """Return ``<stem>-export`` in the current folder."""
    return Path(f"{stem_of(model)}-export")


def stem_of(model: Path | str) -> str:
    """Return a model's file name without suffix, safe as a file name."""
    return safe_name(Path(model).stem or "network")


def export(
    network: Network,
    programs: Sequence[tuple[Target, Program]],
    folder: Path,
    *,
    force: bool = False,
    onnx: bool = False,
    map_to: str | None = None,
    synthesis: Callable[[str], None] | None = None,
) -> Report:
    """Write NIR, artifacts per target, report.json and a manifest into ``folder``.

    synthesis: have targets with hardware synthesized for their device; told each step in a line.

    map_to: a file for the mapping onto cores, of the first target that has one.
    onnx: also write the float program as ONNX (float32). Raises OutputError (exit 10) and leaves
    an earlier folder as it was.
    """
    stem = stem_of(network.source.path)
    # The file's name, not its path: the same model exported from elsewhere gives the same bytes.
    source = replace(network.source, path=Path(network.source.path).name)
    named = replace(network, source=source)
    programs = [(t, replace(p, real=replace(p.real, source=source))) for t, p in programs]
    with new_folder(folder, force=force, marker=MANIFEST) as building:
        write_bytes(building / f"{stem}.nir", nir_bytes(network))
        if onnx:
            from snn_deploy.bridges.onnx_export import to_onnx

            write_bytes(building / f"{stem}.onnx", to_onnx(network))
        written: dict[str, list[str]] = {}
        for target, program in programs:
            place = building / target.name
            place.mkdir()
            names = target.write(program, place, stem)
            written[target.name] = [f"{target.name}/{n}" for n in names]
        built: dict[str, Synthesis] = {}
        if synthesis is not None:
            for target, program in programs:
                make = getattr(target, "synthesize", None)
                if make is not None:
                    built[target.name] = make(program, building / target.name, synthesis)
        report = export_report(named, programs, written, folder, onnx=onnx, built=built)
        write_json(building / "report.json", report.as_json())
        _manifest(building, named, programs)
    if map_to is not None:
        maps = (target.usage(program).cores for target, program in programs)
        write_json(map_to, next(m for m in maps if m is not None), force)
    return report


def _manifest(building: Path, network: Network, programs: Sequence[tuple[Target, Program]]) -> None:
    files = sorted(p for p in building.rglob("*") if p.is_file())
    content = {
        "schema": 1,
        "tool": f"snn-deploy {__version__}",
        "input": {"file": network.source.path, "sha256": network.source.sha256},
        "targets": {
            t.name: {
                "device": p.device.name,
                "device_sha256": p.device.sha256,
                "arithmetic": None if p.qnet is None else p.qnet.arithmetic.name,
            }
            for t, p in programs
        },
        "files": {
            str(p.relative_to(building)): {"bytes": p.stat().st_size, "sha256": sha256_file(p)}
            for p in files
        },
    }
    write_json(building / MANIFEST, content)


def export_report(
    network: Network,
    programs: Sequence[tuple[Target, Program]],
    written: dict[str, list[str]],
    folder: Path,
    *,
    onnx: bool = False,
    built: Mapping[str, Synthesis] | None = None,
) -> Report:
    """Return the report of ``export``. built: what synthesis made of a target's hardware."""
    built = built or {}
    rows: list[tuple[str, ...]] = []
    data: list[dict[str, Any]] = []
    sections = [Section(title="", items=(network_text(network),))]
    mapped: list[Section] = []
    for target, program in programs:
        usage = target.usage(program)
        fit = verdict(findings(usage, program.device), program.device.name, usage.excludes)
        answer = str(fit) if usage.resources else f"{program.device.name}: no limits"
        rows.append((target.name, units.bits(usage.bits()), answer))
        tensors = () if program.qnet is None else program.qnet.tensors
        if usage.cores is not None:
            mapped += cores_sections(usage.cores, program.device.name)
        data.append(
            {
                "target": target.name,
                "device": program.device.name,
                "memory": [
                    {"where": i.where, "kind": i.kind, "bits": i.bits, "region": i.region}
                    for i in usage.items
                ],
                "fit": fit.as_dict(),
                "quantization": tensor_data(tensors) or None,
                "neurons": None if program.qnet is None else neuron_data(program.qnet),
                "cores": None if usage.cores is None else usage.cores["totals"],
                "files": written[target.name],
                "synthesis": built[target.name].as_dict() if target.name in built else None,
            }
        )
    sections.append(
        Section(
            title="Targets",
            items=(
                Table(
                    title="",
                    columns=("target", "memory", "fit"),
                    rows=tuple(rows),
                    align="lrl",
                ),
            ),
        )
    )
    for _, program in programs:
        table = quantization_section(program)
        if table is not None:
            sections.append(table)
    sections += mapped
    usages = {target.name: (target.usage(program), program.device) for target, program in programs}
    sections += [synthesis_section(*usages[name], made) for name, made in built.items()]
    stem = stem_of(network.source.path)
    models = [f"{stem}.nir", *([f"{stem}.onnx"] if onnx else [])]
    names = [*models, *(n for files in written.values() for n in files[:4])]
    hidden = sum(max(0, len(files) - 4) for files in written.values())
    lines = [("file", f"{folder}/{n}") for n in names]
    if hidden:
        lines.append(("", f"and {hidden} more, listed in {folder}/{MANIFEST}"))
    lines.append(("report", f"{folder}/report.json"))
    sections.append(Section(title="Written", items=(Text(lines=tuple(lines)),)))
    return Report(
        command="export",
        title=f"export {network.source.path}",
        sections=tuple(sections),
        data={"model": network_facts(network), "targets": data},
        rows=tuple(
            {"target": d["target"], "device": d["device"], **t}
            for d in data
            for t in (d["quantization"] or [])
        ),
    )
