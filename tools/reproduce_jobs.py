"""What reproduce.py trains: every job by name, its settings, and what must be there before it.

A job is one ticket: a method, a sparsity, a seed, on one of four protocols. Settings that are not
named are the defaults of ``snn-deploy train``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SECTIONS = ("imp", "early", "rewired", "grown", "cutoff", "untrained", "balanced", "patches")
# Where a job trains. small: the 10,000-image protocol; full: all of MNIST; events: recordings.
_SMALL = {
    "data": "mnist", "arch": "mlp", "hidden": (256, 256), "steps": 5, "limit": 10_000,
    "epochs": 4, "round_epochs": 4, "rewind_epoch": 1,
}  # fmt: skip
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "small": _SMALL,
    "slower": {**_SMALL, "lr": 4e-3},
    "gentle": {**_SMALL, "lr": 2e-3},
    # Direct coding, and torch's own initial weights.
    "plain": {**_SMALL, "coding": "direct", "weight_scale": 1 / 3},
    "full": {**_SMALL, "hidden": (256, 128), "steps": 8, "limit": None, "round_epochs": 2},
    "wide": {**_SMALL, "hidden": (400,), "limit": None, "epochs": 8},
    "long": {**_SMALL, "steps": 20},
    "events": {"data": "nmnist", "arch": "mlp", "hidden": (256,), "steps": 20},
    "patches": {
        "data": "mnist",
        "arch": "spikformer-tiny",
        "hidden": (32, 1),
        "steps": 5,
        "limit": 10_000,
        "epochs": 6,
        "round_epochs": 2,
    },
    "digit patches": {"data": "digits", "arch": "spikformer-tiny"},
}
# What --quick trains instead: a sixth of the images, half the recordings' epochs.
QUICK: Mapping[str, Mapping[str, Any]] = {
    "full": {"limit": 10_000},
    "wide": {"limit": 10_000},
    "events": {"epochs": 8, "round_epochs": 3, "rewind_epoch": 3},
    "patches": {"limit": 5_000, "epochs": 3},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One ticket. section: the part of the report that asks for it; settings: of TrainConfig;
    needs: the job whose masks it takes.
    """

    section: str
    label: str
    protocol: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs: str | None = None

    @property
    def name(self) -> str:
        """A name that no other job has."""
        return f"{self.section}/{self.label}/{self.protocol}/{self.seed}"


def jobs(seeds: tuple[int, ...]) -> list[Job]:
    """Return every job, seed by seed."""
    makers = (_imp, _early, _rewired, _grown, _cutoff, _untrained, _balanced, _patches)
    return [job for seed in seeds for maker in makers for job in maker(seed)]


def settings_of(job: Job, quick: bool) -> dict[str, Any]:
    """Return all settings of a job's training."""
    changed = QUICK.get(job.protocol, {}) if quick else {}
    return {**PROTOCOLS[job.protocol], **changed, **job.settings, "seed": job.seed}


def _imp(seed: int) -> Iterator[Job]:
    def job(label: str, protocol: str, needs: str | None = None, **settings: Any) -> Job:
        return Job(
            section="imp", label=label, protocol=protocol, seed=seed, settings=settings, needs=needs
        )

    for protocol, sparsity in itertools.product(
        ("small", "slower", "gentle", "plain"), (0.9, 0.98)
    ):
        ticket = job(f"imp {sparsity:g}", protocol, method="imp", sparsity=sparsity)
        yield ticket
        for label, method, params in (
            ("reinit", "reinit", {}),
            ("random layer", "random", {"layout": "layer"}),
        ):
            yield job(
                f"{label} {sparsity:g}", protocol, ticket.name,
                method=method, sparsity=sparsity, params=params,
            )  # fmt: skip
        yield job(
            f"random global {sparsity:g}", protocol,
            method="random", sparsity=sparsity, params={"layout": "global"},
        )  # fmt: skip
        yield job(f"snip {sparsity:g}", protocol, method="snip", sparsity=sparsity)
    yield job("imp 0.97", "full", method="imp", sparsity=0.97, rounds=5)
    yield job("imp 0.9", "events", method="imp", sparsity=0.9)


