"""How long, how wide and how fast to train what, unless the user says otherwise."""

from __future__ import annotations

from typing import Any

IMAGE_STEP_S = 1e-3
# A method's only run is given about the time of a search.
ONE_RUN_LONGER = 3
# Of a data set: what all networks share.
_DATA: dict[str, dict[str, Any]] = {
    "digits": {"rewind_epoch": 3, "batch_size": 64, "shift": 0, "lr": 1e-2},
    "mnist": {"rewind_epoch": 1, "batch_size": 128, "shift": 0, "lr": 1e-2},
    # A thousand recordings are few: moved by a pixel, they are many.
    "nmnist": {"rewind_epoch": 8, "batch_size": 32, "shift": 1, "lr": 1e-2},
    "cifar10": {
        "rewind_epoch": 4, "batch_size": 128, "shift": 0, "lr": 1e-2, "coding": "direct",
    },
    "dvs128": {"rewind_epoch": 8, "batch_size": 16, "shift": 1, "lr": 1e-2, "downscale": 4},
}  # fmt: skip
# Chosen on the digits, see docs/measured/tickets.md; MNIST has 45 times the samples.
_SMALL: dict[tuple[str, str], dict[str, Any]] = {
    ("mlp", "digits"): {
        "steps": 16, "epochs": 30, "round_epochs": 10, "hidden": (256, 128), "share": 0.25,
    },
    ("conv", "digits"): {
        "steps": 8, "epochs": 18, "round_epochs": 7, "hidden": (32, 64), "share": 0.37,
    },
    ("recurrent", "digits"): {
        "steps": 16, "epochs": 30, "round_epochs": 10, "hidden": (128,), "share": 0.37,
    },
    ("mlp", "mnist"): {
        "steps": 8, "epochs": 4, "round_epochs": 2, "hidden": (256, 128), "share": 0.25,
    },
    ("conv", "mnist"): {
        "steps": 5, "epochs": 2, "round_epochs": 1, "hidden": (8, 64), "batch_size": 32,
        "share": 0.65,
    },
    ("recurrent", "mnist"): {
        "steps": 8, "epochs": 5, "round_epochs": 2, "hidden": (256,), "share": 0.5,
    },
    ("mlp", "nmnist"): {
        "steps": 20, "epochs": 20, "round_epochs": 6, "hidden": (256,), "share": 0.5,
    },
    ("conv", "nmnist"): {
        "steps": 10, "epochs": 16, "round_epochs": 5, "hidden": (8, 64), "share": 0.45,
    },
    ("recurrent", "nmnist"): {
        "steps": 20, "epochs": 20, "round_epochs": 6, "hidden": (256,), "share": 0.5,
    },
    ("mlp", "cifar10"): {
        "steps": 5, "epochs": 20, "round_epochs": 8, "hidden": (1024, 256), "share": 0.37,
    },
    ("conv", "cifar10"): {
        "steps": 5, "epochs": 30, "round_epochs": 10, "hidden": (32, 64), "shift": 2,
        "share": 0.37,
    },
    ("recurrent", "cifar10"): {
        "steps": 5, "epochs": 20, "round_epochs": 8, "hidden": (512,), "share": 0.37,
    },
    ("mlp", "dvs128"): {
        "steps": 10, "epochs": 30, "round_epochs": 10, "hidden": (256,), "share": 0.5,
    },
    ("conv", "dvs128"): {
        "steps": 10, "epochs": 30, "round_epochs": 10, "hidden": (8, 64), "share": 0.45,
    },
    ("recurrent", "dvs128"): {
        "steps": 10, "epochs": 30, "round_epochs": 10, "hidden": (256,), "share": 0.5,
    },
}  # fmt: skip
# The published networks: T as published, weights of the published widths.
_DEEP: dict[str, dict[str, Any]] = {
    "digits": {"steps": 5, "epochs": 18, "round_epochs": 7, "batch_size": 32, "lr": 5e-3},
    "mnist": {"steps": 5, "epochs": 4, "round_epochs": 2},
    "nmnist": {"steps": 10, "epochs": 16, "round_epochs": 5},
    # A fifth of the published epochs, and of the epoch that rounds go back to.
    "cifar10": {"steps": 5, "epochs": 60, "round_epochs": 56, "shift": 4},
    "dvs128": {"steps": 10, "epochs": 48, "round_epochs": 16},
}


def defaults_of(arch: str, data: str) -> dict[str, Any]:
    """Return the settings of a network on a data set, by TrainConfig's names.

    share_per_round: of the survivors that a pruning round removes. layer_adaptive: behind a batch
    norm, the scale of a layer's weights says nothing about the others'.
    """
    own = _SMALL.get((arch, data))
    if arch == "spikformer-tiny":  # its keep channel is not moved
        own = {**_DEEP[data], "hidden": (64, 2), "share": 0.37, "lr": 1e-2, "shift": 0}
    elif own is None:
        own = {"hidden": (64,), "share": 0.25, "lr": 2e-3, **_DEEP[data]}
    found = {**_DATA[data], **own}
    found["share_per_round"] = found.pop("share")
    return {"layer_adaptive": arch not in ("mlp", "recurrent"), "downscale": 1, **found}
