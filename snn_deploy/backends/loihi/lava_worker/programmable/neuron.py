"""A LIF neuron whose reset and first membrane are programmed: Loihi 2 and the simulator only.

This model is ours, not Lava's. Currents, leak, bias and threshold are those of Lava's fixed-point
LIF, which it inherits; where a neuron fires, its membrane becomes v_reset, or loses reset_amount
and saturates; a sample starts at v_init. Loihi 1 has no such neuron, and no public chip program
for Loihi 2 is claimed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements
from lava.proc.lif.models import PyLifResetModelBitAcc
from lava.proc.lif.process import LIFReset

from lava_worker.recording import Watched


class ProgrammedLif(LIFReset):  # type: ignore[misc]
    """LIFReset with ``program``: reset ("value" or "subtract"), v_reset, reset_amount, v_init.

    The last three are integers, or arrays in Lava's shape, in units of v.
    """

    def __init__(self, *, record: dict[str, Any], program: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.proc_params["record"] = record
        self.proc_params["program"] = program


@implements(proc=ProgrammedLif)
class ProgrammedLifModel(Watched, PyLifResetModelBitAcc):  # type: ignore[misc]
    """The only model of ProgrammedLif, watched."""

    implements_process = None  # Lava refuses to override an inherited one

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.program = proc_params["program"]

    def subthr_dynamics(self, activation_in: Any) -> None:
        """Start the sample's membrane where the program says, then integrate as Lava does."""
        if self.time_step % self.reset_interval == self.reset_offset:
            self.v[...] = self.program["v_init"]
        super().subthr_dynamics(activation_in)

    def reset_voltage(self, spike_vector: Any) -> None:
        """Reset as programmed; saturate as v does."""
        self.fired = spike_vector
        after = self.program["v_reset"]
        if self.program["reset"] == "subtract":
            end = self.max_uv_val - 1
            after = np.clip(self.v - self.program["reset_amount"], -end, end)
        self.v[...] = np.where(spike_vector, after, self.v)
