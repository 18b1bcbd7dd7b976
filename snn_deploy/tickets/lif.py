"""Our leaky integrate-and-fire module: forward Euler, decay-input, one scan over all steps.

    v_t = keep v_{t-1} + gain (v_leak + r I_t),   gain = dt / tau,  keep = 1 - gain
    z_t = v_t > v_threshold                        (strict)
    v_t := v_reset   or   v_t - reset_amount       where z_t

This is the equation that every engine and backend of the package obeys; the state at step 0 is
0. Backwards, z_t has the ATan surrogate's derivative and the reset is detached.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from snn_deploy.bridges.spike import Spike, surrogate
from snn_deploy.errors import UsageError
from snn_deploy.tickets import kernels

ResetKind = Literal["value", "subtract"]
Number: TypeAlias = float | Tensor


#: Values of all steps below which starting numba costs more than it saves.
SMALLEST_SCAN = 1 << 16


def compiles(current: Tensor, constants: tuple[Number, ...]) -> bool:
    """Return whether the compiled loops can take these."""
    return (
        current.dtype == torch.float32
        and current.device.type == "cpu"
        and not any(isinstance(value, Tensor) for value in constants)
    )


class _Scan(torch.autograd.Function):  # type: ignore[misc]
    """All steps at once: the same numbers as stepping, without one autograd node per step.

    Returns the spikes and each membrane's distance to its threshold before the reset, which the
    backward pass keeps in any case. Both carry gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        numbers: tuple[Number, ...],
        to_value: bool,
        alpha: float,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        keep, gain, offset, threshold, v_reset, amount = numbers
        ctx.constants = (keep, gain, to_value, alpha)
        # Compiled loops give the same bits, so that it may depend on what ran before.
        large = current.numel() >= SMALLEST_SCAN or kernels.started()
        ctx.compiled = large and compiles(current, numbers)
        if ctx.compiled:
            current = current.contiguous()
            drive, spikes = torch.empty_like(current), torch.empty_like(current)
            flat = (a.flatten(1).numpy() for a in (current, drive, spikes))
            x, d, z = flat
            kernels.kernel(kernels.scan)(x, np.array(numbers, np.float32), to_value, d, z)
            ctx.save_for_backward(drive, spikes)
            return spikes, drive
        # In place where it can be: large populations are bound by memory, not by arithmetic.
        drive = (current * gain).add_(offset)
        spikes = torch.empty_like(drive)
        v = torch.zeros_like(drive[0])
        for t in range(drive.shape[0]):
            v.mul_(keep).add_(drive[t])
            torch.sub(v, threshold, out=drive[t])  # from here on the distance to the threshold
            fired = v > threshold
            spikes[t] = fired
            # The two forms of the reset give the same numbers in _Scan and in LIF.step.
            v = torch.where(fired, v_reset, v) if to_value else v - amount * spikes[t]
        ctx.save_for_backward(drive, spikes)
        return spikes, drive

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, grad_distance: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        distance, spikes = ctx.saved_tensors
        keep, gain, to_value, alpha = ctx.constants
        if ctx.compiled and grad is not None and grad_distance is None:
            out = torch.empty_like(distance)
            flat = (a.flatten(1).numpy() for a in (distance, spikes, grad.contiguous(), out))
            d, z, g, o = flat
            numbers = np.array((keep, gain, math.pi / 2 * alpha, alpha / 2), np.float32)
            kernels.kernel(kernels.scan_back)(d, z, g, numbers, to_value, o)
            return out, None, None, None
        if grad is None:
            grad_v = torch.zeros_like(distance)
        else:
            grad_v = surrogate(distance, alpha).mul_(grad)
        if grad_distance is not None:
            grad_v += grad_distance
        for t in range(grad_v.shape[0] - 2, -1, -1):
            carried = keep * grad_v[t + 1]
            grad_v[t] += carried.mul_(1 - spikes[t]) if to_value else carried
        return grad_v.mul_(gain), None, None, None


