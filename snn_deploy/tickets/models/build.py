"""``build``: a network by its name."""

from __future__ import annotations

from typing import Any

from torch import nn

from snn_deploy.errors import UsageError
from snn_deploy.tickets.models import resnet, small, spikformer, vgg

# Published networks, and the membrane time constant of their neurons in steps.
PUBLISHED = {"vgg9": vgg.vgg9, "vgg16": vgg.vgg16, "resnet19": resnet.resnet19}
PUBLISHED_TAU = 4 / 3
# What takes images as rows of pixels.
FLAT = ("mlp", "recurrent")
TRANSFORMER = "spikformer-tiny"
ARCHITECTURES = ("mlp", "conv", "recurrent", *PUBLISHED, TRANSFORMER)


def build(
    arch: str,
    input_shape: tuple[int, ...],
    classes: int,
    *,
    hidden: tuple[int, ...] | None = None,
    dt_s: float = 1e-3,
    tau_s: float | None = None,
    v_threshold: float = 1.0,
) -> nn.Module:
    """Return an untrained network whose last population has one neuron per class.

    arch: "mlp" (hidden: widths of the hidden layers), "recurrent" (the same, each hidden
    population fed by its own spikes of the step before), or "conv" (conv, pool, conv, pool, fully
    connected; hidden: channels of the two convolutions), or one of the published "vgg9", "vgg16"
    and "resnet19" (hidden: channels of the first convolution, of which all others are multiples),
    or "spikformer-tiny" (hidden: width and number of blocks), whose samples have a keep channel
    behind the others, see ``tickets.patches``.
    input_shape: one sample's shape, (C, H, W) for the convolutional ones: H and W of 4 or more for
    conv, 8 for vgg9 and resnet19, 16 for vgg16; pools leave out an odd row or column. tau_s: by
    default 2 dt_s, the published ones 4/3 dt_s. Weights come from torch's global generator. Raises
    UsageError.
    """
    tau = PUBLISHED_TAU if arch in PUBLISHED else 2.0
    neuron: dict[str, Any] = {
        "dt_s": dt_s,
        "tau_s": tau * dt_s if tau_s is None else tau_s,
        "v_threshold": v_threshold,
    }
    if arch in PUBLISHED:
        return PUBLISHED[arch](input_shape, classes, (64,) if hidden is None else hidden, neuron)
    if arch == "mlp":
        return small.mlp(input_shape, classes, (256, 128) if hidden is None else hidden, neuron)
    if arch == "recurrent":
        widths = (256,) if hidden is None else hidden
        return small.mlp(input_shape, classes, widths, neuron, recurrent=True)
    if arch == TRANSFORMER:
        sizes = (64, 2) if hidden is None else hidden
        return spikformer.spikformer(input_shape, classes, sizes, neuron)
    if arch == "conv":
        return small.conv(input_shape, classes, (32, 64) if hidden is None else hidden, neuron)
    raise UsageError(
        f"unknown architecture {arch!r}",
        hint=f"one of {', '.join(ARCHITECTURES)}, or file.py:factory",
    )
