"""``--arch``: the module that a plain state_dict belongs to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from snn_deploy.errors import InputError, UsageError
from snn_deploy.frontends.state import module_with_example
from snn_deploy.tickets.models.build import ARCHITECTURES, FLAT, TRANSFORMER, build


def module_from_arch(
    spec: str,
    state: Mapping[str, Any] | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> tuple[nn.Module, Tensor]:
    """Return the module that ``spec`` names and an example of one step's input, batch first.

    spec: one of ``ARCHITECTURES`` (sizes are read off the state_dict ``state``), or
    "file.py:factory", which runs the user's own file. input_shape: of one sample; needed where
    neither the factory nor the state_dict tells, as with vgg16 and resnet19, whose weights are
    the same for several sizes of images. Raises UsageError and InputError.
    """
    if spec in ARCHITECTURES:
        if state is None:
            raise UsageError(f"{spec} takes its sizes from a state_dict, and none was given")
        return _built_in(spec, {k: tuple(v.shape) for k, v in state.items()}, input_shape)
    if ":" not in spec:
        raise UsageError(
            f"unknown architecture {spec!r}",
            hint=f"{', '.join(ARCHITECTURES)}, or FILE.py:FACTORY",
        )
    return module_with_example(spec, input_shape)


def _built_in(
    spec: str, shapes: Mapping[str, tuple[int, ...]], input_shape: tuple[int, ...] | None
) -> tuple[nn.Module, Tensor]:
    # torch.nn.utils.prune renames a weight; its shape is the same.
    shapes = {k.removesuffix("_orig"): s for k, s in shapes.items()}
    try:
        hidden, classes, shape = _sizes(spec, shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as err:
        raise InputError(
            f"the state_dict is not one of the {spec} architecture",
            used=f"keys {', '.join(sorted(shapes)[:6]) or 'none'}",
            hint="for a network of your own: --arch FILE.py:FACTORY",
        ) from err
    shape = input_shape or shape
    if shape is None:
        raise UsageError(
            f"the weights of {spec} do not tell the size of its images",
            hint="--input-shape C,H,W, such as 3,32,32 for CIFAR-10",
        )
    return build(spec, shape, classes, hidden=hidden), torch.zeros(1, *shape)


def _sizes(
    spec: str, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[int, ...], int, tuple[int, ...] | None]:
    """Return (hidden, classes, input shape or None where several are possible)."""
    if spec in FLAT:
        layers = [f"fc{i}.weight" for i in range(1, len(shapes) + 1)]
        sizes = [shapes[name] for name in layers if name in shapes]
        widths = tuple(s[0] for s in sizes)
        return widths[:-1], widths[-1], (sizes[0][1],)
    if spec == TRANSFORMER:
        width = shapes["stem.project.main.conv.weight"][0]
        blocks = sum(name.endswith(".q.main.conv.weight") for name in shapes)
        return (width, blocks), shapes["head.fc.weight"][0], None
    first = shapes["conv1.weight"]
    if spec == "conv":
        hidden = (first[0], shapes["conv2.weight"][0])
        classes, features = shapes["fc.weight"]
        side = 4 * math.isqrt(features // hidden[1])
        return hidden, classes, (first[1], side, side)
    if spec == "vgg9":
        side = 8 * math.isqrt(shapes["fc1.weight"][1] // shapes["conv7.weight"][0])
        return first[:1], shapes["fc2.weight"][0], (first[1], side, side)
    return first[:1], shapes["fc.weight" if spec == "vgg16" else "fc2.weight"][0], None
