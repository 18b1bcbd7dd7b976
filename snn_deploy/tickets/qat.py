"""Quantization-aware fine-tuning: the forward pass sees the integers that a target will store.

In every update the weights, folded as the pipeline folds them, go through ``passes.quantize``.
The forward pass uses what comes out, divided by its scale: weights and biases on their grid, and
the integers' thresholds, resets and decays. Gradients pass straight through the rounding to the
float weights (Bengio et al. 2013). Batch norm is frozen: its statistics and its scale, which
belongs to the folded weights, stay; its shift is trained, as the bias that it folds into.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from snn_deploy.engine.fixed import FixedEngine
from snn_deploy.errors import InputError
from snn_deploy.frontends.modules import graph_from_module
from snn_deploy.frontends.state import network_from_module
from snn_deploy.ir.arrays import Array, same
from snn_deploy.ir.network import Network, Projection, per_neuron
from snn_deploy.ir.quantized import Arithmetic, QNetwork
from snn_deploy.ir.synapses import bias_of, weights_of, with_weights
from snn_deploy.passes.bias_neuron import with_bias_neurons
from snn_deploy.passes.pipeline import fold
from snn_deploy.passes.quantize import preferred, quantize
from snn_deploy.passes.reach import membrane_gain
from snn_deploy.passes.scale import learned_of
from snn_deploy.tickets import loop, pruning
from snn_deploy.tickets.lif import LIF
from snn_deploy.tickets.sparsify.base import Masked

LR_SHARE = 0.1  # of the dense network's learning rate
_LEARNED = ("Linear", "Conv1d", "Conv2d")
_SETTLES = 10
_NO_LOSS = 2.0**-40  # the share that a membrane without leak loses, in place of 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A target's integers: its arithmetic, and weight bits."""

    arithmetic: Arithmetic
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QatResult:
    """What fine-tuning did: accuracy (0..1) of the integers on the test data, before and after."""

    target: str
    bits: int
    epochs: int
    accuracy_before: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layer:
    """A learned operator of the folded network and the parameters that it is made of.

    weight, bias: parameter names. Folded weights are ``factor * weight``, the folded bias is
    ``bias_factor * bias + bias_offset``; bias_offset None: no bias at all.
    """

    projection: str
    weight: str
    factor: Array
    bias: str | None
    bias_factor: Array | None
    bias_offset: Array | None


