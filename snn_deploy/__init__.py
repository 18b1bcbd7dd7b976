"""Deploy sparse spiking neural networks to neuromorphic hardware.

The names below load their module on first use, so that ``import snn_deploy`` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from snn_deploy._version import __version__

if TYPE_CHECKING:
    from snn_deploy.backends.base import Options, Program
    from snn_deploy.backends.prepare import prepare
    from snn_deploy.backends.registry import target
    from snn_deploy.backends.verify import verify
    from snn_deploy.bridges.crosscheck import crosscheck
    from snn_deploy.bridges.euler_cells import to_torch
    from snn_deploy.bridges.nir_save import save_nir
    from snn_deploy.bridges.norse_cells import to_norse
    from snn_deploy.bridges.onnx_export import to_onnx
    from snn_deploy.errors import SnnDeployError
    from snn_deploy.frontends.live import (
        from_norse,
        from_sinabs,
        from_snntorch,
        from_spikingjelly,
        from_torch,
    )
    from snn_deploy.frontends.load import load_model
    from snn_deploy.frontends.onnx_import import from_onnx
    from snn_deploy.frontends.state import save_ticket
    from snn_deploy.ir.network import Network
    from snn_deploy.passes.pipeline import fold

_HOME = {
    "Network": "snn_deploy.ir.network",
    "Options": "snn_deploy.backends.base",
    "Program": "snn_deploy.backends.base",
    "SnnDeployError": "snn_deploy.errors",
    "crosscheck": "snn_deploy.bridges.crosscheck",
    "fold": "snn_deploy.passes.pipeline",
    "from_norse": "snn_deploy.frontends.live",
    "from_onnx": "snn_deploy.frontends.onnx_import",
    "from_sinabs": "snn_deploy.frontends.live",
    "from_snntorch": "snn_deploy.frontends.live",
    "from_spikingjelly": "snn_deploy.frontends.live",
    "from_torch": "snn_deploy.frontends.live",
    "load_model": "snn_deploy.frontends.load",
    "prepare": "snn_deploy.backends.prepare",
    "save_nir": "snn_deploy.bridges.nir_save",
    "save_ticket": "snn_deploy.frontends.state",
    "target": "snn_deploy.backends.registry",
    "to_norse": "snn_deploy.bridges.norse_cells",
    "to_onnx": "snn_deploy.bridges.onnx_export",
    "to_torch": "snn_deploy.bridges.euler_cells",
    "verify": "snn_deploy.backends.verify",
}

__all__ = [
    "Network",
    "Options",
    "Program",
    "SnnDeployError",
    "__version__",
    "crosscheck",
    "fold",
    "from_norse",
    "from_onnx",
    "from_sinabs",
    "from_snntorch",
    "from_spikingjelly",
    "from_torch",
    "load_model",
    "prepare",
    "save_nir",
    "save_ticket",
    "target",
    "to_norse",
    "to_onnx",
    "to_torch",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'snn_deploy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
