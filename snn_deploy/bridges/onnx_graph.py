"""An ONNX model under construction: unique names, constants, nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from snn_deploy.ir.arrays import Array

#: What the nodes below need; old runtimes know it too.
OPSET, IR_VERSION = 17, 8


class Names:
    """Value names of a model: each is given out once, in all of its graphs."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, wanted: str) -> str:
        """Return ``wanted``, numbered where it is taken or empty."""
        base = name = wanted or "value"
        count = 2
        while name in self._taken:
            name, count = f"{base}_{count}", count + 1
        self._taken.add(name)
        return name


class Graph:
    """Nodes of one graph; its constants go to the outermost one, which all others see.

    dtype: of every value that flows.
    """

    def __init__(self, names: Names, constants: list[TensorProto], dtype: Any) -> None:
        self.names, self.constants, self.dtype = names, constants, np.dtype(dtype)
        self.nodes: list[NodeProto] = []

    @property
    def element(self) -> int:
        """ONNX's number of the dtype."""
        return int(helper.np_dtype_to_tensor_dtype(self.dtype))

    def constant(self, name: str, value: Array | Sequence[int] | float, dtype: Any = None) -> str:
        """Add an initializer in the graph's dtype, or in ``dtype``; return its name."""
        name = self.names.new(name)
        array = np.ascontiguousarray(np.asarray(value, dtype or self.dtype))
        self.constants.append(numpy_helper.from_array(array.reshape(np.shape(value)), name))
        return name

    def integers(self, name: str, values: Sequence[int]) -> str:
        """Add an int64 initializer."""
        return self.constant(name, values, np.int64)

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        name: str,
        *,
        domain: str | None = None,
        **attributes: Any,
    ) -> str:
        """Add a node of one output; return the output's name."""
        (output,) = self.several(op, inputs, [name], domain=domain, **attributes)
        return output

    def several(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        domain: str | None = None,
        **attributes: Any,
    ) -> list[str]:
        """Add a node of several outputs; return their names."""
        named = [self.names.new(name) for name in outputs]
        self.nodes.append(
            helper.make_node(op, list(inputs), named, name=named[0], domain=domain, **attributes)
        )
        return named

    def info(self, name: str, dims: Sequence[int | str]) -> ValueInfoProto:
        """Return the declaration of a value."""
        return helper.make_tensor_value_info(name, self.element, list(dims))
