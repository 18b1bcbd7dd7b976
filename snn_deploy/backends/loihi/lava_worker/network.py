"""Builds Lava Processes from a job folder and runs them once, all samples in a row.

Images are (C, H, W) in the job and (W, H, C) in Lava, whose Conv is a true convolution:
kernels are flipped and transposed, dense weights permuted, recordings transposed back.
A population of depth d handles step k of sample s at Lava's step s*(steps + gap) + k + 1 + d (Lava
counts from 1), so it is reset when t % (steps + gap) == (1 + d) % (steps + gap).
"""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import compat

compat.install()

from lava.magma.core.run_conditions import RunSteps  # noqa: E402
from lava.magma.core.run_configs import Loihi2SimCfg  # noqa: E402
from lava.magma.runtime import runtime as lava_runtime  # noqa: E402
from lava.magma.runtime.message_infrastructure import multiprocessing as actors  # noqa: E402
from lava.proc.conv.process import Conv  # noqa: E402
from lava.proc.dense.process import DelayDense, Dense  # noqa: E402
from lava.proc.sparse.process import DelaySparse, Sparse  # noqa: E402
from lava.utils.weightutils import SignMode  # noqa: E402

from .processes.recorded import RecordedLif, SpikeFile, Tie  # noqa: E402
from .programmable.neuron import ProgrammedLif  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from numpy.typing import NDArray

    Entry = dict[str, Any]
    Shape = Sequence[int]
    Weight = NDArray[np.signedinteger[Any]]
    Arrays = dict[str, Weight]
    Fail = Callable[[str], NoReturn]

MAX_GROUPS = 127  # Lava keeps the number of groups as int8
GRADED_BITS = 24


