"""From a folded network to a target's program: quantize in its Arithmetic, then lower."""

from __future__ import annotations

from dataclasses import replace

from snn_deploy.backends.base import Options, Program, Target
from snn_deploy.device.load import load
from snn_deploy.ir.network import Network
from snn_deploy.ir.quantized import Arithmetic
from snn_deploy.passes.bias_neuron import with_bias_neurons
from snn_deploy.passes.quantize import preferred, quantize

EXPONENTS = "exponents"  # a setting of targets whose arithmetic has them


def prepare(
    network: Network,
    target: Target,
    options: Options | None = None,
    arithmetic: Arithmetic | None = None,
) -> Program:
    """Return ``target``'s program for a folded network.

    arithmetic: run a float target in another target's integers. Raises UnsupportedError,
    located, for what cannot be quantized or lowered.
    """
    options = options or Options()
    if options.device is None:
        options = replace(options, device=load(target.default_device))
    integers = target.arithmetic() or arithmetic
    if integers is None:
        return target.lower(network, None, options)
    analogue = options.analogue or preferred(integers)
    if integers.current:
        network = with_bias_neurons(network, injected=analogue == "bias")
    qnet = quantize(
        network,
        integers,
        bits=options.bits,
        analogue=analogue,
        exponents=bool((options.settings or {}).get(EXPONENTS)),
        observed=options.observed,
    )
    return target.lower(network, qnet, options)
