"""Files of a program: one hex image per memory, and the configuration that explains them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from snn_deploy.backends.fpga.cycles import (
    BUFFERED_STEPS,
    NOTICE_CYCLES,
    SCATTER_DRAIN_CYCLES,
    SWEEP_DRAIN_CYCLES,
)
from snn_deploy.backends.fpga.program import Core, FpgaProgram, Segment
from snn_deploy.io.files import write_bytes, write_json
from snn_deploy.io.values import readout_json
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network

SCHEMA = 1


def write(program: FpgaProgram, network: Network, folder: Path) -> list[str]:
    """Write ``config.json`` and the images that ``$readmemh`` loads; returns their names.

    The same program gives the same bytes. Raises OutputError.
    """
    names: list[str] = []
    cores = []
    for core in program:
        files: dict[str, Any] = {}
        for key, width, words in images(core):
            name = f"core{core.index:02d}.{key}.hex"
            data = hex_image(words, width)
            write_bytes(folder / name, data)
            names.append(name)
            files[key] = {
                "file": name,
                "width": width,
                "depth": len(words),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        cores.append({**describe(core, network), "images": files})
    write_json(folder / "config.json", {**_shared(program, network), "cores": cores})
    return [*names, "config.json"]


def images(core: Core) -> Iterator[tuple[str, int, list[int]]]:
    """Yield (name, width in bits, words) of each memory; bank 0 in a wide word's lowest bits."""
    for bank in range(core.layout.banks):
        yield f"weights.b{bank:02d}", core.widths.entry, core.weights[bank].tolist()
    if core.format == "csr":
        yield (
            "pointers",
            core.layout.banks * core.widths.pointer,
            _wide(core.pointers, core.widths.pointer),
        )
    for table in core.tables:
        lanes = table.words.shape[1]
        yield table.name, lanes * table.bits, _wide(table.words, table.bits)


def _wide(words: Array, bits: int) -> list[int]:
    """Return rows of lanes as one integer each, lane 0 lowest."""
    if words.shape[1] * bits <= 63:
        shifts = np.arange(words.shape[1], dtype=np.uint64) * np.uint64(bits)
        packed: list[int] = (words << shifts).sum(axis=1, dtype=np.uint64).tolist()
        return packed
    rows = words.tolist()
    return [sum(word << (lane * bits) for lane, word in enumerate(row)) for row in rows]


def hex_image(words: list[int], width: int) -> bytes:
    """Return words as lines of hexadecimal digits, as many for each as ``width`` bits need."""
    digits = -(-width // 4)
    return "".join(f"{word:0{digits}x}\n" for word in words).encode()


def _shared(program: FpgaProgram, network: Network) -> dict[str, Any]:
    a = program.arithmetic
    return {
        "format": "snn-deploy/fpga",
        "schema": SCHEMA,
        "banks": program.banks,
        "fifo_depth": program.fifo_depth,
        "engines": program.engines,
        "inputs": [{"name": name, "size": size} for name, size in program.inputs],
        "outputs": list(network.outputs),
        "readout": readout_json(network.readout),
        "dt_s": network.dt_s,
        "arithmetic": {
            "state_bits": a.state_bits,
            "state_min": a.state_min,
            "state_max": a.state_max,
            "decay_bits": a.decay_bits,
            "accumulate": "saturate at every entry, in event order, segment after segment",
            "sweep": "v = sat(v + bias); spike = v > threshold; reset; v = v - (v * decay >> "
            f"{a.decay_bits}), rounded down",
        },
        "cycles": {
            "step": "T + notice + scatter_drain + words + sweep_drain",
            "notice": NOTICE_CYCLES,
            "scatter_drain": SCATTER_DRAIN_CYCLES,
            "sweep_drain": SWEEP_DRAIN_CYCLES,
            "buffered_steps": BUFFERED_STEPS,
            "sample_reset": "the last sweep of a sample writes 0",
        },
        "events": "ascending neuron index, one per cycle; one row per cycle",
    }


def describe(core: Core, network: Network) -> dict[str, Any]:
    """Return what the hardware of one core is generated from, without the images."""
    layout, widths = core.layout, core.widths
    return {
        "population": core.population,
        "where": network.where(core.population),
        "shape": list(network.population(core.population).shape),
        "format": core.format,
        "choice": core.choice,
        "layout": {
            "channels": layout.channels,
            "pixels": layout.pixels,
            "per_bank": layout.per_bank,
            "words": layout.words,
            "perm": layout.perm.tolist(),
            "bank": "perm[channel] % banks",
            "address": "pixel * per_bank + perm[channel] / banks",
        },
        "widths": {
            "index": widths.index,
            "weight": widths.weight,
            "start": widths.start,
            "length": widths.length,
            "address": widths.address,
        },
        "words": {"entry": "{index, weight}", "pointer": "{start, length}"},
        "weight_shift": core.shift,
        "spiking": core.spiking,
        "reset": core.reset,
        "tables": {t.name: {"per": t.per, "bits": t.bits, "signed": t.signed} for t in core.tables},
        "segments": [_segment(core, s) for s in core.segments],
    }


def _segment(core: Core, segment: Segment) -> dict[str, Any]:
    window, pool = segment.window, segment.pool
    entry: dict[str, Any] = {
        "projection": segment.projection,
        "pre": segment.pre,
        "pre_size": segment.pre_size,
        "first_row": segment.first_row,
        "rows": segment.rows,
        "multiplied_out": segment.composite,
        "pool": None if pool is None else {"shape": pool.shape, "kernel": pool.kernel},
        "window": None
        if window is None
        else {
            "in_shape": window.in_shape,
            "out_shape": window.out_shape,
            "kernel": window.kernel,
            "stride": window.stride,
            "padding": window.padding,
            "dilation": window.dilation,
        },
    }
    if core.format == "dense":
        entry |= {"first_word": segment.first_word, "row_length": segment.row_length}
    return entry