class OnGrid:
    """A model as its integers compute it; called with (steps, batch, ...) it returns spikes.

    example_input and coding: as in save_ticket. Raises UnsupportedError and InputError, as
    ``quantize`` does, for what the arithmetic has no form of. ``model`` is changed by ``settle``
    alone.
    """

    def __init__(
        self, model: nn.Module, grid: Grid, *, example_input: Tensor, coding: Mapping[str, Any]
    ) -> None:
        self._model, self._grid = model, grid
        self._seen = copy.deepcopy(model).eval().requires_grad_(False)
        graph, _ = graph_from_module(self._seen, example_input, coding=coding)
        names = _parameter_names(graph)
        self._blank, ones = (
            _probe(self._seen, names, bias, example_input, coding) for bias in (0.0, 1.0)
        )
        self._layers = [
            _layer(zero, one, *names[zero.origin])
            for zero, one in zip(self._blank.projections, ones.projections, strict=True)
            if learned_of(zero) is not None
        ]
        self.quantized()

    def quantized(self) -> QNetwork:
        """Return the model's weights as they are now, in integers."""
        state = {k: p.detach().numpy() for k, p in self._model.named_parameters()}
        layers = {layer.projection: layer for layer in self._layers}

        def filled(projection: Projection) -> Projection:
            layer, learned = layers.get(projection.name), learned_of(projection)
            if layer is None or learned is None:
                return projection
            bias = layer.bias_offset
            if layer.bias is not None:
                bias = layer.bias_factor * state[layer.bias] + bias
            made = with_weights(learned, layer.factor * state[layer.weight], bias)
            chain = tuple(made if s is learned else s for s in projection.synapses)
            return replace(projection, synapses=chain)

        network = replace(self._blank, projections=tuple(map(filled, self._blank.projections)))
        if self._grid.arithmetic.current:
            injected = preferred(self._grid.arithmetic) == "bias"
            network = with_bias_neurons(network, injected=injected)
        return quantize(network, self._grid.arithmetic, bits=self._grid.bits)

    def parameters(self, qnet: QNetwork) -> dict[str, Tensor]:
        """Return the parameters, by name, that hold the integers of ``qnet`` exactly.

        What stays in float is left out: weights whose currents the host adds up, and biases before
        a synaptic current.
        """
        state = dict(self._model.named_parameters())
        integers = {p.name: p for p in qnet.network.projections}
        found = {}
        for layer in self._layers:
            projection = integers.get(layer.projection)
            learned = None if projection is None else learned_of(projection)
            if projection is None or learned is None:
                continue
            q = qnet.populations[projection.post]
            integer = weights_of(learned)
            assert integer is not None
            weight = state[layer.weight].detach().numpy().astype(np.float64)
            used = layer.factor != 0  # batch norm may switch a channel off
            unit = q.scale / qnet.levels.get(projection.pre, 1.0)
            np.divide(integer / unit, layer.factor, out=weight, where=used)
            found[layer.weight] = torch.from_numpy(weight.astype(np.float32))
            if layer.bias is None or qnet.real.step_of(projection.post).has_current:
                continue
            unit = q.scale * (1 << q.shift) / (1 << qnet.arithmetic.bias_shift)
            bias = layer.bias_factor * state[layer.bias].detach().numpy() + layer.bias_offset
            bias = (np.rint(bias * unit) / unit - layer.bias_offset) / layer.bias_factor
            found[layer.bias] = torch.from_numpy(bias.astype(np.float32))
        return found

    def __call__(self, x: Tensor) -> Tensor:
        """Return the output spikes; gradients reach the model's float parameters."""
        qnet = self.quantized()
        for name, module in self._seen.named_modules():
            if isinstance(module, LIF):
                _set_neuron(module, qnet, name)
        state = dict(self._model.named_parameters())
        names = [name for layer in self._layers for name in (layer.weight, layer.bias)]
        given = {name: state[name] for name in names if name is not None}
        for name, value in self.parameters(qnet).items():
            # The difference is exactly 0, and carries the gradient past the rounding.
            given[name] = value + (state[name] - state[name].detach())
        spikes: Tensor = functional_call(self._seen, given, (x,))
        return spikes

    def settle(self) -> QNetwork:
        """Put the model's weights and biases on their grid, and return their integers.

        Quantizing the settled model gives these integers again. Raises InputError where the scale
        keeps moving with the rounded weights.
        """
        qnet = self.quantized()
        for _ in range(_SETTLES):
            with torch.no_grad():
                state = dict(self._model.named_parameters())
                for name, value in self.parameters(qnet).items():
                    state[name].copy_(value)
            before, qnet = qnet, self.quantized()
            if same_integers(before, qnet):
                return qnet
        raise InputError(
            "the weights do not settle on the integers' grid",
            used=f"{self._grid.bits} bits, {_SETTLES} roundings",
            hint="use more bits, or a smaller learning rate",
        )


def same_integers(a: QNetwork, b: QNetwork) -> bool:
    """Return whether weights, thresholds and biases are the same numbers in both."""
    pairs = zip(a.network.projections, b.network.projections, strict=True)
    registers = ("threshold", "bias")
    return all(same(p.synapses, q.synapses) for p, q in pairs) and all(
        same(getattr(q, name), getattr(b.populations[key], name))
        for key, q in a.populations.items()
        for name in registers
    )


def fine_tune(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    recipe: loop.Recipe,
    grid: Grid,
    *,
    epochs: int,
    seed: int,
    masks: Mapping[str, Tensor],
    example_input: Tensor,
    coding: Mapping[str, Any],
    inputs: NDArray[np.generic],
    labels: NDArray[np.int64],
    progress: Callable[[loop.Progress], None] | None = None,
    done: int = 0,
) -> QatResult:
    """Train ``model`` in place as its integers compute it, and leave its weights on their grid.

    As ``loop.fit``, at LR_SHARE of its learning rate. Masks hold; rounding may make further zeros.
    inputs, labels: what accuracy is measured on, see ``loop.evaluate``. done: epochs before these,
    for progress.
    """
    view = OnGrid(model, grid, example_input=example_input, coding=coding)

    def accuracy() -> float:
        network = fold(network_from_module(model, example_input=example_input, coding=coding))
        return integer_accuracy(network, grid, inputs, labels)

    def after_epoch(epoch: int, record: loop.Epoch) -> None:
        if progress is not None:
            progress(
                loop.Progress(
                    phase="qat",
                    epoch=epoch,
                    epochs=epochs,
                    done=done + epoch,
                    total=done + epochs,
                    loss=record.loss,
                    accuracy=record.accuracy,
                    sparsity=pruning.sparsity_of(masks),
                )
            )

    before = accuracy()
    loop.fit(
        model,
        x,
        y,
        replace(recipe, lr=LR_SHARE * recipe.lr),
        epochs=epochs,
        seed=loop.stream_seed(seed, "qat"),
        sparsifier=Masked(model, masks),
        forward=view,
        after_epoch=after_epoch,
    )
    view.settle()
    return QatResult(
        target=grid.arithmetic.name,
        bits=grid.bits,
        epochs=epochs,
        accuracy_before=before,
        accuracy=accuracy(),
    )


