"""A spike source that streams from a file, LIFReset with a probe, and a tie between networks."""

from __future__ import annotations

from typing import Any

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

from lava_worker.recording import Watched, Window


class SpikeFile(AbstractProcess):  # type: ignore[misc]
    """Sends the rows of a .npy file (samples * steps, n) in their window, else silence.

    ``shape`` is the output's shape in Lava's order; rows are in the C order of its reverse.
    """

    def __init__(
        self, *, shape: tuple[int, ...], path: str, window: dict[str, int], name: str
    ) -> None:
        super().__init__(shape=shape, path=path, window=window, name=name)
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
        self.window = Window(**proc_params["window"])
        self.rows = np.load(proc_params["path"], mmap_mode="r", allow_pickle=False)

    def run_spk(self) -> None:
        """Send one row, as int32 in Lava's (W, H, C) order."""
        frame = np.zeros(self.shape, np.int32)
        row = self.window.row(self.time_step)
        if row is not None:
            frame[...] = self.rows[row].reshape(self.shape[::-1]).transpose()
        self.s_out.send(frame)


class RecordedLif(LIFReset):  # type: ignore[misc]
    """LIFReset whose model is watched; ``record``: see Watched."""

    def __init__(self, *, record: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.proc_params["record"] = record


@implements(proc=RecordedLif)
class RecordedLifModel(Watched, PyLifResetModelBitAcc):  # type: ignore[misc]
    """Lava's fixed-point LIFReset, watched; protocol, resources and tags are inherited."""

    implements_process = None  # Lava refuses to override an inherited one


class Tie(AbstractProcess):  # type: ignore[misc]
    """Sends zeros to two networks, so that Lava, which runs what is connected, runs both."""

    def __init__(self, *, left: tuple[int, ...], right: tuple[int, ...], name: str) -> None:
        super().__init__(left=left, right=right, name=name)
        self.to_left = OutPort(shape=left)
        self.to_right = OutPort(shape=right)


@implements(proc=Tie, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class TieModel(PyLoihiProcessModel):  # type: ignore[misc]
    """The only model of Tie."""

    to_left: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    to_right: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.zeros = [np.zeros(proc_params[side], np.int32) for side in ("left", "right")]

    def run_spk(self) -> None:
        """Send nothing, in every step."""
        self.to_left.send(self.zeros[0])
        self.to_right.send(self.zeros[1])
