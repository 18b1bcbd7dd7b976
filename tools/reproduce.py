"""Reproduce the papers: train every method, measure it, deploy its ticket, write the report.

    python tools/reproduce.py --mnist FOLDER --nmnist FOLDER [--quick] [--seeds 3] [--workers 1]
                              [--only SECTION] [--work FOLDER] [--deploy] [--write]

Jobs stand in reproduce_jobs.py. Each one's figures are kept in WORK/results.json as they come, its
ticket beside them; a second call goes on where the first was stopped, also within a training.
--quick trains on fewer images and with one seed: minutes per section. --write makes
docs/reproduction.md and docs/measured/reproduction.json from what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import reproduce_jobs  # noqa: E402
from reproduce_jobs import Job  # noqa: E402

Results = dict[str, dict[str, Any]]


def ticket_of(work: Path, name: str) -> Path:
    """Return where a job's ticket stands."""
    return work / f"{name.replace('/', '-').replace(' ', '_')}.pt"


def config_of(job: Job, work: Path, folders: dict[str, Path], quick: bool) -> Any:
    """Return a job's TrainConfig."""
    from snn_deploy.tickets.trainer import TrainConfig, checkpoint_path

    settings = reproduce_jobs.settings_of(job, quick)
    out = ticket_of(work, job.name)
    return TrainConfig(
        out=out,
        data_dir=folders.get(settings["data"]),
        masks_from=None if job.needs is None else ticket_of(work, job.needs),
        resume=checkpoint_path(out).is_file(),
        force=True,
        **settings,
    )


def train_one(job: Job, work: Path, folders: dict[str, Path], quick: bool) -> dict[str, Any]:
    """Train one ticket, unless it is there, and return its figures."""
    from dataclasses import asdict

    from snn_deploy.tickets.trainer import train

    start = time.perf_counter()
    result = train(config_of(job, work, folders, quick))
    return {
        "settings": reproduce_jobs.settings_of(job, quick),
        "dense": result.dense_accuracy,
        "accuracy": result.ticket_accuracy,
        "sparsity": result.sparsity,
        "found": result.found,
        "cutoff": None if result.cutoff is None else result.cutoff.as_json(),
        "rounds": [asdict(r) for r in result.rounds],
        "timestep_epochs": result.timestep_epochs,
        "cost": result.cost,
        "seconds": time.perf_counter() - start,
    }


def load_of(ticket: Path) -> dict[str, Any]:
    """Return the load of 16 processing elements that a ticket's masks cause."""
    import torch

    from snn_deploy.io.ticket import read_ticket
    from snn_deploy.tickets.balance import mask_load

    masks = {name: torch.from_numpy(m.copy()) for name, m in read_ticket(ticket).masks.items()}
    load = mask_load({name: m for name, m in masks.items() if m.ndim > 1}, 16)
    return {"utilisation": load.utilisation, "idle": load.idle, "cycles": load.cycles}


class Store:
    """Results by job name, in a file that is whole at every moment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.results: Results = json.loads(path.read_text()) if path.is_file() else {}

    def add(self, name: str, values: dict[str, Any]) -> None:
        """Keep the figures of one job."""
        self.results[name] = values
        text = json.dumps(self.results, indent=1, sort_keys=True, default=str)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(text + "\n")
        os.replace(temporary, self._path)


def run(jobs: list[Job], store: Store, work: Path, options: argparse.Namespace) -> None:
    """Train what is missing; a job that others need goes before them."""
    folders = {"mnist": options.mnist, "nmnist": options.nmnist}
    names = {job.name for job in jobs}
    waiting = [job for job in jobs if job.name not in store.results]
    with ProcessPoolExecutor(options.workers) as pool:
        running: dict[Any, Job] = {}
        while waiting or running:
            ready = [
                job
                for job in waiting
                if job.needs is None or job.needs in store.results or job.needs not in names
            ]
            for job in ready[: options.workers - len(running)]:
                waiting.remove(job)
                running[pool.submit(train_one, job, work, folders, options.quick)] = job
            done = next(as_completed(running))
            job = running.pop(done)
            store.add(job.name, done.result())
            values = store.results[job.name]
            print(
                f"{job.name}: {100 * values['accuracy']:.2f} % at "
                f"{100 * values['sparsity']:.2f} % sparsity, {values['seconds']:.0f} s",
                flush=True,
            )


def add_shares(job: Job, store: Store, work: Path, folders: dict[str, Path], quick: bool) -> None:
    """Keep what fewer patches save, of one network."""
    import reproduce_deploy

    from snn_deploy.tickets.samples import save_test_set

    ticket = ticket_of(work, job.name)
    samples = ticket.with_suffix(".npz")
    save_test_set(config_of(job, work, folders, quick), samples, force=True)
    shares = reproduce_deploy.shares(ticket, samples)
    store.add(job.name, {**store.results[job.name], "shares": shares})


def deploy_all(store: Store, work: Path, folders: dict[str, Path]) -> None:
    """Take one ticket of every method to every target."""
    import reproduce_deploy

    from snn_deploy.tickets.samples import save_test_set

    jobs = {job.name: job for job in reproduce_jobs.jobs((0,))}
    for method, name in reproduce_deploy.TICKETS.items():
        if name not in store.results or f"deploy/{method}" in store.results:
            continue
        ticket, quick = ticket_of(work, name), work.name == "quick"
        samples = ticket.with_suffix(".npz")
        save_test_set(config_of(jobs[name], work, folders, quick), samples, force=True)
        store.add(f"deploy/{method}", reproduce_deploy.deploy(ticket, samples))
        print(f"deployed {method}", flush=True)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's four .gz files")
    parser.add_argument("--nmnist", type=Path, help="folder of N-MNIST recordings")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=None)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", action="append", choices=reproduce_jobs.SECTIONS)
    parser.add_argument("--work", type=Path, default=Path("reproduction"))
    parser.add_argument("--deploy", action="store_true", help="verify and compare tickets too")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    seeds = options.seeds or (1 if options.quick else 3)
    work = options.work / ("quick" if options.quick else "full")
    work.mkdir(parents=True, exist_ok=True)
    store = Store(work / "results.json")
    folders = {"mnist": options.mnist, "nmnist": options.nmnist}
    jobs = [
        job
        for job in reproduce_jobs.jobs(tuple(range(seeds)))
        if (not options.only or job.section in options.only)
        and folders.get(reproduce_jobs.PROTOCOLS[job.protocol]["data"], ROOT) is not None
    ]
    run(jobs, store, work, options)
    for name in [n for n in store.results if n.startswith(("imp/imp", "balanced/"))]:
        if "load" not in store.results[name]:
            store.add(name, {**store.results[name], "load": load_of(ticket_of(work, name))})
    for job in jobs:
        if job.label == "patch 0.7" and "shares" not in store.results[job.name]:
            add_shares(job, store, work, folders, options.quick)
    if options.deploy:
        deploy_all(store, work, folders)
    if options.write:
        import reproduce_text

        reproduce_text.write(store.results, ROOT / "docs")


if __name__ == "__main__":
    main()