def versions() -> dict[str, str]:
    """Return what ran: interpreter and packages."""
    import importlib.metadata as metadata

    found = {"python": platform.python_version()}
    for name in ("lava-nc", "lava-dl", "numpy", "scipy", "networkx", "asteval", "h5py"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def run(folder: Path, fail: Fail) -> None:
    """Simulate the job in ``folder``, leave recordings and done.json there.

    fail: called with a text in the process where something went wrong; must not return
    control to Lava, which hangs after errors.
    """
    began = time.monotonic()
    _report_errors_of_actors(fail)
    _report_deaths_of_actors(fail)
    job = json.loads((folder / "job.json").read_text())
    if job["kind"] == "netx":
        from . import netx

        start, config = netx.build(job, folder)
    else:
        with np.load(folder / "job.npz", allow_pickle=False) as arrays:
            start = _build(job, dict(arrays), folder)
        config = Loihi2SimCfg(select_tag="fixed_pt")
    start.create_runtime(run_cfg=config)
    built, before = time.monotonic(), os.times()
    start.run(condition=RunSteps(num_steps=job["run_steps"]))
    ran = time.monotonic()
    _stopping.set()
    start.stop()
    # Of this process and of the nodes' processes, which count from their end on.
    spent = sum(os.times()[:4]) - sum(before[:4])
    done = {
        "versions": versions(),
        "build_s": built - began,
        "run_s": ran - built,
        "cpu_s": spent,
        "run_steps": job["run_steps"],
    }
    (folder / "done.part").write_text(json.dumps(done))
    os.replace(folder / "done.part", folder / "done.json")


def _build(job: Entry, arrays: Arrays, folder: Path) -> Any:
    """Return one Process of the connected network."""
    nodes = {}
    for entry in job["inputs"]:
        nodes[entry["name"]] = SpikeFile(
            shape=_lava_shape(entry["shape"]),
            path=str(folder / entry["file"]),
            window=_window(job, 1),
            name=entry["name"],
        )
    for entry in job["populations"]:
        nodes[entry["name"]] = _neurons(entry, job, arrays, folder)
    shapes = {e["name"]: e["shape"] for e in (*job["inputs"], *job["populations"])}
    for entry in job["projections"]:
        pre, post = shapes[entry["pre"]], shapes[entry["post"]]
        weight = arrays[entry["weight"]].astype(np.int32)
        if entry["kind"] == "conv":
            _connect_conv(entry, weight, nodes, pre, post)
        else:
            make = _dense if entry["kind"] == "dense" else _sparse
            _connect_flat(make(entry, weight, arrays, pre, post), entry, nodes, pre, post)
    _tie(job, nodes)
    return next(iter(nodes.values()))


def _window(job: Entry, first: int) -> dict[str, int]:
    return {"first": first, **{name: job[name] for name in ("samples", "steps", "gap")}}


def _neurons(entry: Entry, job: Entry, arrays: Arrays, folder: Path) -> Any:
    shape, first = entry["shape"], 1 + entry["depth"]
    currents = entry["currents"]
    options: dict[str, Any] = {
        "shape": _lava_shape(shape),
        "reset_interval": job["steps"] + job["gap"],
        "reset_offset": first,
        "bias_exp": entry["bias_exp"],
        "name": entry["name"],
        "record": {
            "window": _window(job, first),
            "files": {kind: str(folder / name) for kind, name in entry["files"].items()},
            "currents": None if currents is None else str(folder / currents),
        },
    }
    for name, key in (("du", "du"), ("dv", "dv"), ("vth", "vth"), ("bias_mant", "bias")):
        options[name] = _parameter(entry[key], arrays, shape)
    if currents is not None:
        options["bias_mant"] = np.zeros(_lava_shape(shape), np.int64)
    if entry["program"] is None:
        return RecordedLif(**options)
    program = {
        name: value if name == "reset" else _parameter(value, arrays, shape)
        for name, value in entry["program"].items()
    }
    return ProgrammedLif(program=program, **options)


def _tie(job: Entry, nodes: dict[str, Any]) -> None:
    """Connect networks that nothing joins: Lava would leave all but one out."""
    part = {name: {name} for name in nodes}
    for entry in job["projections"]:
        joined = part[entry["pre"]] | part[entry["post"]]
        part |= dict.fromkeys(joined, joined)
    heads = [entry["name"] for entry in job["populations"]]
    apart = list({id(part[name]): name for name in heads}.values())
    for number, (left, right) in enumerate(zip(apart, apart[1:])):  # noqa: B905, RUF007
        ports = nodes[left].a_in, nodes[right].a_in
        tie = Tie(left=ports[0].shape, right=ports[1].shape, name=f"tie {number}")
        tie.to_left.connect(ports[0])
        tie.to_right.connect(ports[1])


def _dense(
    entry: Entry, weight: Weight, arrays: Arrays, pre_shape: Shape, post_shape: Shape
) -> Any:
    weight = weight[_lava_order(post_shape)][:, _lava_order(pre_shape)]
    if entry["delay"]:
        return DelayDense(weights=weight, delays=entry["delay"], **_message(entry))
    return Dense(weights=weight, **_message(entry))


def _message(entry: Entry) -> dict[str, int]:
    return {
        "weight_exp": entry["weight_exp"],
        "num_message_bits": GRADED_BITS if entry["graded"] else 0,
    }


def _sparse(
    entry: Entry, weight: Weight, arrays: Arrays, pre_shape: Shape, post_shape: Shape
) -> Any:
    from scipy.sparse import csr_matrix

    def ordered(values: Weight) -> Any:
        rows = (values, arrays[entry["indices"]], arrays[entry["indptr"]])
        matrix = csr_matrix(rows, shape=(math.prod(post_shape), math.prod(pre_shape)))
        if len(post_shape) == 3 or len(pre_shape) == 3:
            matrix = matrix[_lava_order(post_shape)][:, _lava_order(pre_shape)]
        return matrix

    matrix = ordered(weight)
    # Messages of 0 and 1 as numbers: Lava then multiplies, which is faster than to pick columns.
    options = {"weight_exp": entry["weight_exp"], "num_message_bits": GRADED_BITS}
    if entry["free"]:
        # 9 bits with a sign: neither clipped within -256..255 nor floored to even.
        options |= {"sign_mode": SignMode.MIXED, "num_weight_bits": 9}
    delay = _parameter(entry["delay"], arrays, (weight.size,))
    if np.any(delay):
        # One delay per stored weight: from an integer Lava makes a matrix without zeros.
        delays = ordered(np.broadcast_to(np.asarray(delay, int), weight.shape).copy())
        return DelaySparse(weights=matrix, delays=delays, **options)
    return Sparse(weights=matrix, **options)


def _connect_flat(
    synapses: Any, entry: Entry, nodes: dict[str, Any], pre_shape: Shape, post_shape: Shape
) -> None:
    source, target = nodes[entry["pre"]].s_out, nodes[entry["post"]].a_in
    if len(pre_shape) == 3:
        source = source.reshape((math.prod(pre_shape),))
    source.connect(synapses.s_in)
    drive = synapses.a_out
    if len(post_shape) == 3:
        drive = drive.reshape(_lava_shape(post_shape))
    drive.connect(target)


def _connect_conv(
    entry: Entry, weight: Weight, nodes: dict[str, Any], pre_shape: Shape, post_shape: Shape
) -> None:
    weight, groups = _merge_groups(weight << entry["weight_exp"], entry["groups"])
    conv = Conv(
        weight=np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(0, 3, 2, 1)),
        input_shape=_lava_shape(pre_shape),
        stride=tuple(entry["stride"][::-1]),
        padding=tuple(entry["padding"][::-1]),
        dilation=tuple(entry["dilation"][::-1]),
        groups=groups,
        num_message_bits=GRADED_BITS if entry["graded"] else 0,
    )
    if conv.output_shape != _lava_shape(post_shape):
        raise ValueError(f"convolution gives {conv.output_shape}, expected {post_shape}")
    nodes[entry["pre"]].s_out.connect(conv.s_in)
    conv.a_out.connect(nodes[entry["post"]].a_in)


