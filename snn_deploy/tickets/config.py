"""What to train: settings, their defaults, and the parts of a job that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from snn_deploy.errors import UsageError
from snn_deploy.ir.quantized import Arithmetic
from snn_deploy.passes.cutoff import check_epsilon
from snn_deploy.tickets import loop, pruning
from snn_deploy.tickets.data import load as datasets
from snn_deploy.tickets.defaults import IMAGE_STEP_S, ONE_RUN_LONGER, defaults_of
from snn_deploy.tickets.methods.base import Plan
from snn_deploy.tickets.methods.catalog import METHODS, ONE_RUN, parameters_of
from snn_deploy.tickets.models.build import ARCHITECTURES, FLAT, TRANSFORMER
from snn_deploy.tickets.models.spikformer import patches_of
from snn_deploy.tickets.qat import Grid
from snn_deploy.tickets.regulariser import ALPHA
from snn_deploy.tickets.stops import EPSILON


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What to train, on what, and how; None takes the architecture's and data set's default.

    out: ticket to write; the checkpoint stands beside it as ``<out>.ckpt``. sparsity: share of
    the weights (of two or more axes) to remove, exactly; layer_adaptive: by magnitude within
    their layer, see ``pruning.global_magnitude``. rounds: pruning rounds. epochs: of the
    dense network and of the last round; round_epochs: of the rounds between; rewind_epoch: each
    round starts from the dense network's weights after so many epochs. hidden: layer widths or
    channels. steps: T. coding: "rate" or "direct" for images, "events" for recordings, whose
    frames last dt_s each. shift: training samples move by up to so many pixels. downscale: of
    dvs128, so many pixels in a row and in a column become one. weight_scale: multiplies the initial
    weights (those of fully connected layers are 3 times torch's). limit: use only
    the first so many training samples. qat: fine-tune after the last round as this target's
    integers compute, with weights of ``bits`` bits (None: the target's own), for qat_epochs epochs
    (None: as many as round_epochs). params: of the method, see ``methods.catalog``. masks_from: a
    ticket whose masks "reinit" takes, and whose densities "random". rate_penalty: weight of the
    spike-rate regulariser in the loss. epsilon: calibrate a cutoff table at the end. device:
    "cpu", "cuda" (None: cuda where there is one). amp: layers compute in bfloat16. resume: go on
    from the checkpoint. force: replace ``out``.
    """

    out: str | Path
    method: str = "imp"
    arch: str = "mlp"
    data: str = "digits"
    data_dir: str | Path | None = None
    sparsity: float = 0.9
    layer_adaptive: bool | None = None
    rounds: int | None = None
    epochs: int | None = None
    round_epochs: int | None = None
    rewind_epoch: int | None = None
    hidden: tuple[int, ...] | None = None
    steps: int | None = None
    coding: loop.CodingKind | None = None
    gain: float = 1.0
    dt_s: float | None = None
    shift: int | None = None
    downscale: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    weight_decay: float = 0.0
    weight_scale: float = 1.0
    limit: int | None = None
    qat: Arithmetic | None = None
    bits: int | None = None
    qat_epochs: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    masks_from: str | Path | None = None
    rate_penalty: float | None = None
    epsilon: float | None = None
    device: str | None = None
    amp: bool = False
    seed: int = 0
    resume: bool = False
    force: bool = False


