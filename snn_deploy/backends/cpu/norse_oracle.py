"""norse as the judge of the float engine: its neuron equations, torch's layers, float64.

Every population steps through norse's own functional; only the wiring is ours. Neurons that
norse has no equation for (subtract reset by another amount than the threshold, a pure
integrator) are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from snn_deploy.backends.base import Program
from snn_deploy.errors import MissingDependencyError, UnsupportedError
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import MEMBRANE_READOUTS, Network, Population, per_neuron
from snn_deploy.ir.neurons import IF, LI, LIF, CubaLI, CubaLIF, Relay, Threshold
from snn_deploy.ir.schedule import schedule
from snn_deploy.ir.synapses import Conv1d, Conv2d, Csr, Dense, Diagonal, Identity, Pool2d, Synapse
from snn_deploy.ir.trace import Trace

Stepper = Callable[[Any], tuple[Any, Any]]
Layer = Callable[[Any], Any]


class NorseOracle:
    """Runs a folded Network in norse, step by step, all samples at once."""

    name = "norse"
    tolerance = 1e-9

    def version(self) -> str:
        """Return norse's version; MissingDependencyError without it."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return f"norse {version('norse')} on torch {version('torch')}"
        except PackageNotFoundError:
            raise MissingDependencyError(
                "norse judges the CPU reference and is not installed",
                hint="pip install 'snn-deploy[train]'",
            ) from None

    def run(self, program: Program, x: Array) -> Trace:
        """Return norse's spikes and v of every population."""
        self.version()
        import torch

        network = program.real
        plan = schedule(network)
        for projection in network.projections:
            if np.ndim(projection.delay_steps):
                raise UnsupportedError(
                    "norse has no delay per synapse",
                    where=network.where(projection.name),
                    hint="the float engine runs it; no independent framework here checks it",
                )
        layers = {p.name: [_layer(s) for s in p.synapses] for p in network.projections}
        cells = {p.name: _cell(network, p, len(x)) for p in network.computing()}
        history: dict[str, list[Any]] = {p.name: [] for p in network.populations}
        membranes: dict[str, list[Any]] = {p.name: [] for p in network.computing()}
        with torch.no_grad():
            for t in range(x.shape[1]):
                for name in plan.order:
                    if name in network.inputs:
                        frame = np.array(x[:, t], dtype=np.float64)
                        history[name].append(torch.from_numpy(frame))
                        continue
                    population = network.population(name)
                    current = torch.zeros((len(x), *population.shape), dtype=torch.float64)
                    for projection in network.into(name):
                        delay = int(projection.delay_steps) + plan.feedback[projection.name]
                        if delay > t:
                            shape = (len(x), *network.population(projection.pre).shape)
                            value = torch.zeros(shape, dtype=torch.float64)
                        else:
                            value = history[projection.pre][t - delay]
                        for layer in layers[projection.name]:
                            value = layer(value)
                        current = current + value.reshape(current.shape)
                    z, v = cells[name](current)
                    history[name].append(z)
                    membranes[name].append(v)
        return _trace(network, x, history, membranes)


def _trace(
    network: Network, x: Array, history: dict[str, list[Any]], membranes: dict[str, list[Any]]
) -> Trace:
    import torch

    spikes = {n: torch.stack(h, dim=1).numpy() for n, h in history.items()}
    states = {n: {"v": torch.stack(v, dim=1).numpy()} for n, v in membranes.items()}
    name = network.outputs[0]
    membrane = network.readout.kind in MEMBRANE_READOUTS
    output = states[name]["v"] if membrane else spikes[name]
    return Trace(
        output=output.reshape(*x.shape[:2], -1),
        counts={n: np.count_nonzero(s, axis=(0, 1)).reshape(-1) for n, s in spikes.items()},
        samples=x.shape[0],
        steps=x.shape[1],
        spikes=spikes,
        states=states,
    )


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(np.array(array, dtype=np.float64))


def _layer(synapse: Synapse) -> Layer:
    """Return torch's own operator for a synapse, float64."""
    import torch.nn.functional as F

    if isinstance(synapse, Dense | Csr):
        weight = _tensor(synapse.weight if isinstance(synapse, Dense) else synapse.to_dense())
        bias = None if synapse.bias is None else _tensor(synapse.bias)
        return lambda x: F.linear(x.flatten(1), weight, bias)
    if isinstance(synapse, Conv2d):
        weight = _tensor(synapse.weight)
        bias = None if synapse.bias is None else _tensor(synapse.bias)
        top, bottom, left, right = synapse.padding
        stride, dilation, groups = synapse.stride, synapse.dilation, synapse.groups
        return lambda x: F.conv2d(
            F.pad(x, (left, right, top, bottom)), weight, bias, stride, 0, dilation, groups
        )
    if isinstance(synapse, Conv1d):
        weight = _tensor(synapse.weight)
        bias = None if synapse.bias is None else _tensor(synapse.bias)
        pads, conv = synapse.padding, synapse
        return lambda x: F.conv1d(
            F.pad(x, pads), weight, bias, conv.stride, 0, conv.dilation, conv.groups
        )
    if isinstance(synapse, Pool2d):
        kernel, stride = synapse.kernel, synapse.stride
        area = kernel[0] * kernel[1] if synapse.kind == "sum" else 1
        top, bottom, left, right = synapse.padding
        return lambda x: F.avg_pool2d(F.pad(x, (left, right, top, bottom)), kernel, stride) * area
    if isinstance(synapse, Diagonal):
        scale = _tensor(synapse.scale)
        return lambda x: x * scale
    assert isinstance(synapse, Identity), type(synapse)
    return lambda x: x


