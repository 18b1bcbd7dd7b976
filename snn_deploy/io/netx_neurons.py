"""The neurons of a ``.net`` file: Lava's fixed-point LIF as our neuron types."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from snn_deploy.errors import InputError, UnsupportedError
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.io.netx_values import number, real, text, whole
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.neurons import IF, LI, LIF, CubaLI, CubaLIF, Integrator, Neuron
from snn_deploy.ir.synapses import Shape
from snn_deploy.ir.unit_gain import unit_gain

FULL_DECAY = 4096
NEVER_FIRES = 1 << 17  # as a threshold, shifted: beyond what a membrane reaches


def neuron_of(layer: dict[str, Any], shape: Shape, bias: Array | None, dt_s: float) -> Neuron:
    """Return the neurons of a layer.

    bias: a constant added to v in every step, 0-d, per channel, or of ``shape``. Raises InputError
    and UnsupportedError.
    """
    given = layer.get("neuron")
    if given is None:
        # netx's default: the current is never forgotten and v shows it, never firing.
        if np.any(real(layer.get("bias", 0), "bias")):
            raise UnsupportedError(
                "a bias into a layer without neurons is not read: netx adds it once only",
                where="bias",
                hint="give the layer neurons, or leave its bias out",
            )
        return Integrator(r=np.asarray(1.0 / dt_s))
    if not isinstance(given, dict):
        raise InputError("the neuron is not a group", hint="export the network again")
    kind = text(given, "type")
    if kind not in ("CUBA", "LOIHI"):
        raise UnsupportedError(
            f"neurons of type {kind!r} are not read",
            hint="CUBA (or LOIHI) neurons are; sigma-delta and resonators have no LIF form",
        )
    for key, plain in (("gradedSpike", 0), ("messageBits", 0)):
        if key in given and number(given[key], f"neuron/{key}") != plain:
            raise UnsupportedError(
                "spikes that carry a value are not read", hint=f"export with {key} = {plain}"
            )
    refractory = given.get("refDelay")
    if refractory is not None and number(refractory, "neuron/refDelay") > 1:
        warnings.warn(
            "refDelay is ignored, as netx ignores it: Lava's LIF has no refractory time",
            SnnDeployWarning,
            2,
        )
    u, v = (_decay(given, key, shape) for key in ("iDecay", "vDecay"))
    threshold = _per_neuron(given, "vThMant", shape)
    if bool(np.any(threshold < 0)):
        raise InputError("a threshold is negative", where="neuron/vThMant", hint="0 or more")
    fires = not bool(np.all(threshold >= NEVER_FIRES))
    return _typed(u, v, threshold if fires else None, bias, dt_s)


def _check_no_bias(bias: Array | None) -> None:
    if bias is not None and bool(np.any(bias)):
        raise UnsupportedError(
            "a bias per neuron into neurons without a leak is not read",
            hint="give the neurons a vDecay above 0, or one bias per channel",
        )


def _typed(u: Array, v: Array, threshold: Array | None, bias: Array | None, dt: float) -> Neuron:
    firing: dict[str, Any] = {}
    if threshold is not None:
        firing = {"v_threshold": threshold, "v_reset": np.zeros(()), "reset": "value"}
    plain_current = bool(np.all(u == FULL_DECAY))
    leaks = bool(np.all(v > 0))
    if not leaks and not (plain_current and not np.any(v)):
        raise UnsupportedError(
            "a membrane without leak behind a synaptic current is not read",
            where="neuron/vDecay",
            hint="set vDecay above 0 for all neurons of the layer, or iDecay to 4096",
        )
    if not leaks:
        _check_no_bias(bias)
        if threshold is None:
            return Integrator(r=np.asarray(1.0 / dt))
        return IF(r=np.ones(()), r_unit="per-step", **firing)
    if not plain_current and not bool(np.all(u > 0)):
        raise UnsupportedError(
            "a synaptic current that never decays is not read",
            where="neuron/iDecay",
            hint="set iDecay above 0",
        )
    share = v / FULL_DECAY
    leak: Any = np.zeros(()) if bias is None else bias
    if np.ndim(share) and np.ndim(leak):
        forms = {np.shape(share), np.shape(leak)}
        if len(forms) > 1:
            leak = leak.reshape(-1, *[1] * (np.ndim(share) - np.ndim(leak)))
            leak = np.broadcast_to(leak, np.shape(share))
    tau, r = unit_gain(share, dt)
    shared = {"r": r, "v_leak": leak / share}
    if plain_current:
        kind: Any = LI if threshold is None else LIF
        return kind(tau_s=tau, **shared, **firing)  # type: ignore[no-any-return]
    kind = CubaLI if threshold is None else CubaLIF
    tau_syn, w_in = unit_gain(u / FULL_DECAY, dt)
    neuron: Neuron = kind(tau_syn_s=tau_syn, tau_mem_s=tau, w_in=w_in, **shared, **firing)
    return neuron


def _decay(given: dict[str, Any], key: str, shape: Shape) -> Array:
    decay = _per_neuron(given, key, shape)
    if bool(np.any((decay < 0) | (decay > FULL_DECAY))):
        raise InputError(
            f"{key} lies outside 0..{FULL_DECAY}",
            where=f"neuron/{key}",
            used=f"{float(decay.min()):g}..{float(decay.max()):g}",
            hint="decays are shares of 4096",
        )
    return decay


def _per_neuron(given: dict[str, Any], key: str, shape: Shape) -> Array:
    """Return a parameter 0-d or of the layer's shape; stored (W, H, C) for an image."""
    if key not in given:
        raise InputError(f"the neuron has no {key}", hint="export the network again")
    value = whole(given[key], f"neuron/{key}")
    if value.size == 1:
        return value.reshape(())
    if value.shape == shape[::-1]:
        return value.transpose()
    raise InputError(
        f"{key} of shape {value.shape} does not fit a layer of shape {shape}",
        where=f"neuron/{key}",
        hint="one for all, or one per neuron in the order (W, H, C)",
    )
