"""Whether a network fits devices: each family's own usage against each device's limits."""

from __future__ import annotations

from collections.abc import Sequence

from snn_deploy.backends.base import Options
from snn_deploy.backends.prepare import prepare
from snn_deploy.backends.registry import registered, target
from snn_deploy.budget.findings import Fit, findings, verdict
from snn_deploy.budget.memory import microcontroller_usage
from snn_deploy.device.load import load, names
from snn_deploy.device.model import Device
from snn_deploy.device.usage import Usage
from snn_deploy.errors import UnsupportedError
from snn_deploy.ir.network import Network
from snn_deploy.passes.quantize import quantize


def fits(
    network: Network, devices: Sequence[str] = (), *, margin: float = 0.0, bits: int | None = None
) -> dict[str, tuple[str, Fit]]:
    """Return device name -> (title, verdict), for the named devices or all that have limits.

    A device that was not named and that the network cannot be lowered for is left out; for a
    named one the UnsupportedError stands.
    """
    result: dict[str, tuple[str, Fit]] = {}
    for name in devices or names():
        device = load(name)
        if not devices and not device.limits:
            continue
        try:
            usage = usage_on(network, device, margin=margin, bits=bits)
        except UnsupportedError:
            if devices:
                raise
            continue
        result[device.name] = (device.title, verdict(findings(usage, device, margin), device.name))
    return result


def usage_on(
    network: Network, device: Device, *, margin: float = 0.0, bits: int | None = None
) -> Usage:
    """Return what ``network`` uses of ``device``; UnsupportedError for an unknown family."""
    if device.family == "microcontroller":
        from snn_deploy.backends.arithmetics import FPGA, LOIHI

        # The 16-bit membrane of a small integer engine, or two 32-bit states for CubaLIF.
        current = any(p.neuron.step(network.dt_s).has_current for p in network.computing())
        return microcontroller_usage(
            quantize(network, LOIHI if current else FPGA, bits=bits), device, margin
        )
    for entry in registered():
        backend = target(entry.name)
        if backend.family == device.family:
            program = prepare(network, backend, Options(bits=bits, device=device))
            return backend.usage(program)
    raise UnsupportedError(
        f"no target lowers for the family {device.family!r}",
        where=device.name,
        hint="snn-deploy targets list",
    )
