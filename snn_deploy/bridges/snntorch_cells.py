"""A population as snnTorch's own neuron, for crosscheck: gains go into its input current."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from snn_deploy.bridges.plain_cell import parameter, plain_cell
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network, Population, fitted
from snn_deploy.ir.neurons import Step

_HINT = "the other frameworks and the float engine run it"


class SnnTorchCell(nn.Module):  # type: ignore[misc]
    """snnTorch's Leaky or Synaptic, its state kept outside of it.

    shows_membrane: False where the neuron shows its membrane before the reset, which is another
    quantity than ours.
    """

    def __init__(
        self, neuron: Any, step: Step, shape: tuple[int, ...], shows_membrane: bool
    ) -> None:
        super().__init__()
        self.neuron, self._shows_membrane = neuron, shows_membrane
        self._current, self._spikes = step.has_current, step.threshold is not None
        gain = fitted(step.gain_v, shape) * (fitted(step.gain_u, shape) if step.has_current else 1)
        for name, value in (("gain", gain), ("offset", step.offset), ("v_init", step.v_init)):
            self.register_buffer(name, parameter(value, shape))

    def start(self, zeros: Tensor) -> tuple[Tensor, Tensor]:
        """Return (current, membrane) before step 0."""
        return zeros, zeros + self.v_init

    def forward(self, current: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        """Return snnTorch's spikes, or its membrane for a population that never spikes."""
        drive = current * self.gain + self.offset
        i, v = state
        if self._current:
            spikes, i, v = self.neuron(drive, i, v)
        else:
            spikes, v = self.neuron(drive, v)
        return (spikes.to(drive.dtype) if self._spikes else v), (i, v)

    def membrane(self, state: tuple[Tensor, Tensor]) -> Tensor | None:
        """Return v where it is the one after the reset."""
        return state[1] if self._shows_membrane else None


def snntorch_cell(network: Network, population: Population) -> nn.Module:
    """Return a population's cell; UnsupportedError where snnTorch computes something else."""
    import snntorch

    plain = plain_cell(population)
    if plain is not None:
        return plain
    step, shape = population.neuron.step(network.dt_s), population.shape
    where = network.where(population.name)
    keep = np.asarray(step.keep_v)
    if step.has_current and bool(np.any(step.offset != 0)):
        raise UnsupportedError("snnTorch's Synaptic has no leak potential", where=where, hint=_HINT)

    # A population that never spikes: no reset, and its spikes are not read.
    how: dict[str, Any] = {"reset_mechanism": "none"}
    if step.threshold is not None:
        _check_start(step, where)
        how = {"threshold": parameter(step.threshold, shape), **_reset(step, keep, where)}
    if step.has_current:
        neuron = snntorch.Synaptic(
            alpha=parameter(step.keep_u, shape), beta=parameter(step.keep_v, shape), **how
        )
    else:
        neuron = snntorch.Leaky(beta=parameter(step.keep_v, shape), **how)
    return SnnTorchCell(neuron, step, shape, how["reset_mechanism"] != "subtract")


def _check_start(step: Step, where: str) -> None:
    assert step.threshold is not None
    if bool(np.any(step.v_init > step.threshold)) or bool(np.any(step.threshold < 0)):
        raise UnsupportedError(
            "snnTorch resets a membrane that starts above its threshold", where=where, hint=_HINT
        )


def _reset(step: Step, keep: Array, where: str) -> dict[str, Any]:
    """Return snnTorch's arguments for a reset with the same effect."""
    assert step.threshold is not None
    if step.reset == "value":
        if bool(np.any(step.v_reset != 0)):
            raise UnsupportedError("snnTorch resets to 0 only", where=where, hint=_HINT)
        # The delayed form fires the same, but Synaptic's drops the next step's input too, and
        # both show the membrane before the reset.
        return {"reset_mechanism": "zero", "reset_delay": False}
    if not np.any(step.reset_amount):
        return {"reset_mechanism": "none"}
    amount, threshold = np.broadcast_arrays(step.reset_amount * keep, step.threshold)
    # Without the delay it subtracts the threshold, but not twice in a row: another equation.
    if not np.array_equal(amount, threshold):
        raise UnsupportedError(
            "snnTorch subtracts the threshold after the decay, which is threshold/beta before it",
            where=where,
            used="this neuron subtracts another amount",
            hint=_HINT,
        )
    return {"reset_mechanism": "subtract"}
