"""The Arithmetic of each built-in target, in one place so that any engine can run any of them."""

from __future__ import annotations

from snn_deploy.ir.quantized import Arithmetic

#: Loihi as Lava 0.10 executes it: u wraps at 24 bits, v saturates, decays round toward zero,
#: mixed-sign 8-bit weights are even, one step of latency per synapse layer. Resets other than to 0
#: and first membranes other than 0 need a programmable neuron, which Loihi 1 has not.
LOIHI = Arithmetic(
    name="loihi",
    weight_bits=8,
    weight_grid="loihi",
    shift_bits=(6, 6),
    state_bits=24,
    state_min=-(1 << 23) + 1,
    state_max=(1 << 23) - 1,
    current=True,
    decay_bits=12,
    threshold_bits=17,
    threshold_shift=6,
    bias_bits=13,
    bias_shift=6,
    resets=("value", "subtract"),
    hop_steps=1,
    max_delay_steps=62,
    max_exponent=7,
    analogue=("bias", "graded"),
    initial_state=True,
)

#: The accelerator: 8-bit weights, sums that cannot overflow, a 16-bit membrane that saturates.
FPGA = Arithmetic(
    name="fpga",
    weight_bits=8,
    weight_grid="symmetric",
    shift_bits=(0, 7),
    state_bits=24,
    state_min=-(1 << 15),
    state_max=(1 << 15) - 1,
    current=True,
    decay_bits=12,
    threshold_bits=15,
    threshold_shift=0,
    bias_bits=16,
    bias_shift=0,
    resets=("value", "subtract"),
    hop_steps=0,
    max_delay_steps=62,
    max_exponent=0,
    analogue=("graded",),
    initial_state=True,
)

ARITHMETICS: dict[str, Arithmetic] = {a.name: a for a in (LOIHI, FPGA)}