def integer_accuracy(
    network: Network, grid: Grid, inputs: NDArray[np.generic], labels: NDArray[np.int64]
) -> float:
    """Return the accuracy (0..1) of a folded network in integers; inputs: (n, steps, ...)."""
    engine = FixedEngine(quantize(network, grid.arithmetic, bits=grid.bits))
    correct = 0
    for start in range(0, len(labels), loop.EVAL_BATCH):
        part = slice(start, start + loop.EVAL_BATCH)
        guess = network.readout.predict(engine.run(inputs[part]).output)
        correct += int(np.count_nonzero(guess == labels[part]))
    return correct / len(labels)


def _parameter_names(graph: Mapping[str, Any]) -> dict[str, tuple[str, str | None]]:
    """Return, per learned node, the names of its weight and of the bias that acts last."""
    nodes = {node["name"]: node for node in graph["nodes"]}
    norm = {a: b for a, b in graph["edges"] if nodes[b]["op"] == "BatchNorm"}
    return {
        name: (node["weight"], nodes[norm.get(name, name)].get("bias"))
        for name, node in nodes.items()
        if node["op"] in _LEARNED
    }


def _probe(
    model: nn.Module,
    names: Mapping[str, tuple[str, str | None]],
    bias: float,
    example_input: Tensor,
    coding: Mapping[str, Any],
) -> Network:
    """Return the folded network of the model with weights of 1: they become their factors."""
    model = copy.deepcopy(model)
    state = dict(model.named_parameters())
    with torch.no_grad():
        for weight, last in names.values():
            state[weight].fill_(1.0)
            if last is not None:
                state[last].fill_(bias)
    return fold(network_from_module(model, example_input=example_input, coding=coding))


def _layer(zero: Projection, one: Projection, weight: str, bias: str | None) -> _Layer:
    learned, biased = learned_of(zero), learned_of(one)
    assert learned is not None
    assert biased is not None
    factor, offset, shifted = weights_of(learned), bias_of(learned), bias_of(biased)
    assert factor is not None
    return _Layer(
        projection=zero.name,
        weight=weight,
        factor=factor,
        bias=bias,
        bias_factor=None if offset is None or shifted is None else shifted - offset,
        bias_offset=offset,
    )


def _set_neuron(module: LIF, qnet: QNetwork, name: str) -> None:
    """Give a neuron the threshold, reset and decay that the integers have."""
    q, a, shape = qnet.populations[name], qnet.arithmetic, qnet.network.population(name).shape
    step = qnet.real.step_of(name)
    gain = membrane_gain(qnet.network.population(name), step)
    unit = gain / (q.scale * (1 << q.shift))  # of the membrane per integer

    def put(field: str, value: Array) -> None:
        value = value[0] if bool(np.all(value == value[0])) else value.reshape(shape)
        setattr(module, field, torch.as_tensor(value, dtype=torch.float32))

    # Between two integers: a tie in integers is none that float32's noise could break.
    assert q.threshold is not None
    put("v_threshold", (per_neuron(q.threshold << a.threshold_shift, shape) + 0.5) * unit)
    put("v_reset", per_neuron(q.v_reset, shape) * unit)
    if module.reset == "subtract":
        put("reset_amount", per_neuron(q.reset_amount, shape) * unit)
    share = np.maximum(per_neuron(q.decay_v, shape) / (1 << a.decay_bits), _NO_LOSS)
    put("tau_s", module.dt_s / share)
    put("r", gain / share)
    put("v_leak", per_neuron(step.offset, shape) / share)
