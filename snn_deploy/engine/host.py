"""What the host does with a directly coded input before a target of integers sees it."""

from __future__ import annotations

import numpy as np

from snn_deploy.engine.loop import Inputs, by_input, check_input, delayed
from snn_deploy.engine.operators import Operator, chain_matrix, split_delays
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.quantized import QNetwork

_SIMULATOR_BITS = 16


def graded_input(qnet: QNetwork, x: Inputs) -> dict[str, Array]:
    """Return the whole numbers that spikes carry, by input, each as ``x`` (samples, steps, ...)."""
    return {
        name: np.rint(np.asarray(values, np.float64) * qnet.levels[name])
        for name, values in by_input(qnet.network, x).items()
    }


class Host:
    """Adds up the currents of a QNetwork's injections; made once, and used on many batches."""

    def __init__(self, qnet: QNetwork) -> None:
        self.qnet = qnet
        projections = {p.name: p for p in qnet.real.projections}
        self._parts: dict[str, list[tuple[str, int, Operator]]] = {}
        for name, injection in qnet.injections.items():
            edges = [projections[edge] for edge in injection.projections]
            self._parts[name] = [
                (edge.pre, delay, Operator(part))
                for edge in edges
                for delay, part in split_delays(chain_matrix(qnet.real, edge), edge.delay_steps)
            ]

    def currents(self, x: Inputs) -> dict[str, Array]:
        """Return what the host adds to membranes, by population, int64 (samples, steps, n).

        In the arithmetic's bias units. Raises UnsupportedError, located, where one leaves the bias
        register; a network whose file held integers may use all that the simulator keeps of it.
        """
        if not self._parts:
            return {}
        values = check_input(self.qnet.real, x)
        made: dict[str, Array] = {}
        for name, parts in self._parts.items():
            injection = self.qnet.injections[name]
            total: Array = injection.bias
            for pre, delay, operator in parts:
                given = delayed(np.asarray(values[pre], np.float64), delay)
                current = operator.currents(given.reshape(-1, given.shape[2]))
                total = total + current.reshape(*given.shape[:2], -1)
            if injection.keep is not None:
                total = _kept(total, injection.keep)
            made[name] = np.rint((total + injection.leak) * injection.scale).astype(np.int64)
            _check_range(self.qnet, name, made[name])
        return made


def _kept(current: Array, keep: Array) -> Array:
    """Return a synaptic current that keeps the share ``keep`` of itself in each step."""
    result = current.copy()
    for t in range(1, current.shape[1]):
        result[:, t] += keep * result[:, t - 1]
    return result


def _check_range(qnet: QNetwork, name: str, current: Array) -> None:
    bits = qnet.arithmetic.bias_bits if qnet.real.grid is None else _SIMULATOR_BITS
    low, high = int(current.min()), int(current.max())
    if -(1 << (bits - 1)) <= low and high < 1 << (bits - 1):
        return
    raise UnsupportedError(
        f"a current that the host injects does not fit the {bits}-bit bias register",
        where=qnet.real.where(name),
        used=f"{low:,} to {high:,}, range {-(1 << (bits - 1)):,} to {(1 << (bits - 1)) - 1:,}",
        hint="scale the input to values between 0 and 1, or give samples of it: --calibrate X.npz",
    )
