"""Import of ONNX: a dense network becomes a spiking one of the same rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from snn_deploy.engine.event import EventEngine
from snn_deploy.errors import InputError, SnnDeployError
from snn_deploy.frontends.ann import AnnGraph, pools_behind_activations, scores
from snn_deploy.frontends.convert import ConvertedLayer, Rates, batches, thresholds, to_network
from snn_deploy.frontends.onnx_read import read_graph
from snn_deploy.frontends.onnx_wire import read_onnx
from snn_deploy.io.files import sha256_file
from snn_deploy.io.inputs import encode
from snn_deploy.ir.arrays import Array
from snn_deploy.ir.network import Network, Source
from snn_deploy.passes.pipeline import fold


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Decisions of the dense and the spiking network on the same samples, counted.

    same: equal decisions. dense_correct, spiking_correct: None without labels.
    """

    samples: int
    same: int
    dense_correct: int | None
    spiking_correct: int | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conversion:
    """A converted network. ann: the dense one, its max pools behind activations. layers: how each
    activation became spikes. notes: what was left out.
    """

    network: Network
    ann: AnnGraph
    layers: tuple[ConvertedLayer, ...]
    notes: tuple[str, ...]

    def scores(self, x: Array) -> Array:
        """Return the dense network's outputs (samples, classes) for ``x`` (samples, *shape)."""
        found = [scores(self.ann, batch) for batch in batches(self.ann, x)]
        return np.concatenate(found).reshape(len(x), -1)

    def agreement(
        self, x: Array, y: Array | None, progress: Callable[[int, int], None] | None = None
    ) -> Agreement:
        """Return how often both networks decide alike, and rightly where labels ``y`` are given.

        x: (samples, *shape); the spiking network runs its own number of steps. progress: called
        with samples done and in all.
        """
        network = fold(self.network)
        engine = EventEngine(network)
        decided: list[Array] = []
        done = 0
        for batch in batches(self.ann, x):
            output = engine.run(encode(batch, network.coding, done)).output
            decided.append(network.readout.predict(output))
            done += len(batch)
            if progress is not None:
                progress(done, len(x))
        spiking, dense = np.concatenate(decided), self.scores(x).argmax(axis=1)
        return Agreement(
            samples=len(x),
            same=int((spiking == dense).sum()),
            dense_correct=None if y is None else int((dense == y).sum()),
            spiking_correct=None if y is None else int((spiking == y).sum()),
        )


def convert_onnx(
    path: Path | str, calibration: Array | None = None, rates: Rates | None = None
) -> Conversion:
    """Return the spiking network of the dense one in an ONNX file, and how it was made.

    calibration: samples (n, *shape) that thresholds are taken from; not needed where all
    activations are quantised or bounded. Raises InputError (exit 3) for a malformed file or data
    that do not fit, UnsupportedError (exit 4) for what has no counterpart, UsageError without data
    where they are needed. Runs nothing that the file holds and opens no other.
    """
    path, rates = Path(path), rates or Rates()
    shape = None
    if calibration is not None:
        calibration = np.asarray(calibration)
        if calibration.ndim < 2 or not len(calibration) or not np.all(np.isfinite(calibration)):
            raise InputError(
                "calibration data are finite samples, (samples, *shape)",
                used=f"shape {calibration.shape}",
                hint="give the inputs that the network was trained on, at least one",
            )
        shape = calibration.shape[1:]
    model = read_onnx(path)
    try:
        read, notes = read_graph(model, shape)
        ann = pools_behind_activations(read)
        layers = thresholds(ann, rates, calibration)
        source = Source(path=str(path), sha256=sha256_file(path), format="onnx")
        network = to_network(ann, layers, rates, source)
    except SnnDeployError as error:
        raise error.located(str(path)) from None
    return Conversion(network=network, ann=ann, layers=layers, notes=tuple(notes))


def from_onnx(
    path: Path | str,
    *,
    calibration: Array | None = None,
    percentile: float = 99.9,
    per_channel: bool = False,
    steps: int = 32,
    dt_s: float = 1e-3,
    start: float = 0.5,
    coding: Literal["direct", "rate"] = "direct",
) -> Network:
    """Return the spiking Network of a dense ONNX model; see convert_onnx and Rates."""
    rates = Rates(
        percentile=percentile,
        per_channel=per_channel,
        steps=steps,
        dt_s=dt_s,
        start=start,
        coding=coding,
    )
    return convert_onnx(path, calibration, rates).network
