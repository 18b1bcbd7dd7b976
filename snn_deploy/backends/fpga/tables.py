"""Parameters of neurons as the sweep reads them."""

from __future__ import annotations

import numpy as np

from snn_deploy.backends.fpga.program import Banks, Table
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.arrays import Array, adopt
from snn_deploy.ir.network import per_neuron
from snn_deploy.ir.quantized import QNetwork, QPopulation


def tables_of(
    q: QPopulation, layout: Banks, shape: tuple[int, ...], qnet: QNetwork, where: str
) -> tuple[Table, ...]:
    """Return the parameters of a population; UnsupportedError for one beyond its register."""
    a = qnet.arithmetic
    one = 1 << a.decay_bits
    silent = (1 << a.threshold_bits) - 1  # a membrane never gets above it
    none = np.zeros((), np.int64)
    back = none
    if q.threshold is not None:
        back = q.reset_amount if q.reset == "subtract" else q.v_reset
    width = a.state_max.bit_length() + 1
    wanted = (
        ("threshold", silent if q.threshold is None else q.threshold, a.threshold_bits, False),
        ("bias", none if q.bias is None else q.bias, a.bias_bits, True),
        ("keep_u", one - np.asarray(q.decay_u), a.decay_bits + 1, False),
        ("keep_v", one - np.asarray(q.decay_v), a.decay_bits + 1, False),
        ("reset", back, width, True),
        ("start", q.v_init, width, True),
    )
    tables = []
    for name, value, width, signed in wanted:
        full = per_neuron(np.asarray(value), shape).astype(np.int64)
        low, high = (
            (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
        )
        if int(full.min()) < low or int(full.max()) > high:
            worst = int(full[np.argmax(np.abs(full))])
            raise UnsupportedError(
                f"{name} does not fit its register",
                where=where,
                used=f"{worst:,}, range {low:,}..{high:,}",
                hint="rescale the layer, so that its values are comparable to its threshold",
            )
        tables.append(_table(name, full, width, layout))
    return tuple(tables)


def _table(name: str, full: Array, width: int, layout: Banks) -> Table:
    """Return a parameter as one value, a word per slot, or a word per address."""
    by_channel = full.reshape(layout.channels, layout.pixels)
    if bool(np.all(full == full[0])):
        return Table(name=name, bits=width, per="layer", words=adopt(full[:1].reshape(1, 1).copy()))
    if layout.pixels > 1 and bool(np.all(by_channel == by_channel[:, :1])):
        memory = np.zeros((layout.per_bank, layout.banks), np.int64)
        memory[layout.perm // layout.banks, layout.perm % layout.banks] = by_channel[:, 0]
        return Table(name=name, bits=width, per="slot", words=adopt(memory))
    memory = np.zeros((layout.words, layout.banks), np.int64)
    bank, address = layout.places()
    memory[address, bank] = full
    return Table(name=name, bits=width, per="word", words=adopt(memory))
