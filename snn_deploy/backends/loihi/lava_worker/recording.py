"""What our models add to Lava's neurons: which step belongs to which sample, and a probe.

The arithmetic is Lava's own: a step runs Lava's ``run_spk``, watched. Reading Vars through Lava
instead would cost about 10 us per element.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np


class Window:
    """Which of Lava's steps, counted from 1, is which row of a recording.

    Sample s runs its steps from Lava's step ``first + s * (steps + gap)`` on.
    """

    def __init__(self, *, first: int, samples: int, steps: int, gap: int) -> None:
        self.first, self.samples, self.steps, self.gap = first, samples, steps, gap

    @property
    def rows(self) -> int:
        """Steps of all samples."""
        return self.samples * self.steps

    def row(self, time_step: int) -> int | None:
        """Return sample * steps + step, or None between samples, before and after them."""
        sample, step = divmod(time_step - self.first, self.steps + self.gap)
        inside = 0 <= sample < self.samples and step < self.steps
        return sample * self.steps + step if inside else None


class Watched:
    """Mixed into a fixed-point LIFReset model: window, injected currents, recordings.

    ``record`` of the Process's parameters: window (see Window); files, "spikes", "u" and "v" to
    .npy paths, rows in the C order of the reverse of Lava's shape; currents, a .npy path of such
    rows, or None.
    """

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        record = proc_params["record"]
        self.window = Window(**record["window"])
        self.files: dict[str, str] = record["files"]
        self.sinks: dict[str, BinaryIO] = {}
        self.fired: Any = None
        path = record["currents"]
        self.currents = None if path is None else np.load(path, mmap_mode="r", allow_pickle=False)

    def reset_voltage(self: Any, spike_vector: Any) -> None:
        """Keep the spikes that were just found, then reset as the model does."""
        self.fired = spike_vector
        super().reset_voltage(spike_vector)  # type: ignore[misc]

    def run_spk(self: Any) -> None:
        """One step of the model, then one row of each recording."""
        row = self.window.row(self.time_step)
        if row is None and self.window.gap:
            # Held still: what arrives belongs to no step, and nothing must leave.
            self.a_in.recv()
            self.s_out.send(np.zeros(self.v.shape, np.int32))
            return
        if self.currents is not None and row is not None:
            shape = self.v.shape[::-1]
            self.bias_mant[...] = self.currents[row].reshape(shape).transpose()
        super().run_spk()  # type: ignore[misc]
        if row is not None:
            self._write(row)

    def _write(self: Any, row: int) -> None:
        for kind, path in self.files.items():
            values = self.fired if kind == "spikes" else getattr(self, kind)
            dtype = np.dtype(np.uint8 if kind == "spikes" else np.int32)
            if row == 0:
                # Plain appends, not a memory map: a full disk is then an exception, not SIGBUS.
                sink = self.sinks[kind] = open(path, "xb")  # noqa: SIM115
                header = {
                    "descr": np.lib.format.dtype_to_descr(dtype),
                    "fortran_order": False,
                    "shape": (self.window.rows, values.size),
                }
                np.lib.format.write_array_header_1_0(sink, header)
            self.sinks[kind].write(values.transpose().astype(dtype).tobytes())
            if row == self.window.rows - 1:
                self.sinks[kind].close()
