"""The FPGA target against a register-by-register simulation that reads nothing but its files.

The simulation below knows the package only through ``config.json`` and the hex images. It moves
one clock cycle at a time, one bank at a time, one entry at a time, in Python integers: FIFOs,
counters and states as the hardware would have them, no closed form anywhere.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace

import numpy as np
import pytest

from snn_deploy.backends.arithmetics import FPGA
from snn_deploy.backends.base import Options
from snn_deploy.backends.fpga.target import FpgaTarget
from snn_deploy.engine.count import Counter
from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.ir import (
    LI,
    LIF,
    Conv1d,
    Conv2d,
    Dense,
    Identity,
    Network,
    Pool2d,
    Population,
    Projection,
    Readout,
    Relay,
)
from snn_deploy.passes.pipeline import fold
from snn_deploy.passes.quantize import quantize

# ---------------------------------------------------------------- the scalar simulation


def _field(word, low, bits):
    return (word >> low) & ((1 << bits) - 1)


def _signed(word, bits):
    return word - (1 << bits) if word >> (bits - 1) else word


class ScalarCore:
    """One core's registers and memories."""

    def __init__(self, config, core, folder):
        self.core, self.banks, self.fifo = core, config["banks"], config["fifo_depth"]
        self.arith, self.widths = config["arithmetic"], core["widths"]
        self.layout = core["layout"]
        self.memory = {
            name: [int(line, 16) for line in (folder / image["file"]).read_text().split()]
            for name, image in core["images"].items()
        }
        for name, image in core["images"].items():
            assert len(self.memory[name]) == image["depth"]
        self.neuron_at = {}
        for channel, place in enumerate(self.layout["perm"]):
            for pixel in range(self.layout["pixels"]):
                address = pixel * self.layout["per_bank"] + place // self.banks
                assert (place % self.banks, address) not in self.neuron_at
                assert address < self.layout["words"]
                self.neuron_at[place % self.banks, address] = (
                    channel * self.layout["pixels"] + pixel
                )
        self.counts = {s["projection"]: {"entries": 0, "adds": 0, "pointers": 0}
                       for s in core["segments"]}  # fmt: skip
        self.pushes = self.state_reads = self.state_writes = 0
        self.reset()

    def reset(self):
        self.v = [[0] * self.layout["words"] for _ in range(self.banks)]

    def parameter(self, name, bank, address):
        table = self.core["tables"].get(name)
        if table is None:
            return None
        words, bits = self.memory[name], table["bits"]
        if table["per"] == "core":
            value = words[0]
        elif table["per"] == "channel":
            value = _field(words[address % self.layout["per_bank"]], bank * bits, bits)
        else:
            value = _field(words[address], bank * bits, bits)
        return _signed(value, bits) if table["signed"] else value

    def tokens(self, segment, spikes):
        """Yield (row or None, base address) for the spikes of one projection, in order."""
        for event in spikes:
            if segment["pool"]:
                _, h, w = segment["pool"]["shape"]
                kh, kw = segment["pool"]["kernel"]
                c, y, x = event // (h * w), event // w % h // kh, event % w // kw
                if y >= h // kh or x >= w // kw:
                    yield segment, None, 0
                    continue
                event = (c * (h // kh) + y) * (w // kw) + x
            win = segment["window"]
            if win is None:
                yield segment, segment["first_row"] + event, 0
                continue
            _, h, w = win["in_shape"]
            _, out_h, out_w = win["out_shape"]
            c, y, x = event // (h * w), event // w % h, event % w
            found = False
            for ky in range(win["kernel"][0]):
                for kx in range(win["kernel"][1]):
                    for oy in range(out_h):
                        for ox in range(out_w):
                            if (
                                oy * win["stride"][0] + ky * win["dilation"][0]
                                == y + win["padding"][0]
                                and ox * win["stride"][1] + kx * win["dilation"][1]
                                == x + win["padding"][2]
                            ):
                                row = (c * win["kernel"][0] + ky) * win["kernel"][1] + kx
                                base = (oy * out_w + ox) * self.layout["per_bank"]
                                yield segment, segment["first_row"] + row, base
                                found = True
            if not found:
                yield segment, None, 0

    def pointer(self, segment, row, bank):
        if self.core["format"] == "dense":
            local = row - segment["first_row"]
            start = segment["first_word"] + local * segment["row_length"]
            return start, segment["row_length"]
        width = self.widths["start"] + self.widths["length"]
        lane = _field(self.memory["pointers"][row], bank * width, width)
        return lane >> self.widths["length"], _field(lane, 0, self.widths["length"])

    def entry(self, bank, address, start):
        word = self.memory[f"weights.b{bank:02d}"][address]
        weight = _signed(_field(word, 0, self.widths["weight"]), self.widths["weight"])
        if self.core["format"] == "dense":
            return address - start, weight
        return word >> self.widths["weight"], weight

    def saturate(self, value):
        return min(max(value, self.arith["state_min"]), self.arith["state_max"])

    def step(self, spikes_of):
        """Run one step; returns (cycles, stalls, spiking neurons ascending, v of all neurons)."""
        stream = [
            token for s in self.core["segments"] for token in self.tokens(s, spikes_of[s["pre"]])
        ]
        queue = [deque() for _ in range(self.banks)]
        now = [None] * self.banks  # the row that a bank works on: [segment, start, at, left, base]
        pipe = [deque([None, None]) for _ in range(self.banks)]
        held = None  # the row that was read and waits for room in every FIFO
        mode, wait, word, taken, cycles, stalls = "run", 0, 0, 0, 0, 0
        fired, v_out = [], {}
        while mode != "done":
            cycles += 1
            # what the registers say at the start of the cycle
            full = any(len(q) == self.fifo for q in queue)
            busy = any(queue) or any(now)
            push = held is not None and not full
            stalls += held is not None and full
            more = taken < len(stream)
            ready = mode == "run" and (held is None or push)
            finished = not more and held is None and not busy
            for b in range(self.banks):
                # scatter pipeline: read weight, read state, add and write
                written = pipe[b].popleft()
                if written is not None:
                    assert mode in ("run", "drain"), "the drain is too short"
                    address, weight = written
                    old = self.v[b][address]
                    self.v[b][address] = self.saturate(
                        old + weight * (1 << self.core["weight_shift"])
                    )
                    self.state_reads += 1
                    self.state_writes += 1
                pop = (now[b] is None or now[b][3] == 1) and len(queue[b]) > 0
                if now[b] is not None:
                    segment, start, at, left, base = now[b]
                    index, weight = self.entry(b, at, start)
                    counted = self.counts[segment["projection"]]
                    counted["entries"] += 1
                    counted["adds"] += weight != 0
                    pipe[b].append((base + index, weight))
                    now[b] = [segment, start, at + 1, left - 1, base] if left > 1 else None
                else:
                    pipe[b].append(None)
                if pop:
                    now[b] = queue[b].popleft()
                if push and held[1] is not None:
                    start, length = self.pointer(held[0], held[1], b)
                    if length:
                        queue[b].append([held[0], start, start, length, held[2]])
                        self.pushes += 1
            if ready:
                held = stream[taken] if more else None
                taken += more
                if held is not None and held[1] is not None and self.core["format"] == "csr":
                    self.counts[held[0]["projection"]]["pointers"] += 1
            elif push:
                held = None
            if mode == "run":
                mode, wait = ("drain", 0) if finished else (mode, 0)
            elif mode == "drain":
                wait += 1
                mode, word, wait = ("sweep", 0, 0) if wait == 3 else (mode, word, wait)
            elif mode == "sweep":
                slot, pixel = divmod(word, self.layout["pixels"])
                self.sweep(pixel * self.layout["per_bank"] + slot, fired, v_out)
                word += 1
                mode = "empty" if word == self.layout["words"] else mode
            elif mode == "empty":
                wait += 1
                mode = "done" if wait == 3 else mode
        size = len(self.neuron_at)
        return cycles, stalls, sorted(fired), [v_out[n] for n in range(size)]

    def sweep(self, address, fired, v_out):
        for bank in range(self.banks):
            self.state_reads += 1
            self.state_writes += 1
            v = self.saturate(self.v[bank][address] + (self.parameter("bias", bank, address) or 0))
            spike = self.core["spiking"] and v > self.parameter("threshold", bank, address)
            if spike and self.core["reset"] == "value":
                v = self.parameter("v_reset", bank, address)
            elif spike:
                v = self.saturate(v - self.parameter("reset_amount", bank, address))
            neuron = self.neuron_at.get((bank, address))
            if neuron is None:
                assert not spike, "a place without a neuron spiked"
            else:
                v_out[neuron] = v
                if spike:
                    assert all(n < neuron for n in fired if self.bank_of(n) == bank), (
                        "a bank's spikes leave out of order"
                    )
                    fired.append(neuron)
            decay = self.parameter("decay", bank, address)
            self.v[bank][address] = v - ((v * decay) >> self.arith["decay_bits"])

    def bank_of(self, neuron):
        return self.layout["perm"][neuron // self.layout["pixels"]] % self.banks


def simulate(folder, x):
    """Run samples on the files in ``folder``; returns per-core results and the latencies."""
    config = json.loads((folder / "config.json").read_text())
    cores = [ScalarCore(config, c, folder) for c in config["cores"]]
    samples, steps = x.shape[:2]
    out = {
        c["population"]: {
            "cycles": np.zeros((samples, steps), int), "stalls": np.zeros((samples, steps), int),
            "spikes": np.zeros((samples, steps, len(k.neuron_at)), int),
            "v": np.zeros((samples, steps, len(k.neuron_at)), int), "core": k,
        }
        for c, k in zip(config["cores"], cores, strict=True)
    }  # fmt: skip
    latency = []
    for s in range(samples):
        ends = {}
        clock = 0
        for core in cores:
            core.reset()
        for t in range(steps):
            events = {config["inputs"][0]["name"]: np.flatnonzero(x[s, t]).tolist()}
            for core in cores:
                name = core.core["population"]
                cycles, stalls, fired, v = core.step(events)
                events[name] = fired
                found = out[name]
                found["cycles"][s, t], found["stalls"][s, t] = cycles, stalls
                found["spikes"][s, t, fired] = 1
                found["v"][s, t] = v
                sources = {g["pre"] for g in core.core["segments"]}
                readers = [
                    c.core["population"] for c in cores
                    if name in {g["pre"] for g in c.core["segments"]}
                ]  # fmt: skip
                begin = max(
                    [ends.get((name, t - 1), 0)]
                    + [ends.get((source, t), 0) for source in sources]
                    + [ends.get((reader, t - 2), 0) for reader in readers]
                )
                clock += cycles
                ends[name, t] = begin + cycles
        latency.append(clock if config["engines"] == "shared" else max(ends.values()))
    return out, latency


# ---------------------------------------------------------------- networks


def _sparse(rng, shape, density, spread=0.5):
    return (rng.normal(0.3 * spread, spread, shape) * (rng.random(shape) < density)).astype(
        np.float32
    )


def _lif(rng, size=None, reset="value", v_threshold=0.3):
    threshold = v_threshold if size is None else v_threshold * rng.uniform(0.7, 1.3, size)
    return LIF(
        tau_s=rng.choice([1.3e-3, 2e-3, 7e-3]), r=1.0, v_leak=0.0, v_threshold=threshold,
        v_reset=0.0 if reset == "subtract" else rng.choice([0.0, -0.1]), reset=reset,
    )  # fmt: skip


def _dense(rng, shape, density, spread=0.5, bias=False):
    noise = rng.normal(0.1, 0.1, shape[0]).astype("f4") if bias else None
    return Dense(weight=_sparse(rng, shape, density, spread), bias=noise)


def _conv(rng, shape, density, bias=False, **geometry):
    noise = rng.normal(0.2, 0.1, shape[0]).astype("f4") if bias else None
    return Conv2d(weight=_sparse(rng, shape, density), bias=noise, **geometry)


def _pool(size, stride, kind="sum"):
    return Pool2d(kind=kind, kernel=(size, size), stride=(stride, stride))


def _network(pops, projections, output, readout="count"):
    return Network(
        populations=tuple(Population(name=n, shape=s, neuron=k) for n, s, k in pops),
        projections=tuple(
            Projection(name=n, pre=a, post=b, synapses=tuple(c)) for n, a, b, c in projections
        ),
        inputs=("in",),
        outputs=(output,),
        dt_s=1e-3,
        readout=Readout(kind=readout),
    )


def dense(rng):
    """Two sparse layers with biases, per-neuron thresholds, and rows without any weight."""
    first = _dense(rng, (23, 30), 0.3, bias=True)
    weight = first.weight.copy()
    weight[:, ::4] = 0
    return _network(
        [
            ("in", (30,), Relay()),
            ("h", (23,), _lif(rng, 23)),
            ("o", (10,), _lif(rng, None, "subtract")),
        ],
        [
            ("f1", "in", "h", [replace(first, weight=weight)]),
            ("f2", "h", "o", [_dense(rng, (10, 23), 0.4)]),
        ],
        "o",
    )


def full(rng):
    """Rows without zeros: dense format, and a membrane readout."""
    li = LI(tau_s=4e-3, r=1.0, v_leak=0.0)
    return _network(
        [("in", (12,), Relay()), ("h", (16,), _lif(rng)), ("o", (8,), li)],
        [
            ("f1", "in", "h", [_dense(rng, (16, 12), 1.0)]),
            ("f2", "h", "o", [_dense(rng, (8, 16), 1.0)]),
        ],
        "o",
        "last",
    )


def saturating(rng):
    """Thresholds far below the weights: a few entries meet the ends of the state."""
    return _network(
        [
            ("in", (30,), Relay()),
            ("h", (21,), _lif(rng, None, "subtract", 0.004)),
            ("o", (5,), _lif(rng)),
        ],
        [
            ("f1", "in", "h", [_dense(rng, (21, 30), 0.6, 1.0)]),
            ("f2", "h", "o", [_dense(rng, (5, 21), 0.5)]),
        ],
        "o",
    )


def conv(rng):
    """Stride, uneven padding, a pool that drops a border, a pool on its own."""
    return _network(
        [
            ("in", (2, 7, 7), Relay()),
            ("a", (5, 4, 4), _lif(rng)),
            ("b", (6, 4, 4), _lif(rng, None, "subtract")),
            ("p", (6, 3, 3), _lif(rng)),
            ("o", (7,), _lif(rng, None, "value", 0.1)),
        ],
        [
            (
                "c1",
                "in",
                "a",
                [_conv(rng, (5, 2, 3, 3), 0.5, True, stride=(2, 2), padding=(1, 1, 1, 1))],
            ),
            (
                "c2",
                "a",
                "b",
                [_pool(3, 3, "avg"), _conv(rng, (6, 5, 1, 1), 0.8, padding=(2, 1, 0, 3))],
            ),
            ("c3", "b", "p", [_pool(2, 1)]),
            ("f", "p", "o", [_pool(2, 2), _dense(rng, (7, 6), 0.7)]),
        ],
        "o",
    )


def mixed(rng):
    """Several projections into one population, groups, dilation, and chains multiplied out."""
    grouped = _conv(rng, (4, 2, 3, 3), 0.4, groups=2, dilation=(2, 2), padding=(2, 2, 2, 2))
    return _network(
        [
            ("in", (4, 5, 5), Relay()),
            ("a", (4, 5, 5), _lif(rng)),
            ("b", (4, 2, 2), _lif(rng)),
            ("o", (9,), _lif(rng, 9)),
        ],
        [
            ("skip", "in", "a", [Identity()]),
            ("g", "in", "a", [grouped]),
            ("x", "a", "b", [_conv(rng, (4, 4, 2, 2), 0.5), _pool(2, 2)]),
            ("y", "in", "b", [_dense(rng, (16, 100), 0.1)]),
            ("z", "a", "b", [_pool(2, 2), _conv(rng, (4, 4, 1, 1), 0.5)]),
            ("f", "b", "o", [_dense(rng, (9, 16), 0.5)]),
            ("long", "in", "o", [_dense(rng, (9, 100), 0.05)]),
        ],
        "o",
    )


def line(rng):
    """One-dimensional convolution into a flat layer."""
    first = Conv1d(weight=_sparse(rng, (7, 3, 4), 0.5), stride=2, padding=(1, 1))
    return _network(
        [("in", (3, 12), Relay()), ("a", (7, 6), _lif(rng)), ("o", (4,), _lif(rng))],
        [("c", "in", "a", [first]), ("f", "a", "o", [_dense(rng, (4, 42), 0.3)])],
        "o",
    )


MULTIPLIED_OUT = {"x"}
RUNS = {
    dense: ({"banks": 8}, {"banks": 1}, {"banks": 4, "fifo_depth": 2}, {"banks": 3, "engines": 1}),
    full: ({"banks": 8}, {"banks": 4, "dense_rows": 0}, {"banks": 5, "fifo_depth": 8}),
    saturating: ({"banks": 8}, {"banks": 2, "fifo_depth": 2}),
    conv: (
        {"banks": 8},
        {"banks": 4, "fifo_depth": 2, "dense_rows": 0},
        {"banks": 2, "engines": 1},
    ),
    mixed: ({"banks": 4}, {"banks": 8, "fifo_depth": 2}, {"banks": 3}),
    line: ({"banks": 4}, {"banks": 2, "fifo_depth": 16}),
}
CASES = [
    (build, seed, settings) for build, runs in RUNS.items() for seed, settings in enumerate(runs)
]


def _lowered(build, seed, settings):
    rng = np.random.default_rng([seed, len(build.__name__)])
    network = fold(build(rng))
    qnet = quantize(network, FPGA)
    program = FpgaTarget().lower(network, qnet, Options(settings=settings))
    return rng, network, qnet, program


@pytest.mark.parametrize(
    ("build", "seed", "settings"),
    CASES,
    ids=[f"{b.__name__}-{'-'.join(f'{k}{v}' for k, v in s.items())}" for b, _, s in CASES],
)
def test_equal_to_a_cycle_by_cycle_simulation_of_the_written_files(build, seed, settings, tmp_path):
    rng, network, qnet, program = _lowered(build, seed, settings)
    target = FpgaTarget()
    shape = network.input_population.shape
    # The last sample goes from no spike at all to every input firing.
    rates = np.array([[0.15] * 5, [0.5] * 5, [0.0, 1.0, 0.0, 0.05, 1.0]])
    x = rng.random((3, 5, *shape)) < rates.reshape(3, 5, *[1] * len(shape))
    x = x.astype(np.uint8)
    trace = target.run(program, x, "states")
    cycles = target.cycles(program, trace)
    target.write(program, tmp_path, "m")
    scalar, latency = simulate(tmp_path, x)
    for population in network.computing():
        name = population.name
        found, core = scalar[name], scalar[name]["core"]
        flat = (*x.shape[:2], -1)
        v = trace.states[name]["v"].reshape(flat)
        assert np.array_equal(found["v"], v), name
        if network.step_of(name).threshold is not None:
            assert np.array_equal(found["spikes"], trace.spikes[name].reshape(flat)), name
        assert np.array_equal(found["cycles"], cycles.cores[name].total), name
        assert np.array_equal(found["stalls"], cycles.cores[name].stalls), name
        assert sum(cycles.cores[name].parts.values()).tolist() == found["cycles"].tolist()
        assert all((part >= 0).all() for part in cycles.cores[name].parts.values())
        events = trace.events.at(name)
        assert events["cycles"] == found["cycles"].sum()
        assert events["fpga:stall_cycles"] == found["stalls"].sum()
        assert events["fpga:fifo_pushes"] == core.pushes
        assert events["state_read_bits"] == core.state_reads * 16
        assert events["state_write_bits"] == core.state_writes * 16
        for projection, counted in core.counts.items():
            events = trace.events.at(projection)
            widths = core.widths
            added = events.get("synops_quantized", 0) + events.get("synops_helper", 0)
            assert added == counted["adds"], projection
            assert events["weight_read_bits"] == counted["entries"] * widths["weight"]
            assert events["index_read_bits"] == counted["entries"] * widths["index"]
            lane = widths["start"] + widths["length"]
            assert events["pointer_read_bits"] == counted["pointers"] * core.banks * lane
    assert trace.timing["cycles"].tolist() == latency
    # The integer engine on the network before it became images, and the counts by definition.
    reference = FixedEngine(qnet)
    expected = reference.run(x, "states")
    assert np.array_equal(expected.output, trace.output)
    for name, states in expected.states.items():
        assert np.array_equal(states["v"], trace.states[name]["v"]), name
    for (where, event), count in Counter(network, qnet).count(expected).items():
        if where not in MULTIPLIED_OUT or not event.startswith("synops_"):
            assert trace.events[where, event] == count, (where, event)
    for population in network.computing():
        if network.step_of(population.name).threshold is not None:
            count = int(trace.counts[population.name].sum())
            assert 0 < count < population.size * x.shape[0] * x.shape[1], population.name
    if build is saturating:
        assert expected.overflows["saturated"] > 0
    if build is full and settings.get("dense_rows", 1):
        assert {core.format for core in program.payload} == {"dense"}


def test_cycles_see_back_pressure_and_the_bounds_hold():
    _, _, _, program = _lowered(dense, 3, {"banks": 4, "fifo_depth": 2})
    x = np.ones((1, 3, 30), np.uint8)
    cycles = FpgaTarget().cycles(program, FpgaTarget().run(program, x, "spikes")).cores["h"]
    assert cycles.stalls.min() > 0
    lengths = program.payload.core("h").lengths()
    bound = max(30, int(lengths.sum(axis=0).max()))
    assert (cycles.total >= bound + 7 + program.payload.core("h").layout.words).all()


# ---------------------------------------------------------------- a damaged image is noticed


def _mutated(program, population, field, change):
    cores = []
    for core in program.payload:
        if core.population == population:
            if field in ("weights", "pointers"):
                words = getattr(core, field).copy()
                change(core, words)
                core = replace(core, **{field: words})
            else:
                table = core.table(field)
                words = table.words.copy()
                change(core, words)
                tables = [replace(t, words=words) if t is table else t for t in core.tables]
                core = replace(core, tables=tuple(tables))
        cores.append(core)
    return replace(program, payload=replace(program.payload, cores=tuple(cores)))


def _flip(at, bit):
    def change(core, words):
        words[at] ^= np.uint64(1 << bit)

    return change


def _sign_of_a_weight(core, words):
    words[0, 0] ^= np.uint64(1 << (core.widths.weight - 1))


def _index_of_an_entry(core, words):
    words[0, 0] ^= np.uint64(1 << core.widths.weight)


def _one_entry_less(core, words):
    row, bank = np.argwhere(core.lengths() > 0)[0]
    words[row, bank] -= np.uint64(1)


def _start_too_late(core, words):
    row, bank = np.argwhere((core.lengths() > 0) & (core.lengths().sum(axis=0) > 3))[0]
    words[row, bank] += np.uint64(1 << core.widths.length)


@pytest.mark.parametrize(
    ("build", "population", "field", "change"),
    [
        (dense, "h", "weights", _sign_of_a_weight),
        (dense, "h", "weights", _index_of_an_entry),
        (dense, "h", "pointers", _one_entry_less),
        (dense, "h", "pointers", _start_too_late),
        (dense, "h", "threshold", _flip((0, slice(None)), 10)),
        (dense, "h", "bias", _flip((0, 1), 9)),
        (dense, "h", "decay", _flip((0, 0), 10)),
        (dense, "o", "reset_amount", _flip((0, 0), 9)),
        (conv, "a", "weights", _sign_of_a_weight),
        (conv, "a", "bias", _flip((0, 0), 9)),
        (conv, "a", "threshold", _flip((0, 0), 9)),
        (line, "o", "pointers", _start_too_late),
        (dense, "h", "v_reset", _flip((0, 0), 9)),
        (full, "h", "weights", _sign_of_a_weight),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_damaged_image_changes_the_spikes(build, population, field, change):
    rng, network, qnet, program = _lowered(build, 0, {"banks": 8})
    shape = network.input_population.shape
    x = (rng.random((12, 12, *shape)) < 0.4).astype(np.uint8)
    expected = FixedEngine(qnet).run(x, "spikes")
    target = FpgaTarget()
    intact = target.run(program, x, "spikes")
    assert all(np.array_equal(expected.spikes[n], intact.spikes[n]) for n in expected.spikes)
    damaged = target.run(_mutated(program, population, field, change), x, "spikes")
    assert not np.array_equal(expected.spikes[population], damaged.spikes[population])