def _cell(network: Network, population: Population, samples: int) -> Stepper:
    """Return norse's step for a population, holding its state."""
    import torch
    from norse.torch.functional import iaf, leaky_integrator, leaky_integrator_box, lif, lif_box
    from norse.torch.functional.reset import reset_subtract, reset_value

    neuron, shape, dt = population.neuron, population.shape, network.dt_s
    where = network.where(population.name)

    def put(value: Any) -> Any:
        return _tensor(per_neuron(value, shape).reshape(shape))

    zeros = torch.zeros((samples, *shape), dtype=torch.float64)
    if isinstance(neuron, LIF):
        _need_own_threshold(neuron.reset_amount, where)
        box = lif_box.LIFBoxParameters(
            tau_mem_inv=put(1.0 / neuron.tau_s),
            v_leak=put(neuron.v_leak),
            v_th=put(neuron.v_threshold),
            v_reset=put(neuron.v_reset),
            reset_method=reset_subtract if neuron.reset == "subtract" else reset_value,
        )
        r = put(neuron.r)
        return _stateful(
            lambda i, s: lif_box.lif_box_feed_forward_step(i * r, s, box, dt),
            lif_box.LIFBoxFeedForwardState(v=zeros),
        )
    if isinstance(neuron, CubaLIF | CubaLI):
        gain = put(dt / neuron.tau_syn_s * neuron.w_in * neuron.r)
        tau = {
            "tau_syn_inv": put(1.0 / neuron.tau_syn_s),
            "tau_mem_inv": put(1.0 / neuron.tau_mem_s),
        }
        if isinstance(neuron, CubaLI):
            parameters = leaky_integrator.LIParameters(**tau, v_leak=put(neuron.v_leak))
            return _stateful(
                lambda i, s: leaky_integrator.li_feed_forward_step(i * gain, s, parameters, dt),
                leaky_integrator.LIState(v=zeros, i=zeros),
            )
        if neuron.reset != "value":
            raise UnsupportedError("norse's CubaLIF resets to a value only", where=where)
        cuba = lif.LIFParameters(
            **tau,
            v_leak=put(neuron.v_leak),
            v_th=put(neuron.v_threshold),
            v_reset=put(neuron.v_reset),
        )
        return _stateful(
            lambda i, s: lif.lif_feed_forward_step(i * gain, s, cuba, dt),
            lif.LIFFeedForwardState(v=zeros, i=zeros),
        )
    if isinstance(neuron, IF) and neuron.reset == "value":
        gain = put(neuron.step(dt).gain_v)
        fire = iaf.IAFParameters(v_th=put(neuron.v_threshold), v_reset=put(neuron.v_reset))
        return _stateful(
            lambda i, s: iaf.iaf_feed_forward_step(i * gain, s, fire, dt),
            iaf.IAFFeedForwardState(v=zeros),
        )
    if isinstance(neuron, LI):
        leak = leaky_integrator_box.LIBoxParameters(
            tau_mem_inv=put(1.0 / neuron.tau_s), v_leak=put(neuron.v_leak)
        )
        r = put(neuron.r)
        return _stateful(
            lambda i, s: leaky_integrator_box.li_box_feed_forward_step(i * r, s, leak, dt),
            leaky_integrator_box.LIBoxState(v=zeros),
        )
    if isinstance(neuron, Threshold):
        threshold = put(neuron.threshold)
        return lambda i: ((i > threshold).to(torch.float64), i)
    if isinstance(neuron, Relay):
        return lambda i: (i, i)
    raise UnsupportedError(
        f"norse has no equation for {type(neuron).__name__} with this reset",
        where=where,
        hint="the float engine runs it; no independent framework here checks it",
    )


def _need_own_threshold(amount: Array | None, where: str) -> None:
    if amount is not None:
        raise UnsupportedError(
            "norse subtracts the threshold on reset, this neuron another amount",
            where=where,
            hint="the float engine runs it; no independent framework here checks it",
        )


def _stateful(step: Callable[[Any, Any], tuple[Any, Any]], state: Any) -> Stepper:
    def advance(current: Any) -> tuple[Any, Any]:
        nonlocal state
        z, state = step(current, state)
        return z, state.v

    return advance
