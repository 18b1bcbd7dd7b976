"""Makes lava-nc 0.10.0 importable on Python 3.11 to 3.13 and right on numpy 2.

Nothing here touches an equation: Lava's sources stay as they are, three spots that newer
Pythons and numpys reject are replaced when Lava is loaded. On Python 3.10 with numpy 1 all
conditions below are false and Lava runs unmodified.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
from typing import Any

import numpy as np

VAR_MODEL = "lava.magma.compiler.var_model"


def install() -> None:
    """Import Lava's patched spots; call before any other import of Lava."""
    numpy_version = tuple(int(part) for part in np.__version__.split(".")[:2])
    if sys.version_info >= (3, 11):  # noqa: UP036 (an unmodified Lava runs on 3.10)
        _import_with_hashable_dataclasses()
    if numpy_version >= (2, 1):
        _reshape_without_newshape()
    if numpy_version >= (2, 0):
        _convolve_with_python_ints()


def _import_with_hashable_dataclasses() -> None:
    """Python 3.11 refuses unhashable instances as field defaults, which one module has."""
    original = dataclasses.dataclass

    def dataclass(cls: Any = None, /, **options: Any) -> Any:
        def decorate(target: Any) -> Any:
            if target.__module__ == VAR_MODEL:
                options.setdefault("unsafe_hash", True)
            return original(target, **options)

        return decorate if cls is None else decorate(cls)

    dataclasses.dataclass = dataclass
    try:
        importlib.import_module(VAR_MODEL)
    finally:
        dataclasses.dataclass = original


def _reshape_without_newshape() -> None:
    """numpy 2.4 dropped ``newshape``, which reshaped ports pass; 2.1 brought ``shape``."""
    ports: Any = importlib.import_module("lava.magma.core.process.ports.ports")

    def forward(port: Any) -> Any:
        return functools.partial(np.reshape, shape=port.shape)

    def backward(port: Any) -> Any:
        return functools.partial(np.reshape, shape=port.old_shape)

    ports.ReshapePort.get_transform_func_fwd = forward
    ports.ReshapePort.get_transform_func_bwd = backward


def _convolve_with_python_ints() -> None:
    """numpy 2 keeps int8 in ``width + 2 * padding``, which overflows for images over 127."""
    utils: Any = importlib.import_module("lava.proc.conv.utils")
    original = utils.conv

    def conv(input_: Any, weight: Any, *geometry_and_groups: Any) -> Any:
        *geometry, groups = geometry_and_groups
        return original(input_, weight, *(tuple(map(int, g)) for g in geometry), int(groups))

    utils.conv = conv
