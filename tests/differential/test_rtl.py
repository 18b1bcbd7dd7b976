"""The hardware under Verilator against the integer engine and the cycle model: spikes, states,
counters, the cycle of everything that begins or ends, and what the readout unit finds.
"""

from __future__ import annotations

import numpy as np
import pytest

from snn_deploy.backends.arithmetics import FPGA
from snn_deploy.backends.fpga.oracle import most_cycles
from snn_deploy.backends.fpga.simulate import KINDS, Recording, simulate
from snn_deploy.backends.fpga.target import FpgaTarget
from snn_deploy.backends.verify import engine_trace
from snn_deploy.ir import Dense, Readout
from tests import builders as b
from tests.rtl_cases import FORMATS, Case, case, mismatch

pytestmark = [pytest.mark.usefixtures("verilator"), pytest.mark.slow]


def _settings(banks: int, fifo: int, engines: int, form: str) -> dict[str, int]:
    return {"banks": banks, "fifo_depth": fifo, "engines": engines, **FORMATS[form]}


#: Family, seed, settings, share of the input that spikes, steps, and formats of the rows.
CASES: dict[str, tuple[str, int, dict[str, int], str, int, str]] = {
    "one bank, dense rows": ("layers", 10, _settings(1, 2, 0, "dense"), "full", 4, "csr dense"),
    "layers smaller than the banks": (
        "layers", 13, _settings(16, 4, 2, "bitmap"), "sparse", 7, "bitmap"),
    "layers share an engine": ("layers", 4, _settings(4, 8, 1, "csr"), "half", 5, "csr"),
    "kernels on one engine": ("shaped", 45, _settings(2, 2, 1, "csr"), "half", 4, "csr"),
    "kernels on many engines": (
        "shaped", 45, _settings(8, 4, 0, "bitmap"), "sparse", 6, "bitmap csr"),
    "1-D kernels": ("conv1d", 4, _settings(4, 2, 2, "csr"), "full", 4, "csr"),
    "kernels and rows into one population": (
        "joined", 2, _settings(8, 2, 0, "csr"), "full", 6, "csr"),
    "loops on shared engines": ("joined", 4, _settings(2, 4, 2, "csr"), "half", 6, "csr"),
    "votes in a window, with a cutoff": (
        "votes", 10, _settings(4, 4, 0, "dense"), "half", 6, "dense"),
    "votes in a window": ("votes", 55, _settings(2, 2, 1, "bitmap"), "half", 6, "bitmap"),
    "largest membrane of a silent input": (
        "membranes", 3, _settings(4, 2, 1, "csr"), "silent", 5, "csr"),
    "last membrane of one step": ("membranes", 7, _settings(1, 2, 0, "csr"), "half", 1, "csr"),
    "mean membrane": ("membranes", 9, _settings(2, 4, 0, "bitmap"), "half", 5, "bitmap csr"),
    "analogue image": ("graded", 29, _settings(4, 2, 0, "csr"), "half", 4, "csr"),
    "analogue values": ("graded", 6, _settings(2, 4, 0, "dense"), "full", 1, "csr dense"),
    "membranes that saturate": ("saturating", 0, _settings(8, 4, 0, "dense"), "full", 40, "dense"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_equal_in_everything(name):
    family, seed, settings, activity, steps, formats = CASES[name]
    made = case(family, seed, settings, activity=activity, steps=steps)
    assert {e.format for e in made.program().payload.engines} == set(formats.split())
    verdict = made.verdict()
    assert mismatch(verdict) == ""
    values = verdict.proof.values
    assert values["cycles"] and values["counters"]
    assert values.get("results") or made.program().payload.readout is None


def test_membranes_saturate_on_either_side():
    family, seed, settings, activity, steps, _ = CASES["membranes that saturate"]
    made = case(family, seed, settings, activity=activity, steps=steps)
    program = made.program()
    membrane = engine_trace(program, made.x).states["n1"]["v"]
    back = program.qnet.populations["n1"].reset_amount
    assert (membrane.min(), membrane.max()) == (FPGA.state_min, FPGA.state_max - back)


def _stopping(engines: int) -> Case:
    """Return a slow layer before a fast output; whole steps are silent, others full."""
    rng = np.random.default_rng(0)
    steps = 8
    network = b.row(
        (40,),
        Dense(weight=b.grid(rng, 24, 40)),
        b.lif(threshold=0.25),
        Dense(weight=b.grid(rng, 6, 24)),
        b.lif(8, threshold=0.125),
        readout=Readout(kind="vote", groups=3, cutoff=(1.0,) * steps),
    )
    each = rng.random((10, steps, 40))
    busy = rng.choice([0.0, 0.1, 1.0], (10, steps, 1))
    x = (each < busy).astype(np.uint8)
    return Case(network=network, settings={"banks": 1, "engines": engines}, x=x)


@pytest.mark.parametrize("engines", [0, 1])
def test_a_sample_stops_when_the_engine_says_and_the_next_one_is_right(engines):
    made = _stopping(engines)
    program = made.program()
    trace = engine_trace(program, made.x)
    readout = program.real.readout
    stops = readout.stop_steps(trace.output)
    assert made.x.shape[1] in stops and len(set(stops)) > 3
    run = FpgaTarget().run(program, made.x, "states")
    finished = run.timing["cycles"]
    limit = most_cycles(program.payload, made.x)
    whole, early = (simulate(program.payload, made.x, limit, early=e) for e in (False, True))
    for sample, stop in enumerate(stops):
        scans = _rows(early, "scanned", sample)
        assert scans[:, 4].tolist() == list(range(stop)), "no scan after the stop"
        assert scans[:, 3].tolist() == [0] * (stop - 1) + [1]
        assert scans[-1, 5] == finished[sample]
        (done,) = _rows(early, "done", sample)
        assert done[2] == scans[-1, 2] == readout.predict(trace.output)[sample]
        assert done[5] >= finished[sample]
        (last,) = _rows(whole, "done", sample)
        assert done[5] < last[5] or stop == made.x.shape[1]
        begun = _rows(early, "begin", sample)[:, 2:4].tolist()
        for engine, layer in program.payload.layers():
            place = [engine.index, engine.layers.index(layer)]
            assert begun.count(place) == run.stop.ran[layer.population][sample]
        # What ran until the stop is what runs without one, to the cycle.
        for kind in ("begin", "ingested", "sweeping", "swept"):
            got, wanted = _rows(early, kind, sample), _rows(whole, kind, sample)
            before = wanted[:, 5] <= finished[sample]
            assert got[: before.sum()].tolist() == wanted[before].tolist()
        # Jobs that had begun are finished, right ones too.
        swept = early.words[early.words[:, 0] == sample]
        assert swept.tolist() == _same_jobs(whole, swept, sample)


def _rows(recording: Recording, kind: str, sample: int) -> np.ndarray:
    jobs = recording.jobs
    return jobs[(jobs[:, 0] == KINDS.index(kind)) & (jobs[:, 1] == sample)]


def _same_jobs(recording: Recording, words: np.ndarray, sample: int) -> list[list[int]]:
    """Return the recording's rows of the (engine, layer, step, word) that are in ``words``."""
    own = recording.words[recording.words[:, 0] == sample]
    found = {tuple(row[1:5]): row.tolist() for row in own}
    return [found[tuple(row[1:5])] for row in words]