def _early(seed: int) -> Iterator[Job]:
    for sparsity in (0.9, 0.98):
        yield Job(
            section="early", label=f"et {sparsity:g}", protocol="small", seed=seed,
            settings={"method": "et", "sparsity": sparsity},
        )  # fmt: skip
    yield Job(
        section="early", label="et 0.9 direct", protocol="small", seed=seed,
        settings={"method": "et", "sparsity": 0.9, "coding": "direct"},
    )  # fmt: skip
    yield Job(
        section="early", label="et 0.9", protocol="events", seed=seed,
        settings={"method": "et", "sparsity": 0.9},
    )  # fmt: skip
    for sparsity in (0.683, 0.822, 0.899, 0.957, 0.981):
        yield Job(
            section="early", label=f"eb {sparsity:g}", protocol="small", seed=seed,
            settings={"method": "eb", "sparsity": sparsity, "epochs": 8},
        )  # fmt: skip


def _rewired(seed: int) -> Iterator[Job]:
    for prior in (0.0, 0.01, 0.03, 0.1):
        yield Job(
            section="rewired", label=f"gradr {prior:g}", protocol="wide", seed=seed,
            settings={"method": "gradr", "sparsity": 0.95, "params": {"prior": prior}},
        )  # fmt: skip
    yield Job(
        section="rewired", label="stds 0.97", protocol="wide", seed=seed,
        settings={"method": "stds", "sparsity": 0.97},
    )  # fmt: skip
    yield Job(
        section="rewired", label="gradr 0.1", protocol="events", seed=seed,
        settings={"method": "gradr", "sparsity": 0.95, "epochs": 20, "params": {"prior": 0.1}},
    )  # fmt: skip


GROWN = ("ndsnn", "rigl", "set", "static")


SPARSITIES = (0.95, 0.98, 0.99)
# Epochs that cost about as much as ndsnn's 12.
AS_COSTLY = {
    ("rigl", 0.95): 28, ("set", 0.95): 23, ("static", 0.95): 22,
    ("rigl", 0.98): 60, ("set", 0.98): 44, ("static", 0.98): 42,
    ("rigl", 0.99): 160, ("set", 0.99): 96, ("static", 0.99): 88,
}  # fmt: skip


def _grown(seed: int) -> Iterator[Job]:
    def job(label: str, protocol: str, **settings: Any) -> Job:
        return Job(section="grown", label=label, protocol=protocol, seed=seed, settings=settings)

    for sparsity in SPARSITIES:
        for method in GROWN:
            yield job(
                f"{method} {sparsity:g}", "small", method=method, sparsity=sparsity, epochs=12
            )
        # As many epochs as each round of magnitude pruning has, and that pruning.
        yield job(f"ndsnn short {sparsity:g}", "small", method="ndsnn", sparsity=sparsity)
        yield job(f"imp {sparsity:g}", "small", method="imp", sparsity=sparsity)
    for (method, sparsity), epochs in AS_COSTLY.items():
        yield job(
            f"{method} long {sparsity:g}", "small", method=method, sparsity=sparsity, epochs=epochs
        )
    for method in GROWN:
        yield job(f"{method} 0.95", "events", method=method, sparsity=0.95, epochs=20)


def _cutoff(seed: int) -> Iterator[Job]:
    for penalty in (0.0, 0.002):
        yield Job(
            section="cutoff", label=f"penalty {penalty:g}", protocol="long", seed=seed,
            settings={
                "method": "imp", "sparsity": 0.9, "rounds": 4, "rate_penalty": penalty or None,
                "epsilon": 0.01,
            },
        )  # fmt: skip
    yield Job(
        section="cutoff", label="penalty 0", protocol="events", seed=seed,
        settings={"method": "imp", "sparsity": 0.9, "epsilon": 0.01},
    )  # fmt: skip


def _untrained(seed: int) -> Iterator[Job]:
    for label, settings in (
        ("dense", {"method": "imp", "sparsity": 0.0}),
        ("connection", {"method": "connection", "sparsity": 0.5}),
        (
            "connection binary",
            {"method": "connection", "sparsity": 0.5, "params": {"binary": True}},
        ),
    ):
        yield Job(
            section="untrained", label=label, protocol="full", seed=seed,
            settings={**settings, "epochs": 8},
        )  # fmt: skip


def _balanced(seed: int) -> Iterator[Job]:
    for sparsity in (0.9, 0.98):
        yield Job(
            section="balanced", label=f"uticket {sparsity:g}", protocol="small", seed=seed,
            settings={"method": "uticket", "sparsity": sparsity},
        )  # fmt: skip


def _patches(seed: int) -> Iterator[Job]:
    for protocol, share in itertools.product(("patches", "digit patches"), (1.0, 0.7)):
        yield Job(
            section="patches", label=f"patch {share:g}", protocol=protocol, seed=seed,
            settings={"method": "patch", "sparsity": 0.5, "params": {"patches": share}},
        )  # fmt: skip
