"""check(): the invariants that every pass and backend relies on."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np

from snn_deploy.errors import InputError, SnnDeployError
from snn_deploy.ir.network import (
    MEMBRANE_READOUTS,
    Network,
    Population,
    Projection,
    fitted,
)
from snn_deploy.ir.neurons import Relay
from snn_deploy.ir.synapses import BatchNorm, Pool2d, Shape


def check(network: Network, *, folded: bool = False) -> Network:
    """Return ``network`` if it is well formed, else raise a located InputError.

    folded: also refuse what the pipeline must have removed (BatchNorm, max pooling).
    """
    file = network.source.path or None
    names = [p.name for p in network.populations]
    _unique(names, "population", network)
    _unique([p.name for p in network.projections], "projection", network)
    if not (math.isfinite(network.dt_s) and network.dt_s > 0):
        raise InputError(
            f"dt must be positive, got {network.dt_s:g} s", where=file, hint="--dt SECONDS"
        )
    known = set(names)
    for kind, ends in (("input", network.inputs), ("output", network.outputs)):
        if not ends:
            raise InputError(
                f"the network has no {kind}",
                where=file,
                hint=f"mark where values enter and leave: add an {kind} node",
            )
        missing = [name for name in ends if name not in known]
        if missing:
            raise InputError(
                f"{kind} {missing[0]!r} is not a population",
                where=file,
                hint=f"populations: {', '.join(names[:6])}",
            )
    for population in network.populations:
        if not population.shape or min(population.shape) < 1:
            raise InputError(
                f"population shape {population.shape} is empty",
                where=network.where(population.name),
                hint="give its parameters at least one value",
            )
        _check_parameters(network, population.name)
    for name in network.inputs:
        if not isinstance(network.population(name).neuron, Relay):
            raise InputError(
                "an input population must be a Relay",
                where=network.where(name),
                hint="let a Relay take the input and feed the neurons",
            )
    for projection in network.projections:
        _check_projection(network, projection, known, folded)
    _check_feedback(network)
    _check_readout(network)
    return network


def _unique(names: list[str], kind: str, network: Network) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(
                f"two {kind}s are called {name!r}",
                where=network.source.path or None,
                hint="rename one of them",
            )
        seen.add(name)


def _check_shapes(population: Population, where: str) -> None:
    """Parameters meet in products, so they fit the population and each other."""
    arrays = [
        value
        for field in fields(population.neuron)
        if isinstance(value := getattr(population.neuron, field.name), np.ndarray)
    ]
    for value in arrays:
        try:
            fitted(value, population.shape)
        except ValueError:
            raise InputError(
                f"a neuron parameter of shape {value.shape} does not fit {population.shape}",
                where=where,
                hint="use one value, one per channel, or one per neuron",
            ) from None
    forms = {value.shape for value in arrays if value.size > 1}
    if len(forms) > 1:
        first, second = sorted(forms)[:2]
        raise InputError(
            f"a neuron has parameters of shape {first} and of shape {second}",
            where=where,
            hint="give all of them per channel, or all per neuron",
        )


def _check_parameters(network: Network, name: str) -> None:
    population = network.population(name)
    _check_shapes(population, network.where(name))
    step = population.neuron.step(network.dt_s)
    slow = [
        (label, keep)
        for label, keep in (("tau_syn", step.keep_u), ("tau", step.keep_v))
        if bool(np.any(np.asarray(keep) < 0))
    ]
    if slow:
        raise InputError(
            f"dt is longer than {slow[0][0]}: forward Euler would oscillate",
            where=network.where(name),
            used=f"dt {network.dt_s:g} s gives a keep factor of {float(np.min(slow[0][1])):g}",
            hint="pass the dt that the network was trained with: --dt SECONDS",
        )


def chain_shapes(network: Network, projection: Projection) -> tuple[Shape, ...]:
    """Return the shapes before, between and after the operators of a projection."""
    shapes = [network.population(projection.pre).shape]
    for synapse in projection.synapses:
        try:
            shapes.append(synapse.out_shape(shapes[-1]))
        except SnnDeployError as error:
            raise error.located(network.where(projection.name)) from None
    return tuple(shapes)


def _check_projection(
    network: Network, projection: Projection, known: set[str], folded: bool
) -> None:
    where = network.where(projection.name)
    for end in (projection.pre, projection.post):
        if end not in known:
            raise InputError(
                f"projection ends in {end!r}, which does not exist",
                where=where,
                hint="pre and post are names of populations",
            )
    if projection.post in network.inputs:
        raise InputError(
            "a projection ends in an input population",
            where=where,
            hint="end it at the neurons that the input feeds",
        )
    if not projection.synapses:
        raise InputError(
            "a projection needs at least one synapse operator", where=where, hint="use Identity()"
        )
    shapes = chain_shapes(network, projection)
    post = network.population(projection.post).shape
    if math.prod(shapes[-1]) != math.prod(post):
        raise InputError(
            f"produces shape {shapes[-1]} for a population of shape {post}",
            where=where,
            hint="a layer's output size must equal the number of neurons that it feeds",
        )
    delay = np.asarray(projection.delay_steps)
    if delay.dtype.kind not in "iu" or bool(np.any(delay < 0)):
        raise InputError(
            "delays are whole steps, 0 or more", where=where, hint="round them to multiples of dt"
        )
    size = (math.prod(post), math.prod(shapes[0]))
    if delay.ndim and (
        delay.ndim != 2
        or any(n not in (1, full) for n, full in zip(delay.shape, size, strict=True))
    ):
        raise InputError(
            f"delays of shape {delay.shape} do not fit (post, pre) = {size}",
            where=where,
            hint="give one delay, or one per presynaptic or postsynaptic neuron, or one per pair",
        )
    if folded:
        for synapse in projection.synapses:
            if isinstance(synapse, BatchNorm) or (
                isinstance(synapse, Pool2d) and synapse.kind == "max"
            ):
                raise AssertionError(f"{where}: {type(synapse).__name__} survived folding")


def _check_feedback(network: Network) -> None:
    joined = {(p.pre, p.post) for p in network.projections}
    for pre, post in network.feedback:
        if (pre, post) not in joined:
            raise InputError(
                "feedback names an edge that does not exist",
                where=f"{pre} -> {post}",
                hint="name populations that a projection joins: --feedback PRE->POST",
            )


def _check_readout(network: Network) -> None:
    readout = network.readout
    for name in network.outputs:
        population = network.population(name)
        step = population.neuron.step(network.dt_s)
        relay = isinstance(population.neuron, Relay)
        if readout.kind in ("count", "vote") and step.threshold is None and not relay:
            raise InputError(
                f"a {readout.kind} readout needs a spiking output population",
                where=network.where(name),
                hint=f"choose a membrane readout: --readout {' or '.join(MEMBRANE_READOUTS)}",
            )
        if readout.kind == "vote" and (
            not readout.groups or readout.groups < 1 or population.size % readout.groups
        ):
            raise InputError(
                f"{population.size} output neurons do not split into {readout.groups} groups",
                where=network.where(name),
                hint="groups is the number of classes, and divides the number of output neurons",
            )
    if readout.window is not None and not 0 <= readout.window[0] < readout.window[1]:
        raise InputError(
            f"readout window {readout.window} is empty",
            where=network.source.path or None,
            hint="a window is (first, last) steps, first before last, last not included",
        )
    if readout.cutoff is not None:
        _check_cutoff(network, readout.cutoff)


def _check_cutoff(network: Network, cutoff: tuple[float, ...]) -> None:
    readout, where = network.readout, network.where(network.outputs[0])
    if readout.kind in MEMBRANE_READOUTS:
        raise InputError(
            f"a {readout.kind} readout has no early stop: a cutoff compares spike counts",
            where=where,
            hint="use --readout count or vote:CLASSES, or leave the cutoff out",
        )
    wrong = [value for value in cutoff if not value >= 0]  # NaN too
    if wrong:
        raise InputError(
            f"a cutoff threshold is {wrong[0]:g}",
            where=where,
            hint="thresholds are spikes, 0 or more; infinity never stops",
        )
    neurons = sum(network.population(name).size for name in network.outputs)
    classes = readout.groups if readout.kind == "vote" else neurons
    assert classes is not None
    if classes < 2:
        raise InputError(
            "a cutoff compares the two largest scores, and the readout has one class",
            where=where,
            hint="leave the cutoff out, or read two classes or more",
        )
