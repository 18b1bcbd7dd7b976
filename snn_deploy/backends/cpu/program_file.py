"""The CPU target's artifact: the folded network as named arrays and its text form."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network
from snn_deploy.ir.text import to_text


def program_arrays(network: Network) -> dict[str, Array]:
    """Return everything that a run needs, in plain numpy: ``<projection>.<index>.<field>`` and
    ``<population>.<parameter>`` arrays, and the network's text under ``program``.
    """
    arrays: dict[str, Array] = {
        "program": np.array(to_text(network)),
        "dt_s": np.array(network.dt_s),
    }
    for projection in network.projections:
        for i, synapse in enumerate(projection.synapses):
            for field in fields(synapse):
                value = getattr(synapse, field.name)
                if value is not None and not isinstance(value, str):
                    arrays[f"{projection.name}.{i}.{field.name}"] = np.asarray(value)
    for population in network.computing():
        step = population.neuron.step(network.dt_s)
        for key in ("keep_u", "gain_u", "keep_v", "gain_v", "offset", "v_reset", "reset_amount"):
            arrays[f"{population.name}.{key}"] = np.asarray(getattr(step, key))
        if step.threshold is not None:
            arrays[f"{population.name}.threshold"] = np.asarray(step.threshold)
    return arrays