def resolved(config: TrainConfig) -> TrainConfig:
    """Return ``config`` with the architecture's defaults filled in; raises UsageError."""
    if config.method not in METHODS:
        raise UsageError(f"unknown method {config.method!r}", hint=f"one of {', '.join(METHODS)}")
    if config.arch not in ARCHITECTURES:
        raise UsageError(
            f"unknown architecture {config.arch!r}",
            hint=f"one of {', '.join(ARCHITECTURES)}",
        )
    if config.data not in datasets.DATASETS:
        raise UsageError(
            f"unknown data set {config.data!r}", hint=f"one of {', '.join(datasets.DATASETS)}"
        )
    codings = ("events",) if config.data in datasets.EVENTS else ("rate", "direct")
    if config.coding not in (None, *codings):
        raise UsageError(
            f"{config.data} is not trained with coding {config.coding!r}",
            hint=" or ".join(codings),
        )
    defaults = {"coding": codings[0], **defaults_of(config.arch, config.data)}
    if config.method == "cutoff":
        defaults |= {"rate_penalty": ALPHA, "epsilon": EPSILON}
    share = defaults.pop("share_per_round")
    missing = {name: value for name, value in defaults.items() if getattr(config, name) is None}
    if config.epochs is not None and config.round_epochs is None:
        missing["round_epochs"] = max(1, config.epochs // 3)
    if config.epochs is not None and config.rewind_epoch is None:
        missing["rewind_epoch"] = min(defaults["rewind_epoch"], max(0, config.epochs))
    if config.qat is None and (config.bits, config.qat_epochs) != (None, None):
        raise UsageError(
            "weight bits and their epochs belong to quantization-aware fine-tuning",
            used=f"bits = {config.bits}, qat_epochs = {config.qat_epochs}",
            hint="say for which target: --qat loihi or --qat fpga",
        )
    if (config.method == "reinit") > (config.masks_from is not None):
        raise UsageError(
            "re-initialised training needs the masks of another ticket",
            hint="--masks-from TICKET.pt",
        )
    if config.masks_from is not None and config.method not in ("reinit", "random"):
        raise UsageError(
            f"method {config.method} finds its own masks",
            used=f"masks_from = {config.masks_from}",
            hint="only reinit and random take those of another ticket",
        )
    if config.epsilon is not None:
        check_epsilon(config.epsilon)
    config = replace(config, params=parameters_of(config.method, config.params))
    pruning.schedule(config.sparsity, config.rounds)
    if config.method in ONE_RUN and config.epochs is None:
        missing["epochs"] *= ONE_RUN_LONGER
    if config.rounds is None:
        missing["rounds"] = pruning.default_rounds(config.sparsity, share)
    config = replace(config, **missing)
    if config.qat is not None:
        config = replace(
            config,
            bits=config.qat.weight_bits if config.bits is None else config.bits,
            qat_epochs=config.round_epochs if config.qat_epochs is None else config.qat_epochs,
        )
    assert config.epochs is not None
    assert config.rewind_epoch is not None
    positive = (
        "epochs", "round_epochs", "qat_epochs", "steps", "batch_size", "limit", "lr", "gain",
        "dt_s", "rate_penalty", "downscale", "weight_scale",
    )  # fmt: skip
    for name in positive:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise UsageError(f"{name} must be positive", used=f"{name} = {value}")
    if not 0 <= config.rewind_epoch <= config.epochs:
        raise UsageError(
            "rewinding goes back to an epoch of the dense training",
            used=f"rewind_epoch = {config.rewind_epoch}, epochs = {config.epochs}",
            hint="lower rewind_epoch, or raise epochs",
        )
    if config.shift is not None and config.shift < 0:
        raise UsageError("shift must not be negative", used=f"shift = {config.shift}")
    if config.shift and config.arch in FLAT and config.data not in datasets.EVENTS:
        raise UsageError(
            f"{config.arch} takes images as rows of pixels, which cannot be moved",
            used=f"shift = {config.shift}",
            hint="use arch='conv', or shift=0",
        )
    if config.arch == TRANSFORMER and (config.shift or config.gain != 1):
        raise UsageError(
            "a transformer's keep channel is neither moved nor scaled",
            used=f"shift = {config.shift}, gain = {config.gain:g}",
            hint="shift=0 and gain=1",
        )
    if config.dt_s is None:
        assert config.steps is not None
        window_s = datasets.EVENTS.get(config.data)
        step_s = IMAGE_STEP_S if window_s is None else window_s / config.steps
        config = replace(config, dt_s=step_s)
    return config


def data_of(config: TrainConfig) -> datasets.Dataset:
    """Return the data set of a resolved configuration."""
    assert config.steps is not None
    assert config.downscale is not None
    return datasets.load(
        config.data,
        config.data_dir,
        steps=config.steps,
        step_s=step_s_of(config),
        downscale=config.downscale,
    )


def arranged(x: NDArray[Any], config: TrainConfig) -> NDArray[Any]:
    """Return samples in the shape that the network of a resolved configuration takes.

    Images become rows of pixels for what is no convolution; frames of events stay as they are. For
    a transformer, all patches stay, and the keep channel says so.
    """
    if config.arch == TRANSFORMER:
        return patches_of(x.shape).with_keep_channel(x)
    flat = config.arch in FLAT and config.coding != "events"
    return x.reshape(len(x), -1) if flat else x


def recipe_of(config: TrainConfig) -> loop.Recipe:
    """Return how each round of a resolved configuration trains."""
    assert config.steps is not None
    assert config.lr is not None
    assert config.batch_size is not None
    assert config.coding is not None
    assert config.shift is not None
    return loop.Recipe(
        steps=config.steps,
        coding=config.coding,
        gain=config.gain,
        lr=config.lr,
        batch_size=config.batch_size,
        weight_decay=config.weight_decay,
        shift=config.shift,
        amp=config.amp,
    )


def plan_of(config: TrainConfig) -> Plan:
    """Return the rounds of a resolved configuration."""
    assert config.epochs is not None
    assert config.round_epochs is not None
    assert config.rewind_epoch is not None
    return Plan(
        sparsity=config.sparsity,
        sparsities=pruning.schedule(config.sparsity, config.rounds),
        epochs=config.epochs,
        round_epochs=config.round_epochs,
        rewind_epoch=config.rewind_epoch,
        qat_epochs=config.qat_epochs or 0,
        layer_adaptive=bool(config.layer_adaptive),
    )


def grid_of(config: TrainConfig) -> Grid | None:
    """Return the integers to fine-tune for, if any."""
    if config.qat is None:
        return None
    assert config.bits is not None
    return Grid(arithmetic=config.qat, bits=config.bits)


def coding_of(config: TrainConfig) -> dict[str, Any]:
    """Return how samples become input, as save_ticket takes it."""
    return {
        "kind": config.coding,
        "steps": config.steps,
        "seed": config.seed,
        "gain": config.gain,
    }


def step_s_of(config: TrainConfig) -> float:
    """Return the time step of a resolved configuration, in seconds."""
    assert config.dt_s is not None
    return config.dt_s
