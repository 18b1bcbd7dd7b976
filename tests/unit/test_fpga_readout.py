"""The unit that reads predictions in hardware: which networks have one, and what it looks for."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.arithmetics import FPGA
from snn_deploy.backends.fpga.artifacts import write
from snn_deploy.backends.fpga.images import threshold_image
from snn_deploy.backends.fpga.layout import Settings, build
from snn_deploy.backends.fpga.oracle import machine_of
from snn_deploy.backends.fpga.readout import STEP_BITS
from snn_deploy.backends.fpga.target import FpgaTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.ir import Dense, Readout, Relay
from snn_deploy.passes.pipeline import fold
from snn_deploy.passes.quantize import quantize
from tests.builders import grid, leaky, lif, network, population, projection, row, spikes

INF = math.inf


def _net(readout, neuron=None, size=6):
    rng = np.random.default_rng(0)
    first, last = Dense(weight=grid(rng, 9, 5)), Dense(weight=grid(rng, size, 9))
    return row((5,), first, lif(), last, neuron or lif(threshold=0.125), readout=readout)


def _unit(net):
    return build(quantize(fold(net), FPGA), Settings(banks=2)).readout


@pytest.mark.parametrize(
    ("readout", "kind", "group", "steps", "bits"),
    [
        (Readout(), "count", 1, (0, 4095), 13),
        (Readout(kind="count", window=(2, 5)), "count", 1, (2, 5), 13),
        (Readout(kind="vote", groups=3), "count", 2, (0, 4095), 14),
        (Readout(kind="vote", groups=1, window=(0, 1)), "count", 6, (0, 1), 16),
        (Readout(kind="last"), "last", 1, (0, 4095), 16),
        (Readout(kind="max"), "max", 1, (0, 4095), 16),
        (Readout(kind="mean", window=(1, 3)), "mean", 1, (1, 3), 28),
    ],
)
def test_what_the_unit_reads(readout, kind, group, steps, bits):
    neuron = leaky() if kind != "count" else None
    unit = _unit(_net(readout, neuron))
    assert (unit.population, unit.neurons, unit.thresholds) == ("n2", 6, None)
    assert (unit.kind, unit.group, (unit.first, unit.last)) == (kind, group, steps)
    # Every step may add the largest value of every neuron of a group, on either side of 0.
    assert unit.bits == bits
    most = {"count": 1 << STEP_BITS, "mean": 32767 << STEP_BITS}.get(kind, 32767)
    assert group * most <= 1 << (bits - 1)


def test_thresholds_of_leads_are_rounded_down_and_infinite_ones_never_met():
    unit = _unit(_net(Readout(cutoff=(0, 0.5, 2.999, 3, INF, 1e9))))
    never = (1 << (unit.bits - 1)) - 1
    assert unit.thresholds == (0, 0, 2, 3, never, never)
    for lead in range(6):  # whole leads are above these where they are above those
        exact = [lead > t for t in (0, 0.5, 2.999, 3)]
        assert exact == [lead > t for t in unit.thresholds[:4]]


def test_the_host_reads_several_outputs_and_membranes_of_different_gains():
    gains = leaky(np.array([2.0, 2, 2, 2, 2, 4]))
    assert _unit(_net(Readout(kind="last"), gains)) is None
    assert _unit(_net(Readout(kind="last"), leaky())) is not None
    assert _unit(_net(Readout(), lif(np.array([2.0, 2, 2, 2, 2, 4])))) is not None
    rng = np.random.default_rng(0)
    both = network(
        [
            population("in", (4,), Relay()),
            population("a", (3,), lif()),
            population("b", (3,), lif()),
        ],
        [projection("in", n, Dense(weight=grid(rng, 3, 4))) for n in "ab"],
        outputs=("a", "b"),
    )
    assert _unit(both) is None


@pytest.mark.parametrize("cutoff", [None, (1.0, INF, 2.0, 0.0)])
def test_thresholds_are_a_memory_of_their_own(cutoff, tmp_path):
    net = _net(Readout(cutoff=cutoff))
    program = prepare(fold(net), FpgaTarget())
    names = write(program.payload, program.real, tmp_path)
    assert ("readout.thresholds.hex" in names) == (cutoff is not None)
    image = threshold_image(program.payload)
    if cutoff is None:
        assert image is None
        return
    lines = (tmp_path / "readout.thresholds.hex").read_text().split()
    assert [int(line, 16) for line in lines] == list(program.payload.readout.thresholds)
    assert (image[0], image[1]) == ("readout.thresholds", program.payload.readout.bits)


@pytest.mark.parametrize(
    "readout",
    [
        Readout(),
        Readout(kind="vote", groups=2, window=(1, 4)),
        Readout(cutoff=(1.0,) * 5),
        Readout(kind="vote", groups=3, window=(1, 5), cutoff=(0.0, 2.0, INF, 1.0, 0.0)),
        Readout(kind="max"),
        Readout(kind="mean", window=(1, 3)),
    ],
)
def test_what_the_unit_finds_is_what_the_host_would(readout):
    """After the last step, and with a cutoff after every step until the one that stops."""
    neuron = leaky() if readout.kind in ("max", "mean") else None
    target = FpgaTarget()
    program = prepare(fold(_net(readout, neuron)), target)
    x = spikes(np.random.default_rng(1), 8, 5, (5,))
    trace = target.run(program, x, "states")
    found = trace.machine["results"]["n2"]
    ours = FixedEngine(program.qnet).run(x, "states")
    stops = program.real.readout.stop_steps(ours.output)
    classes = program.real.readout.predict(ours.output)
    looked = found["class"] >= 0
    # Before the window there are no scores to look at.
    first = (readout.window or (0, 5))[0] if readout.cutoff else 4
    assert looked[:, first:].all()
    assert not looked[:, :first].any()
    first = np.argmax(found["stops"] == 1, axis=1)
    assert (first + 1).tolist() == stops.tolist()
    assert found["class"][np.arange(8), first].tolist() == classes.tolist()
    cycles = target.cycles(program, trace)
    wanted = np.where(looked, cycles.swept["n2"] + cycles.scan, -1)
    assert np.array_equal(found["cycle"], wanted)
    host = replace(program, payload=replace(program.payload, readout=None))
    assert machine_of(host, cycles, ours)["results"] == {}