class LIF(nn.Module):  # type: ignore[misc]
    """Leaky integrate-and-fire population with a declared step and reset.

    tau_s, dt_s: seconds, 0 < dt_s <= tau_s. r, v_leak, v_threshold, v_reset and reset_amount
    (None: the threshold) are floats, or tensors that broadcast against one step's current
    (then they are buffers of the module). alpha: steepness of the ATan surrogate.
    ``forward`` takes currents (steps, batch, ...) from rest; ``step`` takes one step's current
    and the membrane and returns spikes and the new membrane. Raises UsageError.
    """

    takes_steps = True
    # Called after each ``forward`` with the module, its spikes, and the membranes' distances to
    # the threshold before the reset, both with gradients.
    watch: Callable[[LIF, Tensor, Tensor], None] | None = None
    tau_s: Number
    r: Number
    v_leak: Number
    v_threshold: Number
    v_reset: Number
    reset_amount: Number | None

    def __init__(
        self,
        *,
        tau_s: Number = 2e-3,
        dt_s: float = 1e-3,
        r: Number = 1.0,
        v_leak: Number = 0.0,
        v_threshold: Number = 1.0,
        v_reset: Number = 0.0,
        reset: ResetKind = "value",
        reset_amount: Number | None = None,
        alpha: float = 2.0,
    ) -> None:
        super().__init__()
        smallest = float(torch.as_tensor(tau_s).min())
        if not 0 < dt_s <= smallest:
            raise UsageError(
                "the step must be positive and no longer than the membrane time constant",
                used=f"dt_s = {dt_s:g}, tau_s = {smallest:g}",
                hint="tau_s = 2 * dt_s halves the membrane in each step",
            )
        if reset not in ("value", "subtract"):
            raise UsageError(f"unknown reset {reset!r}", hint='"value" or "subtract"')
        self.dt_s = dt_s
        self.reset = reset
        self.alpha = alpha
        values = {
            "tau_s": tau_s,
            "r": r,
            "v_leak": v_leak,
            "v_threshold": v_threshold,
            "v_reset": v_reset,
            "reset_amount": reset_amount,
        }
        for name, value in values.items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value.detach().clone())
            else:
                setattr(self, name, value)

    def coefficients(self) -> tuple[Number, Number, Number]:
        """Return (keep, gain of the current, offset), as the engines compute them."""
        a = self.dt_s / self.tau_s
        return 1 - a, a * self.r, a * self.v_leak

    def numbers(self) -> tuple[Number, ...]:
        """Return (keep, gain, offset, threshold, v_reset, reset_amount), all that a scan takes."""
        amount = self.v_threshold if self.reset_amount is None else self.reset_amount
        return (*self.coefficients(), self.v_threshold, self.v_reset, amount)

    def forward(self, current: Tensor) -> Tensor:
        """Return the spikes (steps, batch, ...), 0 or 1, for currents of the same shape."""
        if current.dtype in (torch.bfloat16, torch.float16):  # of layers under autocast
            current = current.float()
        spikes: Tensor
        to_value = self.reset == "value"
        spikes, distance = _Scan.apply(current, self.numbers(), to_value, self.alpha)
        if self.watch is not None:
            self.watch(self, spikes, distance)
        return spikes

    def step(self, current: Tensor, v: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (spikes, membrane after reset) of one step; ``v`` None means at rest, 0."""
        return self._fired(self._charged(current, v))

    def _charged(self, current: Tensor, v: Tensor | None) -> Tensor:
        """Return the membrane before the reset."""
        keep, gain, offset = self.coefficients()
        v = torch.zeros_like(current) if v is None else v
        return keep * v + (current * gain + offset)

    def _fired(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the spikes of a membrane before its reset, and the membrane after it."""
        *_, threshold, v_reset, amount = self.numbers()
        z: Tensor = Spike.apply(v - threshold, self.alpha)
        fired = z.detach()
        if self.reset == "value":
            return z, v * (1 - fired) + v_reset * fired
        return z, v - amount * fired

    def ticket_node(self) -> dict[str, Any]:
        """Return the node of the ticket format: numbers, and tensors where they are buffers."""
        node: dict[str, Any] = {"op": "LIF", "dt_s": self.dt_s, "reset": self.reset}
        for name in ("tau_s", "r", "v_leak", "v_threshold", "v_reset"):
            node[name] = getattr(self, name)
        if self.reset == "subtract" and self.reset_amount is not None:
            node["reset_amount"] = self.reset_amount
        return node

    def extra_repr(self) -> str:
        """Return the constants that ``print(module)`` shows."""
        shown = {k: v for k, v in self.ticket_node().items() if not isinstance(v, Tensor)}
        return ", ".join(f"{k}={v}" for k, v in shown.items() if k != "op")
