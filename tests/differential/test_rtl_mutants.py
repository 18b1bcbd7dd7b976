"""Broken hardware and broken models are found: each mutant differs from one line of a source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from snn_deploy.backends.fpga import cycles, kernel, machine
from snn_deploy.backends.fpga.oracle import RtlOracle
from snn_deploy.backends.fpga.program import FpgaProgram
from snn_deploy.backends.fpga.simulate import Files, files
from snn_deploy.backends.fpga.target import FpgaTarget
from snn_deploy.engine.compare import compare
from snn_deploy.errors import ExternalToolError
from snn_deploy.ir import Conv2d, Dense, Readout, Relay
from tests import builders as b
from tests.rtl_cases import Case, mismatch

pytestmark = [pytest.mark.usefixtures("verilator"), pytest.mark.slow]


def _row() -> Case:
    """Return layers on one engine: saturation, decay, empty lanes, a window, a cutoff, ties."""
    rng = np.random.default_rng(3)
    steps = 40
    strong = np.sign(b.grid(rng, 5, 30)).astype(np.float32)
    strong[0], strong[1] = 1, -1
    network = b.row(
        (30,),
        Dense(weight=strong),
        b.integrate_and_fire(0.125, reset="subtract"),
        Dense(weight=b.grid(rng, 3, 5)),
        b.lif(8, 0.25, v_leak=0.5, v_init=-0.5),
        Dense(weight=b.grid(rng, 4, 3)),
        b.lif(8, 0.125),
        readout=Readout(window=(3, steps), cutoff=(2.0,) * steps),
    )
    x = b.spikes(rng, 3, steps, (30,), 0.8)
    x[0] = 1
    return Case(network=network, settings={"banks": 2, "fifo_depth": 2, "engines": 1}, x=x)


def _loop() -> Case:
    """Return kernels, recurrence, a delay and a synaptic current on an engine for each layer."""
    rng = np.random.default_rng(4)
    same = {"padding": (1, 1, 1, 1)}
    network = b.network(
        [
            b.population("in", (2, 4, 4), Relay()),
            b.population("a", (3, 4, 4), b.lif(threshold=0.25)),
            b.population("out", (5,), b.cuba()),
        ],
        [
            b.projection("in", "a", Conv2d(weight=b.grid(rng, 3, 2, 3, 3), **same)),
            b.projection("a", "a", Conv2d(weight=b.grid(rng, 3, 3, 3, 3), **same)),
            b.projection("a", "out", Dense(weight=b.grid(rng, 5, 48)), delay_steps=2),
        ],
    )
    x = b.spikes(rng, 3, 8, (2, 4, 4), 0.6)
    return Case(network=network, settings={"banks": 2, "fifo_depth": 2}, x=x)


CASES: dict[str, Callable[[], Case]] = {"row": _row, "loop": _loop}
#: What is wrong: the case that shows it, file, line as it is, and as it is not.
HARDWARE: dict[str, tuple[str, str, str, str]] = {
    "sums are not forwarded": (
        "row", "bank.sv", "= s_after_one ? f_sum", "= 1'b0 ? f_sum"),
    "accumulators are not cleared": (
        "row", "bank.sv", "if (clears | add) sums[to]", "if (add) sums[to]"),
    "entries go into the half that is swept": (
        "row", "bank.sv", "wire add = s_valid & (half == 1'(h));",
        "wire add = s_valid & (half != 1'(h));"),
    "taps outside the image are added": (
        "loop", "bank.sv", "assign reaches = w_reach[entry[WB+IB+:TB]];",
        "assign reaches = 1'b1;"),
    "FIFOs are deeper than the model's": ("row", "accelerator.sv", ".FIFO(2)", ".FIFO(4)"),
    "a threshold met is a spike": ("row", "neuron.sv", "assign spike = v4 > ",
                                   "assign spike = v4 >= "),
    "membranes wrap": (
        "row", "neuron.sv", "else saturated = {x[W-1], {(VB - 1) {~x[W-1]}}};",
        "else saturated = x[VB-1:0];"),
    "decay rounds down": ("row", "neuron.sv", "v3 <= VB'(toward_zero >>> DECAY);",
                          "v3 <= VB'(product >>> DECAY);"),
    "currents round down": ("loop", "neuron.sv", "decayed_u = UB'(toward_zero >>> DECAY);",
                            "decayed_u = UB'(product >>> DECAY);"),
    "membranes outlive their sample": (
        "row", "neuron.sv", "from_v <= first ? start : v;", "from_v <= v;"),
    "a bubble between words of events": (
        "row", "spike_buffer.sv", "(left != 0) & (~next_valid | load);",
        "(left != 0) & ~next_valid;"),
    "a writer overtakes its reader": (
        "row", "spike_buffer.sv", "room = ahead < $signed", "room = ahead <= $signed"),
    "a delay is a step too long": (
        "loop", "engine.sv", "assign e_step = sent[TW-1:0];",
        "assign e_step = sent[TW-1:0] - 1'b1;"),
    "lanes without a neuron spike": (
        "row", "engine.sv", "assign put_mask = spikes & present_lanes;",
        "assign put_mask = spikes;"),
    "layers do not lag": (
        "row", "jobs.sv", "{1'b0, slot} - {1'b0, TW'(SKEW[32*at+:32])};", "{1'b0, slot};"),
    "of equal classes the highest": (
        "row", "readout.sv", "else if (score > first_score) begin",
        "else if (score >= first_score) begin"),
    "a lead that meets the threshold stops": (
        "row", "readout.sv", "lead > threshold;", "lead >= threshold;"),
}  # fmt: skip
#: What is wrong in the model: a line of ``ingest``, or a constant, as it is and as it is not.
INGEST: dict[str, tuple[str, str, str]] = {
    "a bank takes the next row before it is free": (
        "loop", "start = max(now + 1, free_at[b])", "start = now + 1"),
    "a full FIFO has room when its row is taken": (
        "loop", "open_at = taken[b, pushed[b] % depth] + 1",
        "open_at = taken[b, pushed[b] % depth]"),
    "stalls do not delay what follows": ("loop", "stalled += room - now", "stalled += 0"),
    "a job ends with its last row": ("row", "free_at[b] + AFTER + 1 > quiet", "quiet < 0"),
    "a segment without events takes no time": ("row", "tick += EMPTY", "tick += 0"),
}  # fmt: skip
CONSTANTS: dict[str, tuple[ModuleType, str, int]] = {
    "a sweep is a cycle shorter": (cycles, "SWEEP_FIXED", -1),
    "a scan is a cycle longer": (machine, "SCAN_FIXED", 1),
}


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} is no line of the source"
    return text.replace(old, new)


def _mutant(name: str, old: str, new: str) -> Files:
    def mutated(program: FpgaProgram) -> Mapping[str, bytes]:
        found = files(program)
        return {**found, name: _replaced(found[name].decode(), old, new).encode()}

    return mutated


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_mutated_is_equal(case):
    assert mismatch(CASES[case]().verdict()) == ""


@pytest.mark.parametrize("wrong", HARDWARE)
def test_broken_hardware_is_found(wrong):
    case, *mutation = HARDWARE[wrong]
    try:
        verdict = CASES[case]().verdict(_mutant(*mutation))
    except ExternalToolError as error:
        assert "does not finish a sample" in str(error)
        return
    assert verdict.lowering.equal
    assert not verdict.proof.equal


def _found(case: Case) -> dict[str, int]:
    """Return how many figures differ between the RTL and the model, by kind."""
    program = case.program()
    ours = FpgaTarget().run(program, case.x, "states")
    judge = RtlOracle().run(program, case.x)
    proof = compare(case.network, judge, ours, names=("RTL", "model"), tolerance=0.0)
    return {kind: number for kind, number in proof.mismatches.items() if number}


@pytest.mark.parametrize("wrong", INGEST)
def test_a_broken_recurrence_is_found(wrong, monkeypatch):
    case, old, new = INGEST[wrong]
    names: dict[str, Any] = dict(vars(kernel))
    exec(_replaced(inspect.getsource(kernel.ingest), old, new), names)
    monkeypatch.setattr(cycles, "compiled", lambda: names["ingest"])
    found = _found(CASES[case]())
    assert found and found.keys() <= {"cycles", "counters", "results"}


@pytest.mark.parametrize("wrong", CONSTANTS)
def test_a_wrong_constant_is_found(wrong, monkeypatch):
    module, name, change = CONSTANTS[wrong]
    monkeypatch.setattr(module, name, getattr(module, name) + change)
    found = _found(_row())
    assert found and found.keys() <= {"cycles", "results"}
