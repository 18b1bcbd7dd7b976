"""The intermediate representation: what a network is, before any target is chosen."""

from snn_deploy.ir.check import check
from snn_deploy.ir.events import Events
from snn_deploy.ir.network import (
    Coding,
    Grid,
    Network,
    Population,
    Projection,
    Readout,
    Source,
    per_neuron,
)
from snn_deploy.ir.neurons import (
    IF,
    LI,
    LIF,
    CubaLI,
    CubaLIF,
    Integrator,
    Neuron,
    Relay,
    Threshold,
)
from snn_deploy.ir.quantized import Arithmetic, QNetwork, QPopulation, TensorReport
from snn_deploy.ir.schedule import Schedule, schedule
from snn_deploy.ir.synapses import (
    BatchNorm,
    Conv1d,
    Conv2d,
    Csr,
    Dense,
    Diagonal,
    Identity,
    Pool2d,
    Synapse,
)
from snn_deploy.ir.text import to_text
from snn_deploy.ir.trace import Trace

__all__ = [
    "IF",
    "LI",
    "LIF",
    "Arithmetic",
    "BatchNorm",
    "Coding",
    "Conv1d",
    "Conv2d",
    "Csr",
    "CubaLI",
    "CubaLIF",
    "Dense",
    "Diagonal",
    "Events",
    "Grid",
    "Identity",
    "Integrator",
    "Network",
    "Neuron",
    "Pool2d",
    "Population",
    "Projection",
    "QNetwork",
    "QPopulation",
    "Readout",
    "Relay",
    "Schedule",
    "Source",
    "Synapse",
    "TensorReport",
    "Threshold",
    "Trace",
    "check",
    "per_neuron",
    "schedule",
    "to_text",
]