def _merge_groups(weight: Weight, groups: int) -> tuple[Weight, int]:
    """Join neighbouring groups, filling with zeros, until their number fits Lava's int8."""
    if groups <= MAX_GROUPS:
        return weight, groups
    fewer = max(g for g in range(1, MAX_GROUPS + 1) if groups % g == 0)
    joined = groups // fewer
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    merged = np.zeros((weight.shape[0], inputs * joined, *weight.shape[2:]), weight.dtype)
    for channel in range(weight.shape[0]):
        place = (channel // outputs) % joined * inputs
        merged[channel, place : place + inputs] = weight[channel]
    return merged, fewer


def _lava_shape(shape: Shape) -> tuple[int, ...]:
    return tuple(shape[::-1])


def _lava_order(shape: Shape) -> Weight:
    """For each flat index in Lava's (W, H, C) order, the flat index in (C, H, W) order."""
    return np.arange(math.prod(shape)).reshape(shape).transpose().ravel()


def _parameter(value: int | str, arrays: Arrays, shape: Shape) -> int | Weight:
    """Return a Python int (which Lava keeps unbounded) or an int64 array in Lava's shape."""
    if isinstance(value, str):
        return np.ascontiguousarray(arrays[value].astype(np.int64).reshape(shape).transpose())
    return value


_stopping = threading.Event()


def _report_errors_of_actors(fail: Fail) -> None:
    """Lava swallows the traceback of a failing actor and may wait for ever for its peers."""
    original = lava_runtime.target_fn

    def target_fn(*args: Any, **kwargs: Any) -> None:
        try:
            original(*args, **kwargs)
        except BaseException:
            fail(traceback.format_exc())

    lava_runtime.target_fn = target_fn


def _report_deaths_of_actors(fail: Fail) -> None:
    """Report an actor that dies without an exception: Lava would wait for it for ever."""
    original = actors.SystemProcess.start
    started: list[int] = []

    def look(*_: object) -> None:
        for pid in started:
            try:  # left for Lava's join to reap
                state = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                continue
            if state is not None and state.si_code != os.CLD_EXITED:
                fail(f"one of Lava's processes was killed by signal {state.si_status}")
            if state is not None and not _stopping.is_set():
                fail(f"one of Lava's processes ended early, with exit code {state.si_status}")

    def start(actor: Any) -> None:
        original(actor)
        started.append(actor.pid)
        look()

    actors.SystemProcess.start = start
    signal.signal(signal.SIGCHLD, look)
