"""save_nir: a network as a NIR file."""

from __future__ import annotations

from pathlib import Path

from snn_deploy.io.files import PathLike, write_bytes
from snn_deploy.io.nir_write import nir_bytes
from snn_deploy.ir.network import Network


def save_nir(network: Network, path: PathLike, *, force: bool = False) -> Path:
    """Write ``network``, folded, as a NIR graph and return its path.

    force: replace an existing file. Raises UnsupportedError, located, for what NIR cannot say, and
    OutputError where the file exists or cannot be written.
    """
    from snn_deploy.passes.pipeline import fold

    write_bytes(path, nir_bytes(fold(network)), force)
    return Path(path)
