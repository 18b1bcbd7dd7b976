"""What reproduce.py trains: every job by name, its settings, and what must be there before it.

A job is one ticket: a method, a sparsity, a seed, on one of four protocols. Settings that are not
named are the defaults of ``snn-deploy train``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SEEDS = (0, 1, 2)
QUICK_SEEDS = (0,)

# Where a job trains. small: the 10,000-image protocol; full: all of MNIST; events: recordings.
_SMALL = {
    "data": "mnist", "arch": "mlp", "hidden": (256, 256), "steps": 5, "limit": 10_000,
    "epochs": 4, "round_epochs": 4, "rewind_epoch": 1,
}  # fmt: skip
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "small": _SMALL,
    "full": {**_SMALL, "hidden": (256, 128), "steps": 8, "limit": None, "round_epochs": 2},
    "events": {"data": "nmnist", "arch": "mlp", "hidden": (256,), "steps": 20},
    "patches": {"data": "mnist", "arch": "spikformer-tiny", "steps": 5, "epochs": 4},
}
# What --quick trains instead: a sixth of the images, half the recordings' epochs.
QUICK: Mapping[str, Mapping[str, Any]] = {
    "full": {"limit": 10_000},
    "events": {"epochs": 8, "round_epochs": 3, "rewind_epoch": 3},
    "patches": {"limit": 5_000, "epochs": 2},
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


def jobs(quick: bool, seeds: tuple[int, ...]) -> list[Job]:
    """Return every job, those that others need first."""
    found: list[Job] = []
    for seed in seeds:
        for maker in (_imp, _early, _rewired, _grown, _cutoff, _untrained, _balanced):
            for job in maker(seed):
                found.append(job)
    return sorted(found, key=lambda job: job.needs is not None)


def settings_of(job: Job, quick: bool) -> dict[str, Any]:
    """Return all settings of a job's training."""
    changed = QUICK.get(job.protocol, {}) if quick else {}
    return {**PROTOCOLS[job.protocol], **changed, **job.settings, "seed": job.seed}


def _imp(seed: int) -> Iterator[Job]:
    def job(label: str, protocol: str, needs: str | None = None, **settings: Any) -> Job:
        return Job(
            section="imp", label=label, protocol=protocol, seed=seed, settings=settings, needs=needs
        )

    for sparsity in (0.9, 0.98):
        ticket = job(f"imp {sparsity:g}", "small", method="imp", sparsity=sparsity)
        yield ticket
        for label, method, params in (
            ("reinit", "reinit", {}),
            ("random layer", "random", {"layout": "layer"}),
        ):
            yield job(
                f"{label} {sparsity:g}", "small", ticket.name,
                method=method, sparsity=sparsity, params=params,
            )  # fmt: skip
        yield job(
            f"random global {sparsity:g}", "small",
            method="random", sparsity=sparsity, params={"layout": "global"},
        )  # fmt: skip
        yield job(f"snip {sparsity:g}", "small", method="snip", sparsity=sparsity)
    yield job("imp 0.97", "full", method="imp", sparsity=0.97)
    yield job("imp 0.9", "events", method="imp", sparsity=0.9)


def _early(seed: int) -> Iterator[Job]:
    for sparsity in (0.9, 0.98):
        yield Job(
            section="early", label=f"et {sparsity:g}", protocol="small", seed=seed,
            settings={"method": "et", "sparsity": sparsity},
        )  # fmt: skip
    for coding in ("direct",):
        yield Job(
            section="early", label=f"et 0.9 {coding}", protocol="small", seed=seed,
            settings={"method": "et", "sparsity": 0.9, "coding": coding},
        )  # fmt: skip
    yield Job(
        section="early", label="et 0.9", protocol="events", seed=seed,
        settings={"method": "et", "sparsity": 0.9},
    )  # fmt: skip
    for sparsity in (0.683, 0.822, 0.899, 0.957, 0.981):
        yield Job(
            section="early", label=f"eb {sparsity:g}", protocol="small", seed=seed,
            settings={"method": "eb", "sparsity": sparsity, "epochs": 20},
        )  # fmt: skip


def _rewired(seed: int) -> Iterator[Job]:
    base = {"hidden": (400,), "epochs": 12}
    for prior in (0.0, 0.02, 0.05, 0.2, 0.5):
        yield Job(
            section="rewired", label=f"gradr {prior:g}", protocol="full", seed=seed,
            settings={**base, "method": "gradr", "sparsity": 0.95, "params": {"prior": prior}},
        )  # fmt: skip
    for sparsity in (0.75, 0.97):
        yield Job(
            section="rewired", label=f"stds {sparsity:g}", protocol="full", seed=seed,
            settings={**base, "method": "stds", "sparsity": sparsity},
        )  # fmt: skip
    yield Job(
        section="rewired", label="gradr 0.2", protocol="events", seed=seed,
        settings={"method": "gradr", "sparsity": 0.95, "params": {"prior": 0.2}},
    )  # fmt: skip


GROWN = ("ndsnn", "rigl", "set", "static")


def _grown(seed: int) -> Iterator[Job]:
    for sparsity in (0.95, 0.98, 0.99):
        for method in GROWN:
            yield Job(
                section="grown", label=f"{method} {sparsity:g}", protocol="small", seed=seed,
                settings={"method": method, "sparsity": sparsity, "epochs": 12},
            )  # fmt: skip
        yield Job(
            section="grown", label=f"imp {sparsity:g}", protocol="small", seed=seed,
            settings={
                "method": "imp", "sparsity": sparsity, "epochs": 12, "round_epochs": 12,
                "rewind_epoch": 1,
            },
        )  # fmt: skip
    for method in GROWN:
        yield Job(
            section="grown", label=f"{method} 0.95", protocol="events", seed=seed,
            settings={"method": method, "sparsity": 0.95, "epochs": 60},
        )  # fmt: skip


def _cutoff(seed: int) -> Iterator[Job]:
    base = {"method": "imp", "sparsity": 0.9, "steps": 20}
    for penalty in (0.0, 0.002):
        yield Job(
            section="cutoff", label=f"penalty {penalty:g}", protocol="small", seed=seed,
            settings={**base, "rate_penalty": penalty or None},
        )  # fmt: skip
    yield Job(
        section="cutoff", label="penalty 0", protocol="events", seed=seed,
        settings={"method": "imp", "sparsity": 0.9},
    )  # fmt: skip


def _untrained(seed: int) -> Iterator[Job]:
    for label, settings in (
        ("dense", {"method": "imp", "sparsity": 0.0}),
        ("connection", {"method": "connection", "sparsity": 0.5}),
        ("connection binary", {"method": "connection", "sparsity": 0.5, "params": {"binary": 1}}),
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
