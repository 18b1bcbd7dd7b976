"""A spike source that streams from a file, and LIFReset with a probe that writes to files.

The arithmetic is Lava's own: the model below only watches it. Reading Vars through Lava
instead would cost about 10 us per element.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from lava.proc.lif.models import PyLifResetModelBitAcc
from lava.proc.lif.process import LIFReset


class SpikeFile(AbstractProcess):  # type: ignore[misc]
    """Sends row t-1 of a .npy file (steps, n) at step t, then silence.

    ``shape`` is the output's shape in Lava's order; rows are in the C order of its reverse.
    """

    def __init__(self, *, shape: tuple[int, ...], path: str, name: str) -> None:
        super().__init__(shape=shape, path=path, name=name)
        self.s_out = OutPort(shape=shape)


@implements(proc=SpikeFile, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class SpikeFileModel(PyLoihiProcessModel):  # type: ignore[misc]
    """The only model of SpikeFile."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.shape = proc_params["shape"]
        self.rows = np.load(proc_params["path"], mmap_mode="r", allow_pickle=False)

    def run_spk(self) -> None:
        """Send one row, as int32 in Lava's (W, H, C) order."""
        frame = np.zeros(self.shape, np.int32)
        if self.time_step <= len(self.rows):
            row = self.rows[self.time_step - 1]
            frame[...] = row.reshape(self.shape[::-1]).transpose()
        self.s_out.send(frame)


class RecordedLif(LIFReset):  # type: ignore[misc]
    """LIFReset whose model writes ``count`` rows from step ``first`` on.

    ``files`` maps "spikes", "u" and "v" to .npy paths; rows are in the C order of the
    reverse of Lava's shape.
    """

    def __init__(self, *, files: dict[str, str], first: int, count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.proc_params["record"] = (files, first, count)


@implements(proc=RecordedLif)
class RecordedLifModel(PyLifResetModelBitAcc):  # type: ignore[misc]
    """Lava's fixed-point LIFReset, watched; protocol, resources and tags are inherited."""

    implements_process = None  # Lava refuses to override an inherited one

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        files, self.first, self.count = proc_params["record"]
        self.paths = files
        self.sinks: dict[str, BinaryIO] = {}
        self.fired: Any = None

    def reset_voltage(self, spike_vector: Any) -> None:
        """Keep the spikes that Lava has just found, then reset as Lava does."""
        self.fired = spike_vector
        super().reset_voltage(spike_vector)

    def run_spk(self) -> None:
        """One step of Lava's, then one row of each recording."""
        super().run_spk()
        row = self.time_step - self.first
        if not 0 <= row < self.count:
            return
        for kind, path in self.paths.items():
            values = self.fired if kind == "spikes" else getattr(self, kind)
            dtype = np.dtype(np.uint8 if kind == "spikes" else np.int32)
            if row == 0:
                # Plain appends, not a memory map: a full disk is then an exception, not SIGBUS.
                sink = self.sinks[kind] = open(path, "xb")  # noqa: SIM115
                header = {
                    "descr": np.lib.format.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": (self.count, values.size),
                }
                np.lib.format.write_array_header_1_0(sink, header)
            self.sinks[kind].write(values.transpose().astype(dtype).tobytes())
            if row == self.count - 1:
                self.sinks[kind].close()
