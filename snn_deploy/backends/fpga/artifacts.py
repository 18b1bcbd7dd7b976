"""Files of a program: the hardware, its memory images, and the configuration that explains them."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

from snn_deploy.backends.fpga.images import hex_image, images, map_words, threshold_image
from snn_deploy.backends.fpga.program import Edge, Engine, FpgaProgram, Layer, Segment
from snn_deploy.backends.fpga.verilog import accelerator, prefix
from snn_deploy.io.files import write_bytes, write_json
from snn_deploy.io.values import readout_json
from snn_deploy.ir.network import Network

SCHEMA = 2
#: What every accelerator consists of, in the order in which tools read it.
SOURCES = (
    "jobs.sv",
    "spike_input.sv",
    "spike_buffer.sv",
    "bank.sv",
    "neuron.sv",
    "engine.sv",
    "readout.sv",
)
TOP = "accelerator.sv"


def source(name: str) -> bytes:
    """Return a hardware source that comes with the package."""
    installed = resources.files("snn_deploy").joinpath("_targets", "rtl", name)
    if installed.is_file():
        return installed.read_bytes()
    return (Path(__file__).resolve().parents[3] / "targets" / "rtl" / name).read_bytes()


def write(program: FpgaProgram, network: Network, folder: Path) -> list[str]:
    """Write the SystemVerilog, the images that it loads, and ``config.json``; return their names.

    The same program gives the same bytes. Raises OutputError.
    """
    names = write_sources(program, folder)
    engines = []
    for engine in program.engines:
        files: dict[str, Any] = {}
        for key, width, words in images(program, engine):
            name = f"{prefix(engine)}{key}.hex"
            data = hex_image(words, width)
            write_bytes(folder / name, data)
            names.append(name)
            files[key] = {
                "file": name,
                "width": width,
                "depth": len(words),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        engines.append({**describe(program, engine, network), "images": files})
    thresholds = threshold_image(program)
    if thresholds is not None:
        name, width, words = thresholds
        write_bytes(folder / f"{name}.hex", hex_image(words, width))
        names.append(f"{name}.hex")
    edges = [_edge(program, edge) for edge in program.edges]
    write_json(
        folder / "config.json", {**_shared(program, network), "engines": engines, "edges": edges}
    )
    return [*names, "config.json"]


def write_sources(program: FpgaProgram, folder: Path) -> list[str]:
    """Write the SystemVerilog of a program; return the names, top level last."""
    for name in SOURCES:
        write_bytes(folder / name, source(name))
    write_bytes(folder / TOP, accelerator(program).encode())
    return [*SOURCES, TOP]


def write_images(program: FpgaProgram, folder: Path) -> None:
    """Write the memory images of a program."""
    for engine in program.engines:
        for name, width, words in images(program, engine):
            write_bytes(folder / f"{prefix(engine)}{name}.hex", hex_image(words, width))
    thresholds = threshold_image(program)
    if thresholds is not None:
        name, width, words = thresholds
        write_bytes(folder / f"{name}.hex", hex_image(words, width))


def _shared(program: FpgaProgram, network: Network) -> dict[str, Any]:
    a = program.arithmetic
    name, size = program.input
    return {
        "format": "snn-deploy/fpga",
        "schema": SCHEMA,
        "top": TOP,
        "banks": program.banks,
        "fifo_depth": program.fifo_depth,
        "inputs": [{"name": name, "size": size}],
        "outputs": list(network.outputs),
        "readout": readout_json(network.readout),
        "dt_s": network.dt_s,
        "arithmetic": {
            "membrane_min": a.state_min,
            "membrane_max": a.state_max,
            "current_bits": a.state_bits,
            "decay_bits": a.decay_bits,
            "accumulate": "exact: accumulators hold the largest possible sum",
            "sweep": "u = decay(u) + (sum << shift); v = saturate(decay(v) + u + bias); "
            "spike = v > threshold; reset",
            "decay": f"x * keep / 2^{a.decay_bits}, rounded toward zero",
        },
        "events": "word after word, lane after lane; one per cycle",
    }


def describe(program: FpgaProgram, engine: Engine, network: Network) -> dict[str, Any]:
    """Return what the hardware of one engine is generated from, without the images."""
    w = engine.widths
    return {
        "format": engine.format,
        "choice": engine.choice,
        "widths": {name: getattr(w, name) for name in w.__slots__},
        "words": {
            "entry": "{tap, index, weight}" if engine.format == "csr" else "{weight}",
            "pointer": "{start, bitmap}" if engine.format == "bitmap" else "{start, length}",
        },
        "map_words": len(map_words(program, engine)),
        "layers": [_layer(layer, network) for layer in engine.layers],
    }


def _layer(layer: Layer, network: Network) -> dict[str, Any]:
    layout = layer.layout
    return {
        "population": layer.population,
        "where": network.where(layer.population),
        "shape": list(network.population(layer.population).shape),
        "channels": layout.channels,
        "pixels": layout.pixels,
        "per_bank": layout.per_bank,
        "words": layout.words,
        "perm": layout.perm.tolist(),
        "bank": "perm[channel] % banks",
        "address": "pixel * per_bank + perm[channel] / banks",
        "shift": layer.shift,
        "spiking": layer.spiking,
        "reset": layer.reset,
        "skew": layer.skew,
        "largest_sum": layer.sum_most,
        "tables": {t.name: {"per": t.per, "bits": t.bits} for t in layer.tables},
        "segments": [_segment(s) for s in layer.segments],
    }


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "projection": segment.projection,
        "pre": segment.pre,
        "delay": segment.delay,
        "first_row": segment.first_row,
        "rows": segment.rows,
        "taps": segment.taps,
        "mapped": segment.map is not None,
        "multiplied_out": segment.composite,
    }


def _edge(program: FpgaProgram, edge: Edge) -> dict[str, Any]:
    return {
        "from": edge.pre,
        "to": program.engines[edge.engine].name,
        "words": edge.words,
        "lanes": edge.lanes,
        "steps": edge.steps,
        "delay": edge.delay,
    }
