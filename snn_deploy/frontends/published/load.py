"""A published checkpoint to a ticket: found, named, made sparse, and checked against a module."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from snn_deploy.errors import SnnDeployError, UsageError, printable
from snn_deploy.frontends.load import LoadOptions, agreeing, module_of, must_exist
from snn_deploy.frontends.published import sparse
from snn_deploy.frontends.published.keys import cleaned, rename_hint, some
from snn_deploy.frontends.state import load_state, parsed, ticket_content
from snn_deploy.io.graph import SnnDeployWarning
from snn_deploy.io.pickle_arrays import read_array_list
from snn_deploy.io.state_dict import StateDict, read_state_dict
from snn_deploy.io.ticket import network_of
from snn_deploy.ir.network import Coding, Network, Readout
from snn_deploy.passes.pipeline import fold

Format = Literal["plain", "lth", "gradr", "stds", "cutoff"]
#: Below this, the gradient-rewiring code takes a weight for a pruned one.
TINY_GRADR = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a format's files leave open.

    masks: the pickled list of masks, for lth. thresholds: d, or d by layer, for stds. renames:
    (from, to) of leading parts of names.
    """

    format: Format
    masks: Path | None = None
    thresholds: sparse.Thresholds | None = None
    renames: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise UsageError(
                f"unknown format {self.format!r}", hint=f"one of {', '.join(get_args(Format))}"
            )
        if self.masks is not None and self.format != "lth":
            raise UsageError(
                f"format {self.format} has no list of masks: its zeros say what is pruned",
                hint="leave --masks out, or use --format lth",
            )
        if self.format == "lth" and self.masks is None:
            raise UsageError(
                "format lth keeps its masks in a file of their own",
                hint="--masks mask_NONZERO.pkl; where zeros are the mask, use --format plain",
            )
        if self.thresholds is not None and self.format != "stds":
            raise UsageError(
                f"format {self.format} has no threshold: its weights are stored as they act",
                hint="leave --threshold out, or use --format stds",
            )
        if self.format == "stds" and self.thresholds is None:
            raise UsageError(
                "format stds stores dense parameters: without their threshold the network would "
                "be dense",
                hint="--threshold D, the width that training ended with (--flat-width of that "
                "code), or a .json file of one per layer",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A weight tensor: its name and shape, how many weights it has, and how many are left."""

    name: str
    shape: tuple[int, ...]
    weights: int
    nonzeros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """An imported ticket.

    content: what ``write_ticket`` takes. network: folded. notes: what was done, and where the
    file disagrees with itself.
    """

    content: Mapping[str, Any]
    network: Network
    layers: tuple[Layer, ...]
    notes: tuple[str, ...]


def import_checkpoint(path: str | Path, how: Published, options: LoadOptions) -> Imported:
    """Return the ticket in a published checkpoint.

    options: arch (needed) and input_shape; dt_s, readout and coding as a state_dict leaves them
    open. Every name in the file must be one of the module's, and the other way round. Raises
    InputError, UnsupportedError and UsageError; nothing from the file is executed.
    """
    path = Path(path)
    must_exist(path)
    found = read_state_dict(path)
    try:
        return _imported(found, how, options)
    except SnnDeployError as error:
        files = tuple(str(file) for file in (path, how.masks) if file is not None)
        if error.where is None or not error.where.startswith(files):
            error.located(str(path))
        raise


def _imported(found: StateDict, how: Published, options: LoadOptions) -> Imported:
    clean = cleaned(found.arrays, how.renames, nested=how.format == "cutoff")
    arrays, notes = clean.arrays, [*_taken(found), *clean.notes]
    module, example = module_of(options, arrays, found.source.path)
    if how.thresholds is not None:
        arrays = sparse.soft_thresholded(arrays, how.thresholds)
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    masks: dict[str, Tensor] = load_state(module, arrays, rename_hint(arrays, shapes))
    if how.masks is not None:
        where = str(how.masks)
        if found.ordered:
            sparse.check_order(module, list(arrays), where)
        else:
            notes.append(".safetensors does not keep the order of layers: only shapes are checked")
        listed = sparse.mask_list(module, read_array_list(how.masks), where)
        masks.update(listed.masks)
        notes += _disagreements(listed)
    if how.format == "gradr":
        notes += _almost_zero(module)
    content = ticket_content(
        module,
        example_input=example,
        masks=masks,
        dt_s=options.nir.dt_s,
        readout=options.nir.readout or Readout(),
        coding=options.nir.coding or Coding(),
        meta={"imported": {"format": how.format, "sha256": found.source.sha256}},
    )
    layers = _layers(content)
    if all(layer.nonzeros == layer.weights for layer in layers):
        warnings.warn("no weight is zero: the network is dense", SnnDeployWarning, stacklevel=3)
    path = found.source.path
    return Imported(
        content=content,
        network=fold(agreeing(network_of(parsed(content, found.source)), options.nir, path)),
        layers=layers,
        notes=(*notes, *content["meta"].get("notes", ())),
    )


def _taken(found: StateDict) -> list[str]:
    if not found.wrapper:
        return []
    beside = f"; not used: {printable(some(found.beside))}" if found.beside else ""
    return [f"the state_dict stands under {found.wrapper!r}{beside}"]


def _disagreements(listed: sparse.MaskList) -> list[str]:
    return [
        f"{listed.removed:,} weights of the file are removed by the masks",
        f"{listed.zero:,} weights that the masks keep are zero in the file, and count as removed",
        f"{listed.tiny:,} weights are kept that are below {sparse.TINY_LTH:g}, which that code "
        "takes for pruned",
    ]


def _almost_zero(module: nn.Module) -> list[str]:
    tiny = sum(
        int(((p != 0) & (p.abs() < TINY_GRADR)).sum())
        for name, p in module.named_parameters()
        if sparse.is_weight(name, p)
    )
    return [
        f"{tiny:,} weights are kept that are below {TINY_GRADR:g}, which that code takes for pruned"
    ]


def _layers(content: Mapping[str, Any]) -> tuple[Layer, ...]:
    """Return the weights of the ticket; its masks must be their nonzeros."""
    layers = []
    for name, mask in content["masks"].items():
        weight = content["state"][name]
        assert torch.equal(mask, weight != 0), name
        layers.append(
            Layer(
                name=name,
                shape=tuple(weight.shape),
                weights=weight.numel(),
                nonzeros=int(mask.sum()),
            )
        )
    return tuple(layers)
