"""From a quantized network to engines: banks, rows, memory images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from snn_deploy.backends.fpga.pack import FieldLimits, packed
from snn_deploy.backends.fpga.plan import (
    Geometry,
    check_supported,
    geometries,
    kernel_shape,
    multiplied_out,
)
from snn_deploy.backends.fpga.program import Banks, Edge, Engine, FpgaProgram
from snn_deploy.backends.fpga.readout import readout_unit
from snn_deploy.backends.fpga.schedule import Order, engines_of, skews
from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.quantized import QNetwork

_SWAPS_PER_BANK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user may choose. banks: P of every engine, a power of two. fifo_depth: rows that wait
    before a bank, a power of two. engines: how many, 0 for one per layer. dense_rows, bitmap_rows:
    whether rows may be stored so where that takes fewer bits (dense: and not much more work).
    """

    banks: int = 8
    fifo_depth: int = 4
    engines: int = 0
    dense_rows: bool = True
    bitmap_rows: bool = True


def build(
    qnet: QNetwork,
    settings: Settings,
    *,
    expected: Mapping[str, Array] | None = None,
    limits: FieldLimits | None = None,
) -> FpgaProgram:
    """Return the memory images of a quantized network.

    expected: spikes per neuron and population from calibration, any unit; without it every
    event is as likely as another. Raises UnsupportedError for what has no form here, and for a
    row or memory that exceeds ``limits``.
    """
    network = qnet.network
    source = network.input_population
    names = check_supported(qnet)
    plans: dict[str, list[Geometry]] = {}
    layouts: dict[str, Banks] = {}
    for name in names:
        plans[name], channels, pixels = _planned(qnet, name)
        loads = sum(
            (_loads(p, channels, pixels, (expected or {}).get(p.pre)) for p in plans[name]),
            start=np.zeros(channels),
        )
        # The readout unit scans the output's neurons in their order.
        reads = name in network.outputs
        perm = np.arange(channels) if reads else balance(loads, settings.banks)
        layouts[name] = Banks(banks=settings.banks, channels=channels, pixels=pixels, perm=perm)
    work = {n: sum(float(np.size(p.weight)) for p in plans[n]) for n in names}
    order = Order(names=names, plans=plans, inputs=(source.name,))
    groups = engines_of(names, work, settings.engines)
    found = [
        packed(
            qnet,
            index,
            group,
            layouts,
            plans,
            skews(order, group),
            formats={
                "csr": True,
                "bitmap": settings.bitmap_rows,
                "dense": settings.dense_rows,
            },
            first=sum(len(g) for g in groups[:index]),
            limits=limits or FieldLimits(),
        )
        for index, group in enumerate(groups)
    ]
    return FpgaProgram(
        engines=tuple(found),
        edges=_edges(found, layouts, source.size),
        input=(source.name, source.size),
        readout=readout_unit(qnet),
        banks=settings.banks,
        fifo_depth=settings.fifo_depth,
        arithmetic=qnet.arithmetic,
    )


def _planned(qnet: QNetwork, name: str) -> tuple[list[Geometry], int, int]:
    """Return the geometries of a population's fan-in, its channels and its pixels."""
    network = qnet.network
    plans = [g for p in network.into(name) for g in geometries(network, p)]
    shaped = [p for p in plans if p.window is not None]
    if not shaped:
        return plans, network.population(name).size, 1
    shape = kernel_shape(network, shaped[0])
    other = [p for p in shaped if kernel_shape(network, p) != shape]
    plans = [multiplied_out(network, p) if p in other else p for p in plans]
    return plans, *shape


def _edges(
    engines: Sequence[Engine], layouts: Mapping[str, Banks], input_size: int
) -> tuple[Edge, ...]:
    edges = []
    for engine in engines:
        readers: dict[str, list[int]] = {}
        delays: dict[str, int] = {}
        for number, layer in enumerate(engine.layers):
            for segment in layer.segments:
                readers.setdefault(segment.pre, []).append(number)
                delays[segment.pre] = max(delays.get(segment.pre, 0), segment.delay)
        for pre, numbers in readers.items():
            layout = layouts.get(pre)
            # The reader that is furthest behind, and of those the last in a step.
            last = max(numbers, key=lambda n: (engine.layers[n].skew, n))
            ahead = 2 + max(engine.layers[n].skew for n in numbers)
            edges.append(
                Edge(
                    pre=pre,
                    engine=engine.index,
                    lanes=1 if layout is None else layout.banks,
                    words=input_size if layout is None else layout.words,
                    steps=1 << (delays[pre] + ahead - 1).bit_length(),
                    delay=delays[pre],
                    last=last,
                )
            )
    return tuple(edges)


def balance(loads: Array, banks: int) -> Array:
    """Return a permutation, int64 (n,), that spreads ``loads`` evenly over ``banks``.

    Item j goes to bank ``perm[j] % banks``, slot ``perm[j] // banks``, and keeps its slot
    (``j // banks``), so that no bank holds more than ceil(n / banks) items and a walk over the
    slots meets the items of a bank in order. Greedy, slots with the largest spread first, then
    swaps within slots as long as they lower the fullest bank. Deterministic.
    """
    slots = -(-loads.size // banks)
    grid = np.zeros((slots, banks))
    grid.reshape(-1)[: loads.size] = loads
    lane = np.empty((slots, banks), np.int64)  # which item of its slot a bank holds
    total = np.zeros(banks)
    for slot in np.argsort(-np.ptp(grid, axis=1), kind="stable"):
        heavy = np.argsort(-grid[slot], kind="stable")
        light = np.argsort(total, kind="stable")
        lane[slot, light] = heavy
        total[light] += grid[slot, heavy]
    held = np.take_along_axis(grid, lane, axis=1)
    for _ in range(_SWAPS_PER_BANK * banks):
        top = int(total.argmax())
        gain = held[:, [top]] - held
        after = np.maximum(total[top] - gain, total[None, :] + gain)
        after[:, top] = np.inf
        slot, other = divmod(int(after.argmin()), banks)
        if after[slot, other] >= total[top]:
            break
        total[top] -= gain[slot, other]
        total[other] += gain[slot, other]
        for array in (held, lane):
            array[slot, [top, other]] = array[slot, [other, top]]
    perm = np.empty((slots, banks), np.int64)
    bank = np.arange(banks)[None, :]
    np.put_along_axis(perm, lane, np.arange(slots)[:, None] * banks + bank, axis=1)
    return adopt(perm.reshape(-1)[: loads.size].copy())


def _loads(plan: Geometry, channels: int, pixels: int, events: Array | None) -> Array:
    """Return the expected entries per channel of the post population, float64 (channels,)."""
    if events is None:
        rate = np.ones(plan.rows)
    else:
        rate = np.zeros(plan.rows)
        flat = np.asarray(events, np.float64).reshape(-1)
        at = plan.pool.transform() if plan.pool else np.arange(flat.size)
        if plan.window is None:
            np.add.at(rate, at[at >= 0], flat[at >= 0])
        else:
            taps = plan.window.kernel[0] * plan.window.kernel[1]
            area = plan.window.in_shape[1] * plan.window.in_shape[2]
            np.add.at(rate, at[at >= 0] // area * taps, flat[at >= 0])
            rate = np.repeat(rate[::taps], taps)
    target = plan.target if plan.window is not None else plan.target // pixels
    return np.bincount(target, weights=rate[plan.row], minlength=channels)
