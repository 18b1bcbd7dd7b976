"""Write a ticket file again with another readout, everything else in it as it is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snn_deploy.io.files import write_bytes
from snn_deploy.io.ticket import parse_ticket
from snn_deploy.io.torch_zip import read_torch_zip
from snn_deploy.io.values import coding_json, readout_json
from snn_deploy.ir.network import Network


def rewrite_ticket(network: Network, out: Path, force: bool = False) -> None:
    """Write the ticket that ``network`` was read from to ``out`` with the network's readout.

    network: as loaded, not folded; its coding and feedback are written too, since the command
    line may have named others. Weights, masks and meta stay, bfloat16 as float32 of the same
    values. Raises OutputError.
    """
    content = read_torch_zip(network.source.path)
    parse_ticket(content, network.source)
    assert isinstance(content, dict)
    content["graph"] = {
        **content["graph"],
        "readout": readout_json(network.readout),
        "coding": coding_json(network.coding),
        "feedback": [list(pair) for pair in network.feedback],
    }
    buffer = io.BytesIO()
    torch.save(_tensors(content), buffer)
    write_bytes(out, buffer.getvalue(), force)


def _tensors(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return {key: _tensors(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_tensors(entry) for entry in value)
    return value
