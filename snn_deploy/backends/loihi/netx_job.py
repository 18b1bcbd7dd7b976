"""A ``.net`` file for lava-dl's netx: from a Loihi program, and as a job for the Lava child."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from snn_deploy.backends.loihi.job import GEOMETRY_LIMIT, JobInput
from snn_deploy.backends.loihi.program import LoihiProgram, LoihiSynapses, lava_form
from snn_deploy.errors import UnsupportedError
from snn_deploy.io.netx import NetxLayer, netx_bytes
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.synapses import Conv2d, Csr

_NO_FILE_NEEDED = "run it in Lava directly: run --on lava and verify need no .net file"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetxJob:
    """A ``.net`` file and its input. names: of the file's layers, without the input's."""

    net: bytes
    names: tuple[str, ...]
    source: JobInput
    record: Literal["spikes", "states"] = "states"

    @property
    def samples(self) -> int:
        """Number of samples."""
        return int(self.source.spikes.shape[0])

    @property
    def steps(self) -> int:
        """Steps per sample."""
        return int(self.source.spikes.shape[1])

    @property
    def run_steps(self) -> int:
        """Steps that Lava runs: every sample's, plus one per layer."""
        return self.samples * self.steps + len(self.names)


def netx_job(program: LoihiProgram, x: Array) -> NetxJob:
    """Return the job that runs ``program``'s file on spikes (samples, steps, *input shape)."""
    name = program.network.inputs[0]
    return NetxJob(
        net=net_file(program),
        names=tuple(s.post for s in line(program)),
        source=JobInput(
            name=name,
            shape=program.network.shapes[name],
            spikes=np.ascontiguousarray(x.reshape(*x.shape[:2], -1), dtype=np.uint8),
        ),
    )


def line(program: LoihiProgram) -> tuple[LoihiSynapses, ...]:
    """Return the projections from input to output; UnsupportedError where the network branches."""
    found: list[LoihiSynapses] = []
    here = program.network.inputs[0]
    while len(found) < len(program.synapses):
        forward = [s for s in program.synapses if s.pre == here]
        if len(forward) != 1 or sum(s.post == forward[0].post for s in program.synapses) != 1:
            raise UnsupportedError(
                "netx files hold one line of layers, and this network branches",
                where=program.network.where(here),
                hint=_NO_FILE_NEEDED,
            )
        found.append(forward[0])
        here = forward[0].post
    return tuple(found)


def net_file(program: LoihiProgram) -> bytes:
    """Return lava-dl's ``.net``; UnsupportedError, located, for what netx would not run as is."""
    _check_neurons(program)
    layers: list[NetxLayer] = []
    flat = False
    for synapses in line(program):
        where = program.network.where(synapses.name)
        population = program.population(synapses.post)
        operator = lava_form(synapses)
        if isinstance(operator, Csr):
            _check_dense(operator, where)
            flat = True
        else:
            _check_conv(operator, flat, where)
        bias = population.bias
        layers.append(
            NetxLayer(
                operator=operator,
                shape=population.shape,
                du=np.asarray(population.du),
                dv=np.asarray(population.dv),
                vth=np.asarray(population.vth),
                bias=None if bias is None else np.asarray(bias),
            )
        )
    return netx_bytes(program.network.input_population.shape, tuple(layers))


def _check_neurons(program: LoihiProgram) -> None:
    for population in program.populations:
        where = program.network.where(population.name)
        if population.programmed:
            what = "netx has no neuron that resets to anything but 0"
        elif population.injected:
            what = "netx files have no place for currents that the host injects"
        else:
            continue
        raise UnsupportedError(what, where=where, hint=_NO_FILE_NEEDED)
    for synapses in program.synapses:
        where = program.network.where(synapses.name)
        if synapses.exponent or synapses.payload_bits:
            what = "netx files have no weight exponents and no graded spikes"
        elif np.any(synapses.delay_steps):
            what = "netx files of ours have no delays"
        else:
            continue
        raise UnsupportedError(what, where=where, hint=_NO_FILE_NEEDED)


def _check_dense(operator: Csr, where: str) -> None:
    """Refuse matrices that netx's optimize_weight_bits (utils.py) does not hand on unchanged.

    It shifts weights left until the largest fills 8 bits. Without a positive weight the room is
    -255..0, yet it aims at -256, and counts on a sign bit if there are zeros.
    """
    full = operator.data.size == operator.shape[0] * operator.shape[1]
    low = int(operator.data.min(initial=0))
    high = int(operator.data.max(initial=low if full else 0))
    if high > 0:
        return
    if low == 0:
        what, used = "netx cannot load a dense layer whose weights are all zero", None
    elif -low & (-low - 1) == 0:
        what = "netx loads a layer of inhibitory weights wrongly if the largest is a power of two"
        used = f"weights from {low} to {high}"
    elif high == 0 and low < -128 and bool(np.any(operator.data & 1)):
        what = "netx loads a layer of inhibitory and zero weights as zeros if it needs all 8 bits"
        used = f"weights from {low} to 0, odd ones among them"
    else:
        return
    raise UnsupportedError(what, where=where, used=used, hint=_NO_FILE_NEEDED)


def _check_conv(conv: Conv2d, flat: bool, where: str) -> None:
    if flat:
        raise UnsupportedError(
            "netx has no way from a dense layer back to an image, and a convolution follows one",
            where=where,
            used="layers whose padding, pooling or skip path is irregular are stored as dense ones",
            hint=_NO_FILE_NEEDED,
        )
    geometry = (*conv.weight.shape[2:], *conv.stride, *conv.padding, *conv.dilation)
    if max(geometry) > GEOMETRY_LIMIT:
        raise UnsupportedError(
            "kernel, stride, padding and dilation must each fit netx's int8",
            where=where,
            used=f"{max(geometry)}, largest allowed {GEOMETRY_LIMIT}",
            hint="use a smaller pool or kernel",
        )
